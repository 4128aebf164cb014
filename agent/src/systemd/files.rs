//! The files that make a unit flotilla's: text, links, drop-in, evidence.
//!
//! ```text
//! /run/flotilla/units/<unit>            the text, and with it the ownership
//! /run/flotilla/env/<unit>              the evidence of what was started last
//! /run/flotilla/started/<unit>          the token and run whose start ended in `done`
//! /run/flotilla/pulled/<unit>           a stop of another unit stopped it, or is about to
//! /run/flotilla/drop-in/<type>.conf     the drop-in that all units of a type share
//! /run/flotilla/wanted/<unit>           the links below that its `[Install]` made
//! /run/systemd/system/<unit>            -> /run/flotilla/units/<unit>
//! /run/systemd/system/<unit>.d/50-flotilla.conf -> /run/flotilla/drop-in/<type>.conf
//! /run/systemd/system/<other>.wants/<unit> -> /run/flotilla/units/<unit>
//! ```
//!
//! Every file is written beside its place and renamed, so that a full disk leaves the old one. What a
//! unit that runs needs to be started anew is written beside before it is stopped, and what lies
//! beside is written over in its place: the room that it has is kept through any full disk. Nothing
//! is ever synced: `/run` is memory. Nothing in here waits or asks systemd anything; each call is
//! a few system calls on a file system in memory, so it is made without leaving the task, and a
//! caller that is dropped has made all of it or none.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Write as _},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
};

use flotilla_registry::records::Token;
use flotilla_units::{ContentHash, MachineId, UnitName};
use jiff::Timestamp;

use super::{Evidence, Layout, Pulled, SystemdError, ledger::Ledger};

mod pulled;
mod wanted;

/// The drop-in's name below `<unit>.d`. Fifty leaves room for a machine's own ones on both sides.
pub(super) const DROP_IN: &str = "50-flotilla.conf";

/// The longest name of a file, in bytes (`NAME_MAX`), less what a temporary name adds to it.
const LONGEST_NAME: usize = 255 - TEMPORARY.len();

/// Marks a file that is being written. systemd allows no `~` in the name of a unit.
const TEMPORARY: &str = "~new";

/// Owns the files below one [`Layout`].
#[derive(Debug, Clone)]
pub(super) struct Files {
    layout: Layout,
    machine: MachineId,
}

/// What is on disk under a unit's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OnDisk {
    pub(super) file: Option<ContentHash>,
    pub(super) evidence: Option<Evidence>,
    /// When the evidence was written.
    pub(super) at: Option<Timestamp>,
    /// What stopped it with itself, of what was started under this evidence.
    pub(super) pulled: Option<Pulled>,
}

impl Files {
    pub(super) fn new(layout: Layout, machine: MachineId) -> Self {
        Self { layout, machine }
    }

    /// Makes the directories, and the drop-ins that units of a type share.
    ///
    /// What is as it should be is not written again, and a drop-in that cannot be written is told
    /// and gone on without: a full `/run` must not keep a restarted agent from the units that run,
    /// and whatever needs the drop-in tries again ([`install`](Self::install)).
    pub(super) fn prepare(&self) -> Result<(), SystemdError> {
        let directories = [
            self.layout.units(),
            self.layout.env(),
            self.layout.started(),
            self.layout.drop_ins(),
            self.layout.wanted(),
            self.layout.pulled(),
        ];
        for directory in directories.iter().chain([&self.layout.links]) {
            fs::create_dir_all(directory).map_err(|e| failed("cannot make", directory, e))?;
        }
        // The evidence is nobody's secret, but who may write it decides what is believed.
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(&self.layout.run, mode)
            .map_err(|e| failed("cannot protect", &self.layout.run, e))?;
        for kind in ["service", "socket", "mount", "swap", ORDERED, PLAIN] {
            if let Err(error) = self.share_drop_in(kind) {
                tracing::warn!(%error, "units of this type cannot be installed for now");
            }
        }
        Ok(())
    }

