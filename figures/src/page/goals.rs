//! The goals, each with the figure that it is about and what others have published.

use super::peers::Peer;
use crate::what;

/// One row of the page's table.
#[derive(Debug)]
pub struct Goal {
    /// What it is, for people.
    pub row: String,
    /// The benchmark that measures it.
    pub bench: &'static str,
    /// Machines and units; zeros where the benchmark has no size.
    pub size: (u64, u64),
    /// What the units ask for, in the benchmark's word.
    pub kind: &'static str,
    /// The figure's name.
    pub what: String,
    /// What it is to be.
    pub bound: Bound,
    /// In which unit of measure.
    pub unit: &'static str,
    /// Which of the peers' figures stand beside it, by their places in the page's table of peers.
    pub peers: &'static [Peer],
}

/// What a figure is to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    /// No less than this.
    AtLeast(f64),
    /// No more than this.
    AtMost(f64),
}

/// The benchmark of the placement core.
pub const PLACEMENT: &str = "placement";

/// The benchmark of whole systems.
pub const SCALE: &str = "scale";

/// The benchmark on real machines.
pub const START: &str = "start";

/// The largest cluster.
const LARGEST: (u64, u64) = (10_000, 1_000_000);

/// What goal rows ask for where they say nothing.
pub const PLAIN: &str = "plain";

/// All of them, in the order of the page.
pub fn all() -> Vec<Goal> {
    core().into_iter().chain(system()).chain(rest()).collect()
}

fn core() -> Vec<Goal> {
    let rate = |row: &str, kind, size, least, peers| Goal {
        row: format!("placement core, {row}, from empty"),
        bench: PLACEMENT,
        size,
        kind,
        what: what::PLACED.to_owned(),
        bound: Bound::AtLeast(least),
        unit: "/s",
        peers,
    };
    let mut goals = vec![
        rate(
            "unconstrained, 1,000 machines, 100,000 units",
            "unconstrained",
            (1_000, 100_000),
            1e6,
            &[Peer::Swarmkit, Peer::NomadCore, Peer::FleetCore],
        ),
        rate(
            "one metadata equality, 5,000 machines, 50,000 units",
            "metadata",
            (5_000, 50_000),
            5e5,
            &[Peer::NomadConstraint, Peer::KubernetesAffinity],
        ),
        rate(
            "one metadata equality, 5,000 machines, 100,000 units",
            "metadata",
            (5_000, 100_000),
            5e5,
            &[Peer::SwarmkitConstraint, Peer::KubernetesAffinity],
        ),
        rate(
            "conflicts with its own template, 10,000 machines, 1,000,000 units",
            "conflicts",
            LARGEST,
            2e5,
            &[Peer::KubernetesAntiAffinity],
        ),
        rate(
            "spread over zones and reservations, 10,000 machines, 1,000,000 units",
            "spread-reserving",
            LARGEST,
            2e5,
            &[Peer::KubernetesAntiAffinity],
        ),
    ];
    for (kind, name) in KINDS {
        for (what, how) in
            [(what::GROWTH_FILLING, "of all, from empty"), (what::GROWTH_ADDING, "of one more, when full")]
        {
            goals.push(Goal {
                row: format!(
                    "placement core, {name}: cost of a placement at 10,000 machines against 100, {how}"
                ),
                bench: PLACEMENT,
                size: LARGEST,
                kind,
                what: what.to_owned(),
                bound: Bound::AtMost(2.0),
                unit: "times",
                peers: &[Peer::FleetGrowth],
            });
        }
    }
    goals
}

/// The kinds of units that the placement core is measured with, and how they are called on the page.
pub const KINDS: [(&str, &str); 4] = [
    ("unconstrained", "unconstrained"),
    ("metadata", "one metadata equality"),
    ("conflicts", "conflicts"),
    ("spread-reserving", "spread and reservations"),
];

fn of_system(
    row: &str,
    size: (u64, u64),
    what: impl Into<String>,
    bound: Bound,
    unit: &'static str,
    peers: &'static [Peer],
) -> Goal {
    Goal { row: row.to_owned(), bench: SCALE, size, kind: PLAIN, what: what.into(), bound, unit, peers }
}

