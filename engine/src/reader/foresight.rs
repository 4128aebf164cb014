//! What would come of what is only imagined, or of what is under way.
//!
//! Foreseen by the placement core itself, on a copy of the live model: everything that it decides is taken as
//! come true at once. What goes wrong on machines (a start that fails, a machine that is lost) is not foreseen.
//! Nothing here writes.

use std::collections::{BTreeMap, BTreeSet};

use flotilla_registry::{
    records::{Departure, Target},
    store::Revision,
};
use flotilla_units::{ContentHash, MachineId, UnitName};
use tokio::sync::OwnedSemaphorePermit;

use super::{StateReader, Why, closed};
use crate::{
    placement::{Decision, Explanation, Placement, UnitView, Wanted},
    state::{ClusterState, Content, Kept, Machine},
};

/// What is imagined, all at once, on top of what the cluster has. Texts were checked by whoever asks.
#[derive(Debug, Clone, Default)]
pub struct Imagined {
    /// The units that are asked about; everything below is about some of these.
    pub asked: BTreeSet<UnitName>,
    /// Texts that units, or templates, would have.
    pub texts: BTreeMap<UnitName, String>,
    /// What would be wanted of units.
    pub targets: BTreeMap<UnitName, Target>,
    /// Units that would be destroyed.
    pub destroyed: BTreeSet<UnitName>,
}

/// Why nothing can be foreseen.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CannotForesee {
    /// It is neither in the cluster nor imagined with a text.
    #[error("there is no unit `{0}` in the cluster, and no text was given for it")]
    NoSuchUnit(UnitName),
    /// An instance's template is neither in the cluster nor imagined.
    #[error("there is no template `{template}` for `{instance}`, and no text was given for it")]
    MissingTemplate {
        /// The instance.
        instance: UnitName,
        /// Its template.
        template: UnitName,
    },
    /// A template cannot run itself.
    #[error("`{0}` is a template and cannot run itself; name an instance")]
    Template(UnitName),
    /// An instance has no text of its own.
    #[error("`{0}` is an instance and has no unit file of its own; give its template's")]
    InstanceWithText(UnitName),
    /// Its text is of no use.
    #[error("the text of `{unit}` cannot be used: {why}")]
    Content {
        /// The unit.
        unit: UnitName,
        /// What is wrong with it.
        why: String,
    },
}

/// What would come of what is imagined.
#[derive(Debug, Clone)]
pub struct Foreseen {
    /// What the state was of.
    pub revision: Revision,
    /// The units that were asked about.
    pub units: Vec<ForeseenUnit>,
    /// The others that would be elsewhere.
    pub moves: Vec<ForeseenMove>,
    /// The host names of all machines that are known.
    pub hosts: Hosts,
}

/// Host names by machine.
pub type Hosts = BTreeMap<MachineId, String>;

/// What would become of a unit that was asked about.
#[derive(Debug, Clone)]
pub struct ForeseenUnit {
    /// The unit.
    pub unit: UnitName,
    /// The cluster does not have it.
    pub is_new: bool,
    /// Its text would be another.
    pub has_new_text: bool,
    /// Something else would be wanted of it.
    pub has_new_target: bool,
    /// It would be destroyed.
    pub destroyed: bool,
    /// What would be wanted of it.
    pub target: Target,
    /// Where it is, or is about to be.
    pub before: BTreeSet<MachineId>,
    /// Where it would be.
    pub after: BTreeSet<MachineId>,
    /// Why it would be nowhere, if it should be somewhere.
    pub why: Option<Why>,
}

/// A unit that would be elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeseenMove {
    /// The unit.
    pub unit: UnitName,
    /// The machines that it would leave.
    pub from: BTreeSet<MachineId>,
    /// The machines that it would come to.
    pub to: BTreeSet<MachineId>,
}

/// How far a machine's drain is, or what it would do.
#[derive(Debug, Clone)]
pub struct DrainRow {
    /// The machine.
    pub machine: MachineId,
    /// It is being drained.
    pub draining: bool,
    /// What the state was of.
    pub revision: Revision,
    /// The units in its manifest, by name.
    pub units: Vec<LeavingUnit>,
    /// The host names of all machines that are known.
    pub hosts: Hosts,
}