    /// Returns the names of all units that have a file or evidence here.
    pub(super) fn names(&self) -> Result<BTreeSet<UnitName>, SystemdError> {
        let mut names = BTreeSet::new();
        for directory in [self.layout.units(), self.layout.env()] {
            let entries = fs::read_dir(&directory).map_err(|e| failed("cannot list", &directory, e))?;
            for entry in entries {
                let entry = entry.map_err(|e| failed("cannot list", &directory, e))?;
                let name = entry.file_name();
                let Some(name) = name.to_str().filter(|n| !n.ends_with(TEMPORARY)) else { continue };
                match name.parse() {
                    Ok(name) => _ = names.insert(name),
                    Err(e) => {
                        tracing::warn!(path = %entry.path().display(), "not flotilla's, left alone: {e}")
                    }
                }
            }
        }
        Ok(names)
    }

    pub(super) fn read(&self, unit: &UnitName) -> Result<OnDisk, SystemdError> {
        let text = read(&self.layout.units().join(unit.as_str()))?;
        let env = read(&self.layout.env().join(unit.as_str()))?;
        let env = env.as_deref().map(String::from_utf8_lossy);
        let evidence = self.evidence_in(unit, env.as_deref())?;
        let at = env.as_deref().and_then(|env| value(env, "FLOTILLA_AT")?.parse().ok());
        let pulled = match &evidence {
            Some(evidence) if evidence.started => self.pulled(unit, evidence)?,
            _ => None,
        };
        Ok(OnDisk {
            file: text.map(|text| ContentHash::of(&text)),
            evidence,
            at: at.and_then(|us| Timestamp::from_microsecond(us).ok()),
            pulled,
        })
    }

    /// Returns what was started last under a unit's name.
    fn evidence(&self, unit: &UnitName) -> Result<Option<Evidence>, SystemdError> {
        let env = read(&self.layout.env().join(unit.as_str()))?;
        self.evidence_in(unit, env.as_deref().map(String::from_utf8_lossy).as_deref())
    }

    fn evidence_in(&self, unit: &UnitName, env: Option<&str>) -> Result<Option<Evidence>, SystemdError> {
        let Some(mut evidence) = env.and_then(parse_evidence) else { return Ok(None) };
        let started = read(&self.layout.started().join(unit.as_str()))?;
        let started = started.as_deref() == Some(started_text(&evidence).as_bytes());
        evidence.started = started && !evidence.loaded;
        Ok(Some(evidence))
    }

    /// Refuses a unit that is the machine's own: one of this name, or of its template's name,
    /// anywhere that systemd looks, that is not our link. A package's file of a unit that was taken over
    /// is overridden.
    ///
    /// systemd would take our file for `web@1.service` although the machine has a `web@.service`,
    /// but whoever wrote that template means its instances to be theirs.
    pub(super) fn refuse_foreign(&self, unit: &UnitName) -> Result<(), SystemdError> {
        refuse_unusable(unit)?;
        let template = unit.template();
        for directory in &self.layout.search {
            for name in [Some(unit), template.as_ref()].into_iter().flatten().map(UnitName::as_str) {
                let path = directory.join(name);
                let there = match fs::symlink_metadata(&path) {
                    Ok(there) => there,
                    Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                    Err(e) => return Err(failed("cannot look at", &path, e)),
                };
                let ours = there.is_symlink()
                    && *directory == self.layout.links
                    && fs::read_link(&path).is_ok_and(|to| to == self.layout.units().join(name));
                if !ours && !Ledger::of(unit, &self.layout).overrides(&path) {
                    return Err(foreign(unit, &path));
                }
            }
        }
        Ok(())
    }

    /// Returns whether systemd loaded a unit from our file.
    pub(super) fn is_ours(&self, unit: &UnitName, fragment: &str) -> bool {
        let fragment = Path::new(fragment);
        [self.layout.links.join(unit.as_str()), self.layout.units().join(unit.as_str())]
            .iter()
            .any(|ours| ours == fragment)
    }

