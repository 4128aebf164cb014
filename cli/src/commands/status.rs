//! `flotctl status`: what systemctl status shows, from wherever the unit runs.

use std::{fmt::Write as _, io::Write as _, time::Duration};

use flotilla_api::{
    client::ClientError,
    error::{ErrorBody, ErrorKind},
    journal::JournalLine,
    unit::{Placement, Unit, UnitStatus},
};
use flotilla_units::UnitName;
use futures_util::{StreamExt as _, stream};
use jiff::Timestamp;
use tokio::time::{Instant, sleep};

use super::{Missing, find};
use crate::{
    args::Output,
    connection::Cluster,
    exit::{self, Exit},
    order, paint, print,
    selector::Picked,
    text,
};

/// How many journal lines come with a unit that died.
const LAST_LINES: u32 = 10;

/// How many units are asked for at once: enough that one on a machine that does not answer, which takes
/// seconds, does not hold up the others one by one, and few enough to be nobody's burden.
const ASKED_AT_ONCE: usize = 8;

/// How long systemd's last word about a unit is waited for: journald writes it within milliseconds, on a
/// busy machine in some tenths of a second. Two seconds are for one that is busier still; who waits them
/// out has a unit of whose death nothing is in the journal.
const LAST_WORD_WITHIN: Duration = Duration::from_secs(2);

/// How long more lines are waited for once systemd's last word is there: where the unit was started anew
/// meanwhile and says much, they never end.
const MORE_LINES_WITHIN: Duration = Duration::from_millis(500);

/// How long to wait between two looks at a unit's last lines.
const LAST_WORD_PAUSE: Duration = Duration::from_millis(50);

/// Shows how units are.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Units, names or globs; UNIT@MACHINE means it on that machine only
    #[arg(value_name = "UNIT", required = true, add = crate::complete::units())]
    units: Vec<String>,

    /// How many journal lines to show
    #[arg(long, short = 'n', default_value_t = LAST_LINES, value_name = "N")]
    lines: u32,

    #[command(flatten)]
    missing: Missing,

    /// Of fleetctl, which went there by ssh; taken, and without effect
    #[arg(long, hide = true, value_name = "PORT")]
    ssh_port: Option<u16>,
}

/// Runs the command. As with systemctl, the exit status is 3 when a unit is not active. A unit whose
/// status cannot be had hides no other.
pub(crate) async fn run(cluster: &Cluster, args: &Args, output: Output) -> anyhow::Result<Exit> {
    let found = find(cluster, &args.units, args.missing).await?;
    let asked = stream::iter(&found.units)
        .map(|picked| async move { (&picked.unit, ask(cluster, picked, args.lines).await) });
    let mut answers = asked.buffered(ASKED_AT_ONCE);
    let mut all = Vec::new();
    let mut worst = Exit::Done;
    let mut first = true;
    let mut lost = None;
    while let Some((unit, answer)) = answers.next().await {
        let statuses = match answer {
            Ok(statuses) => statuses,
            // Where no flotillad answers, none will for the units after it.
            Err(e @ ClientError::Unreachable { .. }) => {
                lost = Some(e);
                break;
            }
            Err(e) => {
                all.push(unknown(unit, &e));
                let e = anyhow::Error::new(e);
                worst = worst.max(exit::of(&e));
                if output != Output::Json {
                    print::tell(format_args!("{}: {}", unit.name, text::one_line(&e.to_string())));
                }
                continue;
            }
        };
        worst = worst.max(exit_of(unit, &statuses));
        if output != Output::Json {
            let mut out = print::out();
            if !std::mem::take(&mut first) {
                writeln!(out)?;
            }
            write!(out, "{}", if statuses.is_empty() { nowhere(unit) } else { render_all(&statuses) })?;
        }
        all.extend(statuses);
    }
    if output == Output::Json {
        print::json(&all)?;
    }
    worst = worst.max(found.end());
    lost.map_or(Ok(worst), |e| Err(e.into()))
}

