//! What systemd is asked about a unit.
//!
//! Only of one that is loaded: to read another would load it. What a service that runs is told of by
//! itself ([`told`](super::told)) nobody asks.

use std::collections::HashMap;

use flotilla_units::UnitName;
use zbus::{proxy::CacheProperties, wire::OwnedVariant};

use super::{
    DbusSystemd,
    error::is_no_such,
    proxy::{ManagerProxy, PropertiesProxy},
    unit::{self, Properties},
};
use crate::systemd::{SystemdError, escape};

impl DbusSystemd {
    /// Returns what is decided by of a unit; `None` when it is not loaded.
    pub(super) async fn properties(&self, unit: &UnitName) -> Result<Option<Properties>, SystemdError> {
        if self.is_loaded(unit).await? { self.read_loaded(unit).await.map(Some) } else { Ok(None) }
    }

    /// Returns everything that systemd tells of a unit; `None` when it is not loaded.
    ///
    /// For people only: `UnitFileState` and `UnitFilePreset` are among it, and the first time that
    /// these are asked for systemd reads all unit files and presets there are, some 4 ms.
    pub(super) async fn everything(&self, unit: &UnitName) -> Result<Option<Properties>, SystemdError> {
        if !self.is_loaded(unit).await? {
            return Ok(None);
        }
        let all = self.call_unit("GetAll", unit, |m, name| async move {
            properties_of(&m, &name).await?.get_all("").await
        });
        Ok(Some(Properties(all.await?)))
    }

    /// Asks whether a unit is loaded: reading any other would load it.
    pub(super) async fn is_loaded(&self, unit: &UnitName) -> Result<bool, SystemdError> {
        match self.call_unit("GetUnit", unit, |m, name| async move { m.get_unit(&name).await }).await {
            Ok(_) => Ok(true),
            Err(e) if is_no_such(&e) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Reads a unit that is loaded; any other is loaded by that.
    ///
    /// States and job are of one moment, and all else is read after them: a control group that is
    /// empty then was empty when the unit was at rest, or is another start's, whose signals follow.
    async fn read_loaded(&self, unit: &UnitName) -> Result<Properties, SystemdError> {
        let kind = unit.unit_type();
        let read = self.call_unit("ListUnitsByNames", unit, move |m, name| async move {
            let row = m.list_units_by_names(&[&name]).await?.into_iter().next();
            let row =
                row.ok_or_else(|| zbus::Error::Failure(format!("{name} was asked for, and left out")))?;
            let proxy = properties_of(&m, &name).await?;
            let mut all = match unit::interface(kind) {
                Some(interface) => proxy.get_all(interface).await?,
                None => HashMap::new(),
            };
            for property in unit::SINGLY {
                all.insert(property.to_owned(), proxy.get(unit::INTERFACE, property).await?);
            }
            Ok(Properties::with_row(all, row))
        });
        read.await
    }

    /// Returns the file that a unit was loaded from; `None` when it is not loaded.
    pub(super) async fn fragment(&self, unit: &UnitName) -> Result<Option<String>, SystemdError> {
        if !self.is_loaded(unit).await? {
            return Ok(None);
        }
        Ok(Some(self.property(unit, "FragmentPath").await?.try_into().unwrap_or_default()))
    }

    /// Asks whether a loaded unit's files have changed since it was loaded.
    pub(super) async fn needs_reload(&self, unit: &UnitName) -> Result<bool, SystemdError> {
        Ok(self.property(unit, "NeedDaemonReload").await?.try_into().unwrap_or(false))
    }

    /// Returns a loaded unit's control group; `None` when it is not loaded, or of a type that has none.
    pub(super) async fn control_group(&self, unit: &UnitName) -> Result<Option<String>, SystemdError> {
        let Some(interface) = unit::interface(unit.unit_type()) else { return Ok(None) };
        if !self.is_loaded(unit).await? {
            return Ok(None);
        }
        let asked = self.call_unit("Get", unit, move |m, unit| async move {
            properties_of(&m, &unit).await?.get(interface, "ControlGroup").await
        });
        match asked.await {
            Ok(group) => Ok(group.try_into().ok()),
            // Timers and the like have no such property.
            Err(SystemdError::Refused { .. }) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Reads a property that all units have.
    async fn property(&self, unit: &UnitName, name: &'static str) -> Result<OwnedVariant, SystemdError> {
        let asked = self.call_unit("Get", unit, move |m, unit| async move {
            properties_of(&m, &unit).await?.get(unit::INTERFACE, name).await
        });
        asked.await
    }
}

pub(super) async fn properties_of(
    manager: &ManagerProxy<'_>,
    unit: &str,
) -> zbus::Result<PropertiesProxy<'static>> {
    PropertiesProxy::builder(manager.inner().connection())
        .path(escape::object_path(unit))
        .cache_properties(CacheProperties::No)
        .build()
        .await
}
