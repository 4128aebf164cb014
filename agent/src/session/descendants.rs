//! The processes that descend from this one, and signals to them.
//!
//! A keeper is a subreaper: what loses its parent becomes its child, so everything that a command
//! started is found by following parents, wherever it went since. What made a process-number namespace of its
//! own, and lost its parent there, is that namespace's first process's and not found here.

use std::{collections::HashMap, fs};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// One process, as `/proc/PID/stat` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    parent: u32,
    /// When it started, in ticks since the boot: with its number it is this one and no other.
    started: u64,
    /// It has ended, and waits for its parent to hear of it.
    ended: bool,
}

/// Sends a signal to every descendant of a process that runs; returns how many there were.
pub(super) fn signal(ancestor: u32, signal: Signal) -> usize {
    let found = living(ancestor);
    for (number, process) in &found {
        let Some(pid) = i32::try_from(*number).ok().and_then(Pid::from_raw) else { continue };
        // From here on the descriptor, and not the number, says who is meant.
        let Ok(descriptor) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
        if read(*number).is_some_and(|now| now.started == process.started) {
            // It may have ended meanwhile, which is what is wanted.
            let _ended = pidfd_send_signal(&descriptor, signal);
        }
    }
    found.len()
}

/// Returns whether a process has a descendant that runs.
pub(super) fn any(ancestor: u32) -> bool {
    !living(ancestor).is_empty()
}

fn living(ancestor: u32) -> Vec<(u32, Process)> {
    let all: HashMap<u32, Process> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|number| Some((number, read(number)?)))
        .collect();
    below(ancestor, &all).into_iter().filter(|(_, process)| !process.ended).collect()
}

/// Follows parents.
fn below(ancestor: u32, all: &HashMap<u32, Process>) -> Vec<(u32, Process)> {
    let mut found: Vec<(u32, Process)> = Vec::new();
    let mut parents = vec![ancestor];
    while let Some(parent) = parents.pop() {
        for (number, process) in all.iter().filter(|(_, process)| process.parent == parent) {
            found.push((*number, *process));
            parents.push(*number);
        }
    }
    found
}

fn read(number: u32) -> Option<Process> {
    parse(&fs::read_to_string(format!("/proc/{number}/stat")).ok()?)
}

/// Reads a line of `/proc/PID/stat`; the name in it may contain anything, parentheses too.
fn parse(line: &str) -> Option<Process> {
    let (_, rest) = line.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    // The fields 3, 4 and 22 of proc(5).
    let (state, parent, started) = (fields.first()?, fields.get(1)?, fields.get(19)?);
    Some(Process {
        parent: parent.parse().ok()?,
        started: started.parse().ok()?,
        ended: matches!(*state, "Z" | "X" | "x"),
    })
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn lines_with_any_name_are_read() {
        let line = "77 (a) R (b) S 12 77 77 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 98765 1 1\n";
        assert_eq!(parse(line), Some(Process { parent: 12, started: 98_765, ended: false }));
        assert_eq!(parse("77 (a) Z 12"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn descendants_are_found_through_any_number_of_parents() {
        let process = |parent| Process { parent, started: 1, ended: false };
        let all: HashMap<_, _> =
            [(1, process(0)), (5, process(1)), (6, process(5)), (7, process(6)), (8, process(1))].into();
        let mut found: Vec<u32> = below(5, &all).into_iter().map(|(number, _)| number).collect();
        found.sort_unstable();
        assert_eq!(found, [6, 7]);
        assert!(below(8, &all).is_empty());
    }

    #[test]
    fn a_child_and_its_child_are_signalled() {
        let mut child = Command::new("sh")
            .args(["-c", "sleep 1000 & echo begun; wait"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut begun = [0; 6];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut begun).unwrap();
        assert!(any(child.id()));
        assert!(signal(child.id(), Signal::KILL) >= 1);
        assert!(child.wait().unwrap().code().is_some_and(|code| code == 137 || code == 0));
        assert!(!any(child.id()));
    }
}
