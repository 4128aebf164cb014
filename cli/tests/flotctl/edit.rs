//! `flotctl edit`, with a script as the editor.

use std::{
    fs,
    path::PathBuf,
    process::Output,
    sync::atomic::{AtomicUsize, Ordering},
};

use serde_json::{Value, json};

use crate::api::{Answer, Api, Request, command, outcome, ready, version};

const TEXT: &str = "[Service]\nExecStart=/bin/sleep 100\n";

/// A cluster with one unit file, which takes another if it is asked for at its revision.
fn cluster(request: &Request) -> Answer {
    match request.what.as_str() {
        "GET /v1/version" => version(),
        "GET /readyz" => ready(),
        "GET /v1/units/a.service/content" => content("a.service"),
        "GET /v1/units/web@.service/content" => content("web@.service"),
        "GET /v1/units/web@1.service/content" => Answer::Json(json!({
            "name": "web@1.service", "template": "web@.service", "hash": "0".repeat(64), "text": TEXT, "revision": 7,
        })),
        "GET /v1/units/web@2.service/content" => {
            Answer::Refusal(404, "not-found", "there is no unit web@2.service")
        }
        "GET /v1/units/own@1.service/content" => content("own@1.service"),
        "PUT /v1/units/own@1.service/content" => outcome(&["own@1.service"]),
        "PUT /v1/units/a.service/content" => outcome(&["a.service"]),
        "PUT /v1/units/web@.service/content" => outcome(&["web@.service"]),
        "GET /v1/units/nobody.service/content" => {
            Answer::Refusal(404, "not-found", "there is no unit nobody.service")
        }
        other => panic!("{other}"),
    }
}

fn content(name: &str) -> Answer {
    Answer::Json(json!({ "name": name, "hash": "0".repeat(64), "text": TEXT, "revision": 7 }))
}

struct Edited {
    code: Option<i32>,
    out: String,
    err: String,
    given: Vec<Value>,
    /// What is left in the folder for what is temporary.
    left: Vec<PathBuf>,
    _folder: tempfile::TempDir,
}

/// Edits a unit with a line of shell whose `$1` is the file.
fn edit(api: &Api, editor: &str, words: &[&str]) -> Edited {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("editor");
    fs::write(&script, format!("#!/bin/sh\nset -e\n{editor}\n")).unwrap();
    let temporary = folder.path().join("tmp");
    fs::create_dir(&temporary).unwrap();
    let mut command = command(&[api], &[&["edit"], words].concat());
    command.env("EDITOR", format!("sh {}", script.display())).env_remove("VISUAL").env("TMPDIR", &temporary);
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let left = fs::read_dir(&temporary).unwrap().map(|entry| entry.unwrap().path()).collect();
    let (out, err) = (text(stdout), text(stderr));
    let given = ["a.service", "web@.service", "own@1.service"]
        .map(|name| api.bodies(&format!("PUT /v1/units/{name}/content")));
    Edited { code: status.code(), out, err, given: given.concat(), left, _folder: folder }
}

#[test]
fn what_was_written_is_given_to_the_cluster_if_nobody_changed_it_meanwhile() {
    let api = Api::new(cluster);
    let edited = edit(&api, "sed -i s/100/200/ \"$1\"", &["--yes", "a"]);
    assert_eq!(edited.code, Some(0), "{}", edited.err);
    assert!(edited.out.starts_with("--- cluster/a.service\n+++ edited/a.service\n"), "{}", edited.out);
    assert!(edited.out.contains("-ExecStart=/bin/sleep 100\n+ExecStart=/bin/sleep 200\n"), "{}", edited.out);
    assert!(edited.out.ends_with("a.service updated\n"), "{}", edited.out);
    assert_eq!(edited.given, [json!({ "text": TEXT.replace("100", "200") })]);
    assert_eq!(api.header("PUT /v1/units/a.service/content", "if-match"), Some("\"7\"".to_owned()));
    assert!(edited.left.is_empty(), "{:?}", edited.left);
}

