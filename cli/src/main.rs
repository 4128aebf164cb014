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
mod fleetctl;
mod folder;
mod machines;
mod names;
mod order;
mod paint;
mod pki;
mod print;
#[cfg(test)]
mod reference;
mod selector;
mod session;
mod sources;
mod ssh;
mod table;
mod text;
mod time;
mod tunnel;
mod unified;

use std::process::ExitCode;

use clap::FromArgMatches as _;

fn main() -> ExitCode {
    // Completion scripts call the program itself with an environment variable of clap's.
    clap_complete::CompleteEnv::with_factory(args::command).complete();
    let matches = args::command().get_matches();
    let cli = match args::Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        // As clap itself ends what it refuses.
        Err(e) => e.exit(),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return exit::report(&anyhow::Error::new(e).context("cannot start")),
    };
    // An edit takes signals itself, to tell where the text is.
    let takes = matches!(cli.command, args::Command::Edit(_));
    let has_tunnel = cli.global.ssh.tunnel.is_some() && !takes;
    let ended = runtime.block_on(async {
        tokio::select! {
            ended = commands::run(cli) => ended,
            // Otherwise a signal does what it always does.
            interrupted = tunnel::interrupted(), if has_tunnel => interrupted,
        }
    });
    match ended {
        Ok(code) => code.into(),
        Err(error) => exit::report(&error),
    }
}
