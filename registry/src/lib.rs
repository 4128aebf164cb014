//! What the cluster knows: keys, records, the store, sessions, election, change streams.
//!
//! Nothing outside this crate spells a key or names etcd. Nothing inside it decides
//! what runs where.

pub mod election;
pub mod events;
mod held_key;
pub mod keys;
pub mod operations;
pub mod reads;
pub mod records;
pub mod seats;
pub mod session;
pub mod store;
pub mod stream;
pub mod timing;
mod windows;
pub mod witness;

pub use election::random_id as new_id;
