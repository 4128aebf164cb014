//! Makes one machine agree with its manifest: systemd over D-Bus, journal, reports.
//!
//! The agent never decides where a unit runs, and it never sees the engine. [`reconcile`] decides
//! what is next about one unit (its diagram is there), one task per unit does it, an owner loop
//! holds the tasks and never waits for a unit or the store, a publisher keeps the machine
//! registered and its report written, a keeper remembers in `/var/lib/flotilla`.
//!
//! # What a crash or a delay does
//!
//! All that counts is on the machine and lives as long as its boot: the unit file, the evidence
//! (token, run, hash; written before the start is sent) and its `started` mark.
//!
//! - *Killed between evidence and `StartUnit`*: the evidence is unmarked and systemd shows nothing.
//!   The journal of PID 1 is asked: no start job, so it is started. A journal that cannot tell is
//!   asked again; nothing is started on a guess (a higher run resolves it).
//! - *Killed between `StartUnit` and the mark*: active is marked; activating is waited for; for what
//!   ended meanwhile the journal tells a start that was `done` (marked) from one that failed (tried
//!   again). A oneshot that ran is not run twice.
//! - *Killed after the job, before the report*: the evidence matches; it is adopted and reported.
//! - *The store away*: everything goes on from the last manifest; the board holds the whole report
//!   until it can be written. After a boot, starts wait until the machine is registered and its
//!   manifest heard, at most 60 s; but not while another is registered under this machine's id.
//! - *Back while systemd is silent*: the registration is renewed before anything is read, and written
//!   anew when the whole report is there. A stop at any time before leaves it with its report as it is.
//! - *The lease lost*: units run on; the machine registers anew under a new nonce, in one
//!   transaction with its whole report.
//! - *A departing order while a start is in flight*: the start is dropped and a stop sent, which
//!   takes the place of its job in systemd.
//! - *The same unit departing under one token and placed under another*: the first is stopped and
//!   at rest before the second's evidence replaces its own; that evidence then proves the first gone.
//! - *A reboot*: no evidence, so launched units start once; departing ones are reported gone.
//! - *A oneshot that succeeded, a unit stopped by hand*: started and inactive; left so. The journal
//!   tells the second, which is reported.
//! - *Other content in the manifest*: acted on with the next token or run: stop, until systemd has
//!   forgotten the unit, write, start. Under the same token and run a launched unit is left alone.
//! - *Killed while taking over a unit of the machine's own*: before systemd was told to reload nothing has
//!   changed for it, afterwards it has the unit from flotilla's file; the ledger says that it is under way,
//!   and the next agent goes on with every step. Ordered to leave before the reload, its files are put back.
//! - *A manifest older than what was started* (token or run): left alone and reported.
//!
//! # What `seen` promises
//!
//! No order before it will be carried out any more: for each unit, either its orders did not change
//! since, or its task has taken the newer ones up, which means that a start which only the older
//! ones wanted has ended or was dropped. Its job may still be in systemd; so `gone` is said of a
//! placement only when nothing of it is on the machine, or after a stop job of this agent's own
//! ended in `done` with the unit at rest and its control group empty, and no start unanswered.

pub mod adoption;
mod agent;
mod board;
mod contents;
mod facts;
mod files;
mod fleet;
mod identity;
pub mod journal;
mod known;
mod manifest;
mod memory;
mod publisher;
pub mod reconcile;
mod registration;
pub mod session;
pub mod status;
pub mod systemd;
mod unit;
pub mod usage;

pub use agent::{Agent, AgentError, Outlook, Settings, keep_registration};
pub use facts::{Facts, address_towards};
pub use files::FileError;
pub use identity::Identity;
pub use known::Known;
pub use publisher::Registration;
pub use registration::{RegistrationError, hand_back};
