//! Options that do not go together, or that have nothing to work on.

use std::collections::BTreeSet;

use super::{
    UnitRequirements,
    expand::{Draft, Subject, own_machine},
    options::Opt,
    read::Entry,
};
use crate::{Glob, PreferTerm, ProblemKind, UnitName, problem::Found};

/// What fleet refused, except MachineID with Conflicts, which it refused without need; and what has no
/// meaning for a unit that runs on every machine.
const PAIRS: [(Opt, Opt, &str); 10] = [
    (Opt::MachineId, Opt::MachineOf, "the machine is either named or found by its units"),
    (Opt::MachineId, Opt::Global, "a global unit runs on every machine"),
    (Opt::MachineId, Opt::Replaces, "it could never move to where the units that it replaces are"),
    (Opt::Global, Opt::MachineOf, "a global unit runs on every machine, not where another unit is"),
    (Opt::Global, Opt::Replaces, "replaced units would have no machine left to move to"),
    (Opt::Conflicts, Opt::Replaces, "one keeps away from other units, the other goes where they are"),
    (Opt::Global, Opt::Prefer, "a global unit runs on every machine, so there is nothing to choose"),
    (Opt::Global, Opt::Spread, "a global unit runs on every machine, so there is nothing to spread"),
    (Opt::Global, Opt::MaxPerMachine, "a global unit runs once on every machine"),
    (Opt::Global, Opt::Sticky, "a global unit never moves to another machine"),
];

/// Finds options that do not go together.
pub fn contradictions(entries: &[Entry], draft: &Draft, subject: Subject<'_>, found: &mut Found) {
    let out = &draft.out;
    for (a, b, why) in PAIRS.into_iter().filter(|(a, b, _)| asks(out, *a) && asks(out, *b)) {
        let (first, second, at) = if first(entries, a) < first(entries, b) {
            (a, b, first(entries, b))
        } else {
            (b, a, first(entries, a))
        };
        let kind =
            ProblemKind::Contradiction { first: first.name(), second: second.name(), why: why.to_owned() };
        found.at(at, kind);
    }
    for (at, peer) in &draft.peers {
        let keeps_away = |globs: &BTreeSet<Glob>| {
            let hits = |glob: &&Glob| *glob == peer || peer.literal().is_some_and(|name| glob.matches(name));
            globs.iter().find(hits).cloned()
        };
        for (option, globs) in [(Opt::Conflicts, &out.conflicts), (Opt::Replaces, &out.replaces)] {
            if let Some(glob) = keeps_away(globs) {
                let peer = peer.literal().unwrap_or(peer.as_str());
                let why = format!("`{peer}` has to be on the machine, and `{glob}` keeps it away");
                let (first, second) = (Opt::MachineOf.name(), option.name());
                found.at(*at, ProblemKind::Contradiction { first, second, why });
            }
        }
    }
    if out.preempt && out.reserve.is_empty() && !draft.partial {
        let why = "it makes room for what a unit reserves, and this one reserves nothing; add for example \
                   ReserveMemory= or ReservePort=, or take it out"
            .to_owned();
        found.at(last(entries, Opt::Preempt), ProblemKind::Pointless { option: Opt::Preempt.name(), why });
    }
    if let Subject::Unit(unit) = subject {
        for (option, kind) in misplaced(out, unit) {
            found.at(first(entries, option), kind);
        }
    }
}

/// Finds what makes no sense for a unit of this name, whatever else is in the file.
pub fn misplaced(out: &UnitRequirements, unit: &UnitName) -> Vec<(Opt, ProblemKind)> {
    let mut kinds = Vec::new();
    if out.machine_of.iter().any(|peer| peer.literal() == Some(unit.as_str())) {
        kinds.push((Opt::MachineOf, own_machine(unit)));
    }
    if unit.is_instance() || unit.is_template() {
        return kinds;
    }
    let why = || {
        format!(
            "it is about the instances of a template, and {unit} is none; a template is named for example \
             {}@.{}",
            unit.prefix(),
            unit.unit_type()
        )
    };
    let spreads = |term: &PreferTerm| matches!(term, PreferTerm::Spread(_));
    for (option, asked) in [
        (Opt::Spread, !out.spread.is_empty()),
        (Opt::MaxPerMachine, out.max_per_machine.is_some()),
        (Opt::Prefer, out.prefer.iter().any(|it| spreads(&it.term))),
    ] {
        if asked {
            let name = if option == Opt::Prefer { "Prefer=Spread" } else { option.name() };
            kinds.push((option, ProblemKind::Pointless { option: name, why: why() }));
        }
    }
    kinds
}

/// Tells whether an option asks for anything.
fn asks(out: &UnitRequirements, option: Opt) -> bool {
    match option {
        Opt::MachineId => out.machine.is_some(),
        Opt::MachineOf => !out.machine_of.is_empty(),
        Opt::Conflicts => !out.conflicts.is_empty(),
        Opt::Replaces => !out.replaces.is_empty(),
        Opt::Global => out.global,
        Opt::Prefer => !out.prefer.is_empty(),
        Opt::Spread => !out.spread.is_empty(),
        Opt::MaxPerMachine => out.max_per_machine.is_some(),
        Opt::Sticky => out.sticky,
        _ => false,
    }
}

fn first(entries: &[Entry], option: Opt) -> usize {
    entries.iter().find(|e| e.option == option).map_or(0, |e| e.at)
}

fn last(entries: &[Entry], option: Opt) -> usize {
    entries.iter().rfind(|e| e.option == option).map_or(0, |e| e.at)
}
