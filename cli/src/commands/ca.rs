//! `flotctl ca`: the single steps of `flotctl cluster init`.

use std::path::PathBuf;

use flotilla_units::MachineId;

use crate::{
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
        name: String,
        /// The machine's id, `cat /etc/machine-id`
        #[arg(long)]
        machine_id: MachineId,
        /// Addresses and further names that the machine answers to (can be repeated)
        #[arg(long = "host", value_name = "HOST")]
        hosts: Vec<String>,
        #[command(flatten)]
        common: Common,
    },
    /// For a member of etcd: writes etcd.pem
    Etcd {
        /// The member's host name
        name: String,
        /// Addresses and further names that the member answers to (can be repeated)
        #[arg(long = "host", value_name = "HOST")]
        hosts: Vec<String>,
        #[command(flatten)]
        common: Common,
    },
    /// For a user: writes user.pem
    User {
        /// The user's name, as it will be shown beside everything that they change
        name: String,
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

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let issue = match &args.command {
        Command::Init { ca_dir } => {
            std::fs::create_dir_all(ca_dir)?;
            Authority::Flotilla.create(ca_dir)?;
            Authority::Etcd.create(ca_dir)?;
            print::line(format_args!(
                "Wrote {}. Whoever has it is root on every machine: keep it off them.",
                ca_dir.display()
            ))?;
            return Ok(());
        }
        Command::Issue(issue) => issue,
    };
    let (common, wrote) = match issue {
        Issue::Machine { name, machine_id, hosts, common } => {
            let mut subject = subject(name, hosts, common.days);
            Authority::Etcd.issue(&common.ca_dir, &subject)?.write(&common.out, "etcd-client")?;
            subject.identity = Some(Identity::Machine(*machine_id));
            subject.serves = true;
            Authority::Flotilla.issue(&common.ca_dir, &subject)?.write(&common.out, "machine")?;
            (common, "machine.pem and etcd-client.pem")
        }
        Issue::Etcd { name, hosts, common } => {
            let mut subject = subject(name, hosts, common.days);
            subject.hosts.extend(["localhost".to_owned(), "127.0.0.1".to_owned()]);
            subject.serves = true;
            Authority::Etcd.issue(&common.ca_dir, &subject)?.write(&common.out, "etcd")?;
            (common, "etcd.pem")
        }
        Issue::User { name, common } => {
            let mut subject = subject(name, &[], common.days);
            subject.hosts.clear();
            subject.identity = Some(Identity::User(name.clone()));
            Authority::Flotilla.issue(&common.ca_dir, &subject)?.write(&common.out, "user")?;
            (common, "user.pem")
        }
    };
    print::line(format_args!("Wrote {wrote}, with the keys beside, to {}.", common.out.display()))?;
    Ok(())
}

fn subject(name: &str, hosts: &[String], days: i64) -> Subject {
    let mut all = vec![name.to_owned()];
    all.extend(hosts.iter().cloned());
    Subject { name: name.to_owned(), hosts: all, identity: None, days, serves: false }
}
