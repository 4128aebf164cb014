//! What a unit is: file syntax, names, requirements, hashing, validation.
//!
//! This crate is pure: it reads text and returns values. It never touches a
//! file, a socket, a clock or a random number.

mod id;
mod name;

pub use id::{ContentHash, IdError, MachineId};
pub use name::{NameError, UnitName, UnitType};
