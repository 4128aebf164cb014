//! What a machine and an etcd member have in common: a name, an address, a cable,
//! and control groups.

use std::{fs, net::Ipv4Addr, path::PathBuf};

use anyhow::{Context, Result};

use crate::{control_group::Group, name::Territory, network::Network};

/// Something with a cable in the lab's switch.
#[derive(Debug, Clone)]
pub struct Node {
    name: String,
    address: Ipv4Addr,
    directory: PathBuf,
    group: Group,
    network: Network,
    space: String,
}

impl Node {
    pub(crate) fn new(territory: &Territory, group: &Group, name: String, address: Ipv4Addr) -> Self {
        Self {
            address,
            directory: territory.directory().join(&name),
            group: group.child(&name),
            network: Network::new(territory),
            space: territory.of(&name),
            name,
        }
    }

    /// The name, which is also the host name: `m1`, `etcd1`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The address in the lab's network.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Says whether any of its processes is alive.
    pub fn is_running(&self) -> bool {
        !self.group.processes().is_empty()
    }

    /// Says whether the cable was pulled.
    pub fn is_cut(&self) -> bool {
        self.cut_mark().exists()
    }

    /// Pulls the cable: nothing goes in or out until [`Node::heal`], also over a
    /// reboot.
    pub fn cut(&self) -> Result<()> {
        fs::write(self.cut_mark(), "").context("marking the cable as cut")?;
        self.network.set_plugged(&self.name, false)
    }

    /// Puts the cable back.
    pub fn heal(&self) -> Result<()> {
        if self.is_cut() {
            fs::remove_file(self.cut_mark()).context("marking the cable as whole")?;
        }
        self.network.set_plugged(&self.name, true)
    }

    /// Drops what this node sends to `other`; what `other` sends still arrives.
    pub fn cut_one_way(&self, other: &Self) -> Result<()> {
        self.network.cut_one_way(&self.name, &other.name)
    }

    /// Drops what this node and `other` send to each other.
    pub fn cut_from(&self, other: &Self) -> Result<()> {
        self.cut_one_way(other)?;
        other.cut_one_way(self)
    }

    /// Stops every process in its tracks. The kernel still answers for it: open
    /// connections stay open, as with a machine that swaps itself to death.
    pub fn freeze(&self) -> Result<()> {
        self.group.freeze()
    }

    /// Lets the processes go on.
    pub fn thaw(&self) -> Result<()> {
        self.group.thaw()
    }

    pub(crate) fn directory(&self) -> &PathBuf {
        &self.directory
    }

    pub(crate) fn group(&self) -> &Group {
        &self.group
    }

    /// The name of its network namespace, and of the machine for nspawn.
    pub(crate) fn space(&self) -> &str {
        &self.space
    }

    /// Makes its directory, control groups and a network of its own, ready for the
    /// first process.
    pub(crate) fn prepare(&self) -> Result<()> {
        fs::create_dir_all(&self.directory)
            .with_context(|| format!("making {}", self.directory.display()))?;
        self.group.create()?;
        self.network.attach(&self.name, self.address, !self.is_cut())
    }

    /// Pulls the cable without marking it as cut: the power is off.
    pub(crate) fn unplug(&self) -> Result<()> {
        self.network.set_plugged(&self.name, false)
    }

    fn cut_mark(&self) -> PathBuf {
        self.directory.join("cut")
    }
}
