//! `flotctl history`: a unit's life in order, for as long as events are kept.
//!
//! What happened is in the cluster's events, of the unit and of its template; what its machine says of it
//! now is added where it stands in time. A unit that was destroyed has a history too.

use std::io::Write as _;

use flotilla_api::{
    client::Client,
    error::ErrorKind,
    unit::{Placement, Unit},
    watch::{Event, EventsQuery},
};
use flotilla_units::UnitName;
use jiff::Timestamp;
use serde::Serialize;

use crate::{
    args::Output,
    connection::Cluster,
    exit::{Exit, Failure},
    paint, print,
    selector::mangle,
    text,
};

/// Shows a unit's life: who ordered what, where it was placed and why, how it failed, moved and ended.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The unit; it may be destroyed already
    #[arg(value_name = "UNIT", add = crate::complete::units())]
    unit: String,

    /// Only since this time: 2026-11-22 14:00, 14:00, -5min, today
    #[arg(long, short = 'S', value_name = "TIME", value_parser = crate::time::since)]
    since: Option<Timestamp>,
}

/// A unit's life, for programs.
#[derive(Debug, Serialize)]
struct History {
    unit: String,
    /// What happened, oldest first.
    events: Vec<Event>,
    /// How it is now; absent when it is gone.
    now: Option<Unit>,
}

/// One line for people.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    at: Timestamp,
    text: String,
    who: String,
}

/// Runs the command.
pub(crate) async fn run(cluster: &Cluster, args: &Args, output: Output) -> anyhow::Result<()> {
    let name = mangle(&args.unit);
    let template = name.parse::<UnitName>().ok().and_then(|unit| unit.template());
    let pattern = template.as_ref().map_or_else(|| name.clone(), |template| format!("{name},{template}"));
    // What happened first: what is said to be so now is then at least as new.
    let query = EventsQuery {
        pattern: Some(pattern),
        lines: Some(u32::MAX),
        since: args.since,
        ..EventsQuery::default()
    };
    let events = cluster.read(async |client: &Client| {
        let mut stream = client.events(&query, None).await?;
        let mut events = Vec::new();
        while let Some(event) = stream.next().await? {
            events.push(event.data);
        }
        Ok(events)
    });
    let events = events.await?;
    let now = match cluster.read(async |client| client.unit(&name).await).await {
        Ok(unit) => Some(unit),
        Err(e) if e.kind() == Some(ErrorKind::NotFound) => None,
        Err(e) => return Err(e.into()),
    };
    if now.is_none() && !events.iter().any(|event| is_of(event, &name)) {
        let why = format!(
            "nothing is known of {name}: it is not in the cluster, and no event of it is kept (`flotctl cluster \
             settings` says how long they are)"
        );
        return Err(Failure::error(Exit::NoSuch, why));
    }
    if output == Output::Json {
        return Ok(print::json(&History { unit: name, events, now })?);
    }
    let mut out = print::out();
    for Line { at, text, who } in lines(&name, &events, now.as_ref()) {
        writeln!(out, "{} {text} {}", paint::dim(text::local(at)), paint::dim(format!("({who})")))?;
    }
    Ok(out.flush()?)
}

fn is_of(event: &Event, unit: &str) -> bool {
    event.unit.as_ref().is_some_and(|of| of.as_str() == unit)
}

/// Puts a life into lines, in order of time.
fn lines(unit: &str, events: &[Event], now: Option<&Unit>) -> Vec<Line> {
    let mut lines: Vec<Line> = events.iter().map(|event| line(unit, event)).collect();
    let placements = now.map(|unit| &*unit.placements).unwrap_or_default();
    lines.extend(placements.iter().filter_map(reported));
    // Those of one moment stay in the order in which they were written.
    lines.sort_by_key(|line| line.at);
    if let Some(why) = now.and_then(|unit| unit.unplaced.as_ref()) {
        let at = lines.last().map_or(Timestamp::UNIX_EPOCH, |line| line.at);
        let text = format!("waits for a place: {}", text::one_line(why));
        lines.push(Line { at, text, who: "now".to_owned() });
    }
    lines
}