    /// Makes room for a unit's text, if it is to be another, and for its evidence, beside those that
    /// are in use.
    pub(super) fn make_room(
        &self,
        unit: &UnitName,
        text: Option<&str>,
        evidence: &Evidence,
    ) -> Result<(), SystemdError> {
        refuse_unusable(unit)?;
        if let Some(text) = text {
            let path = self.layout.units().join(unit.as_str());
            write_beside(&path, text).map_err(|e| failed("cannot write", &path, e))?;
            self.add_links(unit, text)?;
        }
        let path = self.layout.env().join(unit.as_str());
        write_beside(&path, &self.evidence_text(unit, evidence))
            .map_err(|e| failed("cannot write", &path, e))?;
        Ok(())
    }

    /// Has a unit wanted by whom its text says, then writes the text, its drop-in, and the link that lets
    /// systemd see it.
    pub(super) fn install(&self, unit: &UnitName, text: &str) -> Result<(), SystemdError> {
        // First: what has this text on disk counts as installed.
        self.add_links(unit, text)?;
        self.drop_links(unit, Some(text))?;
        let path = self.layout.units().join(unit.as_str());
        write(&path, text)?;
        self.link_drop_in(unit)?;
        link(&path, &self.layout.links.join(unit.as_str()))
    }

    /// Returns whether [`install`](Self::install) would change nothing.
    pub(super) fn is_installed(&self, unit: &UnitName, text: &str) -> Result<bool, SystemdError> {
        let path = self.layout.units().join(unit.as_str());
        let same = read(&path)?.is_some_and(|there| there == text.as_bytes());
        let linked = fs::read_link(self.layout.links.join(unit.as_str())).is_ok_and(|to| to == path);
        let drop_in = self.drop_in_directory(unit).join(DROP_IN);
        let linked = linked && self.link_changes(unit, Some(text))?.is_empty();
        Ok(same && linked && fs::exists(&drop_in).map_err(|e| failed("cannot look at", &drop_in, e))?)
    }

    pub(super) fn write_evidence(&self, unit: &UnitName, evidence: &Evidence) -> Result<(), SystemdError> {
        refuse_unusable(unit)?;
        write(&self.layout.env().join(unit.as_str()), &self.evidence_text(unit, evidence))
    }

    /// Writes the evidence of a unit that is only loaded; what was started before counts no more.
    pub(super) fn mark_loaded(&self, unit: &UnitName, evidence: &Evidence) -> Result<(), SystemdError> {
        remove(&self.layout.started().join(unit.as_str()))?;
        self.write_evidence(unit, &Evidence { loaded: true, ..evidence.clone() })
    }

    /// Names another content in the evidence. The mark that a start ended in `done` names none, and the
    /// time since when the journal is asked stays.
    pub(super) fn adopt(&self, unit: &UnitName, hash: ContentHash) -> Result<(), SystemdError> {
        let path = self.layout.env().join(unit.as_str());
        let Some(env) = read(&path)? else { return Ok(()) };
        let mut text = String::new();
        for line in String::from_utf8_lossy(&env).lines() {
            match line.starts_with(HASH) {
                true => text += &format!("{HASH}{hash}\n"),
                false => text += &format!("{line}\n"),
            }
        }
        write(&path, &text)
    }

    fn evidence_text(&self, unit: &UnitName, evidence: &Evidence) -> String {
        let Evidence { token, run, hash, started: _, loaded } = evidence;
        let (machine, at) = (&self.machine, Timestamp::now().as_microsecond());
        let target = if *loaded { LOADED } else { "" };
        // In single quotes a backslash, which escaped names have, is only a backslash.
        format!(
            "FLOTILLA_TOKEN={token}\nFLOTILLA_RUN={run}\nFLOTILLA_HASH={hash}\nFLOTILLA_UNIT='{unit}'\n\
             FLOTILLA_MACHINE={machine}\nFLOTILLA_AT={at}\n{target}"
        )
    }

    pub(super) fn mark_started(&self, unit: &UnitName) -> Result<(), SystemdError> {
        let env = read(&self.layout.env().join(unit.as_str()))?;
        match env.as_deref().map(String::from_utf8_lossy).as_deref().and_then(parse_evidence) {
            Some(evidence) => write(&self.layout.started().join(unit.as_str()), &started_text(&evidence)),
            None => Ok(()),
        }
    }

