//! The switch: a bridge in a network namespace of its own, with a port for every
//! machine and etcd member, and what can be done to its cables.
//!
//! The host's own networking is never touched: no interface, route or rule of the
//! lab is outside its namespaces.

use std::{fs, net::Ipv4Addr, path::PathBuf, thread};

use anyhow::{Context, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::{
    command::{command, run, with_input},
    name::{PREFIX_LENGTH, SWITCH, Territory, hardware_address},
};

/// Where `ip netns` keeps its names.
const NAMESPACES: &str = "/run/netns";

/// Frames from the first port of a pair to the second are dropped.
const RULES: &str = "
table bridge lab {
    set cuts { type ifname . ifname; }
    chain forward {
        type filter hook forward priority 0; policy accept;
        iifname . oifname @cuts drop
    }
}
";

/// A lab's network, seen from the host.
#[derive(Debug, Clone)]
pub struct Network {
    territory: Territory,
    switch: String,
}

impl Network {
    pub(crate) fn new(territory: &Territory) -> Self {
        Self { territory: territory.clone(), switch: territory.of("switch") }
    }

    /// Makes the switch.
    pub(crate) fn create(&self) -> Result<()> {
        run(["ip", "netns", "add", &self.switch])?;
        let lines = format!(
            "link set lo up\nlink add bridge type bridge\nlink set bridge up\naddr add {SWITCH}/{PREFIX_LENGTH} dev bridge\n"
        );
        batch(&self.switch, &lines)?;
        with_input(&mut command(["ip", "netns", "exec", &self.switch, "nft", "-f", "-"]), RULES.as_bytes())?;
        Ok(())
    }

    /// Gives a node a namespace with one interface, plugged into the switch unless
    /// its cable is cut. An older namespace of the node is replaced, and the
    /// connections that it remembers with it.
    pub(crate) fn attach(&self, node: &str, address: Ipv4Addr, plugged: bool) -> Result<()> {
        self.detach(node)?;
        let (switch, space) = (&self.switch, self.territory.of(node));
        run(["ip", "netns", "add", &space])?;
        let state = if plugged { "up" } else { "down" };
        let hardware = hardware_address(address);
        let port = format!(
            "link add {node} type veth peer name eth0 address {hardware} netns {space}\nlink set {node} master bridge {state}\n"
        );
        batch(switch, &port)?;
        let inside =
            format!("link set lo up\naddr add {address}/{PREFIX_LENGTH} dev eth0\nlink set eth0 up\n");
        batch(&space, &inside)
    }

    /// Takes a node's namespace and cable away, if there are any.
    pub(crate) fn detach(&self, node: &str) -> Result<()> {
        let space = self.territory.of(node);
        if !path_of(&space).exists() {
            return Ok(());
        }
        // The cable first: a namespace lives on while any process is in it.
        if self.has_port(node) {
            run(["ip", "-n", &self.switch, "link", "delete", node])?;
        }
        run(["ip", "netns", "delete", &space])?;
        Ok(())
    }

    /// Plugs or unplugs a node's cable.
    pub(crate) fn set_plugged(&self, node: &str, plugged: bool) -> Result<()> {
        run(["ip", "-n", &self.switch, "link", "set", node, if plugged { "up" } else { "down" }])?;
        Ok(())
    }

    /// Drops everything sent from one node to another; the other way stays open.
    pub(crate) fn cut_one_way(&self, from: &str, to: &str) -> Result<()> {
        let pair = format!("{{ \"{from}\" . \"{to}\" }}");
        self.nft(&["add", "element", "bridge", "lab", "cuts", &pair])
    }

    /// Takes back every [`Network::cut_one_way`].
    pub(crate) fn heal_pairs(&self) -> Result<()> {
        self.nft(&["flush", "set", "bridge", "lab", "cuts"])
    }

    /// Moves the calling thread into the lab's network, for good.
    ///
    /// Sockets made by the thread from then on, and processes that it starts,
    /// reach every machine and etcd member. For the threads of a runtime: call it
    /// in `on_thread_start`.
    ///
    /// # Errors
    ///
    /// The lab is down, or the caller is not root.
    pub fn enter(&self) -> Result<()> {
        let path = path_of(&self.switch);
        let space =
            fs::File::open(&path).with_context(|| format!("opening {}; is the lab up?", path.display()))?;
        move_into_link_name_space(std::os::fd::AsFd::as_fd(&space), Some(LinkNameSpaceType::Network))
            .context("entering the lab's network; only root may")
    }

    /// Runs `work` on a thread inside the lab's network and returns its result.
    ///
    /// # Errors
    ///
    /// As [`Network::enter`]. A panic of `work` goes on in the caller.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let inside = || -> Result<T> {
            self.enter()?;
            Ok(work())
        };
        match thread::scope(|scope| scope.spawn(inside).join()) {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    fn has_port(&self, node: &str) -> bool {
        path_of(&self.switch).exists() && run(["ip", "-n", &self.switch, "link", "show", node]).is_ok()
    }

    fn nft(&self, words: &[&str]) -> Result<()> {
        run(["ip", "netns", "exec", &self.switch, "nft"].iter().chain(words))?;
        Ok(())
    }
}

/// The file that stands for a namespace.
pub(crate) fn path_of(space: &str) -> PathBuf {
    PathBuf::from(NAMESPACES).join(space)
}

/// The names of all namespaces that begin with `prefix`.
pub(crate) fn spaces(prefix: &str) -> Vec<String> {
    let entries = fs::read_dir(NAMESPACES).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.starts_with(prefix)).collect()
}

/// Removes a namespace by name, with the interfaces in it.
pub(crate) fn delete(space: &str) -> Result<()> {
    run(["ip", "netns", "delete", space]).map(|_| ())
}

fn batch(space: &str, lines: &str) -> Result<()> {
    with_input(&mut command(["ip", "-n", space, "-batch", "-"]), lines.as_bytes())?;
    Ok(())
}
