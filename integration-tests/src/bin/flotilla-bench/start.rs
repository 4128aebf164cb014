//! How long a start takes, and how many there are in a second, beside systemd's own.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use flotilla_lab::{Lab, Machine, wait_formed};

use crate::{
    drive,
    probe::{Cpu, active_since, epoch},
    say, shell, submit,
    table::Table,
};

/// Single starts of each kind: the goals are of fifty.
const SINGLES: usize = 50;

/// How many units are started at once, and the goal for the rate: a share of systemd's own.
const BATCHES: [(usize, f64); 2] = [(300, 0.7), (1000, 0.8)];

/// How often each batch is started by either, in turn: what else the computer does disturbs a
/// single one by half and more, and the median of five is not led astray by two of them.
const ROUNDS: usize = 5;

/// How long a cluster rests after it has formed, in seconds: what starts the units has nothing else to do.
const REST: u64 = 3;

/// Goals, in milliseconds, from the command's start to active.
const P50_MOST: f64 = 30.0;
const P99_MOST: f64 = 100.0;

/// Starts both kinds in turn, so that whatever else the computer does disturbs both alike. The
/// first of each, which reads the template, is not counted.
const SINGLY: &str = r#"
flotctl start bench@first.service >/dev/null; systemctl start plain@first.service
for i in $(seq 1 "$1"); do
    t=$EPOCHREALTIME; flotctl start bench@$i.service >/dev/null; echo bench@$i.service $t $EPOCHREALTIME
    t=$EPOCHREALTIME; systemctl start plain@$i.service; echo plain@$i.service $t $EPOCHREALTIME
done"#;

/// Milliseconds of single starts.
#[derive(Debug, Default)]
struct Times {
    to_active: Vec<f64>,
    whole: Vec<f64>,
}

/// Measures single starts, then batches.
pub fn measure(lab: &Lab) -> Result<Table> {
    let first = submit(lab)?;
    let mut table = Table::new("start, 3 machines");
    singles(lab, first, &mut table)?;
    for (units, share) in BATCHES {
        batch(lab, first, units, share, &mut table)?;
    }
    Ok(table)
}

fn singles(lab: &Lab, first: &Machine, table: &mut Table) -> Result<()> {
    say("50 single starts of each kind");
    let script = format!("set -- {SINGLES}; {SINGLY}");
    let printed = shell(first, &script)?;
    let active = everywhere(lab, "*@*.service")?;
    let (mut flotilla, mut systemd) = (Times::default(), Times::default());
    for line in printed.lines() {
        let [unit, begun, ended] = line.split(' ').collect::<Vec<_>>()[..] else { continue };
        let times = if unit.starts_with("bench@") { &mut flotilla } else { &mut systemd };
        let (begun, ended) = (epoch(begun)?, epoch(ended)?);
        let since = active.get(unit).with_context(|| format!("{unit} is not active"))?;
        times.to_active.push((since - begun) as f64 / 1000.0);
        times.whole.push((ended - begun) as f64 / 1000.0);
    }
    for times in [&mut flotilla, &mut systemd] {
        ensure!(times.whole.len() == SINGLES, "{} starts instead of {SINGLES}", times.whole.len());
        times.to_active.sort_by(f64::total_cmp);
        times.whole.sort_by(f64::total_cmp);
    }
    let ms = |value: f64| format!("{value:.1} ms");
    for (name, share, most) in [("p50", 0.5, P50_MOST), ("p99", 0.99, P99_MOST)] {
        let (ours, theirs) = (quantile(&flotilla.to_active, share), quantile(&systemd.to_active, share));
        table.at_most(format!("one unit to active, {name} of {SINGLES}"), (ours, most, "ms"), ms(theirs));
    }
    for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
        let (ours, theirs) = (quantile(&flotilla.whole, share), quantile(&systemd.whole, share));
        table.row(format!("one unit, the whole command, {name}"), ms(ours), ms(theirs));
    }
    clean(lab, first, "$(seq -f bench@%g.service 1 50) bench@first.service")
}

/// What one round of a batch gave.
#[derive(Debug)]
struct Round {
    /// Units per second.
    flotilla: f64,
    systemd: f64,
    /// Seconds of the whole command.
    whole: f64,
    /// Processor time for each unit, in words.
    used: String,
    alone: String,
}

