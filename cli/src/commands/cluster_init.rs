//! `flotctl cluster init`: everything a new cluster needs, a folder per machine.

mod install;

use std::{
    fmt::Write as _,
    fs::{self, DirBuilder},
    io::{self, Write as _},
    net::IpAddr,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use flotilla_units::MachineId;
use serde::Serialize;

use crate::{
    args::Output,
    names::{self, NewMachine, PlainName},
    pki::{Authority, CERTIFICATE_DAYS, Identity, Subject, write_new},
    print,
};

/// How many machines carry etcd unless asked otherwise. Three survive the loss of one, and more
/// only make writes slower.
const ETCD_MEMBERS: usize = 3;

/// Writes certificates and configuration for a new cluster, a folder per machine.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The machines: name and address, and the machine's own id where it is known (can be repeated)
    #[arg(value_name = "NAME=ADDRESS[/MACHINE-ID]", required = true)]
    machines: Vec<NewMachine>,

    /// Where to write the folders; it must not exist yet
    #[arg(long, default_value = "flotilla-cluster", value_name = "DIR")]
    out: PathBuf,

    /// Which machines carry etcd, by name [default: the first three, or the first one of two]
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    etcd: Vec<String>,

    /// Name of the first user's certificate
    #[arg(long, default_value = "admin")]
    user: PlainName,

    /// The cluster's name, as its authorities' certificates have it
    #[arg(long, default_value = "cluster", value_name = "NAME")]
    cluster_name: PlainName,
}

/// What is printed with `-o json`.
#[derive(Serialize)]
struct Written<'a> {
    folder: &'a Path,
    user: &'a str,
    machines: Vec<WrittenMachine<'a>>,
}

#[derive(Serialize)]
struct WrittenMachine<'a> {
    name: &'a str,
    address: IpAddr,
    machine_id: MachineId,
    etcd: bool,
}

/// Runs the command. Everything is checked first; the folder appears whole, or not at all.
pub(crate) fn run(args: &Args, output: Output) -> anyhow::Result<()> {
    names::check(&args.machines, &args.etcd)?;
    let members = members(args);
    let shown = args.out.display();
    if args.out.symlink_metadata().is_ok() {
        bail!("{shown} exists already; expected a folder that does not, and --out names another");
    }
    let mut partial = args.out.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let begun = private_folder(&partial);
    begun.with_context(|| format!("cannot make the folder {}, to become {shown}", partial.display()))?;
    let written = fill(args, &members, &partial).and_then(|machines| {
        fs::rename(&partial, &args.out).with_context(|| format!("cannot name the folder {shown}"))?;
        Ok(machines)
    });
    let Ok(machines) = written else {
        // What broke off here is of no use to anybody, and has keys in it.
        let _told_below = fs::remove_dir_all(&partial);
        return written.map(|_| ());
    };
    if output == Output::Json {
        let written = Written { folder: &args.out, user: args.user.as_str(), machines };
        return Ok(print::json(&written)?);
    }
    Ok(write!(print::out(), "{}", instructions(args, &members))?)
}

fn fill<'a>(args: &'a Args, members: &[&NewMachine], out: &Path) -> anyhow::Result<Vec<WrittenMachine<'a>>> {
    let ca = out.join("ca");
    private_folder(&ca)?;
    Authority::Flotilla.create(&ca, args.cluster_name.as_str())?;
    Authority::Etcd.create(&ca, args.cluster_name.as_str())?;
    let mut written = Vec::new();
    for machine in &args.machines {
        let etcd = members.contains(&machine);
        let machine_id = write_machine(out, &ca, machine, etcd, members)?;
        written.push(WrittenMachine {
            name: machine.name.as_str(),
            address: machine.address,
            machine_id,
            etcd,
        });
    }
    write_user(out, &ca, args.user.as_str(), &args.machines)?;
    Ok(written)
}

/// Makes a folder that is its owner's alone, whatever the umask: there are keys in all of them.
fn private_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

fn members(args: &Args) -> Vec<&NewMachine> {
    if args.etcd.is_empty() {
        // Two members are worse than one: both have to live for either to answer.
        let count = if args.machines.len() < ETCD_MEMBERS { 1 } else { ETCD_MEMBERS };
        return args.machines.iter().take(count).collect();
    }
    let named = |machine: &&NewMachine| args.etcd.iter().any(|name| machine.name.as_str() == name);
    args.machines.iter().filter(named).collect()
}

