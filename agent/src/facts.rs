//! What a machine finds out about itself.
//!
//! Read once, at the start of flotillad: a published record does not change while nothing changes, and
//! what its operator changes is taken in by a restart. The version of systemd is not here: only systemd
//! can tell which one runs ([`DbusSystemd::version`](crate::systemd::DbusSystemd::version)).

mod addresses;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

use flotilla_registry::records::Capacity;

pub use addresses::address_towards;

/// The highest number of a processor that is counted, for a list that is none: Linux has at most 8,192.
const CPUS_MAX: u32 = 65_535;

/// What was found out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// What `MachineMetadata=` can ask for: `os`, `os.version`, `os.name`, `kernel`, `architecture`,
    /// `cpu`, `memory`, `boot`.
    pub facts: BTreeMap<String, String>,
    /// Processors and memory.
    pub capacity: Capacity,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// The kernel's node name.
    pub host: String,
    /// Its addresses that others can reach it at, IPv4 before IPv6.
    pub addresses: Vec<IpAddr>,
}

impl Facts {
    /// Reads `/proc` and `/etc` below a root folder, `/` outside tests. What cannot be read is
    /// left out: a machine without `/etc/os-release` can run units all the same.
    #[must_use]
    pub fn read(root: &Path) -> Self {
        let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
        let uname = rustix::system::uname();
        let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
        let processors = processors(&read("sys/devices/system/cpu/online"), &read("proc/1/status"));
        let memory = memory_bytes(&read("proc/meminfo"));
        let boot_id = read("proc/sys/kernel/random/boot_id").trim().to_owned();
        let release = os_release(root);
        let of_release = |key: &str| assigned(&release, key);
        let found = [
            ("os", of_release("ID")),
            ("os.version", of_release("VERSION_ID")),
            ("os.name", of_release("PRETTY_NAME")),
            ("kernel", Some(text(uname.release()))),
            ("architecture", Some(text(uname.machine()))),
            ("cpu", Some(processors.to_string())),
            ("memory", memory.map(|bytes| bytes.to_string())),
            ("boot", Some(boot_id.clone())),
        ];
        let facts = found
            .into_iter()
            .filter_map(|(key, value)| Some((key.to_owned(), value.filter(|value| !value.is_empty())?)));
        Self {
            facts: facts.collect(),
            capacity: Capacity {
                cpu_milli: processors * 1_000,
                memory_bytes: memory.unwrap_or_default(),
                named: BTreeMap::new(),
            },
            boot_id,
            host: text(uname.nodename()),
            addresses: addresses::global(&read("proc/net/fib_trie"), &read("proc/net/if_inet6")),
        }
    }
}

/// Returns the text of os-release(5), which has two places; the first that is there counts.
fn os_release(root: &Path) -> String {
    let places = ["etc/os-release", "usr/lib/os-release"].map(|path| root.join(path));
    places.iter().find_map(|path: &PathBuf| fs::read_to_string(path).ok()).unwrap_or_default()
}

/// Returns what a line of os-release(5) assigns, as a shell would read it as far as such files go:
/// quotes are taken off, and a backslash protects the next character between double ones.
fn assigned(text: &str, key: &str) -> Option<String> {
    let of_key = |line: &str| Some(line.trim().strip_prefix(key)?.strip_prefix('=')?.to_owned());
    let value = text.lines().rev().find_map(of_key)?;
    let quoted = |quote: char| value.strip_prefix(quote)?.strip_suffix(quote);
    if let Some(plain) = quoted('\'') {
        return Some(plain.to_owned());
    }
    let mut read = String::new();
    let mut characters = quoted('"').unwrap_or(&value).chars();
    while let Some(character) = characters.next() {
        read.extend(if character == '\\' { characters.next() } else { Some(character) });
    }
    Some(read)
}

