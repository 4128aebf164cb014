//! The table of results, and which goals were missed.

use std::fmt;

use flotilla_figures::{line::Figure, what};

/// Results, a row each, printed as Markdown.
#[derive(Debug, Default)]
pub struct Table {
    title: &'static str,
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    what: String,
    flotilla: String,
    systemd: String,
    goal: Option<(String, bool)>,
    /// What is kept of it, of rows that are one figure.
    figure: Option<Figure>,
}

impl Table {
    pub fn new(title: &'static str) -> Self {
        Self { title, rows: Vec::new() }
    }

    /// Adds a row that nothing is demanded of.
    pub fn row(&mut self, what: impl Into<String>, flotilla: String, systemd: String) {
        self.rows.push(Row { what: what.into(), flotilla, systemd, goal: None, figure: None });
    }

    /// Adds a row whose figure may be at most `most`.
    pub fn at_most(
        &mut self,
        what: impl Into<String>,
        (value, most, unit): (f64, f64, &str),
        systemd: String,
    ) {
        let goal = Some((format!("at most {most} {unit}"), value <= most));
        let what = what.into();
        let figure = Some(figure(&what, value, unit, most, false));
        self.rows.push(Row { what, flotilla: format!("{value:.1} {unit}"), systemd, goal, figure });
    }

    /// Adds a row whose figure has to be at least `least`.
    pub fn at_least(
        &mut self,
        what: impl Into<String>,
        (value, least, unit): (f64, f64, &str),
        systemd: String,
    ) {
        let goal = Some((format!("at least {least} {unit}"), value >= least));
        let what = what.into();
        let figure = Some(figure(&what, value, unit, least, true));
        self.rows.push(Row { what, flotilla: format!("{value:.1} {unit}"), systemd, goal, figure });
    }

    /// Adds a row of rates, each with systemd's own of the same round, of which the median round's has to be that share.
    pub fn rate(&mut self, units: usize, rounds: &[(f64, f64)], share: f64) {
        let mut rounds = rounds.to_vec();
        rounds.sort_by(|one, other| (one.0 / one.1).total_cmp(&(other.0 / other.1)));
        let nothing = (f64::NAN, f64::NAN);
        let (flotilla, systemd) = rounds.get(rounds.len() / 2).copied().unwrap_or(nothing);
        let ratio = flotilla / systemd;
        let at = |place: Option<&(f64, f64)>| place.map(|(flotilla, systemd)| flotilla / systemd);
        self.rows.push(Row {
            what: format!("{units} units at once, median of {}", rounds.len()),
            figure: Some(Figure {
                least: at(rounds.first()),
                most: at(rounds.last()),
                runs: Some(rounds.len() as u64),
                ..figure(&what::share_of_systemd(units), ratio, "", share, true)
            }),
            flotilla: format!("{flotilla:.0}/s ({ratio:.2})"),
            systemd: format!("{systemd:.0}/s"),
            goal: Some((format!("at least {share} of systemd's"), ratio >= share)),
        });
    }

    /// The rows that are figures.
    pub fn figures(&self) -> impl Iterator<Item = &Figure> {
        self.rows.iter().filter_map(|row| row.figure.as_ref())
    }

    /// The rows whose goal was missed, in words.
    pub fn missed(&self) -> Vec<String> {
        let missed = self.rows.iter().filter_map(|row| {
            let (goal, met) = row.goal.as_ref()?;
            (!met).then(|| format!("{}: {}, goal: {goal}", row.what, row.flotilla))
        });
        missed.collect()
    }
}

fn figure(what: &str, value: f64, unit: &str, goal: f64, at_least: bool) -> Figure {
    let (what, unit) = (what.to_owned(), unit.to_owned());
    Figure { what, value, unit, goal: Some(goal), at_least, ..Figure::default() }
}

/// Whether a run with these missed goals ends as a failure: only if they were to be checked.
pub const fn fails(check: bool, missed: &[String]) -> bool {
    check && !missed.is_empty()
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n| {} | flotilla | systemd alone | goal | |", self.title)?;
        writeln!(f, "| --- | --- | --- | --- | --- |")?;
        for row in &self.rows {
            let (goal, met) = match &row.goal {
                Some((goal, met)) => (goal.as_str(), if *met { "met" } else { "**missed**" }),
                None => ("", ""),
            };
            writeln!(f, "| {} | {} | {} | {goal} | {met} |", row.what, row.flotilla, row.systemd)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missed_goal_is_named() {
        let mut table = Table::new("start");
        table.at_most("p50", (29.0, 30.0, "ms"), "5 ms".to_owned());
        table.rate(300, &[(80.0, 100.0), (60.0, 100.0), (50.0, 100.0)], 0.7);
        assert_eq!(
            table.missed(),
            ["300 units at once, median of 3: 60/s (0.60), goal: at least 0.7 of systemd's"]
        );
        let kept: Vec<_> = table.figures().map(|figure| (figure.value, figure.least, figure.most)).collect();
        assert_eq!(kept, [(29.0, None, None), (0.6, Some(0.5), Some(0.8))]);
        assert!(fails(true, &table.missed()) && !fails(false, &table.missed()) && !fails(true, &[]));
        assert!(table.to_string().contains("| p50 | 29.0 ms | 5 ms | at most 30 ms | met |"), "{table}");
    }

    /// A goal that could not be measured is one that was missed.
    #[test]
    fn goals_are_met_at_their_bound_and_not_by_what_is_no_number() {
        let mut table = Table::new("start");
        table.at_most("p99", (100.0, 100.0, "ms"), String::new());
        table.rate(300, &[(70.0, 100.0)], 0.7);
        table.at_least("lines", (500.0, 500.0, "lines/s"), String::new());
        assert_eq!(table.missed(), Vec::<String>::new());
        table.at_most("p50", (f64::NAN, 30.0, "ms"), String::new());
        table.rate(300, &[], 0.7);
        table.at_least("lines", (499.0, 500.0, "lines/s"), String::new());
        table.at_least("lines", (f64::NAN, 500.0, "lines/s"), String::new());
        assert_eq!(table.missed().len(), 4, "{table}");
    }
}
