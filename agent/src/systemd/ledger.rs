//! The machine's own files of units that were taken over, and how far the taking has come.
//!
//! ```text
//! /var/lib/flotilla/adopted/<unit>/ledger.json   what was taken, and whether it is done
//! /var/lib/flotilla/adopted/<unit>/files/...     the files, where they were below the root
//! ```
//!
//! Everything is copied, and on the disk, before the first file is removed; nothing in here is ever
//! deleted that is not where it came from again. Written by flotillad; read by it, and by people who
//! put the files back (`cp -a files/. /`).

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use flotilla_units::{ContentHash, UnitName};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Layout, SystemdError, survey::is_same};
use crate::{adoption::Found, files};

/// The record of one unit that was taken over.
///
/// ```text
/// taking ──(systemd has flotilla's file)──▶ taking, ours ──(evidence)──▶ done
///    └─ may be put back                        └─ may only be gone on with
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The text that it runs with.
    pub(super) hash: ContentHash,
    /// It is under way: systemd may have the unit from either file.
    pub(super) taking: bool,
    /// systemd has the unit from flotilla's file: what is left is to note it, and nothing is put back any
    /// more, wherever the unit goes from here.
    #[serde(default)]
    pub(super) ours: bool,
    /// What is moved.
    pub(super) moved: Vec<PathBuf>,
    /// What is not, and is overridden by flotilla's file.
    pub(super) stays: Vec<PathBuf>,
    /// What ran then (`InvocationID`).
    pub(super) invocation: Option<String>,
    /// When it was begun.
    pub(super) at: Timestamp,
}

/// What is kept of one unit.
#[derive(Debug, Clone)]
pub(super) struct Ledger {
    folder: PathBuf,
    /// Where flotilla's own links lead to: they are not to be taken for the machine's.
    links_to: PathBuf,
}

impl Ledger {
    pub(super) fn of(unit: &UnitName, layout: &Layout) -> Self {
        Self { folder: layout.adopted.join(unit.as_str()), links_to: layout.units().join(unit.as_str()) }
    }

