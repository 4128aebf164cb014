//! `flotctl apply` and `diff`: a folder against a cluster that a test makes up.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::api::{Answer, Api, Ended, Request, everything, flotctl, page, placed, ready, unit, version};

const TEXT: &str = "[Service]\nExecStart=/bin/true\n";

/// The SHA-256 of [`TEXT`].
const HASH: &str = "d4fded2cad024081ba5944d682e2edad1ba9832d97c2111bb07d1d323d735330";

fn shop(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("flotilla.toml"), "set = 'shop'\n").unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn run(api: &Api, folder: &tempfile::TempDir, words: &[&str]) -> Ended {
    let path: &Path = folder.path();
    flotctl(&[api], &[words, &[path.to_str().unwrap()]].concat())
}

/// A unit as an apply of the set made it, of [`TEXT`].
fn made(mut unit: Value) -> Value {
    unit["set"] = json!("shop");
    unit["hash"] = json!(HASH);
    unit["revision"] = json!(3);
    for placement in unit["placements"].as_array_mut().unwrap() {
        placement["hash"] = json!(HASH);
    }
    unit
}

fn failed(name: &str) -> Value {
    let mut dead = made(placed(name, "failed", "failed"));
    dead["placements"][0]["state"]["result"] = json!("exit-code");
    dead["placements"][0]["state"]["exit_status"] = json!(7);
    dead
}

/// A cluster that has units, takes what it is given, and shows others after that.
fn cluster(before: Vec<Value>, after: Vec<Value>) -> Api {
    Api::new(move |request: &Request| match request.what.as_str() {
        "GET /v1/version" => version(),
        "GET /readyz" => ready(),
        "GET /v1/units" => page(&before),
        "GET /v1/watch" => Answer::Lasting(everything(&after)),
        "POST /v1/plan" => {
            let planned = |unit: &Value| {
                let gone = unit["destroy"] == true || unit["target"].is_null();
                let machines = if gone {
                    json!([])
                } else {
                    json!([{ "machine": "113f16a7a0f84c4c8a3f9e3b2f4d6c01", "host": "m2" }])
                };
                json!({ "unit": unit["name"], "change": "create", "target": "launched", "machines": machines })
            };
            let units: Vec<Value> = request.body["units"].as_array().unwrap().iter().map(planned).collect();
            let other = json!([{
                "unit": "other.service",
                "from": [{ "machine": "113f16a7a0f84c4c8a3f9e3b2f4d6c01", "host": "m2" }],
                "to": [{ "machine": "113f16a7a0f84c4c8a3f9e3b2f4d6c02", "host": "m1" }],
            }]);
            Answer::Json(json!({ "revision": 4, "units": units, "moves": other }))
        }
        "POST /v1/bulk" => {
            let units = request.body["units"].as_array().unwrap().iter();
            let units =
                units.map(|unit| json!({ "unit": unit["name"], "changed": true, "generation": 1, "run": 1 }));
            Answer::Json(json!({ "revision": 5, "transactions": 1, "units": units.collect::<Vec<_>>() }))
        }
        what if what.ends_with("/content") => {
            Answer::Json(json!({ "name": "gone.service", "hash": HASH, "text": TEXT }))
        }
        what if what.ends_with("/status") => Answer::Json(json!([])),
        other => panic!("{other}"),
    })
}

/// What was written is there, and what runs of it is not well: that is not what a pipeline waits for.
#[test]
fn an_apply_that_has_nothing_to_do_tells_how_the_units_are() {
    let folder = shop(&[("a.service", TEXT), ("b.service", TEXT)]);
    let units = |a: Value| vec![a, made(placed("b.service", "active", "running"))];
    let well = units(made(placed("a.service", "active", "running")));
    let ended = run(&cluster(well.clone(), well), &folder, &["apply"]);
    assert_eq!(
        (ended.code, ended.out.as_str(), ended.err.as_str()),
        (Some(0), "nothing to do: the cluster has what shop says\n", "")
    );

    let api = cluster(units(failed("a.service")), units(failed("a.service")));
    let ended = run(&api, &folder, &["apply"]);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(ended.err.contains("a.service failed: result exit-code, exit status 7"), "{ended:?}");
    assert!(!ended.err.contains("b.service") && !ended.out.contains("b.service"), "{ended:?}");
    assert!(api.bodies("POST /v1/bulk").is_empty(), "it writes nothing");
    assert_eq!(run(&api, &folder, &["apply", "--no-block"]).code, Some(0), "nobody waits");
    assert_eq!(run(&api, &folder, &["diff", "--exit-code"]).code, Some(0), "what is written is equal");
    // Also beside something that there is to do.
    let more = shop(&[("a.service", TEXT), ("b.service", TEXT), ("c.service", TEXT)]);
    let after = [units(failed("a.service")), vec![made(placed("c.service", "active", "running"))]].concat();
    let ended = run(&cluster(units(failed("a.service")), after), &more, &["apply"]);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(ended.out.ends_with("c.service active on m1\n"), "{ended:?}");
}

