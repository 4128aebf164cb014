//! A unit's text, parsed once for all units that have it.

use std::sync::Arc;

use flotilla_registry::store::Revision;
use flotilla_units::{
    ContentHash, Problems, Requirements, RequirementsError, UnitFile, UnitName, UnitRequirements,
};

/// A text under `contents/`, with what it asks for.
#[derive(Debug, Clone)]
pub struct Content {
    pub(super) written: Revision,
    pub(super) bytes: usize,
    file: Result<Arc<(UnitFile, Requirements)>, ContentError>,
}

/// Why a text is of no use.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ContentError {
    /// The value does not have the hash that its key says.
    #[error(
        "the text under this key has hash {0}: it was changed behind flotilla's back; submit the same file again"
    )]
    WrongHash(ContentHash),
    /// It is not a unit file, or what it asks for makes no sense.
    #[error("{0}")]
    Problems(Arc<Problems>),
    /// It makes no sense for a unit of this name.
    #[error("{0}")]
    Requirements(Arc<RequirementsError>),
}

impl Content {
    /// Reads a text that was last written at a revision; at zero, one that is not stored yet.
    #[must_use]
    pub(crate) fn read(hash: ContentHash, text: &[u8], written: Revision) -> Self {
        let (found, bytes) = (ContentHash::of(text), text.len());
        if found != hash {
            return Self { written, bytes, file: Err(ContentError::WrongHash(found)) };
        }
        let problems = |problems| ContentError::Problems(Arc::new(problems));
        let file = UnitFile::parse(&hash.short(), text).map_err(problems);
        Self {
            written,
            bytes,
            file: file.and_then(|file| {
                let requirements = file.requirements().map_err(problems)?;
                Ok(Arc::new((file, requirements)))
            }),
        }
    }

    /// Returns the unit file.
    ///
    /// # Errors
    /// The text is not one.
    pub fn file(&self) -> Result<&UnitFile, &ContentError> {
        self.file.as_ref().map(|file| &file.0)
    }

    /// Returns what a unit of this name with this content asks for.
    ///
    /// # Errors
    /// The text is not a unit file, or its specifiers make no sense for this name.
    pub fn requirements(&self, unit: &UnitName) -> Result<Arc<UnitRequirements>, ContentError> {
        let requirements = &self.file.as_ref().map_err(Clone::clone)?.1;
        requirements.for_unit(unit).map_err(|error| ContentError::Requirements(Arc::new(error)))
    }
}
