//! When a move has come true: the unit has left its machine, and is somewhere else.

use std::collections::BTreeSet;

use flotilla_api::unit::{Placement, Target, Unit};
use flotilla_units::MachineId;

use super::{Verdict, machine, stays};

/// Judges a unit that is moved off these machines. It runs elsewhere before it stops there, so that it has
/// left says that it is well where it is.
pub(super) fn judge(unit: &Unit, from: &BTreeSet<MachineId>) -> Verdict {
    let is_old = |placement: &&Placement| from.contains(&placement.machine);
    let old = unit.placements.iter().find(|it| is_old(it) && it.machine_alive);
    let new = unit.placements.iter().find(|it| !is_old(it) && stays(it));
    let reason = || unit.reason.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    match (old, new) {
        (Some(old), _) if old.departing.is_some() => {
            Verdict::Pending(format!("stopping on {}", machine(old)))
        }
        (Some(_), Some(new)) => Verdict::Pending(format!("being started on {}{}", machine(new), reason())),
        (Some(old), None) => Verdict::CannotBePlaced(format!(
            "stays on {}, because its move was taken back; `flotctl history {}` tells why",
            machine(old),
            unit.name
        )),
        (None, Some(new)) => Verdict::Done(format!("moved to {}", machine(new))),
        (None, None) if unit.target == Target::Inactive => {
            Verdict::failed(String::new(), "it was unloaded meanwhile")
        }
        (None, None) => match &unit.unplaced {
            Some(why) => Verdict::CannotBePlaced(why.clone()),
            None => Verdict::Pending("waiting to be placed".to_owned()),
        },
    }
}

#[cfg(test)]
mod tests {
    use flotilla_api::unit::Versions;
    use jiff::Timestamp;

    use super::*;

    fn id(n: u8) -> MachineId {
        format!("{n:032x}").parse().unwrap()
    }

    fn on(n: u8) -> Placement {
        Placement {
            machine: id(n),
            host: Some(format!("m{n}")),
            machine_alive: true,
            token: i64::from(n),
            run: 1,
            hash: None,
            current: Target::Launched,
            departing: None,
            moving: None,
            state: None,
        }
    }

    fn leaving(n: u8) -> Placement {
        Placement { departing: Some("machines are evened out".to_owned()), ..on(n) }
    }

    fn lost(n: u8) -> Placement {
        Placement { machine_alive: false, ..on(n) }
    }

    fn judged(placements: Vec<Placement>, change: impl Fn(&mut Unit)) -> Verdict {
        let mut unit = Unit {
            name: "a.service".parse().unwrap(),
            target: Target::Launched,
            revision: 9,
            current: Target::Launched,
            generation: 3,
            run: 1,
            hash: None,
            template: None,
            description: None,
            global: false,
            deleting: false,
            by: "tester".to_owned(),
            at: Timestamp::UNIX_EPOCH,
            placements,
            unplaced: None,
            reason: None,
            versions: Versions::default(),
            rollout: None,
            next_start: false,
            own_text: false,
            set: None,
        };
        change(&mut unit);
        judge(&unit, &[id(1)].into())
    }

    #[test]
    fn a_move_is_done_when_the_unit_has_left() {
        let as_it_is = |_: &mut Unit| {};
        let pending = |text: &str| Verdict::Pending(text.to_owned());
        assert_eq!(judged(vec![on(1), on(2)], as_it_is), pending("being started on m2"));
        let slow = judged(vec![on(1), on(2)], |unit| unit.reason = Some("m2: start timed out".to_owned()));
        assert_eq!(slow, pending("being started on m2: m2: start timed out"));
        assert_eq!(judged(vec![leaving(1), on(2)], as_it_is), pending("stopping on m1"));
        assert_eq!(judged(vec![on(2)], as_it_is), Verdict::Done("moved to m2".to_owned()));
        let died = "the machine that it left was lost meanwhile";
        assert_eq!(judged(vec![lost(1), on(2)], as_it_is), Verdict::Done("moved to m2".to_owned()), "{died}");
    }

    #[test]
    fn a_move_that_comes_to_nothing_says_why() {
        let as_it_is = |_: &mut Unit| {};
        let Verdict::CannotBePlaced(why) = judged(vec![on(1)], as_it_is) else { panic!("it stays") };
        assert!(why.contains("stays on m1") && why.contains("flotctl history a.service"), "{why}");
        let nowhere = judged(vec![lost(1)], |unit| unit.unplaced = Some("there is no machine".to_owned()));
        assert_eq!(nowhere, Verdict::CannotBePlaced("there is no machine".to_owned()));
        assert_eq!(judged(vec![], as_it_is), Verdict::Pending("waiting to be placed".to_owned()));
        let unloaded = judged(vec![], |unit| unit.target = Target::Inactive);
        assert!(matches!(unloaded, Verdict::Failed { .. }), "{unloaded:?}");
    }
}
