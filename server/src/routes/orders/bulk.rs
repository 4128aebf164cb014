//! Orders about very many units: ranges of instances, and long lists of names.
//!
//! An order is gone through in batches, each of them one transaction of the store as a rule, and each told when it
//! is written. What was gone through is a number, so an order that was cut short is taken up behind it; given
//! again from the start it finds what is so already, and writes nothing for that.

use std::{collections::BTreeSet, sync::Arc};

use axum::{Json, extract::State, http::HeaderMap, response::Response};
use flotilla_api::{
    action::{Action, UnitOutcome},
    bulk::{BulkEvent, BulkOrder, RangeOutcome},
    error::ErrorBody,
};
use flotilla_engine::{Goal, StateReader};
use flotilla_registry::{
    operations::{Asker, Effect, OperationError, RangePart, RangeWritten, UnitOrder, Word, Written},
    records::Target,
    store::Revision,
};
use flotilla_units::{SourceName, UnitName, UnitRange};

use crate::{
    asked::Asked,
    error::ApiError,
    node::Node,
    routes::{orders, units::OWN_WRITE_TIMEOUT},
    stream::{self, Feed, Gone},
};

/// How many names one batch has. A hundred: one transaction of the store.
const NAMES_AT_ONCE: usize = 100;

/// The most single units that are told of in one event; a page.
const OUTCOMES_MAX: usize = 1_000;

/// How many stretches a part of a range is told in. A hundred: of 25 parts with a batch that is two pages.
const STRETCHES_MAX: usize = 100;

/// How many instances side by side are ordered anew as a range rather than one by one: their own records would
/// stay beside the range's.
const SIDE_BY_SIDE_MIN: usize = 20;

/// Part of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Batch {
    Names(Vec<UnitName>),
    Range(UnitRange),
}

/// Changes what users want of ranges of instances, a million in one request, and of lists of names. The answer
/// streams how far it is: up to 100,000 instances of a range, or 100 names, are written at once or not at all. Where
/// it ends early, the same request with `Last-Event-ID` goes on behind what was told; without, what is so already is
/// skipped (but for `restart`, which has no such thing).
#[utoipa::path(post, path = "/v1/orders/bulk", request_body = BulkOrder,
    params(("Last-Event-ID" = Option<String>, Header, description = "the id of the last event that was read of the same order")),
    responses(
    (status = OK, body = BulkEvent, content_type = "text/event-stream"),
    (status = BAD_REQUEST, body = ErrorBody),
    (status = FORBIDDEN, body = ErrorBody),
))]
pub(crate) async fn bulk_order(
    State(node): State<Arc<Node>>,
    asked: Asked,
    headers: HeaderMap,
    Json(order): Json<BulkOrder>,
) -> Result<Response, ApiError> {
    asked.condition.refuse_for_several("POST /v1/bulk takes a revision for each of several units")?;
    asked.asker()?;
    let reader = node.seat()?;
    let batches = read(&order.units)?;
    let total: u64 = batches.iter().map(Batch::len).sum();
    let begun = begun(&headers)?;
    Ok(stream::answer(move |feed| async move {
        let errand = Errand { node: &node, reader, action: order.action, asked: &asked, total };
        match errand.run(&feed, batches, begun).await {
            Ok(()) => Ok(()),
            Err(Ended::Gone) => Err(Gone),
            Err(Ended::Failed(error)) => {
                feed.fail(&error.0).await;
                Ok(())
            }
        }
    }))
}

/// Where an order is taken up: how much was gone through, and the revision of that.
fn begun(headers: &HeaderMap) -> Result<(u64, i64), ApiError> {
    let Some(id) = headers.get("last-event-id") else { return Ok((0, 0)) };
    let parts = id.to_str().ok().and_then(|id| id.trim().split_once('@'));
    let read = parts.and_then(|(position, revision)| Some((position.parse().ok()?, revision.parse().ok()?)));
    read.ok_or_else(|| {
        ApiError::bad_request(
            "Last-Event-ID is none of an order's; send the id of the last event that was read",
        )
    })
}

