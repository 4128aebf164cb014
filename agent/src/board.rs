//! What the machine has, put together from what its units' tasks tell.
//!
//! The owner loop writes on the board, the publisher copies from it into the store. It holds the
//! whole report at any time, so the store may be away for as long as it likes.

use std::collections::{BTreeMap, BTreeSet};

use flotilla_registry::{
    keys::Bucket,
    records::{ReportBucket, UnitReport, VERSION},
    store::Revision,
};
use flotilla_units::UnitName;

/// How many units start together where a second write of all of them costs the store something. Ten, which are
/// in ten of the sixteen buckets as a rule.
const TOGETHER: usize = 10;

/// The machine's report.
#[derive(Debug, Clone, Default)]
pub(crate) struct Board {
    /// By runtime name.
    reports: BTreeMap<UnitName, Reports>,
    /// The runtime names that each bucket says something of.
    names: BTreeMap<Bucket, BTreeSet<UnitName>>,
    /// See [`ReportHead::seen`](flotilla_registry::records::ReportHead::seen).
    pub(crate) seen: Revision,
    /// What the publisher has not copied yet.
    changed: BTreeSet<Bucket>,
    /// It is more than that units are forgotten, or that this is taken up.
    news: bool,
    /// How many units are forgotten among it.
    forgotten: usize,
    /// Something is among it that somebody waits for.
    pub(crate) prompt: bool,
    /// Something among it died, left or cannot be: whoever believes in it is to hear of that.
    bad: bool,
    /// Units that were told to be starting since then, and nothing else yet: they soon will be.
    starting: BTreeSet<UnitName>,
    /// Every unit that was there at the start has been told of: the report is a whole one.
    pub(crate) complete: bool,
}

/// What is said of a runtime name, each with the bucket that it is in.
type Reports = Vec<(Bucket, UnitReport)>;

impl Board {
    /// Replaces what is said of a runtime name; true if that is news.
    pub(crate) fn put(&mut self, unit: UnitName, reports: Vec<UnitReport>) -> bool {
        let before = self.reports.get(&unit).map_or(&[][..], Vec::as_slice);
        if before.iter().map(|(_, report)| report).eq(&reports) {
            return false;
        }
        let old = || before.iter().map(|(_, report)| report);
        let forgets = reports.is_empty() && old().all(|report| report.gone);
        self.forgotten += usize::from(forgets);
        self.news |= !forgets;
        for new in &reports {
            let before = old().find(|o| (&o.unit, o.token) == (&new.unit, new.token));
            self.prompt |= is_prompt(before, new);
            self.bad |= before.is_some_and(|before| is_bad(before, new));
        }
        if reports.iter().any(is_starting) {
            self.starting.insert(unit.clone());
        } else {
            self.starting.remove(&unit);
        }
        let reports: Reports = reports.into_iter().map(|it| (Bucket::of(&it.unit), it)).collect();
        self.changed.extend(before.iter().chain(&reports).map(|(bucket, _)| *bucket));
        for (bucket, _) in before {
            self.names.entry(*bucket).and_modify(|names| _ = names.remove(&unit));
        }
        for (bucket, _) in &reports {
            self.names.entry(*bucket).or_default().insert(unit.clone());
        }
        if reports.is_empty() {
            self.reports.remove(&unit);
        } else {
            self.reports.insert(unit, reports);
        }
        true
    }

    /// Raises `seen`; true if that is news. Nobody waits for it where no order was given since the last time, but
    /// only orders were taken back that had been carried out.
    pub(crate) fn raise_seen(&mut self, seen: Revision, orders: bool) -> bool {
        let is_higher = self.seen < seen;
        self.news |= is_higher && orders;
        self.seen = self.seen.max(seen);
        is_higher
    }

    /// Takes the buckets that changed since the last time.
    pub(crate) fn take_changed(&mut self) -> BTreeSet<Bucket> {
        (self.prompt, self.bad, self.news, self.forgotten) = (false, false, false, 0);
        self.starting.clear();
        std::mem::take(&mut self.changed)
    }

    /// Tells whether what somebody waits for is to be written now. Where other units were told to start
    /// together with it, it goes with them, so that a hundred of them are one write and not two.
    pub(crate) fn is_due(&self) -> bool {
        self.prompt && self.starting.is_empty()
    }

    /// Tells whether so many units start together that it is worth waiting for them, and nothing happened that
    /// must not wait.
    pub(crate) fn gathers(&self) -> bool {
        self.starting.len() >= TOGETHER && !self.bad
    }

    /// Tells whether all that changed is that a few units are forgotten that had gone, as the cluster knows: nobody
    /// waits for that. Of many it does not have to be waited for what else may come.
    pub(crate) fn only_forgets(&self) -> bool {
        !self.news && self.forgotten < TOGETHER
    }

    /// Returns what buckets say now.
    pub(crate) fn buckets(&self, buckets: &BTreeSet<Bucket>) -> BTreeMap<Bucket, ReportBucket> {
        let of = |bucket: &Bucket| {
            let names = self.names.get(bucket).into_iter().flatten();
            let reports = names.filter_map(|name| self.reports.get(name)).flatten();
            let mut units: Vec<UnitReport> =
                reports.filter(|(at, _)| at == bucket).map(|(_, report)| report.clone()).collect();
            units.sort_by(|a, b| (&a.unit, a.token).cmp(&(&b.unit, b.token)));
            ReportBucket { v: VERSION, units }
        };
        buckets.iter().map(|bucket| (*bucket, of(bucket))).collect()
    }
}

