//! Reads a [`Usage`] from the control groups of the units that flotilla has here.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use flotilla_units::UnitName;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use rustix::time::{ClockId, clock_gettime};
use tokio::{sync::Mutex, time::Instant};

use super::{DbusSystemd, READS, status};
use crate::{
    systemd::{Layout, SystemdError, cgroup},
    usage::{MachineUsage, UnitUsage, Usage, UsageSource, transferred},
};

/// For how long a reading is everybody's who asks. Half a second: who watches asks once a second, and what
/// several watch is read once.
const FRESH: Duration = Duration::from_millis(500);

/// Where units had their control groups when systemd was last asked. A group stays where it is for as
/// long as it exists, so systemd is asked only of units without one, and of those only after a change.
#[derive(Debug, Default)]
pub(super) struct Groups(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    groups: HashMap<UnitName, String>,
    /// Units that had no group, with what their changes were counted to then.
    without: HashMap<UnitName, u64>,
    last: Option<(Instant, Usage)>,
}

#[async_trait]
impl UsageSource for DbusSystemd {
    async fn usage(&self) -> Result<Usage, SystemdError> {
        let mut known = self.groups.0.lock().await;
        if let Some((at, usage)) = known.last.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            tracing::trace!(age = ?at.elapsed(), "what others asked for is taken");
            return Ok(usage.clone());
        }
        let names = self.files.names()?;
        known.groups.retain(|unit, _| names.contains(unit));
        known.without.retain(|unit, _| names.contains(unit));
        let layout = self.layout().clone();
        let asked: Vec<_> = names
            .iter()
            .filter(|&unit| directory(&layout, known.groups.get(unit)).is_none())
            // Before it is asked: a change meanwhile is another number.
            .map(|unit| (unit, self.shared.changes_of(unit)))
            .filter(|(unit, changes)| known.without.get(*unit) != Some(changes))
            .map(|(unit, changes)| self.group_of(unit, changes))
            .collect();
        let found: Vec<(UnitName, u64, Option<String>)> =
            stream::iter(asked).buffered(READS).try_collect().await?;
        for (unit, changes, group) in found {
            // One whose group has gone meanwhile is asked of again.
            match group.filter(|group| directory(&layout, Some(group)).is_some()) {
                Some(group) => _ = known.groups.insert(unit, group),
                None => _ = known.without.insert(unit, changes),
            }
        }
        // Some files of each unit: milliseconds in all, but not for the runtime's own threads.
        let groups = known.groups.clone();
        let read = tokio::task::spawn_blocking(move || read(&layout, &groups));
        let usage = read.await.unwrap_or_default();
        known.last = Some((Instant::now(), usage.clone()));
        Ok(usage)
    }
}

impl DbusSystemd {
    async fn group_of(
        &self,
        unit: &UnitName,
        changes: u64,
    ) -> Result<(UnitName, u64, Option<String>), SystemdError> {
        let group = self.control_group(unit).await?.filter(|group| !group.is_empty());
        Ok((unit.clone(), changes, group))
    }
}

fn directory(layout: &Layout, group: Option<&String>) -> Option<PathBuf> {
    cgroup::directory(&layout.cgroups, group?).ok().flatten()
}

fn read(layout: &Layout, groups: &HashMap<UnitName, String>) -> Usage {
    let now = clock_gettime(ClockId::Boottime);
    let clock_ns = u64::try_from(now.tv_sec).unwrap_or_default() * 1_000_000_000
        + u64::try_from(now.tv_nsec).unwrap_or_default();
    let units = groups.iter().filter_map(|(unit, group)| {
        let directory = directory(layout, Some(group))?;
        Some(of_unit(unit, group, &directory, layout))
    });
    let mut units: Vec<UnitUsage> = units.collect();
    units.sort_by(|a, b| a.unit.cmp(&b.unit));
    Usage { clock_ns, machine: MachineUsage::read(Path::new("/proc")), units }
}

fn of_unit(unit: &UnitName, group: &str, directory: &Path, layout: &Layout) -> UnitUsage {
    // Without the controller's own count, processes are as near as one gets.
    let counted = || u64::try_from(cgroup::processes(directory).len()).ok();
    let io = fs::read_to_string(directory.join("io.stat")).ok().map(|text| transferred(&text));
    UnitUsage {
        unit: unit.clone(),
        cpu_ns: status::processor(Some(&directory.to_owned())),
        memory_bytes: status::memory(layout, group),
        tasks: cgroup::number(directory, "pids.current").or_else(counted),
        read_bytes: io.map(|(read, _)| read),
        written_bytes: io.map(|(_, written)| written),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read_from_their_groups_and_what_is_not_counted_is_absent() {
        let mount = tempfile::tempdir().unwrap();
        fs::write(mount.path().join("cgroup.procs"), "").unwrap();
        let group = |name: &str, files: &[(&str, &str)]| {
            let directory = mount.path().join("system.slice").join(name);
            fs::create_dir_all(&directory).unwrap();
            files.iter().for_each(|(file, text)| fs::write(directory.join(file), text).unwrap());
        };
        group(
            "b.service",
            &[
                ("cpu.stat", "usage_usec 1500\n"),
                ("memory.current", "4096\n"),
                ("pids.current", "3\n"),
                ("io.stat", "8:0 rbytes=10 wbytes=20 rios=1\n"),
            ],
        );
        group("a.service", &[("cgroup.procs", "1\n2\n")]);
        let layout = Layout { cgroups: mount.path().into(), ..Layout::system() };
        let name = |text: &str| text.parse::<UnitName>().unwrap();
        let groups = ["a", "b", "gone"]
            .map(|unit| (name(&format!("{unit}.service")), format!("/system.slice/{unit}.service")))
            .into();
        let usage = read(&layout, &groups);
        let full = UnitUsage {
            unit: name("b.service"),
            cpu_ns: Some(1_500_000),
            memory_bytes: Some(4_096),
            tasks: Some(3),
            read_bytes: Some(10),
            written_bytes: Some(20),
        };
        let bare = UnitUsage {
            unit: name("a.service"),
            cpu_ns: None,
            memory_bytes: None,
            tasks: Some(2),
            read_bytes: None,
            written_bytes: None,
        };
        assert_eq!(usage.units, [bare, full]);
        assert!(usage.clock_ns > 0 && usage.machine.cpus > 0);
    }
}
