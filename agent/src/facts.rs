//! What a machine finds out about itself.
//!
//! Read once, at the start of the agent: none of it changes while the machine is up, except what
//! its operator changes with a restart of flotillad.

use std::{collections::BTreeMap, fs, net::IpAddr, path::Path};

use flotilla_registry::records::Capacity;

/// What was found out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// `os`, `kernel`, `architecture`, as `flotctl list-machines -o wide` shows them.
    pub facts: BTreeMap<String, String>,
    /// Processors and memory.
    pub capacity: Capacity,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// The kernel's node name.
    pub host: String,
}

impl Facts {
    /// Reads `/proc` and `/etc` below a root folder, `/` outside tests. What cannot be read is
    /// left out: a machine without `/etc/os-release` can run units all the same.
    #[must_use]
    pub fn read(root: &Path) -> Self {
        let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
        let uname = rustix::system::uname();
        let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
        let mut facts = BTreeMap::from([
            ("kernel".to_owned(), text(uname.release())),
            ("architecture".to_owned(), text(uname.machine())),
        ]);
        if let Some(os) = os_name(&read("etc/os-release")) {
            facts.insert("os".to_owned(), os);
        }
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let capacity = Capacity {
            cpu_milli: processors as u64 * 1_000,
            memory_bytes: memory_bytes(&read("proc/meminfo")).unwrap_or_default(),
        };
        let boot_id = read("proc/sys/kernel/random/boot_id").trim().to_owned();
        Self { facts, capacity, boot_id, host: text(uname.nodename()) }
    }
}

/// Returns the address that this machine uses towards another: a datagram socket is connected,
/// which asks the kernel for a route and sends nothing.
#[must_use]
pub fn address_towards(peer: &str) -> Option<IpAddr> {
    use std::net::{ToSocketAddrs as _, UdpSocket};
    let peer = peer.to_socket_addrs().ok()?.next()?;
    let any: IpAddr = if peer.is_ipv4() { [0, 0, 0, 0].into() } else { [0_u16; 8].into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(peer).ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|ip| !ip.is_unspecified())
}

fn os_name(os_release: &str) -> Option<String> {
    let line = os_release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    Some(line.trim_matches(['"', '\'']).to_owned())
}

fn memory_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_read_and_missing_ones_left_out() {
        let root = tempfile::tempdir().expect("a folder");
        fs::create_dir_all(root.path().join("etc")).expect("made");
        fs::create_dir_all(root.path().join("proc/sys/kernel/random")).expect("made");
        let write = |path: &str, text: &str| fs::write(root.path().join(path), text).expect("written");
        write("etc/os-release", "ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n");
        write("proc/meminfo", "MemTotal:       24696828 kB\nMemFree: 1 kB\n");
        write("proc/sys/kernel/random/boot_id", "2f3c\n");
        let facts = Facts::read(root.path());
        assert_eq!(facts.facts["os"], "Debian GNU/Linux 12 (bookworm)");
        assert_eq!((facts.capacity.memory_bytes, facts.boot_id.as_str()), (24_696_828 * 1024, "2f3c"));
        let none = Facts::read(&root.path().join("nowhere"));
        assert!(!none.facts.contains_key("os") && none.capacity.memory_bytes == 0);
        assert_eq!(address_towards("127.0.0.1:1"), Some([127, 0, 0, 1].into()));
    }
}
