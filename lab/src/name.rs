//! A lab's name, and the names of everything that belongs to it.

use std::{
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context, Result, bail};

/// Letters in a name: a machine is called `flotilla-NAME-TAG-m250` by nspawn,
/// which allows 64, and people have to type it.
const LETTERS_MAX: usize = 24;

/// The name of a lab: lower-case letters and digits, the first one a letter.
///
/// Without a dash, so that no name can be the beginning of another's resources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name(String);

impl FromStr for Name {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let letters = text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        let first = text.starts_with(|c: char| c.is_ascii_lowercase());
        if !letters || !first || text.len() > LETTERS_MAX {
            bail!(
                "{text:?} is no name for a lab: up to {LETTERS_MAX} lower-case letters and digits, a letter first"
            );
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a lab keeps its files, and what its resources in the kernel are called.
#[derive(Debug, Clone)]
pub struct Territory {
    name: Name,
    /// The directory that all labs of a checkout share.
    root: PathBuf,
    /// `flotilla-NAME-TAG`; the tag tells checkouts apart that use the same name.
    prefix: String,
}

impl Territory {
    /// Claims the names; makes nothing.
    pub fn new(root: &Path, name: &Name) -> Result<Self> {
        // One directory, one name, whichever way it was written.
        let root = root
            .canonicalize()
            .or_else(|_| std::path::absolute(root))
            .context("finding the labs' directory")?;
        // These three mean something in the options of an overlay mount.
        if root.to_string_lossy().contains([':', ',', '\\']) {
            bail!(
                "{} cannot hold a lab: an overlay mount takes no `:`, `,` or `\\` in paths",
                root.display()
            );
        }
        let mut hasher = DefaultHasher::new();
        root.hash(&mut hasher);
        let prefix = format!("flotilla-{name}-{:04x}", hasher.finish() & 0xffff);
        Ok(Self { name: name.clone(), root, prefix })
    }

    /// The lab's name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// The directory that all labs share: images and etcd.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Holds everything of this lab while it is up, and does not exist otherwise.
    pub fn directory(&self) -> PathBuf {
        self.root.join("run").join(&self.name.0)
    }

    /// Locked by the process that owns or changes the lab; stays when it is down.
    pub fn lock(&self) -> PathBuf {
        self.root.join("run").join(format!("{}.lock", self.name))
    }

    /// The control group of the lab, relative to a hierarchy.
    pub fn group(&self) -> &str {
        &self.prefix
    }

    /// What the names of all network namespaces and machines of the lab begin with.
    pub fn prefix(&self) -> String {
        format!("{}-", self.prefix)
    }

    /// The name of one network namespace or machine.
    pub fn of(&self, node: &str) -> String {
        format!("{}-{node}", self.prefix)
    }
}

/// Machines in one lab: one byte of the address, and more than one computer runs.
pub const MACHINES_MAX: u8 = 250;

/// etcd members in one lab; etcd advises against more.
pub const MEMBERS_MAX: u8 = 7;

/// Bits of the network part of every address.
pub const PREFIX_LENGTH: u8 = 16;

/// The host's side of the switch.
pub const SWITCH: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

/// The address of the machine with a number from 1.
pub fn machine_address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 1, number)
}

/// The hardware address that goes with an address. The same after a reboot, as with
/// a real network card: the neighbours remember it.
pub fn hardware_address(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    // 02: a locally administered address.
    format!("02:00:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

/// The address of the etcd member with a number from 1.
pub fn member_address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, 10 + number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_letters_and_digits() {
        for good in ["dev", "lab2", "a"] {
            assert!(good.parse::<Name>().is_ok(), "{good}");
        }
        for bad in ["", "2lab", "a-b", "A", "a/b", "..", &"a".repeat(LETTERS_MAX + 1)] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
    }

    #[test]
    fn hardware_addresses_follow_the_addresses() {
        assert_eq!(hardware_address(machine_address(250)), "02:00:0a:4d:01:fa");
        assert_ne!(hardware_address(machine_address(1)), hardware_address(member_address(1)));
    }

    #[test]
    fn checkouts_do_not_share_names() {
        let name: Name = "dev".parse().unwrap();
        let one = Territory::new(Path::new("/a/target/lab"), &name).unwrap();
        let two = Territory::new(Path::new("/b/target/lab"), &name).unwrap();
        assert_ne!(one.of("m1"), two.of("m1"));
        assert!(one.of("m1").starts_with(&one.prefix()));
        assert!(Territory::new(Path::new("/a,b"), &name).is_err());
    }
}
