//! The table of results, and which goals were missed.

use std::fmt;

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
}

impl Table {
    pub fn new(title: &'static str) -> Self {
        Self { title, rows: Vec::new() }
    }

    /// Adds a row that nothing is demanded of.
    pub fn row(&mut self, what: impl Into<String>, flotilla: String, systemd: String) {
        self.rows.push(Row { what: what.into(), flotilla, systemd, goal: None });
    }

    /// Adds a row whose figure may be at most `most`.
    pub fn at_most(
        &mut self,
        what: impl Into<String>,
        (value, most, unit): (f64, f64, &str),
        systemd: String,
    ) {
        let goal = Some((format!("at most {most} {unit}"), value <= most));
        self.rows.push(Row { what: what.into(), flotilla: format!("{value:.1} {unit}"), systemd, goal });
    }

    /// Adds a row whose figure has to be at least `least`.
    pub fn at_least(
        &mut self,
        what: impl Into<String>,
        (value, least, unit): (f64, f64, &str),
        systemd: String,
    ) {
        let goal = Some((format!("at least {least} {unit}"), value >= least));
        self.rows.push(Row { what: what.into(), flotilla: format!("{value:.1} {unit}"), systemd, goal });
    }

    /// Adds a row of a rate, which has to be that share of systemd's own.
    pub fn rate(&mut self, what: impl Into<String>, flotilla: f64, systemd: f64, share: f64) {
        let ratio = flotilla / systemd;
        self.rows.push(Row {
            what: what.into(),
            flotilla: format!("{flotilla:.0}/s ({ratio:.2})"),
            systemd: format!("{systemd:.0}/s"),
            goal: Some((format!("at least {share} of systemd's"), ratio >= share)),
        });
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
        table.rate("rate", 60.0, 100.0, 0.7);
        assert_eq!(table.missed(), ["rate: 60/s (0.60), goal: at least 0.7 of systemd's"]);
        assert!(fails(true, &table.missed()) && !fails(false, &table.missed()) && !fails(true, &[]));
        assert!(table.to_string().contains("| p50 | 29.0 ms | 5 ms | at most 30 ms | met |"), "{table}");
    }

    /// A goal that could not be measured is one that was missed.
    #[test]
    fn goals_are_met_at_their_bound_and_not_by_what_is_no_number() {
        let mut table = Table::new("start");
        table.at_most("p99", (100.0, 100.0, "ms"), String::new());
        table.rate("rate", 70.0, 100.0, 0.7);
        table.at_least("lines", (500.0, 500.0, "lines/s"), String::new());
        assert_eq!(table.missed(), Vec::<String>::new());
        table.at_most("p50", (f64::NAN, 30.0, "ms"), String::new());
        table.rate("none", 0.0, 0.0, 0.7);
        table.at_least("lines", (499.0, 500.0, "lines/s"), String::new());
        table.at_least("lines", (f64::NAN, 500.0, "lines/s"), String::new());
        assert_eq!(table.missed().len(), 4, "{table}");
    }
}
