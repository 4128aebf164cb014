//! Times and priorities as journalctl(1) takes them.

use jiff::{SignedDuration, Timestamp, Zoned, civil};

/// syslog's priorities, by number (syslog(3)).
const PRIORITIES: [&str; 8] = ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];

/// Reads a time: RFC 3339, a local date and time, a time of today, `today`, `yesterday`, or how
/// long ago (`-5min`, `5min ago`).
pub(crate) fn since(text: &str) -> Result<Timestamp, String> {
    read(text, &Zoned::now())
}

fn read(text: &str, now: &Zoned) -> Result<Timestamp, String> {
    let refuse = || {
        format!(
            "`{text}` is not a time; write 2026-11-22T14:00:00Z, `2026-11-22 14:00`, 14:00, today or -5min"
        )
    };
    let text = text.trim();
    let day =
        |days: i64| now.start_of_day().map(|day| day.timestamp() - SignedDuration::from_hours(24 * days));
    match text {
        "now" => return Ok(now.timestamp()),
        "today" => return day(0).map_err(|_| refuse()),
        "yesterday" => return day(1).map_err(|_| refuse()),
        _ => {}
    }
    let ago = text.strip_prefix('-').or_else(|| text.strip_suffix("ago").map(str::trim_end));
    if let Some(ago) = ago {
        let span = crate::args::span(ago).map_err(|_| refuse())?;
        let span = SignedDuration::try_from(span).map_err(|_| refuse())?;
        return now.timestamp().checked_sub(span).map_err(|_| refuse());
    }
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at);
    }
    let local = text
        .parse::<civil::DateTime>()
        .or_else(|_| text.parse::<civil::Date>().map(|date| date.at(0, 0, 0, 0)))
        .or_else(|_| text.parse::<civil::Time>().map(|time| now.date().to_datetime(time)))
        .map_err(|_| refuse())?;
    local.to_zoned(now.time_zone().clone()).map(|at| at.timestamp()).map_err(|_| refuse())
}

/// Reads a priority, by number or name.
pub(crate) fn priority(text: &str) -> Result<u8, String> {
    let named = PRIORITIES.iter().position(|name| *name == text);
    let number = named.or_else(|| text.parse().ok().filter(|number| *number < PRIORITIES.len()));
    number.and_then(|number| u8::try_from(number).ok()).ok_or_else(|| {
        format!("`{text}` is not a priority; write 0 to 7 or one of {}", PRIORITIES.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        let now: Zoned = "2026-11-22T14:30:00+01:00[Europe/Berlin]".parse().expect("valid");
        let utc = |text: &str| read(text, &now).map(|at| at.to_string());
        for (text, at) in [
            ("now", "2026-11-22T13:30:00Z"),
            ("today", "2026-11-21T23:00:00Z"),
            ("yesterday", "2026-11-20T23:00:00Z"),
            ("-5min", "2026-11-22T13:25:00Z"),
            ("90s ago", "2026-11-22T13:28:30Z"),
            ("1 hour ago", "2026-11-22T12:30:00Z"),
            ("14:00", "2026-11-22T13:00:00Z"),
            ("2026-11-22 09:15", "2026-11-22T08:15:00Z"),
            ("2026-11-01", "2026-10-31T23:00:00Z"),
            ("2026-11-22T00:00:00Z", "2026-11-22T00:00:00Z"),
        ] {
            assert_eq!(utc(text).as_deref(), Ok(at), "{text}");
        }
        assert!(utc("soon").is_err() && utc("").is_err());
    }

    #[test]
    fn priorities_are_numbers_or_names() {
        assert_eq!((priority("3"), priority("err"), priority("debug")), (Ok(3), Ok(3), Ok(7)));
        assert!(priority("8").is_err() && priority("loud").is_err());
    }
}
