//! What a shell is offered while somebody types, for bash, zsh and fish.

use serde_json::json;

use crate::api::{Answer, Api, Ended, Request, command, page, placed, unit};

fn cluster(request: &Request) -> Answer {
    let decoded = request.query.replace("%40", "@").replace("%5C", "\\").replace("%2A", "*");
    let pattern = decoded.split('&').find_map(|pair| pair.strip_prefix("pattern=")).unwrap_or("*");
    let begin = pattern.trim_end_matches('*').replace('\\', "");
    let begins = |name: &str| name.starts_with(&begin);
    match request.what.as_str() {
        "GET /v1/machines" => {
            let machines = ["m1", "m2", "db1"].map(|host| {
                json!({ "id": "113f16a7a0f84c4c8a3f9e3b2f4d6c01", "host": host, "state": "alive", "units": 1 })
            });
            page(&machines.into_iter().filter(|m| begins(m["host"].as_str().unwrap())).collect::<Vec<_>>())
        }
        "GET /v1/units" => {
            let mut described = placed("web@1.service", "active", "running");
            described["description"] = json!("Serves \u{1b}[2J pages");
            let units = [
                unit("backup.timer"),
                unit("web@.service"),
                described,
                placed("db.service", "active", "running"),
            ];
            page(&units.into_iter().filter(|u| begins(u["name"].as_str().unwrap())).collect::<Vec<_>>())
        }
        other => panic!("{other}"),
    }
}

