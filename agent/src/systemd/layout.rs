//! Where things lie on a machine: flotilla's own directories, systemd's, and the bus.
//!
//! Everything is below `/run` (or the user's `$XDG_RUNTIME_DIR`), so a reboot takes it all away:
//! evidence of what was started can never outlive what was started.

use std::path::{Path, PathBuf};

/// The directories and the bus of one service manager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// flotilla's own directory, `/run/flotilla`.
    pub run: PathBuf,
    /// Where systemd looks for runtime units, `/run/systemd/system`.
    pub links: PathBuf,
    /// Everywhere that a unit of the machine's own may lie, [`links`](Self::links) included.
    pub search: Vec<PathBuf>,
    /// Those of them where people put units, and that flotillad may take files from.
    pub own: Vec<PathBuf>,
    /// Where the files of units that were taken over are kept, `/var/lib/flotilla/adopted`.
    pub adopted: PathBuf,
    /// The bus that the manager is on.
    pub bus: String,
    /// Where control groups are mounted, `/sys/fs/cgroup`.
    pub cgroups: PathBuf,
    /// Whether it is a user's manager and not PID 1.
    pub user: bool,
}

/// Where the system's manager reads units, apart from `/run/systemd/system` (systemd.unit(5),
/// "Unit File Load Path"). The order does not matter here: a unit in any of them is not ours.
const SYSTEM_SEARCH: [&str; 9] = [
    "/etc/systemd/system.control",
    "/run/systemd/system.control",
    "/run/systemd/transient",
    "/run/systemd/generator.early",
    "/etc/systemd/system",
    "/run/systemd/generator",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/run/systemd/generator.late",
];

/// Where every user's manager reads units, apart from the user's own directories.
const USER_SEARCH: [&str; 5] = [
    "/etc/systemd/user",
    "/run/systemd/user",
    "/usr/local/share/systemd/user",
    "/usr/local/lib/systemd/user",
    "/usr/lib/systemd/user",
];

impl Layout {
    /// Returns the layout of the machine's own manager.
    #[must_use]
    pub fn system() -> Self {
        let links = PathBuf::from("/run/systemd/system");
        let mut search: Vec<PathBuf> = SYSTEM_SEARCH.iter().map(PathBuf::from).collect();
        search.push(links.clone());
        Self {
            run: "/run/flotilla".into(),
            own: vec!["/etc/systemd/system".into(), links.clone()],
            adopted: "/var/lib/flotilla/adopted".into(),
            links,
            search,
            bus: "unix:path=/run/dbus/system_bus_socket".to_owned(),
            cgroups: "/sys/fs/cgroup".into(),
            user: false,
        }
    }

    /// Returns the layout of a user's manager, from `$XDG_RUNTIME_DIR` and the user's home.
    #[must_use]
    pub fn user(runtime: &Path, home: &Path) -> Self {
        let links = runtime.join("systemd/user");
        let mut search: Vec<PathBuf> = USER_SEARCH.iter().map(PathBuf::from).collect();
        for below_runtime in ["systemd/user.control", "systemd/transient", "systemd/generator"] {
            search.push(runtime.join(below_runtime));
        }
        for below_home in
            [".config/systemd/user.control", ".config/systemd/user", ".local/share/systemd/user"]
        {
            search.push(home.join(below_home));
        }
        search.push(links.clone());
        Self {
            run: runtime.join("flotilla"),
            // Units of a user's manager are not taken over.
            own: Vec::new(),
            adopted: home.join(".local/state/flotilla/adopted"),
            links,
            search,
            bus: format!("unix:path={}", escape_address(&runtime.join("bus"))),
            cgroups: "/sys/fs/cgroup".into(),
            user: true,
        }
    }

    pub(super) fn units(&self) -> PathBuf {
        self.run.join("units")
    }

    pub(super) fn env(&self) -> PathBuf {
        self.run.join("env")
    }

    pub(super) fn started(&self) -> PathBuf {
        self.run.join("started")
    }

    pub(super) fn wanted(&self) -> PathBuf {
        self.run.join("wanted")
    }

    pub(super) fn pulled(&self) -> PathBuf {
        self.run.join("pulled")
    }

    /// There while systemd may not have read the links that were made or removed.
    pub(super) fn unread_links(&self) -> PathBuf {
        self.run.join("unread-links")
    }

    pub(super) fn drop_ins(&self) -> PathBuf {
        self.run.join("drop-in")
    }
}

/// Escapes a path for a D-Bus address ("Server Addresses" in the specification).
fn escape_address(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt as _;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_/.\\*".contains(&b);
    path.as_os_str()
        .as_bytes()
        .iter()
        .map(|&b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02x}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_everything_below_its_runtime_directory() {
        let layout = Layout::user(Path::new("/run/user/1000"), Path::new("/srv/a b"));
        assert_eq!(layout.run, Path::new("/run/user/1000/flotilla"));
        assert_eq!(layout.links, Path::new("/run/user/1000/systemd/user"));
        assert_eq!(layout.bus, "unix:path=/run/user/1000/bus");
        assert!(layout.search.contains(&PathBuf::from("/srv/a b/.config/systemd/user")));
        assert_eq!(escape_address(Path::new("/a b,c=%")), "/a%20b%2cc%3d%25");
    }
}
