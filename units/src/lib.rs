//! What a unit is: file syntax, names, requirements, hashing, validation.
//!
//! This crate is pure: it reads text and returns values. It never touches a
//! file, a socket, a clock or a random number.

mod glob;
mod id;
mod name;
mod requirements;

pub use glob::{Glob, GlobError};
pub use id::{ContentHash, IdError, MachineId};
pub use name::{NAME_MAX, NameError, UnitName, UnitType};
pub use requirements::{OnPartition, UnitRequirements};
