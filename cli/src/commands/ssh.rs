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
    selector::{Selector, places},
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
    let machines: Vec<Machine> =
        all_pages(cluster, &[], async |client, query| client.machines(query).await).await?;
    let machine = match (&args.machine, &args.unit) {
        (Some(name), _) => named(&machines, name)?.ok_or_else(|| no_machine(name))?,
        (None, Some(unit)) => {
            let unit_there = unit_of(cluster, unit).await?;
            let unit_there = unit_there.ok_or_else(|| no_unit(unit))?;
            of_unit(&machines, &unit_there, &Selector::read(unit))?
        }
        (None, None) => {
            let Some((word, rest)) = words.split_first() else {
                let why =
                    "ssh needs a machine or a unit to go to; `flotctl list-machines` shows the machines";
                return Err(Failure::error(Exit::Usage, why));
            };
            words = rest;
            either(cluster, &machines, &word.to_string_lossy()).await?
        }
    };
    // What told the command from the rest is no word of it.
    if words.first().is_some_and(|word| word == "--") {
        words = &words[1..];
    }
    let address = machine.addresses.first().or(machine.host.as_ref());
    let address = address.ok_or_else(|| {
        let why = format!("nobody knows an address of machine {}, which is {}", machine.id, machine.state);
        Failure::error(Exit::Unreachable, why)
    })?;
    let mut ssh = std::process::Command::new("ssh");
    ssh.args(options.arguments(&Host { user: None, name: address.clone(), port: args.ssh_port }));
    if args.forward_agent {
        ssh.arg("-A");
    }
    if let Some(proxy) = options.proxy_command() {
        let mut option = OsString::from("ProxyCommand=");
        option.push(proxy);
        ssh.arg("-o").arg(option);
    }
    ssh.arg("--").arg(address).args(words);
    cluster.leave();
    let error = ssh.exec();
    Err(Failure::error(Exit::Failed, format!("the system's ssh cannot be run: {error}")))
}

/// Finds a machine or a unit of this name; both is nobody's guess.
async fn either<'a>(cluster: &Cluster, machines: &'a [Machine], word: &str) -> anyhow::Result<&'a Machine> {
    let (machine, unit) = (named(machines, word)?, unit_of(cluster, word).await?);
    match (machine, unit) {
        (Some(_), Some(unit)) => {
            let why = format!(
                "`{word}` is a machine, and {} a unit; say which one with --machine or --unit",
                unit.name
            );
            Err(Failure::error(Exit::Usage, why))
        }
        (Some(machine), None) => Ok(machine),
        (None, Some(unit)) => of_unit(machines, &unit, &Selector::read(word)),
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
fn of_unit<'a>(machines: &'a [Machine], unit: &Unit, selector: &Selector) -> anyhow::Result<&'a Machine> {
    let only = selector.machines(unit).map_err(|why| Failure::error(Exit::NoSuch, why))?;
    let stays = |placement: &&Placement| placement.departing.is_none();
    let any_stays = unit.placements.iter().any(|placement| stays(&placement));
    // Of a unit that moves, where it goes; of one that only leaves, where it still is.
    let mut ids: Vec<MachineId> = unit
        .placements
        .iter()
        .filter(|placement| !any_stays || only.is_some() || stays(placement))
        .map(|placement| placement.machine)
        .filter(|id| only.as_ref().is_none_or(|only| only.contains(id)))
        .collect();
    ids.dedup();
    match ids.as_slice() {
        [] => Err(Failure::error(Exit::NotActive, format!("{} is on no machine", unit.name))),
        [id] => machines.iter().find(|machine| machine.id == *id).ok_or_else(|| no_machine(&id.to_string())),
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

/// Finds a machine by its host name, else by the beginning of its id.
fn named<'a>(machines: &'a [Machine], word: &str) -> anyhow::Result<Option<&'a Machine>> {
    let of =
        |test: &dyn Fn(&Machine) -> bool| machines.iter().filter(|machine| test(machine)).collect::<Vec<_>>();
    let mut found = of(&|machine| machine.host.as_deref() == Some(word));
    if found.is_empty() && !word.is_empty() {
        let beginning = word.to_ascii_lowercase();
        found = of(&|machine| machine.id.to_string().starts_with(&beginning));
    }
    match found.as_slice() {
        [] => Ok(None),
        [machine] => Ok(Some(machine)),
        several => {
            let ids: Vec<String> = several.iter().map(|machine| machine.id.to_string()).collect();
            let why = format!("`{word}` may be any of {}; give more of the id", ids.join(", "));
            Err(Failure::error(Exit::Usage, why))
        }
    }
}

fn no_machine(name: &str) -> anyhow::Error {
    let why = format!("there is no machine {name}; `flotctl list-machines` shows those that there are");
    Failure::error(Exit::NoSuch, why)
}

fn no_unit(word: &str) -> anyhow::Error {
    let Selector { unit, .. } = Selector::read(word);
    let why = format!("there is no unit {unit}; `flotctl list-unit-files` shows those that there are");
    Failure::error(Exit::NoSuch, why)
}