#[test]
fn nothing_is_given_that_is_as_it_was() {
    let edited = edit(&Api::new(cluster), "true", &["a"]);
    assert_eq!((edited.code, edited.err.as_str()), (Some(0), "a.service unchanged\n"));
    assert!(edited.given.is_empty() && edited.left.is_empty());
}

#[test]
fn an_instances_text_is_its_templates() {
    let edited = edit(&Api::new(cluster), "echo Nice=5 >>\"$1\"", &["web@1", "-y"]);
    assert_eq!(edited.code, Some(0), "{}", edited.err);
    assert!(edited.err.contains("web@1.service has its text from web@.service"), "{}", edited.err);
    assert_eq!(edited.given.len(), 1);
    // Also of one that was never made.
    let edited = edit(&Api::new(cluster), "echo Nice=5 >>\"$1\"", &["web@2", "-y"]);
    assert_eq!((edited.code, edited.given.len()), (Some(0), 1), "{}", edited.err);
}

/// A client of fleet's API gave it one: the template, and what follows that, is left alone.
#[test]
fn an_instance_with_a_text_of_its_own_is_edited_alone() {
    let api = Api::new(cluster);
    let edited = edit(&api, "echo Nice=5 >>\"$1\"", &["own@1", "-y"]);
    assert_eq!((edited.code, edited.given.len()), (Some(0), 1), "{}", edited.err);
    assert!(edited.out.ends_with("own@1.service updated\n"), "{}", edited.out);
    assert_eq!(api.bodies("PUT /v1/units/own@1.service/content").len(), 1);
}

/// The terminal sends Ctrl-C to the editor and to flotctl. The editor may have its own use for it; at a question
/// it ends the edit, and where the text is is told.
#[test]
fn ctrl_c_loses_nothing() {
    let run = |editor: &str, keys: Option<(&str, &[u8])>| {
        let api = Api::new(cluster);
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("editor");
        fs::write(&script, format!("#!/bin/sh\n{editor}\n")).unwrap();
        let flotctl = command(&[&api], &[]);
        let line = format!("{} edit a", flotctl.get_program().display());
        let mut terminal = std::process::Command::new("script");
        terminal.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
        for (name, value) in flotctl.get_envs() {
            match value {
                Some(value) => terminal.env(name, value),
                None => terminal.env_remove(name),
            };
        }
        terminal.env("EDITOR", format!("sh {}", script.display())).env_remove("VISUAL");
        terminal.env("TMPDIR", folder.path());
        terminal.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut child = terminal.spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        let mut shown = Vec::new();
        let mut output = child.stdout.take().unwrap();
        if let Some((after, keys)) = keys {
            let mut some = [0; 1024];
            while !String::from_utf8_lossy(&shown).contains(after) {
                let read = std::io::Read::read(&mut output, &mut some).unwrap();
                assert!(read > 0, "{}", String::from_utf8_lossy(&shown));
                shown.extend(&some[..read]);
            }
            std::io::Write::write_all(&mut input, keys).unwrap();
        }
        std::io::Read::read_to_end(&mut output, &mut shown).unwrap();
        drop(input);
        let code = child.wait().unwrap().code();
        let kept =
            fs::read_dir(folder.path()).unwrap().filter(|entry| entry.as_ref().unwrap().path().is_dir());
        (code, String::from_utf8_lossy(&shown).into_owned(), kept.count(), api.asked())
    };
    let editor =
        "p=$PPID; grep -q flotctl /proc/$p/comm || p=$(awk '{print $4}' /proc/$p/stat); kill -INT $p";
    let (code, shown, kept, _) = run(editor, None);
    assert_eq!((code, kept), (Some(0), 0), "{shown}");
    assert!(shown.contains("a.service unchanged"), "{shown}");
    let (code, shown, kept, asked) = run("echo Nice=5 >>\"$1\"", Some(("Give it to the cluster?", b"\x03")));
    assert_eq!((code, kept), (Some(130), 1), "{shown}");
    assert!(shown.contains("interrupted; what you wrote is in"), "{shown}");
    assert!(!asked.iter().any(|what| what.starts_with("PUT")), "{asked:?}");
}

