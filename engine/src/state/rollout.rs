//! How far a new text has come: which entries have it, and whose turn is next.
//!
//! A text belongs to its *owner*: a template, for all of its instances, or a unit that is no instance. An
//! entry is *behind* while it has another text than its owner has now, and *in flight* while it has that
//! text and is not yet as it should be. So at most one is down by a rollout's doing, and what has the new text
//! and is on a lost machine counts as down: others wait until it is somewhere else, its machine is back, or
//! the text changes again. Of a unit that runs on every machine those that are lost are left out: they would
//! keep all others from a new text for as long as they are away. Everything here is derived from the state, so each leader goes on
//! where the one before it ended, and every seat can say why a unit still runs an older text.
//!
//! It never writes; the leader gives the turns (`leader/rollouts`).

use std::{cmp::Reverse, fmt};

use flotilla_registry::records::{self, ManifestEntry, Target, UnitReport};
use flotilla_units::{ContentHash, MachineId, UnitName, UnitType};

use super::{ClusterState, Kept, Life, Placed, Wish};

/// What is said of a unit that does not run, for no fault that systemd would tell of.
const ENDED: &str = "it does not run: it has ended, or a condition of its did not hold";

/// How an entry is, as far as its machine tells under its very token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// As it should be: it runs, or it ran to its end as its type does, or it is loaded.
    Ready,
    /// Its start was done, and it does not run although its type is for what does: it had nothing to do (a
    /// condition of its did not hold), or has ended.
    Ended,
    /// On its way there.
    Waiting,
    /// It does not get there by itself: why.
    Failed(String),
}

/// A text on its way to the entries of its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollout {
    /// Whose text it is.
    pub owner: UnitName,
    /// The text.
    pub hash: ContentHash,
    /// How what runs is to get it.
    pub mode: records::Rollout,
    /// How many entries on living machines have it and are as they should be.
    pub updated: usize,
    /// The entries that do not have it yet, in the order of their turns.
    pub behind: Vec<Behind>,
    /// The entries that have it and are not yet as they should be, failed ones first.
    pub in_flight: Vec<InFlight>,
}

/// An entry with an older text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Behind {
    /// Its unit.
    pub unit: UnitName,
    /// Its machine.
    pub machine: MachineId,
    /// The text that it has.
    pub hash: ContentHash,
    /// systemd runs both texts alike: nothing has to be started anew.
    pub alike: bool,
    /// Both ask the same of machines, so that nothing has to move.
    pub same_place: bool,
    /// Its machine hears orders.
    pub listens: bool,
    /// It is as it should be.
    pub ready: bool,
}

/// An entry with the new text that is not as it should be yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InFlight {
    /// Its unit.
    pub unit: UnitName,
    /// Why it does not get there by itself, if it does not.
    pub failed: Option<String>,
    /// Its machine is lost.
    pub lost: bool,
}

impl Rollout {
    /// Returns the entries that change without anybody being disturbed: all at once, at any time.
    pub fn quiet(&self) -> impl Iterator<Item = &Behind> {
        self.behind.iter().filter(|it| it.alike && it.same_place)
    }

    /// Returns the entry whose turn it is: the first on a machine that hears orders, once no other is in
    /// flight.
    #[must_use]
    pub fn next(&self) -> Option<&Behind> {
        let may = self.mode == records::Rollout::OneByOne && self.in_flight.is_empty();
        let mut loud = self.behind.iter().filter(|it| !(it.alike && it.same_place));
        loud.find(|it| may && it.listens)
    }

    /// Says why it does not go on by itself, if it does not.
    #[must_use]
    pub fn halted(&self) -> Option<String> {
        let failed = self.in_flight.iter().find_map(|it| Some((&it.unit, it.failed.as_ref()?)));
        failed.map(|(unit, why)| format!("halted, because {unit} is not well with it: {why}"))
    }
}