/// Reads what an order is about, in batches.
fn read(words: &[String]) -> Result<Vec<Batch>, ApiError> {
    let (mut batches, mut names): (Vec<Batch>, Vec<UnitName>) = (Vec::new(), Vec::new());
    for word in words {
        if UnitRange::is_meant_by(word) {
            let range: UnitRange = word.parse().map_err(|e| ApiError::bad_request(format!("{e}")))?;
            batches.extend(range.batches().map(Batch::Range));
        } else if word.contains(['*', '?', '[']) {
            let why = format!(
                "`{word}` is a pattern, and this order takes names and ranges; POST /v1/orders takes it"
            );
            return Err(ApiError::bad_request(why));
        } else {
            names.push(SourceName::mangle(word)?.runtime().clone());
        }
    }
    batches.extend(names.chunks(NAMES_AT_ONCE).map(|some| Batch::Names(some.to_vec())));
    if batches.is_empty() {
        return Err(ApiError::bad_request("the order names no unit"));
    }
    Ok(batches)
}

impl Batch {
    fn len(&self) -> u64 {
        match self {
            Self::Names(names) => names.len() as u64,
            Self::Range(range) => range.len(),
        }
    }

    /// Returns what is behind so many of its units.
    fn after(self, count: u64) -> Option<Self> {
        match self {
            Self::Names(names) => {
                let rest: Vec<_> =
                    names.into_iter().skip(usize::try_from(count).unwrap_or(usize::MAX)).collect();
                (!rest.is_empty()).then_some(Self::Names(rest))
            }
            Self::Range(range) => range.from_number(range.from().saturating_add(count)).map(Self::Range),
        }
    }
}

/// Why an order ended early.
enum Ended {
    Gone,
    Failed(ApiError),
}

impl From<Gone> for Ended {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

/// What became of a batch.
#[derive(Debug, Default)]
struct Outcome {
    units: u64,
    changed: u64,
    transactions: u64,
    revision: i64,
    ranges: Vec<RangeOutcome>,
    outcomes: Vec<UnitOutcome>,
}

/// An order under way.
struct Errand<'a> {
    node: &'a Node,
    reader: StateReader,
    action: Action,
    asked: &'a Asked,
    total: u64,
}

