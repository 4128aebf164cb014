//! What would come of things, over HTTP: plans, drains and evening out.

use flotilla_api::{
    client::ClientError,
    error::ErrorKind,
    plan::{DrainStage, PlanRequest, PlanUnit, PlannedChange, Rebalance},
    unit::Target,
};
use flotilla_registry::{
    keys::Keys,
    records::{EventRecord, Record as _},
    store::{RangeRequest, Revision},
};

use crate::world::{World, name};

fn text(placement: &str) -> String {
    format!("[Service]\nExecStart=/bin/true\n[X-Flotilla]\n{placement}\n")
}

fn started(unit: &str, text: Option<String>) -> PlanUnit {
    PlanUnit { name: unit.to_owned(), text, target: Some(Target::Launched), ..PlanUnit::default() }
}

async fn world(machines: u8) -> World {
    let world = World::new().await;
    for n in 1..=machines {
        world.register(n).await;
    }
    world.see_machines(machines.into()).await;
    world
}

fn revision(world: &World) -> Revision {
    world.engine.reader().unwrap().revision()
}

#[tokio::test]
async fn a_plan_says_what_would_be_where_and_changes_nothing() {
    let world = world(3).await;
    world.unit("a.service", Some(1)).await;
    let at = revision(&world);
    let units = vec![
        started("a", None),
        started("b.service", Some(text("MachineOf=a.service"))),
        started("c.service", Some(text("Conflicts=a.service\nMachineMetadata=host=m1"))),
        PlanUnit { name: "w@.service".to_owned(), text: Some(text("Conflicts=w@*")), ..PlanUnit::default() },
        started("w@1.service", None),
        started("w@2.service", None),
    ];
    let plan = world.client.plan(&PlanRequest { units }).await.unwrap();
    let said: Vec<(String, PlannedChange, Vec<String>)> = plan
        .units
        .iter()
        .map(|unit| {
            let hosts = unit.machines.iter().filter_map(|place| place.host.clone()).collect();
            (unit.unit.to_string(), unit.change, hosts)
        })
        .collect();
    let expected = [
        ("a.service", PlannedChange::Unchanged, vec!["m1"]),
        ("b.service", PlannedChange::Create, vec!["m1"]),
        ("c.service", PlannedChange::Create, vec![]),
        ("w@.service", PlannedChange::Create, vec![]),
        ("w@1.service", PlannedChange::Create, vec!["m2"]),
        ("w@2.service", PlannedChange::Create, vec!["m3"]),
    ];
    let expected = expected.map(|(unit, change, hosts)| {
        (unit.to_owned(), change, hosts.into_iter().map(str::to_owned).collect::<Vec<_>>())
    });
    assert_eq!(said, expected);
    assert!(plan.units[0].machines[0].here && !plan.units[1].machines[0].here);
    let c = &plan.units[2];
    assert!(c.unplaced.is_some() && c.rejected.len() == 3, "{c:?}");
    let m1 = c.rejected.iter().find(|machine| machine.host == "m1").unwrap();
    assert_eq!(m1.rule.as_deref(), Some("Conflicts"), "{m1:?}");
    assert_eq!(plan.moves, []);
    assert_eq!(revision(&world), at, "nothing was written");

    // Another text for a unit that runs: it would have to move.
    let units = vec![PlanUnit { text: Some(text("MachineMetadata=host=m2")), ..started("a", None) }];
    let plan = world.client.plan(&PlanRequest { units }).await.unwrap();
    assert_eq!(plan.units[0].change, PlannedChange::Update);
    assert_eq!(plan.units[0].machines[0].host.as_deref(), Some("m2"));
    let gone = PlanUnit { name: "a".to_owned(), destroy: true, ..PlanUnit::default() };
    let plan = world.client.plan(&PlanRequest { units: vec![gone] }).await.unwrap();
    assert_eq!((plan.units[0].change, plan.units[0].machines.len()), (PlannedChange::Destroy, 0));
}

#[tokio::test]
async fn what_makes_no_sense_is_not_planned() {
    let world = world(1).await;
    let refused = async |units: Vec<PlanUnit>| {
        let refused: ClientError = world.client.plan(&PlanRequest { units }).await.unwrap_err();
        refused.kind().unwrap()
    };
    assert_eq!(refused(vec![started("nobody", None)]).await, ErrorKind::NotFound);
    assert_eq!(refused(vec![started("w@1", None)]).await, ErrorKind::BadRequest);
    assert_eq!(refused(vec![started("w@.service", Some(text("")))]).await, ErrorKind::BadRequest);
    assert_eq!(refused(vec![started("w@1.service", Some(text("")))]).await, ErrorKind::BadRequest);
    assert_eq!(refused(vec![started("a", Some(text("MachineOff=x")))]).await, ErrorKind::InvalidUnit);
    assert_eq!(
        refused(vec![started("a", Some(text(""))), started("a.service", None)]).await,
        ErrorKind::BadRequest
    );
}

