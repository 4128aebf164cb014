//! Orders about ranges of instances, how far they have come, and lists of many.

use std::collections::BTreeMap;

use axum::http::{HeaderMap, Method};
use flotilla_api::{
    action::Action,
    bulk::{BulkEvent, BulkOrder, RangeOutcome, Tally, TallyQuery},
    client::{ClientError, SseStream},
    lines::{Line, LinesQuery},
    page::{Page, UnitsQuery},
    unit::Unit,
};
use flotilla_engine::Names;
use flotilla_registry::{
    keys::{Bucket, Key, Keys},
    records::{Record as _, ReportBucket, UnitReport, VERSION},
    store::{Operation, Txn},
};
use serde_json::json;
use tokio::time::{sleep, timeout};

use crate::world::{LIMIT, World, id, name};

/// An order as it was told: its events with their ids.
async fn order(
    world: &World,
    action: Action,
    units: &[&str],
    last: Option<&str>,
) -> Result<Vec<(String, BulkEvent)>, ClientError> {
    let order = BulkOrder { action, units: units.iter().map(|&unit| unit.to_owned()).collect() };
    let mut stream = world.client.bulk_order(&order, last).await?;
    let mut events = Vec::new();
    while let Some(event) = timeout(LIMIT, stream.next()).await.unwrap()? {
        events.push((event.id.unwrap_or_default(), event.data));
    }
    Ok(events)
}

/// What was written, batch by batch: position, units, changed.
fn written(events: &[(String, BulkEvent)]) -> Vec<(u64, u64, u64)> {
    let of = |(_, event): &(String, BulkEvent)| match event {
        BulkEvent::Written { position, units, changed, .. } => Some((*position, *units, *changed)),
        BulkEvent::Done { .. } => None,
    };
    events.iter().filter_map(of).collect()
}

async fn tally(world: &World, action: Action, ranges: &str) -> SseStream<Tally> {
    let query = TallyQuery { ranges: ranges.to_owned(), action, after: None };
    world.client.tally(&query).await.unwrap()
}

/// Reads counts until they are as expected: total, done, pending, failed, unplaced.
async fn counted(stream: &mut SseStream<Tally>, expected: [u64; 5]) -> Tally {
    let mut last = None;
    let counted = async {
        loop {
            let it = stream.next().await.unwrap().unwrap().data;
            if [it.total, it.done, it.pending, it.failed, it.unplaced] == expected {
                return it;
            }
            last = Some(it);
        }
    };
    let counted = timeout(LIMIT, counted).await;
    counted.unwrap_or_else(|_| panic!("not {expected:?} but {last:?}"))
}

async fn template(world: &World, text: &str) {
    let text = format!("[Service]\nExecStart=/bin/true\n{text}");
    world.operations.submit(&[(name("web@.service"), text)], "test").await.unwrap();
}

