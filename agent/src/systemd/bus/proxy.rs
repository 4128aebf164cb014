//! What is called on systemd and on the bus itself, by hand: twenty items instead of ten thousand
//! generated lines, and only what systemd 252 has.
//!
//! No proxy caches properties: a cache would keep a match of its own on the bus, and systemd sends
//! each change to everybody that matches.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use zbus::wire::{OwnedObjectPath, OwnedVariant, Variant};

/// The name that systemd has on the bus.
pub(super) const SYSTEMD: &str = "org.freedesktop.systemd1";

/// One line of `systemctl list-units`.
#[derive(Debug, Deserialize, Serialize, zbus::wire::Type)]
pub(super) struct UnitRow {
    pub(super) name: String,
    pub(super) description: String,
    pub(super) load: String,
    pub(super) active: String,
    pub(super) sub: String,
    pub(super) following: String,
    pub(super) path: OwnedObjectPath,
    pub(super) job: u32,
    pub(super) job_type: String,
    pub(super) job_path: OwnedObjectPath,
}

#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
pub(super) trait Manager {
    /// Makes systemd send signals to this connection, and only as long as it lasts.
    fn subscribe(&self) -> zbus::Result<()>;

    /// Fails with `NoSuchUnit` for a unit that is not loaded; it never loads one.
    fn get_unit(&self, name: &str) -> zbus::Result<OwnedObjectPath>;

    fn list_units(&self) -> zbus::Result<Vec<UnitRow>>;

    /// Loads those that are not loaded.
    fn list_units_by_names(&self, names: &[&str]) -> zbus::Result<Vec<UnitRow>>;

    /// The job of a unit whose condition does not hold ends in `done`, as `systemctl start` of it
    /// does well; `StartUnitWithFlags` of 252 makes no difference to that (tried).
    fn start_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;

    /// Makes a unit of properties alone, and starts it. The last argument is for units to be made
    /// beside it, of which systemd knows none yet.
    fn start_transient_unit(
        &self,
        name: &str,
        mode: &str,
        properties: &[(&str, Variant<'_>)],
        beside: &[(&str, Vec<(&str, Variant<'_>)>)],
    ) -> zbus::Result<OwnedObjectPath>;

    fn stop_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;

    fn reset_failed_unit(&self, name: &str) -> zbus::Result<()>;

    /// Fails with `NoSuchJob` when it has ended.
    fn get_job(&self, id: u32) -> zbus::Result<OwnedObjectPath>;

    fn reload(&self) -> zbus::Result<()>;

    #[zbus(property)]
    fn version(&self) -> zbus::Result<String>;
}

/// A unit's properties; the empty interface name means all interfaces.
#[zbus::proxy(interface = "org.freedesktop.DBus.Properties", default_service = "org.freedesktop.systemd1")]
pub(super) trait Properties {
    fn get_all(&self, interface: &str) -> zbus::Result<HashMap<String, OwnedVariant>>;

    fn get(&self, interface: &str, property: &str) -> zbus::Result<OwnedVariant>;
}

#[zbus::proxy(
    interface = "org.freedesktop.DBus",
    default_service = "org.freedesktop.DBus",
    default_path = "/org/freedesktop/DBus"
)]
pub(super) trait Bus {
    fn add_match(&self, rule: &str) -> zbus::Result<()>;
}
