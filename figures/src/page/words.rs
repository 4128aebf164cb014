//! Figures as people read them.

use crate::series::Measure;

/// A figure with its unit.
pub fn figure(value: f64, unit: &str) -> String {
    with_unit(&number(value), unit)
}

/// A number, or what stands for it, with its unit.
pub fn with_unit(number: &str, unit: &str) -> String {
    match unit {
        "" => number.to_owned(),
        rate if rate.starts_with('/') => format!("{number}{rate}"),
        other => format!("{number} {other}"),
    }
}

/// Three digits, or all that stand before the point, with thousands set apart.
pub fn number(value: f64) -> String {
    let decimals = match value.abs() {
        nothing if nothing.is_nan() => return "not measurable".to_owned(),
        0.0 => 0,
        small if small < 1.0 => 3,
        medium if medium < 10.0 => 2,
        large if large < 100.0 => 1,
        _ => 0,
    };
    grouped(&format!("{value:.decimals$}"))
}

/// A number that somebody set: as it was set.
pub fn whole(value: f64) -> String {
    grouped(&value.to_string())
}

fn grouped(text: &str) -> String {
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::with_capacity(text.len() * 4 / 3);
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at) % 3 == 0 && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + rest
}

/// A median with its spread.
pub fn measure(measure: &Measure) -> String {
    let median = figure(measure.median, &measure.unit);
    match measure.times {
        1 => format!("{median} (1 run)"),
        times => format!("{median} ({} to {}; {times} runs)", number(measure.least), number(measure.most)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_at_a_glance() {
        assert_eq!(figure(1_234_567.0, "/s"), "1,234,567/s");
        assert_eq!(figure(12.34, "ms"), "12.3 ms");
        assert_eq!(
            [0.0, 0.1234, 1.5, 999.6, f64::NAN].map(number),
            ["0", "0.123", "1.50", "1,000", "not measurable"]
        );
    }
}