/// Waits until every instance has a place.
async fn all_placed(world: &World) {
    let reader = world.engine.reader().unwrap();
    let placed = async {
        while reader
            .units(&Names::all(), None, 50, |unit| unit.is_instance())
            .rows
            .iter()
            .any(|row| row.placements.is_empty())
        {
            sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    timeout(LIMIT, placed).await.unwrap();
}

/// Says in a machine's place how each of its units is; of some, otherwise.
async fn report(world: &World, on: u8, others: &BTreeMap<&str, &str>) {
    let reader = world.engine.reader().unwrap();
    let page = reader.units(&Names::all(), None, 1_000, |unit| unit.is_instance());
    let mut buckets: BTreeMap<Bucket, Vec<UnitReport>> = BTreeMap::new();
    for row in page.rows {
        let Some(placement) = row.placements.iter().find(|placement| placement.machine == id(on)) else {
            continue;
        };
        let active = others.get(row.name.as_str()).copied().unwrap_or("active");
        let report = serde_json::from_value(json!({
            "unit": row.name, "token": placement.token, "run": placement.run, "load": "loaded", "active": active,
            "sub": if active == "active" { "running" } else { active },
            "result": (active == "failed").then_some("exit-code"),
        }));
        buckets.entry(Bucket::of(&row.name)).or_default().push(report.unwrap());
    }
    let puts = buckets.into_iter().map(|(bucket, units)| Operation::Put {
        key: Keys::default().spell(&Key::Report(id(on), bucket)),
        value: ReportBucket { v: VERSION, units }.encode(),
        lease: None,
    });
    world.store.txn(Txn { then: puts.collect(), ..Txn::default() }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_are_ordered_counted_and_destroyed_by_one_word() {
    let world = World::new().await;
    let missing = order(&world, Action::Start, &["web@{1..3000}"], None).await.unwrap_err().to_string();
    assert!(missing.starts_with("web@{1..3000}.service: there is no template `web@.service`"), "{missing}");
    template(&world, "").await;
    let range = "web@{1..3000}.service";
    let none = order(&world, Action::Stop, &[range], None).await.unwrap_err().to_string();
    assert!(none.contains("no instance `web@{1..3000}.service`"), "{none}");

    let events = order(&world, Action::Start, &[range], None).await.unwrap();
    assert_eq!(written(&events), [(3_000, 3_000, 3_000)]);
    let (id, BulkEvent::Written { ranges, outcomes, transactions: 1, .. }) = &events[0] else {
        panic!("{events:?}")
    };
    let all = RangeOutcome { range: range.parse().unwrap(), changed: true, generation: 1, run: 1 };
    assert_eq!((&ranges[..], &outcomes[..]), (&[all][..], &[][..]));
    assert!(matches!(events[1].1, BulkEvent::Done { revision } if *id == format!("3000@{revision}")));
    // The same again writes nothing; taken up behind what was told, nothing is looked at.
    let again = order(&world, Action::Start, &[range], None).await.unwrap();
    assert_eq!(written(&again), [(3_000, 3_000, 0)]);
    let behind = order(&world, Action::Restart, &[range], Some(id)).await.unwrap();
    assert_eq!((written(&behind).len(), behind.len()), (0, 1), "it was all done");
    let half = order(&world, Action::Restart, &[range], Some("2990@1")).await.unwrap();
    assert_eq!(written(&half), [(3_000, 10, 10)]);

    let mut counts = tally(&world, Action::Start, range).await;
    let nowhere = counted(&mut counts, [3_000, 0, 0, 0, 3_000]).await;
    assert_eq!((nowhere.examples.len(), nowhere.examples[0].as_str()), (10, "web@1.service"));
    world.register(1).await;
    counted(&mut counts, [3_000, 0, 3_000, 0, 0]).await;

    order(&world, Action::Unload, &["web@{1..1500}"], None).await.unwrap();
    // The machine never says that they are gone.
    let mut counts = tally(&world, Action::Unload, "web@{1..4000}").await;
    counted(&mut counts, [3_000, 0, 3_000, 0, 0]).await;
    let events = order(&world, Action::Destroy, &["web@{2001..9000}"], None).await.unwrap();
    assert_eq!(written(&events), [(7_000, 1_000, 1_000)], "of those that there are");
    let mut counts = tally(&world, Action::Destroy, "web@{2001..9000}").await;
    counted(&mut counts, [7_000, 6_000, 1_000, 0, 0]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_is_started_anew_only_where_it_has_ended() {
    let world = World::new().await;
    template(&world, "").await;
    world.register(1).await;
    world.see_machines(1).await;
    world
        .operations
        .submit(&[(name("a.service"), "[Service]\nExecStart=/bin/true\n".to_owned())], "t")
        .await
        .unwrap();
    let events = order(&world, Action::Start, &["web@{1..30}", "a", "web@30"], None).await.unwrap();
    assert_eq!(written(&events), [(30, 30, 30), (32, 2, 1)]);
    let range = "web@{1..30}.service";
    let mut counts = tally(&world, Action::Start, range).await;
    all_placed(&world).await;
    report(&world, 1, &[("web@7.service", "failed"), ("web@9.service", "activating")].into()).await;
    let counts = counted(&mut counts, [30, 28, 1, 1, 0]).await;
    let examples: Vec<&str> = counts.examples.iter().map(flotilla_units::UnitName::as_str).collect();
    assert_eq!(examples, ["web@7.service", "web@9.service"], "what has failed comes first");

    let events = order(&world, Action::Start, &[range], None).await.unwrap();
    let (_, BulkEvent::Written { changed: 0, outcomes, ranges, .. }) = &events[0] else {
        panic!("{events:?}")
    };
    assert_eq!((outcomes.len(), outcomes[0].unit.as_str(), outcomes[0].run), (1, "web@7.service", 2));
    assert!(ranges.iter().all(|range| !range.changed), "{ranges:?}");
    // It was ordered, and not heard of yet.
    let events = order(&world, Action::Start, &[range], None).await.unwrap();
    let (_, BulkEvent::Written { outcomes, .. }) = &events[0] else { panic!("{events:?}") };
    assert!(outcomes.iter().all(|outcome| outcome.run <= 2), "{outcomes:?}");
    let mut counts = tally(&world, Action::Start, range).await;
    counted(&mut counts, [30, 28, 2, 0, 0]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_order_about_many_does_not_take_is_refused() {
    let world = World::new().await;
    for (words, why) in [
        (&["web@*"][..], "a pattern"),
        (&["web@{1..2000000}"], "1000000"),
        (&["web@{2..1}"], "{1..2}"),
        (&[], "no unit"),
    ] {
        let refused = order(&world, Action::Start, words, None).await.unwrap_err().to_string();
        assert!(refused.contains(why), "{refused}");
    }
    let refused = order(&world, Action::Start, &["a"], Some("x")).await.unwrap_err().to_string();
    assert!(refused.contains("Last-Event-ID"), "{refused}");
    let range = flotilla_api::action::Order {
        action: Action::Start,
        units: vec!["web@{1..2}".to_owned()],
        dry_run: false,
    };
    let refused = world.client.order(&range).await.unwrap_err().to_string();
    assert!(refused.contains("/v1/orders/bulk"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_say_where_the_next_begins_and_ranges_are_patterns() {
    let world = World::new().await;
    template(&world, "").await;
    order(&world, Action::Load, &["web@{1..2500}"], None).await.unwrap();
    let list = |pattern: &str, from: Option<String>| UnitsQuery {
        pattern: Some(pattern.to_owned()),
        from,
        fields: Some("target,placements.host".to_owned()),
        ..UnitsQuery::default()
    };
    let (mut names, mut from) = (Vec::new(), None);
    loop {
        let coming = world.client.units_coming(&list("web@*", from)).await.unwrap();
        let next = coming.next().map(str::to_owned);
        let page: Page<serde_json::Value> = coming.read().await.unwrap();
        assert_eq!(page.next, next, "the header says what the page says");
        assert!(page.items.iter().all(|item| item.as_object().unwrap().len() <= 3));
        names.extend(page.items.iter().map(|item| item["name"].as_str().unwrap().to_owned()));
        from = next;
        if from.is_none() {
            break;
        }
    }
    assert_eq!(names.len(), 2_501, "the template too");
    assert!(names.is_sorted());
    let count = async |pattern: &str| {
        let mut found = Vec::new();
        let mut query = UnitsQuery { pattern: Some(pattern.to_owned()), ..UnitsQuery::default() };
        loop {
            let page = world.client.units_where(&query).await.unwrap();
            found.extend(page.items.into_iter().map(|unit: Unit| unit.name.to_string()));
            query.from = page.next;
            if query.from.is_none() {
                return found;
            }
        }
    };
    assert_eq!(count("web@{9..11}").await, ["web@10.service", "web@11.service", "web@9.service"]);
    assert_eq!(count("web@{1001..2400}").await.len(), 1_400);
    assert_eq!(count("web@2500,web@7,no.service").await, ["web@2500.service", "web@7.service"]);
    assert_eq!(count("*@25?.service,web@7").await.len(), 11);
    let mut headers = HeaderMap::new();
    headers.insert("accept", "application/json".parse().unwrap());
    let path = "/v1/units?pattern=web%40*&limit=2&type=service";
    let answer = world.client.forward(Method::GET, path, headers, String::new()).await.unwrap();
    let link = answer.headers()["link"].to_str().unwrap();
    assert_eq!(link, "</v1/units?pattern=web%40*&limit=2&type=service&from=web%401.service>; rel=\"next\"");
}

/// Lines say what units say, at a glance or not, in parts of any size.
#[tokio::test(flavor = "multi_thread")]
async fn lines_of_a_table_say_what_the_units_say() {
    let world = World::new().await;
    template(&world, "Description=%i\n").await;
    world
        .operations
        .submit(&[(name("a.service"), "[Service]\nExecStart=/bin/true\n".to_owned())], "t")
        .await
        .unwrap();
    order(&world, Action::Start, &["web@{1..40}"], None).await.unwrap();
    world.register(1).await;
    world.see_machines(1).await;
    let mut counts = tally(&world, Action::Start, "web@{1..40}").await;
    all_placed(&world).await;
    report(&world, 1, &[("web@7.service", "failed"), ("web@9.service", "activating")].into()).await;
    counted(&mut counts, [40, 38, 1, 1, 0]).await;
    order(&world, Action::Destroy, &["web@11"], None).await.unwrap();
    order(&world, Action::Load, &["web@{50..52}"], None).await.unwrap();
    let all = UnitsQuery { pattern: Some("web@{1..60},a".to_owned()), ..UnitsQuery::default() };
    let mut last = (Vec::new(), Vec::new());
    let same = async {
        loop {
            let units: Vec<Unit> = world.client.units_where(&all).await.unwrap().items;
            let expected: Vec<String> =
                units.iter().flat_map(Line::of).map(|line| format!("{line:?}")).collect();
            for limit in [1, 7, 1_000] {
                let (mut lines, mut query) =
                    (Vec::new(), LinesQuery { limit: Some(limit), ..LinesQuery::default() });
                query.pattern.clone_from(&all.pattern);
                loop {
                    let coming = world.client.lines_coming(&query).await.unwrap();
                    let linked = coming.next().map(str::to_owned);
                    let part = coming.part().await.unwrap();
                    let part = part.lines().unwrap();
                    lines.extend(part.lines.iter().map(|line| format!("{line:?}")));
                    query.from = part.next;
                    assert_eq!(query.from, linked, "the header says what the part says");
                    if query.from.is_none() {
                        break;
                    }
                }
                last = (lines, expected.clone());
                if last.0 != last.1 {
                    // The engine got on in between.
                    break;
                }
                if limit == 1_000 {
                    return;
                }
            }
            sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let in_time = timeout(LIMIT, same).await;
    assert!(in_time.is_ok(), "{last:?}");
    assert_eq!(last.0.len(), 44);
    for word in ["leaving: destroyed", "\"failed\"", "\"activating\"", "\"running\"", "inactive"] {
        assert!(last.0.iter().any(|line| line.contains(word)), "{word}: {last:?}");
    }
}
