//! Units of the machine's own that flotilla may take over while they run.
//!
//! The server asks for a [`Found`] when somebody wants to adopt a unit; the agent looks again when the
//! manifest says so, and takes over nothing but the very text that was found. Whoever asks is told of
//! every file that is moved, and of what stays behind. Nothing in here changes anything.

use std::fmt;

use async_trait::async_trait;
use flotilla_units::{UnitName, UnitType};

use crate::systemd::SystemdError;

/// A unit of the machine's own, as the cluster would have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its text: its file, and behind it each of its drop-ins in systemd's order.
    pub text: String,
    /// The file that systemd has it from.
    pub fragment: String,
    /// What is moved out of systemd's sight: its file, its drop-ins, the links that enable it.
    pub moves: Vec<String>,
    /// Where it is moved to.
    pub kept: String,
    /// What is not flotilla's to move, and is overridden: a package's file.
    pub stays: Vec<String>,
    /// Drop-ins that it shares with other units of the machine: they go on to apply, on this machine only.
    pub shared: Vec<String>,
}

/// Why a unit is not taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The machine, or flotilla itself, does not do without it.
    Needed(&'static str),
    /// It is not a service.
    NotAService(UnitType),
    /// It is a template, or an instance of one.
    Template,
    /// It is flotilla's already.
    Ours,
    /// systemd has not loaded it, or not well.
    NotLoaded(String),
    /// It does not run.
    NotActive(String),
    /// It has other names.
    Aliases(Vec<String>),
    /// It has no file that somebody wrote.
    NoFile(String),
    /// Its files are others than those that systemd has loaded.
    Changed,
    /// A drop-in of its is a package's.
    PackagesDropIn(String),
    /// A drop-in that it shares says something that one of its own says otherwise after it.
    SharedDropInFirst {
        /// The one that it shares.
        shared: String,
        /// Its own, which comes after it.
        own: String,
        /// What both say.
        key: String,
    },
    /// A drop-in of its was made by `systemctl set-property`.
    SetProperty(String),
    /// A package, or a generator, has it started at boot.
    StartedByOthers(String),
    /// Other units of the machine's own need it, or start it.
    NeededBy(Vec<String>),
    /// It comes before what flotillad comes after.
    Early(String),
    /// One of its files cannot be read.
    Unreadable {
        /// Which.
        path: String,
        /// Why.
        why: String,
    },
    /// Units of a user's manager are not taken over.
    User,
}

/// Why it is not known what a unit is.
#[derive(Debug, thiserror::Error)]
pub enum AdoptionError {
    /// It is not taken over.
    #[error("{unit} is not taken over: {why}")]
    Refused {
        /// The unit.
        unit: UnitName,
        /// Why.
        why: Refusal,
    },
    /// systemd does not tell.
    #[error(transparent)]
    Systemd(#[from] SystemdError),
}

/// Where it is known which of the machine's own units can be taken over.
#[async_trait]
pub trait AdoptionSource: fmt::Debug + Send + Sync + 'static {
    /// Looks at a unit of the machine's own; changes nothing.
    ///
    /// # Errors
    /// It is not taken over, or systemd does not answer.
    async fn survey(&self, unit: &UnitName) -> Result<Found, AdoptionError>;
}

/// Units that are never taken over, by their names or how they begin, with the reason.
const NEEDED: [(&str, &str); 12] = [
    ("flotilla", "it is a part of flotilla itself"),
    ("dbus.", "flotillad speaks to systemd through it"),
    ("dbus-broker.", "flotillad speaks to systemd through it"),
    ("systemd-", "it is a part of systemd"),
    ("etcd.", "it may be the cluster's store, which has to run before any unit of the cluster's can"),
    ("NetworkManager.", NETWORK),
    ("networking.", NETWORK),
    ("ifup@", NETWORK),
    ("wpa_supplicant", NETWORK),
    ("ssh.", LOGIN),
    ("sshd.", LOGIN),
    ("getty@", LOGIN),
];

const NETWORK: &str = "the machine reaches the cluster through it";

const LOGIN: &str = "it is the way into the machine when flotilla does not work";

