//! What to report of one unit.

use flotilla_registry::records::{ManifestEntry, Target, UnitReport};

use super::{Gate, Situation, Standing, standing, wanted};
use crate::systemd::{Evidence, Pulled, Then, UnitState};

/// The state of a unit whose start is queued, and its sub state.
const ACTIVATING: &str = "activating";

const QUEUED: &str = "queued";

/// Returns one report per order, and one for what is here and no order names.
pub(super) fn reports(s: &Situation<'_>, held_if_gated: bool) -> Vec<UnitReport> {
    let mut reports: Vec<_> = s.orders.iter().map(|order| of_order(s, order, held_if_gated)).collect();
    reports.extend(stray(s));
    reports
}

/// Returns one report per order of a unit that could not be read yet: it proves nothing.
pub fn unread(orders: &[ManifestEntry]) -> Vec<UnitReport> {
    let unknown = || UnitState {
        load: "unknown".to_owned(),
        active: "unknown".to_owned(),
        sub: "unknown".to_owned(),
        ..UnitState::not_loaded()
    };
    let report = |order: &ManifestEntry| {
        let mut report = blank(order.unit.clone(), None, unknown());
        report.token = Some(order.token);
        report
    };
    orders.iter().map(report).collect()
}

/// Tells whether what is here was started for this order, or belongs to no other. What an older order started
/// that this one took the place of is this one's to stop: to report that nothing is here would be to say that
/// it has stopped already.
fn is_about(s: &Situation<'_>, order: &ManifestEntry) -> bool {
    let is_wanted = || wanted(s.orders).is_none_or(|wanted| wanted.token == order.token);
    match s.present.map(|present| &present.evidence) {
        None => false,
        Some(Some(evidence)) if s.orders.iter().any(|order| order.token == evidence.token) => {
            evidence.token == order.token
        }
        Some(Some(evidence)) => evidence.token < order.token && is_wanted(),
        Some(None) => is_wanted(),
    }
}

fn of_order(s: &Situation<'_>, order: &ManifestEntry, held_if_gated: bool) -> UnitReport {
    let here = is_about(s, order);
    let evidence = s.present.and_then(|p| p.evidence.as_ref());
    let started = evidence.filter(|e| e.token == order.token);
    let state = match s.present {
        Some(present) if here => present.state.clone(),
        _ => UnitState::not_loaded(),
    };
    let mut report = blank(order.unit.clone(), started, state);
    report.token = Some(order.token);
    if started.is_none() && here {
        report.hash = s.present.and_then(|p| p.file);
    }
    if order.departing.is_some() {
        report.gone = gone(s, order);
    } else {
        let pulled = s.present.and_then(|present| present.pulled.as_ref()).filter(|_| here);
        let waits = pulled.is_some_and(|pulled| pulled.then != Then::Stays);
        report.starting = order.target == Target::Launched && started.is_some_and(|e| !e.started || waits);
        let current = started.is_some_and(|e| e.run == order.run && e.started);
        let by_hand = matches!(s.attempts.history(), Some(Ok(history)) if history.stopped_by_job);
        let launched = order.target == Target::Launched;
        report.stopped_locally =
            launched && current && report.active == "inactive" && by_hand && pulled.is_none();
    }
    if !report.gone {
        report.problem = problem(s, order, held_if_gated);
    }
    report
}

/// Tells whether nothing of this placement is here, nor can come to be here any more.
///
/// Also no file of it: once it is reported gone the engine forgets it, and nobody would ever take
/// away what were still there.
fn gone(s: &Situation<'_>, order: &ManifestEntry) -> bool {
    if s.attempts.unsettled() || super::may_hold(s, order) {
        return false;
    }
    let Some(present) = s.present else { return true };
    match &present.evidence {
        // A newer placement's evidence was written after this one had been stopped. An older one's
        // tells of what this one replaced, and that has to be gone as well.
        Some(evidence) if evidence.token > order.token => true,
        // A newer placement here takes the files over.
        _ => wanted(s.orders).is_some() && present.state.at_rest() && s.attempts.stopped(),
    }
}

fn problem(s: &Situation<'_>, order: &ManifestEntry, held_if_gated: bool) -> Option<String> {
    if order.departing.is_none() {
        let acted_on = wanted(s.orders)?;
        if !std::ptr::eq(acted_on, order) {
            return Some(format!(
                "two placements ask for {}; the newer one counts ({})",
                s.unit, acted_on.token
            ));
        }
        if let (Standing::Newer, Some(evidence)) =
            (standing(s, order), s.present.and_then(|p| p.evidence.as_ref()))
        {
            return Some(format!(
                "the manifest is older than what was started here (token {}, run {}); it is left alone",
                evidence.token, evidence.run
            ));
        }
    }
    if let (true, Gate::Closed(why) | Gate::Frozen(why)) = (held_if_gated, s.gate) {
        return Some(why.clone());
    }
    let pulled = s.present.filter(|present| present.state.has_ended()).and_then(|it| it.pulled.as_ref());
    if let (Some(Pulled { by, then: Then::Stays, .. }), None, Target::Launched) =
        (pulled, order.departing, order.target)
    {
        return Some(format!(
            "it was stopped with {by}, which it needs; it starts again when that is started here"
        ));
    }
    let clings =
        |present: &&crate::systemd::Present| present.state.has_ended() && !present.state.cgroup_empty;
    if order.departing.is_some() && s.attempts.stopped() && s.present.filter(clings).is_some() {
        let why = "it was stopped, and left processes behind; it is gone when they have ended: kill them, or \
                   mend its KillMode=";
        return Some(why.to_owned());
    }
    s.attempts.problem().map(|(why, tries)| match tries {
        0 | 1 => why.to_owned(),
        _ => format!("{why} (tried {tries} times)"),
    })
}

/// Reports what flotilla started, or wrote, and no order names. It is left alone.
fn stray(s: &Situation<'_>) -> Option<UnitReport> {
    let present = s.present?;
    let named = match &present.evidence {
        Some(evidence) => s.orders.iter().any(|o| o.token == evidence.token),
        None => !s.orders.is_empty(),
    };
    // With an order for the unit, an older placement's leftovers say nothing once it has ended.
    if named || (!s.orders.is_empty() && present.state.at_rest()) {
        return None;
    }
    let mut report = blank(s.unit.clone(), present.evidence.as_ref(), present.state.clone());
    report.token = present.evidence.as_ref().map(|e| e.token);
    // What a newer order is about to stop is somebody's.
    report.stray = s.manifest_known && !s.orders.iter().any(|order| Some(order.token) > report.token);
    Some(report)
}

fn blank(unit: flotilla_units::UnitName, started: Option<&Evidence>, mut state: UnitState) -> UnitReport {
    if state.job && matches!(state.active.as_str(), "inactive" | "failed") {
        // systemd has no word for it, and whoever reads `inactive` takes it for the end.
        (state.active, state.sub) = (ACTIVATING.to_owned(), QUEUED.to_owned());
    }
    UnitReport {
        unit,
        token: None,
        run: started.map_or(0, |e| e.run),
        hash: started.map(|e| e.hash),
        load: state.load.into(),
        active: state.active.into(),
        sub: state.sub.into(),
        since: state.since,
        invocation: state.invocation.map(Into::into),
        result: Some(state.result).filter(|r| !r.is_empty() && r != "success").map(Into::into),
        exit_status: state.exit_status.filter(|status| *status != 0),
        restarts: state.restarts,
        gone: false,
        stray: false,
        starting: false,
        stopped_locally: false,
        problem: None,
    }
}
