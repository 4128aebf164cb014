//! What has to be done for the cluster to have what a folder says. Pure.

use std::collections::{BTreeMap, BTreeSet};

use flotilla_api::unit::Target;
use flotilla_units::{ContentHash, UnitName};

use super::Folder;

/// What the cluster has of a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    /// Its text; of an instance its template's.
    pub(crate) hash: Option<ContentHash>,
    /// What is wanted of it.
    pub(crate) target: Target,
    /// The set of the apply that made it.
    pub(crate) set: Option<String>,
    /// It is an instance with a text of its own.
    pub(crate) own_text: bool,
    /// It is being destroyed.
    pub(crate) deleting: bool,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// The cluster gets a unit file, or an instance.
    Create {
        /// What is wanted of it.
        target: Target,
    },
    /// A unit gets another text, and perhaps something else is wanted of it.
    Update {
        /// The text that it has; its new one is in the folder.
        from: Option<ContentHash>,
        /// What was wanted and what is, where that differs.
        target: Option<(Target, Target)>,
    },
    /// Something else is wanted of a unit.
    Retarget {
        /// What was wanted.
        from: Target,
        /// What is.
        to: Target,
    },
    /// It is as wanted, and becomes this set's.
    TakeOver,
    /// An apply of this set made it, and the folder has it no longer.
    Remove,
}

/// What a person allows besides creating and changing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct May {
    /// Destroy what an apply of the folder's set made and the folder does not have.
    pub(crate) prune: bool,
    /// Make this set's what another's made, or what somebody made by hand.
    pub(crate) take_over: bool,
}

/// Why a folder cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Conflict {
    /// Another set's apply made a unit.
    #[error(
        "{unit} was made by the set `{owner}`; two sets that have one unit would undo each other for ever. If it \
         has moved here, --take-over makes it the set `{set}`'s; else take it out of one of the folders"
    )]
    AnotherSet {
        /// The unit.
        unit: UnitName,
        /// Whose it is.
        owner: String,
        /// Whose it would be.
        set: String,
    },
    /// An instance does not follow its template.
    #[error(
        "{0} has a text of its own in the cluster, and not its template's as this folder says; destroy it first, and \
         the same apply makes it anew"
    )]
    OwnText(UnitName),
    /// A unit is on its way out.
    #[error("{0} is being destroyed; once it is gone (`flotctl status {0}`) the same apply makes it anew")]
    BeingDestroyed(UnitName),
}

/// Compares, whose units are too: an equal one that is another set's would be destroyed by that one's next prune.
///
/// # Errors
/// The first unit, by name, that this folder may not change.
pub(crate) fn difference(
    folder: &Folder,
    known: &BTreeMap<UnitName, Known>,
    may: May,
) -> Result<BTreeMap<UnitName, Step>, Conflict> {
    let wanted: BTreeSet<&UnitName> = folder.files.keys().chain(folder.targets.keys()).collect();
    let mut steps = BTreeMap::new();
    for unit in &wanted {
        if let Some(step) = step(folder, unit, known.get(*unit), may)? {
            steps.insert((*unit).clone(), step);
        }
    }
    if may.prune {
        let ours = |known: &Known| !known.deleting && known.set.as_deref() == Some(folder.set.as_str());
        let gone = known.iter().filter(|(unit, known)| ours(known) && !wanted.contains(unit));
        steps.extend(gone.map(|(unit, _)| (unit.clone(), Step::Remove)));
    }
    Ok(steps)
}

fn step(folder: &Folder, unit: &UnitName, known: Option<&Known>, may: May) -> Result<Option<Step>, Conflict> {
    // A template is wanted, and nothing runs of it.
    let target = folder.targets.get(unit).copied().unwrap_or(Target::Inactive);
    let Some(known) = known else { return Ok(Some(Step::Create { target })) };
    if known.deleting {
        return Err(Conflict::BeingDestroyed(unit.clone()));
    }
    if known.own_text {
        return Err(Conflict::OwnText(unit.clone()));
    }
    let is_ours = known.set.as_ref() == Some(&folder.set);
    match &known.set {
        Some(owner) if !is_ours && !may.take_over => {
            let (unit, owner, set) = (unit.clone(), owner.clone(), folder.set.clone());
            return Err(Conflict::AnotherSet { unit, owner, set });
        }
        _ => {}
    }
    // An instance's text changes with its template.
    let text_differs = folder.files.get(unit).is_some_and(|file| known.hash != Some(file.hash()));
    let retarget = (!unit.is_template() && known.target != target).then_some((known.target, target));
    Ok(match (text_differs, retarget) {
        (false, None) => (may.take_over && !is_ours).then_some(Step::TakeOver),
        (true, target) => Some(Step::Update { from: known.hash, target }),
        (false, Some((from, to))) => Some(Step::Retarget { from, to }),
    })
}
