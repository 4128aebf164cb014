//! fleet's HTTP API as an independent client meets it: raw sockets, requests written by hand, and what is
//! expected taken from fleet's own behaviour. Every row of its API, good and bad. fleet's own client is
//! not among the tests.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test that cannot go on fails")]
#![allow(
    clippy::disallowed_methods,
    reason = "the client is a plain thread; the cluster has a runtime of its own"
)]

mod calls;
mod certificates;
mod doors;
mod fleetctl;
mod instances;
mod machines;
mod pages;
mod shape;
mod states;
mod units;
mod wire;
mod world;
