//! `flotillad session`: the processes of `flotctl exec` and `flotctl shell`, which the agent starts and
//! nobody else. They read no configuration.

use std::process::ExitCode;

use flotilla_agent::session::{
    enter,
    keeper::{Role, keep},
};

/// Does what a process of a session is to do; `None` when this is none.
pub(crate) fn run() -> Option<ExitCode> {
    match Role::of(std::env::args_os().skip(1))? {
        Role::Keep => Some(match keep() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("flotillad: the session could not be kept: {error}");
                ExitCode::FAILURE
            }
        }),
        Role::Enter(spec, command) => Some(enter(&spec, command).into()),
    }
}
