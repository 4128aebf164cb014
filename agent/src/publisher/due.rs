//! When the board is written next.

use std::time::Duration;

use tokio::time::Instant;

use crate::board::Board;

/// How long changes are gathered after the first. 100 ms: nobody notices it, and 300 units that
/// start together cost ten writes instead of 300.
const COALESCE: Duration = Duration::from_millis(100);

/// How long many units that start together may take before it is told that they are starting. 500 ms: systemd
/// starts a hundred in that time (`cargo xtask bench start` measures it), which are one write then and not two.
const STARTING: Duration = Duration::from_millis(500);

/// How long it may take until the store is told that a unit is forgotten that it knows to have gone. 5 s: on a machine
/// where something happens every few seconds it goes along with what happens next, and costs no write of its own.
const FORGOTTEN: Duration = Duration::from_secs(5);

/// The time of the next write.
#[derive(Debug)]
pub(super) struct Due {
    /// When the last write ended.
    last: Instant,
    /// When the first change came that was not written yet, beside units that are forgotten.
    first: Option<Instant>,
    /// When the first one was forgotten.
    forgotten: Option<Instant>,
    /// No later than this, whatever comes.
    by: Option<Instant>,
    at: Option<Instant>,
}

impl Due {
    pub(super) const fn new(now: Instant) -> Self {
        Self { last: now, first: None, forgotten: None, by: None, at: None }
    }

    /// Takes note that the board has changed.
    pub(super) fn changed(&mut self, board: &Board, now: Instant) {
        let at = if board.only_forgets() {
            *self.forgotten.get_or_insert(now) + FORGOTTEN
        } else {
            let first = *self.first.get_or_insert(now);
            if board.is_due() {
                self.no_later(now.max(self.last + COALESCE));
            }
            first + if board.gathers() { STARTING } else { COALESCE }
        };
        self.at = Some(self.by.map_or(at, |by| by.min(at)));
    }

    /// Takes note that all was written.
    pub(super) const fn written(&mut self, now: Instant) {
        *self = Self::new(now);
    }

    /// Takes note that a write failed, and is to be tried again after this time.
    pub(super) fn failed(&mut self, now: Instant, wait: Duration) {
        self.written(now);
        self.no_later(now + wait);
        self.at = self.by;
    }

    /// Returns when to write, if there is anything to write.
    pub(super) const fn at(&self) -> Option<Instant> {
        self.at
    }

    fn no_later(&mut self, time: Instant) {
        self.by = Some(self.by.map_or(time, |by| by.min(time)));
    }
}

#[cfg(test)]
mod tests {
    use flotilla_registry::{
        records::{Token, UnitReport},
        store::Revision,
    };

    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn put(board: &mut Board, unit: &str, active: &str) {
        let report = UnitReport {
            starting: active == "activating",
            ..serde_json::from_value(serde_json::json!({
                "unit": unit, "token": Token(1), "load": "loaded", "active": active, "sub": ""
            }))
            .expect("a report")
        };
        board.put(unit.parse().expect("valid"), vec![report]);
    }

    #[test]
    fn what_is_waited_for_is_written_at_once_and_what_starts_together_together() {
        let start = Instant::now();
        let mut board = Board::default();
        let mut due = Due::new(start);
        assert_eq!(due.at(), None);
        put(&mut board, "one.service", "active");
        due.changed(&board, start + ms(150));
        assert_eq!(due.at(), Some(start + ms(150)));
        board.take_changed();
        due.written(start + ms(160));
        put(&mut board, "two.service", "active");
        due.changed(&board, start + ms(170));
        assert_eq!(due.at(), Some(start + ms(260)), "no two writes within a tenth of a second");
        board.take_changed();
        due.written(start + ms(1_000));
        // One after the other, so the first are few and would be written after a tenth of a second.
        for number in 0..100 {
            put(&mut board, &format!("web@{number}.service"), "activating");
            due.changed(&board, start + ms(2_000 + number / 2));
        }
        assert_eq!(due.at(), Some(start + ms(2_500)));
        put(&mut board, "web@7.service", "active");
        due.changed(&board, start + ms(2_100));
        assert_eq!(due.at(), Some(start + ms(2_500)), "its kind is starting");
        let mut failing = board.clone();
        put(&mut failing, "two.service", "failed");
        due.changed(&failing, start + ms(2_150));
        assert!(due.at() < Some(start + ms(2_250)), "that is told");
        for number in 0..100 {
            put(&mut board, &format!("web@{number}.service"), "active");
        }
        due.changed(&board, start + ms(2_200));
        assert!(due.at() <= Some(start + ms(2_200)), "all have started");
    }

    #[test]
    fn a_unit_that_is_forgotten_goes_with_what_comes_next() {
        let start = Instant::now();
        let mut board = Board::default();
        put(&mut board, "one.service", "active");
        let gone = |board: &mut Board, unit: &str| {
            let unit: flotilla_units::UnitName = unit.parse().expect("valid");
            let report = UnitReport {
                gone: true,
                ..serde_json::from_value(serde_json::json!({
                    "unit": unit, "token": Token(1), "load": "not-found", "active": "inactive", "sub": "dead"
                }))
                .expect("a report")
            };
            board.put(unit, vec![report]);
        };
        for number in 0..20 {
            gone(&mut board, &format!("old@{number}.service"));
        }
        board.raise_seen(Revision(7), true);
        board.take_changed();
        let mut due = Due::new(start);
        board.put("old@0.service".parse().expect("valid"), vec![]);
        due.changed(&board, start + ms(200));
        board.raise_seen(Revision(8), false);
        due.changed(&board, start + ms(210));
        assert_eq!(due.at(), Some(start + ms(5_200)), "nobody waits for that");
        let mut ordered = (board.clone(), Due::new(start));
        ordered.0.raise_seen(Revision(9), true);
        ordered.1.changed(&ordered.0, start + ms(1_000));
        assert_eq!(ordered.1.at(), Some(start + ms(1_100)), "an order was taken up");
        for number in 1..20 {
            board.put(format!("old@{number}.service").parse().expect("valid"), vec![]);
        }
        due.changed(&board, start + ms(1_000));
        assert_eq!(due.at(), Some(start + ms(1_100)), "many are not kept back");
        let mut board = Board::default();
        put(&mut board, "one.service", "active");
        board.take_changed();
        board.put("one.service".parse().expect("valid"), vec![]);
        let mut due = Due::new(start);
        due.changed(&board, start);
        assert_eq!(due.at(), Some(start + ms(100)), "it was not told to have gone");
    }

    #[test]
    fn a_write_that_failed_is_tried_again() {
        let start = Instant::now();
        let mut due = Due::new(start);
        due.failed(start + ms(500), ms(2_000));
        assert_eq!(due.at(), Some(start + ms(2_500)));
        let mut board = Board::default();
        put(&mut board, "one.service", "activating");
        due.changed(&board, start + ms(600));
        assert_eq!(due.at(), Some(start + ms(700)), "something new may be tried before");
    }
}
