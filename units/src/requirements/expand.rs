//! From values to typed requirements, for a unit of a certain name.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    OnPartition, UnitRequirements,
    contradictions::contradictions,
    options::Opt,
    read::{Entry, bad},
    values,
};
use crate::{Glob, Is, ProblemKind, Reservation, Selector, UnitName, problem::Found, selector, specifier};

/// Whom requirements are read for.
#[derive(Debug, Clone, Copy)]
pub enum Subject<'a> {
    /// Nobody in particular: what depends on the name is left out.
    Anybody,
    /// Some instance of a template, by a name that stands in for all of theirs.
    Sample(&'a UnitName),
    /// A plain unit or an instance.
    Unit(&'a UnitName),
}

impl<'a> Subject<'a> {
    pub const fn name(self) -> Option<&'a UnitName> {
        match self {
            Self::Anybody => None,
            Self::Sample(unit) | Self::Unit(unit) => Some(unit),
        }
    }

    /// Tells whether a value can be read only once the unit's name is known.
    const fn leaves_out(self, entry: &Entry) -> bool {
        entry.depends_on_name
            && match self {
                Self::Anybody => true,
                Self::Sample(_) => entry.option.is_numeric(),
                Self::Unit(_) => false,
            }
    }
}

/// Requirements while they are put together.
#[derive(Debug, Default)]
pub struct Draft {
    pub out: UnitRequirements,
    /// Each pattern of `MachineOf=` and where it stands.
    pub peers: Vec<(usize, Glob)>,
    /// The `=` terms of `MachineMetadata=`.
    equal: BTreeMap<String, BTreeSet<String>>,
    cpu: Option<u64>,
    memory: Option<u64>,
    /// Values were left out, so that what is missing may not be.
    pub partial: bool,
}

/// Turns entries into typed values. `defaults` is what is reserved where the entries say nothing.
pub fn expand(
    entries: &[Entry],
    defaults: &Reservation,
    subject: Subject<'_>,
    found: &mut Found,
) -> UnitRequirements {
    let mut draft = Draft::default();
    for entry in entries {
        if subject.leaves_out(entry) {
            draft.partial = true;
        } else if let Err(kind) = draft.take(entry, subject.name()) {
            found.at(entry.at, kind);
        }
    }
    draft.out.reserve.cpu_milli = draft.cpu.unwrap_or(defaults.cpu_milli);
    draft.out.reserve.memory_bytes = draft.memory.unwrap_or(defaults.memory_bytes);
    let equal = std::mem::take(&mut draft.equal);
    draft.out.metadata.extend(equal.into_iter().map(|(key, these)| Selector { key, is: Is::OneOf(these) }));
    draft.out.machine_of = draft.peers.iter().map(|(_, peer)| peer.clone()).collect();
    contradictions(entries, &draft, subject, found);
    draft.out
}

/// Says that a unit cannot be placed by where it is itself.
pub fn own_machine(unit: &UnitName) -> ProblemKind {
    bad(Opt::MachineOf, unit.as_str(), "that is the unit itself; expected another unit".into())
}

impl Draft {
    /// Adds one value.
    fn take(&mut self, entry: &Entry, unit: Option<&UnitName>) -> Result<(), ProblemKind> {
        let option = entry.option;
        let insert = |escape: fn(&str) -> String| match unit {
            Some(unit) => specifier::expand(&entry.text, unit, escape),
            None => entry.text.replace("%%", "%"),
        };
        // What a name puts into a pattern is no pattern.
        let (text, pattern) = (&*insert(str::to_owned), || insert(Glob::escape));
        let refuse = |why: String| bad(option, text, why);
        let glob = || {
            let error = |error| ProblemKind::BadGlob { option: option.name(), error };
            pattern().parse::<Glob>().map_err(error)
        };
        let out = &mut self.out;
        match option {
            Opt::MachineId => {
                let choice = values::machine(text).map_err(refuse)?;
                if out.machine.as_ref().is_some_and(|other| *other != choice) {
                    return Err(refuse("another machine is named above, and no machine is both".into()));
                }
                out.machine = Some(choice);
            }
            Opt::MachineOf => self.peers.push((entry.at, values::peer(option, text, pattern)?)),
            Opt::MachineMetadata => match values::metadata(text).map_err(refuse)? {
                Selector { key, is: Is::OneOf(these) } if values::is_equal(text) => {
                    self.equal.entry(key).or_default().extend(these);
                }
                other => drop(out.metadata.insert(other)),
            },
            Opt::Conflicts => drop(out.conflicts.insert(glob()?)),
            Opt::Replaces => drop(out.replaces.insert(glob()?)),
            Opt::Global => out.global = values::boolean(text).map_err(refuse)?,
            Opt::Prefer => drop(out.prefer.insert(values::preference(option, text, pattern)?)),
            Opt::Spread => drop(out.spread.insert(selector::key(text).map_err(refuse)?)),
            Opt::MaxPerMachine => out.max_per_machine = Some(values::at_least_one(text).map_err(refuse)?),
            Opt::Sticky => out.sticky = values::boolean(text).map_err(refuse)?,
            Opt::ReserveCpu => self.cpu = Some(values::cpu(text).map_err(refuse)?),
            Opt::ReserveMemory => self.memory = Some(values::memory(text).map_err(refuse)?),
            Opt::Reserve => {
                let (name, count) = values::resource(text).map_err(refuse)?;
                if out.reserve.named.get(&name).is_some_and(|other| *other != count) {
                    return Err(refuse(format!("another number of `{name}` stands above; expected one")));
                }
                out.reserve.named.insert(name, count);
            }
            Opt::ReservePort => {
                let ports = &mut out.reserve.ports;
                ports.extend(values::ports(text).map_err(refuse)?);
                if ports.len() > values::MAX_PORTS {
                    return Err(refuse(values::too_many_ports()));
                }
            }
            Opt::Priority => out.priority = values::priority(text).map_err(refuse)?,
            Opt::Preempt => out.preempt = values::boolean(text).map_err(refuse)?,
            Opt::OnPartition => out.on_partition = on_partition(text)?,
        }
        Ok(())
    }
}

fn on_partition(text: &str) -> Result<OnPartition, ProblemKind> {
    let option = Opt::OnPartition;
    match text {
        "replace" => Ok(OnPartition::Replace),
        "stop" | "wait" => Err(ProblemKind::NotAvailable {
            option: option.name(),
            value: text.to_owned(),
            expected: "`replace`",
        }),
        _ => Err(bad(option, text, "expected `replace`".into())),
    }
}