    /// Returns what is noted; `None` when nothing was ever taken.
    pub(super) fn read(&self) -> Result<Option<Record>, SystemdError> {
        let path = self.path();
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(failed("cannot read", &path, e)),
        };
        let wrong = |e: serde_json::Error| failed("cannot read", &path, io::Error::other(e));
        serde_json::from_slice(&bytes).map(Some).map_err(wrong)
    }

    /// Tells whether a file is one that flotilla's overrides by the word of whoever gave the unit away.
    pub(super) fn overrides(&self, path: &Path) -> bool {
        let record = self.read().ok().flatten();
        record.is_some_and(|record| record.stays.iter().any(|stays| is_same(stays, path)))
    }

    /// Copies what is to be moved, and notes that it is being taken. Until then nothing has changed.
    pub(super) fn begin(
        &self,
        found: &Found,
        hash: ContentHash,
        invocation: Option<String>,
    ) -> Result<Record, SystemdError> {
        self.make_way()?;
        let record = Record {
            hash,
            taking: true,
            ours: false,
            moved: found.moves.iter().map(PathBuf::from).collect(),
            stays: found.stays.iter().map(PathBuf::from).collect(),
            invocation,
            at: Timestamp::now(),
        };
        for path in &record.moved {
            let copy = self.copy_of(path);
            copy_to(path, &copy).map_err(|e| failed("cannot copy", path, e))?;
        }
        self.write(&record)?;
        Ok(record)
    }

    /// Removes the files from where they were; false if one is another than was copied.
    pub(super) fn take(&self, record: &Record) -> Result<bool, SystemdError> {
        for path in &record.moved {
            if self.is_away(path)? {
                continue;
            }
            if !is_equal(path, &self.copy_of(path)).map_err(|e| failed("cannot compare", path, e))? {
                return Ok(false);
            }
            fs::remove_file(path).map_err(|e| failed("cannot remove", path, e))?;
            let Some(mut folder) = path.parent() else { continue };
            // Not while there is something else in it.
            if folder.extension().is_some_and(|it| it == "d") && fs::remove_dir(folder).is_ok() {
                folder = folder.parent().unwrap_or(folder);
            }
            // A machine that loses its power must not start it as its own again.
            fs::File::open(folder)
                .and_then(|it| it.sync_all())
                .map_err(|e| failed("cannot sync", folder, e))?;
        }
        Ok(true)
    }

    /// Notes that systemd has the unit from flotilla's file, before any evidence of it is written.
    pub(super) fn pass_over(&self, record: &Record) -> Result<(), SystemdError> {
        self.write(&Record { ours: true, ..record.clone() })
    }

    /// Notes that it is done.
    pub(super) fn finish(&self, record: &Record) -> Result<(), SystemdError> {
        self.write(&Record { taking: false, ours: true, ..record.clone() })
    }

    /// Finishes what there is evidence of: an agent was killed, or the disk was full, between the two.
    pub(super) fn settle(&self) -> Result<(), SystemdError> {
        match self.read()?.filter(|record| record.taking) {
            Some(record) => self.finish(&record),
            None => Ok(()),
        }
    }

    /// Puts every file that is away back to where it was, and forgets that anything was taken. What is
    /// flotilla's already is not: it may run on another machine by now.
    pub(super) fn put_back(&self, record: &Record) -> Result<(), SystemdError> {
        if record.ours {
            return self.finish(record);
        }
        for path in &record.moved {
            if self.is_away(path)? {
                copy_to(&self.copy_of(path), path).map_err(|e| failed("cannot put back", path, e))?;
            }
        }
        fs::remove_dir_all(&self.folder).map_err(|e| failed("cannot remove", &self.folder, e))
    }

    fn path(&self) -> PathBuf {
        self.folder.join("ledger.json")
    }

    fn copy_of(&self, path: &Path) -> PathBuf {
        self.folder.join("files").join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Tells whether a file is not where it was: gone, or flotilla's own link is there.
    fn is_away(&self, path: &Path) -> Result<bool, SystemdError> {
        if fs::read_link(path).is_ok_and(|to| to == self.links_to) {
            return Ok(true);
        }
        match fs::symlink_metadata(path) {
            Ok(_) => Ok(false),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(e) => Err(failed("cannot look at", path, e)),
        }
    }

    /// Makes way for a new taking: what was taken earlier is kept under another name.
    fn make_way(&self) -> Result<(), SystemdError> {
        let made_way = match self.read()? {
            Some(record) => {
                let mut aside = self.folder.clone().into_os_string();
                // systemd allows no `~` in the name of a unit.
                aside.push(format!("~{}", record.at.as_millisecond()));
                fs::rename(&self.folder, aside)
            }
            // What is there without a ledger are copies of what is still in its place.
            None => fs::remove_dir_all(&self.folder),
        };
        match made_way {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(failed("cannot make way in", &self.folder, e))
            }
            _ => Ok(()),
        }
    }

    fn write(&self, record: &Record) -> Result<(), SystemdError> {
        let path = self.path();
        // A record of strings and numbers always has a form in JSON.
        let text = serde_json::to_vec_pretty(record).unwrap_or_default();
        files::replace(&path, &text).map_err(|e| failed("cannot write", &path, e.source))?;
        let synced = fs::File::open(&self.folder).and_then(|folder| folder.sync_all());
        synced.map_err(|e| failed("cannot write", &self.folder, e))
    }
}

/// Copies a file or a link, with mode and times: systemd takes one that is as old as before for the same.
fn copy_to(from: &Path, to: &Path) -> io::Result<()> {
    let folder = to.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder)?;
    let about = fs::symlink_metadata(from)?;
    if about.is_symlink() {
        symlink(fs::read_link(from)?, to)?;
    } else {
        // Beside it first: half a unit file must never be where systemd looks.
        let beside = folder.join(format!(".{}~new", to.file_name().unwrap_or_default().to_string_lossy()));
        fs::copy(from, &beside)?;
        let file = fs::OpenOptions::new().write(true).open(&beside)?;
        file.set_modified(about.modified()?)?;
        file.sync_all()?;
        fs::rename(&beside, to)?;
    }
    fs::File::open(folder)?.sync_all()
}

fn is_equal(one: &Path, other: &Path) -> io::Result<bool> {
    match (fs::symlink_metadata(one)?.is_symlink(), fs::symlink_metadata(other)?.is_symlink()) {
        (true, true) => Ok(fs::read_link(one)? == fs::read_link(other)?),
        (false, false) => Ok(fs::read(one)? == fs::read(other)?),
        _ => Ok(false),
    }
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> SystemdError {
    SystemdError::File { action, path: path.display().to_string(), source }
}

#[cfg(test)]
mod tests;
