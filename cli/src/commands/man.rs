//! `flotctl man`: the manual pages; for packagers, and for who has only the programs.
//!
//! flotctl's own are made of the same text as `--help`. The others are in `docs/man`.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::CommandFactory as _;

/// The pages that are written by hand.
const PAGES: [(&str, &str); 3] = [
    ("flotillad.8", include_str!("../../../docs/man/flotillad.8")),
    ("flotilla.toml.5", include_str!("../../../docs/man/flotilla.toml.5")),
    ("flotilla.unit.5", include_str!("../../../docs/man/flotilla.unit.5")),
];

/// Writes the manual pages.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where to write flotctl(1) with a page for each command, flotillad(8), flotilla.toml(5) and
    /// flotilla.unit(5)
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let shown = args.directory.display();
    std::fs::create_dir_all(&args.directory).with_context(|| format!("cannot make {shown}"))?;
    clap_mangen::generate_to(crate::args::Cli::command(), &args.directory)
        .with_context(|| format!("cannot write the manual pages to {shown}"))?;
    for (name, page) in PAGES {
        let path = args.directory.join(name);
        std::fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use flotilla_units::{UnitFile, UnitName};

    use super::*;

    #[test]
    fn every_command_has_a_page() {
        let directory = tempfile::tempdir().expect("a directory");
        run(&Args { directory: directory.path().to_owned() }).expect("written");
        for page in [
            "flotctl.1",
            "flotctl-start.1",
            "flotctl-cluster-init.1",
            "flotillad.8",
            "flotilla.toml.5",
            "flotilla.unit.5",
        ] {
            let text = std::fs::read_to_string(directory.path().join(page)).expect(page);
            assert!(text.contains(".SH"), "{page}");
        }
    }

    /// The parser itself says which options there are, when it meets one that is none.
    #[test]
    fn every_option_of_the_section_is_in_the_manual() {
        let name: UnitName = "a.service".parse().expect("valid");
        let text = "[Service]\nExecStart=/bin/true\n[X-Flotilla]\nZzzz=1\n";
        let file = UnitFile::parse("a.service", text.as_bytes()).expect("readable");
        let said = file.validate(&name).expect_err("unknown").render();
        let known = said.split_once("it has ").expect("the options").1;
        let known: Vec<&str> = known.lines().next().expect("a line").split(", ").collect();
        assert!(known.len() >= 7, "{said}");
        let (_, page) = PAGES[2];
        for option in known {
            assert!(
                page.contains(&format!("\n.I {option}=\n")),
                "{option} is not in docs/man/flotilla.unit.5"
            );
        }
    }

    /// Whoever reads `see flotilla.toml(5)` in a file that we write has to find it.
    #[test]
    fn the_pages_that_service_files_name_exist() {
        for service in [
            include_str!("../../../dist/flotillad.service"),
            include_str!("../../../dist/flotilla-handover.service"),
            include_str!("../../../dist/flotilla.target"),
        ] {
            let named = service
                .split_whitespace()
                .flat_map(|word| word.split('='))
                .filter_map(|word| word.strip_prefix("man:"));
            for name in named {
                let file = name.replace('(', ".").replace(')', "");
                assert!(PAGES.iter().any(|(page, _)| *page == file), "{name}");
            }
        }
    }
}
