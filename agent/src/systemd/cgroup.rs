//! Whether a control group holds processes, and what they are.
//!
//! Reads `/sys/fs/cgroup` and `/proc`; it never writes there. A group that cannot be read counts
//! as not empty: emptiness is part of the proof that a unit has gone.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Groups below one unit's that are looked at: a unit that delegates may nest as it likes, and a
/// status is for people to read.
const MANY_GROUPS: usize = 1_000;

/// Returns the directory of a group in the hierarchy that systemd itself keeps processes in:
/// the only one (v2), `unified` or `systemd` (hybrid), `systemd` (v1). `None` when there is none.
pub(super) fn directory(mount: &Path, group: &str) -> io::Result<Option<PathBuf>> {
    let below = group.trim_start_matches('/');
    if below.is_empty() || below.split('/').any(|part| part == "..") {
        return Ok(None);
    }
    for hierarchy in ["unified", "systemd", ""] {
        let top = mount.join(hierarchy);
        // Only a group's own directory has this file; a v1 mount point of controllers has not.
        if !top.join("cgroup.procs").try_exists()? {
            continue;
        }
        let directory = top.join(below);
        if directory.try_exists()? {
            return Ok(Some(directory));
        }
    }
    Ok(None)
}

/// Returns whether no process is in the group or below it.
pub(super) fn is_empty(mount: &Path, group: &str) -> bool {
    match directory(mount, group) {
        Ok(Some(directory)) => directory_is_empty(&directory).unwrap_or_else(|e| gone(&e)),
        Ok(None) => true,
        Err(e) => gone(&e),
    }
}

/// Returns every process in the group and below it, with the path below the group.
pub(super) fn processes(directory: &Path) -> Vec<(String, u32)> {
    let mut found = Vec::new();
    for group in groups(directory) {
        let below = group.strip_prefix(directory).map(|p| p.display().to_string()).unwrap_or_default();
        for pid in fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default().lines() {
            if let Ok(pid) = pid.parse() {
                found.push((below.clone(), pid));
            }
        }
    }
    found
}

/// Reads a file of a group that holds one number, for example `memory.current`.
pub(super) fn number(directory: &Path, file: &str) -> Option<u64> {
    fs::read_to_string(directory.join(file)).ok()?.trim().parse().ok()
}

fn directory_is_empty(directory: &Path) -> io::Result<bool> {
    // v2: the kernel answers for the whole subtree.
    match fs::read_to_string(directory.join("cgroup.events")) {
        Ok(events) => return Ok(events.lines().any(|line| line == "populated 0")),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    for group in groups(directory) {
        match fs::read_to_string(group.join("cgroup.procs")) {
            Ok(procs) if procs.trim().is_empty() => {}
            Ok(_) => return Ok(false),
            Err(e) if gone(&e) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(true)
}

/// A group that was removed while it was looked at is empty: only an empty one can be removed.
fn gone(e: &io::Error) -> bool {
    e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error())
}

fn groups(directory: &Path) -> Vec<PathBuf> {
    let mut found = vec![directory.to_owned()];
    let mut at = 0;
    while at < found.len() && found.len() < MANY_GROUPS {
        for entry in fs::read_dir(&found[at]).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                found.push(entry.path());
            }
        }
        at += 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn unified_groups_say_so_themselves() {
        let mount = tempfile::tempdir().unwrap();
        let group = mount.path().join("system.slice/a.service");
        write(&mount.path().join("cgroup.procs"), "");
        write(&group.join("cgroup.events"), "populated 1\nfrozen 0\n");
        assert!(!is_empty(mount.path(), "/system.slice/a.service"));
        write(&group.join("cgroup.events"), "populated 0\nfrozen 0\n");
        assert!(is_empty(mount.path(), "/system.slice/a.service"));
        assert!(is_empty(mount.path(), "/system.slice/none.service"));
        assert!(is_empty(mount.path(), ""));
    }

    #[test]
    fn a_process_below_counts_in_the_old_hierarchy() {
        let mount = tempfile::tempdir().unwrap();
        let group = mount.path().join("systemd/system.slice/a.service");
        write(&mount.path().join("systemd/cgroup.procs"), "1\n");
        write(&group.join("cgroup.procs"), "");
        assert!(is_empty(mount.path(), "/system.slice/a.service"));
        write(&group.join("deep/er/cgroup.procs"), "77\n");
        assert!(!is_empty(mount.path(), "/system.slice/a.service"));
        assert_eq!(processes(&group), [("deep/er".to_owned(), 77)]);
    }

    #[test]
    fn what_cannot_be_read_is_not_empty() {
        let mount = tempfile::tempdir().unwrap();
        write(&mount.path().join("cgroup.procs"), "");
        // A directory where the file should be: reading it fails with another error than absence.
        fs::create_dir_all(mount.path().join("a.service/cgroup.events")).unwrap();
        assert!(!is_empty(mount.path(), "/a.service"));
    }
}
