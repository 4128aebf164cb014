//! Lists of units, page by page, and their rows.
//!
//! Owns how a row is made of the state. What a template gives all its instances is looked up once for a
//! page. A page bounds the rows, and the names that are looked at, so that the lock is held for some
//! milliseconds whatever is asked for.

use std::{collections::HashMap, ops::Bound};

use flotilla_registry::{
    records::{Rollout, UnitRecord},
    store::Revision,
};
use flotilla_units::{ContentHash, UnitName};

use super::{
    Names, PAGE_MAX, PLACEMENTS_MAX, Page, PlacementRow, StateReader, UnitRow, problem,
    standing::{Rollouts, count_versions},
};
use crate::state::{ClusterState, Content, Kept, Placed};

/// How many names one page looks at, however few of them are wanted. Ten thousand: a millisecond or two under
/// the lock.
const NAMES_LOOKED_AT_MAX: usize = 10_000;

/// Makes rows of one state.
pub(super) struct Rows<'a> {
    state: &'a ClusterState,
    rollouts: Rollouts,
    /// What templates give their instances.
    given: HashMap<UnitName, Given<'a>>,
}

/// What a template gives an instance that has no text of its own.
#[derive(Clone, Copy)]
struct Given<'a> {
    content: Option<(ContentHash, Option<&'a Content>)>,
    next_start: bool,
}

impl StateReader {
    /// Lists units that a filter lets through, of some stretches of all names, after a name, at most `limit`
    /// (and [`PAGE_MAX`]); fewer, though there are more, once they have [`PLACEMENTS_MAX`] placements, or once
    /// ten thousand names were looked at: then it may be none at all.
    #[must_use]
    pub fn units(
        &self,
        names: &Names,
        after: Option<&UnitName>,
        limit: usize,
        lets_through: impl Fn(&UnitName) -> bool,
    ) -> Page<UnitRow, UnitName> {
        let hot = self.shared.read();
        let state = &hot.state;
        let (mut rows, mut placements, mut of) = (Vec::new(), 0, Rows::of(state));
        let next = walk(state, names, after, |name, _| {
            if !lets_through(name) {
                return true;
            }
            if rows.len() >= limit.clamp(1, PAGE_MAX) || placements >= PLACEMENTS_MAX {
                return false;
            }
            let row = of.row(name);
            placements += row.placements.len();
            rows.push(row);
            true
        });
        Page { rows, revision: state.revision(), next }
    }
}

/// Looks at names, and what speaks for each, in their order until there are no more, or until one is not taken any
/// more. Returns the last that was, if there are more.
pub(super) fn walk<'a>(
    state: &'a ClusterState,
    names: &Names,
    after: Option<&UnitName>,
    mut take: impl FnMut(&'a UnitName, &'a Kept<UnitRecord>) -> bool,
) -> Option<UnitName> {
    let mut last: Option<&UnitName> = after;
    let mut looked = 0;
    for (from, to) in names.after(after.map(UnitName::as_str)) {
        let bounds = (from, Bound::Excluded(to));
        for (name, kept) in state.units().range::<str, _>(bounds) {
            if looked == NAMES_LOOKED_AT_MAX || !take(name, kept) {
                return last.cloned();
            }
            (last, looked) = (Some(name), looked + 1);
        }
    }
    None
}

impl<'a> Rows<'a> {
    /// Makes rows of a state.
    pub(super) fn of(state: &'a ClusterState) -> Self {
        Self { state, rollouts: Rollouts::default(), given: HashMap::new() }
    }

    /// Makes the row of a unit.
    pub(super) fn row(&mut self, name: &UnitName) -> UnitRow {
        let state = self.state;
        let kept = state.units().get(name);
        let record = kept.and_then(Kept::record).cloned();
        let own = record.as_ref().and_then(|record| record.current);
        let template = name.template();
        let (given, owns) = match (own, &template) {
            (None, Some(template)) => (self.given(template), false),
            _ => (given(state, record.as_deref()), true),
        };
        // What its template has says nothing of one that cannot be read, or is only left somewhere.
        let content = given.content.filter(|_| record.is_some());
        let hash = content.map(|(hash, _)| hash);
        let content = content.and_then(|(_, content)| content);
        let requirements = content.and_then(|content| content.requirements(name).ok());
        let placed = state.placed(name);
        let is_clear = record.is_some() && requirements.is_some();
        UnitRow {
            name: name.clone(),
            hash,
            description: content
                .and_then(|content| content.file().ok())
                .and_then(|file| file.last("Unit", "Description"))
                .map(ToOwned::to_owned),
            global: requirements.is_some_and(|requirements| requirements.global),
            problem: if is_clear { None } else { problem(state, name) },
            written: kept.map_or(Revision(0), Kept::mod_revision),
            versions: match template {
                None => count_versions(state.versions(name), hash),
                Some(_) => {
                    let staying = placed.iter().filter(|it| it.entry.stays());
                    count_versions(staying.map(|it| (it.entry.hash, 1)), hash)
                }
            },
            rollout: if owns { self.rollouts.of(state, name).map(ToString::to_string) } else { None },
            waits: self.rollouts.waits(state, name, hash, &placed),
            next_start: given.next_start,
            placements: placed.iter().map(|placed| self.placement(placed)).collect(),
            record,
        }
    }

    fn given(&mut self, template: &UnitName) -> Given<'a> {
        if let Some(given) = self.given.get(template) {
            return *given;
        }
        let given =
            given(self.state, self.state.units().get(template).and_then(Kept::record).map(|it| &**it));
        self.given.insert(template.clone(), given);
        given
    }

    fn placement(&self, placed: &Placed<'_>) -> PlacementRow {
        let known = self.state.machines().get(&placed.machine).and_then(|machine| machine.known());
        PlacementRow {
            machine: placed.machine,
            host: known.map(|record| record.host.clone()),
            life: placed.life,
            token: placed.entry.token,
            run: placed.entry.run,
            hash: placed.entry.hash,
            target: placed.entry.target,
            departing: placed.entry.departing,
            moving: placed.entry.moving,
            report: self.state.report_of(placed).cloned(),
        }
    }
}

/// Returns what a record gives who has its text.
fn given<'a>(state: &'a ClusterState, record: Option<&UnitRecord>) -> Given<'a> {
    Given {
        content: record.and_then(|record| record.current).map(|hash| (hash, state.content(&hash))),
        next_start: record.is_some_and(|record| record.rollout == Rollout::NextStart),
    }
}