/// What runs with an older text because somebody said so is as wanted.
#[test]
fn what_waits_for_its_next_start_is_not_waited_for() {
    let folder = shop(&[("a.service", TEXT)]);
    let mut staged = made(placed("a.service", "active", "running"));
    staged["placements"][0]["hash"] = json!("0".repeat(64));
    let behind = staged.clone();
    staged["next_start"] = json!(true);
    let ended = run(&cluster(vec![staged.clone()], vec![staged]), &folder, &["apply"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let api = cluster(vec![behind.clone()], vec![behind]);
    let ended = run(&api, &folder, &["apply", "--timeout=300ms"]);
    assert_eq!(ended.code, Some(124), "another apply is still being carried out: {ended:?}");
}

#[test]
fn what_is_done_is_told_with_its_place_and_as_one_document() {
    let folder = shop(&[("a.service", TEXT), ("new.service", TEXT), ("changed.service", TEXT)]);
    let mut changed = made(placed("changed.service", "active", "running"));
    changed["hash"] = json!("0".repeat(64));
    let before = vec![
        made(placed("a.service", "active", "running")),
        changed,
        made(placed("gone.service", "active", "running")),
    ];
    let after = vec![
        made(placed("a.service", "active", "running")),
        made(placed("changed.service", "active", "running")),
        failed("new.service"),
    ];
    let api = cluster(before, after);
    let ended = run(&api, &folder, &["diff", "--prune"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let told = [
        "changed.service  update     000000000000 -> ",
        "gone.service     remove     not in the folder any more\n",
        "new.service      create     launched, on m2\n",
        "other.service moves from m2 to m1\n",
        "-ExecStart=/bin/true\n",
    ];
    for part in told {
        assert!(ended.out.contains(part), "no {part:?} in {}", ended.out);
    }
    assert_eq!(run(&api, &folder, &["diff", "--exit-code"]).code, Some(7));
    let plan = run(&api, &folder, &["apply", "--plan"]);
    assert!(plan.out.contains("new.service      create     launched, on m2\n"), "{plan:?}");

    let ended = run(&api, &folder, &["apply", "--prune", "--no-block"]);
    let ordered = "changed.service update ordered\ngone.service destroy ordered\nnew.service start ordered\n";
    assert!(ended.out.ends_with(ordered), "{ended:?}");

    let ended = run(&api, &folder, &["apply", "--prune", "-o", "json"]);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    let read: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!((&read["set"], &read["revision"]), (&json!("shop"), &json!(5)), "{read}");
    let rows = read["units"].as_array().unwrap().iter();
    let rows: Vec<_> =
        rows.map(|row| json!([row["unit"], row["change"], row["outcome"]["outcome"]])).collect();
    let expected = [
        json!(["a.service", "none", "done"]),
        json!(["changed.service", "update", "done"]),
        json!(["gone.service", "remove", "done"]),
        json!(["new.service", "create", "failed"]),
    ];
    assert_eq!(rows, expected, "{read}");
    assert_eq!(read["units"][3]["machines"][0]["host"], "m2", "{read}");
    assert_eq!(read["moves"][0]["unit"], "other.service", "{read}");
}

/// The unit went from one folder to another: whoever has it now says so, and nothing that runs is touched.
#[test]
fn a_unit_is_handed_over_from_one_set_to_another() {
    let folder = shop(&[("a.service", TEXT)]);
    let mut theirs = made(placed("a.service", "active", "running"));
    theirs["set"] = json!("old");
    let api = cluster(vec![theirs.clone()], vec![theirs]);
    for words in [["apply"], ["diff"]] {
        let ended = run(&api, &folder, &words);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(
            ended.err.contains("made by the set `old`") && ended.err.contains("--take-over"),
            "{ended:?}"
        );
    }
    assert!(api.bodies("POST /v1/bulk").is_empty());
    let ended = run(&api, &folder, &["apply", "--take-over"]);
    assert_eq!(
        (ended.code, ended.out.as_str()),
        (Some(0), "a.service  take over  as it is, from the set `old`\n")
    );
    let expected = json!({ "name": "a.service", "set": "shop", "take_over": true, "if_match": 3 });
    assert_eq!(api.bodies("POST /v1/bulk")[0]["units"], json!([expected]));
}

/// The cluster is not even asked.
#[test]
fn nothing_is_pruned_by_a_folder_that_is_not_certain() {
    let api = cluster(Vec::new(), Vec::new());
    let mistyped = shop(&[("a.service", TEXT), ("b.sevice", TEXT)]);
    let empty = shop(&[]);
    let unnamed = shop(&[("a.service", TEXT)]);
    fs::remove_file(unnamed.path().join("flotilla.toml")).unwrap();
    // Its own name is not one that a set may have.
    let units = unnamed.path().join("units");
    fs::create_dir(&units).unwrap();
    fs::rename(unnamed.path().join("a.service"), units.join("a.service")).unwrap();
    for command in ["apply", "diff"] {
        let ended = run(&api, &mistyped, &[command, "--prune"]);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.err.contains("b.sevice looks like a unit file"), "{ended:?}");
        let ended = run(&api, &empty, &[command, "--prune"]);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.err.contains("there is no unit file in"), "{ended:?}");
        let ended = flotctl(&[&api], &[command, "--prune", units.to_str().unwrap()]);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.err.contains("expected `set = \"NAME\"`"), "{ended:?}");
    }
    assert!(!api.asked().iter().any(|what| what == "GET /v1/units"), "{:?}", api.asked());
}

#[test]
fn an_instance_of_which_nothing_is_wanted_is_made() {
    let folder = shop(&[("web@.service", TEXT)]);
    let targets = "set = 'shop'\n[targets]\n'web@1.service' = 'inactive'\n";
    fs::write(folder.path().join("flotilla.toml"), targets).unwrap();
    let api = cluster(Vec::new(), vec![made(unit("web@.service")), made(unit("web@1.service"))]);
    let ended = run(&api, &folder, &["apply"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let given = &api.bodies("POST /v1/bulk")[0]["units"][1];
    assert_eq!((&given["action"], &given["create"]), (&json!("unload"), &json!(true)), "{given}");
}
