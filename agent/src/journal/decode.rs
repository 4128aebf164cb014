//! One line of `journalctl -o json`.
//!
//! Every value is a string, except one that is too long (`null`), one with bytes that are not
//! printable (an array of numbers; a colour is enough), and one of a field that the entry has more
//! than once (an array of any of these).

use std::collections::HashMap;

use flotilla_units::UnitName;
use serde::Deserialize;

use super::{Cursor, LogEntry, LogMessage};

/// The fields that are asked for; cursor and times come by themselves.
pub(super) const FIELDS: &str = "MESSAGE,PRIORITY,_PID,SYSLOG_IDENTIFIER,_SYSTEMD_UNIT,_SYSTEMD_USER_UNIT,UNIT,USER_UNIT,\
OBJECT_SYSTEMD_UNIT,COREDUMP_UNIT,_SYSTEMD_INVOCATION_ID,INVOCATION_ID,USER_INVOCATION_ID,_MACHINE_ID,_UID";

/// What the units of systemd's crash handler begin with.
const CRASH_HANDLER: &str = "systemd-coredump@";

const INVOCATIONS: [&str; 3] = ["INVOCATION_ID", "USER_INVOCATION_ID", "_SYSTEMD_INVOCATION_ID"];

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Field {
    Null(()),
    Text(String),
    Bytes(Vec<u8>),
    Many(Vec<Self>),
}

type Fields = HashMap<String, Field>;

/// Whose lines are wanted.
#[derive(Debug, Default)]
pub(super) struct Origin {
    /// The id that this machine's lines carry, where it can be read.
    pub(super) machine: Option<String>,
    /// The user whose own systemd has the units; `None` for the machine's.
    pub(super) user: Option<u32>,
}

/// Returns the units that a line is of, most telling first: what PID 1 or a crash handler writes
/// about a unit is the unit's, although another unit wrote it.
///
/// Any process writes what fields it likes, so one is believed only of who may say so: journald
/// itself vouches for those that begin with `_`.
fn owners(fields: &Fields, origin: &Origin) -> Vec<UnitName> {
    let is = |name, value: &str| text(fields, name) == Some(value);
    let mut owners = Vec::new();
    if let Some(uid) = origin.user {
        if is("_UID", &uid.to_string()) {
            owners.extend(["USER_UNIT", "_SYSTEMD_USER_UNIT"]);
        }
    } else {
        if is("_PID", "1") {
            owners.push("UNIT");
        }
        if is("_UID", "0") {
            owners.push("OBJECT_SYSTEMD_UNIT");
        }
        if text(fields, "_SYSTEMD_UNIT").is_some_and(|unit| unit.starts_with(CRASH_HANDLER)) {
            owners.push("COREDUMP_UNIT");
        }
        owners.push("_SYSTEMD_UNIT");
    }
    owners.iter().flat_map(|owner| texts(fields, owner)).filter_map(|name| name.parse().ok()).collect()
}

/// Decodes only where a line is.
pub(super) fn cursor(line: &str) -> Result<Cursor, String> {
    let fields: Fields = serde_json::from_str(line).map_err(|e| e.to_string())?;
    Ok(Cursor(text(&fields, "__CURSOR").ok_or("it has no __CURSOR")?.to_owned()))
}

