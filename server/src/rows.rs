//! The engine's rows in the words of the wire.

mod machine;
mod plan;

use flotilla_api::{
    cluster::ClusterStatus,
    unit::{Placement, Target, Unit, UnitState, Versions},
    watch::Event,
    why::{Why, WhyMachine},
};
use flotilla_engine::{
    ClusterRow, Keeps, PlacementRow, StateReader, UnitRow, Unplaced,
    placement::{Explanation, Standing},
    state::Life,
};
use flotilla_registry::{
    records::{self, EventChange, EventRecord, UnitReport},
    store::{Revision, StoreStatus},
};
use jiff::Timestamp;

pub(crate) use machine::machine;
pub(crate) use plan::{drain, plan, rebalance};

/// What is said where no machine lives.
const NO_MACHINE: &str = "there is no machine";

/// Writes a unit; what it lacks to be placed is asked for only if it is on no machine that lives.
pub(crate) fn unit(reader: &StateReader, row: UnitRow) -> Unit {
    let record = row.record.as_deref();
    let wanted = record.is_some_and(|record| record.target != records::Target::Inactive && !record.deleting);
    let staying = || row.placements.iter().filter(|placement| placement.departing.is_none());
    // It keeps its place on a lost machine until another takes it, and none may be able to.
    let placed = staying().any(|placement| placement.life != Life::Lost);
    let unplaced = if wanted && !placed { reader.unplaced(&row.name).map(unplaced) } else { None };
    let unplaced = unplaced.or_else(|| row.problem.clone());
    let reason = unplaced.clone().or_else(|| reason(&row)).or_else(|| row.waits.clone());
    Unit {
        current: target(row.current()),
        reason,
        versions: Versions { updated: row.versions.updated as u64, all: row.versions.all as u64 },
        set: record.and_then(|record| record.set.clone()),
        own_text: row.name.is_instance() && record.is_some_and(|record| record.current.is_some()),
        next_start: row.next_start,
        rollout: row.rollout,
        target: record.map_or(Target::Inactive, |record| target(record.target)),
        revision: row.written.0,
        generation: record.map_or(0, |record| record.generation),
        run: record.map_or(0, |record| record.run),
        hash: row.hash,
        template: row.name.template(),
        description: row.description,
        global: row.global,
        deleting: record.is_some_and(|record| record.deleting),
        by: record.map_or_else(String::new, |record| record.by.clone()),
        at: record.map_or(Timestamp::UNIX_EPOCH, |record| record.at),
        placements: row.placements.into_iter().map(placement).collect(),
        unplaced,
        name: row.name,
    }
}

/// Says why a unit that has a place is not there as it should be, if it is not.
fn reason(row: &UnitRow) -> Option<String> {
    let launched = row.wanted() == Some(records::Target::Launched);
    let mut staying = row.placements.iter().filter(|placement| placement.departing.is_none());
    staying.find_map(|placement| {
        let host = placement.host.clone().unwrap_or_else(|| placement.machine.short());
        if placement.life == Life::Lost {
            return Some(format!("{host} is lost"));
        }
        let report = placement.report.as_ref()?;
        let failed = || {
            let result = report.result.as_deref().unwrap_or("failed");
            let status = report.exit_status.map(|status| format!(", exit status {status}"));
            format!("failed on {host} ({result}{})", status.unwrap_or_default())
        };
        match (&report.problem, report.active.as_str()) {
            (Some(why), _) => Some(format!("{host}: {why}")),
            (None, "failed") if launched => Some(failed()),
            _ if launched && report.sub.starts_with("auto-restart") => Some(failed()),
            _ if launched && report.stopped_locally => Some(format!("it was stopped on {host} itself")),
            _ => None,
        }
    })
}

const fn target(target: records::Target) -> Target {
    match target {
        records::Target::Inactive => Target::Inactive,
        records::Target::Loaded => Target::Loaded,
        records::Target::Launched => Target::Launched,
    }
}

fn placement(row: PlacementRow) -> Placement {
    Placement {
        current: target(row.current()),
        hash: Some(row.hash),
        machine: row.machine,
        host: row.host,
        machine_alive: row.life != Life::Lost,
        token: row.token.0,
        run: row.run,
        departing: row.departing.map(|departure| departure_in_words(departure).to_owned()),
        moving: row.moving.map(|departure| departure_in_words(departure).to_owned()),
        state: row.report.map(state),
    }
}

