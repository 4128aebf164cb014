//! What was measured, each figure beside its goal.

use std::fmt;

use serde::Serialize;

/// Results, a row each, printed as Markdown.
#[derive(Debug, Default)]
pub(crate) struct Table {
    title: String,
    rows: Vec<Row>,
}

/// One figure.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    what: String,
    value: f64,
    unit: &'static str,
    #[serde(flatten)]
    goal: Option<Goal>,
}

#[derive(Debug, Clone, Serialize)]
struct Goal {
    goal: f64,
    at_least: bool,
    met: bool,
}

impl Table {
    pub(crate) fn new(title: String) -> Self {
        Self { title, rows: Vec::new() }
    }

    /// Adds a figure that nothing is demanded of.
    pub(crate) fn row(&mut self, what: impl Into<String>, value: f64, unit: &'static str) {
        self.at_most(what, value, unit, None);
    }

    /// Adds a figure that may be at most `most`; without a goal for runs of another size.
    pub(crate) fn at_most(
        &mut self,
        what: impl Into<String>,
        value: f64,
        unit: &'static str,
        most: Option<f64>,
    ) {
        let goal = most.map(|goal| Goal { goal, at_least: false, met: value <= goal });
        self.rows.push(Row { what: what.into(), value, unit, goal });
    }

    /// Adds a figure that has to be at least `least`; without a goal for runs of another size.
    pub(crate) fn at_least(
        &mut self,
        what: impl Into<String>,
        value: f64,
        unit: &'static str,
        least: Option<f64>,
    ) {
        let goal = least.map(|goal| Goal { goal, at_least: true, met: value >= goal });
        self.rows.push(Row { what: what.into(), value, unit, goal });
    }

    pub(crate) fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The rows whose goal was missed, in words. What could not be measured is missed.
    pub(crate) fn missed(&self) -> Vec<String> {
        let goals =
            self.rows.iter().filter_map(|row| Some((row, row.goal.as_ref().filter(|goal| !goal.met)?)));
        goals.map(|(row, goal)| format!("{}: {}, goal: {}", row.what, row.figure(), row.goal(goal))).collect()
    }
}

impl Row {
    fn figure(&self) -> String {
        format!("{} {}", rounded(self.value), self.unit)
    }

    fn goal(&self, goal: &Goal) -> String {
        let sense = if goal.at_least { "at least" } else { "at most" };
        format!("{sense} {} {}", goal.goal, self.unit)
    }
}

/// Three digits, or all that stand before the point.
fn rounded(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        small if small < 1.0 => format!("{value:.3}"),
        medium if medium < 10.0 => format!("{value:.2}"),
        large if large < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n| {} | | goal | ratio | |\n| --- | --- | --- | --- | --- |", self.title)?;
        for row in &self.rows {
            write!(f, "| {} | {} |", row.what, row.figure())?;
            match &row.goal {
                Some(goal) => {
                    let met = if goal.met { "met" } else { "**missed**" };
                    // Nothing at all is a goal that has no ratio.
                    let ratio = if goal.goal == 0.0 {
                        String::new()
                    } else {
                        format!("{:.2}", row.value / goal.goal)
                    };
                    writeln!(f, " {} | {ratio} | {met} |", row.goal(goal))?;
                }
                None => writeln!(f, " | | |")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missed_goal_is_named_and_what_is_no_number_is_missed() {
        let mut table = Table::new("10 machines".to_owned());
        table.at_most("all active", 100.0, "s", Some(120.0));
        table.at_most("decided", 60.0, "ms", Some(50.0));
        table.at_most("listed", f64::NAN, "ms", Some(50.0));
        table.at_most("another", 60.0, "ms", None);
        table.at_most("written", 0.0, "/s", Some(0.0));
        table.at_most("read", 0.1, "/s", Some(0.0));
        table.at_least("rows", 250_000.0, "/s", Some(200_000.0));
        table.at_least("few rows", 150_000.0, "/s", Some(200_000.0));
        let missed = table.missed();
        assert_eq!(missed.len(), 4, "{table}");
        assert_eq!(missed[0], "decided: 60.0 ms, goal: at most 50 ms");
        assert_eq!(missed[3], "few rows: 150000 /s, goal: at least 200000 /s");
        let text = table.to_string();
        assert!(text.contains("| all active | 100 s | at most 120 s | 0.83 | met |"), "{text}");
        assert!(text.contains("| written | 0 /s | at most 0 /s |  | met |"), "{text}");
    }

    #[test]
    fn a_row_is_a_line_of_its_own_for_whoever_plots() {
        let mut table = Table::new(String::new());
        table.at_most("decided", 60.0, "ms", Some(50.0));
        table.row("memory", 2.5, "MiB");
        let lines: Vec<_> = table.rows().iter().map(|row| serde_json::to_value(row).expect("JSON")).collect();
        let decided = serde_json::json!({
            "what": "decided", "value": 60.0, "unit": "ms", "goal": 50.0, "at_least": false, "met": false
        });
        assert_eq!(lines, [decided, serde_json::json!({ "what": "memory", "value": 2.5, "unit": "MiB" })]);
    }
}
