//! `flotctl cluster init`: everything a new cluster needs, a folder per machine.

use std::{fmt::Write as _, fs, io::Write as _, net::IpAddr, path::Path, path::PathBuf, str::FromStr};

use anyhow::{Context as _, bail};
use flotilla_units::MachineId;

use crate::{
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
    user: String,
}

/// One machine of a new cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
struct NewMachine {
    name: String,
    address: IpAddr,
    id: Option<MachineId>,
}

impl FromStr for NewMachine {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, rest) = text.split_once('=').ok_or("expected NAME=ADDRESS, for example a=10.0.0.1")?;
        let host = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
        if name.is_empty() || name.len() > 64 || !name.chars().all(host) || name.starts_with(['-', '.']) {
            return Err(format!("`{name}` is not a host name"));
        }
        let (address, id) = match rest.split_once('/') {
            Some((address, id)) => (address, Some(id.parse().map_err(|e| format!("{e}"))?)),
            None => (rest, None),
        };
        let address = address.parse().map_err(|_| format!("`{address}` is not an IP address"))?;
        Ok(Self { name: name.to_owned(), address, id })
    }
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let members = members(args)?;
    for (i, machine) in args.machines.iter().enumerate() {
        let twice = args.machines[..i]
            .iter()
            .any(|other| other.name == machine.name || other.address == machine.address);
        if twice {
            bail!("{}={} names a machine or an address twice", machine.name, machine.address);
        }
    }
    fs::create_dir(&args.out).with_context(|| format!("cannot make the folder {}", args.out.display()))?;
    let ca = args.out.join("ca");
    fs::create_dir(&ca)?;
    Authority::Flotilla.create(&ca)?;
    Authority::Etcd.create(&ca)?;
    for machine in &args.machines {
        let member = members.contains(&machine);
        write_machine(&args.out, &ca, machine, member, &members)?;
    }
    write_user(&args.out, &ca, &args.user, &args.machines)?;
    Ok(write!(print::out(), "{}", instructions(args, &members))?)
}

fn members(args: &Args) -> anyhow::Result<Vec<&NewMachine>> {
    if args.etcd.is_empty() {
        // Two members are worse than one: both have to live for either to answer.
        let count = if args.machines.len() < ETCD_MEMBERS { 1 } else { ETCD_MEMBERS };
        return Ok(args.machines.iter().take(count).collect());
    }
    args.etcd
        .iter()
        .map(|name| {
            let found = args.machines.iter().find(|machine| machine.name == *name);
            found.with_context(|| format!("--etcd names `{name}`, which is not among the machines"))
        })
        .collect()
}

fn write_machine(
    out: &Path,
    ca: &Path,
    machine: &NewMachine,
    member: bool,
    members: &[&NewMachine],
) -> anyhow::Result<()> {
    let folder = out.join(&machine.name);
    fs::create_dir(&folder)?;
    let id = machine.id.unwrap_or_else(random_machine_id);
    let hosts = vec![machine.name.clone(), machine.address.to_string()];
    let mut subject = Subject {
        name: machine.name.clone(),
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
    write_new(&folder.join("install"), &install_script(member), 0o755)?;
    if member {
        // etcd 3.4 also asks itself with the certificate it serves with, so it has to be both.
        subject.serves = true;
        subject.hosts = [hosts, vec!["localhost".to_owned(), "127.0.0.1".to_owned()]].concat();
        Authority::Etcd.issue(ca, &subject)?.write(&folder, "etcd")?;
        write_new(&folder.join("etcd.default"), &etcd_default(machine, members), 0o644)?;
        write_new(&folder.join("etcd.conf"), ETCD_DROP_IN, 0o644)?;
    }
    Ok(())
}

fn write_user(out: &Path, ca: &Path, user: &str, machines: &[NewMachine]) -> anyhow::Result<()> {
    let folder = out.join(format!("user-{user}"));
    fs::create_dir(&folder)?;
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

fn install_script(member: bool) -> String {
    let mut text = String::from(
        r#"#!/bin/sh
# Puts this folder's files where flotillad and etcd look for them. Starts nothing.
set -eu
cd "$(dirname "$0")"
[ "$(id -u)" = 0 ] || { echo "$0: run it as root" >&2; exit 1; }
install -d -m 0755 /etc/flotilla
install -m 0644 flotilla.toml ca.pem machine.pem etcd-ca.pem etcd-client.pem /etc/flotilla/
install -m 0600 machine-key.pem etcd-client-key.pem /etc/flotilla/
"#,
    );
    if member {
        text.push_str(
            r#"command -v etcd >/dev/null || { echo "$0: etcd is not installed (Debian: apt-get install etcd-server)" >&2; exit 1; }
install -d -m 0755 /etc/etcd/flotilla
install -m 0644 etcd-ca.pem etcd.pem /etc/etcd/flotilla/
install -o etcd -g etcd -m 0600 etcd-key.pem /etc/etcd/flotilla/
install -d -o etcd -g etcd -m 0700 /var/lib/etcd/flotilla
install -m 0644 etcd.default /etc/default/etcd
install -d -m 0755 /etc/systemd/system/etcd.service.d
install -m 0644 etcd.conf /etc/systemd/system/etcd.service.d/50-flotilla.conf
systemctl daemon-reload
"#,
        );
    }
    text
}

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
    use super::*;

    fn machine(text: &str) -> NewMachine {
        text.parse().expect("valid")
    }

    #[test]
    fn machines_are_read_with_and_without_an_id() {
        assert_eq!(machine("a=10.0.0.1").address.to_string(), "10.0.0.1");
        assert!(machine("a=fd00::1/113f16a7a0f84c4c8a3f9e3b2f4d6c01").id.is_some());
        for bad in ["a", "a=", "a=b", "=10.0.0.1", "a b=10.0.0.1", "a=10.0.0.1/xyz", "-a=10.0.0.1"] {
            assert!(bad.parse::<NewMachine>().is_err(), "{bad}");
        }
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
            user: "admin".to_owned(),
        };
        run(&args).expect("written");
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
        assert!(run(&args).is_err(), "an existing folder is never written into");
    }
}
