//! Boots a cluster of real systemd machines on one computer.
//!
//! Owns machines (systemd as PID 1 in systemd-nspawn, each with its own machine
//! id, address, D-Bus, journal and control groups), the switch between them, and
//! the etcd members beside them; and everything that can be done to them: cut,
//! killed, frozen, rebooted. Of flotilla it knows how it is installed
//! ([`Lab::make_cluster`]), and nothing of what is inside: it links none of its
//! crates. Called by `cargo xtask lab`, the demo, the benchmarks, and the tests that
//! need real machines.
//!
//! # Guarantees
//!
//! - Nothing outside the lab's directory, network namespaces and control groups is
//!   touched: the host's own networking and systemd stay as they are.
//! - All of it is named after the lab ([`Name`]), so [`Lab::down`] leaves nothing
//!   behind, also when an earlier process died half-way: what belongs to a lab is
//!   found by its name, not by a record that may be out of date.
//! - No systemd is started unless it is alone in control groups of its own, in
//!   every hierarchy. One that is not moves every process of the host into its
//!   own scope, and soon nothing can fork.
//!
//! # Addresses
//!
//! Every lab uses 10.77.0.0/16 inside namespaces of its own, so two labs never
//! meet: the switch is 10.77.0.1, etcd member *i* 10.77.0.10+i, machine *i*
//! 10.77.1.i. A test on the host reaches them from a thread that has entered the
//! switch's namespace: [`Lab::in_network`], or [`Network::enter`] for the threads
//! of a runtime.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod archive;
mod cluster;
mod command;
mod control_group;
mod etcd;
mod lab;
mod layer;
mod leftovers;
mod machine;
mod name;
mod network;
mod node;
mod virtual_machine;
mod wait;

pub use cluster::{Installation, wait_formed};
pub use etcd::Member;
pub use lab::{Image, Lab, Options};
pub use machine::Machine;
pub use name::Name;
pub use network::Network;
pub use node::Node;
pub use virtual_machine::VirtualMachine;
pub use wait::eventually;
