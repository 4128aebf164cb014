//! Links that systemd has not read yet: who is wanted by a unit that is loaded already.
//!
//! systemd reads the links of a unit (`<unit>.wants`) when it loads it, so only for one that is loaded does
//! it have to be told to read everything again, which is expensive ([`reload`](super::reload)). One task does
//! that, once for all links that are made or removed together. What it still has to do is marked on disk, so
//! that the agent after one that was killed does it.
//!
//! ```text
//! noted ──(no other for a moment)──▶ asked: is one loaded? ──no──▶ done
//!   ▲                                        │ yes                  ▲
//!   └────────────(a failure)──────────────── Reload ────────────────┘
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use flotilla_units::UnitName;
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::{METHOD_TIMEOUT, door::Door, error::is_no_such, reload::Reloads};
use crate::systemd::{SystemdError, files::Files};

/// How long nothing more has to come before links are read. A fifth of a second: units that are installed
/// together are so within it, and nobody starts what wants them sooner but for what waits for it here.
const QUIET: Duration = Duration::from_millis(200);

/// How long links wait at most while more come. Two seconds: three reloads of a thousand units.
const AT_MOST: Duration = Duration::from_secs(2);

/// How long after a failure it is tried again: systemd or the bus is away, and back in seconds.
const AGAIN: Duration = Duration::from_secs(5);

/// Links that were made or removed, and the task that has systemd read them.
#[derive(Debug)]
pub(super) struct Unread {
    shared: Arc<Shared>,
    /// Ends the task with this.
    _task: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    noted: Mutex<Noted>,
    bell: Notify,
    /// All that was noted up to this is done.
    done: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Noted {
    /// Counts what was noted.
    last: u64,
    /// The units whose links are others, with when that was noted last.
    units: BTreeMap<UnitName, u64>,
    /// Whose are others is not known: an earlier agent left it to this one.
    unknown: bool,
}

/// Whose links are to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Due {
    units: BTreeSet<UnitName>,
    unknown: bool,
    upto: u64,
}

impl Unread {
    /// Begins with what an earlier agent left.
    pub(super) fn open(files: Files, door: Door, reloads: Arc<Reloads>) -> Self {
        let unknown = files.has_unread_links();
        Self::with(unknown, files, move |due: Due| {
            let (door, reloads) = (door.clone(), reloads.clone());
            async move {
                if due.unknown || any_loaded(&door, &due.units).await? {
                    let reload = door.call("Reload", "all units", |m| async move { m.reload().await });
                    reloads.coalesced(reload).await?;
                }
                Ok(())
            }
        })
    }

    fn with<F>(unknown: bool, files: Files, read: impl Fn(Due) -> F + Send + 'static) -> Self
    where
        F: Future<Output = Result<(), SystemdError>> + Send + 'static,
    {
        let noted = Noted { unknown, ..Noted::default() };
        let shared = Shared { noted: Mutex::new(noted), bell: Notify::new(), done: watch::Sender::new(0) };
        let shared = Arc::new(shared);
        if unknown {
            shared.bell.notify_one();
        }
        let mut task = JoinSet::new();
        task.spawn(follow(shared.clone(), files, read));
        Self { shared, _task: task }
    }

    /// Notes whose links are about to be others, or just became so. To be told both times: the first makes
    /// sure that it is not forgotten.
    pub(super) fn note(&self, files: &Files, units: &BTreeSet<UnitName>) -> Result<(), SystemdError> {
        if units.is_empty() {
            return Ok(());
        }
        let mut noted = self.shared.noted();
        files.mark_unread(true)?;
        noted.last += 1;
        let last = noted.last;
        noted.units.extend(units.iter().map(|unit| (unit.clone(), last)));
        drop(noted);
        self.shared.bell.notify_one();
        Ok(())
    }

    /// Waits until systemd has read the links of a unit, or of its template.
    pub(super) async fn read_of(&self, unit: &UnitName) -> Result<(), SystemdError> {
        let upto = {
            let noted = self.shared.noted();
            let at = |name: &UnitName| noted.units.get(name).copied();
            at(unit).max(unit.template().as_ref().and_then(at))
        };
        match upto {
            Some(upto) => self.done(upto).await,
            None => Ok(()),
        }
    }

    /// Waits until systemd has read everything that was noted so far.
    pub(super) async fn read_all(&self) -> Result<(), SystemdError> {
        let upto = self.shared.noted().last;
        self.done(upto).await
    }

    async fn done(&self, upto: u64) -> Result<(), SystemdError> {
        let mut done = self.shared.done.subscribe();
        match timeout(METHOD_TIMEOUT, done.wait_for(|done| *done >= upto)).await {
            Ok(_) => Ok(()),
            Err(_) => Err(SystemdError::NoAnswer { call: "Reload", seconds: METHOD_TIMEOUT.as_secs() }),
        }
    }
}

impl Shared {
    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn due(&self) -> Option<Due> {
        let noted = self.noted();
        let units: BTreeSet<_> = noted.units.keys().cloned().collect();
        (noted.unknown || !units.is_empty()).then_some(Due {
            units,
            unknown: noted.unknown,
            upto: noted.last,
        })
    }

