//! What a unit is: file syntax, names, requirements, hashing, validation.
//!
//! This crate is pure: it reads text and returns values. It never touches a
//! file, a socket, a clock or a random number.

mod amount;
mod choice;
mod escape;
mod file;
mod fleet;
mod fuzz;
mod glob;
mod id;
mod install;
mod name;
mod prefer;
mod problem;
mod range;
mod requirements;
mod reservation;
mod selector;
mod source;
mod specifier;
mod suggest;
mod syntax;
mod validate;
mod version;
mod words;

pub use choice::MachineChoice;
pub use escape::{EscapeError, escape, escape_path, unescape, unescape_path};
pub use file::{Assignment, MAX_BYTES, UnitFile};
pub use fleet::{FleetError, FleetOption, fleet_hash, fleet_normal_form, fleet_options};
#[doc(hidden)]
pub use fuzz::fuzz;
pub use glob::{GLOB_MAX, Glob, GlobError};
pub use id::{ContentHash, IdError, MachineId};
pub use install::{Install, Wants};
pub use name::{NAME_MAX, NameError, UnitName, UnitType};
pub use prefer::{PreferTerm, Preference};
pub use problem::{MAX_PROBLEMS, Place, Problem, ProblemKind, Problems, SHOWN_CHARS};
pub use range::{INSTANCES_MAX, RANGE_MAX, RangeError, UnitRange};
pub use requirements::{
    MAX_VALUES, OnPartition, Requirements, RequirementsError, UnitRequirements, option_names,
};
pub use reservation::Reservation;
pub use selector::{Comparison, Is, Selector, SelectorError};
pub use source::SourceName;
pub use version::compare_versions;
pub use words::{Escapes, Word, WordError, quote_word, split_words};
