//! `flotctl completion`: a script that makes the shell complete commands, options and unit names.

use clap::ValueEnum;

/// Prints a completion script.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Args {
    /// Which shell
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Runs the command.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    use clap_complete::env::{Bash, EnvCompleter, Fish, Zsh};
    let completer: &dyn EnvCompleter = match args.shell {
        Shell::Bash => &Bash,
        Shell::Zsh => &Zsh,
        Shell::Fish => &Fish,
    };
    let mut out = std::io::stdout().lock();
    completer.write_registration("COMPLETE", "flotctl", "flotctl", "flotctl", &mut out)?;
    Ok(())
}
