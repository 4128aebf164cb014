//! What reaches whoever reads: every byte of a unit file, nothing that commands a terminal, and no
//! complaint when nobody reads.

use std::process::Stdio;

use serde_json::{Value, json};

use crate::api::{Answer, Api, Request, command, everything, flotctl, outcome, page, placed, version};

/// What a hostile unit might say.
const HOSTILE: &str = "one\u{1b}]0;owned\u{7}\ntwo\u{1b}[2J\u{9b}2J";

/// The same, as people may see it.
const TAMED: [&str; 2] = ["one\\x1b]0;owned\\x07", "two\\x1b[2J\\x9b2J"];

/// A unit file with all that a program in between might want to change.
const TEXT: &str =
    "[Service]\r\nExecStart=/bin/printf '\u{1b}[31mred\u{1b}[0m\\n'\n\n# without an end of line";

fn line() -> Value {
    json!({
        "unit": "a.service", "host": "m1", "machine": "113f16a7a0f84c4c8a3f9e3b2f4d6c01",
        "realtime_us": 1_800_000_000_000_000_u64, "priority": 6, "pid": 42, "identifier": "sh",
        "message": HOSTILE, "cursor": "s=1",
    })
}

fn answer(request: &Request) -> Answer {
    let path = request.what.split_once(' ').map_or("", |(_, path)| path);
    match path {
        "/v1/version" => version(),
        "/v1/units" if request.what.starts_with("POST") => outcome(&["a.service"]),
        "/v1/units" => page(&[placed("a.service", "active", "running")]),
        "/v1/orders" => outcome(&["a.service"]),
        "/v1/watch" => Answer::Events(everything(&[placed("a.service", "failed", "failed")])),
        "/v1/journal" => Answer::Events(vec![line()]),
        "/v1/events" => Answer::Events(vec![json!({
            "at": "2026-11-22T14:00:00Z", "revision": 5, "by": "engine", "kind": "departing",
            "unit": "a.service", "why": HOSTILE,
        })]),
        "/v1/units/a.service/content" => {
            let hash = "0f5d5b9ab0f4e4f0f6ac9e6a3ef6cbb1f2a4b8a5c7d0e1f2031425364758697a";
            Answer::Json(json!({ "name": "a.service", "hash": hash, "text": TEXT }))
        }
        "/v1/units/a.service/why" => Answer::Json(json!({
            "unit": "a.service", "placed": true, "summary": "on m1", "machines": [],
        })),
        "/v1/units/a.service/status" => Answer::Json(json!([{
            "unit": "a.service", "description": HOSTILE, "host": "m1", "machine": "1", "load": "loaded",
            "fragment": "/run/flotilla/units/a.service", "active": "active", "sub": "running", "result": "success",
            "status_text": HOSTILE, "processes": [{ "pid": 42, "command": HOSTILE }], "journal": [line()],
        }])),
        other => panic!("{other} was not expected"),
    }
}