fn batch(lab: &Lab, first: &Machine, units: usize, share: f64, table: &mut Table) -> Result<()> {
    let mut rounds = Vec::new();
    for number in 1..=ROUNDS {
        say(&format!("{units} units by systemd alone, then by flotctl: {number} of {ROUNDS}"));
        let round = round(lab, first, units)?;
        say(&format!("{:.0}/s alone, {:.0}/s by flotctl", round.systemd, round.flotilla));
        rounds.push(round);
    }
    // The round with the median share speaks for all, so that its figures belong together.
    rounds.sort_by(|one, other| (one.flotilla / one.systemd).total_cmp(&(other.flotilla / other.systemd)));
    let Some(median) = rounds.get(rounds.len() / 2) else { return Ok(()) };
    let rates: Vec<_> = rounds.iter().map(|round| (round.flotilla, round.systemd)).collect();
    table.rate(units, &rates, share);
    let whole = format!("{:.2} s", median.whole);
    table.row(format!("{units} units, the whole command"), whole, String::new());
    table.row(format!("{units} units, processor for each"), median.used.clone(), median.alone.clone());
    Ok(())
}

/// Starts a batch by systemd alone, a third on each machine and without flotillad there, and then
/// by flotilla.
fn round(lab: &Lab, first: &Machine, units: usize) -> Result<Round> {
    flotillad(lab, "stop")?;
    let before = Cpu::read(lab)?;
    let begun = drive::start(lab, units)?;
    let alone = Cpu::read(lab)?.per_unit(before, units);
    let systemd = rate(lab, "plain@*.service", begun, units)?;
    clean(lab, first, "")?;
    flotillad(lab, "start")?;
    lab.machines().iter().try_for_each(|machine| wait_formed(machine, lab.machines().len()))?;
    shell(first, &format!("sleep {REST}"))?;

    let names = format!("$(seq -f bench@%g.service 1 {units})");
    let before = Cpu::read(lab)?;
    let line = format!(
        "echo $EPOCHREALTIME; flotctl start --timeout 300s {names} >/dev/null && echo $EPOCHREALTIME"
    );
    let printed = shell(first, &line)?;
    let used = Cpu::read(lab)?.per_unit(before, units);
    let times = printed.lines().map(epoch).collect::<Result<Vec<_>>>()?;
    let [begun, ended] = times[..] else { anyhow::bail!("flotctl did not start {units} units") };
    let flotilla = rate(lab, "bench@*.service", begun, units)?;
    clean(lab, first, &names)?;
    Ok(Round { flotilla, systemd, whole: (ended - begun) as f64 / 1e6, used, alone })
}

/// Stops flotillad everywhere, or starts it again: it listens to every unit of its machine, which
/// makes systemd and the bus tell it of all of them.
fn flotillad(lab: &Lab, verb: &str) -> Result<()> {
    for machine in lab.machines() {
        machine.run(&["systemctl", verb, "flotillad.service"])?;
    }
    Ok(())
}

/// Units per second, until the last of them was active.
fn rate(lab: &Lab, pattern: &str, begun: i64, units: usize) -> Result<f64> {
    let active = everywhere(lab, pattern)?;
    ensure!(active.len() == units, "{} of {units} units of {pattern} are active", active.len());
    let last = active.values().max().context("no unit is active")?;
    Ok(units as f64 / ((last - begun) as f64 / 1e6))
}

fn everywhere(lab: &Lab, pattern: &str) -> Result<BTreeMap<String, i64>> {
    let mut all = BTreeMap::new();
    for machine in lab.machines() {
        all.extend(active_since(machine, pattern)?);
    }
    Ok(all)
}

/// Ends what was started, so that the next measurement begins with empty machines.
fn clean(lab: &Lab, first: &Machine, names: &str) -> Result<()> {
    if !names.is_empty() {
        shell(first, &format!("flotctl destroy --timeout 300s {names} >/dev/null"))?;
    }
    for machine in lab.machines() {
        shell(machine, "systemctl stop 'plain@*.service'")?;
    }
    Ok(())
}

/// The nearest rank of sorted values.
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_fifty_the_99th_percentile_is_the_worst() {
        let sorted: Vec<f64> = (1..=50).map(f64::from).collect();
        assert_eq!((quantile(&sorted, 0.5), quantile(&sorted, 0.99)), (25.0, 50.0));
        assert!(quantile(&[], 0.5).is_nan());
    }
}
