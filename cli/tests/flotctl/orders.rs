//! Orders, and the wait until they have come true.

use serde_json::{Value, json};

use crate::api::{Answer, Api, Request, command, everything, flotctl, outcome, placed, ready, unit, version};

#[test]
fn what_does_not_run_is_stopped_already() {
    let api = Api::new(|request| match request.what.as_str() {
        "POST /v1/orders" => outcome(&["fits-nowhere.service", "never-loaded.service"]),
        "GET /v1/watch" => {
            let mut nowhere = unit("fits-nowhere.service");
            nowhere["target"] = json!("loaded");
            nowhere["unplaced"] = json!("no machine has zone=b");
            Answer::Events(everything(&[nowhere, unit("never-loaded.service")]))
        }
        other => panic!("{other}"),
    });
    let ended = flotctl(&[&api], &["stop", "*"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.out, "fits-nowhere.service not running\nnever-loaded.service not running\n");
}

/// A start whose unit runs, told by the first that is asked and shown by whoever is.
fn starting(watch: Answer) -> impl Fn(&Request) -> Answer {
    move |request| match request.what.as_str() {
        "GET /v1/version" => version(),
        "GET /readyz" => ready(),
        "POST /v1/units" | "POST /v1/orders" => outcome(&["a.service"]),
        "GET /v1/watch" => watch.clone(),
        "GET /v1/units/a.service/status" => Answer::Json(json!([{
            "unit": "a.service", "description": "", "host": "m1", "machine": "1", "load": "loaded",
            "fragment": "", "active": "failed", "sub": "failed", "result": "exit-code", "exit_status": 7,
            "journal": [{ "unit": "a.service", "host": "m1", "machine": "1", "realtime_us": 0, "message": "boom",
                          "cursor": "s=1" }],
        }])),
        other => panic!("{other}"),
    }
}

fn runs() -> Answer {
    Answer::Lasting(everything(&[placed("a.service", "active", "running")]))
}

/// The machine that was asked dies with the order: it stands, and the others show what comes of it.
#[test]
fn a_wait_goes_on_at_the_next_endpoint() {
    let dead = Answer::Death;
    let broken = Answer::Broken(everything(&[placed("a.service", "activating", "start")]));
    for first in [dead, broken] {
        let apis = [Api::new(starting(first)), Api::new(starting(Answer::Death)), Api::new(starting(runs()))];
        let ended = flotctl(&[&apis[0], &apis[1], &apis[2]], &["start", "a"]);
        assert_eq!((ended.code, ended.out.as_str()), (Some(0), "a.service active on m1\n"), "{ended:?}");
        let orders = apis.iter().flat_map(|api| api.bodies("POST /v1/orders")).count();
        assert_eq!(orders, 1, "an order is given once, whoever dies of it");
    }
}

/// A unit that crashes again and again, elsewhere in the cluster, is nobody's business here.
#[test]
fn a_wait_ends_whatever_else_goes_on() {
    let noise = |waited: &[Value]| {
        let others =
            [placed("loop.service", "active", "running"), placed("loop.service", "failed", "failed")];
        let events = others.iter().chain(waited).map(|unit| json!({ "type": "unit", "unit": unit }));
        events.collect::<Vec<_>>()
    };
    let active = placed("a.service", "active", "running");
    let api = Api::new(starting(Answer::Restless(everything(&[active]), noise(&[]))));
    let ended = flotctl(&[&api], &["start", "a", "--timeout=20s"]);
    assert_eq!((ended.code, ended.out.as_str()), (Some(0), "a.service active on m1\n"), "{ended:?}");
    // It fits nowhere, and why changes with what the others take.
    let nowhere = |why: &str| {
        let mut unit = unit("a.service");
        unit["target"] = json!("launched");
        unit["unplaced"] = json!(why);
        unit
    };
    let (some, more) = (nowhere("2 machines: 1 GiB is free"), nowhere("2 machines: 2 GiB is free"));
    let told = Answer::Restless(everything(std::slice::from_ref(&some)), noise(&[some, more]));
    let ended = flotctl(&[&Api::new(starting(told))], &["start", "a", "--timeout=20s"]);
    assert_eq!(ended.code, Some(5), "{ended:?}");
}

#[test]
fn a_journal_goes_on_at_the_next_endpoint() {
    let line = |n: u32| {
        json!({
            "unit": "a.service", "host": "m1", "machine": "1", "realtime_us": 0, "message": format!("line {n}"),
            "cursor": format!("s={n}"),
        })
    };
    let journal = |answer: Answer| {
        Api::new(move |request| match request.what.as_str() {
            "GET /v1/version" => version(),
            "GET /readyz" => ready(),
            _ => answer.clone(),
        })
    };
    let apis = [journal(Answer::Broken(vec![line(1)])), journal(Answer::Events(vec![line(2)]))];
    // One that follows has no end of its own; what is tried after a loss is the same.
    let ended = flotctl(&[&apis[0], &apis[1]], &["journal", "a"]);
    assert!(ended.out.contains("line 1") && ended.out.contains("line 2"), "{ended:?}");
    assert_eq!(ended.out.lines().count(), 2, "{ended:?}");
}

#[test]
fn the_time_covers_the_order_itself_and_has_no_upper_end() {
    for silent in ["POST /v1/units", "POST /v1/orders", "GET /v1/watch"] {
        let api = Api::new(move |request| match request.what.as_str() {
            what if what == silent => Answer::Silence,
            _ => starting(runs())(request),
        });
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.service");
        std::fs::write(&file, "[Service]\nExecStart=/bin/true\n").unwrap();
        let ended = flotctl(&[&api], &["start", file.to_str().unwrap(), "--timeout", "300ms"]);
        assert_eq!(ended.code, Some(124), "{silent}: {ended:?}");
    }
    let api = Api::new(starting(runs()));
    let ended = flotctl(&[&api], &["start", "a", "--timeout", "18000000000000000000"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

#[test]
fn a_mistyped_path_starts_nothing() {
    let api = Api::new(starting(runs()));
    for action in ["start", "load"] {
        let ended = flotctl(&[&api], &[action, "./nowhere/a.service"]);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.err.contains("./nowhere/a.service"), "{ended:?}");
    }
    assert_eq!(api.asked(), Vec::<String>::new());
}

/// fleet's habit: files in the current folder are meant by their units' names.
#[test]
fn files_in_the_current_folder_are_found_by_the_names_of_their_units() {
    const TEXT: &str = "[Service]\nExecStart=/bin/true\n";
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str| std::fs::write(folder.path().join(name), TEXT).unwrap();
    ["hello.service", "hello", "web@.service"].into_iter().for_each(write);
    std::os::unix::fs::symlink("web@.service", folder.path().join("web@2.service")).unwrap();
    // What is typed, the file that is given, the unit that is ordered.
    for (word, file, unit) in [
        ("hello", Some("hello.service"), "hello.service"),
        ("hello.service", Some("hello.service"), "hello.service"),
        ("./hello", Some("hello.service"), "hello.service"),
        ("web@1", Some("web@.service"), "web@1.service"),
        ("./web@1.service", Some("web@.service"), "web@1.service"),
        ("web@2.service", Some("web@.service"), "web@2.service"),
        ("web@2", Some("web@.service"), "web@2.service"),
        ("other", None, "other.service"),
        ("other@1", None, "other@1.service"),
    ] {
        for action in ["start", "load"] {
            let api = Api::new(|request| {
                let named = &request.body["units"][0];
                let name = named["name"].as_str().or(named.as_str()).unwrap_or_default().to_owned();
                outcome(&[&name])
            });
            let mut command = command(&[&api], &[action, "--no-block", word]);
            let output = command.current_dir(folder.path()).output().unwrap();
            assert_eq!(output.status.code(), Some(0), "{action} {word}: {output:?}");
            let given = api.bodies("POST /v1/units");
            let files: Vec<&str> =
                given.iter().map(|body| body["units"][0]["name"].as_str().unwrap()).collect();
            assert_eq!(files, Vec::from_iter(file), "{action} {word}");
            let orders = api.bodies("POST /v1/orders");
            assert_eq!(orders[0]["units"], json!([unit]), "{action} {word}");
        }
    }
}

/// `submit` of an instance makes it, by a template that is there or given with it, and runs nothing.
#[test]
fn units_are_submitted_by_their_names_and_instances_made_of_their_template() {
    const TEXT: &str = "[Service]\nExecStart=/bin/true\n";
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str| std::fs::write(folder.path().join(name), TEXT).unwrap();
    ["hello.service", "web@.service"].into_iter().for_each(write);
    let api = || {
        Api::new(|request| match request.what.as_str() {
            "POST /v1/units" => outcome(&[request.body["units"][0]["name"].as_str().unwrap()]),
            "PUT /v1/units/web%401.service" | "PUT /v1/units/web@1.service" => outcome(&["web@1.service"]),
            "PUT /v1/units/old@1.service" | "PUT /v1/units/old%401.service" => {
                Answer::Refusal(412, "revision-differs", "it is there")
            }
            "GET /v1/units/old@1.service" | "GET /v1/units/old%401.service" => {
                Answer::Json(placed("old@1.service", "active", "running"))
            }
            "GET /v1/units/there.service" => Answer::Json(unit("there.service")),
            what if what.starts_with("PUT ") || what.starts_with("GET ") => {
                Answer::Refusal(404, "not-found", "there is none")
            }
            other => panic!("{other}"),
        })
    };
    let submit = |words: &[&str]| {
        let api = api();
        let mut command = command(&[&api], &[&["submit"], words].concat());
        let output = command.current_dir(folder.path()).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let conditions = ["PUT /v1/units/web@1.service", "PUT /v1/units/web%401.service"];
        let condition = conditions.iter().find_map(|what| api.header(what, "if-none-match"));
        (output.status.code(), text(output.stdout), text(output.stderr), condition)
    };
    let (code, out, err, _) = submit(&["hello"]);
    assert_eq!((code, out.as_str()), (Some(0), "hello.service submitted\n"), "{err}");
    let (code, out, err, condition) = submit(&["web@1"]);
    assert_eq!((code, out.as_str()), (Some(0), "web@.service submitted\nweb@1.service submitted\n"), "{err}");
    assert_eq!(condition.as_deref(), Some("*"), "one that runs is not told to rest");
    // Of a known template, and one that is there already; a unit that the cluster has.
    let (code, out, err, _) = submit(&["old@1", "there"]);
    assert_eq!(
        (code, out.as_str()),
        (Some(0), "old@1.service unchanged\nthere.service unchanged\n"),
        "{err}"
    );
    let (code, out, err, _) = submit(&["nobody", "no@1", "hello"]);
    assert_eq!((code, out.as_str()), (Some(4), "hello.service submitted\n"), "{err}");
    assert!(err.contains("no file nobody.service here"), "{err}");
    assert!(err.contains("no file no@1.service or no@.service here"), "{err}");
    assert_eq!(submit(&["x*"]).0, Some(2), "a pattern means no file that is not there");
    assert_eq!(submit(&["./nobody"]).0, Some(1));
}

/// A template's file lies in the folder where an operator destroys the template and its instances.
#[test]
fn what_is_to_go_is_ordered_to_go_whatever_lies_in_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("web@.service"), "[Service]\nExecStart=/bin/true\n").unwrap();
    let api = Api::new(|_| outcome(&["web@.service", "web@1.service"]));
    let words = ["destroy", "--no-block", "web@.service", "web@1"];
    let output = command(&[&api], &words).current_dir(folder.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let orders = api.bodies("POST /v1/orders");
    assert_eq!(orders[0]["units"], json!(["web@.service", "web@1.service"]), "{orders:?}");
}

#[test]
fn programs_are_told_how_a_unit_died() {
    let mut dead = placed("a.service", "failed", "failed");
    dead["placements"][0]["state"]["result"] = json!("exit-code");
    dead["placements"][0]["state"]["exit_status"] = json!(7);
    let api = Api::new(starting(Answer::Events(everything(&[dead]))));
    let ended = flotctl(&[&api], &["start", "a", "-o", "json"]);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    let read: Value = serde_json::from_str(&ended.out).unwrap();
    let died = &read[0];
    assert_eq!((&died["outcome"], &died["machine"]), (&json!("failed"), &json!("m1")), "{died}");
    assert_eq!((&died["result"], &died["exit_status"]), (&json!("exit-code"), &json!(7)), "{died}");
    assert_eq!(died["journal"][0]["message"], "boom", "{died}");
}

/// Without --replace the cluster's text stays, with a warning, and what was asked for besides goes on.
#[test]
fn a_file_that_differs_is_given_only_with_replace() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, "[Service]\nExecStart=/bin/true\n").unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (a, b) = (file("a.service"), file("b.service"));
    let api = || {
        Api::new(|request| match request.what.as_str() {
            "GET /v1/version" => version(),
            "GET /readyz" => ready(),
            "POST /v1/units"
                if request.body["replace"] != true && request.body["units"][1] != Value::Null =>
            {
                Answer::Refusal(409, "conflict", "another text")
            }
            "GET /v1/units/a.service/content" => Answer::Json(json!({
                "name": "a.service", "hash": "0".repeat(64), "text": "[Service]\nExecStart=/bin/false\n",
            })),
            "GET /v1/units/b.service/content" => {
                Answer::Refusal(404, "not-found", "there is no unit b.service")
            }
            "POST /v1/units" | "POST /v1/orders" => outcome(&["a.service", "b.service"]),
            other => panic!("{other}"),
        })
    };
    let api_of_submit = api();
    let ended = flotctl(&[&api_of_submit], &["submit", &a, &b]);
    assert_eq!(ended.code, Some(1), "what was asked for is not so: {ended:?}");
    assert!(
        ended.err.contains("a.service in the cluster differs") && ended.err.contains("--replace"),
        "{ended:?}"
    );
    let given = api_of_submit.bodies("POST /v1/units");
    assert_eq!(given[1]["units"][0]["name"], "b.service", "the rest is taken: {given:?}");
    let api_of_start = api();
    let ended = flotctl(&[&api_of_start], &["start", "--no-block", &a, &b]);
    assert_eq!(ended.code, Some(0), "it starts what there is, as fleet did: {ended:?}");
    assert!(ended.err.contains("warning: a.service"), "{ended:?}");
    let api_of_replace = api();
    let ended = flotctl(&[&api_of_replace], &["submit", "--replace", "--no-restart", &a, &b]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let given = api_of_replace.bodies("POST /v1/units");
    assert_eq!((&given[0]["replace"], &given[0]["no_restart"]), (&json!(true), &json!(true)));
    let ended = flotctl(&[&api()], &["submit", "--no-restart", &a]);
    assert_eq!(ended.code, Some(2), "it says something only of what is replaced: {ended:?}");
}

/// What failed would be started for its new text, and once more for the order, if these were two writes.
#[test]
fn a_new_text_and_the_order_to_start_are_one_write() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.service");
    std::fs::write(&path, "[Service]\nExecStart=/bin/true\n").unwrap();
    let api = Api::new(|request| match request.what.as_str() {
        "POST /v1/bulk" => Answer::Json(json!({
            "revision": 5, "transactions": 1,
            "units": [{ "unit": "a.service", "changed": true, "generation": 1, "run": 1 }],
        })),
        _ => starting(runs())(request),
    });
    let ended = flotctl(&[&api], &["start", "--replace", path.to_str().unwrap()]);
    assert_eq!((ended.code, ended.out.as_str()), (Some(0), "a.service active on m1\n"), "{ended:?}");
    let text = "[Service]\nExecStart=/bin/true\n";
    let unit = json!({ "name": "a.service", "text": text, "replace": true, "action": "start" });
    assert_eq!(api.bodies("POST /v1/bulk"), [json!({ "units": [unit], "whole": false })]);
    let written = api.asked().into_iter().filter(|what| what.starts_with("POST")).count();
    assert_eq!(written, 1, "{:?}", api.asked());
}