fn line(unit: &str, event: &Event) -> Line {
    let host = event.host.clone().or_else(|| event.machine.map(|id| id.short()));
    let (on, from) = match &host {
        Some(host) => (format!(" on {host}"), format!(" from {host}")),
        None => Default::default(),
    };
    let what = match event.kind.as_str() {
        "target-changed" => "ordered".to_owned(),
        "restart-ordered" => "ordered to start anew".to_owned(),
        "stop-ordered" => "ordered to stop".to_owned(),
        "destroy-ordered" => "ordered to be destroyed".to_owned(),
        "departing" => format!("ordered off{on}"),
        "machine-lost" => format!("given up{on}"),
        "gone" => format!("gone{from}"),
        "restarted" => format!("started anew{on}"),
        kind => format!("{kind}{on}"),
    };
    // Of its template it is said whose it is.
    let whose = event.unit.as_ref().filter(|of| of.as_str() != unit).map(|of| format!("{of} "));
    let why = event.why.as_ref().map(|why| format!(": {}", text::one_line(why))).unwrap_or_default();
    let request = event.request.as_ref().map(|id| format!(", request {id}")).unwrap_or_default();
    let who = format!("{}{request}", text::one_line(&event.by));
    Line { at: event.at, text: format!("{}{what}{why}", whose.unwrap_or_default()), who }
}

/// Says what a machine says of it now, at the time since which it is so.
fn reported(placement: &Placement) -> Option<Line> {
    let state = placement.state.as_ref()?;
    let host = placement.host.clone().unwrap_or_else(|| placement.machine.short());
    let result = state.result.as_ref().map(|result| format!(", result {result}")).unwrap_or_default();
    let text = format!("{} ({}) on {host}{result}", state.active, state.sub);
    Some(Line { at: state.since?, text, who: "so it is now".to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(second: i64, kind: &str, host: Option<&str>, by: &str, why: Option<&str>) -> Event {
        Event {
            at: Timestamp::from_second(second).expect("a time"),
            revision: second,
            by: by.to_owned(),
            request: (by != "engine").then(|| "r1".to_owned()),
            kind: kind.to_owned(),
            unit: Some("web@1.service".parse().expect("a name")),
            machine: None,
            host: host.map(str::to_owned),
            why: why.map(str::to_owned),
        }
    }

    #[test]
    fn a_life_reads_as_it_happened() {
        let template = Event {
            unit: Some("web@.service".parse().expect("a name")),
            ..event(1, "submitted", None, "ada", None)
        };
        let events = [
            template,
            event(2, "target-changed", None, "ada", Some("from inactive to launched")),
            event(3, "placed", Some("m1"), "engine", Some("started by ada")),
            event(9, "machine-lost", Some("m1"), "engine", Some("m1 was lost")),
            event(9, "placed", Some("m2"), "engine", Some("m1 was lost")),
            event(20, "destroy-ordered", None, "ada", None),
        ];
        let now: Unit = serde_json::from_value(serde_json::json!({
            "name": "web@1.service", "target": "launched", "generation": 2, "run": 1, "by": "ada",
            "at": "1970-01-01T00:00:02Z", "placements": [{
                "machine": "113f16a7a0f84c4c8a3f9e3b2f4d6c01", "host": "m2", "machine_alive": true,
                "token": 7, "run": 1,
                "state": {"load": "loaded", "active": "active", "sub": "running", "since": "1970-01-01T00:00:10Z"},
            }],
        }))
        .expect("a unit");
        let lines = lines("web@1.service", &events, Some(&now));
        let texts: Vec<String> = lines.iter().map(|line| format!("{} ({})", line.text, line.who)).collect();
        assert_eq!(
            texts,
            [
                "web@.service submitted (ada, request r1)",
                "ordered: from inactive to launched (ada, request r1)",
                "placed on m1: started by ada (engine)",
                "given up on m1: m1 was lost (engine)",
                "placed on m2: m1 was lost (engine)",
                "active (running) on m2 (so it is now)",
                "ordered to be destroyed (ada, request r1)",
            ]
        );
    }
}
