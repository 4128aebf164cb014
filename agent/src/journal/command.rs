//! The command line that a query becomes.

use flotilla_units::UnitName;
use jiff::Timestamp;

use super::{Cursor, Query, decode::FIELDS};

/// Where the next journalctl begins to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum From {
    /// Behind this line, which has been handed on.
    After(Cursor),
    /// At this time, or at the journal's beginning.
    Since(Option<Timestamp>),
    /// So many lines before the end.
    Last(u32),
}

/// Returns where a query begins; `now` is when it was made.
pub(super) fn beginning(query: &Query, now: Timestamp) -> From {
    if let Some(after) = &query.after {
        return From::After(after.clone());
    }
    let has_all = query.globs.is_empty() && query.units.iter().all(|unit| query.cursors.contains_key(unit));
    if has_all {
        let mut cursors = query.units.iter().filter_map(|unit| query.cursors.get(unit));
        if let Some(first) = cursors.next() {
            let earliest = cursors.fold(first, |earliest, c| if earliest.is_after(c) { c } else { earliest });
            return From::After(earliest.clone());
        }
    }
    // Some unit has no line yet, so reading begins where its lines may; what the others have
    // already is left out by their cursors.
    match query.lines {
        // The end is where it is now, not where it is when journalctl gets there.
        Some(0) => From::Since(Some(query.since.map_or(now, |since| since.max(now)))),
        Some(lines) if query.cursors.is_empty() && query.since.is_none() => From::Last(lines),
        _ => From::Since(query.since),
    }
}

impl From {
    /// Tells whether journalctl gives the lines newest first: it searches for a pattern backwards
    /// where it has to stop after so many.
    pub(super) const fn is_backwards(&self, query: &Query) -> bool {
        matches!(self, Self::Last(_)) && query.grep.is_some() && !query.follow
    }
}

/// Returns the arguments that make journalctl show the last line of all.
pub(super) fn end() -> [&'static str; 5] {
    ["--quiet", "--no-pager", "--output=json", "--output-fields=_MACHINE_ID", "--lines=1"]
}

/// Returns journalctl's arguments; `user` is whose own units are meant, if not the machine's.
///
/// Not `--user`: journald keeps a journal for each user only on disk, and otherwise a user's lines
/// are among the machine's, where they are found by their user if that may be read.
pub(super) fn arguments(query: &Query, from: &From, user: Option<u32>) -> Vec<String> {
    let mut args: Vec<String> =
        ["--quiet", "--no-pager", "--all", "--output=json"].map(str::to_owned).to_vec();
    args.push(format!("--output-fields={FIELDS}"));
    match from {
        From::After(cursor) => args.push(format!("--after-cursor={}", cursor.0)),
        From::Since(Some(since)) => {
            let us = since.as_microsecond().max(0);
            args.push(format!("--since=@{}.{:06}", us / 1_000_000, us % 1_000_000));
        }
        From::Since(None) => {}
        From::Last(lines) => args.push(format!("--lines={lines}")),
    }
    if query.follow {
        args.push("--follow".to_owned());
        // Following means the present boot only, unless journals are merged. That is wrong twice:
        // what was written between a cursor and a reboot is to be read, too; and where a container's
        // boot id is mounted over the host's, a hardened service sees the host's, which no line has.
        // Merging also brings other machines' journals, which are left out by their machine id.
        args.push("--merge".to_owned());
        if !matches!(from, From::Last(_)) {
            args.push("--no-tail".to_owned());
        }
    }
    if let Some(priority) = query.priority {
        args.push(format!("--priority={priority}"));
    }
    if let Some(grep) = &query.grep {
        args.push(format!("--grep={grep}"));
    }
    if query.globs.is_empty() {
        args.extend(matches(query, user));
    } else if let Some(invocation) = &query.invocation {
        // A pattern also means units that come later, and journalctl expands its own only once:
        // then all lines are read, and those of other units left out here.
        args.extend([format!("_SYSTEMD_INVOCATION_ID={invocation}"), "+".to_owned()]);
        args.push(format!("{}={invocation}", about_invocation(user)));
    } else if let Some(uid) = user {
        args.push(format!("_UID={uid}"));
    }
    args
}

