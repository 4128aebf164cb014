//! `flotctl ssh`: the system's ssh to a machine, found by its name or by a unit on it.
//!
//! The program becomes ssh: its exit status is the remote command's, or 255 when ssh
//! did not get there, and the terminal is its own. For what flotctl can do by itself
//! (status, journals) no ssh is needed.

use std::{ffi::OsString, os::unix::process::CommandExt as _};

use flotilla_api::{
    machine::Machine,
    unit::{Placement, Unit},
};
use flotilla_units::MachineId;

use super::all_pages;
use crate::{
    connection::Cluster,
    exit::{Exit, Failure},
    machines, names,
    selector::{Selector, machines_of, places},
    ssh::{Host, SshOptions},
};

/// Logs in to a machine.
#[derive(Debug, clap::Args)]
#[command(override_usage = "flotctl ssh [OPTIONS] <MACHINE|UNIT> [--] [COMMAND]...\n       \
                            flotctl ssh [OPTIONS] --machine <MACHINE> [--] [COMMAND]...\n       \
                            flotctl ssh [OPTIONS] --unit <UNIT> [--] [COMMAND]...")]
pub(crate) struct Args {
    /// To this machine: host name or beginning of its id
    #[arg(long, value_name = "MACHINE", conflicts_with = "unit", add = crate::complete::machines())]
    machine: Option<String>,

    /// To where this unit is
    #[arg(long, value_name = "UNIT", add = crate::complete::units())]
    unit: Option<String>,

    /// Let the machine use this computer's ssh agent
    #[arg(long, short = 'A')]
    forward_agent: bool,

    /// Where the machine's sshd listens [default: as ssh's configuration says]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    ssh_port: Option<u16>,

    /// A machine or a unit, unless an option names it; then what to run there, else a shell
    #[arg(value_name = "ARG", num_args = 0.., trailing_var_arg = true, add = crate::complete::units_and_machines())]
    words: Vec<OsString>,
}

/// Runs the command; returns only if there is nothing to log in to.
pub(crate) async fn run(cluster: &Cluster, args: &Args, options: &SshOptions) -> anyhow::Result<Exit> {
    let mut words = args.words.as_slice();
    let machine = match (&args.machine, &args.unit) {
        (Some(name), _) => machines::find(cluster, name).await?,
        (None, Some(unit)) => {
            let unit_there = unit_of(cluster, unit).await?;
            let unit_there = unit_there.ok_or_else(|| no_unit(unit))?;
            of_unit(cluster, &unit_there, Selector::read(unit)).await?
        }
        (None, None) => {
            let Some((word, rest)) = words.split_first() else {
                let why =
                    "ssh needs a machine or a unit to go to; `flotctl list-machines` shows the machines";
                return Err(Failure::error(Exit::Usage, why));
            };
            words = rest;
            either(cluster, &word.to_string_lossy()).await?
        }
    };
    // What told the command from the rest is no word of it.
    if words.first().is_some_and(|word| word == "--") {
        words = &words[1..];
    }
    let address = address(&machine)?;
    let mut ssh = std::process::Command::new("ssh");
    let host = Host { user: None, name: address.as_str().to_owned(), port: args.ssh_port };
    ssh.args(options.arguments(&host));
    if args.forward_agent {
        ssh.arg("-A");
    }
    if let Some(proxy) = options.proxy_command() {
        let mut option = OsString::from("ProxyCommand=");
        option.push(proxy);
        ssh.arg("-o").arg(option);
    }
    ssh.arg("--").arg(address.as_str()).args(words);
    cluster.leave();
    let error = ssh.exec();
    Err(Failure::error(Exit::Failed, format!("the system's ssh cannot be run: {error}")))
}

/// Returns where a machine says that it is. Others wrote that, and ssh gives it to a shell on the way through a
/// tunnel: it has to be an address or a host name, and nothing else.
fn address(machine: &Machine) -> anyhow::Result<names::Host> {
    let Some(told) = machine.addresses.first().or(machine.host.as_ref()) else {
        let why = format!("nobody knows an address of machine {}, which is {}", machine.id, machine.state);
        return Err(Failure::error(Exit::Unreachable, why));
    };
    told.parse().map_err(|why| {
        let why = format!("machine {} is not where it says that it is: {why}", machine.id);
        Failure::error(Exit::Failed, why)
    })
}

/// Finds a machine or a unit of this name; both is nobody's guess.
async fn either(cluster: &Cluster, word: &str) -> anyhow::Result<Machine> {
    let machine = match machines::find(cluster, word).await {
        Err(e) if crate::exit::of(&e) == Exit::NoSuch => None,
        found => Some(found?),
    };
    match (machine, unit_of(cluster, word).await?) {
        (Some(_), Some(unit)) => {
            let why = format!(
                "`{word}` is a machine, and {} a unit; say which one with --machine or --unit",
                unit.name
            );
            Err(Failure::error(Exit::Usage, why))
        }
        (Some(machine), None) => Ok(machine),
        (None, Some(unit)) => of_unit(cluster, &unit, Selector::read(word)).await,
        (None, None) => Err(Failure::error(
            Exit::NoSuch,
            format!(
                "there is no machine and no unit `{word}`; `flotctl list-machines` and `flotctl list-unit-files` \
                 show those that there are"
            ),
        )),
    }
}

async fn unit_of(cluster: &Cluster, word: &str) -> anyhow::Result<Option<Unit>> {
    let Selector { unit, .. } = Selector::read(word);
    let Ok(pattern) = unit.parse::<flotilla_units::UnitName>() else { return Ok(None) };
    let patterns = [pattern.to_string()];
    let units = all_pages(cluster, &patterns, async |client, query| client.units(query).await).await?;
    Ok(units.into_iter().find(|unit| unit.name == pattern))
}

/// Returns the machine that a unit is on.
async fn of_unit(cluster: &Cluster, unit: &Unit, selector: Selector) -> anyhow::Result<Machine> {
    let selectors = [selector];
    let named = machines_of(cluster, &selectors).await?;
    let [selector] = &selectors;
    let only = selector.machine(unit, &named).map_err(|why| Failure::error(Exit::NoSuch, why))?;
    let stays = |placement: &&Placement| placement.departing.is_none();
    let any_stays = unit.placements.iter().any(|placement| stays(&placement));
    // Of a unit that moves, where it goes; of one that only leaves, where it still is.
    let mut ids: Vec<MachineId> = unit
        .placements
        .iter()
        .filter(|placement| !any_stays || only.is_some() || stays(placement))
        .map(|placement| placement.machine)
        .filter(|id| only.is_none_or(|only| only == *id))
        .collect();
    ids.dedup();
    match ids.as_slice() {
        [] => Err(Failure::error(Exit::NotActive, format!("{} is on no machine", unit.name))),
        [id] => machines::find(cluster, &id.to_string()).await,
        _ => {
            let name = &unit.name;
            let why = format!(
                "{name} is not on one machine only, {}; name one, as in {name}@MACHINE",
                places(unit)
            );
            Err(Failure::error(Exit::Usage, why))
        }
    }
}

fn no_unit(word: &str) -> anyhow::Error {
    let Selector { unit, .. } = Selector::read(word);
    let why = format!("there is no unit {unit}; `flotctl list-unit-files` shows those that there are");
    Failure::error(Exit::NoSuch, why)
}
