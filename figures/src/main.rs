//! `flotilla-figures`: keeps samples and makes the page of them, behind `cargo xtask bench report`.

use std::{path::Path, process::ExitCode};

use anyhow::{Result, bail};
use flotilla_figures::{keep, page};

const USAGE: &str = "\
usage: flotilla-figures take FILE..   adds the runs of samples files to those in docs/performance/samples
       flotilla-figures page          makes docs/performance.md and its pictures from them
";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("figures: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[String]) -> Result<()> {
    match words.split_first().map(|(word, rest)| (word.as_str(), rest)) {
        Some(("take", files)) if !files.is_empty() => {
            for file in files {
                let added = keep::take(page::root(), Path::new(file))?;
                println!("{file}: {added} runs are new");
            }
            Ok(())
        }
        Some(("page", [])) => page::write(page::root()),
        Some(("help" | "--help" | "-h", _)) => {
            print!("{USAGE}");
            Ok(())
        }
        _ => bail!("{USAGE}"),
    }
}