/// A unit on a machine that is drained.
#[derive(Debug, Clone)]
pub struct LeavingUnit {
    /// The unit.
    pub unit: UnitName,
    /// How far it is.
    pub stage: LeavingStage,
    /// Where it is started, or would be.
    pub to: Option<MachineId>,
    /// Why it stays, or would be nowhere.
    pub why: Option<Explanation>,
    /// It is `Sticky=`.
    pub sticky: bool,
    /// It is `Global=`.
    pub global: bool,
}

/// How far a unit is that has to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeavingStage {
    /// It stays.
    Stays,
    /// It is to leave.
    Waiting,
    /// It is being started elsewhere.
    Starting,
    /// It was told to leave, and is not yet proven gone.
    Stopping,
}

/// What evening machines out moves.
#[derive(Debug, Clone)]
pub struct Rebalanced {
    /// What the state was of.
    pub revision: Revision,
    /// The moves, in their order.
    pub moves: Vec<ForeseenMove>,
    /// The machines that live.
    pub machines: Vec<EvenedMachine>,
    /// The host names of all machines that are known.
    pub hosts: Hosts,
}

/// A machine before and after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvenedMachine {
    /// The machine.
    pub machine: MachineId,
    /// How many units it has, and would have.
    pub units: (u32, u32),
    /// Its dominant share in millionths, and what that would be.
    pub share: (u64, u64),
}

/// A unit as it is imagined.
struct Subject {
    is_new: bool,
    has_new_text: bool,
    has_new_target: bool,
    target: Target,
    /// `None` for a template, which is nowhere.
    view: Option<UnitView>,
}

impl StateReader {
    /// Waits for the turn to foresee something: each copies the whole placement model and thinks for as long as
    /// the leader would, so that one at a time is enough for a seat. It has to be held meanwhile.
    pub async fn foresight(&self) -> Option<OwnedSemaphorePermit> {
        self.shared.turn().await
    }

    /// Says what would come of what is imagined.
    ///
    /// # Errors
    /// What is imagined makes no sense on top of what the cluster has.
    pub fn foresee(&self, imagined: &Imagined) -> Result<Foreseen, CannotForesee> {
        let hot = self.shared.read();
        let state = &hot.state;
        let texts = read_texts(imagined);
        let mut subjects = BTreeMap::new();
        for unit in &imagined.asked {
            subjects.insert(unit.clone(), subject(state, imagined, &texts, unit)?);
        }
        let mut followers = Vec::new();
        for template in texts.keys().filter(|name| name.is_template()) {
            // One with a text of its own does not follow.
            let follows =
                |name: &&UnitName| !imagined.asked.contains(*name) && state.owner(name) == *template;
            for instance in state.instances(template).filter(follows) {
                followers.push((instance.clone(), subject(state, imagined, &texts, instance)?));
            }
        }
        let (revision, hosts, closed) = (state.revision(), hosts(state), closed(&hot));
        let engine = hot.engine.standstill.clone().or_else(|| hot.engine.hold.clone());
        let mut lost: BTreeMap<UnitName, Vec<(MachineId, String)>> =
            imagined.asked.iter().map(|unit| (unit.clone(), super::lost(state, unit))).collect();
        let mut before = hot.model.core().clone();
        drop(hot);

        let _as_things_are = before.come_true();
        let mut after = before.clone();
        for (unit, subject) in followers.iter().map(|(unit, subject)| (unit, subject)).chain(&subjects) {
            match &subject.view {
                _ if imagined.destroyed.contains(unit) => after.remove_unit(unit),
                Some(view) => after.set_unit(unit, view.clone()),
                None => {}
            }
        }
        let decisions = after.come_true();
        let placed = |core: &Placement, unit: &UnitName| -> BTreeSet<MachineId> {
            core.placed_on(unit).into_iter().collect()
        };
        let units = subjects.into_iter().map(|(unit, subject)| {
            let (is, would) = (placed(&before, &unit), placed(&after, &unit));
            let destroyed = imagined.destroyed.contains(&unit);
            let wanted = subject.target != Target::Inactive && !destroyed && subject.view.is_some();
            let why = (wanted && would.is_empty()).then(|| Why {
                problem: None,
                update: None,
                engine: engine.clone(),
                explanation: after.explain(&unit),
                closed: closed.clone(),
                lost: lost.remove(&unit).unwrap_or_default(),
                revision,
            });
            ForeseenUnit {
                is_new: subject.is_new,
                has_new_text: subject.has_new_text,
                has_new_target: subject.has_new_target,
                destroyed,
                target: subject.target,
                before: is,
                after: would,
                why,
                unit,
            }
        });
        let units = units.collect();
        let others: BTreeSet<&UnitName> =
            decisions.iter().map(Decision::unit).filter(|unit| !imagined.asked.contains(*unit)).collect();
        let moves = others.into_iter().filter_map(|unit| {
            let (is, would) = (placed(&before, unit), placed(&after, unit));
            let (from, to) =
                (is.difference(&would).copied().collect(), would.difference(&is).copied().collect());
            let it = ForeseenMove { unit: unit.clone(), from, to };
            (!it.from.is_empty() || !it.to.is_empty()).then_some(it)
        });
        Ok(Foreseen { revision, units, moves: moves.collect(), hosts })
    }

