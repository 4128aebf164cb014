//! Which units the files of a folder are.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use flotilla_units::{UnitFile, UnitName};

use super::File;

/// How deep folders are read. Sixteen: deeper than people nest, and an end to whatever a mount makes endless.
const DEPTH_MAX: usize = 16;

/// What a folder has.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Files whose names are units'.
    units: Vec<(UnitName, PathBuf)>,
    /// Drop-ins, by the unit whose they are.
    drop_ins: BTreeMap<UnitName, Vec<PathBuf>>,
    /// The rest, but for what is hidden.
    pub(super) ignored: Vec<PathBuf>,
}

/// The units that a folder's files are.
#[derive(Debug, Default)]
pub(super) struct Units {
    /// Their texts.
    pub(super) files: BTreeMap<UnitName, File>,
    /// Instances that a link to their template, or a copy of it, asks for.
    pub(super) instances: BTreeSet<UnitName>,
}

/// Looks at all files. What begins with a dot is left out, git's folder among it.
pub(super) fn walk(root: &Path) -> anyhow::Result<Found> {
    let mut found = Found::default();
    walk_into(root, root, 0, &mut found)?;
    Ok(found)
}

fn walk_into(root: &Path, folder: &Path, depth: usize, found: &mut Found) -> anyhow::Result<()> {
    if depth > DEPTH_MAX {
        bail!("{} lies more than {DEPTH_MAX} folders deep; expected unit files nearer by", folder.display());
    }
    let shown = || format!("cannot read the folder {}", folder.display());
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).with_context(shown)? {
        paths.push(entry.with_context(shown)?.path());
    }
    // In order of their names, as everything that is told of them.
    paths.sort();
    for path in paths {
        let Some(name) = path.file_name().and_then(|name| name.to_str()).map(str::to_owned) else {
            bail!("{}: its name is not UTF-8; expected the name of a unit", path.display());
        };
        if name.starts_with('.') || (folder == root && name == "flotilla.toml") {
            continue;
        }
        let is = fs::metadata(&path).with_context(|| format!("cannot read {}", path.display()))?;
        if is.is_dir() {
            match name.strip_suffix(".d") {
                Some(of) if folder_of_drop_ins(&path, of)? => {
                    let unit: UnitName = of.parse()?;
                    let files = drop_ins(&path)?;
                    found.drop_ins.entry(unit).or_default().extend(files);
                }
                // A link to a folder may lead back to where it is.
                _ if path.is_symlink() => found.ignored.push(path),
                _ => walk_into(root, &path, depth + 1, found)?,
            }
        } else if let Ok(unit) = name.parse() {
            found.units.push((unit, path));
        } else {
            found.ignored.push(path);
        }
    }
    Ok(())
}

/// Tells whether a folder `OF.d` is one of a unit's drop-ins; those that systemd takes for many units at
/// once are refused, since one unit's text would hang on what others are called.
fn folder_of_drop_ins(path: &Path, of: &str) -> anyhow::Result<bool> {
    let Ok(unit) = of.parse::<UnitName>() else {
        if flotilla_units::UnitType::from_suffix(of).is_some() {
            bail!("{}: drop-ins for all units of a type are not taken; expected NAME.{of}.d", path.display());
        }
        return Ok(false);
    };
    if unit.without_suffix().ends_with('-') {
        bail!(
            "{}: drop-ins for all units of a prefix are not taken; expected the whole name of one unit",
            path.display()
        );
    }
    Ok(true)
}

fn drop_ins(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let shown = || format!("cannot read the folder {}", folder.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(shown)? {
        let path = entry.with_context(shown)?.path();
        // As systemd.unit(5): others are not looked at.
        if path.extension().is_some_and(|extension| extension == "conf") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Makes units of what was found.
pub(super) fn units(found: &Found) -> anyhow::Result<Units> {
    let mut units = Units::default();
    let mut links = Vec::new();
    for (name, path) in &found.units {
        if name.template().is_some() {
            links.push((name, path));
            continue;
        }
        let text = text_of(path)?;
        if let Some(other) = units.files.insert(name.clone(), File { text, of: vec![path.clone()] }) {
            let other = other.of.first().map(|path| path.display().to_string()).unwrap_or_default();
            bail!("{} and {other} are both {name}; expected one of them", path.display());
        }
    }
    let raw: BTreeMap<UnitName, String> =
        units.files.iter().map(|(name, file)| (name.clone(), file.text.clone())).collect();
    for (unit, drop_ins) in &found.drop_ins {
        add_drop_ins(&mut units, unit, drop_ins)?;
    }
    for (instance, path) in links {
        let template = instance.template().unwrap_or_else(|| instance.clone());
        match raw.get(&template) {
            None => bail!(
                "{}: {instance} is an instance, and its template {template} is not in this folder",
                path.display()
            ),
            Some(text) if *text != text_of(path)? => bail!(
                "{}: {instance} is an instance and has no text of its own; expected a link to {template}, or \
                 another name",
                path.display()
            ),
            Some(_) => units.instances.insert(instance.clone()),
        };
    }
    for (name, file) in &units.files {
        check(name, file)?;
    }
    Ok(units)
}

/// Puts drop-ins behind a unit's text: sections and options may repeat, and systemd reads a drop-in as
/// if it stood there (systemd.unit(5)).
fn add_drop_ins(units: &mut Units, unit: &UnitName, drop_ins: &[PathBuf]) -> anyhow::Result<()> {
    let Some(first) = drop_ins.first() else { return Ok(()) };
    if let Some(template) = unit.template() {
        bail!(
            "{}: {unit} is an instance and has no text of its own; expected the drop-in in {template}.d",
            first.display()
        );
    }
    let Some(file) = units.files.get_mut(unit) else {
        bail!("{}: there is no {unit} in this folder that it could add to", first.display());
    };
    for path in drop_ins {
        let text = text_of(path)?;
        if !file.text.ends_with('\n') {
            file.text.push('\n');
        }
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        file.text.push_str(&format!("\n# {unit}.d/{name}\n{text}"));
        file.of.push(path.clone());
    }
    Ok(())
}

fn text_of(path: &Path) -> anyhow::Result<String> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let shown = path.display().to_string();
    let refuse = |problems: flotilla_units::Problems| {
        anyhow::anyhow!("{shown} is not a valid unit file\n{}", problems.render().trim_end())
    };
    Ok(UnitFile::parse(&shown, &bytes).map_err(refuse)?.text().to_owned())
}

/// Checks a template's text as the text of an instance that is wanted: what an option comes to may hang on the
/// instance's name.
pub(super) fn check_instance(instance: &UnitName, units: &Units) -> anyhow::Result<()> {
    let template = instance.template().and_then(|template| units.files.get(&template));
    template.map_or(Ok(()), |file| {
        check(instance, file)
            .with_context(|| format!("{instance} is wanted, and cannot be made of its template"))
    })
}

/// Checks what the cluster will check, so that nothing is changed because of a folder with a mistake.
fn check(name: &UnitName, file: &File) -> anyhow::Result<()> {
    let shown: Vec<String> = file.of.iter().map(|path| path.display().to_string()).collect();
    let shown = shown.join(" with ");
    let refuse = |problems: flotilla_units::Problems| {
        anyhow::anyhow!("{shown} is not a valid unit file\n{}", problems.render().trim_end())
    };
    let parsed = UnitFile::parse(&shown, file.text.as_bytes()).map_err(refuse)?;
    parsed.validate(name).map(drop).map_err(refuse)
}
