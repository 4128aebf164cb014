//! flotilla on the machines of a lab: what an administrator does with the folders of
//! `flotctl cluster init`, done to each machine.
//!
//! Owns how the machines and etcd members are set up: certificates and configuration
//! as they are generated, the `install` script, the service files of `dist/`. It
//! knows flotilla from outside only, by its programs and what they print. Called by
//! `cargo xtask lab cluster`, the demo, the benchmarks and the tests.

use std::{collections::BTreeMap, fs, path::Path, path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::{
    Lab, Machine, Member,
    command::{checked, command},
    wait::eventually,
};

/// How long the machines may take to form a cluster; a second on an idle computer.
const FORMING: Duration = Duration::from_secs(60);

/// Where a machine's own folder of `flotctl cluster init` is copied to.
const FOLDER: &str = "/root/flotilla-cluster";

/// The services that a package brings.
const SERVICES: [&str; 3] = ["flotillad.service", "flotilla-handover.service", "flotilla.target"];

/// What a cluster is made from.
#[derive(Debug, Clone)]
pub struct Installation {
    /// The directory with `flotillad` and `flotctl`.
    pub programs: PathBuf,
    /// The directory with the service files: `dist/`.
    pub services: PathBuf,
    /// Each machine's metadata beside `host=NAME`, which all have; by the machine's name.
    pub metadata: BTreeMap<String, BTreeMap<String, String>>,
}

/// The columns of `flotctl list-machines` that say whether a cluster has formed.
#[derive(Debug, Deserialize)]
struct Listed {
    state: String,
    leader: bool,
}

impl Installation {
    /// Programs and service files; no metadata beside `host=NAME`.
    pub fn new(programs: impl Into<PathBuf>, services: impl Into<PathBuf>) -> Self {
        Self { programs: programs.into(), services: services.into(), metadata: BTreeMap::new() }
    }

    /// Adds a machine's metadata.
    #[must_use]
    pub fn with_metadata(mut self, machine: &str, key: &str, value: &str) -> Self {
        let of_machine = self.metadata.entry(machine.to_owned()).or_default();
        of_machine.insert(key.to_owned(), value.to_owned());
        self
    }
}

impl Lab {
    /// Makes a cluster of all machines and etcd members, with TLS everywhere; starts
    /// flotillad on every machine, and waits until every machine sees all alive and a
    /// leader.
    ///
    /// etcd begins anew, so this is for a lab that has just come up.
    ///
    /// # Errors
    ///
    /// A program or service file is missing, or the cluster did not form; then with
    /// the end of a machine's journal.
    pub fn make_cluster(&self, installation: &Installation) -> Result<()> {
        ensure!(!self.members().is_empty(), "a cluster needs etcd; boot the lab with a member");
        for program in ["flotillad", "flotctl"] {
            self.install(&installation.programs.join(program))?;
        }
        let folder = self.directory().join("cluster");
        init(self, installation, &folder).context("making the cluster's folders")?;
        secure_etcd(self, &folder).context("giving etcd its certificates")?;
        for machine in self.machines() {
            set_up(machine, installation, &folder.join(machine.name()))
                .with_context(|| format!("setting up {}", machine.name()))?;
        }
        for machine in self.machines() {
            machine.run(&[&["systemctl", "enable", "--quiet"], &SERVICES[..2]].concat())?;
            machine.run(&["systemctl", "start", "--no-block", "flotillad.service"])?;
        }
        let all = self.machines().len();
        self.machines().iter().try_for_each(|machine| wait_formed(machine, all))
    }
}

impl Machine {
    /// Gives the machine's systemd flotilla's service files, as a package would.
    ///
    /// # Errors
    ///
    /// One is not in the directory, or the machine is off.
    pub fn install_services(&self, directory: &Path) -> Result<()> {
        for service in SERVICES {
            let path = directory.join(service);
            let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
            // The lab installs programs where an administrator does, the package where a package does.
            let text = text.replace("/usr/bin/flotillad", "/usr/local/bin/flotillad");
            self.write_file(&format!("/etc/systemd/system/{service}"), text)?;
        }
        self.run(&["systemctl", "daemon-reload"]).map(|_| ())
    }
}

/// Waits until a machine's flotctl shows that many machines alive, and a leader.
///
/// # Errors
///
/// It did not within a minute; with the journal of the machine's flotillad.
pub fn wait_formed(machine: &Machine, alive: usize) -> Result<()> {
    let what = format!("{} to see {alive} machines alive and a leader", machine.name());
    let formed = eventually(FORMING, what, || {
        let listed = machine.run(&["flotctl", "list-machines", "--output", "json"])?;
        let listed: Vec<Listed> = serde_json::from_str(&listed).context("reading what flotctl printed")?;
        let living = listed.iter().filter(|machine| machine.state == "alive").count();
        Ok((living == alive && listed.iter().any(|machine| machine.leader)).then_some(()))
    });
    formed.with_context(|| {
        let journal = machine.journal(&["flotillad.service"]).unwrap_or_default();
        format!("the end of the journal of flotillad:\n{}", crate::wait::tail(&journal))
    })
}

fn init(lab: &Lab, installation: &Installation, folder: &Path) -> Result<()> {
    let mut init = command([installation.programs.join("flotctl")]);
    init.args(["cluster", "init", "--out"]).arg(folder);
    // The etcd members are machines of their own here: their folders' flotilla parts go unused.
    let members: Vec<&str> = lab.members().iter().map(|member| member.name()).collect();
    init.arg("--etcd").arg(members.join(","));
    let machines = lab.machines().iter();
    init.args(machines.map(|machine| format!("{}={}/{}", machine.name(), machine.address(), machine.id())));
    init.args(lab.members().iter().map(|member| format!("{}={}", member.name(), member.address())));
    checked(&mut init).map(|_| ())
}

fn secure_etcd(lab: &Lab, folder: &Path) -> Result<()> {
    let members = lab.members();
    members.iter().try_for_each(|member| member.secure(&folder.join(member.name())))?;
    members.iter().try_for_each(Member::start)?;
    members.iter().try_for_each(Member::wait_healthy)
}

/// Does what an administrator does to a machine with its folder.
fn set_up(machine: &Machine, installation: &Installation, folder: &Path) -> Result<()> {
    for file in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let file = file?;
        let to = format!("{FOLDER}/{}", file.file_name().to_string_lossy());
        machine.copy_in(&file.path(), &to)?;
    }
    let own = BTreeMap::from([("host".to_owned(), machine.name().to_owned())]);
    let given = installation.metadata.get(machine.name());
    // The generated file ends with the table that these go into.
    let metadata: String = own
        .iter()
        .chain(given.into_iter().flatten())
        .map(|(key, value)| format!("{key:?} = {value:?}\n"))
        .collect();
    let configuration = fs::read_to_string(folder.join("flotilla.toml"))? + &metadata;
    machine.write_file(&format!("{FOLDER}/flotilla.toml"), configuration)?;
    machine.run(&[&format!("{FOLDER}/install")])?;
    machine.install_services(&installation.services)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_kept_by_machine() {
        let installation = Installation::new("/programs", "/dist")
            .with_metadata("m1", "disk", "ssd")
            .with_metadata("m1", "zone", "a");
        assert_eq!(installation.metadata["m1"].len(), 2);
    }

    #[test]
    fn what_flotctl_prints_of_machines_is_read() {
        let text = r#"[{"id": "x", "state": "alive", "leader": true, "more": 1}]"#;
        let listed: Vec<Listed> = serde_json::from_str(text).unwrap();
        assert!(listed[0].state == "alive" && listed[0].leader);
    }
}
