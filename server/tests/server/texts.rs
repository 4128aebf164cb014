//! Whose text a unit has, whose unit it is, and that an answer is of the write that it answers.

use flotilla_api::{
    action::{Action, BulkUnit, BulkWrite, Order},
    error::ErrorKind,
    plan::{PlanRequest, PlanUnit, PlannedChange},
    unit::Target,
};
use flotilla_registry::operations::{NewText, UnitOrder, Word};
use tokio::time::{Duration, sleep, timeout};

use crate::world::{LIMIT, World, name};

const TEMPLATE: &str = "[Service]\nExecStart=/bin/true\n";
const OWN: &str = "[Service]\nExecStart=/bin/false\n";

/// A template with two instances: the first was given a text of its own, as a client of fleet's API does,
/// the second follows.
async fn family() -> World {
    let world = World::new().await;
    world.register(1).await;
    world.see_machines(1).await;
    let launched = Word::Target { target: flotilla_registry::records::Target::Launched, raise_run: false };
    let own = NewText { own: true, ..NewText::replacing(OWN) };
    let orders = [
        (name("web@1.service"), UnitOrder { word: Some(launched), ..UnitOrder::submit(own) }),
        (name("web@.service"), UnitOrder::submit(NewText::first(TEMPLATE))),
        (name("web@2.service"), UnitOrder::word(launched)),
    ];
    for order in orders {
        world.operations.write(&[order], true, "test").await.unwrap();
    }
    settle(&world, "web@2.service").await;
    world
}

/// Waits until the seat shows a unit.
async fn settle(world: &World, unit: &str) {
    let shown = async {
        while world.client.unit(unit).await.is_err() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LIMIT, shown).await.unwrap();
}

fn bulk(unit: &str) -> BulkUnit {
    BulkUnit { name: unit.to_owned(), ..BulkUnit::default() }
}

#[tokio::test]
async fn an_instance_with_a_text_of_its_own_is_shown_with_it() {
    let world = family().await;
    let own = world.client.content("web@1").await.unwrap();
    assert_eq!((own.text.as_str(), own.template.as_ref()), (OWN, None));
    assert_eq!(own.revision, Some(world.client.unit("web@1").await.unwrap().revision));
    let follows = world.client.content("web@2").await.unwrap();
    assert_eq!((follows.text.as_str(), follows.template), (TEMPLATE, Some(name("web@.service"))));
    assert_eq!(follows.revision, Some(world.client.unit("web@.service").await.unwrap().revision));
    let units = world.client.units(&flotilla_api::page::ListQuery::default()).await.unwrap().items;
    let owners: Vec<_> = units.iter().filter(|unit| unit.own_text).map(|unit| unit.name.as_str()).collect();
    assert_eq!(owners, ["web@1.service"]);

    // It is given another, if nobody did meanwhile; one that follows is not, and neither is the template.
    let other = OWN.replace("false", "sleep 9");
    let refused = world.client.replace_content("web@2", &other, None).await.unwrap_err();
    assert_eq!(refused.kind(), Some(ErrorKind::BadRequest), "{refused}");
    world.client.replace_content("web@1", &other, own.revision).await.unwrap();
    let stale = world.client.replace_content("web@1", OWN, own.revision).await.unwrap_err();
    assert_eq!(stale.kind(), Some(ErrorKind::RevisionDiffers), "{stale}");
    assert_eq!(world.client.content("web@1").await.unwrap().text, other);
    assert_eq!(world.client.content("web@.service").await.unwrap().text, TEMPLATE);
}

#[tokio::test]
async fn an_instance_with_a_text_of_its_own_is_planned_with_it() {
    let world = family().await;
    let plan = async |units: Vec<PlanUnit>| world.client.plan(&PlanRequest { units }).await.unwrap().units;
    let unit = |name: &str| PlanUnit { name: name.to_owned(), ..PlanUnit::default() };
    let text = |placement: &str| Some(format!("{TEMPLATE}[X-Flotilla]\n{placement}\n"));
    let nowhere = text("MachineMetadata=host=nowhere");
    let planned = plan(vec![
        PlanUnit { text: nowhere.clone(), ..unit("web@.service") },
        PlanUnit { target: Some(Target::Launched), ..unit("web@1") },
        PlanUnit { target: Some(Target::Launched), ..unit("web@2") },
    ])
    .await;
    let said: Vec<_> = planned.iter().map(|unit| (unit.change, unit.unplaced.is_some())).collect();
    let (update, unchanged) = (PlannedChange::Update, PlannedChange::Unchanged);
    assert_eq!(said, [(update, false), (unchanged, false), (update, true)]);
    let planned = plan(vec![PlanUnit { text: nowhere, ..unit("web@1") }]).await;
    assert_eq!((planned[0].change, planned[0].unplaced.is_some()), (update, true), "its own text");
}

#[tokio::test]
async fn an_instance_of_which_nothing_is_wanted_is_made_by_a_bulk_write() {
    let world = family().await;
    let unload = |create| BulkUnit { action: Some(Action::Unload), create, ..bulk("web@3") };
    let write = async |unit| world.client.bulk(&BulkWrite { units: vec![unit], whole: true }).await;
    assert_eq!(write(unload(false)).await.unwrap_err().kind(), Some(ErrorKind::NotFound));
    assert!(write(unload(true)).await.unwrap().units[0].changed);
    assert_eq!(world.client.unit("web@3").await.unwrap().target, Target::Inactive);
    assert!(!write(unload(true)).await.unwrap().units[0].changed);
}

#[tokio::test]
async fn a_unit_becomes_another_sets_where_that_is_said() {
    let world = family().await;
    let of = |set: &str, take_over| BulkUnit { set: Some(set.to_owned()), take_over, ..bulk("web@2") };
    let write = async |unit| world.client.bulk(&BulkWrite { units: vec![unit], whole: true }).await;
    assert_eq!(write(of("shop", false)).await.unwrap_err().kind(), Some(ErrorKind::BadRequest));
    let nobody = BulkUnit { take_over: true, ..bulk("web@2") };
    assert_eq!(write(nobody).await.unwrap_err().kind(), Some(ErrorKind::BadRequest));
    let before = world.client.unit("web@2").await.unwrap();
    let taken = write(of("shop", true)).await.unwrap();
    assert_eq!((taken.units[0].changed, taken.units[0].run), (true, before.run));
    let after = world.client.unit("web@2").await.unwrap();
    assert_eq!((after.set.as_deref(), after.run, after.target), (Some("shop"), before.run, before.target));
}

/// Whoever waits for a restart waits for this run: the one before it proves nothing.
#[tokio::test]
async fn the_answer_to_an_order_is_of_the_write_also_where_the_seat_is_behind() {
    let world = family().await;
    // A seat that will not hear of it: that of another store, in which the unit is at its first run.
    let behind = family().await;
    for _ in 0..8 {
        world.operations.restart(&[name("web@2.service")], "test").await.unwrap();
    }
    let run = world.operations.restart(&[name("web@2.service")], "test").await.unwrap()[0].run;
    world.seat.send_replace(behind.engine.reader());
    let order = Order { action: Action::Restart, units: vec!["web@2".to_owned()], dry_run: false };
    let answer = world.client.order(&order).await.unwrap();
    assert_eq!(answer.units[0].run, run + 1);
    let stored = world.operations.registry().unit(&name("web@2.service")).await.unwrap().unwrap();
    assert_eq!(stored.record.generation, answer.units[0].generation);
}
