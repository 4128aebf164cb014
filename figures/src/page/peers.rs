//! What others have published, and what their programs did on a computer like this; with sources, and with what makes
//! each another thing than ours.

/// A figure of somebody else's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    Swarmkit,
    SwarmkitConstraint,
    NomadCore,
    NomadConstraint,
    FleetCore,
    FleetGrowth,
    FleetLab,
    KubernetesAffinity,
    KubernetesAntiAffinity,
    Kubernetes,
    C1m,
    C2m,
    Gke,
    Eks,
    Swarm,
    GkeLeases,
    NomadHeartbeats,
    Borg,
}

/// Its row on the page.
#[derive(Debug)]
pub struct Row {
    /// Whose it is, and what.
    pub who: &'static str,
    /// The figure.
    pub figure: &'static str,
    /// Where it is from.
    pub source: &'static str,
    /// What is not comparable.
    pub apart: &'static str,
}

/// Measured with the peer's own code, and not published by it.
const MEASURED: &str =
    "measured in November 2026 on a computer like this (2 cores, other load beside it: ±2 times)";

/// Kubernetes' own test of its scheduler.
const SCHEDULER_PERF: &str = "[scheduler_perf](https://github.com/kubernetes/kubernetes/blob/master/test/integration/scheduler_perf/affinity/performance-config.yaml)";

/// What a floor of a whole system is not.
const FLOOR: &str = "a floor that its CI holds, not a record; with an API server and etcd in the path, pods bound one by one, where ours is the core alone";

impl Peer {
    /// All of them, in the order of the page.
    pub const ALL: [Self; 18] = [
        Self::Swarmkit,
        Self::SwarmkitConstraint,
        Self::NomadCore,
        Self::NomadConstraint,
        Self::FleetCore,
        Self::FleetGrowth,
        Self::FleetLab,
        Self::KubernetesAffinity,
        Self::KubernetesAntiAffinity,
        Self::Kubernetes,
        Self::C1m,
        Self::C2m,
        Self::Gke,
        Self::Eks,
        Self::Swarm,
        Self::GkeLeases,
        Self::NomadHeartbeats,
        Self::Borg,
    ];

    /// Its number on the page.
    pub fn number(self) -> usize {
        Self::ALL.iter().position(|one| *one == self).map_or(0, |place| place + 1)
    }