#[test]
fn a_unit_file_is_printed_byte_for_byte() {
    let api = Api::new(answer);
    let output = command(&[&api], &["cat", "a"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(output.stdout, TEXT.as_bytes(), "{output:?}");
    // Also where colours are wanted.
    let output = command(&[&api], &["cat", "a"]).env("CLICOLOR_FORCE", "1").output().unwrap();
    assert_eq!(output.stdout, TEXT.as_bytes(), "{output:?}");
}

#[test]
fn nothing_that_a_unit_says_commands_the_terminal() {
    let api = Api::new(answer);
    for words in [&["journal", "a"][..], &["status", "a"], &["events"], &["start", "a"]] {
        let output = command(&[&api], words).env("CLICOLOR_FORCE", "1").output().unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        for part in TAMED {
            assert!(text.contains(part), "{words:?}: no {part} in {text}");
        }
        // What is left are flotctl's own colours.
        let mut rest = text.as_str();
        while let Some(at) = rest.find('\u{1b}') {
            let sequence = &rest[at + 1..];
            let end = sequence.find(|c: char| !c.is_ascii_digit() && !"[;".contains(c)).unwrap();
            assert!(sequence[end..].starts_with('m'), "{words:?}: {text:?}");
            rest = &sequence[end..];
        }
        assert!(!text.contains(['\u{7}', '\u{9b}']), "{words:?}: {text:?}");
    }
}

#[test]
fn every_line_of_a_message_has_its_prefix() {
    let api = Api::new(answer);
    let ended = flotctl(&[&api], &["journal", "a"]);
    let [one, two] = TAMED;
    let time = "Jan 15 08:00:00";
    assert_eq!(ended.out, format!("{time} a.service/m1: {one}\n{time} a.service/m1: {two}\n"), "{ended:?}");
    let ended = flotctl(&[&api], &["status", "a"]);
    for part in TAMED {
        let line = format!("{time} m1 sh[42]: {part}\n");
        assert!(ended.out.contains(&line), "no {line} in {}", ended.out);
    }
    let ended = flotctl(&[&api], &["start", "a"]);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    for part in TAMED {
        let line = format!("  {time} m1 sh[42]: {part}\n");
        assert!(ended.err.contains(&line), "no {line} in {}", ended.err);
    }
}

#[test]
fn programs_get_a_message_as_it_is() {
    let api = Api::new(answer);
    let ended = flotctl(&[&api], &["journal", "a", "-o", "json"]);
    let read: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(read["message"], json!(HOSTILE));
}

/// `flotctl list-units | head` is a success, and nothing is said about it.
#[test]
fn whoever_reads_may_go_at_any_time() {
    let api = Api::new(answer);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.service");
    std::fs::write(&file, "[Service]\nExecStart=/bin/true\n").unwrap();
    let (file, ca) = (file.display().to_string(), folder.path().join("ca").display().to_string());
    let cluster = folder.path().join("cluster").display().to_string();
    let commands: [&[&str]; 21] = [
        &["list-units"],
        &["list-units", "-o", "json"],
        &["list-unit-files"],
        &["list-unit-files", "-o", "json"],
        &["cat", "a"],
        &["cat", "a", "-o", "json"],
        &["status", "a"],
        &["status", "a", "-o", "json"],
        &["why", "a"],
        &["why", "a", "-o", "json"],
        &["journal", "a"],
        &["journal", "a", "-o", "json"],
        &["events"],
        &["events", "-o", "json"],
        &["version"],
        &["version", "-o", "json"],
        &["submit", &file],
        &["start", "a", "--no-block"],
        &["completion", "bash"],
        &["ca", "init", "--ca-dir", &ca],
        &["cluster", "init", "a=10.0.0.1", "--out", &cluster],
    ];
    for words in commands {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = command(&[&api], words).stdout(writer).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), &*said), (Some(0), ""), "{words:?}");
    }
    // Nor does it matter that nobody hears what is told beside the output.
    for words in [&["start", "a"][..], &["cat", "nobody"], &["submit", "/nonexistent/a.service"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let with = flotctl(&[&api], words).code;
        let without = command(&[&api], words).stdout(Stdio::null()).stderr(writer).status().unwrap().code();
        assert_eq!(without, with, "{words:?}");
    }
}

/// What a shell offers: asked as the script of `flotctl completion` asks.
fn offered(api: &Api, words: &[&str]) -> String {
    let mut command = command(&[api], &[]);
    command.args(["--", "flotctl"]).args(words).env("COMPLETE", "bash");
    command.env("_CLAP_COMPLETE_INDEX", words.len().to_string()).env("_CLAP_IFS", "\n");
    String::from_utf8(command.output().unwrap().stdout).unwrap()
}

#[test]
fn shells_complete_units_machines_and_columns() {
    let api = Api::new(|request| match request.what.as_str() {
        "GET /v1/machines" => page(&[json!({
            "id": "113f16a7a0f84c4c8a3f9e3b2f4d6c01", "host": "m1", "state": "alive", "version": "1", "units": 0,
        })]),
        _ => answer(request),
    });
    assert!(offered(&api, &["status", "a"]).contains("a.service"));
    assert_eq!(offered(&api, &["list-machines", "m"]).trim(), "m1");
    assert!(offered(&api, &["list-units", "--fields", "inv"]).contains("invocation"));
}

#[test]
fn the_journal_of_this_run_is_that_of_the_present_invocation() {
    let api = Api::new(|request| match request.what.as_str() {
        "GET /v1/units" => {
            let mut unit = placed("a.service", "active", "running");
            unit["placements"][0]["state"]["invocation"] = json!("ab");
            page(&[unit, placed("b.service", "inactive", "dead")])
        }
        "GET /v1/journal" => {
            let said = |message: &str, invocation: Option<&str>| {
                let mut line = line();
                (line["message"], line["invocation"]) = (json!(message), json!(invocation));
                line
            };
            Answer::Events(vec![said("earlier", Some("cd")), said("now", Some("ab")), said("neither", None)])
        }
        other => panic!("{other}"),
    });
    let ended = flotctl(&[&api], &["journal", "--this-run", "a"]);
    assert_eq!(ended.out, "Jan 15 08:00:00 a.service/m1: now\n", "{ended:?}");
    assert_eq!(flotctl(&[&api], &["journal", "a"]).out.lines().count(), 3);
    let never = Api::new(answer);
    assert_eq!(flotctl(&[&never], &["journal", "--this-run", "a"]).code, Some(3));
}