    /// Removes everything: first what lets systemd see the unit, last the evidence, so that what
    /// is left after a crash is still listed.
    pub(super) fn remove(&self, unit: &UnitName) -> Result<(), SystemdError> {
        refuse_unusable(unit)?;
        self.drop_links(unit, None)?;
        let name = unit.as_str();
        let link = self.layout.links.join(name);
        if fs::read_link(&link).is_ok_and(|to| to == self.layout.units().join(name)) {
            remove(&link)?;
        }
        let directory = self.drop_in_directory(unit);
        remove(&directory.join(DROP_IN))?;
        remove_if_empty(&directory)?;
        remove(&beside(&self.layout.units().join(name)))?;
        remove(&self.layout.units().join(name))?;
        remove(&self.layout.started().join(name))?;
        self.forget_pulled(unit)?;
        remove(&beside(&self.layout.env().join(name)))?;
        remove(&self.layout.env().join(name))
    }

    fn drop_in_directory(&self, unit: &UnitName) -> PathBuf {
        self.layout.links.join(format!("{unit}.d"))
    }

    fn link_drop_in(&self, unit: &UnitName) -> Result<(), SystemdError> {
        let directory = self.drop_in_directory(unit);
        fs::create_dir_all(&directory).map_err(|e| failed("cannot make", &directory, e))?;
        let kind = kind(unit.unit_type().suffix());
        let place = directory.join(DROP_IN);
        if unit.as_str().contains('\\') {
            // EnvironmentFile= is a glob(7) pattern, in which the backslash of an escaped name
            // quotes the next character: such a unit needs a drop-in of its own, with two.
            return write(&place, &self.drop_in(kind, &unit.as_str().replace('\\', "\\\\")));
        }
        link(&self.share_drop_in(kind)?, &place)
    }

    /// Makes sure of the drop-in that all units of a kind share; returns where it is.
    fn share_drop_in(&self, kind: &str) -> Result<PathBuf, SystemdError> {
        let (path, text) = (self.layout.drop_ins().join(format!("{kind}.conf")), self.drop_in(kind, "%n"));
        if read(&path)?.is_none_or(|there| there != text.as_bytes()) {
            write(&path, &text)?;
        }
        Ok(path)
    }

    fn drop_in(&self, kind: &str, name: &str) -> String {
        let mut text = "# Written by flotillad.\n".to_owned();
        if !self.layout.user && is_ordered(kind) {
            text += "[Unit]\n\
                     # Units stop before flotillad does, and it before the machine's lease is given up.\n\
                     After=flotilla.target\n";
        }
        if reads_environment(kind) {
            let (section, env) = (section(kind), self.layout.env());
            text += &format!("[{section}]\nEnvironmentFile=-{}/{name}\n", env.display());
        }
        text
    }
}

/// How the line of evidence begins that names the content.
const HASH: &str = "FLOTILLA_HASH=";

/// The line of evidence that says that nothing was started under it.
const LOADED: &str = "FLOTILLA_TARGET=loaded\n";

/// The drop-in of types that only have to be ordered.
const ORDERED: &str = "unit";

/// The drop-in of types for which there is nothing to say.
const PLAIN: &str = "plain";

