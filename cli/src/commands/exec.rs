//! `flotctl exec` and `flotctl shell`: commands on machines, without ssh.

use flotilla_api::{machine::MachineState, session::Open, unit::Placement};

use crate::{
    connection::Cluster,
    exit::{Exit, Failure},
    machines,
    selector::Selector,
    session,
};

/// Runs a command in a unit, as one of its processes.
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "The command runs on the unit's machine in its control group and namespaces, with the user, \
environment and working directory of its main process. Its exit status is passed on, 128 and the number for a signal; 126 and \
127 say that it cannot be run or is not there, 125 that the unit cannot be entered, 255 that the session broke. \
Whatever it leaves behind ends with it. Each use is an event."
)]
pub(crate) struct ExecArgs {
    /// The unit, or UNIT@MACHINE for one that is on several
    #[arg(add = crate::complete::units())]
    unit: String,

    /// The machine, instead of behind the unit: its host name or the beginning of its id
    #[arg(long, short, add = crate::complete::machines())]
    machine: Option<String>,

    #[command(flatten)]
    terminal: TerminalArgs,

    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Opens a shell on a machine, or runs a command there.
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "The login shell of the user that flotillad runs as, root as a rule, outside of any unit and \
of flotillad's own confinement. Type Ctrl-] three times within a second to leave a session that does not answer. Exit statuses \
are those of exec. Each use is an event."
)]
pub(crate) struct ShellArgs {
    /// The machine: its host name or the beginning of its id
    #[arg(add = crate::complete::machines())]
    machine: String,

    #[command(flatten)]
    terminal: TerminalArgs,

    /// A program and its arguments, instead of a shell
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

#[derive(Debug, Clone, Copy, clap::Args)]
struct TerminalArgs {
    /// Give it a terminal, also where standard input and output are none
    #[arg(long = "terminal", short = 't')]
    give: bool,

    /// Give it no terminal
    #[arg(long = "no-terminal", short = 'T', conflicts_with = "give")]
    refuse: bool,
}

/// Runs a command in a unit.
pub(crate) async fn exec(cluster: &Cluster, args: &ExecArgs) -> anyhow::Result<Exit> {
    let Selector { unit: name, machine } = Selector::read(&args.unit);
    let machine = args.machine.clone().or(machine);
    let unit = cluster.read(async |client| client.unit(&name).await).await?;
    let only = match &machine {
        Some(word) => Some(machines::find(cluster, word).await?.id),
        None => None,
    };
    let here: Vec<&Placement> = unit
        .placements
        .iter()
        .filter(|place| place.machine_alive && only.is_none_or(|id| place.machine == id))
        .collect();
    // A unit that is leaving counts where it is nowhere else.
    let staying: Vec<&Placement> =
        here.iter().copied().filter(|placement| placement.departing.is_none()).collect();
    let mut places = if staying.is_empty() { here } else { staying };
    if !unit.global {
        places = preferred(places);
    }
    let place = match places.as_slice() {
        [one] => *one,
        [] => {
            let where_to = machine.as_deref().unwrap_or("any living machine");
            let why = unit.unplaced.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
            return Err(Failure::error(Exit::NotActive, format!("{name} is not on {where_to}{why}")));
        }
        several => {
            let hosts: Vec<&str> = several.iter().filter_map(|place| place.host.as_deref()).collect();
            let message = format!("{name} is on {}; name one of them, as {name}@MACHINE", hosts.join(", "));
            return Err(Failure::error(Exit::Usage, message));
        }
    };
    let terminal = session::wanted(args.terminal.give, args.terminal.refuse);
    let open = Open { unit: Some(name), command: args.command.clone(), terminal };
    session::run(cluster.client(), &place.machine.to_string(), open).await
}

/// Of a unit that is being started elsewhere before it leaves, keeps the place where it runs: of two the one that
/// it goes to.
fn preferred(places: Vec<&Placement>) -> Vec<&Placement> {
    let runs = |place: &&Placement| {
        let state = place.state.as_ref().filter(|state| state.token == Some(place.token));
        state.is_some_and(|state| state.active == "active")
    };
    places.into_iter().max_by_key(|place| (runs(place), place.token)).into_iter().collect()
}

/// Opens a shell on a machine.
pub(crate) async fn shell(cluster: &Cluster, args: &ShellArgs) -> anyhow::Result<Exit> {
    let machine = machines::find(cluster, &args.machine).await?;
    if machine.state != MachineState::Alive {
        let message = format!("{} is {}: nobody answers there", args.machine, machine.state);
        return Err(Failure::error(Exit::Unreachable, message));
    }
    let terminal = session::wanted(args.terminal.give, args.terminal.refuse);
    let open = Open { unit: None, command: args.command.clone(), terminal };
    session::run(cluster.client(), &machine.id.to_string(), open).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(host: &str, token: i64, active: &str) -> Placement {
        serde_json::from_value(serde_json::json!({
            "machine": "113f16a7a0f84c4c8a3f9e3b2f4d6c01", "host": host, "machine_alive": true, "token": token,
            "run": 1, "current": "launched",
            "state": { "load": "loaded", "active": active, "sub": "", "token": token, "run": 1 },
        }))
        .expect("a placement")
    }

    #[test]
    fn of_a_unit_that_moves_the_place_where_it_runs_is_meant() {
        let meant = |places: &[Placement]| {
            let found = preferred(places.iter().collect());
            found.iter().filter_map(|place| place.host.clone()).collect::<Vec<_>>()
        };
        assert_eq!(meant(&[place("old", 1, "active"), place("new", 2, "activating")]), ["old"]);
        assert_eq!(meant(&[place("new", 2, "active"), place("old", 1, "active")]), ["new"]);
        assert_eq!(meant(&[place("old", 1, "inactive"), place("new", 2, "inactive")]), ["new"]);
        assert_eq!(meant(&[]), [""; 0]);
    }
}
