//! Who waits for what: orders that are about one template's instances, or about units of no template, are carried
//! out together.
//!
//! ```text
//!  callers ──► lane of web@.service ──► one task: take all that go along, plan them together, write ──► answers
//!          ──► lane of db@.service  ──► another
//!          ──► lane of plain units  ──► another
//! ```
//!
//! Two orders about parts of one range rewrite the same records, so only one of two that are written at once can
//! come true. Within one flotillad they queue here instead: a lane's task takes everybody who waits, as far as no
//! two ask something of the same unit, plans all of it from one look at the store, and packs it into as few
//! transactions as it fits. While these are written, the next ones queue. So a busy lane gives larger
//! transactions, not more of them, and an order waits for two rounds at most. Between flotillads the
//! transactions' compares decide, as ever; who is outrun waits by chance and comes again with everybody who has
//! queued since.
//!
//! A lane's task lives while somebody waits in it, and no caller's going takes an order back that was begun.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    ops::RangeInclusive,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use flotilla_units::{UnitName, UnitRange};
use tokio::{sync::oneshot, task::JoinSet};

use super::{
    Core, OperationError,
    commit::{Done, Errand, Request},
};

/// How many units, and ranges, one look at the store is about. A thousand: nine reads and nine transactions, some
/// 30 ms; whoever comes meanwhile waits no longer than that.
const TOGETHER_MAX: usize = 1_000;

/// Orders of one lane are carried out one after the other, or together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Lane {
    /// About a template, its instances and its ranges.
    Template(UnitName),
    /// About units of no template.
    Plain,
}

/// A request with who waits for its answer.
#[derive(Debug)]
pub(super) struct Ticket {
    pub request: Request,
    pub answer: oneshot::Sender<Result<Done, OperationError>>,
}

/// Everybody who waits. A lane is there while its task is.
#[derive(Debug, Default)]
pub(super) struct Lanes(Mutex<HashMap<Lane, VecDeque<Ticket>>>);

/// The tasks of lanes; they end with whoever has this.
#[derive(Debug, Default)]
pub(super) struct Tasks(Mutex<JoinSet<()>>);

/// What those that are carried out together are about.
#[derive(Debug, Default)]
struct Claims {
    names: BTreeSet<UnitName>,
    numbers: BTreeSet<u64>,
    ranges: Vec<RangeInclusive<u64>>,
    alone: bool,
}

/// Carries a request out, with others if it goes along with them.
pub(super) async fn carry_out(
    core: &Arc<Core>,
    tasks: &Tasks,
    request: Request,
) -> Result<Done, OperationError> {
    let (answer, answered) = oneshot::channel();
    let lane = Lane::of(&request);
    let ticket = Ticket { request, answer };
    match lane {
        // It is about several lanes, or large: those who ask the like go on beside each other.
        None => {
            let mut errand = Errand::new(core);
            errand.take(ticket);
            while !errand.is_idle() {
                errand.turn().await;
            }
        }
        Some(lane) => {
            let mut lanes = core.lanes.lock();
            match lanes.get_mut(&lane) {
                Some(waiting) => waiting.push_back(ticket),
                None => {
                    lanes.insert(lane.clone(), VecDeque::from([ticket]));
                    tasks.spawn(serve(Arc::clone(core), lane));
                }
            }
        }
    }
    // Nobody answers only when flotillad ends, and then nobody asks either.
    answered.await.unwrap_or(Err(OperationError::Ended))
}

/// Carries out what waits in a lane, until nobody does.
async fn serve(core: Arc<Core>, lane: Lane) {
    let _closed = Closed { lanes: &core.lanes, lane: &lane };
    let mut errand = Errand::new(&core);
    while core.lanes.admit(&lane, &mut errand) {
        errand.turn().await;
    }
}

/// Takes a lane away, whatever becomes of its task, so that the next order makes another.
struct Closed<'a> {
    lanes: &'a Lanes,
    lane: &'a Lane,
}

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.lanes.lock().remove(self.lane);
        }
    }
}

impl Lanes {
    fn lock(&self) -> MutexGuard<'_, HashMap<Lane, VecDeque<Ticket>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives an errand those that wait and go along with what it has. False when there is nothing to do: then the
    /// lane is no more.
    fn admit(&self, lane: &Lane, errand: &mut Errand<'_>) -> bool {
        let mut lanes = self.lock();
        let Some(waiting) = lanes.get_mut(lane) else { return !errand.is_idle() };
        if errand.takes_more() {
            let mut claims = Claims::default();
            errand.requests().for_each(|request| claims.add(request));
            // In their order: who would have to wait keeps those behind from overtaking it for ever.
            while let Some(next) = waiting.front() {
                if next.answer.is_closed() {
                    waiting.pop_front();
                    continue;
                }
                if !claims.has_room_for(&next.request) {
                    break;
                }
                claims.add(&next.request);
                let Some(next) = waiting.pop_front() else { break };
                errand.take(next);
            }
        }
        if errand.is_idle() {
            lanes.remove(lane);
            return false;
        }
        true
    }
}

impl Tasks {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }
}

impl Lane {
    /// Returns the lane of a request; `None` if it is of several, or gives units of no template their texts, which
    /// can be much.
    fn of(request: &Request) -> Option<Self> {
        let of = |name: &UnitName| if name.is_template() { Some(name.clone()) } else { name.template() };
        let mut templates = request.wishes().keys().map(of);
        let template = match request.range().map(UnitRange::template) {
            Some(template) => Some(template.clone()),
            None => templates.next()?,
        };
        if templates.any(|other| other != template) {
            return None;
        }
        match template {
            Some(template) => Some(Self::Template(template)),
            None => (!request.is_alone()).then_some(Self::Plain),
        }
    }
}

impl Claims {
    fn is_empty(&self) -> bool {
        self.names.is_empty() && self.ranges.is_empty()
    }

    /// Tells whether a request asks nothing of a unit of which something is asked already.
    fn has_room_for(&self, request: &Request) -> bool {
        if self.is_empty() {
            return true;
        }
        let units = self.names.len() + self.ranges.len();
        if self.alone || request.is_alone() || units + request.wishes().len() >= TOGETHER_MAX {
            return false;
        }
        let in_a_range = |number: u64| self.ranges.iter().any(|range| range.contains(&number));
        let names = request.wishes().keys();
        let is_free = |name: &UnitName| !self.names.contains(name) && !name.number().is_some_and(in_a_range);
        let range = request.range().is_none_or(|range| {
            let overlaps = |it: &RangeInclusive<u64>| *it.start() <= range.to() && range.from() <= *it.end();
            !self.ranges.iter().any(overlaps)
                && self.numbers.range(range.from()..=range.to()).next().is_none()
        });
        range && names.clone().all(is_free)
    }

    fn add(&mut self, request: &Request) {
        self.alone |= request.is_alone();
        self.names.extend(request.wishes().keys().cloned());
        self.numbers.extend(request.wishes().keys().filter_map(UnitName::number));
        self.ranges.extend(request.range().map(|range| range.from()..=range.to()));
    }
}
