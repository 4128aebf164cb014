//! Ranges of instances that are being destroyed: the record of each goes with the last of them.
//!
//! Owns how far each such range is known to be gone. The instances themselves are planned as all
//! units are; here it is only noticed that nothing of them is left. A range is looked through once,
//! however often it is asked: what is gone stays gone while its range is being destroyed.

use std::collections::BTreeMap;

use flotilla_registry::{
    records::{Departure, EventChange},
    store::Revision,
};
use flotilla_units::{UnitName, UnitRange};

use super::plan::Plan;
use crate::state::{ClusterState, Life, RangeKey};

/// How far the ranges that are being destroyed are gone. A new leader starts without it.
#[derive(Debug, Default)]
pub struct Leaving(BTreeMap<RangeKey, Progress>);

/// How far one range is gone.
#[derive(Debug, Clone, Copy)]
struct Progress {
    /// Of which revision of its record this was seen.
    written: Revision,
    /// The first instance not known to be gone.
    next: u64,
}

impl Leaving {
    /// Plans the end of every range of which nothing is left, but of those that have to wait.
    pub fn plan(&mut self, state: &ClusterState, held: bool, waits: impl Fn(&UnitName) -> bool) -> Vec<Plan> {
        let before = std::mem::take(&mut self.0);
        let mut plans = Vec::new();
        for (range, written) in state.leaving_ranges() {
            let known = before.get(range).filter(|progress| progress.written == written);
            let mut next = Some(known.map_or(range.from, |progress| progress.next));
            while let Some(number) = next.filter(|number| *number <= range.to) {
                let instance = range.template.with_number(number);
                if !instance.is_ok_and(|instance| is_gone(state, held, &instance)) {
                    break;
                }
                next = number.checked_add(1);
            }
            if next.is_none_or(|next| next > range.to) && !waits(&range.template) {
                plans.push(end(range, written));
            }
            let next = next.unwrap_or(range.to);
            self.0.insert(range.clone(), Progress { written, next });
        }
        plans
    }
}

/// Tells whether nothing of an instance is left that its range would have to speak for.
fn is_gone(state: &ClusterState, held: bool, instance: &UnitName) -> bool {
    if state.units().get(instance).is_some_and(|kept| !kept.is_derived()) {
        return true;
    }
    // What a lost machine may still have was noted in a transaction that compared its absence.
    let stands_in_nobodys_way = |departing: Option<Departure>, life: Life| {
        departing == Some(Departure::MachineLost) && life == Life::Lost && !held
    };
    state.hidden_entry(instance).is_none()
        && state.placed(instance).iter().all(|it| stands_in_nobodys_way(it.entry.departing, it.life))
}

fn end(range: &RangeKey, written: Revision) -> Plan {
    let mut plan = Plan::new(&range.template);
    plan.destroy.push((range.key(), written));
    let instances = UnitRange::new(range.template.clone(), range.from, range.to);
    plan.changes.push(EventChange {
        kind: "range-destroyed".to_owned(),
        unit: Some(range.template.clone()),
        why: instances.ok().map(|instances| format!("all of {instances} are gone")),
        ..EventChange::default()
    });
    plan
}
