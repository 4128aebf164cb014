//! What may be in certificates, folders and configuration: names of machines and users,
//! addresses, and all of them together, checked before anything is written.

use std::{fmt, net::IpAddr, str::FromStr};

use flotilla_units::MachineId;

use crate::exit::{Exit, Failure};

/// The longest host name that Linux takes, in bytes (HOST_NAME_MAX).
const HOST_NAME_MAX: usize = 64;

/// The longest part of a host name, in bytes (RFC 1123, section 2.1).
const LABEL_MAX: usize = 63;

/// The longest name of a user, in bytes: with `user-` before it, it still is a folder and a common name.
const USER_MAX: usize = 32;

/// A host name that certificates, etcd and folders can carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostName(String);

/// A host name or an address, as it stands in a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host(String);

/// A user's or a cluster's name: it is part of a path, of a URI and of a certificate's subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PlainName(String);

/// One machine of a new cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewMachine {
    /// Its host name, and its folder's.
    pub(crate) name: HostName,
    /// Where the others reach it.
    pub(crate) address: IpAddr,
    /// Its own id, where it is known.
    pub(crate) id: Option<MachineId>,
}

macro_rules! text {
    ($name:ident) => {
        impl $name {
            /// Returns the text.
            pub(crate) fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}
text!(HostName);
text!(Host);
text!(PlainName);

impl FromStr for HostName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let label = |label: &str| {
            !label.is_empty()
                && label.len() <= LABEL_MAX
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if text.len() > HOST_NAME_MAX || !text.split('.').all(label) {
            return Err(format!(
                "`{text}` is not a host name: expected letters, digits and `-`, not at an end, at most \
                 {HOST_NAME_MAX} in all"
            ));
        }
        if text.parse::<IpAddr>().is_ok() {
            return Err(format!("`{text}` is an address: expected the machine's host name"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for Host {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<IpAddr>() {
            Ok(address) => Ok(Self(address.to_canonical().to_string())),
            Err(_) => {
                text.parse::<HostName>().map(|name| Self(name.0)).map_err(|e| format!("{e}, or an address"))
            }
        }
    }
}

impl FromStr for PlainName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let begins = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        if !begins || text.len() > USER_MAX || !text.bytes().all(plain) {
            return Err(format!(
                "`{text}` is not a name: expected letters, digits, `.`, `_` and `-`, beginning with a letter or \
                 a digit, at most {USER_MAX}"
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for NewMachine {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, rest) = text.split_once('=').ok_or("expected NAME=ADDRESS, for example a=10.0.0.1")?;
        let name: HostName = name.parse()?;
        let folder = name.as_str().to_ascii_lowercase();
        if folder == "ca" || folder.starts_with("user-") {
            return Err(format!(
                "`{name}` is the name of a folder that is written beside the machines'; expected another host name"
            ));
        }
        let (address, id) = match rest.split_once('/') {
            Some((address, id)) => (address, Some(id.parse().map_err(|e| format!("{e}"))?)),
            None => (rest, None),
        };
        let parsed: IpAddr =
            address.parse().map_err(|_| format!("`{address}` is not an IP address, for example 10.0.0.1"))?;
        match unreachable(parsed.to_canonical()) {
            None => Ok(Self { name, address: parsed.to_canonical(), id }),
            Some(why) => {
                Err(format!("`{address}` {why}: expected an address at which the other machines reach it"))
            }
        }
    }
}

/// Says why the other machines cannot reach an address, if they cannot.
fn unreachable(address: IpAddr) -> Option<&'static str> {
    let link_local = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    match address {
        _ if address.is_unspecified() => Some("means every address"),
        _ if address.is_loopback() => Some("is the machine itself"),
        _ if address.is_multicast() => Some("is for many machines"),
        _ if link_local => Some("holds on one link only"),
        _ => None,
    }
}

/// Checks machines and members of etcd together.
///
/// # Errors
/// Two of them are one; the message names both.
pub(crate) fn check(machines: &[NewMachine], etcd: &[String]) -> anyhow::Result<()> {
    let refuse = |message: String| Err(Failure::error(Exit::Usage, message));
    for (i, machine) in machines.iter().enumerate() {
        for other in &machines[..i] {
            let (name, before) = (&machine.name, &other.name);
            if name.as_str().eq_ignore_ascii_case(before.as_str()) {
                return refuse(format!(
                    "the machines {before} and {name} have one name; expected one for each"
                ));
            }
            if machine.address == other.address {
                let address = machine.address;
                return refuse(format!(
                    "{before} and {name} have one address, {address}; expected one for each"
                ));
            }
            if let Some(id) = machine.id.filter(|id| other.id.as_ref() == Some(id)) {
                return refuse(format!(
                    "{before} and {name} have one machine id, {id}; expected one for each (`cat /etc/machine-id`; \
                     copies of a disk image need `rm /etc/machine-id` and `systemd-machine-id-setup`)"
                ));
            }
        }
    }
    for (i, name) in etcd.iter().enumerate() {
        if etcd[..i].contains(name) {
            return refuse(format!("--etcd names `{name}` twice; expected each machine once"));
        }
        if !machines.iter().any(|machine| machine.name.as_str() == name) {
            let known: Vec<&str> = machines.iter().map(|machine| machine.name.as_str()).collect();
            return refuse(format!("--etcd names `{name}`; expected some of {}", known.join(", ")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused<T: FromStr<Err = String>>(text: &str) -> String {
        text.parse::<T>().err().unwrap_or_else(|| panic!("{text:?} was taken"))
    }

    #[test]
    fn machines_are_read_with_and_without_an_id() {
        let read = |text: &str| text.parse::<NewMachine>().expect(text);
        assert_eq!(read("a=10.0.0.1").address.to_string(), "10.0.0.1");
        assert_eq!(
            read("A1.example.org=::ffff:10.0.0.1").address.to_string(),
            "10.0.0.1",
            "one address, one form"
        );
        assert!(read("a=fd00::1/113f16a7a0f84c4c8a3f9e3b2f4d6c01").id.is_some());
    }

    #[test]
    fn what_is_wrong_with_a_machine_is_told() {
        for bad in ["a", "a=", "a=b", "a=10.0.0.1/xyz"] {
            refused::<NewMachine>(bad);
        }
        for name in ["", "a b", "-a", "a-", "a.", ".a", "a..b", "a_b", "a;b", "../a", &"a".repeat(65)] {
            assert!(refused::<NewMachine>(&format!("{name}=10.0.0.1")).contains("not a host name"), "{name}");
        }
        assert!(refused::<NewMachine>("10.0.0.1=10.0.0.1").contains("host name"));
        for folder in ["ca", "CA", "user-admin"] {
            assert!(refused::<NewMachine>(&format!("{folder}=10.0.0.1")).contains("folder"), "{folder}");
        }
        for (address, why) in [
            ("0.0.0.0", "every address"),
            ("::", "every address"),
            ("127.0.0.1", "itself"),
            ("::1", "itself"),
            ("::ffff:127.0.0.1", "itself"),
            ("fe80::1", "one link"),
            ("169.254.1.1", "one link"),
            ("224.0.0.1", "many"),
        ] {
            assert!(refused::<NewMachine>(&format!("a={address}")).contains(why), "{address}");
        }
    }

    #[test]
    fn names_of_users_are_no_paths() {
        for bad in ["", "../../evil", "a b;c", "a/b", ".a", "-a", "ä", &"a".repeat(33)] {
            refused::<PlainName>(bad);
        }
        for good in ["admin", "ada.lovelace", "ci-2", "A_1"] {
            assert!(good.parse::<PlainName>().is_ok(), "{good}");
        }
    }

    #[test]
    fn hosts_are_names_or_addresses() {
        assert_eq!("m1.example.org".parse::<Host>().expect("a name").as_str(), "m1.example.org");
        assert_eq!("FD00::1".parse::<Host>().expect("an address").as_str(), "fd00::1");
        refused::<Host>("m1:7400");
    }

    #[test]
    fn two_machines_are_not_one() {
        let refused = |machines: &[&str], etcd: &[&str]| {
            let machines: Vec<NewMachine> = machines.iter().map(|text| text.parse().expect(text)).collect();
            let etcd: Vec<String> = etcd.iter().map(|name| (*name).to_owned()).collect();
            let error = check(&machines, &etcd).expect_err("one of them twice");
            assert_eq!(crate::exit::of(&error), Exit::Usage);
            error.to_string()
        };
        assert!(refused(&["a=10.0.0.1", "a=10.0.0.2"], &[]).contains("one name"));
        assert!(refused(&["a=10.0.0.1", "A=10.0.0.2"], &[]).contains("a and A have one name"));
        assert!(refused(&["a=10.0.0.1", "b=10.0.0.1"], &[]).contains("one address, 10.0.0.1"));
        let id = "113f16a7a0f84c4c8a3f9e3b2f4d6c01";
        let twice = [format!("a=10.0.0.1/{id}"), format!("b=10.0.0.2/{id}")];
        assert!(refused(&[&twice[0], &twice[1]], &[]).contains("one machine id"));
        assert!(refused(&["a=10.0.0.1", "b=10.0.0.2"], &["a", "a"]).contains("twice"));
        assert!(refused(&["a=10.0.0.1", "b=10.0.0.2"], &["c"]).contains("expected some of a, b"));
    }
}
