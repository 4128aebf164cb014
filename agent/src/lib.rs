//! Makes one machine agree with its manifest: systemd over D-Bus, journal, reports.
//!
//! The agent never decides where a unit runs, and it never sees the engine.

pub mod reconcile;
pub mod systemd;
