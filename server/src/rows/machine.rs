//! Machines in the words of the wire.

use flotilla_api::machine::{Amounts, Machine, MachineState, MetadataOrigin};
use flotilla_engine::{ClusterRow, MachineRow, state::Life};
use flotilla_registry::records::{Capacity, MachineRecord};
use flotilla_units::Reservation;

/// Writes a machine.
pub(crate) fn machine(row: MachineRow, cluster: &ClusterRow) -> Machine {
    let record = row.record.as_deref();
    let text = |of: fn(&MachineRecord) -> &String| record.map(of).cloned();
    let origin = origin(&row);
    let settings = row.settings.as_deref();
    Machine {
        id: row.id,
        host: text(|record| &record.host),
        state: match row.life {
            Life::Stopped => MachineState::Stopped,
            Life::Lost => MachineState::Lost,
            Life::Present | Life::Unknown => MachineState::Alive,
        },
        addresses: record.map(|record| record.addresses.clone()).unwrap_or_default(),
        api: record.and_then(|record| record.api.clone()),
        facts: record.map(|record| record.facts.clone()).unwrap_or_default(),
        capacity: record.map(|record| capacity(&record.capacity)).unwrap_or_default(),
        reserved: reserved(row.reserved),
        version: text(|record| &record.version).unwrap_or_default(),
        units: row.units as u64,
        cordoned: settings.is_some_and(|settings| settings.cordoned),
        draining: settings.is_some_and(|settings| settings.draining),
        fenced: settings.is_some_and(|settings| settings.fenced),
        closed: row.closed,
        revision: row.settings_at.0,
        seat: cluster.seats.iter().any(|(_, seat)| seat.machine == row.id),
        leader: cluster.leader.as_ref().is_some_and(|leader| leader.machine == row.id),
        metadata: row.metadata,
        origin,
    }
}

fn origin(row: &MachineRow) -> MetadataOrigin {
    let said = row.settings.iter().flat_map(|settings| &settings.metadata);
    let mut origin = MetadataOrigin::default();
    for (key, value) in said {
        match value {
            Some(value) => drop(origin.set.insert(key.clone(), value.clone())),
            None => drop(origin.unset.insert(key.clone())),
        }
    }
    origin.configured = row.record.as_ref().map(|record| record.metadata.clone()).unwrap_or_default();
    origin
}

fn capacity(capacity: &Capacity) -> Amounts {
    let Capacity { cpu_milli, memory_bytes, named } = capacity.clone();
    Amounts { cpu_milli, memory_bytes, named, ports: Default::default() }
}

fn reserved(reservation: Reservation) -> Amounts {
    let Reservation { cpu_milli, memory_bytes, named, ports } = reservation;
    Amounts { cpu_milli, memory_bytes, named, ports }
}
