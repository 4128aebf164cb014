//! Which machines people mean.
//!
//! What a word for a machine means the cluster says, so that it means the same wherever it is typed: its
//! whole id, else its host name, else the beginning of its id. A host called `a` is never another machine
//! whose id begins so. What is found is known by its id from then on.

use std::collections::BTreeMap;

use flotilla_api::{error::ErrorKind, machine::Machine};
use flotilla_units::MachineId;

use crate::{
    connection::Cluster,
    exit::{Exit, Failure},
};

/// What words for machines mean.
#[derive(Debug, Clone, Default)]
pub(crate) struct Named(BTreeMap<String, Meaning>);

/// What one word means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// This machine.
    One(MachineId),
    /// None that the cluster knows.
    Nothing,
    /// More than one, with what the cluster says of it.
    Several(String),
}

/// Finds a machine.
///
/// # Errors
/// There is none, or more than one.
pub(crate) async fn find(cluster: &Cluster, word: &str) -> anyhow::Result<Machine> {
    if word.is_empty() {
        return Err(Failure::error(Exit::Usage, "a machine's name is empty; expected a host name or an id"));
    }
    match cluster.read(async |client| client.machine(word).await).await {
        Err(e) if e.kind() == Some(ErrorKind::Conflict) => Err(Failure::error(Exit::Usage, e.to_string())),
        answer => Ok(answer?),
    }
}

impl Named {
    /// Asks what these words mean, of each once.
    ///
    /// # Errors
    /// The cluster cannot be asked.
    pub(crate) async fn ask<'a>(
        cluster: &Cluster,
        words: impl Iterator<Item = &'a str>,
    ) -> anyhow::Result<Self> {
        let mut named = Self::default();
        for word in words {
            if named.0.contains_key(word) {
                continue;
            }
            let meaning = match cluster.read(async |client| client.machine(word).await).await {
                Ok(machine) => Meaning::One(machine.id),
                Err(e) if e.kind() == Some(ErrorKind::Conflict) => Meaning::Several(e.to_string()),
                Err(e) if e.kind() == Some(ErrorKind::NotFound) => Meaning::Nothing,
                Err(e) => return Err(e.into()),
            };
            named.0.insert(word.to_owned(), meaning);
        }
        Ok(named)
    }

    /// Returns what a word means that was asked for. An id in full means its machine, also where only what
    /// is left of it is known.
    pub(crate) fn meaning(&self, word: &str) -> Meaning {
        match (self.0.get(word), word.to_ascii_lowercase().parse()) {
            (Some(Meaning::Nothing) | None, Ok(id)) => Meaning::One(id),
            (Some(meaning), _) => meaning.clone(),
            (None, Err(_)) => Meaning::Nothing,
        }
    }

    /// Says what words mean, for tests.
    #[cfg(test)]
    pub(crate) fn of(words: &[(&str, Meaning)]) -> Self {
        Self(words.iter().map(|(word, meaning)| ((*word).to_owned(), meaning.clone())).collect())
    }
}