/// Each is kept where it can be found again, and the cluster is not asked.
#[test]
fn what_is_not_given_is_not_lost() {
    for (editor, words, code, parts) in [
        ("echo Nice >>\"$1\"", &["-y", "a"][..], 1, &["a.service:3", "the unit file is not valid"][..]),
        (
            "printf '[X-Flotilla]\\nMachineOff=b.service\\n' >>\"$1\"",
            &["-y", "a"],
            1,
            &["a.service:4", "MachineOf"],
        ),
        ("echo Nice=5 >>\"$1\"", &["a"], 2, &["--yes says so"]),
        ("echo Nice=5 >>\"$1\"; exit 3", &["-y", "a"], 1, &["the editor ended with exit status: 3"]),
    ] {
        let edited = edit(&Api::new(cluster), editor, words);
        assert_eq!(edited.code, Some(code), "{editor}: {}", edited.err);
        for part in parts {
            assert!(edited.err.contains(part), "{editor}: {}", edited.err);
        }
        assert!(edited.given.is_empty());
        let kept = edited.left[0].join("a.service");
        assert!(edited.err.contains(kept.to_str().unwrap()), "{editor}: {}", edited.err);
        assert!(fs::read_to_string(kept).unwrap().starts_with(TEXT));
    }
    let edited = edit(&Api::new(cluster), "true", &["nobody"]);
    assert_eq!((edited.code, edited.left.len()), (Some(4), 0), "{}", edited.err);
    assert_eq!(edit(&Api::new(cluster), "true", &["a*"]).code, Some(2));
}

#[test]
fn what_somebody_else_changed_meanwhile_is_left_alone() {
    let tried = AtomicUsize::new(0);
    let api = Api::new(move |request| match request.what.as_str() {
        "PUT /v1/units/a.service/content" => {
            tried.fetch_add(1, Ordering::SeqCst);
            Answer::Refusal(412, "revision-differs", "it was changed meanwhile")
        }
        _ => cluster(request),
    });
    let edited = edit(&api, "echo Nice=5 >>\"$1\"", &["-y", "a"]);
    assert_eq!(edited.code, Some(1), "{}", edited.err);
    assert!(edited.err.contains("changed by somebody else meanwhile"), "{}", edited.err);
    assert_eq!((edited.given.len(), edited.left.len()), (1, 1), "once, and what was written is kept");
}

/// A person is asked: first to mend what is not valid, then whether it is meant.
#[test]
fn a_person_edits_again_and_is_asked() {
    let api = Api::new(cluster);
    let folder = tempfile::tempdir().unwrap();
    let editor = folder.path().join("editor");
    let script = "#!/bin/sh\nif grep -q Nice \"$1\"; then sed -i 's/^Nice$/Nice=5/' \"$1\"; else echo Nice >>\"$1\"; fi\n";
    fs::write(&editor, script).unwrap();
    let flotctl = command(&[&api], &[]);
    let line = format!("{} edit a", flotctl.get_program().display());
    let mut terminal = std::process::Command::new("script");
    terminal.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
    for (name, value) in flotctl.get_envs() {
        match value {
            Some(value) => terminal.env(name, value),
            None => terminal.env_remove(name),
        };
    }
    terminal
        .env("EDITOR", format!("sh {}", editor.display()))
        .env_remove("VISUAL")
        .env("TMPDIR", folder.path());
    terminal.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = terminal.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut input, b"y\ny\n").unwrap();
    let output = child.wait_with_output().unwrap();
    drop(input);
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(shown.contains("Edit it again?") && shown.contains("Give it to the cluster?"), "{shown}");
    assert!(shown.contains("a.service updated"), "{shown}");
    let given = api.bodies("PUT /v1/units/a.service/content");
    assert_eq!(given, [json!({ "text": format!("{TEXT}Nice=5\n") })], "{shown}");
}
