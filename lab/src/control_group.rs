//! Control groups: one of its own for every machine, in every hierarchy.
//!
//! They are what makes a machine safe to start (see the crate's guarantees), what
//! freezes it, and what its processes are found by. Works with the first version
//! of control groups, the second, and both at once.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::wait::eventually;

/// How long the kernel may take to stop, kill or let go of a machine's processes.
/// A machine with 5,000 services was measured to need 2.7 s.
const KERNEL_TIME: Duration = Duration::from_secs(20);

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Hierarchy {
    mount: PathBuf,
    kind: Kind,
}

/// What has to be known about a hierarchy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The second version.
    Unified,
    /// The first version's freezer.
    Freezer,
    /// The first version's processor sets, which start out empty.
    Cpuset,
    /// Any other of the first version.
    Other,
}

/// A control group of the same path in every hierarchy.
#[derive(Debug, Clone)]
pub struct Group {
    path: String,
    hierarchies: Vec<Hierarchy>,
}

impl Group {
    /// Names a group below the root of each hierarchy; makes nothing.
    ///
    /// # Errors
    ///
    /// No hierarchy is mounted, so no machine could be started safely.
    pub fn new(path: &str) -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").context("reading the mounts")?;
        let hierarchies = hierarchies(&mounts);
        if hierarchies.is_empty() {
            bail!("no control groups are mounted below /sys/fs/cgroup; the lab cannot run here");
        }
        Ok(Self { path: path.to_owned(), hierarchies })
    }

    /// A group inside this one.
    pub fn child(&self, name: &str) -> Self {
        Self { path: format!("{}/{name}", self.path), hierarchies: self.hierarchies.clone() }
    }

    /// The path below the root of each hierarchy.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The group's directory in every hierarchy.
    pub fn directories(&self) -> Vec<PathBuf> {
        self.hierarchies.iter().map(|hierarchy| hierarchy.mount.join(&self.path)).collect()
    }

    /// Makes the group, and those it is in, ready to be joined.
    pub fn create(&self) -> Result<()> {
        for hierarchy in &self.hierarchies {
            let mut directory = hierarchy.mount.clone();
            for step in self.path.split('/') {
                let parent = directory.clone();
                directory.push(step);
                make(&directory)?;
                if hierarchy.kind == Kind::Cpuset {
                    inherit_cpuset(&parent, &directory)?;
                }
            }
        }
        Ok(())
    }

    /// Every process in the group or below it; none if there is no such group.
    pub fn processes(&self) -> Vec<Pid> {
        let mut found = Vec::new();
        for directory in self.directories() {
            each_below(&directory, &mut |group| {
                let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
                found.extend(text.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)));
            });
        }
        found.sort_by_key(|pid| pid.as_raw_nonzero());
        found.dedup();
        found
    }

    /// Stops every process where it is, and waits until they are.
    pub fn freeze(&self) -> Result<()> {
        self.set_frozen(true)
    }

    /// Lets every process go on.
    pub fn thaw(&self) -> Result<()> {
        self.set_frozen(false)
    }

    fn set_frozen(&self, frozen: bool) -> Result<()> {
        let freezer = self.hierarchies.iter().find(|hierarchy| hierarchy.kind == Kind::Freezer);
        let unified = || self.hierarchies.iter().find(|hierarchy| hierarchy.kind == Kind::Unified);
        let hierarchy = freezer.or_else(unified).context("no hierarchy that can freeze is mounted")?;
        let directory = hierarchy.mount.join(&self.path);
        let (file, word, sign, expected) = match (hierarchy.kind, frozen) {
            (Kind::Freezer, true) => ("freezer.state", "FROZEN", "freezer.state", "FROZEN"),
            (Kind::Freezer, false) => ("freezer.state", "THAWED", "freezer.state", "THAWED"),
            (_, true) => ("cgroup.freeze", "1", "cgroup.events", "frozen 1"),
            (_, false) => ("cgroup.freeze", "0", "cgroup.events", "frozen 0"),
        };
        write(&directory.join(file), word)?;
        eventually(KERNEL_TIME, format_args!("{} to be {word}", self.path), || {
            let text = fs::read_to_string(directory.join(sign))?;
            Ok(text.lines().any(|line| line == expected).then_some(()))
        })
    }

    /// Kills every process at once and waits until none is left.
    pub fn kill(&self) -> Result<()> {
        eventually(KERNEL_TIME, format_args!("the processes of {} to be gone", self.path), || {
            self.kill_each(|_| true);
            Ok(self.processes().is_empty().then_some(()))
        })
    }

    /// Kills the processes that `which` picks, frozen or not, and does not wait.
    pub fn kill_each(&self, which: impl Fn(Pid) -> bool) {
        for pid in self.processes().into_iter().filter(|pid| which(*pid)) {
            // One that is gone meanwhile is what we want.
            let _ = kill_process(pid, Signal::KILL);
        }
        // A frozen process dies only once it may run again, and a group inside a
        // thawed one can be frozen by itself.
        for directory in self.directories() {
            each_below(&directory, &mut |group| {
                for (file, word) in [("freezer.state", "THAWED"), ("cgroup.freeze", "0")] {
                    let path = group.join(file);
                    if path.exists() {
                        let _ = fs::write(path, word);
                    }
                }
            });
        }
    }

    /// Waits until the last process has left.
    pub fn wait_empty(&self) -> Result<()> {
        eventually(KERNEL_TIME, format_args!("the processes of {} to end", self.path), || {
            Ok(self.processes().is_empty().then_some(()))
        })
    }

    /// Removes the group and all below it, which must hold no process.
    pub fn remove(&self) -> Result<()> {
        for directory in self.directories() {
            eventually(KERNEL_TIME, format_args!("removing {}", directory.display()), || {
                remove_below(&directory)?;
                Ok(Some(()))
            })?;
        }
        Ok(())
    }

    /// Says whether the group is there in any hierarchy.
    pub fn exists(&self) -> bool {
        self.directories().iter().any(|directory| directory.exists())
    }
}

