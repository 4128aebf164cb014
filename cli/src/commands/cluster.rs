//! `flotctl cluster`: makes a cluster, or shows how it is.

use std::{io::Write as _, time::Duration};

use flotilla_api::{
    client::Client,
    cluster::{ClusterStatus, SettingsChange},
};

use super::cluster_init;
use crate::{args::Output, connection::Cluster, paint, print, text};

/// Makes a cluster, or shows how it is.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Write certificates and configuration for a new cluster, a folder per machine
    Init(cluster_init::Args),
    /// Show how the cluster is
    Status,
    /// End a mass-loss hold: the machines that are lost stay lost, and their units may start elsewhere
    ReleaseHold,
    /// Let the flotillad that answers go on with a store that was restored or wiped; on each machine
    AcceptStore,
    /// Show what is set for the whole cluster, or set it: events-kept=7d, events-max=20000
    Settings {
        /// What to set
        #[arg(value_name = "NAME=VALUE", value_parser = setting)]
        set: Vec<Setting>,
    },
}

/// Something that can be set for the whole cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Setting {
    EventsKept(Duration),
    EventsMax(u64),
}

fn setting(text: &str) -> Result<Setting, String> {
    match text.split_once('=') {
        Some(("events-kept", span)) => crate::args::span(span).map(Setting::EventsKept),
        Some(("events-max", count)) => {
            let refuse = |_| format!("`{count}` is not a number of events, for example 20000");
            count.parse().map(Setting::EventsMax).map_err(refuse)
        }
        _ => Err(format!("`{text}` is no setting; expected events-kept=SPAN or events-max=NUMBER")),
    }
}

impl Args {
    /// Tells whether the command needs no cluster.
    pub(crate) const fn is_offline(&self) -> bool {
        matches!(self.command, Some(Command::Init(_)))
    }

    /// Tells whether the command is for the flotillad that answers, and for no other in its place.
    pub(crate) const fn is_for_one_machine(&self) -> bool {
        matches!(self.command, Some(Command::AcceptStore))
    }
}

/// Runs what needs no cluster.
pub(crate) fn run_offline(args: &Args, output: Output) -> anyhow::Result<()> {
    match &args.command {
        Some(Command::Init(args)) => cluster_init::run(args, output),
        Some(Command::Status | Command::ReleaseHold | Command::AcceptStore | Command::Settings { .. })
        | None => Ok(()),
    }
}

/// Runs what needs a cluster.
pub(crate) async fn run(cluster: &Cluster, args: &Args, output: Output) -> anyhow::Result<()> {
    match &args.command {
        Some(Command::ReleaseHold) => cluster.client().release_hold().await?,
        Some(Command::AcceptStore) => cluster.client().accept_store().await?,
        Some(Command::Settings { set }) => settings(cluster, set, output).await?,
        Some(Command::Init(_) | Command::Status) | None => show(cluster, output).await?,
    }
    Ok(())
}

async fn settings(cluster: &Cluster, set: &[Setting], output: Output) -> anyhow::Result<()> {
    let mut change = SettingsChange::default();
    for setting in set {
        match *setting {
            Setting::EventsKept(span) => change.events_kept_s = Some(span.as_secs()),
            Setting::EventsMax(count) => change.events_max = Some(count),
        }
    }
    let settings = match set {
        [] => cluster.read(Client::settings).await?,
        _ => cluster.client().configure(&change).await?,
    };
    if output == Output::Json {
        return Ok(print::json(&settings)?);
    }
    let mut out = print::out();
    writeln!(out, "events-kept={}s", settings.events_kept_s)?;
    writeln!(out, "events-max={}", settings.events_max)?;
    Ok(())
}

async fn show(cluster: &Cluster, output: Output) -> anyhow::Result<()> {
    let status = cluster.read(Client::cluster).await?;
    if output == Output::Json {
        return Ok(print::json(&status)?);
    }
    describe(&status)
}

fn describe(status: &ClusterStatus) -> anyhow::Result<()> {
    let mut out = print::out();
    let short = |id: &flotilla_units::MachineId| id.short();
    let seats: Vec<String> = status.seats.iter().map(short).collect();
    let id = status.id.as_deref().unwrap_or("none yet");
    writeln!(out, "  Cluster: {id} (epoch {}, revision {})", status.epoch, status.revision)?;
    let leader = status.leader.as_ref().map_or_else(|| "none".to_owned(), short);
    writeln!(out, "   Leader: {leader}; seats: {}", seats.join(", "))?;
    let lost = match status.machines_lost {
        0 => "none lost".to_owned(),
        lost => paint::bad(format!("{lost} lost")).to_string(),
    };
    writeln!(out, " Machines: {} alive, {lost}", status.machines_alive)?;
    writeln!(out, "    Units: {}", status.units)?;
    let quota =
        status.store_quota_bytes.map(|bytes| format!(" of {}", text::bytes(bytes))).unwrap_or_default();
    writeln!(out, "    Store: {}, {}{quota}", status.store, text::bytes(status.store_size_bytes))?;
    for problem in &status.problems {
        writeln!(out, "{}", paint::bad(format!("  Problem: {}", text::one_line(problem))))?;
    }
    Ok(())
}
