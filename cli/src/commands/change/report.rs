//! What became of each unit, as it is printed and as the exit status tells it.

use flotilla_api::journal::JournalLine;
use flotilla_units::UnitName;
use serde::Serialize;

use super::super::status;
use crate::{
    args::Output,
    connection::Cluster,
    exit::Exit,
    order::{Verdict, Waiting},
    paint, print, text,
};

/// What is printed with `-o json`.
#[derive(Debug, Serialize)]
pub(in crate::commands) struct Report {
    #[serde(skip)]
    exit: Exit,
    /// Which unit.
    pub(in crate::commands) unit: UnitName,
    outcome: &'static str,
    detail: String,
    /// Where it failed, by host name or id.
    #[serde(skip_serializing_if = "Option::is_none")]
    machine: Option<String>,
    /// systemd's `Result`.
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<String>,
    /// The main process's exit status, or the signal that ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_status: Option<i32>,
    /// The last lines of its journal, when it failed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    journal: Vec<JournalLine>,
}

impl Report {
    /// Tells whether it is as it should be.
    pub(in crate::commands) fn is_done(&self) -> bool {
        self.exit == Exit::Done
    }
}

/// Judges what was waited for. The exit status is that of the worst.
pub(in crate::commands) async fn reports(
    cluster: &Cluster,
    waiting: &Waiting,
    timed_out: bool,
    output: Output,
) -> (Exit, Vec<Report>) {
    let mut reports: Vec<Report> =
        waiting.verdicts().map(|(unit, verdict)| report(unit, verdict, timed_out)).collect();
    if output == Output::Json {
        for report in reports.iter_mut().filter(|report| report.exit == Exit::NotActive) {
            report.journal = status::last_lines(cluster, &report.unit).await.unwrap_or_default();
        }
    }
    let worst = reports.iter().map(|report| report.exit).max();
    (worst.unwrap_or(Exit::Done), reports)
}

/// Prints what became of each unit, for people.
pub(in crate::commands) async fn print(cluster: &Cluster, reports: &[Report]) -> anyhow::Result<()> {
    for Report { exit, unit, outcome, detail, machine, .. } in reports {
        let on = machine.as_ref().map(|machine| format!(" (on {machine})")).unwrap_or_default();
        let detail = text::one_line(detail);
        match exit {
            Exit::Done => print::line(format_args!("{unit} {detail}"))?,
            Exit::NotActive => {
                print::tell(format_args!("{unit} {}: {detail}{on}", paint::bad("failed")));
                status::tell_last_lines(cluster, unit).await;
            }
            Exit::CannotBePlaced => {
                print::tell(format_args!("{unit} {}: {detail}", paint::bad("cannot be placed")));
                print::tell(format_args!("`flotctl why {unit}` shows what each machine lacks."));
            }
            _ if *outcome == HELD => {
                print::tell(format_args!("{unit} {}: {detail}", paint::bad("not updated")));
            }
            _ => print::tell(format_args!("{unit} {}: still {detail}", paint::bad("timed out"))),
        }
    }
    Ok(())
}

/// What is told of a unit that does not get its new text.
const HELD: &str = "held";

fn report(unit: &UnitName, verdict: Verdict, timed_out: bool) -> Report {
    let plain = |exit, outcome, detail| Report {
        exit,
        unit: unit.clone(),
        outcome,
        detail,
        machine: None,
        result: None,
        exit_status: None,
        journal: Vec::new(),
    };
    match verdict {
        Verdict::Done(text) => plain(Exit::Done, "done", text),
        Verdict::Pending(text) => {
            plain(if timed_out { Exit::TimedOut } else { Exit::Failed }, "timed-out", text)
        }
        Verdict::Held(why) => plain(Exit::Failed, HELD, why),
        Verdict::CannotBePlaced(why) => plain(Exit::CannotBePlaced, "cannot-be-placed", why),
        Verdict::Failed { machine, why, result, exit_status } => {
            let machine = Some(machine).filter(|machine| !machine.is_empty());
            Report { machine, result, exit_status, ..plain(Exit::NotActive, "failed", why) }
        }
    }
}
