//! The names of those figures that the page looks for, one place for whoever writes and whoever reads them.
//!
//! Figures of other names are on the page as well, in the tables of everything that was measured.

/// The placement core: telling it of all units and having them placed, from empty.
pub const PLACED: &str = "placements from empty";

/// The part of it that tells the core of a unit.
pub const TOLD: &str = "one unit told";

/// The part of it that places a unit.
pub const DECIDED: &str = "one unit placed";

/// The core's memory with all decisions in it.
pub const CORE_MEMORY: &str = "memory at its peak";

/// One unit more in a full cluster.
pub const UNIT_ADDED: &str = "one unit added to a full cluster";

/// A machine of a full cluster is lost: the core's part.
pub const CORE_LOSS: &str = "a machine of a full cluster lost";

/// A machine that has a hundredth of all units is lost.
pub const HUNDREDTH_LOST: &str = "a machine with 1 % of all units lost";

/// The metadata of a machine of a full cluster change.
pub const METADATA_CHANGED: &str = "a machine's metadata changed";

/// How much dearer a placement is in a large cluster than in a small one, from empty.
pub const GROWTH_FILLING: &str = "cost of a placement from empty, 10,000 machines against 100";

/// Likewise of one unit more in a full cluster.
pub const GROWTH_ADDING: &str = "cost of one unit added, 10,000 machines against 100";

/// The whole system: from submitted to active.
pub const ALL_ACTIVE: &str = "from submitted to all reported active";

/// Likewise, as a rate.
pub const UNITS_A_SECOND: &str = "units a second";

/// Processor time of the engine until all are active.
pub const ENGINE_CPU: &str = "processor: engine";

/// Likewise of etcd.
pub const ETCD_CPU: &str = "processor: etcd";

/// Likewise of all agents.
pub const AGENTS_CPU: &str = "processor: agents";

/// How many keys are written for a unit.
pub const KEYS_A_UNIT: &str = "etcd: keys written for a unit";

/// The engine's memory, with everything active.
pub const ENGINE_MEMORY: &str = "engine: memory";

/// etcd's database, with everything active.
pub const ETCD_IN_USE: &str = "etcd: database in use";

/// An agent's memory.
pub const AGENT_MEMORY: &str = "an agent, its units and its systemd: memory";

/// Keys written while nobody asks anything.
pub const REST_WRITES: &str = "at rest: keys written";

/// Ranges read meanwhile.
pub const REST_READS: &str = "at rest: ranges read";

/// What an engine needs meanwhile.
pub const REST_ENGINE: &str = "at rest: an engine";

/// What etcd needs for all keep-alives.
pub const REST_ETCD: &str = "at rest: etcd, with all keep-alives";

/// What the agents need.
pub const REST_AGENTS: &str = "at rest: 1,000 agents";

/// Machines are lost at once: all is decided and written.
pub fn lost_decided(count: usize) -> String {
    format!("{}: decided and written after its lease's end", lost(count))
}

/// Machines are lost at once: their units are active elsewhere.
pub fn lost_active(count: usize) -> String {
    format!("{}: all reported active after the last lease's end", lost(count))
}

/// What happens to so many machines.
pub fn lost(count: usize) -> String {
    match count {
        1 => "a machine is lost".to_owned(),
        _ => format!("{count} machines are lost at once"),
    }
}

/// The leader is killed.
pub const FAILOVER: &str = "the leader is killed: first placement after its lease's end";

/// One unit of all is listed.
pub const LIST_ONE: &str = "flotctl list-units of one unit, median of 9";

/// All units are listed: the first row.
pub const LIST_FIRST: &str = "flotctl list-units of all: first row after";

/// Likewise: the rate of rows.
pub const LIST_ROWS: &str = "flotctl list-units of all: rows a second";

/// A stream of orders, so many units a second started and destroyed: how long a start takes, of half of them.
pub fn stream_median(rate: u64) -> String {
    format!("stream of {rate}/s: start to active, median")
}

/// Likewise, of all but a hundredth.
pub fn stream_p99(rate: u64) -> String {
    format!("stream of {rate}/s: start to active, p99")
}

/// Units that a chaos moved off a machine that was alive and still fit.
pub const MOVED_NEEDLESSLY: &str = "chaos: units moved off a living machine";

/// Units on three real machines: flotilla's rate as a share of systemd's own.
pub fn share_of_systemd(units: usize) -> String {
    format!("{units} units at once: share of systemd's own rate")
}

/// What etcd alone can write on this computer.
pub const ETCD_CEILING: &str = "etcd alone: keys written in transactions";
