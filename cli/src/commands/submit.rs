//! `flotctl submit`: gives unit files to the cluster.

use std::{collections::BTreeMap, fs, path::Path, path::PathBuf};

use anyhow::{Context as _, bail};
use flotilla_api::{
    action::{Outcome, Submit, SubmitUnit, UnitOutcome},
    client::{Client, ClientError},
    error::ErrorKind,
    unit::Unit,
};
use flotilla_units::{UnitFile, UnitName};

use super::end_missing;
use crate::{
    args::Output,
    exit::{Exit, Failure},
    fleetctl::Signing,
    paint, print,
    selector::is_glob,
    sources::{self, Named},
    text,
};

/// Gives unit files to the cluster.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Unit files, whose names are their units', or names, whose files are looked for in the current folder;
    /// an instance is made of its template, which the cluster has or whose file is there
    #[arg(value_name = "FILE|UNIT", required = true, add = crate::complete::files())]
    units: Vec<String>,

    #[command(flatten)]
    replacing: Replacing,

    #[command(flatten)]
    signing: Signing,

    /// Of fleetctl, which waited here; taken, and without effect: what is acknowledged is stored
    #[arg(long, hide = true, value_name = "N", allow_negative_numbers = true)]
    block_attempts: Option<i64>,

    /// The same
    #[arg(long, hide = true)]
    no_block: bool,
}

/// What becomes of units that the cluster has with other texts.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub(crate) struct Replacing {
    /// Let unit files take the place of those that the cluster has; what runs is updated where it is,
    /// instances one after the other
    #[arg(long)]
    pub(crate) replace: bool,

    /// With --replace: leave what runs as it is until it is started anew
    #[arg(long, requires = "replace")]
    pub(crate) no_restart: bool,
}

/// What came of files.
#[derive(Debug)]
pub(crate) struct Submitted {
    pub(crate) outcome: Outcome,
    /// Those that keep the other text that the cluster has.
    pub(crate) kept: Vec<String>,
}

/// Runs the command.
pub(crate) async fn run(client: &Client, args: &Args, output: Output) -> anyhow::Result<Exit> {
    args.signing.check()?;
    let named = sources::named(&args.units)?;
    if let Some(pattern) = named.units.iter().find(|unit| is_glob(unit)) {
        let why = format!("no file matches {pattern}; expected unit files, or names of units");
        return Err(Failure::error(Exit::Usage, why));
    }
    let mut all = Submitted { outcome: Outcome { revision: 0, units: Vec::new() }, kept: Vec::new() };
    if !named.files.is_empty() {
        all = submit(client, &named.files, args.replacing).await?;
    }
    let missing = named_only(client, &named, &mut all.outcome).await?;
    let Submitted { outcome, kept } = all;
    if output == Output::Json {
        print::json(&outcome)?;
    } else {
        for unit in &outcome.units {
            let what = if unit.changed { "submitted" } else { "unchanged" };
            print::line(format_args!("{} {what}", unit.unit))?;
        }
    }
    let exit = end_missing(&missing);
    if kept.is_empty() {
        return Ok(exit);
    }
    bail!("{} of {} unit files were not taken, because the cluster has others", kept.len(), named.files.len())
}

