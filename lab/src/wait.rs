//! Waiting for something outside this process to become true.

use std::{
    fmt::Display,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// Time between two looks; a look costs a few milliseconds.
const PAUSE: Duration = Duration::from_millis(10);

/// Calls `look` until it gives a value, for at most `limit`.
///
/// # Errors
///
/// What was waited for, how long, and the last error that `look` gave.
pub fn eventually<T>(
    limit: Duration,
    what: impl Display,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        let last = match look() {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        if start.elapsed() >= limit {
            match last {
                Some(error) => return Err(error.context(format!("{what}: not within {limit:?}"))),
                None => bail!("{what}: not within {limit:?}"),
            }
        }
        pause();
    }
}

/// The last lines of a log, for an error that has to be read.
pub(crate) fn tail(log: &str) -> &str {
    /// What fits on a screen with the error around it.
    const LINES: usize = 20;
    let start = log.trim_end().rmatch_indices('\n').nth(LINES - 1).map_or(0, |(at, _)| at + 1);
    &log[start..]
}

/// Lets `PAUSE` pass; the lab is synchronous, no runtime is held up by it.
#[allow(clippy::disallowed_methods)]
pub(crate) fn pause() {
    std::thread::sleep(PAUSE);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_the_value_once_it_is_there() {
        let mut looks = 0;
        let found = eventually(Duration::from_secs(5), "a third look", || {
            looks += 1;
            Ok((looks == 3).then_some(looks))
        });
        assert_eq!(found.unwrap(), 3);
    }

    #[test]
    fn a_tail_is_the_last_lines() {
        let log: String = (1..=30).map(|line| format!("{line}\n")).collect();
        assert!(tail(&log).starts_with("11\n") && tail(&log).ends_with("30\n"));
        assert_eq!(tail("one\ntwo\n"), "one\ntwo\n");
    }

    #[test]
    fn says_what_it_waited_for_and_the_last_error() {
        let error = eventually::<()>(Duration::ZERO, "the moon", || bail!("cloudy")).unwrap_err();
        assert_eq!(format!("{error:#}"), "the moon: not within 0ns: cloudy");
    }
}