/// Decodes a line; the entry's unit is the first of its owners that `wanted` says yes to. `None`
/// when there is none, or when the line is not of the machine.
pub(super) fn decode(
    line: &str,
    origin: &Origin,
    wanted: impl Fn(&UnitName) -> bool,
) -> Result<(Cursor, Option<LogEntry>), String> {
    let fields: Fields = serde_json::from_str(line).map_err(|e| e.to_string())?;
    let cursor = Cursor(text(&fields, "__CURSOR").ok_or("it has no __CURSOR")?.to_owned());
    // Journals of containers and of remote machines lie beside the machine's own.
    let elsewhere = |own: &str| text(&fields, "_MACHINE_ID").is_some_and(|id| id != own);
    if origin.machine.as_deref().is_some_and(elsewhere) {
        return Ok((cursor, None));
    }
    let owner = owners(&fields, origin).into_iter().find(|name| wanted(name));
    let Some(unit) = owner else { return Ok((cursor, None)) };
    let entry = LogEntry {
        unit,
        realtime_us: number(&fields, "__REALTIME_TIMESTAMP").ok_or("it has no __REALTIME_TIMESTAMP")?,
        monotonic_us: number(&fields, "__MONOTONIC_TIMESTAMP").unwrap_or(0),
        priority: number(&fields, "PRIORITY"),
        pid: number(&fields, "_PID"),
        identifier: text(&fields, "SYSLOG_IDENTIFIER").map(str::to_owned),
        message: fields.get("MESSAGE").map_or_else(|| LogMessage::Text(String::new()), message),
        invocation: INVOCATIONS.iter().find_map(|name| text(&fields, name)).map(str::to_owned),
        cursor: cursor.clone(),
    };
    Ok((cursor, Some(entry)))
}

fn message(field: &Field) -> LogMessage {
    match field {
        Field::Null(()) => LogMessage::Text("(left out by journalctl: too long)".to_owned()),
        Field::Text(text) => LogMessage::Text(text.clone()),
        // Escape sequences make text come as bytes too.
        Field::Bytes(bytes) => match String::from_utf8(bytes.clone()) {
            Ok(text) => LogMessage::Text(text),
            Err(e) => LogMessage::Bytes(e.into_bytes()),
        },
        Field::Many(many) => {
            let lines: Vec<_> = many.iter().map(|one| message(one).to_text().into_owned()).collect();
            LogMessage::Text(lines.join("\n"))
        }
    }
}

fn texts<'a>(fields: &'a Fields, name: &str) -> Vec<&'a str> {
    match fields.get(name) {
        Some(Field::Text(text)) => vec![text.as_str()],
        Some(Field::Many(many)) => many
            .iter()
            .filter_map(|f| if let Field::Text(text) = f { Some(text.as_str()) } else { None })
            .collect(),
        _ => Vec::new(),
    }
}

fn text<'a>(fields: &'a Fields, name: &str) -> Option<&'a str> {
    texts(fields, name).into_iter().next()
}

