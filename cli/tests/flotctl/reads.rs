//! Several endpoints: what is read comes from whoever has an answer, and an order goes to one that takes
//! part in its cluster.

use serde_json::json;

use crate::api::{Answer, Api, Request, flotctl, outcome, page, placed, ready, unavailable, version};

/// What each command that reads asks first.
const READS: [(&[&str], &str); 7] = [
    (&["list-units"], "a.service"),
    (&["list-unit-files"], "a.service"),
    (&["list-machines"], "m2"),
    (&["cat", "a"], "ExecStart"),
    (&["status", "a"], "active (running)"),
    (&["why", "a"], "on m2"),
    (&["cluster", "status"], "epoch 1"),
];

fn well(request: &Request) -> Answer {
    match request.what.as_str() {
        "GET /v1/version" => version(),
        "GET /readyz" => ready(),
        "GET /v1/units" => page(&[placed("a.service", "active", "running")]),
        "GET /v1/machines" => page(&[json!({
            "id": "113f16a7a0f84c4c8a3f9e3b2f4d6c02", "host": "m2", "state": "alive", "version": "1", "units": 0,
        })]),
        "GET /v1/units/a.service/content" => Answer::Json(json!({
            "name": "a.service", "hash": "0f5d5b9ab0f4e4f0f6ac9e6a3ef6cbb1f2a4b8a5c7d0e1f2031425364758697a",
            "text": "[Service]\nExecStart=/bin/true\n",
        })),
        "GET /v1/units/a.service/status" => Answer::Json(json!([{
            "unit": "a.service", "description": "", "host": "m2", "machine": "2", "load": "loaded",
            "fragment": "", "active": "active", "sub": "running", "result": "success",
        }])),
        "GET /v1/units/a.service/why" => Answer::Json(json!({
            "unit": "a.service", "placed": true, "summary": "on m2", "machines": [],
        })),
        "GET /v1/cluster" => Answer::Json(json!({
            "id": "c", "epoch": 1, "revision": 5, "leader": null, "seats": [], "machines_alive": 2,
            "machines_lost": 0, "units": 1, "store": "3.5", "store_size_bytes": 0, "problems": [],
        })),
        "POST /v1/orders" => outcome(&["a.service"]),
        other => panic!("{other}"),
    }
}

/// The first is cut off from the store and knows it: nothing but that is asked of it.
#[test]
fn who_takes_part_in_the_cluster_is_asked() {
    for (words, part) in READS {
        let cut_off = Api::new(|request| match request.what.as_str() {
            "GET /v1/version" => version(),
            _ => unavailable(),
        });
        let ended = flotctl(&[&cut_off, &Api::new(well)], words);
        assert_eq!(ended.code, Some(0), "{words:?}: {ended:?}");
        assert!(ended.out.contains(part), "{words:?}: {ended:?}");
        assert_eq!(cut_off.asked(), ["GET /v1/version", "GET /readyz"], "{words:?}");
    }
    let apis = [
        Api::new(|request| match request.what.as_str() {
            "GET /v1/version" => version(),
            _ => unavailable(),
        }),
        Api::new(well),
    ];
    let ended = flotctl(&[&apis[0], &apis[1]], &["start", "a", "--no-block"]);
    assert_eq!((ended.code, ended.out.as_str()), (Some(0), "a.service start ordered\n"), "{ended:?}");
    assert_eq!((apis[0].bodies("POST /v1/orders").len(), apis[1].bodies("POST /v1/orders").len()), (0, 1));
}

/// The first does not know yet that it is cut off, or dies of the question.
#[test]
fn a_read_goes_on_at_the_next_endpoint() {
    for (words, part) in READS {
        for nothing in [unavailable(), Answer::Death] {
            let first = Api::new(move |request| match request.what.as_str() {
                "GET /v1/version" => version(),
                "GET /readyz" => ready(),
                _ => nothing.clone(),
            });
            let ended = flotctl(&[&first, &Api::new(well)], words);
            assert_eq!(ended.code, Some(0), "{words:?}: {ended:?}");
            assert!(ended.out.contains(part), "{words:?}: {ended:?}");
        }
    }
}

#[test]
fn where_nobody_has_an_answer_it_is_said_why() {
    let nothing = |request: &Request| match request.what.as_str() {
        "GET /v1/version" => version(),
        "GET /v1/units" | "GET /readyz" => unavailable(),
        _ => Answer::Death,
    };
    let ended = flotctl(&[&Api::new(nothing), &Api::new(nothing)], &["list-units"]);
    assert_eq!(ended.code, Some(6), "{ended:?}");
    assert!(ended.err.contains("the store does not answer"), "{ended:?}");
    // An answer that the others have too is not asked for again.
    let refuses = |request: &Request| match request.what.as_str() {
        "GET /v1/units" => Answer::Refusal(400, "bad-request", "no such pattern"),
        _ => well(request),
    };
    let apis = [Api::new(refuses), Api::new(refuses)];
    assert_eq!(flotctl(&[&apis[0], &apis[1]], &["list-units"]).code, Some(1));
    assert_eq!(apis[1].asked(), Vec::<String>::new());
}

/// It is for the one that is asked, and another in its place has nothing to accept.
#[test]
fn a_store_is_accepted_by_the_one_that_was_named() {
    let first = Api::new(|request| match request.what.as_str() {
        "GET /v1/version" => version(),
        "POST /v1/accept-store" => Answer::Json(json!({})),
        _ => unavailable(),
    });
    let ended = flotctl(&[&first, &Api::new(well)], &["cluster", "accept-store"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(first.asked(), ["GET /v1/version", "POST /v1/accept-store"]);
}