const fn departure_in_words(departure: records::Departure) -> &'static str {
    match departure {
        records::Departure::Unloaded => "unloaded",
        records::Departure::Destroyed => "destroyed",
        records::Departure::Requirements => "its machine no longer meets its requirements",
        records::Departure::Drained => "its machine is drained",
        records::Departure::Replaced => "another unit replaces it",
        records::Departure::MachineLost => "its machine was lost",
        records::Departure::Updated => "it was updated",
        records::Departure::Rebalanced => "machines are evened out",
        records::Departure::Preempted => "a unit of higher priority needs the room",
        records::Departure::TakenBack => "its move was taken back",
    }
}

fn state(report: UnitReport) -> UnitState {
    UnitState {
        load: report.load.into(),
        active: report.active.into(),
        sub: report.sub.into(),
        since: report.since,
        token: report.token.map(|token| token.0),
        run: report.run,
        hash: report.hash,
        invocation: report.invocation.map(Into::into),
        result: report.result.map(Into::into),
        exit_status: report.exit_status,
        restarts: report.restarts,
        stray: report.stray,
        starting: report.starting,
        stopped_locally: report.stopped_locally,
        problem: report.problem,
    }
}

/// Says in one line why a unit is on no machine but those that are lost.
fn unplaced(why: Unplaced) -> String {
    let keeps = match &why.keeps {
        Keeps::Word(why) => why.clone(),
        Keeps::Rules(rules) => in_one_line(rules),
        Keeps::NoMachine => NO_MACHINE.to_owned(),
    };
    why.lost.iter().map(|host| format!("{host} is lost; ")).collect::<String>() + &keeps
}

/// Names the lost machines that have a unit's place: `m2 is lost; `.
fn are_lost(why: &flotilla_engine::Why) -> String {
    why.lost.iter().map(|(_, host)| format!("{host} is lost; ")).collect()
}

/// Counts what an explanation has against a unit.
fn counted(explanation: &Explanation) -> String {
    if explanation.machines.is_empty() { NO_MACHINE.to_owned() } else { in_one_line(&explanation.counts()) }
}

/// Counts what speaks against a unit, machine by machine: `2 machines: conflicts with web@1.service`.
fn in_one_line(rules: &[(usize, String)]) -> String {
    if rules.is_empty() {
        return "no machine takes it together with those that have to be where it is".to_owned();
    }
    let count = |(count, rule): &(usize, String)| {
        let machines = if *count == 1 { "machine" } else { "machines" };
        format!("{count} {machines}: {rule}")
    };
    rules.iter().map(count).collect::<Vec<_>>().join("; ")
}

