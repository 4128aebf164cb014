//! `cargo xtask demo`: a cluster of three machines on this computer, from nothing.
//!
//! Owns the story: what is shown, in which order, in which words. It builds, then
//! drives the lab and `flotctl` as a user would; the cluster stays up afterwards as
//! the lab that `cargo xtask lab` means when it is given no name.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    deps,
    image::Image,
    lab,
    process::{capture, is_root, say},
    workspace,
};

/// What the machines say of themselves, so that database.service finds its place.
const METADATA: [&str; 5] = ["m1:disk=ssd", "m1:zone=a", "m2:disk=ssd", "m2:zone=b", "m3:disk=hdd"];

/// What is started: an example of each kind. Two of the three machines suffice for it, so that all
/// of it finds a place when one dies.
const STARTED: [&str; 11] = [
    "hello",
    "hello@1",
    "hello@2",
    "hello@3",
    "web@1",
    "web@2",
    "announce@1",
    "database",
    "disk-watch",
    "backup.service",
    "backup.timer",
];

/// How long the journal is shown, in seconds: a few lines of each unit.
const JOURNAL_SECONDS: &str = "4";

/// How long a dead machine's units may take: six times what they are promised to.
const FAILOVER_LIMIT: Duration = Duration::from_secs(72);

/// Time between two looks at the units of the dead machine.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// A unit on a machine, as flotctl lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    unit: String,
    machine: String,
    active: bool,
}

/// The command as the user calls it.
pub fn main(arguments: &[String]) -> Result<()> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if !is_root() {
        bail!("the demo makes network namespaces, mounts and control groups: run `cargo xtask demo` as root");
    }
    match words.as_slice() {
        [] => up(),
        ["--down"] => down(),
        other => bail!("unknown arguments {other:?}; expected none, or --down"),
    }
}

fn down() -> Result<()> {
    lab::build(&["flotilla-lab"])?;
    in_lab(&["down"])
}

fn up() -> Result<()> {
    let start = Instant::now();
    step("1. What building and booting need");
    deps::build()?;
    deps::lab(Image::Plain)?;
    step("2. Building flotilla (the first time takes some minutes)");
    lab::build(&["flotillad", "flotctl", "flotilla-lab"])?;

    step("3. Booting three machines, each with its own systemd, and an etcd beside them");
    // It refuses where a lab lives, and removes what one left that died.
    in_lab(&["up", "--machines", "3", "--etcd", "1"]).context(
        "no machines; if a lab is up already, end it with `cargo xtask demo --down`, then try again",
    )?;
    let shown = show(start);
    if shown.is_err() {
        eprintln!("The machines are left as they are: `cargo xtask lab logs m1` shows a journal,");
        eprintln!("`cargo xtask demo --down` ends it all.");
    }
    shown
}

fn show(start: Instant) -> Result<()> {
    step("4. Making a cluster of them: certificates, configuration, flotillad on each");
    let (programs, services) = (workspace::target().join("debug"), workspace::root().join("dist"));
    let mut cluster = lab::command();
    cluster.arg("cluster").arg("--programs").arg(programs).arg("--services").arg(services);
    checked(cluster.args(METADATA.iter().flat_map(|metadata| ["--metadata", metadata])))?;
    flotctl(&["list-machines"])?;

    step("5. Giving it the unit files of examples/, and starting some");
    let files = examples()?;
    checked(lab::command().args(["copy", "m1", "/root/examples"]).args(&files))?;
    say("flotctl submit examples/*");
    checked(&mut exec(&["sh", "-c", "cd /root/examples && flotctl submit *"]))?;
    flotctl(&[&["start"], &STARTED[..]].concat())?;
    flotctl(&["list-units"])?;

    step("6. One journal from all machines, as it is written");
    say("flotctl journal --follow 'hello@*'");
    // It would follow for ever: that its time is over is no error.
    let followed =
        exec(&["timeout", JOURNAL_SECONDS, "flotctl", "journal", "--follow", "hello@*"]).status()?;
    ensure!(matches!(followed.code(), Some(0 | 124)), "`flotctl journal` ended with {followed}");

    let before = rows()?;
    let (victim, units) = victim(&before)?;
    step(&format!("7. Killing {victim}, which runs {}", units.join(", ")));
    let killed = Instant::now();
    in_lab(&["kill", &victim])?;
    let took = wait_elsewhere(&victim, &units, killed)?;
    say(&format!("{} units of {victim} run elsewhere, {took:.1} s after its death", units.len()));
    flotctl(&["list-units"])?;
    flotctl(&["list-machines"])?;

    println!("\nThe cluster is up ({:.0} s altogether). Try next:", start.elapsed().as_secs_f64());
    println!("  cargo xtask lab exec m1 flotctl start web@3   # says why it has no place without {victim}");
    println!("  cargo xtask lab exec m1 flotctl journal --follow 'hello@*'");
    println!("  cargo xtask lab boot {victim}; cargo xtask lab exec m1 flotctl list-machines");
    println!("`cargo xtask demo --down` ends it and leaves nothing behind.");
    Ok(())
}