fn hierarchies(mounts: &str) -> Vec<Hierarchy> {
    let mounts = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (mount, file_system, options) = (words.next()?, words.next()?, words.next()?);
        if !mount.starts_with("/sys/fs/cgroup") {
            return None;
        }
        let has = |option: &str| options.split(',').any(|word| word == option);
        let kind = match file_system {
            "cgroup2" => Kind::Unified,
            "cgroup" if has("freezer") => Kind::Freezer,
            "cgroup" if has("cpuset") => Kind::Cpuset,
            "cgroup" => Kind::Other,
            _ => return None,
        };
        Some(Hierarchy { mount: mount.into(), kind })
    });
    mounts.collect()
}

fn make(directory: &Path) -> Result<()> {
    match fs::create_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(error).with_context(|| format!("making the control group {}", directory.display()))
        }
        _ => Ok(()),
    }
}

/// A new processor set allows no processor and no memory; nothing can join it
/// before it has some.
fn inherit_cpuset(parent: &Path, directory: &Path) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let path = directory.join(file);
        if fs::read_to_string(&path).is_ok_and(|text| !text.trim().is_empty()) {
            continue;
        }
        let text = fs::read_to_string(parent.join(file)).with_context(|| format!("reading {file}"))?;
        write(&path, text.trim())?;
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("writing {text:?} to {}", path.display()))
}

/// Calls `visit` for the directory and all below it, if it is there.
fn each_below(directory: &Path, visit: &mut impl FnMut(&Path)) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    visit(directory);
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            each_below(&entry.path(), visit);
        }
    }
}

fn remove_below(directory: &Path) -> Result<()> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.with_context(|| format!("reading {}", directory.display()))?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_below(&entry.path())?;
        }
    }
    match fs::remove_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", directory.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_both_versions() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
            cgroup /sys/fs/cgroup/freezer cgroup rw,relatime,freezer 0 0\n\
            cgroup /sys/fs/cgroup/cpuset cgroup rw,relatime,cpuset 0 0\n\
            cgroup /sys/fs/cgroup/systemd cgroup rw,relatime,name=systemd 0 0\n\
            cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n\
            cgroup2 /elsewhere cgroup2 rw 0 0\n";
        let kinds: Vec<Kind> = hierarchies(mounts).into_iter().map(|hierarchy| hierarchy.kind).collect();
        assert_eq!(kinds, [Kind::Freezer, Kind::Cpuset, Kind::Other, Kind::Unified]);
    }

    #[test]
    fn a_group_that_is_not_there_holds_nothing() {
        let hierarchies = vec![Hierarchy { mount: "/sys/fs/cgroup".into(), kind: Kind::Other }];
        let group = Group { path: "flotilla-no-such-group".into(), hierarchies };
        assert!(!group.exists());
        assert!(group.processes().is_empty());
        group.remove().unwrap();
    }
}
