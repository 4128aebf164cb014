//! Reads a [`UnitStatus`] from systemd, the control groups and `/proc`.

use std::{fs, path::PathBuf};

use async_trait::async_trait;
use flotilla_units::UnitName;

use super::{DbusSystemd, Properties};
use crate::{
    status::{Exit, Process, StatusSource, UnitStatus},
    systemd::{Layout, Systemd as _, SystemdError, cgroup},
};

/// How much of a command line is shown, in bytes: a line of a wide terminal.
const COMMAND_BYTES: usize = 512;

/// Processes that are shown; a status is for people to read.
const MANY_PROCESSES: usize = 1_000;

#[async_trait]
impl StatusSource for DbusSystemd {
    async fn status(&self, unit: &UnitName) -> Result<UnitStatus, SystemdError> {
        if let Some(loaded) = self.everything(unit).await? {
            let (unit, layout) = (unit.clone(), self.layout().clone());
            // Files of each process, perhaps a thousand: one status after the other, off the runtime's threads.
            let turn = self.reading.lock().await;
            let status = tokio::task::spawn_blocking(move || read(&unit, &loaded, &layout)).await;
            drop(turn);
            return Ok(status.unwrap_or_default());
        }
        let present = self.get(unit).await?;
        let state = present.map(|present| present.state);
        Ok(UnitStatus {
            name: unit.to_string(),
            description: unit.to_string(),
            load: state.as_ref().map_or_else(|| "not-found".to_owned(), |state| state.load.clone()),
            path: state.map(|state| state.fragment).unwrap_or_default(),
            active: "inactive".to_owned(),
            sub: "dead".to_owned(),
            ..UnitStatus::default()
        })
    }
}

fn read(unit: &UnitName, loaded: &Properties, layout: &Layout) -> UnitStatus {
    let state = loaded.state(layout);
    let cgroup = loaded.text("ControlGroup");
    let directory = cgroup::directory(&layout.cgroups, &cgroup).ok().flatten();
    let processes: Vec<Process> = directory
        .as_deref()
        .map(cgroup::processes)
        .unwrap_or_default()
        .into_iter()
        .take(MANY_PROCESSES)
        .map(|(group, pid)| Process { pid, command: command(pid), group })
        .collect();
    let tasks = loaded.number("TasksCurrent").or_else(|| u64::try_from(processes.len()).ok());
    UnitStatus {
        name: unit.to_string(),
        description: loaded.text("Description"),
        load: state.load,
        load_error: load_error(loaded),
        path: state.fragment,
        drop_ins: loaded.get("DropInPaths").unwrap_or_default(),
        documentation: loaded.get("Documentation").unwrap_or_default(),
        active: state.active,
        sub: state.sub,
        since: state.since,
        invocation: state.invocation,
        main: main_process(loaded),
        status_text: Some(loaded.text("StatusText")).filter(|text| !text.is_empty()),
        tasks: tasks.filter(|&tasks| tasks > 0),
        memory_bytes: loaded.number("MemoryCurrent").or_else(|| memory(layout, &cgroup)),
        cpu_ns: loaded.number("CPUUsageNSec").or_else(|| processor(directory.as_ref())),
        cgroup,
        processes,
        result: state.result,
        exit: exit(loaded),
        restarts: state.restarts,
    }
}

fn main_process(loaded: &Properties) -> Option<Process> {
    let pid = loaded.get::<u32>("MainPID").filter(|&pid| pid != 0)?;
    Some(Process { pid, command: command(pid), group: String::new() })
}

/// `LoadError` is an error's name and its text, both empty when there is none.
fn load_error(loaded: &Properties) -> Option<String> {
    let (name, text): (String, String) = loaded.get("LoadError")?;
    (!name.is_empty()).then_some(if text.is_empty() { name } else { text })
}

fn exit(loaded: &Properties) -> Option<Exit> {
    loaded.time("ExecMainExitTimestamp")?;
    // The numbers of `si_code` in sigaction(2).
    let how = match loaded.get("ExecMainCode")? {
        1_i32 => "exited",
        2 => "killed",
        3 => "dumped",
        _ => return None,
    };
    Some(Exit { how: how.to_owned(), status: loaded.get("ExecMainStatus")? })
}

/// What systemd does not account for itself, because the controller is not its own.
pub(super) fn memory(layout: &Layout, cgroup: &str) -> Option<u64> {
    let below = cgroup.trim_start_matches('/');
    if below.is_empty() {
        return None;
    }
    cgroup::number(&layout.cgroups.join(below), "memory.current")
        .or_else(|| cgroup::number(&layout.cgroups.join("memory").join(below), "memory.usage_in_bytes"))
}

pub(super) fn processor(directory: Option<&PathBuf>) -> Option<u64> {
    let stat = fs::read_to_string(directory?.join("cpu.stat")).ok()?;
    let us: u64 = stat.lines().find_map(|line| line.strip_prefix("usage_usec "))?.trim().parse().ok()?;
    us.checked_mul(1_000)
}

/// Returns a process's command line as `ps` shows it; empty when it has ended meanwhile.
fn command(pid: u32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let line = &line[..line.len().min(COMMAND_BYTES)];
    let words: Vec<_> =
        line.split(|&b| b == 0).filter(|word| !word.is_empty()).map(String::from_utf8_lossy).collect();
    if !words.is_empty() {
        return words.join(" ");
    }
    match fs::read_to_string(format!("/proc/{pid}/comm")) {
        Ok(name) => format!("[{}]", name.trim()),
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_as_ps_shows_them() {
        let own = command(std::process::id());
        let name = std::env::args().next().unwrap();
        assert!(own.starts_with(&name) && !own.contains('\0'), "{own}");
        assert_eq!(command(u32::MAX), "");
    }

    #[test]
    fn what_systemd_leaves_out_is_read_from_the_group() {
        let mount = tempfile::tempdir().unwrap();
        let group = mount.path().join("a.slice/b.service");
        fs::create_dir_all(&group).unwrap();
        fs::write(mount.path().join("cgroup.procs"), "").unwrap();
        fs::write(group.join("cgroup.procs"), format!("{}\n", std::process::id())).unwrap();
        fs::write(group.join("memory.current"), "4096\n").unwrap();
        fs::write(group.join("cpu.stat"), "usage_usec 1500\nuser_usec 1\n").unwrap();
        let layout = Layout { cgroups: mount.path().into(), ..Layout::system() };
        let properties = [("ControlGroup", "/a.slice/b.service"), ("ActiveState", "active")];
        let loaded = properties
            .map(|(n, v)| (n.to_owned(), zbus::wire::Variant::from(v).try_to_owned().unwrap()))
            .into_iter()
            .collect();
        let status = read(&"b.service".parse().unwrap(), &Properties(loaded), &layout);
        assert_eq!(
            (status.memory_bytes, status.cpu_ns, status.tasks),
            (Some(4096), Some(1_500_000), Some(1))
        );
        assert_eq!(status.processes[0].pid, std::process::id());
        assert_eq!((status.exit, status.main, status.load_error), (None, None, None));
    }
}