/// Asks for a unit's status; of one that is on no machine there is none.
async fn ask(cluster: &Cluster, picked: &Picked, lines: u32) -> Result<Vec<UnitStatus>, ClientError> {
    let unit = &picked.unit;
    if unit.placements.is_empty() {
        return Ok(Vec::new());
    }
    match cluster.read(async |client| client.status(unit.name.as_str(), lines).await).await {
        // It has left its machines meanwhile.
        Err(e) if e.kind() == Some(ErrorKind::NotPlaced) => Ok(Vec::new()),
        answer => answer.map(|mut statuses| {
            statuses.retain(|status| picked.is_on(&status.machine));
            statuses
        }),
    }
}

fn unknown(unit: &Unit, error: &ClientError) -> UnitStatus {
    UnitStatus {
        unit: unit.name.to_string(),
        description: unit.description.clone().unwrap_or_default(),
        active: "unknown".to_owned(),
        problem: Some(error.to_string()),
        ..UnitStatus::default()
    }
}

/// Returns the exit status that a unit's states make. What a lost machine had before the unit left it is
/// shown, and does not count.
fn exit_of(unit: &Unit, statuses: &[UnitStatus]) -> Exit {
    let left = |status: &UnitStatus| {
        let gone = |p: &Placement| p.departing.is_some() && !p.machine_alive;
        unit.placements.iter().any(|p| gone(p) && p.machine.to_string() == status.machine)
    };
    let active = |status: &&UnitStatus| matches!(status.active.as_str(), "active" | "reloading");
    let mut counted = statuses.iter().filter(|status| !left(status)).peekable();
    let any = counted.peek().is_some();
    if any && counted.all(|status| active(&status)) { Exit::Done } else { Exit::NotActive }
}

/// Returns the last journal lines of a unit that died, where they can be had.
///
/// The journal has them a moment after systemd has told of the death, so they are asked for until
/// systemd's own word about it is among them, and then until no more come.
///
/// # Errors
/// Nobody can be asked for them.
pub(crate) async fn last_lines(cluster: &Cluster, unit: &UnitName) -> Result<Vec<JournalLine>, ClientError> {
    let mut end = Instant::now() + LAST_WORD_WITHIN;
    let (mut told, mut before) = (false, None);
    loop {
        let statuses = cluster.read(async |client| client.status(unit.as_str(), LAST_LINES).await).await?;
        if let [UnitStatus { active, problem: Some(why), .. }] = statuses.as_slice()
            && active == "unknown"
        {
            let body = ErrorBody { kind: ErrorKind::Unavailable, message: why.clone(), details: Vec::new() };
            return Err(body.into());
        }
        if !told && are_told(&statuses) {
            told = true;
            end = end.min(Instant::now() + MORE_LINES_WITHIN);
        }
        let lines: Vec<JournalLine> = statuses.into_iter().flat_map(|status| status.journal).collect();
        // What the unit printed comes by another way than systemd's word, and may come after it.
        if Instant::now() >= end || told && before.as_ref() == Some(&lines) {
            return Ok(lines);
        }
        before = Some(lines);
        sleep(LAST_WORD_PAUSE).await;
    }
}

/// Tells them beside the output.
pub(crate) async fn tell_last_lines(cluster: &Cluster, unit: &UnitName) {
    match last_lines(cluster, unit).await {
        Ok(lines) => {
            for line in lines.iter().flat_map(journal_lines) {
                print::tell(format_args!("  {line}"));
            }
        }
        Err(e) => print::tell(format_args!("  (its last lines could not be had: {e})")),
    }
}

/// Says whether every death is told of. Where the unit runs, where it was never started, and where nobody
/// answers, there is none.
fn are_told(statuses: &[UnitStatus]) -> bool {
    let died = |status: &&UnitStatus| status.active != "active" && status.invocation.is_some();
    statuses.iter().filter(died).all(has_last_word)
}

/// Says whether the lines of a unit that died tell of its death.
fn has_last_word(status: &UnitStatus) -> bool {
    let is_word = |line: &&JournalLine| line.identifier.as_deref() == Some("systemd");
    let words = status.journal.iter().filter(is_word).filter(|line| line.invocation == status.invocation);
    words.map(|line| &line.message).any(|word| word.contains(": Failed with result"))
}

