//! This program's own terminal while a session has it.

use std::{
    io::{self, IsTerminal as _},
    time::{Duration, Instant},
};

use flotilla_api::session::{Size, Terminal};
use ratatui::crossterm::terminal;

/// The size to claim where the terminal has none to tell, the one that terminals began with.
const USUAL: Size = Size { rows: 24, cols: 80 };

/// Typed three times within [`ESCAPE_WITHIN`] it leaves the session, as in `machinectl shell`: Ctrl-].
const ESCAPE: u8 = 0x1d;

/// How often it has to be typed.
const ESCAPES: usize = 3;

/// Within how long.
const ESCAPE_WITHIN: Duration = Duration::from_secs(1);

/// Returns the terminal that a session gets: one if it was asked for, none if it was refused, else one where
/// this program's input and output are one.
pub(crate) fn wanted(asked: bool, refused: bool) -> Option<Terminal> {
    let is_one = || io::stdin().is_terminal() && io::stdout().is_terminal();
    (asked || (!refused && is_one())).then(|| {
        let term = std::env::var("TERM").ok().filter(|term| !term.is_empty());
        Terminal { term: term.unwrap_or_else(|| "dumb".to_owned()), size: size() }
    })
}

/// Returns this terminal's size.
pub(super) fn size() -> Size {
    match terminal::size() {
        Ok((cols, rows)) if cols > 0 && rows > 0 => Size { rows, cols },
        _ => USUAL,
    }
}

/// The terminal passes on all that is typed, for as long as this lives.
pub(super) struct RawMode(bool);

impl RawMode {
    /// Enters it, where standard input is a terminal and a session's.
    pub(super) fn enter(wanted: bool) -> Self {
        Self(wanted && io::stdin().is_terminal() && terminal::enable_raw_mode().is_ok())
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        if self.0 {
            // A terminal that has gone needs no mending.
            let _gone = terminal::disable_raw_mode();
        }
    }
}

/// Counts how often the way out was typed.
#[derive(Debug, Default)]
pub(super) struct Escape {
    typed: Vec<Instant>,
}

impl Escape {
    /// Tells whether what was typed now makes the way out complete.
    pub(super) fn is_complete(&mut self, bytes: &[u8], now: Instant) -> bool {
        for &byte in bytes {
            if byte != ESCAPE {
                self.typed.clear();
                continue;
            }
            self.typed.retain(|at| now.duration_since(*at) < ESCAPE_WITHIN);
            self.typed.push(now);
            if self.typed.len() >= ESCAPES {
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_out_is_three_in_a_row_within_a_second() {
        let begin = Instant::now();
        let at = |ms: u64| begin + Duration::from_millis(ms);
        let mut escape = Escape::default();
        assert!(!escape.is_complete(b"\x1d", at(0)) && !escape.is_complete(b"\x1d", at(300)));
        assert!(escape.is_complete(b"\x1d", at(900)));
        let mut slow = Escape::default();
        assert!((0..9).all(|n| !slow.is_complete(b"\x1d", at(n * 600))));
        let mut between = Escape::default();
        assert!(!between.is_complete(b"\x1d\x1dx\x1d\x1d", at(0)));
        assert!(between.is_complete(b"\x1d", at(1)));
        assert!(Escape::default().is_complete(b"x\x1d\x1d\x1d", at(0)));
    }

    #[test]
    fn a_terminal_is_given_when_asked_for_and_not_when_refused() {
        assert!(wanted(true, false).is_some_and(|terminal| !terminal.term.is_empty()));
        assert_eq!(wanted(false, true), None);
    }
}