impl Errand<'_> {
    async fn run(&self, feed: &Feed, batches: Vec<Batch>, begun: (u64, i64)) -> Result<(), Ended> {
        let (mut position, mut last) = begun;
        // Whether a unit has ended is looked for behind what this order itself has written.
        let reached = self.reader.reached(Revision(last));
        let _in_time = tokio::time::timeout(OWN_WRITE_TIMEOUT, reached).await;
        let (mut skip, mut found, mut missing) = (position, position, None);
        for batch in batches {
            let len = batch.len();
            let rest = if skip < len { batch.after(skip) } else { None };
            let Some(batch) = rest else {
                skip -= len.min(skip);
                continue;
            };
            skip = 0;
            let outcome = match self.carry_out(&batch).await {
                Ok(outcome) => outcome,
                // Others of the order may be there.
                Err(error @ OperationError::NoSuchInstances(_)) => {
                    missing.get_or_insert(error);
                    Outcome { revision: last, ..Outcome::default() }
                }
                Err(error) => return Err(Ended::Failed(refusal(&batch, error))),
            };
            (position, last, found) =
                (position + batch.len(), last.max(outcome.revision), found + outcome.units);
            let Outcome { units, changed, transactions, revision, ranges, mut outcomes } = outcome;
            if outcomes.len() > OUTCOMES_MAX {
                outcomes.clear();
            }
            let total = self.total;
            let event = BulkEvent::Written {
                position,
                total,
                units,
                changed,
                transactions,
                revision,
                ranges,
                outcomes,
            };
            feed.say(Some(format!("{position}@{last}")), &event).await?;
        }
        if let Some(error) = missing.filter(|_| found == 0) {
            return Err(Ended::Failed(error.into()));
        }
        feed.say(Some(format!("{position}@{last}")), &BulkEvent::Done { revision: last }).await?;
        Ok(())
    }

    async fn carry_out(&self, batch: &Batch) -> Result<Outcome, OperationError> {
        // It was asked before the answer began.
        let Ok(by) = self.asked.asker() else { return Ok(Outcome::default()) };
        let mut outcome = Outcome::default();
        match batch {
            Batch::Names(names) => {
                let names: BTreeSet<&UnitName> = names.iter().collect();
                let names: Vec<UnitName> = names.into_iter().cloned().collect();
                let written = orders::carry_out(self.node, &self.reader, self.action, &names, by).await?;
                outcome.add(written);
            }
            Batch::Range(range) => {
                let astray = self.astray(range).await;
                outcome.add_range(self.order(range, false, by).await?);
                for some in side_by_side(range.template(), &astray) {
                    match some {
                        Batch::Range(range) => outcome.again(self.order(&range, true, by).await?.revision()),
                        Batch::Names(names) => {
                            let orders: Vec<_> =
                                names.into_iter().map(|name| self.anew(name, &astray)).collect();
                            let written = self.node.operations.write(&orders, false, by).await?.written;
                            outcome.again(written.iter().map(|it| it.revision).max().unwrap_or_default());
                            outcome.outcomes.extend(written.into_iter().map(told));
                        }
                    }
                }
            }
        }
        Ok(outcome)
    }

    async fn order(
        &self,
        range: &UnitRange,
        anew: bool,
        by: Asker<'_>,
    ) -> Result<RangeWritten, OperationError> {
        let operations = &self.node.operations;
        match self.action {
            Action::Start => operations.set_target_in(range, Target::Launched, anew, by).await,
            Action::Restart => operations.set_target_in(range, Target::Launched, true, by).await,
            Action::Load => operations.set_target_in(range, Target::Loaded, false, by).await,
            Action::Stop if anew => operations.set_target_in(range, Target::Loaded, true, by).await,
            Action::Stop => operations.stop_in(range, by).await,
            Action::Unload => operations.set_target_in(range, Target::Inactive, false, by).await,
            Action::Destroy => operations.destroy_in(range, by).await,
        }
    }

    /// Finds what the order has to be given anew though it stands already: to start what has ended, and to stop
    /// what something else started.
    async fn astray(&self, range: &UnitRange) -> Vec<(UnitName, u64)> {
        let goal = match self.action {
            Action::Start => Goal::Started,
            Action::Stop => Goal::Stopped,
            _ => return Vec::new(),
        };
        let (mut astray, mut after) = (Vec::new(), None);
        loop {
            let (some, next) = self.reader.astray(range, goal, after.as_ref());
            astray.extend(some);
            after = next;
            if after.is_none() {
                astray.sort_by_key(|(name, _)| name.number());
                return astray;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Orders one instance anew, unless somebody else was faster.
    fn anew(&self, name: UnitName, astray: &[(UnitName, u64)]) -> (UnitName, UnitOrder) {
        let target = if self.action == Action::Stop { Target::Loaded } else { Target::Launched };
        let word = UnitOrder::word(Word::Target { target, raise_run: true });
        let at = astray.binary_search_by_key(&name.number(), |(name, _)| name.number());
        let seen_run = at.ok().and_then(|at| astray.get(at)).map(|(_, run)| *run);
        (name, UnitOrder { seen_run, ..word })
    }
}

/// Puts those together that stand side by side, ascending by number, and the others in batches.
fn side_by_side(template: &UnitName, astray: &[(UnitName, u64)]) -> Vec<Batch> {
    let follows = |(one, _): &(UnitName, u64), (other, _): &(UnitName, u64)| {
        one.number().and_then(|number| number.checked_add(1)) == other.number()
    };
    let (mut batches, mut single) = (Vec::new(), Vec::new());
    for run in astray.chunk_by(follows) {
        let ends = run
            .first()
            .and_then(|(name, _)| name.number())
            .zip(run.last().and_then(|(name, _)| name.number()));
        let range = ends.filter(|_| run.len() >= SIDE_BY_SIDE_MIN);
        match range.and_then(|(from, to)| UnitRange::new(template.clone(), from, to).ok()) {
            Some(range) => batches.push(Batch::Range(range)),
            None => single.extend(run.iter().map(|(name, _)| name.clone())),
        }
    }
    batches.extend(single.chunks(NAMES_AT_ONCE).map(|some| Batch::Names(some.to_vec())));
    batches
}

impl Outcome {
    fn add(&mut self, written: Vec<Written>) {
        self.units += written.len() as u64;
        let changed = written.iter().filter(|it| it.effect != Effect::Unchanged);
        let revisions: BTreeSet<Revision> = changed.clone().map(|it| it.revision).collect();
        self.changed += changed.count() as u64;
        self.transactions += revisions.len() as u64;
        self.again(written.iter().map(|it| it.revision).max().unwrap_or_default());
        self.outcomes.extend(written.into_iter().map(told));
    }

    fn add_range(&mut self, written: RangeWritten) {
        self.units += written.count();
        self.changed += written.changed();
        self.transactions += written.transactions as u64;
        self.again(written.revision());
        let RangeWritten { template, parts, own, .. } = written;
        for part in parts {
            let (changed, generation, run) = (part.effect != Effect::Unchanged, part.generation, part.run);
            let told = |(from, to)| {
                let range = UnitRange::new(template.clone(), from, to).ok()?;
                Some(RangeOutcome { range, changed, generation, run })
            };
            self.ranges.extend(there(&part).into_iter().filter_map(told));
        }
        self.outcomes.extend(own.into_iter().map(told));
    }

    fn again(&mut self, revision: Revision) {
        self.revision = self.revision.max(revision.0);
    }
}

/// Returns the stretches of a part that are there; the whole part where those are very many.
fn there(part: &RangePart) -> Vec<(u64, u64)> {
    let mut stretches: Vec<(u64, u64)> = Vec::new();
    if part.without.is_empty() {
        return vec![(*part.instances.start(), *part.instances.end())];
    }
    for number in part.instances.clone().filter(|number| !part.without.has(*number)) {
        if let Some((_, to)) = stretches.last_mut().filter(|(_, to)| to + 1 == number) {
            *to = number;
        } else if stretches.len() == STRETCHES_MAX {
            return vec![(*part.instances.start(), *part.instances.end())];
        } else {
            stretches.push((number, number));
        }
    }
    stretches
}

fn told(written: Written) -> UnitOutcome {
    UnitOutcome {
        unit: written.unit,
        changed: written.effect != Effect::Unchanged,
        generation: written.generation,
        run: written.run,
        adopted_from: written.adopted_from,
    }
}

/// Says which part of the order was refused, where the error itself does not.
fn refusal(batch: &Batch, error: OperationError) -> ApiError {
    let mut refused = ApiError::from(error);
    if let Batch::Range(range) = batch {
        let range = range.to_string();
        if !refused.0.message.contains(&range) {
            refused.0.message = format!("{range}: {}", refused.0.message);
        }
    }
    refused
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_taken_up_behind_what_was_gone_through() {
        let words = ["web@{1..250000}", "b", "a.service"].map(str::to_owned);
        let batches = read(&words).expect("valid");
        assert_eq!(batches.iter().map(Batch::len).collect::<Vec<_>>(), [100_000, 100_000, 50_000, 2]);
        let rest = batches[1].clone().after(7).expect("more");
        assert_eq!(rest, Batch::Range("web@{100008..200000}".parse().expect("a range")));
        assert_eq!(batches[0].clone().after(100_000), None);
        let rest = batches[3].clone().after(1).expect("more");
        assert_eq!(rest, Batch::Names(vec!["a.service".parse().expect("a name")]));
        assert!(read(&["web@*".to_owned()]).is_err() && read(&[]).is_err());
        let headers = |id: &str| {
            [("last-event-id".parse().expect("a name"), id.parse().expect("a value"))].into_iter().collect()
        };
        assert_eq!(begun(&headers("300000@812")).expect("an id"), (300_000, 812));
        assert!(begun(&headers("812")).is_err());
    }

    #[test]
    fn what_stands_side_by_side_is_ordered_as_a_range() {
        let template: UnitName = "web@.service".parse().expect("a name");
        let astray = |numbers: &mut dyn Iterator<Item = u64>| {
            numbers.map(|number| (template.with_number(number).expect("a name"), 1)).collect::<Vec<_>>()
        };
        let some = astray(&mut (5..25).chain([30, 31, 40]));
        let batches = side_by_side(&template, &some);
        assert_eq!(batches.len(), 2);
        assert_eq!(batches[0], Batch::Range("web@{5..24}".parse().expect("a range")));
        assert!(matches!(&batches[1], Batch::Names(names) if names.len() == 3));
    }
}
