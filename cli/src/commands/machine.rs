//! `flotctl machine`: what users say of machines while they run.

mod drain;

use flotilla_api::machine::{MachineOutcome, MetadataPatch};

use crate::{
    args::Output,
    connection::Cluster,
    exit::{Exit, Failure},
    print, text,
};

/// Sets metadata of machines, keeps units away from them or takes them off.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Set or take away metadata of a machine
    Metadata(MetadataArgs),
    /// Keep new units away from a machine; those that are there stay
    Cordon(Named),
    /// Let new units come to a machine again, and end its drain
    Uncordon(Named),
    /// Have everything that can leave a machine: each unit runs elsewhere before it stops there
    Drain(drain::Args),
}

#[derive(Debug, clap::Args)]
struct MetadataArgs {
    #[command(subcommand)]
    command: MetadataCommand,
}

#[derive(Debug, clap::Subcommand)]
enum MetadataCommand {
    /// Give keys a value, whatever the machine itself says
    Set {
        #[command(flatten)]
        machine: Named,
        /// Keys with their values
        #[arg(value_name = "KEY=VALUE", required = true)]
        pairs: Vec<String>,
    },
    /// Take keys away, also those that the machine itself says
    Unset {
        #[command(flatten)]
        machine: Named,
        /// Keys
        #[arg(value_name = "KEY", required = true)]
        keys: Vec<String>,
        /// Let them be as the machine itself says again
        #[arg(long)]
        reset: bool,
    },
}

/// A machine that is named.
#[derive(Debug, clap::Args)]
pub(super) struct Named {
    /// Host name, id, or the beginning of an id that no other machine has
    #[arg(value_name = "MACHINE", add = crate::complete::machines())]
    pub(super) machine: String,
}

/// Runs the command.
pub(crate) async fn run(cluster: &Cluster, args: &Args, output: Output) -> anyhow::Result<Exit> {
    let client = cluster.client();
    let (outcome, done) = match &args.command {
        Command::Drain(args) => return drain::run(cluster, args, output).await,
        Command::Cordon(Named { machine }) => (client.cordon(machine, true).await?, "cordoned"),
        Command::Uncordon(Named { machine }) => (client.cordon(machine, false).await?, "uncordoned"),
        Command::Metadata(MetadataArgs { command }) => {
            let (machine, patch) = patch(command)?;
            (client.change_metadata(machine, &patch).await?, "metadata changed")
        }
    };
    tell(&outcome, done, output)?;
    Ok(Exit::Done)
}

fn tell(outcome: &MachineOutcome, done: &str, output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        return Ok(print::json(outcome)?);
    }
    let already = if outcome.changed { "" } else { " already" };
    Ok(print::line(format_args!("{} {done}{already}", name(outcome)))?)
}

/// Names a machine as people know it.
pub(super) fn name(outcome: &MachineOutcome) -> String {
    let host = outcome.host.as_deref().map(|host| text::one_line(host).into_owned());
    host.unwrap_or_else(|| outcome.machine.short())
}

fn patch(command: &MetadataCommand) -> anyhow::Result<(&str, MetadataPatch)> {
    let mut patch = MetadataPatch::default();
    match command {
        MetadataCommand::Set { machine, pairs } => {
            for pair in pairs {
                let Some((key, value)) = pair.split_once('=') else {
                    let why = format!("`{pair}` has no `=`; write KEY=VALUE");
                    return Err(Failure::error(Exit::Usage, why));
                };
                if patch.set.insert(key.to_owned(), value.to_owned()).is_some() {
                    return Err(Failure::error(Exit::Usage, format!("`{key}` is set twice")));
                }
            }
            Ok((&machine.machine, patch))
        }
        MetadataCommand::Unset { machine, keys, reset } => {
            if let Some(key) = keys.iter().find(|key| key.contains('=')) {
                let why = format!("`{key}` has a value; only keys are named to take them away");
                return Err(Failure::error(Exit::Usage, why));
            }
            let keys = keys.iter().cloned().collect();
            if *reset {
                patch.reset = keys;
            } else {
                patch.unset = keys;
            }
            Ok((&machine.machine, patch))
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn read(words: &[&str]) -> Result<MetadataPatch, String> {
        let line = Line::try_parse_from([&["machine", "metadata"], words].concat()).expect("valid");
        let Command::Metadata(MetadataArgs { command }) = line.args.command else { panic!("metadata") };
        patch(&command).map(|(_, patch)| patch).map_err(|error| error.to_string())
    }

    #[test]
    fn metadata_is_read_from_the_command_line() {
        let patch = read(&["set", "m1", "zone=a", "note=a=b c"]).expect("valid");
        assert_eq!((patch.set["zone"].as_str(), patch.set["note"].as_str()), ("a", "a=b c"));
        assert_eq!(read(&["unset", "m1", "zone"]).expect("valid").unset, ["zone".to_owned()].into());
        assert_eq!(
            read(&["unset", "m1", "zone", "--reset"]).expect("valid").reset,
            ["zone".to_owned()].into()
        );
        assert!(read(&["set", "m1", "zone"]).expect_err("refused").contains("no `=`"));
        assert!(read(&["set", "m1", "a=1", "a=2"]).expect_err("refused").contains("twice"));
        assert!(read(&["unset", "m1", "a=1"]).expect_err("refused").contains("has a value"));
    }
}
