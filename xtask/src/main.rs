//! The project's own commands: `cargo xtask help` lists them.
//!
//! Owns what must work on a fresh machine, before anything is installed: it
//! builds with gcc alone, depends on no workspace crate, installs what the rest
//! needs and then runs cargo and the other binaries. It never contains product
//! logic: clusters of machines belong to `flotilla-lab`, tests to their crates.

mod bench;
mod ci;
mod demo;
mod deps;
mod dist;
mod image;
mod lab;
mod packages;
mod process;
mod test;
mod tidy;
mod workspace;

use std::process::ExitCode;

use anyhow::{Result, bail};

/// One command of `cargo xtask`.
struct Command {
    name: &'static str,
    arguments: &'static str,
    about: &'static str,
    run: fn(&[String]) -> Result<()>,
}

/// Every command, in the order in which a newcomer meets them.
const COMMANDS: &[Command] = &[
    Command {
        name: "demo",
        arguments: "[--down]",
        about: "A cluster of three machines on this computer: units placed, watched, and surviving their machine",
        run: demo::main,
    },
    Command {
        name: "deps",
        arguments: "[--lab] [--user-image]",
        about: "Install what building needs; with --lab also what the lab needs, its etcd and machine image",
        run: deps::main,
    },
    Command {
        name: "test",
        arguments: "[TARGET].. [--list] [-- ARGS]",
        about: "Run every test, or the named targets",
        run: test::main,
    },
    Command {
        name: "tidy",
        arguments: "",
        about: "Check what the compiler does not: dependency directions, file lengths, leftovers",
        run: tidy::main,
    },
    Command {
        name: "lab",
        arguments: "up|down|status|shell|exec|..",
        about: "A cluster of real systemd machines on this computer (`cargo xtask lab help`)",
        run: lab::main,
    },
    Command {
        name: "bench",
        arguments: "start|idle|journal.. [--check]",
        about: "Measure flotilla in the lab beside systemd alone; `placement` and `counts`: the placement core, `scale`: \
                simulated machines, without a lab; with --check fail if a goal is missed; `report`: docs/performance.md",
        run: bench::main,
    },
    Command {
        name: "dist",
        arguments: "",
        about: "Pack what a machine needs into one archive: programs, service files, manual pages, an install script",
        run: dist::main,
    },
    Command {
        name: "ci",
        arguments: "",
        about: "What CI runs: format, tidy, clippy, docs, instruction counts, every test",
        run: ci::main,
    },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(arguments: &[String]) -> Result<()> {
    let Some((name, rest)) = arguments.split_first() else {
        print!("{}", usage());
        return Ok(());
    };
    if matches!(name.as_str(), "help" | "--help" | "-h") {
        print!("{}", usage());
        return Ok(());
    }
    let Some(command) = COMMANDS.iter().find(|command| command.name == name) else {
        bail!("no command {name:?}; there are:\n{}", usage());
    };
    (command.run)(rest)
}

fn usage() -> String {
    let mut text = String::from("usage: cargo xtask COMMAND\n\n");
    for Command { name, arguments, about, .. } in COMMANDS {
        text.push_str(&format!("  {name} {arguments}\n      {about}\n"));
    }
    text
}