#[test]
fn lines_of_install_that_do_nothing_are_told_when_a_file_is_given() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, format!("[Service]\nExecStart=/bin/true\n[Install]\n{text}\n")).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let odd = file("a.service", "WantedBy=multi-user.target\nAlias=b.service\nAlso=c.socket");
    let api = Api::new(starting(runs()));
    let ended = flotctl(&[&api], &["submit", &odd]);
    assert_eq!(ended.code, Some(0), "it is no mistake: {ended:?}");
    let expected = "warning: a.service: without effect in [Install]: Alias=b.service; Also=c.socket\n";
    assert_eq!(ended.err, expected);
    let template = file("web@.service", "WantedBy=stack@%i.target");
    let ended = flotctl(&[&api], &["submit", &template]);
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "it has its effect for each instance");
}

/// fleet left the columns of global units empty.
#[test]
fn a_global_unit_is_listed_with_how_many_machines_have_its_text() {
    let mut global = placed("all.service", "active", "running");
    let one = global["placements"][0].clone();
    let on = |n: usize| {
        let mut it = one.clone();
        (it["machine"], it["host"]) = (json!(format!("{n:032x}")), json!(format!("m{n}")));
        it
    };
    global["global"] = json!(true);
    global["placements"] = (1..=5).map(on).collect();
    global["versions"] = json!({ "updated": 3, "all": 5 });
    let api = Api::new(move |request| match request.what.as_str() {
        "GET /v1/version" => version(),
        "GET /readyz" => ready(),
        "GET /v1/units" => crate::api::page(std::slice::from_ref(&global)),
        other => panic!("{other}"),
    });
    let fields = "--fields=unit,dstate,tmachine,updated,global";
    let ended = flotctl(&[&api], &["list-unit-files", "--no-legend", fields]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let row: Vec<&str> = ended.out.split_whitespace().collect();
    assert_eq!(row, ["all.service", "launched", "5", "machines", "3/5", "yes"], "{ended:?}");
}