/// The matches of each unit, with `+` ("or") between them.
fn matches(query: &Query, user: Option<u32>) -> Vec<String> {
    let mut args = Vec::new();
    let mut either = |all: &[String]| {
        if !args.is_empty() {
            args.push("+".to_owned());
        }
        args.extend_from_slice(all);
    };
    for unit in &query.units {
        let (own, about) = fields(unit, user);
        // Anybody can write a field; only PID 1, or the user's own systemd, writes about units in earnest.
        let by = user.map_or_else(|| "_PID=1".to_owned(), |uid| format!("_UID={uid}"));
        match &query.invocation {
            Some(invocation) => {
                either(&[own, format!("_SYSTEMD_INVOCATION_ID={invocation}")]);
                either(&[about, by, format!("{}={invocation}", about_invocation(user))]);
            }
            None => {
                if user.is_some() {
                    either(&[own, by.clone()]);
                } else {
                    either(&[own]);
                }
                either(&[about, by]);
            }
        }
    }
    args
}

const fn about_invocation(user: Option<u32>) -> &'static str {
    if user.is_some() { "USER_INVOCATION_ID" } else { "INVOCATION_ID" }
}

fn fields(unit: &UnitName, user: Option<u32>) -> (String, String) {
    if user.is_some() {
        (format!("_SYSTEMD_USER_UNIT={unit}"), format!("USER_UNIT={unit}"))
    } else {
        (format!("_SYSTEMD_UNIT={unit}"), format!("UNIT={unit}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> UnitName {
        text.parse().unwrap()
    }

    fn cursor(i: u64) -> Cursor {
        Cursor(format!("s=a;i={i:x};b=b;m=1;t=1;x=1"))
    }

    fn at(us: i64) -> Timestamp {
        Timestamp::from_microsecond(us).unwrap()
    }

    #[test]
    fn a_query_begins_where_nothing_is_lost() {
        let units = vec![name("a.service"), name("b.service")];
        let all = Query { units: units.clone(), ..Query::default() };
        assert_eq!(beginning(&all, at(9)), From::Since(None));
        let last = Query { lines: Some(5), ..all.clone() };
        assert_eq!(beginning(&last, at(9)), From::Last(5));
        let none = Query { lines: Some(0), ..all.clone() };
        assert_eq!(beginning(&none, at(9)), From::Since(Some(at(9))));
        let one = Query { cursors: [(units[0].clone(), cursor(7))].into(), since: Some(at(3)), ..last };
        assert_eq!(beginning(&one, at(9)), From::Since(Some(at(3))));
        let both = [(units[0].clone(), cursor(0x17)), (units[1].clone(), cursor(9))];
        let both = Query { cursors: both.into(), ..all };
        assert_eq!(beginning(&both, at(9)), From::After(cursor(9)));
        let glob = Query { globs: vec!["w@*".parse().unwrap()], ..both };
        assert_eq!(beginning(&glob, at(9)), From::Since(None));
        let after = Query { after: Some(cursor(3)), lines: Some(5), ..glob };
        assert_eq!(beginning(&after, at(9)), From::After(cursor(3)));
    }

    #[test]
    fn command_lines() {
        let query = Query {
            units: vec![name("a.service"), name("b\\x2dc.service")],
            follow: true,
            priority: Some(4),
            grep: Some("--x y".to_owned()),
            ..Query::default()
        };
        let args = arguments(&query, &From::Since(Some(at(1_500_000))), None);
        assert!(args.contains(&"--since=@1.500000".to_owned()) && args.contains(&"--no-tail".to_owned()));
        assert!(args.contains(&"--grep=--x y".to_owned()) && args.contains(&"--priority=4".to_owned()));
        let matches = args.join(" ");
        assert!(
            matches.ends_with(
                "_SYSTEMD_UNIT=a.service + UNIT=a.service _PID=1 + _SYSTEMD_UNIT=b\\x2dc.service + \
                 UNIT=b\\x2dc.service _PID=1"
            ),
            "{matches}"
        );
        let last =
            arguments(&Query { invocation: Some("ab".to_owned()), ..query }, &From::Last(3), Some(1000))
                .join(" ");
        assert!(
            last.contains("--lines=3") && !last.contains("--no-tail") && !last.contains("--user "),
            "{last}"
        );
        assert!(last.contains(
            "_SYSTEMD_USER_UNIT=a.service _SYSTEMD_INVOCATION_ID=ab + USER_UNIT=a.service _UID=1000"
        ));
    }
}