/// Counts the processors that units can run on: those that are online, of those that PID 1 may use, which
/// starts them (a container has fewer than its computer). What limits flotillad alone (`CPUQuota=`,
/// `CPUAffinity=`) limits no unit; it counts only where nothing else is told.
fn processors(online: &str, first_process: &str) -> u64 {
    let allowed = first_process.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let (online, allowed) = (cpu_list(online), cpu_list(allowed.unwrap_or_default()));
    let may = |cpu: &&u32| allowed.is_empty() || allowed.contains(cpu);
    match online.iter().filter(may).count() {
        0 => std::thread::available_parallelism().map_or(1, usize::from) as u64,
        count => count as u64,
    }
}

/// Reads a list as the kernel writes it: `0-3,8`. What is not one is none.
fn cpu_list(list: &str) -> BTreeSet<u32> {
    let parts = list.trim().split(',').filter_map(|part| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        Some(from.trim().parse().ok()?..=to.trim().parse::<u32>().ok()?.min(CPUS_MAX))
    });
    parts.flatten().collect()
}

fn memory_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A root folder with these files.
    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a folder");
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, text).expect("written");
        }
        root
    }

    #[test]
    fn facts_are_read_and_missing_ones_left_out() {
        let root = root(&[
            (
                "etc/os-release",
                "ID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n",
            ),
            ("proc/meminfo", "MemTotal:       24696828 kB\nMemFree: 1 kB\n"),
            ("proc/sys/kernel/random/boot_id", "2f3c\n"),
            ("sys/devices/system/cpu/online", "0-2,8\n"),
        ]);
        let found = Facts::read(root.path());
        let fact = |key: &str| found.facts.get(key).map(String::as_str);
        assert_eq!((fact("os"), fact("os.version")), (Some("debian"), Some("12")));
        assert_eq!(fact("os.name"), Some("Debian GNU/Linux 12 (bookworm)"));
        assert_eq!((fact("memory"), fact("boot")), (Some("25289551872"), Some("2f3c")));
        assert_eq!(found.capacity.memory_bytes, 24_696_828 * 1024);
        assert_eq!((fact("cpu"), found.capacity.cpu_milli), (Some("4"), 4_000));
        assert!(fact("kernel").is_some() && fact("architecture").is_some());
        assert_eq!(Facts::read(root.path()), found, "what does not change is published the same");

        let none = Facts::read(&root.path().join("nowhere"));
        let keys: Vec<&str> = none.facts.keys().map(String::as_str).collect();
        assert_eq!(keys, ["architecture", "cpu", "kernel"]);
        assert!(none.capacity.memory_bytes == 0 && none.addresses.is_empty());
    }

    #[test]
    fn the_processors_of_the_machine_count_and_not_those_that_flotillad_may_use() {
        let own = std::thread::available_parallelism().map_or(1, usize::from) as u64;
        let status = |list| format!("Name:\tsystemd\nCpus_allowed:\tffff\nCpus_allowed_list:\t{list}\n");
        for (online, first, counted) in [
            ("0-1023\n", String::new(), 1_024),
            ("0-63\n", status("0-1,40"), 3),
            ("0,2-3\n", status("0-127"), 3),
            ("0\n", status(""), 1),
            ("", status("0-3"), own),
            ("rubbish-,7-1", status("x"), own),
        ] {
            assert_eq!(processors(online, &first), counted, "{online:?} {first:?}");
        }
    }

    #[test]
    fn os_release_is_read_where_it_is_and_as_a_shell_does() {
        let root = root(&[("usr/lib/os-release", "#ID=no\nID=arch\nVERSION_ID=\n")]);
        let found = Facts::read(root.path()).facts;
        assert_eq!(found["os"], "arch");
        assert!(!found.contains_key("os.version"), "it is empty on what has no releases");
        let rows = [
            ("N=plain\n", "plain"),
            ("N='single $x'\n", "single $x"),
            ("N=\"a \\\"b\\\" \\$c\"\n", "a \"b\" $c"),
            ("N=first\nN=last\n", "last"),
        ];
        for (text, expected) in rows {
            assert_eq!(assigned(text, "N").as_deref(), Some(expected), "{text:?}");
        }
        assert_eq!(assigned("NAME=x\n", "N"), None);
    }
}
