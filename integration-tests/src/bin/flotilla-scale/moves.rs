//! How many units moved, and how many of them needlessly: their machine was alive when it was decided.
//!
//! Follows the store at every revision, from before the first thing that may move a unit. In a run nothing
//! about a machine changes but whether it is there, so a machine that lives still takes what it has.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Result, bail, ensure};
use flotilla_registry::{
    keys::{Bucket, Key, Keys},
    records::{Departure, ManifestBucket, ManifestEntry, Record as _, Token},
    store::{
        KeyValue, Revision, Store as _, WatchEvent,
        etcd::{EtcdConfig, EtcdStore},
    },
    stream::{Change, ChangeStream},
    timing::Timing,
    witness::{SharedWitness, Witness},
};
use flotilla_units::{MachineId, UnitName};
use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;

/// How many needless moves are named.
const NAMED: usize = 10;

/// How long the follower may lag behind the store.
const LAG_LIMIT: Duration = Duration::from_secs(60);

/// What was seen so far.
#[derive(Debug, Default)]
pub(crate) struct Moves {
    began: bool,
    revision: Revision,
    alive: HashSet<MachineId>,
    staying: HashMap<(MachineId, Bucket), HashSet<(UnitName, Token)>>,
    /// Units that left the machine that they were placed on, but for those whose user said so.
    pub(crate) moved: usize,
    pub(crate) needless: usize,
    named: Vec<String>,
}

impl Moves {
    /// Takes in what the store has, or what changed.
    ///
    /// # Errors
    /// What happened in between cannot be known: the history was compacted. Or a record cannot be read.
    pub(crate) fn take(&mut self, keys: &Keys, change: Change) -> Result<()> {
        match change {
            Change::Reset { kvs, revision } => {
                ensure!(!self.began, "the history was compacted while moves were counted");
                (self.began, self.revision) = (true, revision);
                for kv in &kvs {
                    match keys.read(&kv.key) {
                        Some(Key::Machine(id)) => drop(self.alive.insert(id)),
                        Some(Key::Manifest(id, bucket)) => {
                            self.staying.insert((id, bucket), staying(&entries(kv)?));
                        }
                        _ => {}
                    }
                }
            }
            Change::Changes { revision, events } => {
                // A machine that comes or goes with this very revision was as before when it was decided.
                for event in &events {
                    self.manifest(keys, revision, event)?;
                }
                for event in &events {
                    match event {
                        WatchEvent::Put(kv) => {
                            if let Some(Key::Machine(id)) = keys.read(&kv.key) {
                                self.alive.insert(id);
                            }
                        }
                        WatchEvent::Delete { key, .. } => {
                            if let Some(Key::Machine(id)) = keys.read(key) {
                                self.alive.remove(&id);
                            }
                        }
                    }
                }
                self.revision = revision;
            }
            Change::Progress(revision) => self.revision = self.revision.max(revision),
        }
        Ok(())
    }

    fn manifest(&mut self, keys: &Keys, revision: Revision, event: &WatchEvent) -> Result<()> {
        let (key, now) = match event {
            WatchEvent::Put(kv) => (&kv.key, Some(kv)),
            WatchEvent::Delete { key, .. } => (key, None),
        };
        let Some(Key::Manifest(id, bucket)) = keys.read(key) else { return Ok(()) };
        let now = now.map(entries).transpose()?.unwrap_or_default();
        let stay = staying(&now);
        let before = self.staying.insert((id, bucket), stay.clone()).unwrap_or_default();
        for (unit, token) in before.difference(&stay) {
            let entry = now.iter().find(|entry| entry.unit == *unit && entry.token == *token);
            let why = entry.and_then(|entry| entry.departing.or(entry.moving));
            if matches!(why, Some(Departure::Unloaded | Departure::Destroyed)) {
                continue;
            }
            self.moved += 1;
            if self.alive.contains(&id) {
                self.needless += 1;
                if self.named.len() < NAMED {
                    let at = revision.0;
                    self.named.push(format!("{unit} left {id}, which was alive, at revision {at}: {why:?}"));
                }
            }
        }
        Ok(())
    }

    /// Says which moves were needless.
    pub(crate) fn named(&self) -> &[String] {
        &self.named
    }
}

fn entries(kv: &KeyValue) -> Result<Vec<ManifestEntry>> {
    Ok(ManifestBucket::from_kv(kv)?.entries)
}

/// What stays where it is.
fn staying(entries: &[ManifestEntry]) -> HashSet<(UnitName, Token)> {
    let staying = entries.iter().filter(|entry| entry.departing.is_none() && entry.moving.is_none());
    staying.map(|entry| (entry.unit.clone(), entry.token)).collect()
}

/// Follows the store while something happens.
#[derive(Debug)]
pub(crate) struct Following {
    url: String,
    moves: Arc<Mutex<Moves>>,
    task: AbortOnDropHandle<Result<()>>,
}

impl Following {
    /// Begins, and waits until everything there is was read.
    pub(crate) async fn begin(url: String) -> Result<Self> {
        let store = EtcdStore::connect(EtcdConfig { endpoints: vec![url.clone()], ..EtcdConfig::default() })?;
        let keys = Keys::default();
        let witness = SharedWitness::new(Witness::default());
        let everything = keys.everything();
        let mut stream = ChangeStream::new(Arc::new(store), &keys, everything, witness, &Timing::default());
        let moves = Arc::new(Mutex::new(Moves::default()));
        let shared = Arc::clone(&moves);
        let task = tokio::spawn(async move {
            loop {
                // A store that is away for a while is what is waited for.
                if let Ok(change) = stream.next().await {
                    shared.lock().unwrap_or_else(PoisonError::into_inner).take(&keys, change)?;
                }
            }
        });
        let mut following = Self { url, moves, task: AbortOnDropHandle::new(task) };
        let end = Instant::now() + LAG_LIMIT;
        while !following.look(|moves| moves.began) {
            following.goes_on().await?;
            ensure!(Instant::now() < end, "the store could not be read");
        }
        Ok(following)
    }