/// Runs flotctl as a shell's completion does, with these words before the cursor.
fn offered(apis: &[&Api], shell: &str, words: &[&str]) -> Ended {
    let mut command = command(apis, &[]);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("local.service"), "").unwrap();
    command.current_dir(folder.path());
    let index = words.len().to_string();
    command.env("COMPLETE", shell).env("_CLAP_COMPLETE_INDEX", index).env("_CLAP_IFS", "\n");
    command.env("_CLAP_COMPLETE_COMP_TYPE", "9").env("_CLAP_COMPLETE_SPACE", "false");
    command.args(["--", "flotctl"]).args(words);
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ended { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// The candidates that are no options, in bash, on one line.
fn names(words: &[&str]) -> String {
    let ended = offered(&[&Api::new(cluster)], "bash", words);
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{words:?}: {ended:?}");
    let names: Vec<&str> = ended.out.lines().filter(|name| !name.starts_with('-')).collect();
    names.join(" ")
}

#[test]
fn every_commands_arguments_are_completed() {
    let commands = [
        "list-machines",
        "list-units",
        "list-unit-files",
        "submit",
        "load",
        "start",
        "stop",
        "restart",
        "unload",
        "destroy",
        "adopt",
        "adopt m1",
        "cat",
        "edit",
        "status",
        "journal",
        "why",
        "events",
        "history",
        "machine",
        "machine metadata",
        "machine metadata set",
        "machine metadata unset",
        "machine cordon",
        "machine uncordon",
        "machine drain",
        "plan",
        "diff",
        "apply",
        "rebalance",
        "exec",
        "exec db.service -m",
        "shell",
        "top",
        "top --machine",
        "ssh",
        "cluster settings",
        "fd-forward",
        "man",
        "version",
    ];
    let mut text = String::new();
    for command in commands {
        let words: Vec<&str> = command.split(' ').chain([""]).collect();
        text.push_str(format!("{command}: {}", names(&words)).trim_end());
        text.push('\n');
    }
    insta::assert_snapshot!(text, @r"
    list-machines: m1 m2 db1
    list-units: backup.timer web@1.service db.service
    list-unit-files: backup.timer web@.service web@1.service db.service
    submit: local.service
    load: backup.timer web@.service web@1.service db.service local.service
    start: backup.timer web@.service web@1.service db.service local.service
    stop: backup.timer web@.service web@1.service db.service
    restart: backup.timer web@.service web@1.service db.service
    unload: backup.timer web@.service web@1.service db.service
    destroy: backup.timer web@.service web@1.service db.service
    adopt: m1 m2 db1
    adopt m1:
    cat: backup.timer web@.service web@1.service db.service
    edit: backup.timer web@.service web@1.service db.service
    status: backup.timer web@1.service db.service
    journal: backup.timer web@1.service db.service
    why: backup.timer web@1.service db.service
    events: backup.timer web@.service web@1.service db.service
    history: backup.timer web@1.service db.service
    machine: metadata cordon uncordon drain help
    machine metadata: set unset help
    machine metadata set: m1 m2 db1
    machine metadata unset: m1 m2 db1
    machine cordon: m1 m2 db1
    machine uncordon: m1 m2 db1
    machine drain: m1 m2 db1
    plan: backup.timer web@.service web@1.service db.service local.service
    diff: .
    apply: .
    rebalance:
    exec: backup.timer web@1.service db.service
    exec db.service -m: m1 m2 db1
    shell: m1 m2 db1
    top: backup.timer web@1.service db.service
    top --machine: m1 m2 db1
    ssh: m1 m2 db1 backup.timer web@1.service db.service
    cluster settings:
    fd-forward: local.service
    man: . local.service
    version:
    ");
}

#[test]
fn what_is_begun_is_completed() {
    let rows = [
        &["sta"][..],
        &["list-"],
        &["cluster", ""],
        &["ca", "issue", ""],
        &["completion", ""],
        &["start", "web@"],
        &["status", "d"],
        &["status", "db.service@"],
        &["journal", "db.service@m"],
        &["status", "nobody.service@"],
        &["ssh", "m"],
        &["ssh", "--machine", ""],
        &["ssh", "--unit", "db"],
        &["list-machines", "--fields", "ho"],
        &["list-units", "--fields", "ma"],
        &["list-units", "-o", ""],
        &["journal", "-o", ""],
    ];
    let mut text = String::new();
    for row in rows {
        text.push_str(format!("{}: {}", row.join(" "), names(row)).trim_end());
        text.push('\n');
    }
    insta::assert_snapshot!(text, @r"
    sta: start status
    list-: list-machines list-units list-unit-files
    cluster : init status release-hold accept-store settings help
    ca issue : machine etcd user help
    completion : bash zsh fish
    start web@: web@.service web@1.service
    status d: db.service
    status db.service@: db.service@m1
    journal db.service@m: db.service@m1
    status nobody.service@:
    ssh m: m1 m2
    ssh --machine : m1 m2 db1
    ssh --unit db: db.service
    list-machines --fields ho: host
    list-units --fields ma: machine
    list-units -o : table wide json
    journal -o : table wide json
    ");
}

/// The scripts as shells read them, so that every change of them is seen in review.
#[test]
fn the_scripts_are_the_reviewed_ones() {
    let mut text = String::new();
    for shell in ["bash", "zsh", "fish"] {
        let ended = crate::api::flotctl(&[], &["completion", shell]);
        assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{shell}: {ended:?}");
        text.push_str(&format!("==== {shell}\n{}", ended.out));
    }
    insta::assert_snapshot!(text);
}

/// bash divides words at `@`, `=` and `:`, and takes what is offered for what stands behind the last of them. A row:
/// the line, what bash itself takes for the word, and what it puts in its place.
#[test]
fn bash_completes_words_that_it_divides() {
    let api = Api::new(cluster);
    let endpoint = api.endpoint();
    let ask = format!("flotctl --endpoint={endpoint} status d");
    let rows = [
        ("flotctl status web@", "@", "@1.service"),
        ("flotctl status web@1", "1", "1.service"),
        ("flotctl start web@", "@", "@.service @1.service"),
        ("flotctl status db.service@m", "@m", "@m1"),
        ("flotctl status d", "d", "db.service"),
        ("flotctl status 'd", "d", "db.service"),
        ("flotctl list-units --fields=ma", "ma", "machine"),
        (&ask, "d", "db.service"),
        ("flotctl sta", "sta", "start status"),
        ("flotctl shell m", "m", "m1 m2"),
    ];
    let folder = std::path::Path::new(env!("CARGO_BIN_EXE_flotctl")).parent().unwrap();
    for (line, word, offered) in rows {
        let flotctl = command(&[&api], &[]);
        let mut bash = std::process::Command::new("bash");
        bash.env_clear().envs(flotctl.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths([folder.to_owned()].into_iter().chain(std::env::split_paths(&path)));
        let script =
            "eval \"$(flotctl completion bash)\"; compopt() { :; }; COMP_LINE=$1 COMP_POINT=${#1} COMP_TYPE=9
            _flotctl flotctl \"$2\" \"\"; echo \"${COMPREPLY[*]}\"";
        bash.env("PATH", path.unwrap()).args(["--norc", "-c", script, "bash", line, word]);
        // An endpoint on the line is the one that is asked.
        if line.contains("--endpoint") {
            bash.env_remove("FLOTCTL_ENDPOINT");
        }
        let output = bash.current_dir(tempfile::tempdir().unwrap().path()).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        assert_eq!((text(output.stdout).trim(), text(output.stderr).as_str()), (offered, ""), "{line}");
    }
}

#[test]
fn options_are_completed() {
    let ended = offered(&[&Api::new(cluster)], "bash", &["stop", "--"]);
    insta::assert_snapshot!(ended.out.lines().collect::<Vec<_>>().join(" "), @"--no-block --timeout --ignore-missing --help --endpoint --ca --certificate --key --tunnel --ssh-username --ssh-timeout --strict-host-key-checking --known-hosts-file --request-timeout --config --output --debug");
}

#[test]
fn every_shell_is_offered_the_same_names() {
    for shell in ["bash", "zsh", "fish"] {
        let ended = offered(&[&Api::new(cluster)], shell, &["status", ""]);
        assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{shell}: {ended:?}");
        for name in ["backup.timer", "web@1.service", "db.service"] {
            let is_it = |line: &str| line.replace('\\', "").starts_with(name);
            assert!(ended.out.lines().any(is_it), "{shell}: {ended:?}");
        }
        assert!(!ended.out.contains('\u{1b}'), "{shell}: what others wrote commands no terminal: {ended:?}");
    }
}

/// A prompt does not wait, and never shows an error.
#[test]
fn whatever_is_wrong_nothing_is_offered_and_nothing_said() {
    let silent = Api::new(|_| Answer::Silence);
    let begun = std::time::Instant::now();
    let nothing = offered(&[&silent], "bash", &["stop", "x"]);
    assert!(begun.elapsed().as_secs() < 5, "{:?}", begun.elapsed());
    let refusing = Api::new(|_| Answer::Refusal(503, "unavailable", "the store does not answer"));
    for ended in
        [nothing, offered(&[&refusing], "bash", &["stop", "x"]), offered(&[], "bash", &["stop", "x"])]
    {
        assert_eq!((ended.code, ended.out.as_str(), ended.err.as_str()), (Some(0), "", ""), "{ended:?}");
    }
    for broken in [
        &["--endpoint", "nonsense", "stop", "x"][..],
        &["--config", "/nonexistent", "stop", "x"],
        &["--tunnel=far", "stop", "x"],
    ] {
        let ended = offered(&[&Api::new(cluster)], "bash", broken);
        assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{broken:?}: {ended:?}");
    }
}
