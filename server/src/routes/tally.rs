//! How far very many instances are, as counts.
//!
//! A stream keeps one byte for each instance, and judges those anew that change. It tells only when a count is
//! another, and rests between two looks ten times as long as one took, so that whoever waits for a million
//! units takes little from those who start them.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{Query, State},
    response::Response,
};
use flotilla_api::{
    action::Action,
    bulk::{Tally, TallyQuery},
    error::ErrorBody,
};
use flotilla_engine::{Goal, Standing, StateReader};
use flotilla_registry::store::Revision;
use flotilla_units::{INSTANCES_MAX, UnitName, UnitRange};
use tokio::time::{Instant, sleep};

use crate::{
    error::ApiError,
    identity::User,
    node::Node,
    routes::watch::reached,
    stream::{self, Feed, Gone},
};

/// How soon it looks again. A tenth of a second: as often as a person can read a number that changes.
const LOOK_AFTER: Duration = Duration::from_millis(100);

/// How many times as long as a look took is waited until the next.
const REST_FACTOR: u32 = 10;

/// How many examples of each kind are told.
const EXAMPLES_MAX: usize = 10;

/// Counts how far the instances of ranges are on the way to what was ordered of them, as server-sent events: at once,
/// and whenever a count is another. A client that lost the connection asks anew.
#[utoipa::path(get, path = "/v1/tally", params(TallyQuery,
    ("Last-Event-ID" = Option<String>, Header, description = "not looked at: everything is counted anew")), responses(
    (status = OK, body = Tally, content_type = "text/event-stream"),
    (status = BAD_REQUEST, body = ErrorBody),
))]
pub(super) async fn tally(
    State(node): State<Arc<Node>>,
    _user: User,
    Query(query): Query<TallyQuery>,
) -> Result<Response, ApiError> {
    let reader = node.seat()?;
    let goal = match query.action {
        Action::Start | Action::Restart => Goal::Started,
        Action::Load => Goal::Loaded,
        Action::Stop => Goal::Stopped,
        Action::Unload => Goal::Unloaded,
        Action::Destroy => Goal::Destroyed,
    };
    let count = Count::new(&query.ranges, goal)?;
    if let Some(after) = query.after {
        reached(&reader, Revision(after)).await?;
    }
    Ok(stream::answer(move |feed| follow(node, reader, count, feed)))
}

async fn follow(node: Arc<Node>, reader: StateReader, mut count: Count, feed: Feed) -> Result<(), Gone> {
    let mut doorbell = reader.changed();
    let mut at = count.all(&reader).await;
    let mut told: Option<Tally> = None;
    loop {
        let tally = count.tally(at);
        if told.as_ref().is_none_or(|told| Tally { revision: at.0, ..told.clone() } != tally) {
            feed.say(Some(at.0.to_string()), &tally).await?;
            told = Some(tally);
        }
        let seated = tokio::select! {
            rung = doorbell.changed() => rung.is_ok(),
            () = node.unseated(&reader) => false,
        };
        if !seated {
            node.end_unseated(&feed).await;
            return Ok(());
        }
        let begun = Instant::now();
        // Marked before looking, so that a change in between rings again.
        doorbell.borrow_and_update();
        at = match reader.since(at) {
            Ok(delta) => {
                count.these(&reader, delta.units).await;
                delta.revision
            }
            Err(_too_old) => count.all(&reader).await,
        };
        sleep(LOOK_AFTER.max(begun.elapsed() * REST_FACTOR)).await;
    }
}

/// The instances, each with how far it is.
struct Count {
    goal: Goal,
    /// Ascending by template and number, and apart from each other.
    ranges: Vec<(UnitRange, Vec<u8>)>,
    /// How many are how far.
    counts: [u64; 5],
}

/// How far an instance is, as it is kept: what has to be told of first.
const STANDINGS: [Standing; 5] =
    [Standing::Failed, Standing::Unplaced, Standing::Pending, Standing::Done, Standing::Absent];

fn code(standing: Standing) -> u8 {
    match standing {
        Standing::Failed => 0,
        Standing::Unplaced => 1,
        Standing::Pending => 2,
        Standing::Done => 3,
        Standing::Absent => 4,
    }
}

