//! The whole program against an API that a test makes up: what it prints, asks and exits with.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod api;
mod apply;
mod complete;
mod edit;
mod machines;
mod missing;
mod moves;
mod orders;
mod output;
mod ranges;
mod reads;
mod ssh;
mod statuses;
