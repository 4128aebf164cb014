//! `flotctl submit`: gives unit files to the cluster.

use std::{collections::BTreeMap, fs, path::Path, path::PathBuf};

use anyhow::{Context as _, bail};
use flotilla_api::{
    action::{Outcome, Submit, SubmitUnit},
    client::Client,
};
use flotilla_units::{UnitFile, UnitName};

use crate::{args::Output, fleetctl::Signing, print};

/// Gives unit files to the cluster.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Unit files; each file's name is its unit's name
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,

    #[command(flatten)]
    signing: Signing,

    /// Of fleetctl, which waited here; taken, and without effect: what is acknowledged is stored
    #[arg(long, hide = true, value_name = "N", allow_negative_numbers = true)]
    block_attempts: Option<i64>,

    /// The same
    #[arg(long, hide = true)]
    no_block: bool,
}

/// Runs the command.
pub(crate) async fn run(client: &Client, args: &Args, output: Output) -> anyhow::Result<()> {
    args.signing.check()?;
    let outcome = submit(client, &args.files).await?;
    if output == Output::Json {
        return Ok(print::json(&outcome)?);
    }
    for unit in &outcome.units {
        let what = if unit.changed { "submitted" } else { "unchanged" };
        print::line(format_args!("{} {what}", unit.unit))?;
    }
    Ok(())
}

/// Reads, checks and submits files, all of them or none.
pub(crate) async fn submit(client: &Client, files: &[PathBuf]) -> anyhow::Result<Outcome> {
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
    let units = units.into_iter().map(|(name, text)| SubmitUnit { name, text }).collect();
    Ok(client.submit(&Submit { units }).await?)
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
    Ok((name, file.text().to_owned()))
}
