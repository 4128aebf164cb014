//! Whether what runs is what the manifests say, once each, and no requirement is violated.
//!
//! Reads three accounts of each machine, the store's manifest, the store's report and what its systemd really
//! has, and hands them to the [`Verdict`], which judges without reading anything.

mod verdict;

use std::{collections::HashMap, sync::Arc};

use anyhow::{Context, Result, ensure};
use flotilla_registry::{
    keys::Keys,
    reads::Registry,
    store::etcd::{EtcdConfig, EtcdStore},
};
use flotilla_units::MachineId;
use futures_util::{StreamExt as _, stream};

use self::verdict::{Said, Verdict};
use crate::{agents::Truth, control::Fleet, workload, workload::Kind};

/// How many machines are read at a time.
const READS: usize = 32;

/// What was looked at.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Checked {
    pub(crate) machines: usize,
    pub(crate) units: usize,
    /// How many starts there were, on all machines since they were made.
    pub(crate) starts: usize,
}

/// Compares everything. `machines` are all that there are by number, those without power too.
///
/// # Assumptions
/// Nothing is under way: whoever asks waited until nobody writes any more.
///
/// # Errors
/// A fault was found; the first few are named.
pub(crate) async fn check(
    fleet: &mut Fleet,
    etcd: &str,
    kind: Kind,
    machines: usize,
    units: usize,
) -> Result<Checked> {
    let store = EtcdStore::connect(EtcdConfig { endpoints: vec![etcd.to_owned()], ..EtcdConfig::default() })?;
    let registry = Arc::new(Registry::new(Arc::new(store), Keys::default()));
    let mut truths: HashMap<MachineId, Truth> = HashMap::new();
    fleet.truths(|truth| drop(truths.insert(truth.machine, truth)))?;
    let mut said =
        stream::iter(0..machines)
            .map(|number| {
                let registry = Arc::clone(&registry);
                async move {
                    Ok::<_, anyhow::Error>((number, read(&registry, workload::machine_id(number)?).await?))
                }
            })
            .buffer_unordered(READS);
    let mut verdict = Verdict::new(kind, kind.templates(machines, units)?);
    let mut starts = 0;
    while let Some(found) = said.next().await {
        let (number, said) = found?;
        let id = workload::machine_id(number)?;
        let truth = truths.remove(&id).with_context(|| format!("nobody told of machine m{number}"))?;
        starts += truth.starts;
        verdict.machine(number, &said, &truth);
    }
    Ok(Checked { machines, units: verdict.end()?, starts })
}

async fn read(registry: &Registry, id: MachineId) -> Result<Said> {
    let manifest = registry.manifest(id).await?;
    ensure!(manifest.unreadable.is_empty(), "a bucket of {id} cannot be read");
    let report = registry.report(id).await?;
    ensure!(report.unreadable.is_empty(), "a page of {id}'s report cannot be read");
    Ok(Said {
        entries: manifest.found.into_values().flat_map(|stored| stored.record.entries).collect(),
        reports: report.buckets.into_values().flat_map(|stored| stored.record.units).collect(),
    })
}
