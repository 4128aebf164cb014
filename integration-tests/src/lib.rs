//! Tests that cross crates: simulated clusters and real clusters in the lab.
//!
//! The library is what such tests share: how one gets a booted lab, and what is
//! printed when it fails. The tests themselves are in `tests/`; those that need
//! root are behind the feature `lab`, which `cargo xtask test` switches on.

mod cluster;
mod counter;
mod person;
mod real;

use std::time::Duration;

pub use cluster::{Cluster, Invocations};
pub use counter::{COUNT, COUNT_AT, COUNTER};
pub use flotilla_lab::eventually;
pub use person::Person;
pub use real::{TestLab, binary, lab, lab_directory, lab_with};

/// How long anything in a lab may take on a busy computer.
pub const LIMIT: Duration = Duration::from_secs(30);
