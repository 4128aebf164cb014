//! flotctl, the one tool flotilla's users touch.
//!
//! This file is the table of contents: the commands, and what a failure becomes.
//! Every command is a file in `commands/`; what they share is beside them. Nothing
//! here knows the store or the bus: everything goes through the API.

mod args;
mod commands;
mod complete;
mod connection;
#[cfg(test)]
mod documents;
mod exit;
mod names;
mod order;
mod paint;
mod pki;
mod print;
mod table;
mod text;
mod time;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

fn main() -> ExitCode {
    // Completion scripts call the program itself with an environment variable of clap's.
    clap_complete::CompleteEnv::with_factory(args::Cli::command).complete();
    let cli = args::Cli::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return exit::report(&anyhow::Error::new(e).context("cannot start")),
    };
    match runtime.block_on(commands::run(cli)) {
        Ok(code) => code.into(),
        Err(error) => exit::report(&error),
    }
}