fn write_machine(
    out: &Path,
    ca: &Path,
    machine: &NewMachine,
    member: bool,
    members: &[&NewMachine],
) -> anyhow::Result<MachineId> {
    let folder = out.join(machine.name.as_str());
    private_folder(&folder)?;
    let id = machine.id.unwrap_or_else(random_machine_id);
    let hosts = vec![machine.name.to_string(), machine.address.to_string()];
    let mut subject = Subject {
        name: machine.name.to_string(),
        hosts: hosts.clone(),
        identity: Some(Identity::Machine(id)),
        days: CERTIFICATE_DAYS,
        serves: true,
    };
    Authority::Flotilla.issue(ca, &subject)?.write(&folder, "machine")?;
    (subject.identity, subject.serves) = (None, false);
    Authority::Etcd.issue(ca, &subject)?.write(&folder, "etcd-client")?;
    write_new(&folder.join("ca.pem"), &Authority::Flotilla.certificate(ca)?, 0o644)?;
    write_new(&folder.join("etcd-ca.pem"), &Authority::Etcd.certificate(ca)?, 0o644)?;
    write_new(&folder.join("flotilla.toml"), &flotilla_toml(machine, id, members), 0o644)?;
    write_new(&folder.join("install"), &install::script(member), 0o755)?;
    if member {
        // etcd 3.4 also asks itself with the certificate it serves with, so it has to be both.
        subject.serves = true;
        subject.hosts = [hosts, vec!["localhost".to_owned(), "127.0.0.1".to_owned()]].concat();
        Authority::Etcd.issue(ca, &subject)?.write(&folder, "etcd")?;
        write_new(&folder.join("etcd.default"), &etcd_default(machine, members), 0o644)?;
        write_new(&folder.join("etcd.conf"), ETCD_DROP_IN, 0o644)?;
    }
    Ok(id)
}

fn write_user(out: &Path, ca: &Path, user: &str, machines: &[NewMachine]) -> anyhow::Result<()> {
    let folder = out.join(format!("user-{user}"));
    private_folder(&folder)?;
    let subject = Subject {
        name: user.to_owned(),
        hosts: Vec::new(),
        identity: Some(Identity::User(user.to_owned())),
        days: CERTIFICATE_DAYS,
        serves: false,
    };
    Authority::Flotilla.issue(ca, &subject)?.write(&folder, "user")?;
    write_new(&folder.join("ca.pem"), &Authority::Flotilla.certificate(ca)?, 0o644)?;
    let endpoints: Vec<String> = machines.iter().map(|m| format!("\"{}\"", api_url(m.address))).collect();
    let text = format!(
        "# Copy this folder to ~/.config/flotilla, and flotctl finds the cluster by itself.\n\
         endpoints = [{}]\nca = \"ca.pem\"\ncertificate = \"user.pem\"\nkey = \"user-key.pem\"\n",
        endpoints.join(", ")
    );
    write_new(&folder.join("flotctl.toml"), &text, 0o644)
}

fn api_url(address: IpAddr) -> String {
    url(address, flotilla_api::DEFAULT_PORT)
}

fn url(address: IpAddr, port: u16) -> String {
    format!("https://{}", std::net::SocketAddr::new(address, port))
}

fn flotilla_toml(machine: &NewMachine, id: MachineId, members: &[&NewMachine]) -> String {
    let endpoints: Vec<String> = members.iter().map(|m| format!("\"{}\"", url(m.address, 2379))).collect();
    let origin = match machine.id {
        Some(_) => "The machine's own id; its certificate carries it.",
        None => "Made for this machine; its certificate carries it, so it stands above /etc/machine-id.",
    };
    format!(
        r#"# {name}: written by `flotctl cluster init`; see flotilla.toml(5).

# {origin}
machine-id = "{id}"

[api]
listen = "{listen}"
advertise = "{advertise}"

[tls]
ca = "/etc/flotilla/ca.pem"
certificate = "/etc/flotilla/machine.pem"
key = "/etc/flotilla/machine-key.pem"

[store.etcd]
endpoints = [{endpoints}]
ca = "/etc/flotilla/etcd-ca.pem"
certificate = "/etc/flotilla/etcd-client.pem"
key = "/etc/flotilla/etcd-client-key.pem"

# What MachineMetadata= of unit files is compared with.
[metadata]
"#,
        name = machine.name,
        listen = std::net::SocketAddr::new(machine.address, flotilla_api::DEFAULT_PORT),
        advertise = api_url(machine.address),
        endpoints = endpoints.join(", "),
    )
}

fn etcd_default(machine: &NewMachine, members: &[&NewMachine]) -> String {
    let cluster: Vec<String> =
        members.iter().map(|m| format!("{}={}", m.name, url(m.address, 2380))).collect();
    let token = members.iter().map(|m| m.name.as_str()).collect::<Vec<_>>().join("-");
    format!(
        r#"# {name}: written by `flotctl cluster init`; read by the distribution's etcd.service.
ETCD_NAME="{name}"
ETCD_DATA_DIR="/var/lib/etcd/flotilla"
ETCD_LISTEN_CLIENT_URLS="{client},https://127.0.0.1:2379"
ETCD_ADVERTISE_CLIENT_URLS="{client}"
ETCD_LISTEN_PEER_URLS="{peer}"
ETCD_INITIAL_ADVERTISE_PEER_URLS="{peer}"
ETCD_INITIAL_CLUSTER="{cluster}"
ETCD_INITIAL_CLUSTER_STATE="new"
ETCD_INITIAL_CLUSTER_TOKEN="flotilla-{token}"
ETCD_CLIENT_CERT_AUTH="true"
ETCD_TRUSTED_CA_FILE="/etc/etcd/flotilla/etcd-ca.pem"
ETCD_CERT_FILE="/etc/etcd/flotilla/etcd.pem"
ETCD_KEY_FILE="/etc/etcd/flotilla/etcd-key.pem"
ETCD_PEER_CLIENT_CERT_AUTH="true"
ETCD_PEER_TRUSTED_CA_FILE="/etc/etcd/flotilla/etcd-ca.pem"
ETCD_PEER_CERT_FILE="/etc/etcd/flotilla/etcd.pem"
ETCD_PEER_KEY_FILE="/etc/etcd/flotilla/etcd-key.pem"
# flotilla compacts the store itself.
ETCD_AUTO_COMPACTION_RETENTION="0"
# Loss of one machine is noticed after its lease; a leader of etcd that is lost, sooner.
ETCD_HEARTBEAT_INTERVAL="100"
ETCD_ELECTION_TIMEOUT="1000"
"#,
        name = machine.name,
        client = url(machine.address, 2379),
        peer = url(machine.address, 2380),
        cluster = cluster.join(","),
    )
}

