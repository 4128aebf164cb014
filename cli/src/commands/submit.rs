//! `flotctl submit`: gives unit files to the cluster.

use std::{collections::BTreeMap, fs, path::Path, path::PathBuf};

use anyhow::{Context as _, bail};
use flotilla_api::{
    action::{Outcome, Submit, SubmitUnit},
    client::Client,
    error::ErrorKind,
};
use flotilla_units::{UnitFile, UnitName};

use crate::{args::Output, fleetctl::Signing, paint, print, text};

/// Gives unit files to the cluster.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Unit files; each file's name is its unit's name
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,

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
pub(crate) async fn run(client: &Client, args: &Args, output: Output) -> anyhow::Result<()> {
    args.signing.check()?;
    let Submitted { outcome, kept } = submit(client, &args.files, args.replacing).await?;
    if output == Output::Json {
        print::json(&outcome)?;
    } else {
        for unit in &outcome.units {
            let what = if unit.changed { "submitted" } else { "unchanged" };
            print::line(format_args!("{} {what}", unit.unit))?;
        }
    }
    if kept.is_empty() {
        return Ok(());
    }
    bail!("{} of {} unit files were not taken, because the cluster has others", kept.len(), args.files.len())
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
