//! What PID 1 wrote into the journal about a unit's jobs.

use std::{process::Stdio, time::Duration};

use flotilla_units::UnitName;
use jiff::Timestamp;
use serde::Deserialize;
use tokio::{process::Command, sync::Semaphore, time::timeout};

use crate::systemd::{History, JobResult, SystemdError};

/// The longest that the journal may take to be read: it is searched by its index, so this is for
/// a disk that hangs.
const READ_WITHIN: Duration = Duration::from_secs(20);

/// How many messages about a unit's jobs are read, newest first. What counts is the last start and whether a
/// stop followed, so two or three would do; more only say the same of earlier ones, and a oneshot that a
/// timer starts each minute has half a million a year.
const MESSAGES: usize = 20;

/// How many journals are read at a time. Four: an agent that starts may have to ask about each of a
/// thousand units, and the machine has other things to do.
const READERS: usize = 4;

/// How far the journal's clock of arrival may be behind the sender's, in microseconds: entries are
/// looked up by the one and compared by the other.
const MARGIN_US: i64 = 5_000_000;

const START: &str = "start";

const RESTART: &str = "restart";

const STOP: &str = "stop";

/// The types of jobs that are asked for (`job_type_to_string` in systemd).
const KINDS: [&str; 3] = [START, RESTART, STOP];

/// The fields of the messages about jobs (`job_emit_done_message` in systemd).
#[derive(Debug, Deserialize)]
struct JobMessage {
    #[serde(rename = "JOB_TYPE", default)]
    kind: String,
    #[serde(rename = "JOB_RESULT", default)]
    result: String,
    #[serde(rename = "_SOURCE_REALTIME_TIMESTAMP", default)]
    sent: String,
    #[serde(rename = "__REALTIME_TIMESTAMP", default)]
    came: String,
}

/// Takes turns at reading the journal.
#[derive(Debug)]
pub(super) struct Readers(Semaphore);

impl Default for Readers {
    fn default() -> Self {
        Self(Semaphore::new(READERS))
    }
}

/// Reads what became of a unit's jobs since a time, before which it was like that.
pub(super) async fn read(
    readers: &Readers,
    unit: &UnitName,
    since: Timestamp,
    before: History,
    user: bool,
) -> Result<History, SystemdError> {
    let from = since.as_microsecond().saturating_sub(MARGIN_US).max(0);
    let (sec, us) = (from / 1_000_000, from % 1_000_000);
    let mut command = Command::new("journalctl");
    command
        .args(["--quiet", "--no-pager", "--all", "--output=json"])
        .arg("--output-fields=JOB_TYPE,JOB_RESULT,_SOURCE_REALTIME_TIMESTAMP")
        .args(["--reverse", &format!("--lines={MESSAGES}")])
        .arg(format!("--since=@{sec}.{us:06}"));
    if user {
        command.arg("--user").arg(format!("USER_UNIT={unit}"));
    } else {
        command.arg("_PID=1").arg(format!("UNIT={unit}"));
    }
    // Of one field, any of the values; all that a unit says, and what else is said of it, is left out.
    command.args(KINDS.map(|kind| format!("JOB_TYPE={kind}")));
    command.stdin(Stdio::null()).kill_on_drop(true);
    // Only an error if it were closed, which it never is.
    let _turn = readers.0.acquire().await;
    let late = |_| SystemdError::NoAnswer { call: "journalctl", seconds: READ_WITHIN.as_secs() };
    let cannot = |source| SystemdError::File { action: "cannot run", path: "journalctl".to_owned(), source };
    let output = timeout(READ_WITHIN, command.output()).await.map_err(late)?.map_err(cannot)?;
    if !output.status.success() {
        return Err(SystemdError::Refused {
            call: "journalctl",
            unit: unit.to_string(),
            why: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        });
    }
    Ok(judge(&output.stdout, since, before))
}

/// Judges what the journal has, the newest line first.
fn judge(lines: &[u8], since: Timestamp, before: History) -> History {
    let mut history = before;
    for line in lines.rsplit(|&b| b == b'\n') {
        // What is not about a job, or is not as expected, says nothing about one.
        let Ok(message) = serde_json::from_slice::<JobMessage>(line) else { continue };
        let sent = message.sent.parse().or_else(|_| message.came.parse());
        if !sent.is_ok_and(|sent: i64| sent >= since.as_microsecond()) {
            continue;
        }
        match message.kind.as_str() {
            START | RESTART if !message.result.is_empty() => {
                let start = Some(JobResult::from(message.result.as_str()));
                history = History { start, stopped_by_job: false };
            }
            STOP if message.result == "done" => history.stopped_by_job = history.start.is_some(),
            _ => {}
        }
    }
    history
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(kind: &str, result: &str, sent: i64) -> String {
        format!(
            "{{\"JOB_TYPE\":\"{kind}\",\"JOB_RESULT\":\"{result}\",\"_SOURCE_REALTIME_TIMESTAMP\":\"{sent}\",\
             \"__CURSOR\":\"s=1\"}}\n"
        )
    }

    #[test]
    fn the_last_start_counts_and_only_stops_after_it() {
        let since = Timestamp::from_microsecond(1_000).unwrap();
        let judge_after = |lines: &[String], before| {
            let newest_first: Vec<&str> = lines.iter().rev().map(String::as_str).collect();
            judge(newest_first.concat().as_bytes(), since, before)
        };
        let judge = |lines: &[String]| judge_after(lines, History::default());
        let done = Some(JobResult::Done);
        assert_eq!(judge(&[]), History::default());
        assert_eq!(judge(&[line("start", "done", 999)]), History::default());
        assert_eq!(judge(&[line("stop", "done", 1_000)]), History::default());
        let started = History { start: done.clone(), stopped_by_job: false };
        assert_eq!(judge(&[line("start", "done", 1_000)]), started);
        let stopped = History { start: done.clone(), stopped_by_job: true };
        assert_eq!(judge_after(&[line("stop", "done", 1_001)], started.clone()), stopped, "it ran before");
        assert_eq!(
            judge(&[
                line("start", "done", 1_001),
                "{\"MESSAGE\":null}\nrubbish\n".to_owned(),
                line("stop", "done", 2_000)
            ]),
            History { start: done, stopped_by_job: true }
        );
        let failed =
            [line("start", "done", 1_001), line("stop", "done", 2_000), line("start", "failed", 3_000)];
        assert_eq!(judge(&failed), History { start: Some(JobResult::Failed), stopped_by_job: false });
    }
}