    /// What the page says of it.
    pub const fn row(self) -> Row {
        match self {
            Self::Swarmkit => Row {
                who: "SwarmKit, scheduler alone, 1,000 × 100,000",
                figure: "3,100/s",
                source: "[its sources](https://github.com/moby/swarmkit) of August 2026, ",
                apart: "writes each decision to its store in memory; resources are counted",
            },
            Self::SwarmkitConstraint => Row {
                who: "SwarmKit, scheduler alone, constraints, 5,000 × 100,000",
                figure: "750/s",
                source: "likewise, ",
                apart: "likewise",
            },
            Self::NomadCore => Row {
                who: "Nomad 1.1, scheduler alone, 1,000 × 100,000",
                figure: "under 300/s",
                source: "[its sources](https://github.com/hashicorp/nomad), ",
                apart: "scores machines by their free resources; an old version (2021)",
            },
            Self::NomadConstraint => Row {
                who: "Nomad 1.1, scheduler alone, a constraint, 5,000 × 50,000",
                figure: "990/s",
                source: "likewise, ",
                apart: "likewise",
            },
            Self::FleetCore => Row {
                who: "CoreOS fleet 1.0, scheduler alone, 1,000 × 10,000",
                figure: "460/s",
                source: "[its sources](https://github.com/coreos/fleet), ",
                apart: "a tenth of the units: more did not end",
            },
            Self::FleetGrowth => Row {
                who: "CoreOS fleet 1.0, cost of a placement",
                figure: "grows with machines times units",
                source: "[its sources](https://github.com/coreos/fleet); its [README](https://github.com/coreos/fleet/blob/master/README.md) \
                         advises against more than 100 machines or 1,000 services",
                apart: "",
            },
            Self::FleetLab => Row {
                who: "CoreOS fleet 1.0, three machines with systemd, 1,000 units",
                figure: "94/s",
                source: "[its sources](https://github.com/coreos/fleet), ",
                apart: "an absolute rate; ours is beside systemd's own of the same run",
            },
            Self::KubernetesAffinity => Row {
                who: "Kubernetes, whole system, node affinity, 5,000 nodes",
                figure: "at least 220 pods/s",
                source: SCHEDULER_PERF,
                apart: FLOOR,
            },
            Self::KubernetesAntiAffinity => Row {
                who: "Kubernetes, whole system, required anti-affinity, 5,000 nodes",
                figure: "at least 24 to 60 pods/s",
                source: SCHEDULER_PERF,
                apart: FLOOR,
            },
            Self::Kubernetes => Row {
                who: "Kubernetes on stock etcd, plain pods, 5,000 nodes",
                figure: "at least 680 to 810 pods/s; specified to 5,000 nodes and 150,000 pods",
                source: "[scheduler_perf](https://github.com/kubernetes/kubernetes/blob/master/test/integration/scheduler_perf/misc/performance-config.yaml); [thresholds](https://github.com/kubernetes/community/blob/master/sig-scalability/configs-and-limits/thresholds.md)",
                apart: "fake nodes too; pods are bound, not started; every pod is an object of its own",
            },
            Self::C1m => Row {
                who: "Nomad 0.3, C1M (2016): 1,000,000 containers on 5,000 hosts",
                figure: "under 5 minutes, 3,750/s",
                source: "[hashicorp.com/c1m](https://www.hashicorp.com/c1m)",
                apart: "real hosts and real Docker containers, five servers; ours are simulated on one computer of two cores",
            },
            Self::C2m => Row {
                who: "Nomad 1.0, C2M (2020): 2,000,000 containers on 6,100 hosts",
                figure: "22 min 14 s, 1,500/s",
                source: "[hashicorp.com/c2m](https://www.hashicorp.com/c2m)",
                apart: "likewise, three servers, ten regions",
            },
            Self::Gke => Row {
                who: "GKE, 130,000 nodes (experimental, 2025)",
                figure: "1,000 pods/s created and bound",
                source: "[Google Cloud](https://cloud.google.com/blog/products/containers-kubernetes/how-we-built-a-130000-node-gke-cluster)",
                apart: "real machines; Spanner in etcd's place",
            },
            Self::Eks => Row {
                who: "EKS, 100,000 nodes (2025)",
                figure: "500 pods/s; etcd's database up to 20 GB",
                source: "[AWS](https://aws.amazon.com/blogs/containers/under-the-hood-amazon-eks-ultra-scale-clusters/)",
                apart: "real machines; etcd with another consensus, its database in memory",
            },
            Self::Swarm => Row {
                who: "Swarm 1.0 (2015), 1,000 nodes, 30,000 containers: scheduling delay",
                figure: "p50 230 ms, p99 400 ms",
                source: "[docker.com](https://www.docker.com/blog/scale-testing-docker-swarm-30000-containers/)",
                apart: "real machines, `docker run` one at a time, the container's start in it; ours is a stream of 1,000 a second and starts of 5 ms",
            },
            Self::GkeLeases => Row {
                who: "GKE, 130,000 nodes: heartbeats",
                figure: "13,000 writes/s of leases",
                source: "[Google Cloud](https://cloud.google.com/blog/products/containers-kubernetes/how-we-built-a-130000-node-gke-cluster)",
                apart: "thirteen times the machines; its leases are objects in the store, ours are etcd's own, which it does not write",
            },
            Self::NomadHeartbeats => Row {
                who: "Nomad, heartbeats of a whole cluster",
                figure: "at most 50/s, so further apart the larger it is",
                source: "[its sources](https://github.com/hashicorp/nomad/blob/main/nomad/config.go)",
                apart: "at 5,000 nodes one in 100 s, so that a loss is known late",
            },
            Self::Borg => Row {
                who: "Borg, failover of the master",
                figure: "about 10 s",
                source: "[EuroSys '15](https://research.google/pubs/large-scale-cluster-management-at-google-with-borg/)",
                apart: "from the failure on, real cells; ours counts from the end of the lease of 10 s",
            },
        }
    }

    /// Its source, with how it was measured where the peer did not publish it.
    pub fn source(self) -> String {
        let source = self.row().source;
        if source.ends_with(", ") { format!("{source}{MEASURED}") } else { source.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_published_figure_has_a_source() {
        for peer in Peer::ALL {
            let source = peer.source();
            assert!(source.contains("https://") || source.contains("likewise"), "{peer:?}");
            assert!(peer.number() > 0);
        }
    }
}