fn nowhere(unit: &Unit) -> String {
    let mut out = format!("○ {}", unit.name);
    if let Some(description) = &unit.description {
        let _ = write!(out, " - {}", text::one_line(description));
    }
    let _ = write!(out, "\n     Target: {}\n", unit.target);
    let why = unit.unplaced.as_deref().unwrap_or("on no machine");
    let _ = writeln!(out, "    Machine: {}", text::one_line(why));
    out
}

fn render_all(statuses: &[UnitStatus]) -> String {
    let rendered: Vec<String> = statuses.iter().map(|status| render(status, Timestamp::now())).collect();
    rendered.join("\n")
}

fn render(status: &UnitStatus, now: Timestamp) -> String {
    let mut out = String::new();
    let mark = match status.active.as_str() {
        "failed" => "×",
        "active" | "reloading" => "●",
        _ => "○",
    };
    let description = text::one_line(&status.description);
    let _ = writeln!(out, "{} {} - {description}", paint::active(&status.active, mark), status.unit);
    let _ = writeln!(out, "    Machine: {} ({})", text::one_line(&status.host), status.machine);
    if !status.load.is_empty() {
        let _ = writeln!(out, "     Loaded: {} ({})", status.load, text::one_line(&status.fragment));
    }
    let _ = writeln!(out, "     Active: {}", active(status, now));
    // What the unit itself, or whoever wrote it, may have said: nothing of it may reach the terminal
    // as anything but text.
    let mut row = |name: &str, value: String| {
        let _ = writeln!(out, "{name:>11}: {}", text::one_line(&value));
    };
    if let Some(invocation) = &status.invocation {
        row("Invocation", invocation.clone());
    }
    if let Some(pid) = status.main_pid {
        row("Main PID", format!("{pid} ({})", status.main_command.as_deref().unwrap_or("?")));
    } else if let (Some(code), Some(exit)) = (&status.exit_code, status.exit_status) {
        row("Process", format!("code={code}, status={exit}"));
    }
    if let Some(text) = &status.status_text {
        row("Status", format!("\"{text}\""));
    }
    if status.restarts > 0 {
        row("Restarts", status.restarts.to_string());
    }
    if let Some(tasks) = status.tasks {
        row("Tasks", tasks.to_string());
    }
    if let Some(memory) = status.memory_bytes {
        row("Memory", text::bytes(memory));
    }
    if let Some(cpu) = status.cpu_ns {
        row("CPU", text::cpu(cpu));
    }
    if let Some(problem) = &status.problem {
        row("Problem", problem.clone());
    }
    if let Some(group) = &status.control_group {
        row("CGroup", group.clone());
    }
    for (i, process) in status.processes.iter().enumerate() {
        let branch = if i + 1 == status.processes.len() { "└─" } else { "├─" };
        let group = if process.group.is_empty() { String::new() } else { format!("{} ", process.group) };
        let process = format!("{group}{} {}", process.pid, process.command);
        let _ = writeln!(out, "             {branch}{}", text::one_line(&process));
    }
    if !status.journal.is_empty() {
        out.push('\n');
    }
    for line in &status.journal {
        for line in journal_lines(line) {
            let _ = writeln!(out, "{line}");
        }
    }
    out
}

fn active(status: &UnitStatus, now: Timestamp) -> String {
    let sub = if status.sub.is_empty() { String::new() } else { format!(" ({})", status.sub) };
    let state = paint::active(&status.active, format!("{}{sub}", status.active));
    let mut out = state.to_string();
    if status.active == "failed" {
        let _ = write!(out, " ({})", order::death(Some(&status.result), status.exit_status));
    }
    if let Some(since) = status.since {
        let _ = write!(out, " since {}; {} ago", text::local(since), text::ago(since, now));
    }
    out
}

/// Writes a journal's entry as journalctl's short format does.
fn journal_lines(line: &JournalLine) -> impl Iterator<Item = String> {
    short_lines(line, &text::journal_time(line.realtime_us))
}

/// Writes a journal's entry as journalctl's short formats do, each of its lines with the prefix.
pub(super) fn short_lines<'a>(line: &'a JournalLine, time: &str) -> impl Iterator<Item = String> + use<'a> {
    let identifier = line.identifier.as_deref().unwrap_or(&line.unit);
    let pid = line.pid.map(|pid| format!("[{pid}]")).unwrap_or_default();
    let source = format!("{} {identifier}{pid}", line.host);
    let prefix = format!("{time} {}", text::one_line(&source));
    text::lines(&line.message).map(move |part| format!("{prefix}: {part}"))
}

