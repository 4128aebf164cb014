//! A chart of lines on logarithmic axes, as SVG that is readable on light and dark pages and without colours.

use std::fmt::Write as _;

/// A chart.
#[derive(Debug)]
pub struct Plot {
    /// What it shows.
    pub title: String,
    /// Of what it is, in smaller letters.
    pub subtitle: String,
    /// What is along the bottom.
    pub across: &'static str,
    /// What is up the side, with its unit.
    pub up: String,
    /// The lines.
    pub lines: Vec<Series>,
}

/// A line of a chart.
#[derive(Debug)]
pub struct Series {
    /// What it is called in the legend.
    pub name: String,
    /// Its points from left to right.
    pub points: Vec<Point>,
}

/// A point with its spread.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Along the bottom.
    pub x: f64,
    /// Up the side: the median.
    pub y: f64,
    /// The least of it.
    pub least: f64,
    /// The most of it.
    pub most: f64,
}

/// Width and height, and what is kept free for words at the left, right, top and bottom, in pixels.
const SIZE: (f64, f64) = (760.0, 460.0);
const LEFT: f64 = 78.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 66.0;
const BOTTOM: f64 = 56.0;

/// The height of a row of the legend, and how many names are in one.
const LEGEND_ROW: f64 = 20.0;
const LEGEND_COLUMNS: usize = 2;

/// How many of a decade's steps have a line, where the axis has few decades.
const STEPS: [f64; 3] = [1.0, 2.0, 5.0];

/// Above so many decades only whole ones have a line.
const FEW_DECADES: i32 = 3;

/// Colours of the lines on white and on black; told apart by their marks as well.
const COLOURS: [(&str, &str); 6] = [
    ("#0a62b5", "#63b3ff"),
    ("#c2410c", "#ff9a57"),
    ("#15803d", "#5ee08a"),
    ("#8b2fb0", "#d79bff"),
    ("#9a6700", "#e8c14a"),
    ("#b3155c", "#ff8fc0"),
];

/// One axis: a decade is `10^from` to `10^(from + 1)`.
struct Axis {
    from: f64,
    to: f64,
    /// Where it is in the picture.
    start: f64,
    end: f64,
}

impl Axis {
    /// From the step below the least value to the one above the most.
    fn around(values: impl Iterator<Item = f64>, start: f64, end: f64) -> Self {
        let (mut least, mut most) = (f64::INFINITY, 0.0_f64);
        for value in values.filter(|value| value.is_finite() && *value > 0.0) {
            least = least.min(value);
            most = most.max(value);
        }
        if most == 0.0 {
            (least, most) = (1.0, 10.0);
        }
        // A flat line is to look flat: less than two decades would make hills of what varies between runs.
        let (mut from, mut to) = (least.log10().floor(), most.log10().ceil());
        while to - from < 2.0 {
            if least.log10() - from < to - most.log10() { from -= 1.0 } else { to += 1.0 }
        }
        Self { from, to, start, end }
    }

    fn place(&self, value: f64) -> f64 {
        self.start + (value.log10() - self.from) / (self.to - self.from) * (self.end - self.start)
    }

    /// Where lines are, and whether they have a number.
    fn steps(&self) -> Vec<(f64, bool)> {
        let decades = (self.to - self.from) as i32;
        let mut steps = Vec::new();
        for decade in 0..=decades {
            for step in STEPS {
                let value = step * 10_f64.powi(self.from as i32 + decade);
                if value.log10() <= self.to + 1e-9 && (step == 1.0 || decades <= FEW_DECADES) {
                    steps.push((value, step == 1.0 || decades <= 2));
                }
            }
        }
        steps
    }
}

impl Plot {
    /// Draws it. The same data gives the same text.
    pub fn svg(&self) -> String {
        let rows = self.lines.len().div_ceil(LEGEND_COLUMNS) as f64;
        let (width, height) = (SIZE.0, SIZE.1 + rows * LEGEND_ROW);
        let bottom = height - BOTTOM;
        let top = TOP + rows * LEGEND_ROW;
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let x = Axis {
            // Half a step beyond the first and the last, so that no mark is on the frame.
            from: points().map(|point| point.x.log10()).fold(1.0, f64::min) - 0.12,
            to: points().map(|point| point.x.log10()).fold(4.0, f64::max) + 0.12,
            start: LEFT,
            end: width - RIGHT,
        };
        let y = Axis::around(points().flat_map(|point| [point.least, point.y, point.most]), bottom, top);
        let mut out = String::new();
        self.begin(&mut out, width, height);
        grid(&mut out, &x, &y);
        self.words(&mut out, &x, &y, height);
        for (number, line) in self.lines.iter().enumerate() {
            draw(&mut out, number, line, &x, &y);
            let column = (number % LEGEND_COLUMNS) as f64;
            let across = LEFT + column * (width - LEFT - RIGHT) / LEGEND_COLUMNS as f64;
            let down = TOP + (number / LEGEND_COLUMNS) as f64 * LEGEND_ROW;
            put(
                &mut out,
                format_args!(
                    r#"<line class="l{number}" x1="{across:.0}" y1="{down:.0}" x2="{:.0}" y2="{down:.0}"/>"#,
                    across + 30.0
                ),
            );
            mark(&mut out, number, across + 15.0, down);
            put(
                &mut out,
                format_args!(
                    r#"<text x="{:.0}" y="{:.0}">{}</text>"#,
                    across + 38.0,
                    down + 4.0,
                    escaped(&line.name)
                ),
            );
        }
        out.push_str("</svg>\n");
        out
    }

