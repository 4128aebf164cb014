//! What a unit of the machine's own is made of, and whether flotilla may take it over. Reads only.
//!
//! What systemd has loaded and what lies on the disk are held against each other: the text has to be
//! what runs, the files that are to be moved have to be all that there is of it, and nothing may be
//! left behind that would start it at the next boot.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use flotilla_units::{UnitFile, UnitName};

use super::{Layout, files::DROP_IN};
use crate::adoption::{EARLY, Found, Refusal};

/// The folders of links that have a unit started together with another.
const ENABLES: [&str; 3] = ["wants", "requires", "upholds"];

/// What systemd says of a unit that matters here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Loaded {
    pub(super) load: String,
    pub(super) active: String,
    pub(super) invocation: Option<String>,
    pub(super) names: Vec<String>,
    pub(super) fragment: String,
    pub(super) source: String,
    pub(super) drop_ins: Vec<String>,
    pub(super) transient: bool,
    pub(super) needs_reload: bool,
    /// Units that need it, or start it, by any kind of dependency that is more than a wish.
    pub(super) needed_by: Vec<String>,
    pub(super) before: Vec<String>,
}

impl Loaded {
    /// Tells whether it runs, or is on its way to or from it.
    pub(super) fn runs(&self) -> bool {
        !matches!(self.active.as_str(), "inactive" | "failed")
    }
}

/// Files of a unit below the folders that systemd reads.
#[derive(Debug, Default)]
struct OnDisk {
    /// Its file, its drop-ins and the links that enable it, where people put them.
    own: Vec<PathBuf>,
    /// The drop-ins among them.
    drop_ins: Vec<PathBuf>,
    /// Its file where people do not put one.
    others: Vec<PathBuf>,
}

/// Looks at one unit. It has to run if `must_run`.
pub(super) fn examine(
    unit: &UnitName,
    loaded: &Loaded,
    layout: &Layout,
    is_ours: impl Fn(&str) -> bool,
    must_run: bool,
) -> Result<Found, Refusal> {
    if layout.user {
        return Err(Refusal::User);
    }
    refuse_state(unit, loaded, must_run)?;
    let disk = look(unit, layout)?;
    refuse_others_needs(unit, loaded, &disk, is_ours)?;
    let fragment = Path::new(&loaded.fragment);
    let is_own = disk.own.iter().chain(&disk.others).any(|path| is_same(path, fragment));
    if !is_own {
        return Err(Refusal::NoFile(loaded.fragment.clone()));
    }
    let (text, shared) = text(unit, loaded, layout, &disk)?;
    let shown = |paths: &[PathBuf]| paths.iter().map(|path| path.display().to_string()).collect();
    Ok(Found {
        text,
        fragment: loaded.fragment.clone(),
        moves: shown(&disk.own),
        kept: layout.adopted.join(unit.as_str()).display().to_string(),
        stays: shown(&disk.others),
        shared,
    })
}

fn refuse_state(unit: &UnitName, loaded: &Loaded, must_run: bool) -> Result<(), Refusal> {
    if let Some(refusal) = Refusal::of_name(unit) {
        return Err(refusal);
    }
    if loaded.load != "loaded" {
        return Err(Refusal::NotLoaded(loaded.load.clone()));
    }
    if must_run && !matches!(loaded.active.as_str(), "active" | "reloading") {
        return Err(Refusal::NotActive(loaded.active.clone()));
    }
    if loaded.names.len() > 1 {
        return Err(Refusal::Aliases(loaded.names.clone()));
    }
    if loaded.transient || !loaded.source.is_empty() || loaded.fragment.is_empty() {
        let path = if loaded.source.is_empty() { String::new() } else { loaded.fragment.clone() };
        return Err(Refusal::NoFile(path));
    }
    if loaded.needs_reload {
        return Err(Refusal::Changed);
    }
    match loaded.before.iter().find(|before| EARLY.contains(&before.as_str())) {
        Some(before) => Err(Refusal::Early(before.clone())),
        None => Ok(()),
    }
}