fn system() -> Vec<Goal> {
    use Bound::AtMost;
    vec![
        of_system(
            "one machine of 10,000 lost (100 units): decided and written",
            LARGEST,
            what::lost_decided(1),
            AtMost(50.0),
            "ms",
            &[],
        ),
        of_system(
            "100 of 10,000 machines lost at once (10,000 units): reported running after the leases' end",
            LARGEST,
            what::lost_active(100),
            AtMost(5.0),
            "s",
            &[],
        ),
        of_system(
            "whole system: 10,000 machines, 1,000,000 units, from submitted to all active (next aim: 60 s)",
            LARGEST,
            what::ALL_ACTIVE,
            AtMost(120.0),
            "s",
            &[Peer::C1m, Peer::C2m, Peer::Kubernetes, Peer::Gke, Peer::Eks],
        ),
        of_system(
            "whole system: 1,000 machines, 100,000 units, from submitted to all active",
            (1_000, 100_000),
            what::ALL_ACTIVE,
            AtMost(10.0),
            "s",
            &[Peer::C1m, Peer::Kubernetes],
        ),
        of_system(
            "1,000 units/s started and 1,000/s destroyed for 60 s, 5,000 machines with 500,000 units: start to active, p99",
            (5_000, 500_000),
            what::stream_p99(1_000),
            AtMost(500.0),
            "ms",
            &[Peer::Swarm],
        ),
        of_system(
            "at rest, 10,000 machines, 1,000,000 units: writes to etcd",
            LARGEST,
            what::REST_WRITES,
            AtMost(0.0),
            "/s",
            &[Peer::GkeLeases],
        ),
        of_system("at rest: reads of etcd", LARGEST, what::REST_READS, AtMost(0.0), "/s", &[]),
        of_system("at rest: the engine", LARGEST, what::REST_ENGINE, AtMost(2.0), "% of a core", &[]),
        of_system(
            "at rest: etcd, with all keep-alives",
            LARGEST,
            what::REST_ETCD,
            AtMost(20.0),
            "% of a core",
            &[Peer::NomadHeartbeats],
        ),
        of_system(
            "the leader is killed at that size: first new placement after its lease's end",
            LARGEST,
            what::FAILOVER,
            AtMost(3.0),
            "s",
            &[Peer::Borg],
        ),
        of_system(
            "the engine's memory at that size",
            LARGEST,
            what::ENGINE_MEMORY,
            AtMost(1536.0),
            "MiB",
            &[],
        ),
        of_system(
            "etcd's database at that size",
            LARGEST,
            what::ETCD_IN_USE,
            AtMost(1024.0),
            "MiB",
            &[Peer::Eks],
        ),
    ]
}

fn rest() -> Vec<Goal> {
    use Bound::{AtLeast, AtMost};
    vec![
        of_system("`flotctl list-units` of one unit of 1,000,000", LARGEST, what::LIST_ONE, AtMost(20.0), "ms", &[]),
        of_system("`flotctl list-units` of 1,000,000 units: the first row", LARGEST, what::LIST_FIRST, AtMost(200.0), "ms", &[]),
        of_system("`flotctl list-units` of 1,000,000 units: rows", LARGEST, what::LIST_ROWS, AtLeast(200_000.0), "/s", &[]),
        Goal {
            row: "real systemd, three machines of the lab, 1,000 units: rate as a share of systemd's own in the same run".to_owned(),
            bench: START,
            size: (0, 0),
            kind: "",
            what: what::share_of_systemd(1_000),
            bound: AtLeast(0.8),
            unit: "",
            peers: &[Peer::FleetLab],
        },
        of_system("machines die and return, leaders are killed, etcd restarts (1,000 machines, 50,000 units): units moved though their machine was alive and fit", (1_000, 50_000), what::MOVED_NEEDLESSLY, AtMost(0.0), "", &[]),
    ]
}