#[tokio::test]
async fn a_drain_is_foreseen_and_followed() {
    let world = world(2).await;
    let submit = async |unit: &str, placement: &str| {
        world.operations.submit(&[(name(unit), text(placement))], "test").await.unwrap();
        let launched = flotilla_registry::records::Target::Launched;
        world.operations.set_target(&[name(unit)], launched, true, "test").await.unwrap();
    };
    world.unit("stays.service", Some(1)).await;
    submit("leaves.service", "MachineOf=also.service").await;
    submit("also.service", "Conflicts=other.service").await;
    let reader = world.engine.reader().unwrap();
    let mut rung = reader.changed();
    while reader.cluster().units < 3
        || reader.unit(&name("leaves.service")).0.is_none_or(|row| row.placements.is_empty())
    {
        tokio::time::timeout(crate::world::LIMIT, rung.changed()).await.unwrap().unwrap();
    }
    let on = reader.unit(&name("leaves.service")).0.unwrap().placements[0].host.clone().unwrap();
    let other = if on == "m1" { "m2" } else { "m1" };
    let drain = world.client.drained(&on, None).await.unwrap();
    assert!(!drain.draining);
    let of = |drain: &flotilla_api::plan::Drain, unit: &str| {
        drain.units.iter().find(|it| it.unit.as_str() == unit).cloned()
    };
    for unit in ["also.service", "leaves.service"] {
        let it = of(&drain, unit).unwrap();
        assert_eq!((it.stage, it.to.unwrap().host.as_deref()), (DrainStage::Waiting, Some(other)), "{unit}");
    }
    let first = world.client.drained("m1", None).await.unwrap();
    let stays = of(&first, "stays.service").unwrap();
    assert_eq!(stays.stage, DrainStage::Stays);
    assert!(stays.why.is_some_and(|why| why.contains("host=m1")), "it says why");

    let outcome = world.client.drain(&on, true).await.unwrap();
    let deadline = tokio::time::Instant::now() + crate::world::LIMIT;
    let mut after = outcome.revision;
    let drain = loop {
        let drain = world.client.drained(&on, Some(after)).await.unwrap();
        let begun = |unit| of(&drain, unit).is_some_and(|it| it.stage == DrainStage::Starting);
        if begun("also.service") && begun("leaves.service") {
            break drain;
        }
        assert!(tokio::time::Instant::now() < deadline, "{drain:?}");
        after = drain.revision + 1;
    };
    assert!(drain.draining);
    for unit in ["also.service", "leaves.service"] {
        assert_eq!(of(&drain, unit).unwrap().to.unwrap().host.as_deref(), Some(other), "as it was foreseen");
    }
}

#[tokio::test]
async fn machines_are_evened_out_by_the_leader_within_the_budget() {
    let world = world(1).await;
    for unit in ["a.service", "b.service", "c.service", "d.service"] {
        world.operations.submit(&[(name(unit), text(""))], "test").await.unwrap();
        let launched = flotilla_registry::records::Target::Launched;
        world.operations.set_target(&[name(unit)], launched, true, "test").await.unwrap();
    }
    let reader = world.engine.reader().unwrap();
    let mut rung = reader.changed();
    while reader.machine(crate::world::id(1)).unwrap().units < 4 {
        tokio::time::timeout(crate::world::LIMIT, rung.changed()).await.unwrap().unwrap();
    }
    world.register(2).await;
    world.see_machines(2).await;
    let at = revision(&world);
    let foreseen = world.client.rebalance(&Rebalance { budget: 1, apply: false }).await.unwrap();
    assert_eq!((foreseen.applied, foreseen.moves.len(), revision(&world)), (false, 1, at));
    let loads: Vec<(u64, u64)> =
        foreseen.machines.iter().map(|it| (it.units_before, it.units_after)).collect();
    assert_eq!(loads, [(4, 3), (0, 1)]);
    let done = world.client.rebalance(&Rebalance { budget: 1, apply: true }).await.unwrap();
    assert_eq!((done.applied, &done.moves), (true, &foreseen.moves));
    // It is kept where it is until it is ready there.
    while reader.unit(&done.moves[0].unit).0.unwrap().placements.len() < 2 {
        tokio::time::timeout(crate::world::LIMIT, rung.changed()).await.unwrap().unwrap();
    }
    let told = async || {
        let range = RangeRequest::all(Keys::default().all_of("events"));
        let kvs = world.store.range(range).await.unwrap().kvs;
        let changes = kvs.iter().flat_map(|kv| EventRecord::from_kv(kv).unwrap().changes);
        changes.filter(|change| change.kind == "rebalance-ordered").collect::<Vec<_>>()
    };
    while told().await.is_empty() {
        tokio::time::timeout(crate::world::LIMIT, rung.changed()).await.unwrap().unwrap();
    }
    assert!(told().await[0].request.is_some());
}
