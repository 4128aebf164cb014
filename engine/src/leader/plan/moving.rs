//! Planning of moves that start first.
//!
//! ```text
//!   stays ──────► moving, and in the same transaction an entry elsewhere ──────► departing, once that is ready
//!     ▲                          │
//!     └──────────────────────────┘ the entry elsewhere departs in the same transaction
//! ```

use flotilla_registry::records::{Departure, ManifestEntry};
use flotilla_units::MachineId;

use super::{Edit, Plan, Planning, in_words};
use crate::{
    leader::cause::{Cause, host},
    model::Decided,
    placement::Decision,
    state::{Life, Placed, Readiness, Wanted},
};

impl Plan {
    /// Has an entry kept only until its unit is ready elsewhere, or kept for good after all.
    fn set_moving(&mut self, placed: &Placed<'_>, moving: Option<Departure>, cause: Cause) {
        let entry = ManifestEntry { moving, ..placed.entry.clone() };
        self.edits.push(Edit::Replace { machine: placed.machine, token: entry.token, entry });
        let kind = if moving.is_some() { "moving" } else { "move-taken-back" };
        self.tell_because(kind, Some(placed.machine), Some(cause));
    }
}

impl Planning<'_> {
    /// Plans the next step of a unit that moves, or is to. `None` when there is none, and the unit is
    /// planned as any other; false when the tokens ran out.
    pub(super) fn go_on_moving(
        &mut self,
        plan: &mut Plan,
        placed: &[Placed<'_>],
        wanted: &Wanted,
        decided: &Decided,
        target: Option<MachineId>,
    ) -> Option<bool> {
        let on = placed.iter().filter(|it| it.entry.stays()).max_by_key(|it| it.entry.token);
        if let (Some((from, why)), Some(on)) = (decided.moving, on)
            && on.machine == from
        {
            return Some(self.begin(plan, placed, on, target, why, wanted));
        }
        let moving: Vec<&Placed<'_>> =
            placed.iter().filter(|it| it.entry.departing.is_none() && it.entry.moving.is_some()).collect();
        if moving.is_empty() {
            return None;
        }
        let back = decided.stay.filter(|_| target.is_none());
        if let Some(back) = moving.iter().find(|it| Some(it.machine) == back) {
            self.take_back(plan, back, on, decided);
            return Some(true);
        }
        for it in &moving {
            if let Some(Decision::Depart { why, reason, .. }) = decided.depart.get(&it.machine)
                && *why != Departure::MachineLost
                && self.may_finish(placed, it, on, *why)
            {
                self.order_off(plan, it, *why, reason.as_ref());
            } else if it.entry.target != wanted.target {
                let entry = ManifestEntry { target: wanted.target, ..it.entry.clone() };
                plan.edits.push(Edit::Replace { machine: it.machine, token: entry.token, entry });
                let cause = Cause::ordered(self.state, &plan.unit);
                plan.tell_because("retargeted", Some(it.machine), Some(cause));
            }
        }
        // It may also have to be started anew: then none of its old places may be one that lives.
        let starts = target.is_some() && on.is_none_or(|on| on.life == Life::Lost);
        let keeps_one = decided.moving.is_some();
        if starts && !keeps_one {
            let released = moving.iter().all(|it| it.life == Life::Lost && self.is_released(it));
            if !released {
                return Some(true);
            }
            for it in &moving {
                plan.absent.insert(it.machine);
                plan.depart(
                    it,
                    Departure::MachineLost,
                    Cause::left(self.state, it.machine, Departure::MachineLost),
                );
            }
            let before = plan.edits.len();
            let planned = match (on, target) {
                (Some(on), Some(target)) => self.move_off_lost(plan, placed, on, target, wanted),
                (None, Some(target)) => self.start_on(plan, placed, target, wanted),
                (_, None) => true,
            };
            if plan.edits.len() == before {
                // It goes nowhere for now, so nothing of it is given up either.
                *plan = self.only_proof(&plan.unit.clone(), placed);
            }
            return Some(planned);
        }
        None
    }

    fn begin(
        &mut self,
        plan: &mut Plan,
        placed: &[Placed<'_>],
        on: &Placed<'_>,
        target: Option<MachineId>,
        why: Departure,
        wanted: &Wanted,
    ) -> bool {
        let Some(target) = target.filter(|target| *target != on.machine && on.life != Life::Lost) else {
            return true;
        };
        // One move after the other: what is kept until then is never more than one.
        if placed.iter().any(|it| it.entry.departing.is_none() && it.entry.moving.is_some()) {
            return true;
        }
        let planned = self.start_on(plan, placed, target, wanted);
        if plan.adds() {
            let cause = match self.asked.filter(|_| why == Departure::Rebalanced) {
                Some(asked) => Cause {
                    why: format!("{} by {}", in_words(why), asked.by),
                    request: asked.request.clone(),
                },
                None => Cause::departs(self.state, &plan.unit, on.machine, why),
            };
            // What gave it its new place is that it leaves the old one.
            let placing = plan.changes.iter_mut().filter(|change| change.kind == "placed");
            placing.for_each(|change| {
                let from = host(self.state, on.machine);
                change.why = Some(format!("it moves from {from}: {}", cause.why));
                change.request.clone_from(&cause.request);
            });
            plan.set_moving(on, Some(why), cause);
        }
        planned
    }

    /// A moving entry stays after all, and the one that was started elsewhere leaves.
    fn take_back(&self, plan: &mut Plan, back: &Placed<'_>, on: Option<&Placed<'_>>, decided: &Decided) {
        match on {
            None => {}
            Some(on) if on.life == Life::Lost => {
                if !self.is_released(on) {
                    return;
                }
                plan.absent.insert(on.machine);
                plan.depart(
                    on,
                    Departure::MachineLost,
                    Cause::left(self.state, on.machine, Departure::MachineLost),
                );
            }
            Some(on) => match decided.depart.get(&on.machine) {
                Some(Decision::Depart { why, reason, .. }) if *why != Departure::MachineLost => {
                    self.order_off(plan, on, *why, reason.as_ref());
                }
                _ => return,
            },
        }
        let why = match on {
            Some(on) => match self.state.readiness_to_leave_for(std::slice::from_ref(back), on) {
                Readiness::Failed(why) => {
                    format!("it does not get ready on {}: {why}", host(self.state, on.machine))
                }
                _ => format!("it does not go on to {}", host(self.state, on.machine)),
            },
            None => "it was not started elsewhere".to_owned(),
        };
        plan.set_moving(back, None, Cause { why, request: None });
    }

    /// Tells whether a moving entry may become a departing one: that its unit is ready elsewhere is looked at
    /// once more.
    fn may_finish(
        &self,
        placed: &[Placed<'_>],
        moving: &Placed<'_>,
        on: Option<&Placed<'_>>,
        why: Departure,
    ) -> bool {
        moving.entry.moving != Some(why)
            || on.is_some_and(|on| self.state.readiness_to_leave_for(placed, on) == Readiness::Ready)
    }
}
