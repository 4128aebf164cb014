//! Removes whatever in the kernel and on the disk carries a lab's name.
//!
//! The same way after an orderly `down` and after a crash: it asks the kernel what
//! there is instead of believing a record.

use std::{fs, io, path::Path, time::Duration};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    command::run,
    control_group::Group,
    name::Territory,
    network::{self, path_of},
    wait::{eventually, pause},
};

/// Where systemd-nspawn keeps a directory for each machine.
const NSPAWN: [&str; 2] = ["/run/systemd/nspawn/propagate", "/run/systemd/nspawn/unix-export"];

/// How long systemd-nspawn may take to tidy up after a machine; 0.1 s is usual.
const TIDY_TIME: Duration = Duration::from_secs(3);

/// Ends every process and removes every resource of the lab. Does nothing where
/// there is nothing.
pub fn remove(territory: &Territory) -> Result<()> {
    let group = Group::new(territory.group())?;
    let orphans = end_orphans(territory, &group);
    end_processes(&group)?;
    unmount(&territory.directory())?;
    for space in network::spaces(&territory.prefix()) {
        if path_of(&space).exists() {
            network::delete(&space)?;
        }
    }
    for parent in NSPAWN {
        remove_named(Path::new(parent), &territory.prefix())?;
    }
    group.remove()?;
    gone(fs::remove_dir_all(territory.directory())).context("removing the lab's directory")?;
    // Told at last, so that one that does not end keeps nothing else up.
    orphans
}

/// How long the kernel may take to end a tool: one waits for a lock of the network while other labs are taken down.
const KERNEL_TIME: Duration = Duration::from_secs(20);

/// Ends the tools that a crashed lab had started and that would still make
/// something: each has the lab's name in its arguments. One that was killed may
/// still finish the system call that it is in, so all are waited for.
fn end_orphans(territory: &Territory, group: &Group) -> Result<()> {
    // Twice, for one that is just becoming another program has no arguments yet.
    for _look in 0..2 {
        eventually(KERNEL_TIME, "the tools of an earlier lab to end", || {
            let orphans = orphans(territory, group);
            // One that is gone meanwhile is what we want.
            orphans.iter().for_each(|pid| _ = kill_process(*pid, Signal::KILL));
            Ok(orphans.is_empty().then_some(()))
        })?;
        pause();
    }
    Ok(())
}

/// Whoever has the lab's name in its arguments and is in none of its machines, which
/// end by their group (one that is frozen cannot end otherwise).
fn orphans(territory: &Territory, group: &Group) -> Vec<Pid> {
    let spared = with_ancestors(rustix::process::getpid());
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let named = processes.filter_map(|process| {
        let pid = Pid::from_raw(process.file_name().to_str()?.parse().ok()?)?;
        let arguments = fs::read(process.path().join("cmdline")).ok()?;
        String::from_utf8_lossy(&arguments).contains(territory.group()).then_some(pid)
    });
    let named: Vec<_> = named.filter(|pid| !spared.contains(pid) && !is_nspawn(*pid)).collect();
    let inside = group.processes();
    named.into_iter().filter(|pid| !inside.contains(pid)).collect()
}

/// A process and those that started it, whose arguments may name the lab because they ask for its end.
fn with_ancestors(pid: Pid) -> Vec<Pid> {
    let parent = |pid: &Pid| {
        let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).ok()?;
        Pid::from_raw(status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()?)
    };
    std::iter::successors(Some(pid), parent).collect()
}

fn is_nspawn(pid: Pid) -> bool {
    let name = fs::read_to_string(format!("/proc/{}/comm", pid.as_raw_nonzero())).unwrap_or_default();
    name.trim() == "systemd-nspawn"
}

/// Kills everything. systemd-nspawn itself ends when its machine is gone, and is
/// given the time to tidy up after itself (its locks in /run/systemd/nspawn).
fn end_processes(group: &Group) -> Result<()> {
    group.kill_each(|pid| !is_nspawn(pid));
    let ended = || Ok(group.processes().is_empty().then_some(()));
    // One that does not end is killed with the rest.
    let _ = eventually(TIDY_TIME, "systemd-nspawn to end", ended);
    group.kill()
}

/// What is left of a lab, in words; empty after [`remove`].
pub fn find(territory: &Territory) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let group = Group::new(territory.group())?;
    found.extend(group.processes().iter().map(|pid| format!("process {}", pid.as_raw_nonzero())));
    if group.exists() {
        found.push(format!("control group {}", territory.group()));
    }
    found.extend(
        network::spaces(&territory.prefix()).iter().map(|space| format!("network namespace {space}")),
    );
    found.extend(mounts(&territory.directory())?.iter().map(|mount| format!("mount {mount}")));
    for parent in NSPAWN {
        found.extend(
            named(Path::new(parent), &territory.prefix()).iter().map(|path| format!("directory {path}")),
        );
    }
    if territory.directory().exists() {
        found.push(format!("directory {}", territory.directory().display()));
    }
    Ok(found)
}

/// A machine's root is mounted in a namespace of its own and ends with it; this is
/// for what a process that entered the machine may have kept.
fn unmount(directory: &Path) -> Result<()> {
    // The innermost first.
    for mount in mounts(directory)?.iter().rev() {
        run(["umount", "--lazy", mount])?;
    }
    Ok(())
}

fn mounts(directory: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string("/proc/self/mounts").context("reading the mounts")?;
    let points = text.lines().filter_map(|line| line.split(' ').nth(1));
    Ok(points.filter(|point| Path::new(point).starts_with(directory)).map(str::to_owned).collect())
}

fn remove_named(parent: &Path, prefix: &str) -> Result<()> {
    for path in named(parent, prefix) {
        gone(fs::remove_dir_all(&path)).with_context(|| format!("removing {path}"))?;
    }
    Ok(())
}

fn named(parent: &Path, prefix: &str) -> Vec<String> {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let ours = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    ours.map(|entry| entry.path().display().to_string()).collect()
}

fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