/// Writes why a unit is where it is.
pub(crate) fn why(why: flotilla_engine::Why) -> Why {
    let (summary, update) = (why.problem.clone().or_else(|| why.engine.clone()), why.update.clone());
    let explanation = &why.explanation;
    let host_of = |id| {
        let living = explanation.machines.iter().map(|verdict| (verdict.machine, &verdict.host));
        let mut known = living.chain(why.lost.iter().map(|(id, host)| (*id, host)));
        known.find(|(known, _)| *known == id).map_or_else(|| id.short(), |(_, host)| host.clone())
    };
    let list = |ids: &[_]| ids.iter().map(|id| host_of(*id)).collect::<Vec<_>>().join(", ");
    let standing = match &explanation.standing {
        Standing::Unknown => "the engine does not know it".to_owned(),
        Standing::NotWanted => "it is not to run anywhere".to_owned(),
        Standing::Placed(ids) => format!("it is on {}", list(ids)),
        Standing::Moving { from, to } => {
            format!("it is being started on {}, and leaves {} once it is ready there", list(to), list(from))
        }
        Standing::Stranded { on, with } => {
            let with: Vec<&str> = with.iter().map(flotilla_units::UnitName::as_str).collect();
            let with =
                if with.is_empty() { String::new() } else { format!(" together with {}", with.join(", ")) };
            format!("it stays on {}, which is drained: no other machine takes it{with}", list(on))
        }
        Standing::Sticks(ids) => format!("it is sticky and waits for {}", list(ids)),
        Standing::Awaiting(ids) => format!("it waits for room on {}", list(ids)),
        Standing::Departing(ids) => format!("it waits until it is proven gone from {}", list(ids)),
        Standing::Placeable(id) => format!("it is about to be placed on {}", host_of(*id)),
        Standing::Kept(ids) if ids.is_empty() => "it goes nowhere as things are".to_owned(),
        Standing::Kept(ids) => format!("it is left on {} until more is known of it", list(ids)),
        Standing::Unplaceable => {
            format!("no machine can take it: {}{}", are_lost(&why), counted(explanation))
        }
    };
    let placed = matches!(
        explanation.standing,
        Standing::Placed(_) | Standing::Moving { .. } | Standing::Stranded { .. }
    );
    let mut machines: Vec<WhyMachine> = (explanation.machines.iter())
        .map(|verdict| {
            let closed = why.closed.iter().find(|(id, _)| *id == verdict.machine).map(|(_, why)| why.clone());
            let reasons: Vec<String> = verdict.reasons.iter().map(ToString::to_string).collect();
            let reason = closed.or_else(|| (!reasons.is_empty()).then(|| reasons.join("; ")));
            WhyMachine {
                machine: verdict.machine,
                host: verdict.host.clone(),
                eligible: verdict.reasons.is_empty(),
                placed: verdict.here,
                rule: verdict.reasons.first().map(|reason| reason.rule().to_owned()),
                reason: reason.filter(|_| !verdict.reasons.is_empty()),
            }
        })
        .collect();
    // As people look for them.
    machines.sort_by(|one, other| (&one.host, one.machine).cmp(&(&other.host, other.machine)));
    Why {
        unit: explanation.unit.clone(),
        summary: match update {
            Some(update) => format!("{}; {update}", summary.unwrap_or(standing)),
            None => summary.unwrap_or(standing),
        },
        placed,
        machines,
    }
}

/// Writes the cluster as a whole.
pub(crate) fn cluster(row: ClusterRow, store: Result<StoreStatus, String>) -> ClusterStatus {
    let record = row.cluster.as_deref();
    let mut problems = row.problems;
    let engine = row.engine;
    problems.extend([engine.standstill, engine.hold, engine.behind, engine.trouble].into_iter().flatten());
    if row.leader.is_none() {
        problems.push("no engine leads; nothing is placed or moved".to_owned());
    }
    let (version, size, quota) = match store {
        Ok(store) => (store.version, store.size_bytes, store.quota_bytes),
        Err(why) => {
            problems.push(format!("the store does not answer: {why}"));
            ("unknown".to_owned(), 0, None)
        }
    };
    ClusterStatus {
        id: record.map(|record| record.id.clone()),
        epoch: record.map_or(0, |record| record.epoch),
        revision: row.revision.0,
        leader: row.leader.map(|leader| leader.machine),
        seats: row.seats.iter().map(|(_, seat)| seat.machine).collect(),
        machines_alive: row.machines_alive as u64,
        machines_lost: row.machines_lost as u64,
        units: row.units as u64,
        store: version,
        store_size_bytes: size,
        store_quota_bytes: quota,
        problems,
    }
}

/// Writes an event record: one event for each change in it, and for each unit that it is told of.
pub(crate) fn events(reader: &StateReader, revision: Revision, record: &EventRecord) -> Vec<Event> {
    let host = |machine: Option<_>| machine.and_then(|id| reader.host(id));
    let event = |change: &EventChange, unit: Option<&flotilla_units::UnitName>| Event {
        at: record.time_of(change),
        revision: revision.0,
        by: change.by.as_ref().unwrap_or(&record.by).clone(),
        request: change.request.clone().or_else(|| record.request.clone()),
        kind: change.kind.clone(),
        unit: unit.cloned(),
        machine: change.machine,
        host: change.host.clone().or_else(|| host(change.machine)),
        why: change.why.clone(),
    };
    let changes = record.changes.iter().flat_map(|change| {
        let also = change.also.iter().map(move |unit| event(change, Some(unit)));
        std::iter::once(event(change, change.unit.as_ref())).chain(also)
    });
    changes.collect()
}
