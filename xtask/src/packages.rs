//! The one list of Debian packages that demo, test and CI are served from.
//!
//! Read by `deps`, which installs what is missing, and by `image`, which builds
//! the machines that the lab boots. Nothing else names a package.

/// Who needs a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Whoever compiles the workspace.
    Build,
    /// Whoever boots machines: the lab, its tests, the demo.
    Lab,
    /// Whoever counts instructions: `cargo xtask bench counts`.
    Counting,
    /// Whoever boots a machine with a kernel of its own: the tests of resources.
    Virtual,
}

/// A package to install on this computer.
pub struct Package {
    /// Debian's name for it.
    pub name: &'static str,
    /// A file that shows that it is there, also if it came another way.
    pub evidence: &'static str,
    /// Who needs it.
    pub need: Need,
    /// What for, as told to the user.
    pub why: &'static str,
}

/// Installed with apt-get where the evidence is missing.
pub const INSTALLED: &[Package] = &[
    Package {
        name: "protobuf-compiler",
        evidence: "/usr/bin/protoc",
        need: Need::Build,
        why: "compiles etcd's protocol when etcd-client is built",
    },
    Package {
        name: "libprotobuf-dev",
        evidence: "/usr/include/google/protobuf/struct.proto",
        need: Need::Build,
        why: "the protocol files that etcd's own import",
    },
    Package {
        name: "systemd-container",
        evidence: "/usr/bin/systemd-nspawn",
        need: Need::Lab,
        why: "systemd-nspawn boots the lab's machines",
    },
    Package {
        name: "mmdebstrap",
        evidence: "/usr/bin/mmdebstrap",
        need: Need::Lab,
        why: "builds the root file system of the lab's machines",
    },
    Package {
        name: "iproute2",
        evidence: "/usr/bin/ip",
        need: Need::Lab,
        why: "the network namespaces and the switch between the machines",
    },
    Package {
        name: "nftables",
        evidence: "/usr/sbin/nft",
        need: Need::Lab,
        why: "partitions in one direction",
    },
    Package {
        name: "valgrind",
        evidence: "/usr/bin/valgrind",
        need: Need::Counting,
        why: "counts the instructions of the placement core",
    },
    Package {
        name: "qemu-system-x86",
        evidence: "/usr/bin/qemu-system-x86_64",
        need: Need::Virtual,
        why: "emulates a computer whose kernel enforces the limits of control groups",
    },
];

/// Downloaded and unpacked under target/, never installed: the host gets no
/// etcd service.
pub const UNPACKED: &[&str] = &["etcd-server", "etcd-client"];

/// What depends on the kernel that a virtual machine runs; downloaded and unpacked likewise.
pub const KERNEL: &str = "linux-image-cloud-amd64";

/// What a lab machine holds beyond Debian's `minbase`.
///
/// systemd and the bus are what flotilla drives; `ip` and `ping` are for the
/// person who looks around in it.
pub const MACHINE: &[&str] = &["systemd-sysv", "dbus", "iproute2", "iputils-ping"];

/// What a machine needs on top to run user managers (`loginctl enable-linger`).
pub const MACHINE_USER: &[&str] = &["libpam-systemd", "dbus-user-session"];