/// Tells whether a unit is starting, or is about to: nothing was started under its token yet.
fn is_starting(report: &UnitReport) -> bool {
    let is_new = report.token.is_some() && report.run == 0 && report.active == "inactive";
    let is_new = is_new && report.invocation.is_none() && !report.gone;
    (report.starting || is_new) && report.problem.is_none()
}

/// Tells whether a unit is worse off than it was told to be.
fn is_bad(before: &UnitReport, now: &UnitReport) -> bool {
    let ran = before.active == "active" && now.active != "active";
    let failed = before.active != now.active && now.active == "failed";
    let ended = before.run != now.run && now.active == "inactive" && !now.starting;
    ran || failed
        || ended
        || before.gone != now.gone
        || before.problem != now.problem
        || before.stopped_locally != now.stopped_locally
}

/// Tells whether somebody waits for a report: a unit got where it was going, or cannot get there.
/// What it passes on the way can wait for the next write.
fn is_prompt(before: Option<&UnitReport>, now: &UnitReport) -> bool {
    let Some(before) = before else { return now.active != "inactive" && now.active != "activating" };
    let ended = now.active == "inactive" && now.run > 0 && !now.starting;
    let arrived = matches!(now.active.as_str(), "active" | "failed") || ended;
    let differs = before.active != now.active
        || before.invocation != now.invocation
        || before.run != now.run
        || (ended && before.starting != now.starting);
    (arrived && differs)
        || before.gone != now.gone
        || before.problem != now.problem
        || before.stopped_locally != now.stopped_locally
}

#[cfg(test)]
mod tests {
    use flotilla_registry::records::Token;

    use super::*;

    fn report(active: &str) -> UnitReport {
        serde_json::from_value(serde_json::json!({
            "unit": "web.service", "token": Token(1), "load": "loaded", "active": active, "sub": ""
        }))
        .expect("a report")
    }

    #[test]
    fn what_starts_together_is_due_together() {
        let mut board = Board::default();
        let mut put = |unit: &str, active: &str, starting| {
            board.put(unit.parse().expect("valid"), vec![UnitReport { starting, ..report(active) }]);
            board.is_due()
        };
        assert!(put("a.service", "active", false), "alone");
        assert!(!put("b.service", "inactive", true) && !put("c.service", "inactive", true));
        assert!(!put("b.service", "active", false), "c is starting");
        assert!(put("c.service", "active", false));
        assert!(
            !put("f.service", "inactive", false) && !put("b.service", "failed", false),
            "f has its order"
        );
        assert!(put("f.service", "active", false));
        board.put(
            "d.service".parse().expect("valid"),
            vec![UnitReport { starting: true, ..report("activating") }],
        );
        board.take_changed();
        board.put("e.service".parse().expect("valid"), vec![report("active")]);
        assert!(board.is_due(), "d was told of, and is not waited for again");
    }

    #[test]
    fn many_that_start_are_waited_for_and_what_died_is_not_held_back() {
        let mut board = Board::default();
        let name = |number: usize| -> UnitName { format!("web@{number}.service").parse().expect("valid") };
        let starting = || UnitReport { starting: true, ..report("activating") };
        for number in 0..TOGETHER {
            assert!(!board.gathers(), "{number} are few");
            board.put(name(number), vec![starting()]);
        }
        assert!(board.gathers() && !board.is_due());
        board.put("old.service".parse().expect("valid"), vec![report("active")]);
        assert!(board.gathers(), "good news can wait");
        for worse in [report("failed"), report("activating"), UnitReport { gone: true, ..report("inactive") }]
        {
            let mut board = board.clone();
            board.put("old.service".parse().expect("valid"), vec![worse.clone()]);
            assert!(!board.gathers(), "{worse:?}");
            board.take_changed();
            (0..TOGETHER).for_each(|number| {
                board.put(name(number), vec![UnitReport { sub: "start".into(), ..starting() }]);
            });
            assert!(board.gathers(), "that was told");
        }
        let tried = UnitReport { problem: Some("it cannot be".to_owned()), ..starting() };
        board.put(name(0), vec![tried]);
        assert!(!board.gathers());
    }

    #[test]
    fn only_arrivals_are_prompt() {
        let unit: UnitName = "web.service".parse().expect("valid");
        let mut board = Board::default();
        let mut put = |active| {
            board.put(unit.clone(), vec![report(active)]);
            let prompt = board.prompt;
            assert_eq!(board.take_changed().into_iter().collect::<Vec<_>>(), [Bucket::of(&unit)]);
            prompt
        };
        let prompt: Vec<_> =
            ["inactive", "activating", "active", "deactivating", "failed"].map(&mut put).into();
        assert_eq!(prompt, [false, false, true, false, true]);
        assert!(!board.put(unit.clone(), vec![report("failed")]), "no news");
        let of_unit = |board: &Board| board.buckets(&[Bucket::of(&unit)].into()).remove(&Bucket::of(&unit));
        assert_eq!(of_unit(&board).expect("it was asked for").units.len(), 1);
        board.put(unit.clone(), vec![]);
        assert!(of_unit(&board).expect("it was asked for").units.is_empty());
    }
}