    /// Says how far a machine's drain is; of one that is not drained, what a drain would do.
    #[must_use]
    pub fn drain(&self, id: MachineId) -> Option<DrainRow> {
        let hot = self.shared.read();
        let state = &hot.state;
        let machine = state.machines().get(&id)?;
        let mut units: BTreeMap<UnitName, LeavingUnit> = BTreeMap::new();
        for entry in machine.entries() {
            let stage = match (entry.departing, entry.moving) {
                (Some(_), _) => LeavingStage::Stopping,
                (None, Some(_)) => LeavingStage::Starting,
                (None, None) => LeavingStage::Stays,
            };
            let requirements = state.requirements_of(&entry.unit, entry.hash);
            let elsewhere = state.placed(&entry.unit).into_iter().filter(|it| it.machine != id);
            let to = elsewhere.filter(|it| it.entry.departing.is_none() && it.entry.moving.is_none());
            let global = requirements.as_ref().is_some_and(|it| it.global);
            let unit = LeavingUnit {
                unit: entry.unit.clone(),
                stage,
                to: to.map(|it| it.machine).next().filter(|_| !global),
                why: None,
                sticky: requirements.as_ref().is_some_and(|it| it.sticky),
                global,
            };
            // What stays counts more than what an older placement left behind.
            let known = units.entry(entry.unit.clone()).or_insert_with(|| unit.clone());
            if unit.stage < known.stage {
                *known = unit;
            }
        }
        let (revision, hosts, draining) = (state.revision(), hosts(state), machine.draining());
        if units.values().all(|it| it.stage != LeavingStage::Stays) {
            // All are on their way: nothing is left to be foreseen.
            let units = units.into_values().collect();
            return Some(DrainRow { machine: id, draining, revision, units, hosts });
        }
        let mut core = hot.model.core().clone();
        drop(hot);

        core.drain(id);
        let _decisions = core.come_true();
        for it in units.values_mut().filter(|it| it.stage == LeavingStage::Stays) {
            let after = core.placed_on(&it.unit);
            if after.contains(&id) {
                it.why = Some(core.explain(&it.unit));
                continue;
            }
            it.stage = LeavingStage::Waiting;
            it.to = after.first().copied().filter(|_| !it.global);
            it.why = (it.to.is_none() && !it.global).then(|| core.explain(&it.unit));
        }
        Some(DrainRow { machine: id, draining, revision, units: units.into_values().collect(), hosts })
    }

    /// Says what evening machines out would move.
    #[must_use]
    pub fn foresee_rebalance(&self, budget: usize) -> Rebalanced {
        let hot = self.shared.read();
        let (revision, hosts) = (hot.state.revision(), hosts(&hot.state));
        let mut core = hot.model.core().clone();
        drop(hot);
        let _as_things_are = core.come_true();
        foresee_rebalance(core, budget, revision, hosts)
    }
}

