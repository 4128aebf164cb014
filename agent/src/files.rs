//! Files that are whole or not there: written beside, then renamed.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// Why a file was not written.
#[derive(Debug, thiserror::Error)]
#[error("{path} cannot be written")]
pub struct FileError {
    /// Which.
    pub path: String,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// Tells the files of writers apart that replace the same file at once.
static WRITERS: AtomicU64 = AtomicU64::new(0);

/// Makes a file have this content, with its folder, so that a crash leaves the old or the new.
///
/// # Errors
/// The disk is full, or the path is not writable.
pub(crate) fn replace(path: &Path, content: &[u8]) -> Result<(), FileError> {
    let failed = |source| FileError { path: path.display().to_string(), source };
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(failed)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let writer = WRITERS.fetch_add(1, Ordering::Relaxed);
    let beside = folder.join(format!(".{name}.{}-{writer}", std::process::id()));
    let written = std::fs::File::create(&beside)
        .and_then(|mut file| {
            file.write_all(content)?;
            file.sync_all()
        })
        .and_then(|()| std::fs::rename(&beside, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    written.map_err(failed)
}

/// [`replace`], off the runtime's threads.
///
/// # Errors
/// As [`replace`].
pub(crate) async fn replace_async(path: PathBuf, content: Vec<u8>) -> Result<(), FileError> {
    let shown = path.display().to_string();
    match tokio::task::spawn_blocking(move || replace(&path, &content)).await {
        Ok(result) => result,
        Err(ended) => Err(FileError { path: shown, source: io::Error::other(ended) }),
    }
}
