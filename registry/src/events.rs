//! Events as they go to the journal of the daemon that wrote them.
//!
//! An event is a record of its own in the transaction that it tells of; whoever wrote that transaction
//! says the same here, a line for each change with its fields, once the store has it. So
//! `journalctl FLOTILLA_UNIT=web@1.service` on the machine that led, or that was asked, shows them.

use flotilla_units::UnitName;
use tracing::{field, info};

use crate::{records::EventRecord, store::Revision};

/// The target of these lines: a log filter `flotilla_event=off` leaves them out.
const TARGET: &str = "flotilla_event";

/// Tells the log of every change of an event that is in the store.
pub fn tell_log(record: &EventRecord, revision: Revision) {
    for change in &record.changes {
        let request = change.request.as_deref().or(record.request.as_deref());
        let tell = |unit: Option<&UnitName>| {
            info!(
                target: TARGET,
                event = change.kind,
                unit = unit.map(field::display),
                host = change.host,
                machine = change.machine.as_ref().map(field::display),
                why = change.why,
                by = change.by.as_ref().unwrap_or(&record.by),
                request,
                revision = revision.0,
                "{}",
                change.kind,
            );
        };
        tell(change.unit.as_ref());
        change.also.iter().for_each(|unit| tell(Some(unit)));
    }
}