impl fmt::Display for Rollout {
    /// Says how far it is, for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.updated + self.behind.len() + self.in_flight.len();
        write!(f, "{} of {all} have {}", self.updated, self.hash.short())?;
        if let Some(halted) = self.halted() {
            return write!(f, "; {halted}");
        }
        match (self.mode, self.in_flight.first()) {
            (_, Some(InFlight { unit, lost: true, .. })) => {
                write!(f, "; the others wait for {unit}, whose machine is lost")
            }
            (_, Some(InFlight { unit, .. })) => write!(f, "; {unit} is being updated"),
            (records::Rollout::NextStart, None) => f.write_str("; the others get it with their next start"),
            (records::Rollout::OneByOne, None) => match self.next() {
                Some(next) => write!(f, "; {} is next", next.unit),
                None => f.write_str("; the others are on machines that do not answer"),
            },
        }
    }
}

impl ClusterState {
    /// Returns whose text a unit has: its template's, unless it has one of its own.
    #[must_use]
    pub fn owner(&self, unit: &UnitName) -> UnitName {
        let own = self.has_own_text(unit);
        (!own).then(|| unit.template()).flatten().unwrap_or_else(|| unit.clone())
    }

    /// Tells whether a unit is an instance with a text of its own.
    pub(crate) fn has_own_text(&self, unit: &UnitName) -> bool {
        self.texted.contains(unit)
    }

    /// Returns how many entries that stay have each text, of all of a template's instances or of a unit
    /// that is none.
    pub fn versions(&self, family: &UnitName) -> impl Iterator<Item = (ContentHash, usize)> {
        self.versions.get(family).into_iter().flatten().map(|(hash, count)| (*hash, *count))
    }

    /// Returns under whose name a unit's entries are counted.
    pub(super) fn family(unit: &UnitName) -> UnitName {
        unit.template().unwrap_or_else(|| unit.clone())
    }

    /// Returns how far an owner's text has come; `None` when no entry is behind.
    #[must_use]
    pub fn rollout(&self, owner: &UnitName) -> Option<Rollout> {
        let record = self.units.get(owner).and_then(Kept::record)?;
        let hash = record.current?;
        // As a rule all is well, and this is asked with every change.
        if self.versions(&Self::family(owner)).all(|(version, _)| version == hash) {
            return None;
        }
        let (behind, in_flight) = (Vec::new(), Vec::new());
        let mut rollout =
            Rollout { owner: owner.clone(), hash, mode: record.rollout, updated: 0, behind, in_flight };
        if owner.is_template() {
            self.instances(owner).for_each(|unit| self.survey(unit, &mut rollout));
        } else {
            self.survey(owner, &mut rollout);
        }
        // Who is not well has the least to lose, and tells first whether the text is any good.
        rollout.behind.sort_by_cached_key(|it| (it.ready, it.unit.number(), it.unit.clone(), it.machine));
        rollout.in_flight.sort_by_key(|it| Reverse(it.failed.is_some()));
        (!rollout.behind.is_empty()).then_some(rollout)
    }

    fn survey(&self, unit: &UnitName, rollout: &mut Rollout) {
        let Wish::Wanted(wanted) = self.wish(unit) else { return };
        if wanted.hash != rollout.hash {
            return;
        }
        let placed = self.placed(unit);
        let mut staying = placed.iter().filter(|it| it.entry.stays()).peekable();
        if staying.peek().is_none() && placed.iter().any(|it| it.life != Life::Lost) {
            // On its way to another machine, where it gets the new text; also once it is proven gone, as
            // long as nobody has written what follows from that.
            rollout.in_flight.push(InFlight { unit: unit.clone(), failed: None, lost: false });
        }
        for on in staying {
            let lost = on.life == Life::Lost;
            let readiness = self.readiness(on);
            if on.entry.hash == rollout.hash {
                let failed = match readiness {
                    // What a lost machine told last has gone with its lease.
                    _ if lost && (wanted.requirements.global || on.entry.target != Target::Launched) => {
                        continue;
                    }
                    Readiness::Ready => {
                        rollout.updated += 1;
                        continue;
                    }
                    Readiness::Waiting => None,
                    Readiness::Ended => Some(ENDED.to_owned()),
                    Readiness::Failed(why) => Some(why),
                };
                rollout.in_flight.push(InFlight { unit: unit.clone(), failed, lost });
            } else if lost {
                // It waits until its machine is back, or is somewhere else then.
            } else if (on.entry.run, on.entry.target) == (wanted.run, wanted.target) {
                let before = self.requirements_of(unit, on.entry.hash);
                rollout.behind.push(Behind {
                    unit: unit.clone(),
                    machine: on.machine,
                    hash: on.entry.hash,
                    alike: self.run_alike(on.entry.hash, rollout.hash),
                    same_place: before.is_some_and(|before| before == wanted.requirements),
                    listens: on.life == Life::Present,
                    ready: readiness == Readiness::Ready,
                });
            }
        }
    }

