//! Makes one machine agree with its manifest: systemd over D-Bus, journal, reports.
//!
//! The agent never decides where a unit runs, and it never sees the engine.

mod agent;
mod board;
mod contents;
mod facts;
mod files;
mod fleet;
mod identity;
pub mod journal;
mod manifest;
mod memory;
mod publisher;
pub mod reconcile;
mod registration;
pub mod status;
pub mod systemd;
mod unit;

pub use agent::{Agent, Outlook, Settings};
pub use facts::{Facts, address_towards};
pub use files::FileError;
pub use identity::Identity;
pub use publisher::Registration;
pub use registration::{RegistrationError, hand_back};