/// Says what evening machines out moves, from a model in which there is nothing else to decide.
pub(crate) fn foresee_rebalance(
    mut core: Placement,
    budget: usize,
    revision: Revision,
    hosts: Hosts,
) -> Rebalanced {
    let loads = |core: &Placement| -> BTreeMap<MachineId, (u32, u64)> {
        core.living_machines().map(|id| (id, (core.load(id), core.dominant_share(id)))).collect()
    };
    let before = loads(&core);
    let moves = core.rebalance(budget).into_iter().filter_map(|decision| match decision {
        Decision::Move { unit, from, to, why: Departure::Rebalanced } => {
            Some(ForeseenMove { unit, from: [from].into(), to: [to].into() })
        }
        _ => None,
    });
    let moves = moves.collect();
    let _decisions = core.come_true();
    let after = loads(&core);
    let machines = before.into_iter().map(|(machine, (units, share))| {
        let (then, then_share) = after.get(&machine).copied().unwrap_or_default();
        EvenedMachine { machine, units: (units, then), share: (share, then_share) }
    });
    Rebalanced { revision, moves, machines: machines.collect(), hosts }
}

/// Returns the host names of all machines that are known.
pub(crate) fn hosts(state: &ClusterState) -> Hosts {
    let host = |machine: &Machine| machine.known().map(|record| record.host.clone());
    state.machines().iter().filter_map(|(id, machine)| Some((*id, host(machine)?))).collect()
}

fn read_texts(imagined: &Imagined) -> BTreeMap<UnitName, (ContentHash, Content)> {
    let read = |(name, text): (&UnitName, &String)| {
        let hash = ContentHash::of(text.as_bytes());
        (name.clone(), (hash, Content::read(hash, text.as_bytes(), Revision(0))))
    };
    imagined.texts.iter().map(read).collect()
}

/// Returns a unit as it is imagined.
fn subject(
    state: &ClusterState,
    imagined: &Imagined,
    texts: &BTreeMap<UnitName, (ContentHash, Content)>,
    unit: &UnitName,
) -> Result<Subject, CannotForesee> {
    let record = state.units().get(unit).and_then(Kept::record);
    // An instance that was given a text of its own has it, and not its template's.
    let source = state.owner(unit);
    let template = unit.template().filter(|template| *template == source);
    if template.is_some() && texts.contains_key(unit) {
        return Err(CannotForesee::InstanceWithText(unit.clone()));
    }
    let was = record.map_or(Target::Inactive, |record| record.target);
    if record.is_some() && imagined.destroyed.contains(unit) {
        // What goes may be without a text that makes sense.
        return Ok(Subject {
            is_new: false,
            has_new_text: false,
            has_new_target: false,
            target: was,
            view: None,
        });
    }
    let current = state.units().get(&source).and_then(Kept::record).and_then(|record| record.current);
    let (hash, content) = match texts.get(&source) {
        Some((hash, content)) => (*hash, Some(content)),
        None => match (current, &template) {
            (Some(hash), _) => (hash, state.content(&hash)),
            (None, Some(template)) => {
                let (instance, template) = (unit.clone(), template.clone());
                return Err(CannotForesee::MissingTemplate { instance, template });
            }
            (None, None) => return Err(CannotForesee::NoSuchUnit(unit.clone())),
        },
    };
    let target = imagined.targets.get(unit).copied().unwrap_or(was);
    if unit.is_template() && target != Target::Inactive {
        return Err(CannotForesee::Template(unit.clone()));
    }
    let unusable = |why: String| CannotForesee::Content { unit: unit.clone(), why };
    let view = if unit.is_template() {
        None
    } else {
        let content = content.ok_or_else(|| unusable("it is not in the store".to_owned()))?;
        let requirements = content.requirements(unit).map_err(|error| unusable(error.to_string()))?;
        let wanted = if target == Target::Inactive { Wanted::Nowhere } else { Wanted::Placed };
        Some(UnitView { requirements, wanted })
    };
    Ok(Subject {
        is_new: record.is_none(),
        has_new_text: record.is_some() && current != Some(hash),
        has_new_target: target != was,
        target,
        view,
    })
}