    /// Waits until everything up to now was taken in, and returns it.
    pub(crate) async fn end(mut self) -> Result<Moves> {
        let endpoints = vec![self.url.clone()];
        let store = EtcdStore::connect(EtcdConfig { endpoints, ..EtcdConfig::default() })?;
        let now = store.status().await?.revision;
        let end = Instant::now() + LAG_LIMIT;
        while self.look(|moves| moves.revision < now) {
            self.goes_on().await?;
            ensure!(Instant::now() < end, "the follower of the store did not reach {now:?}");
        }
        drop(self.task);
        Ok(std::mem::take(&mut self.moves.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    fn look<T>(&self, f: impl FnOnce(&Moves) -> T) -> T {
        f(&self.moves.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits a moment; an error if nobody follows any more.
    async fn goes_on(&mut self) -> Result<()> {
        tokio::select! {
            ended = &mut self.task => match ended? {
                Ok(()) => bail!("the follower of the store ended"),
                Err(error) => Err(error),
            },
            () = sleep(Duration::from_millis(20)) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use flotilla_registry::records::Target;
    use flotilla_units::ContentHash;

    use super::*;
    use crate::workload::machine_id;

    fn entry(unit: &str, token: i64, departing: Option<Departure>) -> ManifestEntry {
        let (target, run, hash) = (Target::Launched, 1, ContentHash::of(b"a"));
        let unit = unit.parse().expect("a name");
        ManifestEntry {
            unit,
            runtime: None,
            hash,
            target,
            run,
            token: Token(token),
            departing,
            moving: None,
            adopt: false,
        }
    }

    fn put(key: &Key, value: Vec<u8>, at: i64) -> KeyValue {
        let revision = Revision(at);
        let key = Keys::default().spell(key);
        KeyValue {
            key,
            value: value.into(),
            create_revision: revision,
            mod_revision: revision,
            version: 1,
            lease: None,
        }
    }

    fn manifest(number: usize, entries: Vec<ManifestEntry>, at: i64) -> KeyValue {
        let bucket = Bucket::of(&"a.service".parse().expect("a name"));
        let key = Key::Manifest(machine_id(number).expect("an id"), bucket);
        put(&key, ManifestBucket { v: 1, entries }.encode(), at)
    }

    fn machine(number: usize) -> Key {
        Key::Machine(machine_id(number).expect("an id"))
    }

    /// Two machines, the first of which has a unit.
    fn begin() -> Moves {
        let mut moves = Moves::default();
        let kvs = vec![
            put(&machine(0), b"{}".to_vec(), 1),
            put(&machine(1), b"{}".to_vec(), 2),
            manifest(0, vec![entry("a.service", 1, None)], 3),
        ];
        moves.take(&Keys::default(), Change::Reset { kvs, revision: Revision(3) }).expect("taken");
        moves
    }

    fn change(moves: &mut Moves, at: i64, events: Vec<WatchEvent>) {
        moves.take(&Keys::default(), Change::Changes { revision: Revision(at), events }).expect("taken");
    }

    fn lost() -> ManifestEntry {
        entry("a.service", 1, Some(Departure::MachineLost))
    }

    #[test]
    fn a_move_off_a_dead_machine_is_needed() {
        let mut moves = begin();
        let key = Keys::default().spell(&machine(0));
        change(&mut moves, 4, vec![WatchEvent::Delete { revision: Revision(4), key }]);
        let there = WatchEvent::Put(manifest(1, vec![entry("a.service", 2, None)], 5));
        change(&mut moves, 5, vec![WatchEvent::Put(manifest(0, vec![lost()], 5)), there]);
        // It returns, proves the unit gone, and the entry goes.
        change(&mut moves, 6, vec![WatchEvent::Put(put(&machine(0), b"{}".to_vec(), 6))]);
        change(&mut moves, 7, vec![WatchEvent::Put(manifest(0, vec![], 7))]);
        assert_eq!((moves.moved, moves.needless), (1, 0), "{:?}", moves.named());
    }

    #[test]
    fn a_move_off_a_living_machine_is_needless_however_it_is_written() {
        let mut moving = entry("a.service", 1, None);
        moving.moving = Some(Departure::Rebalanced);
        let anew = entry("a.service", 2, None);
        for entries in [vec![lost()], vec![moving], vec![], vec![anew]] {
            let mut moves = begin();
            change(&mut moves, 4, vec![WatchEvent::Put(manifest(0, entries, 4))]);
            assert_eq!((moves.moved, moves.needless, moves.named().len()), (1, 1, 1));
        }
    }

    #[test]
    fn what_its_user_ended_or_what_stays_has_not_moved() {
        let mut moves = begin();
        let two = vec![entry("a.service", 1, None), entry("a.service", 9, Some(Departure::MachineLost))];
        change(&mut moves, 4, vec![WatchEvent::Put(manifest(0, two, 4))]);
        let destroyed = entry("a.service", 1, Some(Departure::Destroyed));
        change(&mut moves, 5, vec![WatchEvent::Put(manifest(0, vec![destroyed], 5))]);
        assert_eq!((moves.moved, moves.needless), (0, 0));
    }

    #[test]
    fn a_gap_in_the_history_is_an_error() {
        let again = Change::Reset { kvs: Vec::new(), revision: Revision(9) };
        assert!(begin().take(&Keys::default(), again).is_err());
    }
}