/// Makes the instances that are named, and looks for units of which there is no file here. Returns why those
/// are missing that are nowhere.
async fn named_only(client: &Client, named: &Named, outcome: &mut Outcome) -> anyhow::Result<Vec<String>> {
    let mut missing = Vec::new();
    for word in &named.units {
        let name: UnitName = word.parse()?;
        let found = match name.is_instance() {
            true => made(client, word).await,
            false if !named.without_file.contains(word) => continue,
            false => there(client, word).await,
        };
        match found {
            Ok(found) => {
                outcome.revision = outcome.revision.max(found.revision);
                outcome.units.extend(found.units);
            }
            Err(e) if e.kind() == Some(ErrorKind::NotFound) => {
                let template = name.template().map(|template| format!(" or {template}")).unwrap_or_default();
                missing.push(format!("there is no file {name}{template} here, and the cluster has neither"));
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(missing)
}

/// Makes an instance, unless it is there.
async fn made(client: &Client, name: &str) -> Result<Outcome, ClientError> {
    match client.make_instance(name).await? {
        Some(outcome) => Ok(outcome),
        None => there(client, name).await,
    }
}

/// Returns what becomes of a unit that is there: nothing.
async fn there(client: &Client, name: &str) -> Result<Outcome, ClientError> {
    let Unit { name: unit, generation, run, .. } = client.unit(name).await?;
    let unit = UnitOutcome { unit, changed: false, generation, run, adopted_from: None };
    Ok(Outcome { revision: 0, units: vec![unit] })
}

/// Reads, checks and submits files. One that the cluster has another text of is left out, with a warning,
/// unless it may replace that; all others are taken, or none.
pub(crate) async fn submit(
    client: &Client,
    files: &[PathBuf],
    Replacing { replace, no_restart }: Replacing,
) -> anyhow::Result<Submitted> {
    let mut units = read_all(files)?;
    let asked = |units| Submit { units, replace, no_restart, set: None };
    let refused = match client.submit(&asked(units.clone())).await {
        Err(e) if e.kind() == Some(ErrorKind::Conflict) && !replace => e,
        answer => return Ok(Submitted { outcome: answer?, kept: Vec::new() }),
    };
    let mut kept = Vec::new();
    for unit in &units {
        match client.content(&unit.name).await {
            Ok(there) if there.text != unit.text => kept.push(unit.name.clone()),
            Ok(_) => {}
            Err(e) if e.kind() == Some(ErrorKind::NotFound) => {}
            Err(e) => return Err(e.into()),
        }
    }
    if kept.is_empty() {
        // Something else is in the way.
        return Err(refused.into());
    }
    for name in &kept {
        print::tell(format_args!(
            "{} {name} in the cluster differs from the file; add --replace to give it the file's text",
            paint::bad("warning:")
        ));
    }
    units.retain(|unit| !kept.contains(&unit.name));
    if units.is_empty() {
        return Ok(Submitted { outcome: Outcome { revision: 0, units: Vec::new() }, kept });
    }
    Ok(Submitted { outcome: client.submit(&asked(units)).await?, kept })
}

/// Reads and checks unit files.
pub(super) fn read_all(files: &[PathBuf]) -> anyhow::Result<Vec<SubmitUnit>> {
    let mut units = BTreeMap::new();
    for path in files {
        let (name, text) = read(path)?;
        if let Some(other) = units.insert(name.to_string(), text.clone()).filter(|other| *other != text) {
            bail!(
                "{name} is given twice, with different contents ({} and {} bytes)",
                other.len(),
                text.len()
            );
        }
    }
    Ok(units.into_iter().map(|(name, text)| SubmitUnit { name, text }).collect())
}

/// Reads and checks a unit file: the same checks as the cluster's, but with the file's own path in
/// the findings.
fn read(path: &Path) -> anyhow::Result<(UnitName, String)> {
    let shown = path.display().to_string();
    let file_name = path.file_name().and_then(|name| name.to_str()).unwrap_or(&shown);
    let name: UnitName = file_name.parse()?;
    let bytes = fs::read(path).with_context(|| format!("cannot read {shown}"))?;
    let refuse = |problems: flotilla_units::Problems| {
        anyhow::anyhow!("{shown} is not a valid unit file\n{}", problems.render().trim_end())
    };
    let file = UnitFile::parse(&shown, &bytes).map_err(refuse)?;
    file.validate(&name).map_err(refuse)?;
    tell_without_effect(&name, &file);
    Ok((name, file.text().to_owned()))
}

/// Warns of the lines of `[Install]` that do nothing here. They are no mistake: the same file may be
/// installed on a machine by systemctl.
pub(crate) fn tell_without_effect(name: &UnitName, file: &UnitFile) {
    // What a template's lines come to is seen by any instance.
    let any = if name.is_template() { name.with_instance("1").ok() } else { None };
    let ignored = file.install(any.as_ref().unwrap_or(name)).ignored;
    if !ignored.is_empty() {
        print::tell(format_args!(
            "{} {name}: without effect in [Install]: {}",
            paint::bad("warning:"),
            text::one_line(&ignored.join("; "))
        ));
    }
}
