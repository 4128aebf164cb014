//! The main process of a session's transient service: starts the command and outlives all of it.
//!
//! It has one thread, because a process that is to be born in another process-number namespace must
//! not have threads beside it. It is a subreaper, so everything that the command starts stays its descendant.
//!
//! ```text
//! receive ──► start ──► keep ──(the command ended)──────────► tell ──► end the rest
//!    │           │        └──(the line closed, SIGTERM, SIGHUP)────────► end all ──► tell
//!    └───────────┴─(failed)──► tell
//! ```

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::{net::UnixStream, process::CommandExt as _},
    },
    process::{Command, Stdio},
    time::Duration,
};

use rustix::{
    process::{Pid, Signal, WaitOptions, getpid, set_child_subreaper, wait},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    signal::unix::{SignalKind, signal},
    time::{Instant, sleep},
};

use super::{GRACE, Inside, Report, Spec, control_group, descendants, receive};

/// How often it is looked whether what was asked to end has ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How long what was killed may take to be gone: a process that waits for a disk ends when that answers.
const KILLED_WITHIN: Duration = Duration::from_secs(5);

/// The first words of the command line of the process that becomes the command.
const ENTER: [&str; 2] = ["session", "--enter"];

/// What a process of a session is to do, by its command line.
#[derive(Debug)]
pub enum Role {
    /// To keep a session.
    Keep,
    /// To become its command: the spec without the command, and the command.
    Enter(OsString, Vec<OsString>),
}

impl Role {
    /// Reads a command line, the program's name left out; `None` when it is no session's.
    pub fn of(words: impl IntoIterator<Item = OsString>) -> Option<Self> {
        let mut words = words.into_iter();
        if words.next()? != ENTER[0] {
            return None;
        }
        match words.next() {
            None => Some(Self::Keep),
            Some(word) if word == ENTER[1] => {
                let spec = words.next()?;
                Some(Self::Enter(spec, words.collect()))
            }
            Some(_) => None,
        }
    }
}

/// Keeps the session that is told of on standard input.
///
/// # Errors
/// There is none, or it cannot be kept.
pub fn keep() -> io::Result<()> {
    let mut line = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let (spec, files) = match receive(&mut line) {
        Ok(received) => received,
        Err(e) => {
            let text = serde_json::to_vec(&Report::Failed(e.to_string()))?;
            // Whoever would hear it may be gone.
            let _unheard = io::Write::write_all(&mut line, &[&text[..], b"\n"].concat());
            return Err(e);
        }
    };
    line.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let line = tokio::net::UnixStream::from_std(line)?;
        attend(line, &spec, files).await
    })
}

async fn attend(line: tokio::net::UnixStream, spec: &Spec, files: Vec<OwnedFd>) -> io::Result<()> {
    // Before there is anything to hear of.
    let mut child_ended = signal(SignalKind::child())?;
    let mut stop = signal(SignalKind::terminate())?;
    // With the one comes the other, to all processes of the service (`SendSIGHUP=`).
    let mut hang_up = signal(SignalKind::hangup())?;
    set_child_subreaper(Some(getpid()))?;
    let (mut near, mut far) = line.into_split();
    let child = match start(spec, files) {
        Ok(child) => child,
        Err(e) => {
            tell(&mut far, &Report::Failed(e.to_string())).await;
            return Err(e);
        }
    };
    tell(&mut far, &Report::Begun).await;
    let ended = loop {
        if let Some(report) = reap(child) {
            break Some(report);
        }
        tokio::select! {
            _ = child_ended.recv() => {}
            _ = stop.recv() => break None,
            _ = hang_up.recv() => break None,
            // Nothing is ever said on it: this is its end.
            _ = near.read_u8() => break None,
        }
    };
    if let Some(report) = &ended {
        tell(&mut far, report).await;
    }
    let late = end_all(child).await;
    if let (None, Some(report)) = (ended, late) {
        tell(&mut far, &report).await;
    }
    Ok(())
}