    fn begin(&self, out: &mut String, width: f64, height: f64) {
        put(
            out,
            format_args!(
                r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0} {height:.0}" width="{width:.0}" height="{height:.0}" role="img">"#
            ),
        );
        put(out, format_args!("<title>{}: {}</title>", escaped(&self.title), escaped(&self.subtitle)));
        let colours = |dark: bool| {
            let mut text = String::new();
            for (number, colour) in COLOURS.iter().enumerate() {
                let colour = if dark { colour.1 } else { colour.0 };
                // Writing into a string cannot fail.
                _ = write!(text, ".l{number}{{stroke:{colour}}}.m{number}{{fill:{colour};stroke:{colour}}}");
            }
            text
        };
        put(
            out,
            format_args!(
                "<style>text{{font:13px system-ui,'DejaVu Sans',sans-serif;fill:#24292f}}.t{{font-size:17px;font-weight:600}}\
             .s{{fill:#57606a}}.b{{fill:#fff}}.g{{stroke:#d8dee4;stroke-width:1}}.h{{stroke:#eceff2;stroke-width:1}}\
             .f{{fill:none;stroke:#8c959f}}polyline,[class^=l]{{fill:none;stroke-width:2}}[class^=m]{{stroke-width:1.5}}polyline.l4,polyline.l5{{stroke-dasharray:7 4}}{}\
             @media(prefers-color-scheme:dark){{text{{fill:#e6edf3}}.s{{fill:#9da7b3}}.b{{fill:#0d1117}}.g{{stroke:#30363d}}\
             .h{{stroke:#21262d}}.f{{stroke:#6e7681}}{}}}</style>",
                colours(false),
                colours(true)
            ),
        );
        put(out, format_args!(r#"<rect class="b" width="{width:.0}" height="{height:.0}"/>"#));
    }

    fn words(&self, out: &mut String, x: &Axis, y: &Axis, height: f64) {
        put(out, format_args!(r#"<text class="t" x="{LEFT:.0}" y="24">{}</text>"#, escaped(&self.title)));
        put(out, format_args!(r#"<text class="s" x="{LEFT:.0}" y="44">{}</text>"#, escaped(&self.subtitle)));
        put(
            out,
            format_args!(
                r#"<text class="s" x="{:.0}" y="{:.0}" text-anchor="middle">{}</text>"#,
                f64::midpoint(x.start, x.end),
                height - 12.0,
                self.across
            ),
        );
        let middle = f64::midpoint(y.start, y.end);
        put(
            out,
            format_args!(
                r#"<text class="s" x="18" y="{middle:.0}" text-anchor="middle" transform="rotate(-90 18 {middle:.0})">{}</text>"#,
                escaped(&self.up)
            ),
        );
    }
}

fn grid(out: &mut String, x: &Axis, y: &Axis) {
    for (value, has_number) in y.steps() {
        let (at, class) = (y.place(value), if has_number { "g" } else { "h" });
        put(
            out,
            format_args!(
                r#"<line class="{class}" x1="{:.0}" y1="{at:.1}" x2="{:.0}" y2="{at:.1}"/>"#,
                x.start, x.end
            ),
        );
        if has_number {
            put(
                out,
                format_args!(
                    r#"<text class="s" x="{:.0}" y="{:.1}" text-anchor="end">{}</text>"#,
                    x.start - 8.0,
                    at + 4.5,
                    short(value)
                ),
            );
        }
    }
    let mut decade = 10_f64.powf(x.from).log10().ceil() as i32;
    while f64::from(decade) <= x.to {
        let value = 10_f64.powi(decade);
        let at = x.place(value);
        put(
            out,
            format_args!(
                r#"<line class="g" x1="{at:.1}" y1="{:.0}" x2="{at:.1}" y2="{:.0}"/>"#,
                y.start, y.end
            ),
        );
        put(
            out,
            format_args!(
                r#"<text class="s" x="{at:.1}" y="{:.0}" text-anchor="middle">{}</text>"#,
                y.start + 20.0,
                short(value)
            ),
        );
        decade += 1;
    }
    put(
        out,
        format_args!(
            r#"<rect class="f" x="{:.0}" y="{:.0}" width="{:.0}" height="{:.0}"/>"#,
            x.start,
            y.end,
            x.end - x.start,
            y.start - y.end
        ),
    );
}

fn draw(out: &mut String, number: usize, line: &Series, x: &Axis, y: &Axis) {
    let points: Vec<&Point> =
        line.points.iter().filter(|point| point.y > 0.0 && point.y.is_finite()).collect();
    let path: Vec<String> =
        points.iter().map(|point| format!("{:.1},{:.1}", x.place(point.x), y.place(point.y))).collect();
    put(out, format_args!(r#"<polyline class="l{number}" points="{}"/>"#, path.join(" ")));
    for point in points {
        let at = x.place(point.x);
        if point.least > 0.0 && point.most > point.least {
            let (low, high) = (y.place(point.least), y.place(point.most));
            put(
                out,
                format_args!(
                    r#"<path class="l{number}" d="M{:.1} {low:.1}h8m-4 0V{high:.1}m-4 0h8"/>"#,
                    at - 4.0
                ),
            );
        }
        mark(out, number, at, y.place(point.y));
    }
}

/// A mark of its own for each line.
fn mark(out: &mut String, number: usize, x: f64, y: f64) {
    match number % 4 {
        0 => put(out, format_args!(r#"<circle class="m{number}" cx="{x:.1}" cy="{y:.1}" r="4"/>"#)),
        1 => {
            put(out, format_args!(r#"<path class="m{number}" d="M{:.1} {:.1}h8v8h-8z"/>"#, x - 4.0, y - 4.0))
        }
        2 => put(out, format_args!(r#"<path class="m{number}" d="M{x:.1} {:.1}l5 9h-10z"/>"#, y - 5.5)),
        _ => {
            put(out, format_args!(r#"<path class="m{number}" d="M{x:.1} {:.1}l5 5l-5 5l-5 -5z"/>"#, y - 5.0))
        }
    }
}

fn put(out: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing into a string cannot fail.
    _ = writeln!(out, "{line}");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// A number of an axis: 0.5, 20, 1k, 2M.
fn short(value: f64) -> String {
    let (value, letter) = match value {
        large if large >= 1e6 => (value / 1e6, "M"),
        large if large >= 1e3 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    // What powers of ten lose on their way.
    let decimals = if value >= 1.0 { 0 } else { (-value.log10()).ceil() as usize };
    format!("{value:.decimals$}{letter}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(values: &[(f64, f64)]) -> String {
        let points =
            values.iter().map(|(x, y)| Point { x: *x, y: *y, least: y / 2.0, most: y * 2.0 }).collect();
        let lines = vec![Series { name: "a < b".into(), points }];
        Plot { title: "t".into(), subtitle: "s".into(), across: "machines", up: "µs".into(), lines }.svg()
    }

    #[test]
    fn every_point_is_in_the_frame() {
        let svg = plot(&[(10.0, 1.0), (10_000.0, 1e6)]);
        let line = svg.lines().find(|line| line.contains("<polyline")).unwrap();
        let points = line.split('"').find(|part| part.contains(',')).unwrap();
        for point in points.split(' ') {
            let (x, y) = point.split_once(',').unwrap();
            let (x, y): (f64, f64) = (x.parse().unwrap(), y.parse().unwrap());
            assert!(x > LEFT && x < SIZE.0 - RIGHT && y > TOP && y < SIZE.1 + LEGEND_ROW - BOTTOM, "{point}");
        }
        assert!(svg.contains("a &lt; b"));
    }

    #[test]
    fn what_has_no_place_on_the_axis_is_left_out() {
        for value in [0.0, f64::NAN] {
            assert_eq!(plot(&[(10.0, value)]).matches("<circle").count(), 1, "the legend's alone");
        }
    }

    #[test]
    fn a_flat_line_has_two_decades_around_it() {
        let axis = Axis::around([1.2, 1.3].into_iter(), 0.0, 1.0);
        assert_eq!((axis.from, axis.to), (-1.0, 1.0));
        assert_eq!(axis.steps().first().map(|step| step.0), Some(0.1));
    }

    #[test]
    fn numbers_of_an_axis_are_short() {
        let texts = [0.05, 0.1, 1.0, 50.0, 1_000.0, 20_000.0, 5e6].map(short);
        assert_eq!(texts, ["0.05", "0.1", "1", "50", "1k", "20k", "5M"]);
    }
}
