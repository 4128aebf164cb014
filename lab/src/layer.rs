//! The layer that all machines of a lab have over the image: what is masked so
//! that a machine boots in a quarter of a second, and who the others are.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// Units that a machine of the lab has no use for.
///
/// They set up hardware, clocks and logins that a container does not have, or
/// tidy disks that live for minutes.
const MASKED: &[&str] = &[
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "console-getty.service",
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty.target",
    "kmod-static-nodes.service",
    "modprobe@.service",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-journal-flush.service",
    "systemd-logind.service",
    "systemd-random-seed.service",
    "systemd-remount-fs.service",
    "systemd-sysctl.service",
    "systemd-sysusers.service",
    "systemd-tmpfiles-clean.timer",
    "systemd-update-utmp-runlevel.service",
    "systemd-update-utmp.service",
    "systemd-user-sessions.service",
];

/// Nothing is lost to a rate limit, and nothing is written to the disk.
const JOURNAL: &str = "[Journal]\nStorage=volatile\nRateLimitBurst=0\nRateLimitIntervalSec=0\n";

/// Writes the layer. An untrimmed machine keeps its logins and user managers.
pub fn write(layer: &Path, trimmed: bool, hosts: &str) -> Result<()> {
    put(&layer.join("etc/systemd/journald.conf.d/lab.conf"), JOURNAL)?;
    put(&layer.join("etc/hosts"), hosts)?;
    if !trimmed {
        return Ok(());
    }
    let units = layer.join("etc/systemd/system");
    for unit in MASKED {
        link("/dev/null", &units.join(unit))?;
    }
    link("/lib/systemd/system/multi-user.target", &units.join("default.target"))?;
    // The bus is otherwise started by its socket, at the first question.
    link("/lib/systemd/system/dbus.service", &units.join("multi-user.target.wants/dbus.service"))
}

fn put(path: &Path, text: &str) -> Result<()> {
    make_parent(path)?;
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

fn link(target: &str, path: &PathBuf) -> Result<()> {
    make_parent(path)?;
    symlink(target, path).with_context(|| format!("linking {}", path.display()))
}

fn make_parent(path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))
}
