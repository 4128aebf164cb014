//! Lists at a glance: what a line of a table says of a unit that is as it should be.
//!
//! Nothing is copied and nothing looked up that such a line does not show; of a unit with more to say only its
//! name is told, and who lists asks for its row. Nearly all of a million are as they should be.

use flotilla_units::{ContentHash, MachineId, UnitName};

use super::{Names, StateReader, lists::walk};
use crate::state::{ClusterState, Kept, Life, Placed};

/// A unit, or one of its places, at a glance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Glance<'a> {
    /// It is where it should be, with the content that it should have, and nothing is to be said of it.
    Line {
        /// The unit.
        name: &'a UnitName,
        /// Where it is.
        machine: MachineId,
        /// The machine's host name, where it is known.
        host: Option<&'a str>,
        /// Its active state.
        active: &'a str,
        /// Its sub state.
        sub: &'a str,
    },
    /// There is more to say: its row has it.
    More(&'a UnitName),
}

/// The template that was looked at last, and the content that its instances have: those stand together.
struct Template<'a> {
    stem: &'a str,
    kind: &'a str,
    hash: Option<ContentHash>,
}

impl StateReader {
    /// Shows units that a filter lets through, of some stretches of all names, after a name, at a glance: at most
    /// `limit`, up to the first of which there is more to say, and not after ten thousand names. Returns how many,
    /// and after which name it goes on, if it does.
    pub fn glance(
        &self,
        names: &Names,
        after: Option<&UnitName>,
        limit: usize,
        lets_through: impl Fn(&UnitName) -> bool,
        mut show: impl FnMut(Glance<'_>),
    ) -> (usize, Option<UnitName>) {
        let hot = self.shared.read();
        let state = &hot.state;
        let (mut shown, mut ends, mut template): (usize, bool, Option<Template<'_>>) = (0, false, None);
        let next = walk(state, names, after, |name, kept| {
            if !lets_through(name) {
                return true;
            }
            if ends || shown >= limit {
                return false;
            }
            shown += 1;
            let placed = state.placed(name);
            let wanted = kept.record().map(|record| match record.current {
                Some(own) => Some(own),
                None => given(state, name, &mut template),
            });
            let wanted = wanted.flatten();
            let is_plain = !placed.is_empty() && placed.iter().all(|it| line(state, wanted, it).is_some());
            if is_plain {
                placed.iter().filter_map(|it| line(state, wanted, it)).for_each(&mut show);
            } else {
                show(Glance::More(name));
                ends = true;
            }
            true
        });
        (shown, next)
    }
}

/// Returns the line of a unit's place, where `wanted` is the content that it should have; nothing if there is more
/// to say of it.
fn line<'a>(state: &'a ClusterState, wanted: Option<ContentHash>, placed: &Placed<'a>) -> Option<Glance<'a>> {
    let Placed { machine, life, entry, .. } = *placed;
    let is_plain = life != Life::Lost && entry.departing.is_none() && Some(entry.hash) == wanted;
    let report = state.report_of(placed).filter(|_| is_plain)?;
    if report.stray || report.stopped_locally || report.problem.is_some() {
        return None;
    }
    let known = state.machines().get(&machine).and_then(|machine| machine.known());
    let host = known.map(|record| record.host.as_str());
    let (name, active, sub) = (&entry.unit, &*report.active, &*report.sub);
    Some(Glance::Line { name, machine, host, active, sub })
}

/// Returns the hash of what an instance's template gives it.
fn given<'a>(
    state: &'a ClusterState,
    name: &UnitName,
    last: &mut Option<Template<'a>>,
) -> Option<ContentHash> {
    let text = name.as_str();
    let is_of = |it: &Template<'_>| text.starts_with(it.stem) && text.ends_with(it.kind);
    if let Some(template) = last.as_ref().filter(|it| is_of(it)) {
        return template.hash;
    }
    let (key, kept) = state.units().get_key_value(&name.template()?)?;
    let hash = Kept::record(kept).and_then(|record| record.current);
    let (stem, kind) = key.as_str().split_at(key.as_str().find('@')? + 1);
    *last = Some(Template { stem, kind, hash });
    hash
}
