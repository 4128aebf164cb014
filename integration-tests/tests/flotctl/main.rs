//! What users touch, on a real machine: every command and every option of flotctl, and every route
//! of the API. What there is to touch is taken from `--help` and from the OpenAPI document, so that
//! what is added without a row here fails.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod api;
mod apply;
mod authority;
mod certificate;
mod changes;
mod commands;
mod coverage;
mod http;
mod journal;
mod lists;
mod machine;
mod outage;
mod resume;
mod schema;
mod ssh;
mod texts;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use world::World;

/// What is shown of one command, after the commands before it.
type Row = (&'static str, fn(&World));

#[test]
fn every_command_and_every_option_does_what_the_guide_says() {
    let world = World::new("flotctl");
    commands::prepare(&world);
    let rows = [
        &lists::ROWS[..],
        &changes::ROWS,
        &commands::ROWS,
        &texts::ROWS,
        &machine::ROWS,
        &apply::ROWS,
        &journal::ROWS,
        &ssh::ROWS,
        &authority::ROWS,
    ]
    .concat();
    let mut failed = Vec::new();
    for (command, show) in &rows {
        println!("flotctl {command}");
        if catch_unwind(AssertUnwindSafe(|| show(&world))).is_err() {
            failed.push(command);
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
    coverage::check(&world, &rows);
    let journal = world.machine().journal(&[]).unwrap();
    assert!(!journal.contains("panicked"), "{journal}");
}

#[test]
fn every_route_of_the_api_answers_as_its_document_says() {
    let world = World::new("api");
    commands::prepare(&world);
    api::every_route(&world);
    resume::nothing_is_lost_over_lost_connections(&world);
}

#[test]
fn the_first_request_of_a_route_is_not_at_fault_itself() {
    api::first_is_answered_best();
}

#[test]
fn an_outage_of_the_store_loses_nothing_of_what_is_followed() {
    let world = World::new("outage");
    commands::prepare(&world);
    outage::streams_go_on(&world);
}

#[test]
fn a_machines_certificate_alone_reads_what_is_flotillas_and_changes_nothing() {
    certificate::a_certificate_alone();
}