async fn tell(far: &mut tokio::net::unix::OwnedWriteHalf, report: &Report) {
    let mut line = serde_json::to_vec(report).unwrap_or_default();
    line.push(b'\n');
    // Whoever would hear it may be gone; the pair holds much more than the two lines that are ever said.
    let _unheard = far.write_all(&line).await;
}

/// Starts the process that becomes the command.
fn start(spec: &Spec, files: Vec<OwnedFd>) -> io::Result<Pid> {
    let [stdin, stdout, stderr]: [OwnedFd; 3] = match <[OwnedFd; 1]>::try_from(files) {
        Ok([terminal]) => [terminal.try_clone()?, terminal.try_clone()?, terminal],
        Err(files) => files.try_into().map_err(|_| io::Error::other("a session has one stream or three"))?,
    };
    if let Some(inside) = &spec.inside {
        enter_process_numbers(inside)?;
    }
    let rest = Spec { command: Vec::new(), ..spec.clone() };
    // This program, also where another version of it lies in its place meanwhile.
    let mut command = Command::new("/proc/self/exe");
    command.arg0("flotillad").args(ENTER).arg(serde_json::to_string(&rest)?).args(&spec.command);
    let child = command.stdin(stdin).stdout(Stdio::from(stdout)).stderr(Stdio::from(stderr)).spawn()?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    pid.ok_or_else(|| io::Error::other("the command has no process number"))
}

/// Lets children be born among the processes that a unit's process sees.
fn enter_process_numbers(inside: &Inside) -> io::Result<()> {
    let process = format!("/proc/{}", inside.pid);
    if !control_group::is_within(&fs::read_to_string(format!("{process}/cgroup"))?, &inside.group) {
        return Err(io::Error::other("the unit's process has ended meanwhile"));
    }
    if fs::read_link(format!("{process}/ns/pid"))? != fs::read_link("/proc/self/ns/pid")? {
        let namespace = File::open(format!("{process}/ns/pid"))?;
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::ProcessID))?;
    }
    Ok(())
}

/// Hears of every child that has ended; returns how the command did if it is among them.
fn reap(command: Pid) -> Option<Report> {
    let mut report = None;
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if pid != command {
            continue;
        }
        let number = |status: i32| u8::try_from(status).unwrap_or(u8::MAX);
        report = match (status.exit_status(), status.terminating_signal()) {
            (Some(status), _) => Some(Report::Exited(number(status))),
            (None, Some(signal)) => Some(Report::Signaled(number(signal))),
            (None, None) => None,
        };
    }
    report
}

/// Ends everything that descends from this process; returns how the command ended if it ended by that.
async fn end_all(command: Pid) -> Option<Report> {
    let own = std::process::id();
    let mut report = reap(command);
    if descendants::signal(own, Signal::HUP) > 0 {
        // What was stopped hears of nothing until it goes on.
        descendants::signal(own, Signal::CONT);
    }
    let asked = Instant::now();
    while descendants::any(own) && asked.elapsed() < GRACE {
        sleep(LOOK_EVERY).await;
        report = reap(command).or(report);
    }
    let killed = Instant::now();
    while descendants::any(own) && killed.elapsed() < KILLED_WITHIN {
        descendants::signal(own, Signal::KILL);
        sleep(LOOK_EVERY).await;
        report = reap(command).or(report);
    }
    reap(command).or(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines_of_sessions_are_told_from_all_others() {
        let of = |words: &[&str]| Role::of(words.iter().map(OsString::from));
        assert!(matches!(of(&["session"]), Some(Role::Keep)));
        let Some(Role::Enter(spec, command)) = of(&["session", "--enter", "{}", "ls", "--", "-l"]) else {
            panic!("it is to enter")
        };
        assert_eq!(spec, "{}");
        assert_eq!(command, ["ls", "--", "-l"]);
        for words in [&[][..], &["check"], &["--dev"], &["session", "--help"], &["session", "--enter"]] {
            assert!(of(words).is_none(), "{words:?}");
        }
    }
}
