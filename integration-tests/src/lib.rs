//! Tests that cross crates: simulated clusters and real clusters in the lab.
//!
//! The library is what such tests share: how one gets a booted lab, and what is
//! printed when it fails. The tests themselves are in `tests/`; those that need
//! root are behind the feature `lab`, which `cargo xtask test` switches on.

mod alone;
mod cluster;
mod counter;
mod daemon;
mod follower;
mod person;
mod real;
pub mod transcript;

use std::time::Duration;

pub use alone::alone;
pub use cluster::{Cluster, Invocations};
pub use counter::{COUNT, COUNT_AT, COUNTER};
pub use daemon::{ready_flotillad, replaced};
pub use flotilla_lab::eventually;
pub use follower::Follower;
pub use person::Person;
pub use real::{TestLab, another_build, binary, is_upgraded, lab, lab_directory, lab_with};

/// How long anything in a lab may take on a busy computer: what a test waits for that has to come. A
/// goal for how soon it comes is a constant of the test's own.
pub const LIMIT: Duration = Duration::from_secs(60);

/// A unit file that runs until it is stopped.
pub const SLEEPER: &str = "[Service]\nExecStart=/bin/sleep infinity\n";

/// Runs until it is stopped, and says its name in `/run/stopped` then.
pub const SAYS_STOPPED: &str =
    "[Service]\nExecStart=/bin/sleep infinity\nExecStop=/bin/sh -c 'echo %n >>/run/stopped'\n";
