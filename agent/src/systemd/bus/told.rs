//! What systemd told last of a service, without having been asked.
//!
//! With each change systemd sends two `PropertiesChanged`, first the one of the unit's type and then
//! the one of all units, so that whoever hears both has the state of one moment
//! (`send_changed_signal` in systemd's dbus-unit.c). They carry all that is decided by of a unit that
//! runs; what they lack, the control group and the file, matters only of one at rest. So a service
//! that runs is never asked about. [`Told`] keeps the two as they came, and reads them when somebody
//! wants to know: most are followed by others before that.

use std::collections::HashMap;

use flotilla_units::UnitType;
use zbus::{
    Message,
    wire::{OwnedVariant, Variant},
};

use super::unit::{self, Properties};
use crate::systemd::{Layout, UnitState};

/// What is taken of the signal of a service.
const OF_A_SERVICE: [&str; 4] = ["Result", "NRestarts", "ExecMainExitTimestamp", "ExecMainStatus"];

/// What is taken of the signal of any unit.
const OF_A_UNIT: [&str; 5] = ["ActiveState", "SubState", "StateChangeTimestamp", "InvocationID", "Job"];

/// What systemd told last of one unit.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// The service's signal, whose unit's is still to come.
    half: Option<Message>,
    last: Last,
}

#[derive(Debug, Default)]
enum Last {
    #[default]
    Nothing,
    /// The service's signal and the unit's.
    Signals(Message, Message),
    State(UnitState),
}

impl Told {
    /// Takes a `PropertiesChanged`; returns whether that completes what is told of a moment.
    pub(super) fn hear(&mut self, signal: &Message) -> bool {
        let body = signal.body();
        // Only the first of three: which interface it is about.
        match body.deserialize_ignore_signature::<&str>() {
            Ok(unit::INTERFACE) => {
                let half = self.half.take();
                self.last = half.map_or(Last::Nothing, |half| Last::Signals(half, signal.clone()));
                true
            }
            Ok(interface) if Some(interface) == unit::interface(UnitType::Service) => {
                self.half = Some(signal.clone());
                false
            }
            // Whatever it says, something has changed.
            _ => {
                self.last = Last::Nothing;
                true
            }
        }
    }

    /// Forgets all: signals were lost, or may have been.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// Returns the state of a service that runs, or is on its way; `None` when it is at rest, or when
    /// nothing was told, or not all of it: then systemd has to be asked.
    ///
    /// Its control group counts as not empty, and no file is named.
    pub(super) fn running(&mut self, layout: &Layout) -> Option<UnitState> {
        if let Last::Signals(service, unit) = &self.last {
            self.last = read(service, unit, layout).map_or(Last::Nothing, Last::State);
        }
        match &self.last {
            Last::State(state) if !matches!(state.active.as_str(), "inactive" | "failed") => {
                Some(state.clone())
            }
            _ => None,
        }
    }
}

fn read(service: &Message, unit: &Message, layout: &Layout) -> Option<UnitState> {
    let mut all = HashMap::new();
    take(service, &OF_A_SERVICE, &mut all)?;
    take(unit, &OF_A_UNIT, &mut all)?;
    // It would not be told of otherwise.
    let load = "loaded".to_owned();
    Some(UnitState { load, cgroup_empty: false, ..Properties(all).state(layout) })
}

/// Takes properties out of a signal; `None` when one of them is not in it.
fn take(signal: &Message, wanted: &[&str], all: &mut HashMap<String, OwnedVariant>) -> Option<()> {
    let body = signal.body();
    let (_, changed, _): (&str, HashMap<&str, Variant<'_>>, Vec<&str>) = body.deserialize().ok()?;
    for name in wanted {
        all.insert((*name).to_owned(), changed.get(name)?.try_to_owned().ok()?);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use zbus::wire::ObjectPath;

    use super::*;

    fn signal(interface: &str, changed: Vec<(&str, Variant<'_>)>) -> Message {
        let changed: HashMap<&str, Variant<'_>> = changed.into_iter().collect();
        Message::signal(
            "/org/freedesktop/systemd1/unit/a_2eservice",
            "org.freedesktop.DBus.Properties",
            "PropertiesChanged",
        )
        .build(&(interface, changed, Vec::<&str>::new()))
        .unwrap()
    }

    fn service(restarts: u32) -> Message {
        let changed = vec![
            ("Result", "success".into()),
            ("NRestarts", restarts.into()),
            ("ExecMainExitTimestamp", 0_u64.into()),
            ("ExecMainStatus", 0_i32.into()),
        ];
        signal("org.freedesktop.systemd1.Service", changed)
    }

    fn unit(active: &str, job: u32) -> Message {
        let changed = vec![
            ("ActiveState", active.into()),
            ("SubState", "some".into()),
            ("StateChangeTimestamp", 1_000_000_u64.into()),
            ("InvocationID", Variant::from(vec![0xab_u8; 16])),
            ("Job", Variant::from((job, ObjectPath::try_from("/job").unwrap()))),
        ];
        signal(unit::INTERFACE, changed)
    }

    #[test]
    fn both_signals_together_tell_the_state_of_a_service_that_runs() {
        let (mut told, layout) = (Told::default(), Layout::system());
        assert_eq!(told.running(&layout), None);
        assert!(!told.hear(&service(2)) && told.hear(&unit("active", 7)));
        let state = told.running(&layout).unwrap();
        assert_eq!(
            (state.active.as_str(), state.sub.as_str(), state.load.as_str()),
            ("active", "some", "loaded")
        );
        assert_eq!((state.restarts, state.exit_status, state.result.as_str()), (2, None, "success"));
        assert_eq!((state.job, state.cgroup_empty), (true, false));
        assert_eq!(state.invocation, Some("ab".repeat(16)));
        assert_eq!(state.since.unwrap().as_second(), 1);
        assert_eq!(told.running(&layout), Some(state), "it is kept");
        // The first half of what comes next is not mixed with it.
        assert!(!told.hear(&service(3)));
        assert_eq!(told.running(&layout).unwrap().restarts, 2);
        assert!(told.hear(&unit("active", 0)));
        let state = told.running(&layout).unwrap();
        assert_eq!((state.restarts, state.job), (3, false));
        told.forget();
        assert_eq!(told.running(&layout), None);
    }

    #[test]
    fn of_a_unit_at_rest_or_told_in_part_systemd_is_asked() {
        let (mut told, layout) = (Told::default(), Layout::system());
        for rest in ["inactive", "failed"] {
            told.hear(&service(0));
            told.hear(&unit(rest, 0));
            assert_eq!(told.running(&layout), None);
        }
        // Without its first half, as when it began to be listened to in between.
        assert!(told.hear(&unit("active", 0)));
        assert_eq!(told.running(&layout), None);
        // Without one of the properties.
        told.hear(&service(0));
        assert!(told.hear(&signal(unit::INTERFACE, vec![("ActiveState", "active".into())])));
        assert_eq!(told.running(&layout), None);
        // Of another shape.
        told.hear(&service(0));
        told.hear(&unit("active", 0));
        assert!(told.hear(&signal("org.example", vec![])));
        assert_eq!(told.running(&layout), None);
    }
}