#[cfg(test)]
mod tests {
    use flotilla_api::unit::Process;

    use super::*;

    #[test]
    fn the_last_word_is_systemds_own_about_this_start() {
        let line = |identifier: &str, invocation: &str, message: &str| JournalLine {
            unit: "dies.service".to_owned(),
            host: "m1".to_owned(),
            machine: "113f16a7".to_owned(),
            realtime_us: 0,
            priority: None,
            pid: None,
            identifier: Some(identifier.to_owned()),
            message: message.to_owned(),
            invocation: Some(invocation.to_owned()),
            cursor: String::new(),
        };
        let word = "dies.service: Failed with result 'exit-code'.";
        for (journal, has) in [
            (vec![], false),
            (vec![line("sh", "ab", "boom")], false),
            (vec![line("sh", "ab", word)], false),
            (vec![line("systemd", "of an earlier start", word)], false),
            (vec![line("sh", "ab", "boom"), line("systemd", "ab", word)], true),
        ] {
            let mut status = UnitStatus {
                active: "failed".to_owned(),
                invocation: Some("ab".to_owned()),
                ..UnitStatus::default()
            };
            status.journal = journal;
            assert_eq!(are_told(std::slice::from_ref(&status)), has, "{status:?}");
            // What the agent says of it is not what the journal says.
            status.problem = Some("its start job ended in `failed`".to_owned());
            assert_eq!(are_told(std::slice::from_ref(&status)), has, "{status:?}");
            for (active, invocation) in [("active", Some("ab")), ("unknown", None), ("inactive", None)] {
                status.active = active.to_owned();
                status.invocation = invocation.map(str::to_owned);
                assert!(are_told(std::slice::from_ref(&status)), "no such word will come: {status:?}");
            }
        }
    }

    #[test]
    fn a_status_that_nobody_knows_says_why() {
        let status = UnitStatus {
            unit: "hello.service".to_owned(),
            description: "Says hello".to_owned(),
            host: "m2".to_owned(),
            machine: "113f16a7".to_owned(),
            active: "unknown".to_owned(),
            problem: Some("machine lost".to_owned()),
            ..UnitStatus::default()
        };
        let plain = anstream::adapter::strip_str(&render(&status, Timestamp::UNIX_EPOCH)).to_string();
        insta::assert_snapshot!(plain, @r"
        ○ hello.service - Says hello
            Machine: m2 (113f16a7)
             Active: unknown
            Problem: machine lost
        ");
    }

    #[test]
    fn a_status_reads_like_systemctls() {
        let since = Timestamp::from_second(1_000_000).expect("valid");
        let status = UnitStatus {
            unit: "hello.service".to_owned(),
            description: "Says hello".to_owned(),
            host: "m1".to_owned(),
            machine: "113f16a7".to_owned(),
            load: "loaded".to_owned(),
            fragment: "/run/flotilla/units/hello.service".to_owned(),
            active: "active".to_owned(),
            sub: "running".to_owned(),
            result: "success".to_owned(),
            main_pid: Some(42),
            main_command: Some("sh".to_owned()),
            tasks: Some(2),
            memory_bytes: Some(1_572_864),
            cpu_ns: Some(5_000_000),
            control_group: Some("/system.slice/hello.service".to_owned()),
            processes: vec![
                Process { pid: 42, command: "sh -c loop".to_owned(), group: String::new() },
                Process { pid: 43, command: "sleep 1".to_owned(), group: String::new() },
            ],
            ..UnitStatus::default()
        };
        let plain = anstream::adapter::strip_str(&render(&status, since)).to_string();
        insta::assert_snapshot!(plain, @r"
        ● hello.service - Says hello
            Machine: m1 (113f16a7)
             Loaded: loaded (/run/flotilla/units/hello.service)
             Active: active (running)
           Main PID: 42 (sh)
              Tasks: 2
             Memory: 1.5M
                CPU: 5ms
             CGroup: /system.slice/hello.service
                     ├─42 sh -c loop
                     └─43 sleep 1
        ");
    }
}