    fn is_read(&self, due: &Due, files: &Files) {
        let mut noted = self.noted();
        noted.units.retain(|_, at| *at > due.upto);
        noted.unknown = false;
        if noted.units.is_empty()
            && let Err(error) = files.mark_unread(false)
        {
            // It costs the next agent a reload that nobody needs.
            tracing::warn!(%error, "the mark that links are unread stays");
        }
        drop(noted);
        self.done.send_replace(due.upto);
    }
}

async fn follow<F>(shared: Arc<Shared>, files: Files, read: impl Fn(Due) -> F)
where
    F: Future<Output = Result<(), SystemdError>>,
{
    loop {
        shared.bell.notified().await;
        let began = Instant::now();
        while began.elapsed() < AT_MOST && timeout(QUIET, shared.bell.notified()).await.is_ok() {}
        let Some(due) = shared.due() else { continue };
        match read(due.clone()).await {
            Ok(()) => shared.is_read(&due, &files),
            Err(error) => {
                tracing::warn!(%error, "systemd has not read who is wanted by whom; tried again");
                sleep(AGAIN).await;
                shared.bell.notify_one();
            }
        }
    }
}

/// Tells whether one of these is loaded; instances of a template are not asked for one by one.
async fn any_loaded(door: &Door, units: &BTreeSet<UnitName>) -> Result<bool, SystemdError> {
    for unit in units {
        if unit.is_template() {
            return Ok(true);
        }
        let name = unit.to_string();
        let asked = door.call("GetUnit", unit.as_str(), |m| {
            let name = name.clone();
            async move { m.get_unit(&name).await }
        });
        match asked.await {
            Ok(_) => return Ok(true),
            Err(e) if is_no_such(&e) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::systemd::Layout;

    type Reads = Arc<Mutex<Vec<Due>>>;

    fn files(place: &tempfile::TempDir) -> Files {
        let layout =
            Layout { run: place.path().join("run"), links: place.path().join("links"), ..Layout::system() };
        let files = Files::new(layout, "0123456789abcdef0123456789abcdef".parse().unwrap());
        files.prepare().unwrap();
        files
    }

    fn unread(files: &Files, reads: &Reads, failures: u64) -> Unread {
        let (reads, failures) = (reads.clone(), Arc::new(Mutex::new(failures)));
        Unread::with(files.has_unread_links(), files.clone(), move |due| {
            reads.lock().unwrap().push(due);
            let mut left = failures.lock().unwrap();
            let fails = *left > 0;
            *left = left.saturating_sub(1);
            async move {
                sleep(Duration::from_millis(100)).await;
                if fails { Err(SystemdError::NoAnswer { call: "Reload", seconds: 25 }) } else { Ok(()) }
            }
        })
    }

    fn names(names: &[&str]) -> BTreeSet<UnitName> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_together_is_read_once_and_marked_until_then() {
        let (place, reads) = (tempfile::tempdir().unwrap(), Reads::default());
        let files = files(&place);
        let unread = unread(&files, &reads, 1);
        unread.note(&files, &names(&[])).unwrap();
        assert!(!files.has_unread_links(), "most units have no such links");
        for n in 0..50 {
            unread
                .note(&files, &names(&["a.target", if n % 2 == 0 { "b.target" } else { "c@.target" }]))
                .unwrap();
            sleep(Duration::from_millis(5)).await;
        }
        assert!(files.has_unread_links() && reads.lock().unwrap().is_empty());
        unread.read_of(&"other.target".parse().unwrap()).await.unwrap();
        assert!(reads.lock().unwrap().is_empty(), "nothing was noted of it");
        unread.read_of(&"c@1.target".parse().unwrap()).await.unwrap();
        assert_eq!(reads.lock().unwrap().len(), 2, "once, and once again after the failure");
        assert_eq!(reads.lock().unwrap()[1].units, names(&["a.target", "b.target", "c@.target"]));
        assert!(!files.has_unread_links());
        unread.read_all().await.unwrap();
        sleep(Duration::from_secs(60)).await;
        assert_eq!(reads.lock().unwrap().len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_while_it_is_read_is_read_after_it_and_nothing_waits_for_ever() {
        let (place, reads) = (tempfile::tempdir().unwrap(), Reads::default());
        let files = files(&place);
        let unread = unread(&files, &reads, 0);
        let began = Instant::now();
        while reads.lock().unwrap().is_empty() {
            unread.note(&files, &names(&["a.target"])).unwrap();
            sleep(Duration::from_millis(50)).await;
        }
        assert!(began.elapsed() < AT_MOST + QUIET * 2, "{:?}", began.elapsed());
        unread.note(&files, &names(&["b.target"])).unwrap();
        unread.read_all().await.unwrap();
        assert_eq!(reads.lock().unwrap().len(), 2);
        assert!(reads.lock().unwrap()[1].units.is_superset(&names(&["b.target"])));
        assert!(!files.has_unread_links());
    }

    #[tokio::test(start_paused = true)]
    async fn what_an_agent_that_was_killed_left_is_read_by_the_next() {
        let (place, reads) = (tempfile::tempdir().unwrap(), Reads::default());
        let files = files(&place);
        let first = unread(&files, &reads, 0);
        first.note(&files, &names(&["a.target"])).unwrap();
        drop(first);
        let second = unread(&files, &reads, 0);
        sleep(Duration::from_secs(1)).await;
        assert_eq!(*reads.lock().unwrap(), [Due { units: BTreeSet::new(), unknown: true, upto: 0 }]);
        assert!(!files.has_unread_links());
        drop(second);
        let _third = unread(&files, &reads, 0);
        sleep(Duration::from_secs(60)).await;
        assert_eq!(reads.lock().unwrap().len(), 1);
    }
}
