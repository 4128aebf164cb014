//! What a stop of a unit takes down with it.
//!
//! systemd's `restart` stops what needs a unit and starts it again. flotilla's stops first and starts later,
//! from another file and with other evidence, so it has to see to the second half itself: it notes who is
//! stopped ([`pulled`](crate::systemd::files)), and the tasks of those start them once the unit has.

use std::collections::{BTreeSet, VecDeque};

use flotilla_units::UnitName;

use super::{DbusSystemd, ask::properties_of, unit::INTERFACE};
use crate::systemd::SystemdError;

/// The kinds of units that systemd stops with one (`UNIT_ATOM_PROPAGATE_STOP`).
const STOPPED_WITH: [&str; 5] = ["RequiredBy", "BoundBy", "ConsistsOf", "RequisiteOf", "PropagatesStopTo"];

/// How many units are looked at for what depends on one. Two hundred: more depend on targets of the machine's
/// own, and on no unit of flotilla's.
const LOOKED_AT: usize = 200;

impl DbusSystemd {
    /// Notes which of flotilla's units a stop of this one stops, directly or by others. What cannot be noted is
    /// told: a stop is not put off for it.
    pub(super) async fn note_dependents(&self, unit: &UnitName) {
        if let Err(error) = self.try_note_dependents(unit).await {
            tracing::warn!(%unit, %error, "what it stops with it may have to be started again by hand");
        }
    }

    async fn try_note_dependents(&self, unit: &UnitName) -> Result<(), SystemdError> {
        let mut seen = BTreeSet::from([unit.to_string()]);
        let mut left = VecDeque::from([unit.clone()]);
        while let Some(next) = left.pop_front() {
            for name in self.stopped_with(&next).await? {
                if seen.len() >= LOOKED_AT || !seen.insert(name.clone()) {
                    continue;
                }
                let Ok(name) = name.parse::<UnitName>() else { continue };
                self.note_dependent(&name, unit).await?;
                left.push_back(name);
            }
        }
        Ok(())
    }

    /// Notes that a stop of another one stops this one, if flotilla has started it and it runs.
    async fn note_dependent(&self, unit: &UnitName, by: &UnitName) -> Result<(), SystemdError> {
        if !self.files.read(unit)?.evidence.is_some_and(|evidence| evidence.started) {
            return Ok(());
        }
        let Some(present) = self.present(unit, true).await? else { return Ok(()) };
        match present.state.invocation {
            Some(invocation) if !matches!(present.state.active.as_str(), "inactive" | "failed") => {
                tracing::info!(%unit, %by, "it is stopped with the other, and started again once that has started");
                self.files.note_pulled(unit, by, &invocation)
            }
            _ => Ok(()),
        }
    }

    /// Returns what systemd stops together with a loaded unit.
    async fn stopped_with(&self, unit: &UnitName) -> Result<Vec<String>, SystemdError> {
        let asked = self.call_unit("Get", unit, |m, name| async move {
            let proxy = properties_of(&m, &name).await?;
            let mut found = Vec::new();
            for property in STOPPED_WITH {
                match proxy.get(INTERFACE, property).await {
                    Ok(units) => found.extend(Vec::<String>::try_from(units).unwrap_or_default()),
                    // Older versions do not have all of them.
                    Err(zbus::Error::MethodError(..)) => {}
                    Err(e) => return Err(e),
                }
            }
            Ok(found)
        });
        asked.await
    }

    /// Has the tasks of units look again that were stopped with this one: it has started, or does not.
    pub(super) fn ring_dependents(&self, unit: &UnitName) {
        match self.files.pulled_by(unit) {
            Ok(units) => units.iter().for_each(|unit| self.shared.outbox.unit(unit)),
            Err(error) => tracing::warn!(%unit, %error, "what was stopped with it is not looked after"),
        }
    }
}
