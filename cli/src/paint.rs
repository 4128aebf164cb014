//! Colours, only where they say something: bad, good, pending, and whose line it is.
//!
//! Everything goes through `anstream`, which takes colours away when the output is
//! not a terminal or `NO_COLOR` is set.

use std::fmt;

use anstyle::{AnsiColor, Color, Effects, Style};

/// Text in a style.
pub(crate) struct Painted<T>(Style, T);

impl<T: fmt::Display> fmt::Display for Painted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", self.0.render(), self.1, self.0.render_reset())
    }
}

const fn colour(colour: AnsiColor) -> Style {
    Style::new().fg_color(Some(Color::Ansi(colour)))
}

/// What failed.
pub(crate) const fn bad<T>(text: T) -> Painted<T> {
    Painted(colour(AnsiColor::Red).effects(Effects::BOLD), text)
}

/// What is as it should be.
pub(crate) const fn good<T>(text: T) -> Painted<T> {
    Painted(colour(AnsiColor::Green).effects(Effects::BOLD), text)
}

/// What is under way, or deserves a look.
pub(crate) const fn pending<T>(text: T) -> Painted<T> {
    Painted(colour(AnsiColor::Yellow), text)
}

/// What matters less.
pub(crate) const fn dim<T>(text: T) -> Painted<T> {
    Painted(Style::new().effects(Effects::DIMMED), text)
}

/// A source of lines in a colour of its own, the same each time for the same name.
pub(crate) fn source<T: fmt::Display>(name: T) -> Painted<T> {
    const COLOURS: [AnsiColor; 6] = [
        AnsiColor::Cyan,
        AnsiColor::Green,
        AnsiColor::Magenta,
        AnsiColor::Yellow,
        AnsiColor::Blue,
        AnsiColor::BrightCyan,
    ];
    let sum = name.to_string().bytes().fold(0_usize, |sum, byte| sum.wrapping_mul(31) + usize::from(byte));
    Painted(colour(COLOURS[sum % COLOURS.len()]), name)
}

/// An `ActiveState` in the colour that systemctl gives it.
pub(crate) fn active<T: fmt::Display>(state: &str, text: T) -> Painted<T> {
    match state {
        "active" | "reloading" => good(text),
        "failed" => bad(text),
        "activating" | "deactivating" => pending(text),
        _ => Painted(Style::new(), text),
    }
}
