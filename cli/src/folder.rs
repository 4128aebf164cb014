//! A folder of unit files, as it lies in git: what the cluster should have.
//!
//! Owns what the folder's files mean (`read.rs`), what is wanted of the units (`targets.rs`), and what has
//! to be done for the cluster to agree (`difference.rs`, pure), and whether it may take anything away
//! (`prune.rs`). `flotctl diff` and `flotctl apply` call it; it never talks to the cluster.
//!
//! ```text
//!   shop/
//!     flotilla.toml          which set this is, and what is wanted of which unit
//!     web@.service           a template
//!     web@.service.d/10.conf a drop-in: becomes part of the template's text
//!     web@1.service          a link to its template: this instance is wanted
//!     db/database.service    folders below are read too
//! ```

pub(crate) mod difference;
mod prune;
mod read;
mod targets;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use flotilla_api::unit::Target;
use flotilla_units::{ContentHash, UnitName};

/// What a folder says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Folder {
    /// The name under which an apply remembers what it made.
    pub(crate) set: String,
    /// The set was named by a person, and not by what the folder is called.
    pub(crate) set_is_named: bool,
    /// The unit files, drop-ins included; those of templates too.
    pub(crate) files: BTreeMap<UnitName, File>,
    /// What is wanted of each unit and instance; templates are not in it.
    pub(crate) targets: BTreeMap<UnitName, Target>,
    /// What was found and is no unit file.
    pub(crate) ignored: Vec<PathBuf>,
}

/// One unit's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct File {
    /// The text, with that of its drop-ins behind it.
    pub(crate) text: String,
    /// The files that it was made of.
    pub(crate) of: Vec<PathBuf>,
}

impl File {
    /// Returns the text's identity.
    pub(crate) fn hash(&self) -> ContentHash {
        ContentHash::of(self.text.as_bytes())
    }
}

/// Reads a folder. `set` is its name where the command line gives one.
///
/// # Errors
/// Something in it cannot be read or makes no sense; the message names the file and what was expected.
pub(crate) fn read(path: &Path, set: Option<&str>) -> anyhow::Result<Folder> {
    let found = read::walk(path)?;
    let units = read::units(&found)?;
    let config = targets::read(path)?;
    let (set, set_is_named) = targets::set(path, &config, set)?;
    let targets = targets::targets(path, &config, &units)?;
    for instance in targets.keys() {
        read::check_instance(instance, &units)?;
    }
    Ok(Folder { set, set_is_named, files: units.files, targets, ignored: found.ignored })
}
