//! `flotctl ca`: the single steps of `flotctl cluster init`.

use std::{
    fs::DirBuilder,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use flotilla_units::MachineId;
use serde::Serialize;

use crate::{
    args::Output,
    names::{Host, HostName, PlainName},
    pki::{Authority, CERTIFICATE_DAYS, Identity, Subject},
    print,
};

/// Makes certificate authorities and issues certificates.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make the two authorities, flotilla's and etcd's
    Init {
        /// Where to keep them
        #[arg(long, default_value = "ca", value_name = "DIR")]
        ca_dir: PathBuf,
        /// The cluster's name, as the authorities' certificates have it
        #[arg(long, default_value = "cluster", value_name = "NAME")]
        cluster_name: PlainName,
    },
    /// Issue a certificate
    #[command(subcommand)]
    Issue(Issue),
}

#[derive(Debug, clap::Subcommand)]
enum Issue {
    /// For a machine: writes machine.pem and, as etcd's client, etcd-client.pem
    Machine {
        /// The machine's host name
        name: HostName,
        /// The machine's id, `cat /etc/machine-id`
        #[arg(long)]
        machine_id: MachineId,
        /// Addresses and further names that the machine answers to (can be repeated)
        #[arg(long = "host", value_name = "HOST")]
        hosts: Vec<Host>,
        #[command(flatten)]
        common: Common,
    },
    /// For a member of etcd: writes etcd.pem
    Etcd {
        /// The member's host name
        name: HostName,
        /// Addresses and further names that the member answers to (can be repeated)
        #[arg(long = "host", value_name = "HOST")]
        hosts: Vec<Host>,
        #[command(flatten)]
        common: Common,
    },
    /// For a user: writes user.pem
    User {
        /// The user's name, as it will be shown beside everything that they change
        name: PlainName,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, clap::Args)]
struct Common {
    /// Where the authorities are
    #[arg(long, default_value = "ca", value_name = "DIR")]
    ca_dir: PathBuf,
    /// Where to write
    #[arg(long, default_value = ".", value_name = "DIR")]
    out: PathBuf,
    /// How many days it is valid
    #[arg(long, default_value_t = CERTIFICATE_DAYS, value_parser = clap::value_parser!(i64).range(1..=36_500))]
    days: i64,
}

/// What is printed with `-o json`.
#[derive(Serialize)]
struct Written<'a> {
    folder: &'a Path,
    files: Vec<String>,
}

/// Runs the command.
pub(crate) fn run(args: &Args, output: Output) -> anyhow::Result<()> {
    let (folder, stems) = match &args.command {
        Command::Init { ca_dir, cluster_name } => {
            // There are the keys to everything in it.
            let made = DirBuilder::new().recursive(true).mode(0o700).create(ca_dir);
            made.with_context(|| format!("cannot make the folder {}", ca_dir.display()))?;
            Authority::Flotilla.create(ca_dir, cluster_name.as_str())?;
            Authority::Etcd.create(ca_dir, cluster_name.as_str())?;
            (ca_dir, &["ca", "etcd-ca"][..])
        }
        Command::Issue(issue) => issued(issue)?,
    };
    if output == Output::Json {
        let files =
            stems.iter().flat_map(|stem| [format!("{stem}.pem"), format!("{stem}-key.pem")]).collect();
        return Ok(print::json(&Written { folder, files })?);
    }
    let shown = folder.display();
    if matches!(args.command, Command::Init { .. }) {
        print::line(format_args!(
            "Wrote {shown}. Whoever has it is root on every machine: keep it off them."
        ))?;
        return Ok(());
    }
    let names: Vec<String> = stems.iter().map(|stem| format!("{stem}.pem")).collect();
    let names = names.join(" and ");
    Ok(print::line(format_args!("Wrote {names}, with the keys beside, to {shown}."))?)
}

/// Issues what was asked for; returns where, and the files' names without `.pem`.
fn issued(issue: &Issue) -> anyhow::Result<(&PathBuf, &'static [&'static str])> {
    let (Issue::Machine { common, .. } | Issue::Etcd { common, .. } | Issue::User { common, .. }) = issue;
    let made = std::fs::create_dir_all(&common.out);
    made.with_context(|| format!("cannot make the folder {}", common.out.display()))?;
    Ok(match issue {
        Issue::Machine { name, machine_id, hosts, common } => {
            let mut subject = subject(name, hosts, common.days);
            Authority::Etcd.issue(&common.ca_dir, &subject)?.write(&common.out, "etcd-client")?;
            subject.identity = Some(Identity::Machine(*machine_id));
            subject.serves = true;
            Authority::Flotilla.issue(&common.ca_dir, &subject)?.write(&common.out, "machine")?;
            (&common.out, &["machine", "etcd-client"])
        }
        Issue::Etcd { name, hosts, common } => {
            let mut subject = subject(name, hosts, common.days);
            subject.hosts.extend(["localhost".to_owned(), "127.0.0.1".to_owned()]);
            subject.serves = true;
            Authority::Etcd.issue(&common.ca_dir, &subject)?.write(&common.out, "etcd")?;
            (&common.out, &["etcd"])
        }
        Issue::User { name, common } => {
            let identity = Some(Identity::User(name.to_string()));
            let subject = Subject {
                name: name.to_string(),
                hosts: Vec::new(),
                identity,
                days: common.days,
                serves: false,
            };
            Authority::Flotilla.issue(&common.ca_dir, &subject)?.write(&common.out, "user")?;
            (&common.out, &["user"])
        }
    })
}

fn subject(name: &HostName, hosts: &[Host], days: i64) -> Subject {
    let mut all = vec![name.to_string()];
    all.extend(hosts.iter().map(|host| host.as_str().to_owned()));
    Subject { name: name.to_string(), hosts: all, identity: None, days, serves: false }
}
