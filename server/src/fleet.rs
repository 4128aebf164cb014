//! fleet's own HTTP API: `/fleet/v1`, and `/v1-alpha`, which is the same under an older name.
//!
//! Clients that were made for CoreOS fleet find paths, bodies, status codes, error shape and page
//! tokens as fleet served them. What was a defect there is mended here; docs/api-fleet.md lists each
//! difference with its reason. Reads come from a seat's state, writes go through the registry's
//! operations: nothing is decided here, and nothing of flotilla is left out of sight but what fleet
//! had no word for.
//!
//! | file | what |
//! | --- | --- |
//! | `schema.rs` | the bodies |
//! | `normal.rs` | a unit's text as options, and back; fleet's hash of it |
//! | `page.rs` | tokens of pages |
//! | `units.rs`, `put.rs` | units: lists, texts, targets |
//! | `states.rs` | what systemd says of them |
//! | `machines.rs` | machines and their metadata |
//! | `discovery.rs` | the API's description of itself |
//! | `refusal.rs` | how it says no |

mod discovery;
mod machines;
mod normal;
mod page;
mod put;
mod refusal;
mod schema;
mod states;
mod units;

use std::sync::Arc;

use axum::{
    Router,
    middleware::from_fn_with_state,
    routing::{MethodRouter, any, get, put},
};

use self::refusal::Refusal;
use crate::{forward, node::Node, routes};

pub(crate) use refusal::speak;

/// The paths below which it is served.
const BASES: [&str; 2] = ["/fleet/v1", "/v1-alpha"];

/// What a resource takes, and how that is said of it.
type Takes = (&'static str, &'static str);

const NOTHING: Takes = ("", "no method is supported against this resource");
const READ: Takes = ("GET", "only GET supported against this resource");
const ITEM: Takes = ("GET, PUT, DELETE", "only GET, PUT and DELETE supported against this resource");
const MACHINES: Takes = ("GET, PATCH", "only GET and PATCH supported against this resource");

/// Returns all routes.
pub(crate) fn routes(node: &Arc<Node>) -> Router<Arc<Node>> {
    // Only what is answered from the cluster's state goes to a seat: a wrong method is known here.
    let at_seat = |route: MethodRouter<Arc<Node>>| {
        route.route_layer(from_fn_with_state(Arc::clone(node), forward::to_seat))
    };
    let nothing = || any(async || Refusal::nothing_here());
    let no_method = || any(async || Refusal::wrong_method(NOTHING));
    let mut router = Router::new().route("/", no_method());
    for base in BASES {
        router = router
            .route(base, no_method())
            .route(&format!("{base}/"), nothing())
            .route(&format!("{base}/{{*rest}}"), nothing())
            .route(&format!("{base}/units"), only(at_seat(get(units::list)), READ))
            .route(
                &format!("{base}/units/{{name}}"),
                only(at_seat(get(units::get).delete(units::destroy).merge(put(put::set))), ITEM),
            )
            .route(&format!("{base}/state"), only(at_seat(get(states::list)), READ))
            .route(&format!("{base}/state/{{name}}"), only(at_seat(get(states::get)), READ))
            .route(
                &format!("{base}/machines"),
                only(at_seat(get(machines::list).patch(machines::patch)), MACHINES),
            )
            .route(&format!("{base}/discovery"), discovery::route())
            .route(&format!("{base}/metrics"), only(get(routes::metrics), READ));
    }
    router
}

/// Refuses every other method, HEAD as well, as fleet did.
fn only(route: MethodRouter<Arc<Node>>, takes: Takes) -> MethodRouter<Arc<Node>> {
    let refuse = async move || Refusal::wrong_method(takes);
    route.head(refuse).fallback(refuse)
}

/// Tells whether a path is answered as fleet did.
fn is_fleets(path: &str) -> bool {
    let below =
        |base: &&str| path.strip_prefix(*base).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    path == "/" || BASES.iter().any(below)
}