fn number<T: std::str::FromStr>(fields: &Fields, name: &str) -> Option<T> {
    text(fields, name)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(rest: &str) -> String {
        format!(
            r#"{{"__CURSOR":"s=1;i=2","__REALTIME_TIMESTAMP":"1795378005516522","__MONOTONIC_TIMESTAMP":"7",
                "_SYSTEMD_UNIT":"a.service",{rest}}}"#
        )
    }

    fn entry(rest: &str) -> LogEntry {
        decode(&line(rest), &Origin::default(), |_| true).unwrap().1.unwrap()
    }

    #[test]
    fn an_ordinary_line() {
        let e = entry(
            r#""MESSAGE":"hello","PRIORITY":"6","_PID":"42","SYSLOG_IDENTIFIER":"sh","_SYSTEMD_INVOCATION_ID":"ab""#,
        );
        assert_eq!((e.unit.as_str(), e.realtime_us, e.monotonic_us), ("a.service", 1_795_378_005_516_522, 7));
        assert_eq!((e.priority, e.pid), (Some(6), Some(42)));
        assert_eq!((e.identifier.as_deref(), e.invocation.as_deref()), (Some("sh"), Some("ab")));
        assert_eq!(e.message, LogMessage::Text("hello".to_owned()));
    }

    #[test]
    fn messages_come_in_many_shapes() {
        let message = |json: &str| entry(&format!("\"MESSAGE\":{json}")).message;
        assert_eq!(message("[27,91,49,109,104,105]"), LogMessage::Text("\u{1b}[1mhi".to_owned()));
        assert_eq!(message("[255,254]"), LogMessage::Bytes(vec![255, 254]));
        assert_eq!(message("[]"), LogMessage::Text(String::new()));
        assert!(matches!(message("null"), LogMessage::Text(t) if t.contains("too long")));
        assert_eq!(message(r#"["one",[116,119,111],null]"#).to_text().lines().count(), 3);
        assert_eq!(message(r#"["one","two"]"#), LogMessage::Text("one\ntwo".to_owned()));
        assert_eq!(entry("\"PRIORITY\":\"x\"").message, LogMessage::Text(String::new()));
        assert_eq!(entry("\"PRIORITY\":\"999\"").priority, None);
        assert_eq!(entry(r#""SYSLOG_IDENTIFIER":["x","y"]"#).identifier.as_deref(), Some("x"));
    }

    #[test]
    fn a_line_of_another_machine_is_passed_over() {
        let on = |id: &str| Origin { machine: Some(id.to_owned()), user: None };
        let text = line(r#""_MACHINE_ID":"aa""#);
        assert!(decode(&text, &on("aa"), |_| true).unwrap().1.is_some());
        assert!(decode(&text, &Origin::default(), |_| true).unwrap().1.is_some());
        assert_eq!(decode(&text, &on("bb"), |_| true).unwrap().1, None);
    }

    #[test]
    fn what_pid_1_writes_about_a_unit_is_the_units() {
        let text =
            line(r#""_PID":"1","UNIT":"b.service","INVOCATION_ID":"cd","MESSAGE":"Started b.service.""#);
        let about_b =
            decode(&text, &Origin::default(), |unit| unit.as_str() == "b.service").unwrap().1.unwrap();
        assert_eq!((about_b.unit.as_str(), about_b.invocation.as_deref()), ("b.service", Some("cd")));
        let of_a = decode(&text, &Origin::default(), |unit| unit.as_str() == "a.service").unwrap().1.unwrap();
        assert_eq!(of_a.unit.as_str(), "a.service");
        assert_eq!(
            decode(&text, &Origin::default(), |_| false).unwrap(),
            (Cursor("s=1;i=2".to_owned()), None)
        );
    }

    #[test]
    fn a_field_is_believed_only_of_who_may_write_it() {
        let of = |rest: &str, user| {
            let origin = Origin { machine: None, user };
            decode(&line(rest), &origin, |unit| unit.as_str() == "web@1.service").unwrap().1.is_some()
        };
        // Whoever runs `logger --journald` writes these.
        for field in ["UNIT", "USER_UNIT", "OBJECT_SYSTEMD_UNIT", "COREDUMP_UNIT"] {
            assert!(!of(&format!(r#""{field}":"web@1.service","_PID":"42","_UID":"1000""#), None), "{field}");
        }
        // journald wrote this one, but of a unit of the user's own.
        assert!(!of(r#""_SYSTEMD_USER_UNIT":"web@1.service","_UID":"1000""#, None));
        assert!(of(r#""UNIT":"web@1.service","_PID":"1""#, None));
        assert!(of(r#""OBJECT_SYSTEMD_UNIT":"web@1.service","_UID":"0""#, None));
        assert!(of(r#""_SYSTEMD_USER_UNIT":"web@1.service","_UID":"1000""#, Some(1000)));
        assert!(of(r#""USER_UNIT":"web@1.service","_UID":"1000""#, Some(1000)));
        assert!(!of(r#""_SYSTEMD_USER_UNIT":"web@1.service","_UID":"1001""#, Some(1000)));
        assert!(!of(r#""UNIT":"web@1.service","_PID":"1","_UID":"0""#, Some(1000)));
    }

    #[test]
    fn rubbish_is_an_error() {
        for line in ["", "{", "[]", "{}", "-- No entries --", r#"{"__CURSOR":[1,2]}"#, r#"{"__CURSOR":{}}"#] {
            assert!(decode(line, &Origin::default(), |_| true).is_err(), "{line}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(line in "\\PC*") {
            let _ = decode(&line, &Origin::default(), |_| true);
        }

        #[test]
        fn any_message_comes_back(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let json = serde_json::to_string(&bytes).unwrap();
            let e = entry(&format!("\"MESSAGE\":{json}"));
            match e.message {
                LogMessage::Text(text) => prop_assert_eq!(text.into_bytes(), bytes),
                LogMessage::Bytes(same) => prop_assert_eq!(same, bytes),
            }
        }
    }
}
