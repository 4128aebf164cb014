//! `flotctl cat`: unit files as they were submitted, byte for byte.

use std::io::Write as _;

use super::{Missing, find};
use crate::{args::Output, connection::Cluster, exit::Exit, paint, print};

/// Prints unit files.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Units, names or globs
    #[arg(value_name = "UNIT", required = true, add = crate::complete::unit_files())]
    units: Vec<String>,

    #[command(flatten)]
    missing: Missing,
}

/// Runs the command.
pub(crate) async fn run(cluster: &Cluster, args: &Args, output: Output) -> anyhow::Result<Exit> {
    let found = find(cluster, &args.units, args.missing).await?;
    let exit = found.end();
    let mut contents = Vec::new();
    for unit in &found.into_units() {
        contents.push(cluster.read(async |client| client.content(unit.name.as_str()).await).await?);
    }
    if output == Output::Json {
        print::json(&contents)?;
        return Ok(exit);
    }
    let several = contents.len() > 1;
    for (i, content) in contents.iter().enumerate() {
        if several {
            let gap = if i == 0 { "" } else { "\n" };
            writeln!(print::out(), "{gap}{}", paint::dim(format!("# {}", content.name)))?;
        }
        // Not through anstream, which takes escape sequences away: the text's SHA-256 is the unit's hash.
        let mut out = std::io::stdout().lock();
        out.write_all(content.text.as_bytes())?;
        out.flush()?;
    }
    Ok(exit)
}
