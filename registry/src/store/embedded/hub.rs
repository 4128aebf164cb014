//! The running watches of an embedded store.
//!
//! A watch is either *live*, handed each published revision as it comes, or *catching up* from the
//! history. It starts catching up, becomes live when it has read everything published, and falls
//! back when it does not keep up; so a slow watcher costs no memory and loses nothing.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    task::{Context, Poll, Waker},
};

use super::{
    super::{KeyRange, Revision, StoreError, WatchEvent, WatchMessage},
    keyspace::{Keyspace, changed_key},
};

/// Messages kept for a live watch before it is sent back to the history.
const QUEUE_MESSAGES: usize = 256;

/// Revisions read from the history at once, to bound the time the store is locked.
const CATCH_UP_REVISIONS: usize = 1_000;

/// Identifies a watch within its hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct WatchId(u64);

/// All watches, found by the keys they are about.
#[derive(Debug, Default)]
pub(super) struct Hub {
    watches: BTreeMap<WatchId, Watch>,
    /// Watches of a single key or of a whole prefix, by their start: a change of a key concerns only
    /// those under the key's own prefixes, however many watches there are.
    by_prefix: HashMap<String, Vec<WatchId>>,
    /// Watches of any other range; few.
    other: Vec<WatchId>,
    next: u64,
}

#[derive(Debug)]
struct Watch {
    range: KeyRange,
    /// The first revision neither delivered nor queued.
    next: Revision,
    live: bool,
    queue: VecDeque<WatchMessage>,
    ended: Option<StoreError>,
    waker: Option<Waker>,
}

impl Hub {
    /// Adds a watch; unless it starts far in the past it is live at once.
    pub(super) fn add(
        &mut self,
        range: KeyRange,
        from: Revision,
        keyspace: &Keyspace,
        published: Revision,
    ) -> WatchId {
        let id = WatchId(self.next);
        self.next += 1;
        match indexed_by(&range) {
            Some(prefix) => self.by_prefix.entry(prefix.to_owned()).or_default().push(id),
            None => self.other.push(id),
        }
        let mut watch =
            Watch { range, next: from, live: false, queue: VecDeque::new(), ended: None, waker: None };
        watch.ended = watch.catch_up(keyspace, published).err();
        self.watches.insert(id, watch);
        id
    }

    /// Removes a watch.
    pub(super) fn remove(&mut self, id: WatchId) {
        let Some(watch) = self.watches.remove(&id) else { return };
        match indexed_by(&watch.range) {
            Some(prefix) => {
                if let Some(ids) = self.by_prefix.get_mut(prefix) {
                    ids.retain(|other| *other != id);
                    if ids.is_empty() {
                        self.by_prefix.remove(prefix);
                    }
                }
            }
            None => self.other.retain(|other| *other != id),
        }
    }

    /// Hands a revision to the live watches it concerns. Returns whom to wake, in order.
    pub(super) fn publish(&mut self, revision: Revision, changes: &[WatchEvent], wake: &mut Vec<Waker>) {
        let mut concerned: BTreeMap<WatchId, Vec<WatchEvent>> = BTreeMap::new();
        for event in changes {
            let key = changed_key(event);
            let prefixes = key.char_indices().map(|(end, _)| &key[..end]).chain([key]);
            let indexed = prefixes.filter_map(|prefix| self.by_prefix.get(prefix)).flatten();
            for id in indexed.chain(&self.other) {
                if self.watches.get(id).is_some_and(|watch| watch.range.contains(key)) {
                    concerned.entry(*id).or_default().push(event.clone());
                }
            }
        }
        for (id, events) in concerned {
            let Some(watch) = self.watches.get_mut(&id).filter(|watch| watch.live && watch.next <= revision)
            else {
                continue;
            };
            if watch.queue.len() < QUEUE_MESSAGES {
                watch.queue.push_back(WatchMessage::Events { revision, events });
                watch.next = Revision(revision.0 + 1);
            } else {
                watch.live = false;
                watch.next = revision;
            }
            wake.extend(watch.waker.take());
        }
    }

    /// Tells the idle live watches how far the store is, so that what they resume from does not fall
    /// behind a compaction.
    pub(super) fn progress(&mut self, published: Revision, wake: &mut Vec<Waker>) {
        for watch in self.watches.values_mut() {
            if watch.live && watch.queue.is_empty() && watch.next.0 <= published.0 + 1 {
                watch.queue.push_back(WatchMessage::Progress(published));
                wake.extend(watch.waker.take());
            }
        }
    }

    /// Ends every watch with an error, after what is queued for it.
    pub(super) fn end_all(&mut self, error: &StoreError, wake: &mut Vec<Waker>) {
        for watch in self.watches.values_mut() {
            watch.ended.get_or_insert_with(|| error.clone());
            wake.extend(watch.waker.take());
        }
    }

    /// Returns the next message of a watch, from its queue or from the history.
    pub(super) fn poll(
        &mut self,
        id: WatchId,
        keyspace: &Keyspace,
        published: Revision,
        context: &Context<'_>,
    ) -> Poll<Option<Result<WatchMessage, StoreError>>> {
        let Some(watch) = self.watches.get_mut(&id) else { return Poll::Ready(None) };
        loop {
            if let Some(message) = watch.queue.pop_front() {
                return Poll::Ready(Some(Ok(message)));
            }
            if let Some(error) = watch.ended.take() {
                self.remove(id);
                return Poll::Ready(Some(Err(error)));
            }
            if watch.live {
                watch.waker = Some(context.waker().clone());
                return Poll::Pending;
            }
            if let Err(error) = watch.catch_up(keyspace, published) {
                watch.ended = Some(error);
            }
        }
    }
}

impl Watch {
    fn catch_up(&mut self, keyspace: &Keyspace, published: Revision) -> Result<(), StoreError> {
        let mut read = 0;
        for (revision, changes) in keyspace.changes(self.next, published)?.take(CATCH_UP_REVISIONS) {
            read += 1;
            self.next = Revision(revision.0 + 1);
            let events: Vec<_> =
                changes.iter().filter(|event| self.range.contains(changed_key(event))).cloned().collect();
            if !events.is_empty() {
                self.queue.push_back(WatchMessage::Events { revision, events });
            }
        }
        if read < CATCH_UP_REVISIONS {
            self.live = true;
            self.next = self.next.max(Revision(published.0 + 1));
        }
        Ok(())
    }
}

/// Returns the prefix under which a range is found, if it is a single key or a whole prefix.
fn indexed_by(range: &KeyRange) -> Option<&str> {
    let whole = range.end.is_none() || *range == KeyRange::prefix(range.start.as_str());
    whole.then_some(range.start.as_str())
}
