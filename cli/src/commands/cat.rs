//! `flotctl cat`: unit files as they were submitted, byte for byte.

use std::io::Write as _;

use flotilla_api::client::Client;

use super::matching;
use crate::{args::Output, paint};

/// Prints unit files.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Units, names or globs
    #[arg(value_name = "UNIT", required = true, add = crate::complete::units())]
    units: Vec<String>,
}

/// Runs the command.
pub(crate) async fn run(client: &Client, args: &Args, output: Output) -> anyhow::Result<()> {
    let units = matching(client, &args.units).await?;
    let mut contents = Vec::new();
    for unit in &units {
        contents.push(client.content(unit.name.as_str()).await?);
    }
    let mut out = anstream::stdout().lock();
    if output == Output::Json {
        serde_json::to_writer_pretty(&mut out, &contents)?;
        writeln!(out)?;
        return Ok(());
    }
    let several = contents.len() > 1;
    for (i, content) in contents.iter().enumerate() {
        if several {
            let gap = if i == 0 { "" } else { "\n" };
            writeln!(out, "{gap}{}", paint::dim(format!("# {}", content.name)))?;
        }
        write!(out, "{}", content.text)?;
    }
    Ok(())
}
