//! What systemd tells of a unit that is loaded.

use std::collections::HashMap;

use flotilla_units::UnitType;
use jiff::Timestamp;
use zbus::wire::{OwnedObjectPath, OwnedVariant, Variant};

use super::proxy::UnitRow;
use crate::systemd::{Layout, UnitState, cgroup};

/// What every type of unit has. Reading all of it is slow; see
/// [`DbusSystemd::everything`](super::DbusSystemd::everything).
pub(super) const INTERFACE: &str = "org.freedesktop.systemd1.Unit";

/// What is read of [`INTERFACE`] beside the row of `ListUnitsByNames`.
pub(super) const SINGLY: [&str; 3] = ["FragmentPath", "InvocationID", "StateChangeTimestamp"];

/// The name under which the number of a row's job is kept; systemd's own names have no dash.
const JOB: &str = "job-id";

/// Properties of one unit.
#[derive(Debug)]
pub(in crate::systemd) struct Properties(pub(super) HashMap<String, OwnedVariant>);

impl Properties {
    /// Adds what a row of systemd's list says.
    pub(super) fn with_row(mut properties: HashMap<String, OwnedVariant>, row: UnitRow) -> Self {
        let words = [("LoadState", row.load), ("ActiveState", row.active), ("SubState", row.sub)];
        let words = words.into_iter().map(|(name, word)| (name, Variant::from(word)));
        for (name, value) in words.chain([(JOB, Variant::from(row.job))]) {
            // It holds no file descriptor, which alone cannot be owned.
            if let Ok(value) = value.try_to_owned() {
                properties.insert(name.to_owned(), value);
            }
        }
        Self(properties)
    }

    /// Returns a property of this type; `None` when the unit's type has none of this name.
    pub(in crate::systemd) fn get<T: TryFrom<OwnedVariant>>(&self, name: &str) -> Option<T> {
        self.0.get(name)?.try_clone().ok()?.try_into().ok()
    }

    /// Returns a string, empty where there is none.
    pub(in crate::systemd) fn text(&self, name: &str) -> String {
        self.get(name).unwrap_or_default()
    }

    /// Returns a number; systemd writes "not set" as the highest.
    pub(in crate::systemd) fn number(&self, name: &str) -> Option<u64> {
        self.get::<u64>(name).filter(|&n| n != u64::MAX)
    }

    /// Returns a time of day in microseconds; systemd writes "never" as zero.
    pub(in crate::systemd) fn time(&self, name: &str) -> Option<Timestamp> {
        let us = self.number(name).filter(|&us| us != 0)?;
        Timestamp::from_microsecond(i64::try_from(us).ok()?).ok()
    }

    pub(super) fn active(&self) -> String {
        self.text("ActiveState")
    }

    pub(super) fn state(&self, layout: &Layout) -> UnitState {
        UnitState {
            load: self.text("LoadState"),
            active: self.active(),
            sub: self.text("SubState"),
            since: self.time("StateChangeTimestamp"),
            invocation: self.invocation(),
            result: self.text("Result"),
            exit_status: self.exit_status(),
            restarts: self.get("NRestarts").unwrap_or(0),
            fragment: self.text("FragmentPath"),
            cgroup_empty: self.cgroup_empty(layout),
            job: self.has_job(),
        }
    }

    /// Returns whether a job is queued or under way; systemd writes "none" as number zero.
    pub(super) fn has_job(&self) -> bool {
        let job = self.get::<(u32, OwnedObjectPath)>("Job").map(|(id, _)| id);
        job.or_else(|| self.get(JOB)).is_some_and(|id: u32| id != 0)
    }

    pub(super) fn cgroup_empty(&self, layout: &Layout) -> bool {
        cgroup::is_empty(&layout.cgroups, &self.text("ControlGroup"))
    }

    /// Returns the id of what runs, or ran last.
    pub(super) fn invocation(&self) -> Option<String> {
        let bytes: Vec<u8> = self.get("InvocationID")?;
        (bytes.len() == 16).then(|| bytes.iter().map(|b| format!("{b:02x}")).collect())
    }

    fn exit_status(&self) -> Option<i32> {
        self.time("ExecMainExitTimestamp")?;
        self.get("ExecMainStatus")
    }
}

/// The interface with the properties of a unit's type; none for a type that has none of its own.
pub(super) const fn interface(kind: UnitType) -> Option<&'static str> {
    Some(match kind {
        UnitType::Service => "org.freedesktop.systemd1.Service",
        UnitType::Socket => "org.freedesktop.systemd1.Socket",
        UnitType::Device => "org.freedesktop.systemd1.Device",
        UnitType::Mount => "org.freedesktop.systemd1.Mount",
        UnitType::Automount => "org.freedesktop.systemd1.Automount",
        UnitType::Swap => "org.freedesktop.systemd1.Swap",
        UnitType::Path => "org.freedesktop.systemd1.Path",
        UnitType::Timer => "org.freedesktop.systemd1.Timer",
        UnitType::Slice => "org.freedesktop.systemd1.Slice",
        UnitType::Scope => "org.freedesktop.systemd1.Scope",
        UnitType::Target => return None,
    })
}

/// What a unit is that systemd has not loaded.
pub(super) fn unloaded(has_file: bool, fragment: String) -> UnitState {
    UnitState {
        load: if has_file { "loaded" } else { "not-found" }.to_owned(),
        active: "inactive".to_owned(),
        sub: "dead".to_owned(),
        since: None,
        invocation: None,
        result: String::new(),
        exit_status: None,
        restarts: 0,
        fragment: if has_file { fragment } else { String::new() },
        cgroup_empty: true,
        job: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties(list: Vec<(&str, Variant<'_>)>) -> Properties {
        Properties(list.into_iter().map(|(n, v)| (n.to_owned(), v.try_to_owned().unwrap())).collect())
    }

    #[test]
    fn a_failed_service_is_read() {
        let p = properties(vec![
            ("LoadState", "loaded".into()),
            ("ActiveState", "failed".into()),
            ("SubState", "failed".into()),
            ("Result", "exit-code".into()),
            ("StateChangeTimestamp", 1_795_378_005_516_522_u64.into()),
            ("ExecMainExitTimestamp", 1_795_378_005_516_522_u64.into()),
            ("ExecMainStatus", 203_i32.into()),
            ("NRestarts", 4_u32.into()),
            ("InvocationID", Variant::from(vec![0xab_u8; 16])),
            ("ControlGroup", "".into()),
        ]);
        let state = p.state(&Layout::system());
        assert_eq!((state.active.as_str(), state.result.as_str()), ("failed", "exit-code"));
        assert_eq!((state.exit_status, state.restarts), (Some(203), 4));
        assert_eq!(state.invocation.as_deref(), Some("abababababababababababababababab"));
        assert_eq!(state.since.unwrap().as_microsecond(), 1_795_378_005_516_522);
        assert!(state.cgroup_empty);
    }

    #[test]
    fn what_is_missing_or_of_another_type_is_not_made_up() {
        let p = properties(vec![
            ("InvocationID", Variant::from(Vec::<u8>::new())),
            ("StateChangeTimestamp", 0_u64.into()),
            ("ExecMainStatus", 0_i32.into()),
            ("NRestarts", "three".into()),
            ("MemoryCurrent", u64::MAX.into()),
        ]);
        let state = p.state(&Layout::system());
        assert_eq!((state.invocation, state.since, state.exit_status), (None, None, None));
        assert_eq!((state.restarts, p.number("MemoryCurrent")), (0, None));
    }
}