/// Refuses what other units of the machine's own need. Those that are moved along need nothing any more.
fn refuse_others_needs(
    unit: &UnitName,
    loaded: &Loaded,
    disk: &OnDisk,
    is_ours: impl Fn(&str) -> bool,
) -> Result<(), Refusal> {
    let linked: BTreeSet<&str> = disk
        .own
        .iter()
        .filter(|path| path.file_name().is_some_and(|name| name == unit.as_str()))
        .filter_map(|path| path.parent()?.file_stem()?.to_str())
        .collect();
    let mut needing = loaded.needed_by.iter().filter(|by| !linked.contains(by.as_str()) && !is_ours(by));
    match needing.next() {
        None => Ok(()),
        Some(first) => Err(Refusal::NeededBy(std::iter::once(first).chain(needing).cloned().collect())),
    }
}

/// Puts the drop-ins behind the file, as `flotctl apply` does; returns also those that are not the unit's
/// alone.
fn text(
    unit: &UnitName,
    loaded: &Loaded,
    layout: &Layout,
    disk: &OnDisk,
) -> Result<(String, Vec<String>), Refusal> {
    let own: Vec<PathBuf> = layout.own.iter().map(|folder| folder.join(format!("{unit}.d"))).collect();
    let (ours, shared): (Vec<&String>, Vec<&String>) = loaded
        .drop_ins
        .iter()
        .partition(|path| Path::new(path).parent().is_some_and(|at| own.iter().any(|own| own == at)));
    let taken: BTreeSet<&Path> = ours.iter().map(|path| Path::new(path.as_str())).collect();
    // systemd does not say that a drop-in is new.
    let names: BTreeSet<_> = taken.iter().filter_map(|path| path.file_name()).collect();
    let is_new = |path: &PathBuf| {
        let hidden = path.file_name().is_some_and(|name| names.contains(name));
        let masks = fs::metadata(path).is_ok_and(|it| !it.is_file() || it.len() == 0);
        !taken.contains(path.as_path()) && !hidden && !masks
    };
    if disk.drop_ins.iter().any(is_new) {
        return Err(Refusal::Changed);
    }
    refuse_order(unit, loaded, &taken)?;
    let mut text = read(Path::new(&loaded.fragment))?;
    for path in ours.iter().map(Path::new) {
        if !text.ends_with('\n') {
            text.push('\n');
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        text.push_str(&format!("\n# {unit}.d/{name}\n{}", read(path)?));
    }
    Ok((text, shared.into_iter().cloned().collect()))
}

/// Refuses a shared drop-in that an own one overrides. systemd merges all of them by the names of their files;
/// as part of the file, the own ones come before every drop-in.
fn refuse_order(unit: &UnitName, loaded: &Loaded, own: &BTreeSet<&Path>) -> Result<(), Refusal> {
    let mut before: Vec<(&str, BTreeSet<(String, String)>)> = Vec::new();
    for path in &loaded.drop_ins {
        let said = said(unit, Path::new(path))?;
        if !own.contains(Path::new(path)) {
            before.push((path, said));
            continue;
        }
        let common = |(shared, it): &(&str, BTreeSet<(String, String)>)| {
            Some((shared.to_string(), it.intersection(&said).next()?.1.clone()))
        };
        if let Some((shared, key)) = before.iter().find_map(common) {
            return Err(Refusal::SharedDropInFirst { shared, own: path.clone(), key });
        }
    }
    Ok(())
}

/// Returns what a drop-in says something of: sections and keys.
fn said(unit: &UnitName, path: &Path) -> Result<BTreeSet<(String, String)>, Refusal> {
    let text = read(path)?;
    let file = UnitFile::parse(unit.as_str(), text.as_bytes());
    let file =
        file.map_err(|why| Refusal::Unreadable { path: path.display().to_string(), why: why.to_string() })?;
    Ok(file.assignments().map(|it| (it.section.to_owned(), it.key.to_owned())).collect())
}

fn read(path: &Path) -> Result<String, Refusal> {
    let unreadable = |why: &dyn std::fmt::Display| Refusal::Unreadable {
        path: path.display().to_string(),
        why: why.to_string(),
    };
    let bytes = match fs::read(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(Refusal::Changed),
        read => read.map_err(|e| unreadable(&e))?,
    };
    String::from_utf8(bytes).map_err(|e| unreadable(&e))
}

/// Finds everything that there is of a unit, and refuses what would be left behind.
fn look(unit: &UnitName, layout: &Layout) -> Result<OnDisk, Refusal> {
    let mut disk = OnDisk::default();
    for folder in &layout.search {
        let is_own = layout.own.contains(folder);
        let file = folder.join(unit.as_str());
        let ours = *folder == layout.links
            && fs::read_link(&file).is_ok_and(|to| to == layout.units().join(unit.as_str()));
        if fs::symlink_metadata(&file).is_ok() && !ours {
            if is_own {
                disk.own.push(file);
            } else if is_made(folder) {
                return Err(Refusal::NoFile(file.display().to_string()));
            } else {
                disk.others.push(file);
            }
        }
        let drop_ins = listed(&folder.join(format!("{unit}.d")))?;
        let drop_ins = drop_ins.into_iter().filter(|path| {
            let ours = *folder == layout.links && path.file_name().is_some_and(|name| name == DROP_IN);
            path.extension().is_some_and(|extension| extension == "conf") && !ours
        });
        for path in drop_ins {
            if !is_own {
                let shown = path.display().to_string();
                let control = folder.extension().is_some_and(|extension| extension == "control");
                return Err(if control {
                    Refusal::SetProperty(shown)
                } else {
                    Refusal::PackagesDropIn(shown)
                });
            }
            disk.drop_ins.push(path.clone());
            disk.own.push(path);
        }
        for enables in enabling(folder, unit, &layout.units().join(unit.as_str()))? {
            if !is_own {
                return Err(Refusal::StartedByOthers(enables.display().to_string()));
            }
            disk.own.push(enables);
        }
    }
    disk.own.sort();
    Ok(disk)
}

/// Tells whether what is in a folder is made by systemd and not written by anybody.
fn is_made(folder: &Path) -> bool {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with("generator") || name == "transient" || name.ends_with(".control")
}

/// Returns the links in a folder that have a unit started together with another one.
fn enabling(folder: &Path, unit: &UnitName, ours: &Path) -> Result<Vec<PathBuf>, Refusal> {
    let enables = |path: &PathBuf| {
        let kind = path.extension().and_then(|extension| extension.to_str());
        kind.is_some_and(|kind| ENABLES.contains(&kind))
    };
    let folders = listed(folder)?.into_iter().filter(enables).map(|folder| folder.join(unit.as_str()));
    // Those that flotilla has made go with its own file.
    let theirs = |link: &PathBuf| fs::read_link(link).map_or(true, |to| to != ours);
    Ok(folders.filter(|link| fs::symlink_metadata(link).is_ok() && theirs(link)).collect())
}

/// Lists a folder by name; one that is not there is empty.
fn listed(folder: &Path) -> Result<Vec<PathBuf>, Refusal> {
    let unreadable =
        |e: io::Error| Refusal::Unreadable { path: folder.display().to_string(), why: e.to_string() };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(e) => return Err(unreadable(e)),
    };
    let mut paths: Vec<PathBuf> =
        entries.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>().map_err(unreadable)?;
    paths.sort();
    Ok(paths)
}

/// Tells whether two paths are the same file: systemd may name it by another way, `/lib` for `/usr/lib`, or
/// by where a link leads to.
pub(super) fn is_same(one: &Path, other: &Path) -> bool {
    one == other
        || fs::canonicalize(one).is_ok_and(|one| fs::canonicalize(other).is_ok_and(|other| one == other))
}

#[cfg(test)]
mod tests;