/// What flotilla's units are ordered after: what comes before these cannot come after flotilla.
pub(crate) const EARLY: [&str; 9] = [
    "sysinit.target",
    "basic.target",
    "network-pre.target",
    "network.target",
    "network-online.target",
    "dbus.service",
    "flotilla-handover.service",
    "flotillad.service",
    "flotilla.target",
];

impl Refusal {
    /// Refuses a unit for its name alone.
    pub(crate) fn of_name(unit: &UnitName) -> Option<Self> {
        let needed = NEEDED.iter().find(|(begins, _)| unit.as_str().starts_with(begins));
        match needed {
            Some((_, why)) => Some(Self::Needed(why)),
            None if unit.is_template() || unit.is_instance() => Some(Self::Template),
            None if unit.unit_type() != UnitType::Service => Some(Self::NotAService(unit.unit_type())),
            None => None,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Needed(why) => write!(f, "{why}"),
            Self::NotAService(kind) => write!(
                f,
                "it is a {kind}, and only services are: submit its file, stop it on the machine, take its file \
                 away there and start it in the cluster",
                kind = kind.suffix()
            ),
            Self::Template => f.write_str(
                "instances and their templates are not: the others of that template would stay the machine's own. \
                 Submit the template under another name and start its instances",
            ),
            Self::Ours => f.write_str("it is flotilla's already"),
            Self::NotLoaded(load) => {
                write!(f, "systemd says of it: {load}; expected a unit that is loaded and runs")
            }
            Self::NotActive(active) => {
                write!(f, "it is {active}: submit its file instead, or start it on the machine first")
            }
            Self::Aliases(names) => {
                write!(f, "it is known by several names ({}); remove the aliases first", names.join(", "))
            }
            Self::NoFile(path) if path.is_empty() => {
                f.write_str("it has no file (it is transient); submit one and start that")
            }
            Self::NoFile(path) => write!(
                f,
                "its file {path} is not one that somebody wrote: it is made anew at every boot or run"
            ),
            Self::Changed => f.write_str(
                "its files have changed since systemd loaded them: run `systemctl daemon-reload` on the machine, \
                 and restart it there if it is to run with them",
            ),
            Self::PackagesDropIn(path) => write!(
                f,
                "{path} belongs to a package and would apply a second time: write it into a drop-in below \
                 /etc/systemd/system, and remove it"
            ),
            Self::SharedDropInFirst { shared, own, key } => write!(
                f,
                "{own} has the last word on {key}= now, and {shared}, which other units have too, would have it \
                 once the unit is the cluster's, because its own drop-ins become part of its file: give the shared \
                 one a name that sorts after the other, or write {key}= into one of them only"
            ),
            Self::SetProperty(path) => write!(
                f,
                "{path} was made by `systemctl set-property`: write it into a drop-in of your own \
                 (`systemctl edit`), and remove it"
            ),
            Self::StartedByOthers(path) => {
                write!(f, "{path} has the machine start it at every boot, and is not somebody's own to remove")
            }
            Self::NeededBy(units) => write!(
                f,
                "units of the machine's own need it, or start it ({}), and it would be gone with its machine's \
                 files; they have to be the cluster's first, or do without it",
                units.join(", ")
            ),
            Self::Early(unit) => {
                write!(f, "it is ordered before {unit}, and flotilla's units come after that at every boot")
            }
            Self::Unreadable { path, why } => write!(f, "{path} cannot be read: {why}"),
            Self::User => f.write_str("it is a unit of a user's; only those of the system are"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_units_are_refused_for_their_names() {
        let of = |name: &str| Refusal::of_name(&name.parse().expect("valid"));
        for name in ["web.service", "flo.service", "sshx.service", "dbusy.service", "systemd.service"] {
            assert_eq!(of(name), None, "{name}");
        }
        for name in
            ["flotillad.service", "systemd-journald.service", "dbus.service", "etcd.service", "ssh.service"]
        {
            assert!(matches!(of(name), Some(Refusal::Needed(_))), "{name}");
        }
        for name in ["web@.service", "web@1.service"] {
            assert_eq!(of(name), Some(Refusal::Template), "{name}");
        }
        assert_eq!(of("web.socket"), Some(Refusal::NotAService(UnitType::Socket)));
    }
}