impl Count {
    fn new(ranges: &str, goal: Goal) -> Result<Self, ApiError> {
        let read = |word: &str| word.parse::<UnitRange>().map_err(|e| ApiError::bad_request(format!("{e}")));
        let mut ranges = ranges.split(',').map(read).collect::<Result<Vec<_>, _>>()?;
        ranges.sort();
        let overlap = ranges
            .windows(2)
            .find(|two| two[0].template() == two[1].template() && two[0].to() >= two[1].from());
        if let Some([one, other]) = overlap {
            return Err(ApiError::bad_request(format!(
                "{one} and {other} overlap; name what is in both once"
            )));
        }
        let total: u64 = ranges.iter().map(UnitRange::len).sum();
        if total > INSTANCES_MAX {
            return Err(ApiError::bad_request(format!(
                "the ranges have {total} instances together, and {INSTANCES_MAX} are the most that are counted at once"
            )));
        }
        Ok(Self {
            goal,
            ranges: ranges.into_iter().map(|range| (range, Vec::new())).collect(),
            counts: [0; 5],
        })
    }

    /// How far an instance is that there is not.
    fn nothing(&self) -> u8 {
        code(match self.goal {
            Goal::Started | Goal::Loaded => Standing::Failed,
            Goal::Stopped | Goal::Unloaded => Standing::Absent,
            Goal::Destroyed => Standing::Done,
        })
    }

    /// Judges all of them.
    async fn all(&mut self, reader: &StateReader) -> Revision {
        // What changes meanwhile is judged again.
        let at = reader.revision();
        let (goal, nothing) = (self.goal, self.nothing());
        self.counts = [0; 5];
        for (range, codes) in &mut self.ranges {
            *codes = vec![nothing; usize::try_from(range.len()).unwrap_or_default()];
            let mut after: Option<UnitName> = None;
            loop {
                after = reader.standings(range, goal, after.as_ref(), |number, standing| {
                    if let Some(kept) =
                        usize::try_from(number - range.from()).ok().and_then(|at| codes.get_mut(at))
                    {
                        *kept = code(standing);
                    }
                });
                if after.is_none() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            for code in codes {
                self.counts[usize::from(*code)] += 1;
            }
        }
        at
    }

    /// Judges those anew that changed.
    async fn these(&mut self, reader: &StateReader, units: Vec<UnitName>) {
        for (looked, unit) in units.into_iter().enumerate() {
            let found = self.ranges.iter_mut().find(|(range, _)| range.contains(&unit));
            let kept = found.and_then(|(range, codes)| {
                codes.get_mut(usize::try_from(unit.number()? - range.from()).ok()?)
            });
            if let Some(kept) = kept {
                let now = code(reader.standing(&unit, self.goal));
                let before = std::mem::replace(kept, now);
                self.counts[usize::from(before)] -= 1;
                self.counts[usize::from(now)] += 1;
            }
            if looked % 1_000 == 999 {
                tokio::task::yield_now().await;
            }
        }
    }

    fn tally(&self, at: Revision) -> Tally {
        let count = |standing| self.counts[usize::from(code(standing))];
        let of = |standing: Standing| {
            let is = code(standing);
            let ranges = self.ranges.iter().filter(move |_| count(standing) > 0);
            let numbers = ranges.flat_map(move |(range, codes)| {
                let these = codes.iter().enumerate().filter(move |(_, code)| **code == is);
                these.filter_map(|(at, _)| range.template().with_number(range.from() + at as u64).ok())
            });
            numbers.take(EXAMPLES_MAX)
        };
        Tally {
            revision: at.0,
            total: self.counts.iter().sum::<u64>() - count(Standing::Absent),
            done: count(Standing::Done),
            pending: count(Standing::Pending),
            failed: count(Standing::Failed),
            unplaced: count(Standing::Unplaced),
            examples: STANDINGS[..3].iter().flat_map(|standing| of(*standing)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_of_what_is_kept() {
        let refused = |ranges: &str| Count::new(ranges, Goal::Started).err().expect(ranges).0.message;
        assert!(refused("web@{1..9},web@{9..20}").contains("overlap"));
        assert!(refused("web@{1..1000000},db@{1..9}").contains("1000000"));
        assert!(refused("web@*").contains("two numbers"));
        let mut count = Count::new("web@{20..29},web@{1..9}", Goal::Stopped).expect("valid");
        for (range, codes) in &mut count.ranges {
            *codes = vec![code(Standing::Absent); range.len() as usize];
        }
        count.counts[usize::from(code(Standing::Absent))] = 17;
        for (at, standing) in [(0, Standing::Done), (1, Standing::Pending), (2, Standing::Failed)] {
            count.ranges[1].1[at] = code(standing);
            count.counts[usize::from(code(standing))] += 1;
            count.counts[usize::from(code(Standing::Absent))] -= 1;
        }
        let tally = count.tally(Revision(7));
        assert_eq!((tally.total, tally.done, tally.pending, tally.failed), (3, 1, 1, 1));
        let examples: Vec<String> = tally.examples.iter().map(ToString::to_string).collect();
        assert_eq!(examples, ["web@22.service", "web@21.service"], "failed ones first");
    }
}
