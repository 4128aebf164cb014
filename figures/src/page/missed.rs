//! Where it goes: for each goal that is missed, what the samples say of the layers, and what people found out.

use super::{Goal, goals, put, words};
use crate::{
    series::{Measures, Recorded},
    what,
};

/// Writes the section, of nothing but missed goals.
pub(super) fn write(page: &mut String, measures: &Measures, runs: &[&Recorded], counts: &str, found: &str) {
    let is_missed = |goal: &Goal| goal.measure(measures).is_some_and(|measure| !goal.is_met(measure.median));
    let missed: Vec<Goal> = goals::all().into_iter().filter(is_missed).collect();
    put(page, "\n## Where it goes\n");
    if missed.is_empty() {
        put(page, "No goal that was measured is missed.");
    }
    for goal in &missed {
        put(page, &format!("### {}\n", goal.row));
        let layers = match (goal.bench, goal.what.as_str()) {
            (goals::SCALE, what::ALL_ACTIVE) => system(goal, measures, runs),
            (goals::PLACEMENT, what::PLACED) => core(goal, measures, counts),
            _ => None,
        };
        if let Some(layers) = &layers {
            put(page, layers);
        }
        match section(found, &goal.row) {
            Some(text) => put(page, &format!("{text}\n")),
            None if layers.is_none() => put(page, "Not looked into yet.\n"),
            None => {}
        }
    }
}

/// What is under a heading.
fn section<'a>(text: &'a str, heading: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("## {heading}\n"))?;
    Some(rest.split_once("\n## ").map_or(rest, |(here, _)| here).trim())
}

/// Of a whole system: which part needed the processor, and whether it was the processor at all.
fn system(goal: &Goal, measures: &Measures, runs: &[&Recorded]) -> Option<String> {
    let get = |what| Some(measures.get(goal.bench, goal.size, goal.kind, what)?.median);
    let took = get(what::ALL_ACTIVE)?;
    let parts = [
        ("engine", get(what::ENGINE_CPU)?),
        ("etcd", get(what::ETCD_CPU)?),
        ("agents", get(what::AGENTS_CPU)?),
    ];
    let used: f64 = parts.iter().map(|(_, seconds)| seconds).sum();
    let cores =
        runs.iter().rev().find(|one| one.run.bench == goal.bench).map_or(0, |one| one.run.facts.cores) as f64;
    let units = goal.size.1 as f64;
    let mut text = "| | processor time | of it | a unit |\n| --- | --- | --- | --- |\n".to_owned();
    for (name, seconds) in parts {
        let (share, each) = (seconds / used * 100.0, seconds * 1e6 / units);
        text += &format!(
            "| {name} | {} | {share:.0} % | {} |\n",
            words::figure(seconds, "s"),
            words::figure(each, "µs")
        );
    }
    text += &format!(
        "\nTogether {} of the {} that {cores} cores have in {}: {:.0} %. The rest of the computer, what the clock waits for and \
         what is done one after the other is what is left. At the goal everything together may need {} a unit; it needs {}.\n",
        words::figure(used, "s"),
        words::figure(took * cores, "s"),
        words::figure(took, "s"),
        used / (took * cores) * 100.0,
        words::figure(bound(goal) * cores * 1e6 / units, "µs"),
        words::figure(used * 1e6 / units, "µs"),
    );
    if let Some(keys) = get(what::KEYS_A_UNIT) {
        let written = keys * units / took;
        text += &format!(
            "\netcd wrote {} keys for a unit, {} keys a second.",
            words::number(keys),
            words::number(written)
        );
        if let Some(most) = measures.iter().find(|(key, _)| key.what == what::ETCD_CEILING) {
            text += &format!(
                " Alone on this computer it writes {} in transactions of the same form: {:.0} % of what it can.",
                words::figure(most.1.median, &most.1.unit),
                written / most.1.median * 100.0
            );
        }
        text += "\n";
    }
    Some(text)
}

fn bound(goal: &Goal) -> f64 {
    match goal.bound {
        goals::Bound::AtLeast(bound) | goals::Bound::AtMost(bound) => bound,
    }
}

/// Of the placement core: which half of the work, and how many instructions.
fn core(goal: &Goal, measures: &Measures, counts: &str) -> Option<String> {
    let get = |what| Some(measures.get(goal.bench, goal.size, goal.kind, what)?.median);
    let (told, decided) = (get(what::TOLD)?, get(what::DECIDED)?);
    let mut text = format!(
        "A unit takes {}: {} to tell the core of it, {} to place it; the goal allows {}.",
        words::figure(told + decided, "ns"),
        words::figure(told, "ns"),
        words::figure(decided, "ns"),
        words::figure(1e9 / bound(goal), "ns")
    );
    let counted = format!("{}/from-empty/1000x10000 ", goal.kind);
    let count = counts.lines().find_map(|line| line.strip_prefix(&counted)?.trim().parse::<f64>().ok());
    if let Some(count) = count {
        text += &format!(
            " valgrind counts {} instructions a unit (1,000 machines, 10,000 units).",
            words::number(count / 10_000.0)
        );
    }
    Some(text + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_out_is_under_its_heading() {
        let text = "# All\n\n## one\n\nfirst\n\n## two\n\nsecond\n";
        assert_eq!(section(text, "one"), Some("first"));
        assert_eq!(section(text, "two"), Some("second"));
        assert_eq!(section(text, "three"), None);
    }
}
