//! Orders, and the wait until they have come true.

use serde_json::json;

use crate::api::{Answer, Api, everything, flotctl, outcome, unit};

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