/// What the distribution's etcd.service needs beside its configuration.
const ETCD_DROP_IN: &str = "\
# Written by `flotctl cluster init`.
[Service]
# The distribution's Type=notify counts etcd as started when most members have been found. The first
# machine would wait for the others, and what is ordered after etcd with it: flotillad asks the store
# by itself until it answers, and keeps this machine's units going meanwhile.
Type=exec
Restart=always
RestartSec=1
";

fn instructions(args: &Args, members: &[&NewMachine]) -> String {
    let mut text = format!("Wrote {}:\n", args.out.display());
    for machine in &args.machines {
        let etcd = if members.contains(&machine) { ", etcd" } else { "" };
        let _ = writeln!(text, "  {}/  for {} (flotillad{etcd})", machine.name, machine.address);
    }
    let _ = writeln!(text, "  user-{0}/  for {0}: copy it to ~/.config/flotilla", args.user);
    text.push_str("  ca/  the authorities: keep it off the machines; who has it is root on all of them\n\n");
    text.push_str("Copy each machine's folder to it, and run there, as root:\n  ./NAME/install\n");
    text.push_str("  systemctl enable etcd flotillad && systemctl restart etcd flotillad\n");
    if members.len() < args.machines.len() {
        text.push_str("(without etcd on the machines that have none)\n");
    }
    text
}

fn random_machine_id() -> MachineId {
    loop {
        // A version 4 UUID, as systemd-machine-id-setup(1) makes them.
        let number = rand::random::<u128>() & !(0xf000 << 64) & !(0b11 << 62) | (0x4000 << 64) | (0b10 << 62);
        if let Ok(id) = format!("{number:032x}").parse() {
            return id;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn machine(text: &str) -> NewMachine {
        text.parse().expect("valid")
    }

    #[test]
    fn random_ids_are_version_4() {
        let id = random_machine_id().to_string();
        assert_eq!(&id[12..13], "4", "{id}");
        assert!(matches!(&id[16..17], "8" | "9" | "a" | "b"), "{id}");
    }

    #[test]
    fn every_machine_gets_a_folder_that_is_complete() {
        let directory = tempfile::tempdir().expect("a directory");
        let args = Args {
            machines: ["a=10.0.0.1", "b=10.0.0.2", "c=10.0.0.3", "d=10.0.0.4"].map(machine).to_vec(),
            out: directory.path().join("out"),
            etcd: Vec::new(),
            user: "admin".parse().expect("valid"),
            cluster_name: "test".parse().expect("valid"),
        };
        run(&args, Output::Table).expect("written");
        let files = |folder: &str| {
            let entries = fs::read_dir(args.out.join(folder)).expect("a folder");
            let mut names: Vec<String> =
                entries.map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
            names.sort();
            names.join(" ")
        };
        let client = "ca.pem etcd-ca.pem etcd-client-key.pem etcd-client.pem";
        let own = "flotilla.toml install machine-key.pem machine.pem";
        assert_eq!(files("d"), format!("{client} {own}"));
        assert_eq!(files("a"), format!("{client} etcd-key.pem etcd.conf etcd.default etcd.pem {own}"));
        assert_eq!(files("user-admin"), "ca.pem flotctl.toml user-key.pem user.pem");
        let toml: toml::Table =
            fs::read_to_string(args.out.join("d/flotilla.toml")).expect("readable").parse().expect("TOML");
        let endpoints = toml["store"]["etcd"]["endpoints"].as_array().expect("a list");
        assert_eq!(endpoints.len(), 3);
        for folder in ["", "ca", "a", "user-admin"] {
            let mode = fs::metadata(args.out.join(folder)).expect("there").permissions().mode();
            assert_eq!(mode & 0o777, 0o700, "{folder}");
        }
        let refused = run(&args, Output::Table).expect_err("an existing folder is never written into");
        assert!(refused.to_string().contains("exists already"), "{refused}");
        assert!(!args.out.with_extension("partial").exists());
    }
}
