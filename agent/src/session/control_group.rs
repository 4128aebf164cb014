//! Moves this process into the control groups of another, in every hierarchy.
//!
//! PID 1 offers this only for units that delegate (`AttachProcessesToUnit`), so the kernel is asked. The
//! group is that of the unit's process, which may be below the unit's own: a unit that delegates
//! has its processes there, and its own group takes none.

use std::{
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

/// Where control groups are mounted.
const MOUNT: &str = "/sys/fs/cgroup";

/// One line of `/proc/PID/cgroup`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Membership {
    /// `name=systemd`, `cpu,cpuacct`, ..; empty for the unified hierarchy.
    controllers: String,
    path: String,
}

/// Returns whether a process, by the text of its `/proc/PID/cgroup`, is in a unit's group or below it.
pub(super) fn is_within(text: &str, group: &str) -> bool {
    let group = group.trim_end_matches('/');
    let systemd = read(text).into_iter().filter(|m| matches!(m.controllers.as_str(), "" | "name=systemd"));
    let within =
        |path: &str| path.strip_prefix(group).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    !group.is_empty() && systemd.into_iter().any(|membership| within(&membership.path))
}

/// Joins the groups that a process is in, by the text of its `/proc/PID/cgroup`.
///
/// # Errors
/// A group that it has in another place than this process cannot be joined.
pub(super) fn join(text: &str) -> io::Result<()> {
    let own = read(&fs::read_to_string("/proc/self/cgroup")?);
    for theirs in read(text).into_iter().filter(|theirs| !own.contains(theirs)) {
        let Some(directory) = directory(Path::new(MOUNT), &theirs) else { continue };
        // `0` is whoever writes.
        fs::write(directory.join("cgroup.procs"), "0").map_err(|e| {
            io::Error::new(
                e.kind(),
                format!("the control group {} cannot be joined: {e}", directory.display()),
            )
        })?;
    }
    Ok(())
}

fn read(text: &str) -> Vec<Membership> {
    let line = |line: &str| {
        let mut fields = line.splitn(3, ':');
        let (_number, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        Some(Membership { controllers: controllers.to_owned(), path: path.to_owned() })
    };
    text.lines().filter_map(line).collect()
}

/// Finds a group's directory; `None` for a hierarchy that is mounted nowhere.
fn directory(mount: &Path, membership: &Membership) -> Option<PathBuf> {
    let below = membership.path.trim_start_matches('/');
    let tops = match membership.controllers.as_str() {
        "" => vec![mount.join("unified"), mount.to_owned()],
        "name=systemd" => vec![mount.join("systemd")],
        controllers => vec![mount.join(controllers)],
    };
    tops.into_iter().find(|top| exists(&top.join("cgroup.procs"))).map(|top| top.join(below))
}

fn exists(path: &Path) -> bool {
    !matches!(path.try_exists(), Ok(false))
        || path.symlink_metadata().is_err_and(|e| e.kind() != ErrorKind::NotFound)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str =
        "5:cpu,cpuacct:/\n1:name=systemd:/system.slice/web.service\n0::/system.slice/web.service\n";

    #[test]
    fn a_process_is_within_its_units_group_and_no_other() {
        assert!(is_within(HYBRID, "/system.slice/web.service"));
        assert!(is_within("0::/system.slice/web.service/payload\n", "/system.slice/web.service"));
        assert!(!is_within("0::/system.slice/web.service2\n", "/system.slice/web.service"));
        assert!(!is_within("0::/system.slice/other.service\n", "/system.slice/web.service"));
        assert!(!is_within(HYBRID, ""), "a unit without a group has no process");
        assert!(!is_within("5:cpu:/system.slice/web.service\n", "/system.slice/web.service"));
    }

    #[test]
    fn directories_are_found_in_either_layout() {
        let mount = tempfile::tempdir().unwrap();
        let top = |name: &str| {
            let top = mount.path().join(name);
            fs::create_dir_all(&top).unwrap();
            fs::write(top.join("cgroup.procs"), "").unwrap();
        };
        let find = |n: usize| directory(mount.path(), &read(HYBRID)[n]);
        top("");
        assert_eq!(find(2), Some(mount.path().join("system.slice/web.service")));
        top("unified");
        top("systemd");
        assert_eq!(find(2), Some(mount.path().join("unified/system.slice/web.service")));
        assert_eq!(find(1), Some(mount.path().join("systemd/system.slice/web.service")));
        assert_eq!(find(0), None, "a hierarchy that is mounted nowhere");
    }
}
