//! `flotctl man`: the manual pages, made of the same text as `--help`; for packagers.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::CommandFactory as _;

/// Writes the manual pages.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where to write flotctl.1 and a page for each command
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let shown = args.directory.display();
    std::fs::create_dir_all(&args.directory).with_context(|| format!("cannot make {shown}"))?;
    clap_mangen::generate_to(crate::args::Cli::command(), &args.directory)
        .with_context(|| format!("cannot write the manual pages to {shown}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page() {
        let directory = tempfile::tempdir().expect("a directory");
        run(&Args { directory: directory.path().to_owned() }).expect("written");
        for page in ["flotctl.1", "flotctl-start.1", "flotctl-cluster-init.1"] {
            let text = std::fs::read_to_string(directory.path().join(page)).expect(page);
            assert!(text.contains(".SH"), "{page}");
        }
    }
}
