//! `flotctl man`: the manual pages; for packagers, and for who has only the programs.
//!
//! flotctl's own are made of the same text as `--help`. The others are in `docs/man`.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Command, CommandFactory as _};

use crate::args::COMMON_OPTIONS;

#[cfg(test)]
mod roff;

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
    let written = PAGES.map(|(name, page)| (name.to_owned(), page.as_bytes().to_vec()));
    for (name, page) in commands().context("cannot make the manual pages")?.into_iter().chain(written) {
        let path = args.directory.join(name);
        std::fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Makes the pages of flotctl and of each of its commands, with the files' names. What all commands have
/// is in flotctl(1) alone, where the others point.
fn commands() -> std::io::Result<Vec<(String, Vec<u8>)>> {
    let mut command = crate::args::Cli::command().disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    let mut rest = vec![command];
    while let Some(command) = rest.pop() {
        let mut below: Vec<Command> =
            command.get_subcommands().filter(|below| !below.is_hide_set()).cloned().collect();
        below.reverse();
        rest.extend(below);
        let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
        let is_main = pages.is_empty();
        let source = concat!("flotctl ", env!("CARGO_PKG_VERSION"));
        let shown = if is_main { command } else { without_common(command) };
        let page = clap_mangen::Man::new(shown).title(name.clone()).source(source).manual("flotilla");
        let mut text = Vec::new();
        page.render(&mut text)?;
        if !is_main {
            text.extend(b".SH \"SEE ALSO\"\n\\fBflotctl\\fR(1), which has the options of every command\n");
        }
        pages.push((format!("{name}.1"), text));
    }
    Ok(pages)
}

/// Hides the options that every command has.
fn without_common(command: Command) -> Command {
    command.mut_args(|argument| {
        let is_common = argument.get_help_heading() == Some(COMMON_OPTIONS);
        argument.hide(is_common)
    })
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

    /// All pages as a terminal shows them, those that are written by hand too, so that every change of them is
    /// seen in review.
    #[test]
    fn the_rendered_pages_are_the_reviewed_ones() {
        let made = commands().expect("pages").into_iter();
        let made = made.map(|(name, page)| (name, String::from_utf8(page).expect("text")));
        let written = PAGES.map(|(name, page)| (name.to_owned(), page.to_owned()));
        let mut text = String::new();
        for (name, page) in written.into_iter().chain(made) {
            let page = roff::render(&page).unwrap_or_else(|why| panic!("{name}: {why}"));
            text.push_str(&format!(
                "==== {name}\n{}\n",
                page.replace(env!("CARGO_PKG_VERSION"), "[VERSION]")
            ));
        }
        insta::assert_snapshot!(text);
    }

    #[test]
    fn what_no_page_is_made_of_is_told() {
        for (page, why) in [
            (".XX y\n", "line 1: the request .XX is not known here"),
            (".TH a 1\n\\(em\n", "line 2: the character em is not known here"),
            (".RE\n", "no .RS before it"),
            (".nf\n", "an .RS or .nf has no end"),
            (".B \"a\n", "a quote has no end"),
        ] {
            let refused = roff::render(page).expect_err(page);
            assert!(refused.contains(why), "{page}: {refused}");
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
