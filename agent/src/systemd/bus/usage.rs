//! Reads a [`Usage`] from the control groups of the units that flotilla has here.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use async_trait::async_trait;
use flotilla_units::UnitName;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use rustix::time::{ClockId, clock_gettime};

use super::{DbusSystemd, READS, status};
use crate::{
    systemd::{Layout, SystemdError, cgroup},
    usage::{MachineUsage, UnitUsage, Usage, UsageSource, transferred},
};

/// Where units had their control groups when systemd was last asked. A group stays where it is for as
/// long as it exists, so systemd is asked only of units without one.
#[derive(Debug, Default)]
pub(super) struct Groups(Mutex<HashMap<UnitName, String>>);

#[async_trait]
impl UsageSource for DbusSystemd {
    async fn usage(&self) -> Result<Usage, SystemdError> {
        let names = self.files.names()?;
        let mut known = self.groups.take();
        known.retain(|unit, _| names.contains(unit));
        let layout = self.layout().clone();
        let missing: Vec<&UnitName> =
            names.iter().filter(|&unit| directory(&layout, known.get(unit)).is_none()).collect();
        let asked: Vec<_> = missing.into_iter().map(|unit| self.group_of(unit)).collect();
        let found: Vec<Option<(UnitName, String)>> =
            stream::iter(asked).buffered(READS).try_collect().await?;
        known.extend(found.into_iter().flatten());
        self.groups.put(known.clone());
        // Some files of each unit: milliseconds in all, but not for the runtime's own threads.
        let read = tokio::task::spawn_blocking(move || read(&layout, &known));
        Ok(read.await.unwrap_or_default())
    }
}

impl DbusSystemd {
    async fn group_of(&self, unit: &UnitName) -> Result<Option<(UnitName, String)>, SystemdError> {
        let group = self.control_group(unit).await?.filter(|group| !group.is_empty());
        Ok(group.map(|group| (unit.clone(), group)))
    }
}

impl Groups {
    fn take(&self) -> HashMap<UnitName, String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn put(&self, groups: HashMap<UnitName, String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = groups;
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
