//! The flotilla daemon: configuration, roles, life cycle. Everything it does is in the crates it
//! wires together.

use std::process::ExitCode;

use anyhow::Context as _;
use mimalloc::MiMalloc;

use crate::{
    args::{Args, Command},
    config::Config,
};

mod args;
mod config;
mod handover;
mod lifecycle;
mod logging;
mod roles;
mod session;
mod stores;
mod tasks;

/// In large clusters engine and agents need up to a quarter less processor time than with glibc's.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    if let Some(ended) = session::run() {
        return ended;
    }
    let args = Args::read();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Once for people on a terminal, and, as the last line of the service, for the journal.
            eprintln!("flotillad: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> anyhow::Result<()> {
    // One provider in the whole program; a second one in the graph would make rustls refuse to choose.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        anyhow::bail!(
            "another TLS provider was installed first; this is a mistake in how flotillad was built"
        );
    }
    let config = if args.dev {
        Config::for_development(&args.settings).context("the development mode cannot start")?
    } else {
        Config::load(args.config.as_deref(), &args.settings).context("the configuration is not valid")?
    };
    if args.command == Some(Command::Check) {
        print!("{config}");
        return Ok(());
    }
    logging::start(&args.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the runtime cannot be started; is there a limit on threads?")?;
    runtime.block_on(async {
        match args.command {
            Some(Command::Handover) => handover::run(&config).await,
            _ => lifecycle::run(&config).await,
        }
    })
}
