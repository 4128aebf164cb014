//! What is wanted of a folder's units: its `flotilla.toml`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
};

use anyhow::{Context as _, bail};
use flotilla_api::unit::Target;
use flotilla_units::{Glob, RANGE_MAX, UnitName, UnitRange, UnitType};
use serde::Deserialize;

use super::read::Units;

/// The most bytes of a set's name: it is part of every record that an apply makes.
const SET_BYTES_MAX: usize = 64;

/// `flotilla.toml`, as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Config {
    /// The set's name; else the folder's.
    set: Option<String>,
    /// What is wanted of a unit that no line of `[targets]` is about.
    default_target: Option<Target>,
    /// By name, range of instances (`web@{1..3}.service`) or pattern.
    #[serde(default)]
    targets: BTreeMap<String, Target>,
}

/// Reads `flotilla.toml`, if there is one.
pub(super) fn read(folder: &Path) -> anyhow::Result<Config> {
    let path = folder.join("flotilla.toml");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Config::default()),
        Err(e) => return Err(e).with_context(|| format!("cannot read {}", path.display())),
    };
    toml::from_str(&text).with_context(|| format!("{} makes no sense", path.display()))
}

/// Returns the set's name, and whether a person said it.
pub(super) fn set(folder: &Path, config: &Config, given: Option<&str>) -> anyhow::Result<(String, bool)> {
    let of_folder = || {
        let whole = fs::canonicalize(folder).ok()?;
        Some(whole.file_name()?.to_str()?.to_owned())
    };
    let named = given.map(str::to_owned).or_else(|| config.set.clone());
    let is_named = named.is_some();
    let Some(set) = named.or_else(of_folder) else {
        bail!("{} has no name that could be its set's; expected --set NAME", folder.display());
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if set.is_empty() || set.len() > SET_BYTES_MAX || !set.bytes().all(plain) {
        bail!(
            "`{set}` is not the name of a set: expected letters, digits, `.`, `_` and `-`, at most \
             {SET_BYTES_MAX}; --set gives one"
        );
    }
    Ok((set, is_named))
}

/// Returns what is wanted of each unit and instance. The most exact line holds: a name or a range before
/// a pattern; two patterns that disagree are refused.
pub(super) fn targets(
    folder: &Path,
    config: &Config,
    units: &Units,
) -> anyhow::Result<BTreeMap<UnitName, Target>> {
    let shown = folder.join("flotilla.toml").display().to_string();
    let mut exact: BTreeMap<UnitName, (Target, &str)> = BTreeMap::new();
    let mut patterns = Vec::new();
    for (line, target) in &config.targets {
        if line.contains(['*', '?', '[']) {
            let glob: Glob = line.parse().with_context(|| format!("{shown}, [targets]: `{line}`"))?;
            patterns.push((glob, *target, line.as_str()));
            continue;
        }
        for name in names(line).with_context(|| format!("{shown}, [targets]"))? {
            known(&name, units).with_context(|| format!("{shown}, [targets]: `{line}`"))?;
            if let Some((_, other)) = exact.insert(name.clone(), (*target, line)) {
                bail!(
                    "{shown}, [targets]: `{other}` and `{line}` are both about {name}; expected one of them"
                );
            }
        }
    }
    let plain = units.files.keys().filter(|name| !name.is_template());
    let all: BTreeSet<UnitName> = plain.chain(&units.instances).chain(exact.keys()).cloned().collect();
    let idle = patterns.iter().find(|(glob, _, _)| !all.iter().any(|name| glob.matches(name.as_str())));
    if let Some((_, _, line)) = idle {
        bail!("{shown}, [targets]: no unit of this folder matches `{line}`");
    }
    let mut targets = BTreeMap::new();
    for name in all {
        let mut met = patterns.iter().filter(|(glob, _, _)| glob.matches(name.as_str()));
        let first = met.next();
        let target = match (exact.get(&name), first) {
            (Some((target, _)), _) => *target,
            (None, Some((_, target, line))) => {
                if let Some((_, _, other)) = met.find(|(_, other, _)| other != target) {
                    bail!(
                        "{shown}, [targets]: `{line}` and `{other}` are both about {name} and disagree; expected a \
                         line for {name} itself"
                    );
                }
                *target
            }
            (None, None) => config.default_target.unwrap_or_else(|| by_default(&name, units)),
        };
        targets.insert(name, target);
    }
    Ok(targets)
}

/// Returns the names that a line is about.
fn names(line: &str) -> anyhow::Result<Vec<UnitName>> {
    if UnitRange::is_meant_by(line) {
        let range = line.parse::<UnitRange>()?;
        // Each of them is a unit of its own there, compared and ordered by its name.
        anyhow::ensure!(
            range.len() <= RANGE_MAX,
            "{range} has more than {RANGE_MAX} instances, the most of a line here; `flotctl start` takes more"
        );
        return Ok(range.instances().collect());
    }
    Ok(vec![line.parse()?])
}

/// Checks that a folder has a unit, or its template.
fn known(name: &UnitName, units: &Units) -> anyhow::Result<()> {
    if name.is_template() {
        bail!(
            "a template runs nowhere; expected an instance of it, as web@1.service, or a range, as web@{{1..3}}.service"
        );
    }
    let file = name.template().unwrap_or_else(|| name.clone());
    if !units.files.contains_key(&file) {
        bail!("there is no {file} in this folder");
    }
    Ok(())
}

/// What is wanted of a unit that nobody says anything of: it runs, unless another unit of the folder is
/// there to start it.
fn by_default(name: &UnitName, units: &Units) -> Target {
    let triggers = [UnitType::Timer, UnitType::Socket, UnitType::Path];
    let started_by = |kind: &UnitType| {
        let trigger = format!("{}.{}", name.without_suffix(), kind.suffix());
        let trigger: Option<UnitName> = trigger.parse().ok();
        trigger
            .is_some_and(|trigger| units.files.contains_key(&trigger) || units.instances.contains(&trigger))
    };
    if name.unit_type() == UnitType::Service && triggers.iter().any(started_by) {
        Target::Loaded
    } else {
        Target::Launched
    }
}
