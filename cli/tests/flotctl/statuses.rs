//! `flotctl status` of several units, of which some cannot be had.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use serde_json::{Value, json};

use crate::api::{Answer, Api, Request, flotctl, page, placed, unit};

const M1: &str = "113f16a7a0f84c4c8a3f9e3b2f4d6c01";
const M2: &str = "113f16a7a0f84c4c8a3f9e3b2f4d6c02";

fn runs(name: &str) -> Value {
    json!({
        "unit": name, "description": "", "host": "m1", "machine": M1, "load": "loaded", "fragment": "",
        "active": "active", "sub": "running", "result": "success",
    })
}

fn lost(name: &str) -> Value {
    json!({
        "unit": name, "description": "", "host": "m2", "machine": M2, "load": "", "fragment": "",
        "active": "unknown", "sub": "", "result": "", "problem": "machine lost",
    })
}

/// A unit whose place, or the one it had, is on a lost machine.
fn on_lost(name: &str, left: bool) -> Value {
    let mut unit = placed(name, "active", "running");
    let mut dead = unit["placements"][0].clone();
    (dead["machine"], dead["host"], dead["machine_alive"]) = (json!(M2), json!("m2"), json!(false));
    let dead_only = !left;
    if left {
        dead["departing"] = json!("its machine was lost");
    }
    let placements = unit["placements"].as_array_mut().unwrap();
    placements.push(dead);
    if dead_only {
        placements.remove(0);
    }
    unit
}

fn answer(request: &Request) -> Answer {
    match request.what.as_str() {
        "GET /v1/units" => page(&[
            placed("a.service", "active", "running"),
            on_lost("bound.service", false),
            on_lost("moved.service", true),
            unit("nowhere.service"),
            placed("refused.service", "active", "running"),
            placed("z.service", "active", "running"),
        ]),
        "GET /v1/units/bound.service/status" => Answer::Json(json!([lost("bound.service")])),
        "GET /v1/units/moved.service/status" => {
            Answer::Json(json!([runs("moved.service"), lost("moved.service")]))
        }
        "GET /v1/units/refused.service/status" => Answer::Refusal(503, "unavailable", "m1 is stuck"),
        other => {
            let name = other.trim_start_matches("GET /v1/units/").trim_end_matches("/status");
            Answer::Json(json!([runs(name)]))
        }
    }
}

#[test]
fn a_unit_without_an_answer_hides_none_of_the_others() {
    let api = Api::new(answer);
    let ended = flotctl(&[&api], &["status", "*"]);
    assert_eq!(ended.code, Some(6), "the worst counts: {ended:?}");
    assert_eq!(ended.err, "refused.service: m1 is stuck\n");
    let at = |name: &str| ended.out.find(&format!("{name}.service")).unwrap_or_else(|| panic!("{ended:?}"));
    let places = ["a", "bound", "moved", "nowhere", "z"].map(at);
    assert!(places.is_sorted(), "in order: {ended:?}");

    let ended = flotctl(&[&api], &["status", "*", "-o", "json"]);
    assert_eq!(ended.code, Some(6), "{ended:?}");
    let read: Vec<Value> = serde_json::from_str(&ended.out).unwrap();
    let told: Vec<&str> = read.iter().map(|status| status["unit"].as_str().unwrap()).collect();
    let names = ["a", "bound", "moved", "moved", "refused", "z"].map(|name| format!("{name}.service"));
    assert_eq!(told, names);
    assert_eq!((&read[4]["active"], &read[4]["problem"]), (&json!("unknown"), &json!("m1 is stuck")));
}

/// What the lost machine had is shown; that the unit runs elsewhere is what counts.
#[test]
fn a_unit_that_moved_off_a_lost_machine_is_active() {
    let only = |name: &'static str, left: bool| {
        Api::new(move |request| match request.what.as_str() {
            "GET /v1/units" => page(&[on_lost(name, left)]),
            _ => answer(request),
        })
    };
    let ended = flotctl(&[&only("moved.service", true)], &["status", "moved"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.out.contains("active (running)") && ended.out.contains("machine lost"), "{ended:?}");
    let ended = flotctl(&[&only("bound.service", false)], &["status", "bound"]);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(ended.out.contains("Active: unknown\n") && ended.out.contains("machine lost"), "{ended:?}");
}

#[test]
fn many_units_are_asked_for_together_and_not_all_at_once() {
    const UNITS: usize = 20;
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let api = Api::new({
        let (now, most) = (Arc::clone(&now), Arc::clone(&most));
        move |request| {
            let name = |n: usize| format!("u{n:02}.service");
            if request.what == "GET /v1/units" {
                let units: Vec<Value> = (0..UNITS).map(|n| placed(&name(n), "active", "running")).collect();
                return page(&units);
            }
            most.fetch_max(1 + now.fetch_add(1, Ordering::SeqCst), Ordering::SeqCst);
            // Until others are here too, or nobody comes.
            let begun = std::time::Instant::now();
            while most.load(Ordering::SeqCst) < 2 && begun.elapsed().as_secs() < 5 {
                std::thread::yield_now();
            }
            now.fetch_sub(1, Ordering::SeqCst);
            answer(request)
        }
    });
    let ended = flotctl(&[&api], &["status", "u*"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let shown: Vec<&str> = ended.out.lines().filter(|line| line.starts_with('●')).collect();
    assert!(shown.len() == UNITS && shown.is_sorted(), "{shown:?}");
    let most = most.load(Ordering::SeqCst);
    assert!((2..=8).contains(&most), "{most} at once");
}

#[test]
fn what_was_shown_stays_when_the_flotillad_dies() {
    let api = Api::new(|request| match request.what.as_str() {
        "GET /v1/units" => {
            page(&[placed("a.service", "active", "running"), placed("b.service", "active", "running")])
        }
        "GET /v1/units/b.service/status" => Answer::Broken(Vec::new()),
        _ => answer(request),
    });
    let ended = flotctl(&[&api], &["status", "*", "-o", "json"]);
    assert_eq!(ended.code, Some(6), "{ended:?}");
    let read: Vec<Value> = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(read[0]["unit"], "a.service", "{ended:?}");
}