/// Which drop-in units of a type have.
fn kind(suffix: &'static str) -> &'static str {
    match suffix {
        _ if reads_environment(suffix) => suffix,
        "timer" | "target" => ORDERED,
        _ => PLAIN,
    }
}

/// The kinds that can be ordered after flotillad, which comes after `basic.target`.
///
/// systemd orders sockets and paths before `basic.target` and slices with what runs in them, mounts,
/// automounts and swaps before `local-fs.target` and `swap.target` and so before it too: to put these
/// after flotillad, as `flotilla.target` is, is a circle, which systemd breaks at shutdown by forgetting a job, perhaps
/// flotillad's own. They are down only after flotillad, as any of the machine's own.
fn is_ordered(kind: &str) -> bool {
    matches!(kind, "service" | ORDERED)
}

/// The types whose processes systemd gives an environment.
fn reads_environment(kind: &str) -> bool {
    matches!(kind, "service" | "socket" | "mount" | "swap")
}

fn section(kind: &str) -> String {
    let mut letters = kind.chars();
    letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect()
}

/// A unit's name is a file name, and longer ones are made of it.
fn refuse_unusable(unit: &UnitName) -> Result<(), SystemdError> {
    if unit.as_str().len() <= LONGEST_NAME {
        return Ok(());
    }
    Err(SystemdError::Refused {
        call: "install",
        unit: unit.to_string(),
        why: format!("its name is longer than {LONGEST_NAME} bytes, which leaves no room for its drop-in"),
    })
}

pub(super) fn foreign(unit: &UnitName, path: &Path) -> SystemdError {
    SystemdError::Foreign { unit: unit.to_string(), path: path.display().to_string() }
}

fn started_text(evidence: &Evidence) -> String {
    format!("{} {}\n", evidence.token, evidence.run)
}

fn value<'a>(env: &'a str, key: &str) -> Option<&'a str> {
    env.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
}

/// Evidence that is torn or another's is none: the unit then has no token that it could prove.
fn parse_evidence(env: &str) -> Option<Evidence> {
    let token: Token = value(env, "FLOTILLA_TOKEN")?.parse().ok()?;
    let run = value(env, "FLOTILLA_RUN")?.parse().ok()?;
    let hash = value(env, "FLOTILLA_HASH")?.parse().ok()?;
    let loaded = value(env, "FLOTILLA_TARGET") == Some("loaded");
    Some(Evidence { token, run, hash, started: false, loaded })
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, SystemdError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(failed("cannot read", path, e)),
    }
}

fn remove(path: &Path) -> Result<(), SystemdError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed("cannot remove", path, e)),
        _ => Ok(()),
    }
}

/// Removes a directory, unless somebody else has something there too.
fn remove_if_empty(directory: &Path) -> Result<(), SystemdError> {
    match fs::remove_dir(directory) {
        Err(e) if !matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {
            Err(failed("cannot remove", directory, e))
        }
        _ => Ok(()),
    }
}

fn write(path: &Path, text: &str) -> Result<(), SystemdError> {
    let written = write_beside(path, text).and_then(|new| set_in_place(&new, path));
    written.map_err(|e| failed("cannot write", path, e))
}

fn link(to: &Path, path: &Path) -> Result<(), SystemdError> {
    if fs::read_link(path).is_ok_and(|there| there == to) {
        return Ok(());
    }
    let new = beside(path);
    // What a crash left is in the way of a link.
    let _ = fs::remove_file(&new);
    symlink(to, &new).and_then(|()| set_in_place(&new, path)).map_err(|e| failed("cannot link", path, e))
}

/// Where a file is before it is in its place.
fn beside(path: &Path) -> PathBuf {
    let mut new = path.as_os_str().to_owned();
    new.push(TEMPORARY);
    new.into()
}

/// Writes a file beside its place; returns where it is.
///
/// One that lies there already is written over and not made anew, so that it keeps the room that it
/// has: on a full disk there is no other.
fn write_beside(path: &Path, text: &str) -> io::Result<PathBuf> {
    let new = beside(path);
    if fs::symlink_metadata(&new).is_ok_and(|there| !there.is_file()) {
        fs::remove_file(&new)?;
    }
    let written =
        fs::OpenOptions::new().write(true).create(true).truncate(false).open(&new).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.set_len(text.len() as u64)
        });
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written.map(|()| new)
}

fn set_in_place(new: &Path, path: &Path) -> io::Result<()> {
    let set = fs::rename(new, path);
    if set.is_err() {
        let _ = fs::remove_file(new);
    }
    set
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> SystemdError {
    SystemdError::File { action, path: path.display().to_string(), source }
}

#[cfg(test)]
mod tests;