    /// Tells whether systemd runs two texts alike; of one that cannot be read nothing is known.
    #[must_use]
    pub fn run_alike(&self, one: ContentHash, other: ContentHash) -> bool {
        let file = |hash| self.contents.get(&hash)?.file().ok();
        file(one).zip(file(other)).is_some_and(|(one, other)| one.runs_like(other))
    }

    /// Says how an entry is, as far as its machine tells under its very token.
    #[must_use]
    pub fn readiness(&self, placed: &Placed<'_>) -> Readiness {
        let ends = || self.ends(placed.entry);
        self.told_of(placed).map_or(Readiness::Waiting, |report| ready(placed.entry, report, ends))
    }

    /// Says whether a unit that moves may leave the entries that it moves from for the one that it moves to:
    /// what runs is not stopped for what does not.
    #[must_use]
    pub fn readiness_to_leave_for(&self, placed: &[Placed<'_>], on: &Placed<'_>) -> Readiness {
        let runs = |it: &Placed<'_>| self.told_of(it).is_some_and(is_up);
        let leaves = |it: &&Placed<'_>| {
            it.entry.departing.is_none() && it.entry.moving.is_some() && it.life != Life::Lost
        };
        let stops_one = on.entry.target == Target::Launched && placed.iter().filter(leaves).any(runs);
        match self.readiness(on) {
            Readiness::Ready if stops_one && !runs(on) => Readiness::Waiting,
            Readiness::Ended if stops_one => Readiness::Failed(ENDED.to_owned()),
            Readiness::Ended => Readiness::Ready,
            readiness => readiness,
        }
    }

    /// Returns what a machine says of an entry under its very token.
    fn told_of(&self, placed: &Placed<'_>) -> Option<&UnitReport> {
        let reports = self.machines.get(&placed.machine)?.reports_of(&placed.entry.unit);
        reports.into_iter().find(|it| it.token == Some(placed.entry.token))
    }

    /// Tells whether a unit is one that does its work and ends: of services, those of `Type=oneshot`. What has
    /// no processes of its own has no end of its own either: its state is systemd's to judge.
    fn ends(&self, entry: &ManifestEntry) -> bool {
        if entry.unit.unit_type() != UnitType::Service {
            return true;
        }
        // Nothing is known of a text that cannot be read.
        let Some(file) = self.contents.get(&entry.hash).and_then(|it| it.file().ok()) else { return true };
        match file.values("Service", "Type").last() {
            Some(kind) => *kind == "oneshot",
            // As systemd takes it that has no command.
            None => file.values("Service", "ExecStart").is_empty(),
        }
    }
}

fn is_up(report: &UnitReport) -> bool {
    matches!(report.active.as_str(), "active" | "reloading" | "refreshing")
}

fn ready(entry: &ManifestEntry, report: &UnitReport, ends: impl Fn() -> bool) -> Readiness {
    let problem = || report.problem.clone();
    if entry.target != Target::Launched {
        return problem().map_or(Readiness::Ready, Readiness::Failed);
    }
    if report.run < entry.run {
        return problem().map_or(Readiness::Waiting, Readiness::Failed);
    }
    let died = || {
        let result = report.result.as_deref().unwrap_or("failed");
        let status = report.exit_status.map(|status| format!(", exit status {status}")).unwrap_or_default();
        Readiness::Failed(problem().unwrap_or_else(|| format!("it failed ({result}{status})")))
    };
    match report.active.as_str() {
        _ if is_up(report) => Readiness::Ready,
        "failed" => died(),
        "inactive" if report.result.is_some() || report.problem.is_some() => died(),
        // Nothing of it has begun.
        "inactive" if report.starting => Readiness::Waiting,
        // It ran to its end, or was stopped on its machine, which is nobody's fault.
        "inactive" if report.stopped_locally || ends() => Readiness::Ready,
        "inactive" => Readiness::Ended,
        _ if report.sub.starts_with("auto-restart") => died(),
        _ => Readiness::Waiting,
    }
}