fn step(text: &str) {
    println!("\n== {text}");
}

fn examples() -> Result<Vec<PathBuf>> {
    let directory = workspace::root().join("examples");
    let entries = fs::read_dir(&directory).with_context(|| format!("reading {}", directory.display()))?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}

/// A command inside the first machine, as `cargo xtask lab exec` runs it.
fn exec(words: &[&str]) -> Command {
    let mut command = lab::command();
    command.args(["exec", "m1"]).args(words);
    command
}

fn flotctl(words: &[&str]) -> Result<()> {
    say(&format!("flotctl {}", words.join(" ")));
    checked(&mut exec(&[&["flotctl"], words].concat()))
}

/// A command of the lab, said in the words that the user would type.
fn in_lab(words: &[&str]) -> Result<()> {
    say(&format!("cargo xtask lab {}", words.join(" ")));
    checked(lab::command().args(words))
}

/// Runs what was announced already.
fn checked(command: &mut Command) -> Result<()> {
    let status = command.status().context("starting flotilla-lab")?;
    ensure!(status.success(), "that ended with {status}; what it said is above");
    Ok(())
}

fn rows() -> Result<Vec<Row>> {
    let listed =
        capture(&mut exec(&["flotctl", "list-units", "--no-legend", "--fields", "unit,machine,active"]))?;
    Ok(parse(&listed))
}

fn parse(listed: &str) -> Vec<Row> {
    let row = |line: &str| {
        let mut words = line.split_whitespace().map(str::to_owned);
        let (unit, machine) = (words.next()?, words.next()?);
        Some(Row { unit, machine, active: words.next()? == "active" })
    };
    listed.lines().filter_map(row).collect()
}

/// The machine whose death shows most, and what will have to run elsewhere. Not the first one: that
/// is where the questions are asked.
fn victim(rows: &[Row]) -> Result<(String, Vec<String>)> {
    let moving = |machine: &str| -> Vec<String> {
        let elsewhere = |unit: &str| rows.iter().any(|row| row.unit == unit && row.machine != machine);
        let here = rows.iter().filter(|row| row.active && row.machine == machine);
        here.filter(|row| !elsewhere(&row.unit)).map(|row| row.unit.clone()).collect()
    };
    let most = ["m2", "m3"].into_iter().max_by_key(|machine| moving(machine).len());
    let machine = most.filter(|machine| !moving(machine).is_empty());
    let machine = machine.context("nothing runs on m2 and m3; `cargo xtask lab logs m1` may say why")?;
    Ok((machine.to_owned(), moving(machine)))
}

/// Waits until the units are active on other machines; gives the seconds since the death.
fn wait_elsewhere(victim: &str, units: &[String], killed: Instant) -> Result<f64> {
    say("waiting for its lease to end (10 s), so that it is known to be dead and not only slow");
    let mut left = units.len();
    while killed.elapsed() < FAILOVER_LIMIT {
        let rows = rows()?;
        let runs =
            |unit: &&String| rows.iter().any(|row| row.unit == **unit && row.active && row.machine != victim);
        let now = units.iter().filter(|unit| !runs(unit)).count();
        if now != left && now > 0 {
            say(&format!("{:.1} s: {now} still to come", killed.elapsed().as_secs_f64()));
        }
        left = now;
        if left == 0 {
            return Ok(killed.elapsed().as_secs_f64());
        }
        pause();
    }
    bail!(
        "{left} units of {victim} do not run elsewhere after {FAILOVER_LIMIT:?}; \
         `cargo xtask lab exec m1 flotctl why UNIT` says why"
    )
}

/// Lets `LOOK_EVERY` pass; xtask is synchronous, no runtime is held up by it.
#[allow(clippy::disallowed_methods)]
fn pause() {
    std::thread::sleep(LOOK_EVERY);
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTED: &str = "\
        disk-watch.service  m1  active\n\
        disk-watch.service  m3  active\n\
        backup.service      m2  inactive\n\
        web@1.service       m3  active\n\
        web@3.service       -   inactive\n";

    #[test]
    fn the_victim_is_the_machine_whose_units_have_to_move() {
        let (machine, units) = victim(&parse(LISTED)).unwrap();
        assert_eq!((machine.as_str(), units), ("m3", vec!["web@1.service".to_owned()]));
        assert!(victim(&parse("web@1.service m1 active\n")).is_err());
    }

    #[test]
    fn what_is_started_is_among_the_examples() {
        let files: Vec<String> = examples()
            .unwrap()
            .iter()
            .map(|path| path.file_name().unwrap().to_string_lossy().into())
            .collect();
        for unit in STARTED {
            let unit = if unit.contains('.') { unit.to_owned() } else { format!("{unit}.service") };
            let template = unit.split_once('@').map(|(name, _)| format!("{name}@.service"));
            assert!(files.contains(&template.unwrap_or(unit.clone())), "{unit}");
        }
    }
}
