use std::sync::Arc;

use flotilla_registry::{
    keys::Keys,
    operations::{Asker, Effect, NewText, OperationError, Operations, UnitOrder, Word},
    reads::Registry,
    records::{EventRecord, Record, Rollout, Target, UnitRecord},
    store::{RangeRequest, Revision, Store},
    timing::Timing,
};
use flotilla_units::{ContentHash, UnitName};

use super::store;

const START: Word = Word::Target { target: Target::Launched, raise_run: false };

fn operations(store: &Arc<dyn Store>) -> Operations {
    Operations::new(Registry::new(store.clone(), Keys::default()), Timing::default())
}

fn name(text: &str) -> UnitName {
    text.parse().expect("a unit name")
}

fn with(unit: &str, text: NewText) -> (UnitName, UnitOrder) {
    (name(unit), UnitOrder::submit(text))
}

async fn record(operations: &Operations, unit: &str) -> UnitRecord {
    operations.registry().unit(&name(unit)).await.expect("readable").expect("there").record
}

async fn events(store: &Arc<dyn Store>) -> Vec<EventRecord> {
    let range = Keys::default().all_of("events");
    let mut kvs = store.range(RangeRequest::all(range)).await.expect("a read").kvs;
    kvs.sort_by_key(|kv| kv.mod_revision);
    kvs.iter().map(|kv| EventRecord::from_kv(kv).expect("an event")).collect()
}

#[tokio::test(start_paused = true)]
async fn a_text_is_replaced_only_when_it_is_asked_for_and_only_if_it_differs() {
    let (store, _) = store(21);
    let operations = operations(&store);
    let first = with("a.service", NewText::first("one"));
    let mut launched = first.clone();
    launched.1.word = Some(START);
    let written = operations.write(&[launched], true, "ann").await.unwrap().written;
    assert_eq!(written[0].effect, Effect::Created);
    let refused = operations.write(&[with("a.service", NewText::first("two"))], true, "ann").await;
    assert!(matches!(refused, Err(OperationError::ContentDiffers { .. })), "{refused:?}");

    let asker = Asker { by: "ben", request: Some("r-1") };
    let two = [with("a.service", NewText::replacing("two"))];
    assert_eq!(operations.write(&two, true, asker).await.unwrap().written[0].effect, Effect::Changed);
    let now = record(&operations, "a.service").await;
    assert_eq!(now.current, Some(ContentHash::of(b"two")));
    assert_eq!((now.target, now.run), (Target::Launched, 1), "neither stopped nor started by it");
    assert_eq!(
        operations.registry().content(&ContentHash::of(b"two")).await.unwrap().as_deref(),
        Some("two")
    );
    let event = events(&store).await.pop().expect("an event");
    assert_eq!((event.by.as_str(), event.request.as_deref()), ("ben", Some("r-1")));
    assert_eq!(event.changes[0].kind, "replaced");

    let before = store.range(RangeRequest::all(Keys::default().everything())).await.unwrap().revision;
    assert_eq!(operations.write(&two, true, "cem").await.unwrap().written[0].effect, Effect::Unchanged);
    let after = store.range(RangeRequest::all(Keys::default().everything())).await.unwrap().revision;
    assert_eq!(before, after, "the same again writes nothing");
}

#[tokio::test(start_paused = true)]
async fn a_write_is_refused_when_its_unit_was_changed_since() {
    let (store, _) = store(22);
    let operations = operations(&store);
    let order = |text: &str, expected| {
        let mut order = with("a.service", NewText::replacing(text));
        order.1.expected = Some(Revision(expected));
        [order]
    };
    let made = operations.write(&order("one", 0), true, "ann").await.unwrap().written[0].revision;
    match operations.write(&order("two", 0), true, "ann").await {
        Err(error @ OperationError::RevisionDiffers { expected: Revision(0), found, .. }) => {
            assert_eq!(found, made);
            assert!(error.to_string().contains(&format!("at revision {}, not at 0", made.0)), "{error}");
        }
        other => panic!("{other:?}"),
    }
    let second = operations.write(&order("two", made.0), true, "ann").await.unwrap().written[0].revision;
    assert!(operations.write(&order("three", made.0), true, "ben").await.is_err());
    // The other units of the same write are not done either.
    let mut both = order("three", made.0).to_vec();
    both.push(with("b.service", NewText::first("b")));
    assert!(operations.write(&both, false, "ben").await.is_err());
    assert!(operations.registry().unit(&name("b.service")).await.unwrap().is_none());
    let mut stop = (name("a.service"), UnitOrder::word(Word::Destroy));
    stop.1.expected = Some(second);
    operations.write(&[stop], true, "ben").await.unwrap();
    // An instance that only a range speaks for is at its range's revision.
    let web = with("web@.service", NewText::first("web"));
    operations.write(&[web], true, "ann").await.unwrap();
    let range = flotilla_units::UnitRange::new(name("web@.service"), 1, 9).unwrap();
    let said = operations.set_target_in(&range, Target::Launched, false, "ann").await.unwrap().revision();
    let mut instance =
        (name("web@3.service"), UnitOrder::word(Word::Target { target: Target::Loaded, raise_run: false }));
    instance.1.expected = Some(Revision(said.0 - 1));
    assert!(operations.write(&[instance.clone()], true, "ann").await.is_err());
    instance.1.expected = Some(said);
    operations.write(&[instance], true, "ann").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn mixed_orders_are_one_transaction_or_none_as_far_as_they_fit() {
    let (store, _) = store(23);
    let operations = operations(&store);
    let mut orders =
        vec![with("a.service", NewText::first("a")), with("web@.service", NewText::first("web"))];
    orders[0].1.word = Some(START);
    orders.extend((1..=3).map(|n| (name(&format!("web@{n}.service")), UnitOrder::word(START))));
    let bulk = operations.write(&orders, true, "ann").await.unwrap();
    assert_eq!((bulk.written.len(), bulk.transactions), (5, 1));
    assert!(bulk.written.iter().all(|it| it.revision == bulk.written[0].revision));
    assert_eq!(events(&store).await.len(), 1, "with one event");
    assert_eq!(record(&operations, "a.service").await.run, 1);
    assert_eq!(record(&operations, "web@2.service").await.target, Target::Launched);

    let none = [with("b.service", NewText::first("b")), (name("no.service"), UnitOrder::word(START))];
    assert!(matches!(operations.write(&none, false, "ann").await, Err(OperationError::NoSuchUnit(_))));
    assert!(operations.registry().unit(&name("b.service")).await.unwrap().is_none());
    let mut both = with("b.service", NewText::first("b"));
    both.1.word = Some(Word::Destroy);
    assert!(matches!(operations.write(&[both], true, "ann").await, Err(OperationError::Contradictory(_))));

    let mut many = vec![with("job@.service", NewText::first("job"))];
    many.extend((1..=200).map(|n| (name(&format!("job@{n}.service")), UnitOrder::word(START))));
    let refused = operations.write(&many, true, "ann").await;
    assert!(matches!(refused, Err(OperationError::TooManyAtOnce { units: 201 })), "{refused:?}");
    assert!(operations.registry().unit(&name("job@.service")).await.unwrap().is_none());
    let bulk = operations.write(&many, false, "ann").await.unwrap();
    assert_eq!(bulk.written.len(), 201);
    assert!(bulk.transactions > 1, "and it is said: {}", bulk.transactions);
}

#[tokio::test(start_paused = true)]
async fn how_a_text_is_rolled_out_and_the_set_it_is_of() {
    let (store, _) = store(24);
    let operations = operations(&store);
    let later = |text: &str| NewText { rollout: Rollout::NextStart, ..NewText::replacing(text) };
    operations.write(&[with("a.service", NewText::first("one"))], true, "ann").await.unwrap();
    operations.write(&[with("a.service", later("two"))], true, "ann").await.unwrap();
    assert_eq!(record(&operations, "a.service").await.rollout, Rollout::NextStart);
    let same = operations.write(&[with("a.service", NewText::first("two"))], true, "ann").await.unwrap();
    assert_eq!(same.written[0].effect, Effect::Unchanged, "who only submits says nothing of it");
    operations.write(&[with("a.service", NewText::replacing("two"))], true, "ann").await.unwrap();
    let now = record(&operations, "a.service").await;
    assert_eq!((now.rollout, now.set), (Rollout::OneByOne, None));
    let of_set =
        |unit: &str, order: UnitOrder| (name(unit), UnitOrder { set: Some("shop".to_owned()), ..order });
    let text = |text: &str| UnitOrder::submit(NewText::replacing(text));
    operations.write(&[of_set("a.service", text("three"))], true, "ann").await.unwrap();
    assert_eq!(record(&operations, "a.service").await.set, None, "it was made by hand");
    let started = UnitOrder::word(Word::Target { target: Target::Launched, raise_run: false });
    let made = [of_set("b@.service", text("one")), of_set("b@1.service", started)];
    operations.write(&made, true, "ann").await.unwrap();
    operations.write(&[with("b@.service", NewText::replacing("two"))], true, "ann").await.unwrap();
    for unit in ["b@.service", "b@1.service"] {
        assert_eq!(
            record(&operations, unit).await.set.as_deref(),
            Some("shop"),
            "edited, and still of the set"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_loaded_already_is_stopped_anew_only_if_the_caller_says_so() {
    let (store, _) = store(25);
    let operations = operations(&store);
    operations.write(&[with("a.service", NewText::first("one"))], true, "ann").await.unwrap();
    let unit = [name("a.service")];
    operations.set_target(&unit, Target::Loaded, true, "ann").await.unwrap();
    assert_eq!(record(&operations, "a.service").await.run, 0, "it was not loaded before");
    let again = operations.set_target(&unit, Target::Loaded, false, "ann").await.unwrap();
    assert_eq!(again[0].effect, Effect::Unchanged);
    operations.set_target(&unit, Target::Loaded, true, "ann").await.unwrap();
    assert_eq!(record(&operations, "a.service").await.run, 1);
    assert_eq!(events(&store).await.pop().unwrap().changes[0].kind, "stop-ordered");
}

#[tokio::test(start_paused = true)]
async fn an_instance_may_have_a_text_of_its_own_and_needs_no_template_then() {
    let (store, _) = store(26);
    let operations = operations(&store);
    let own = |text: &str| NewText { own: true, ..NewText::replacing(text) };
    let refused = operations.write(&[with("web@1.service", NewText::first("one"))], true, "ann").await;
    assert!(matches!(refused, Err(OperationError::InstanceSubmitted { .. })), "{refused:?}");

    let mut launched = with("web@1.service", own("one"));
    launched.1.word = Some(START);
    operations.write(&[launched], true, "ann").await.unwrap();
    let now = record(&operations, "web@1.service").await;
    assert_eq!((now.current, now.target, now.run), (Some(ContentHash::of(b"one")), Target::Launched, 1));
    operations.set_target(&[name("web@1.service")], Target::Loaded, false, "ann").await.unwrap();

    // One that followed its template gets a text, and is what it was otherwise.
    operations.write(&[with("web@.service", NewText::first("shared"))], true, "ann").await.unwrap();
    operations.set_target(&[name("web@2.service")], Target::Launched, false, "ann").await.unwrap();
    operations.write(&[with("web@2.service", own("two"))], true, "ann").await.unwrap();
    let now = record(&operations, "web@2.service").await;
    assert_eq!((now.current, now.target, now.run), (Some(ContentHash::of(b"two")), Target::Launched, 1));
    let why = events(&store).await.pop().unwrap().changes.remove(0).why;
    assert_eq!(why.as_deref(), Some("it has a text of its own, and no longer its template's"));
    // Whoever replaces its text now means its own: there is no other.
    operations.write(&[with("web@2.service", NewText::replacing("three"))], true, "ann").await.unwrap();
    assert_eq!(record(&operations, "web@2.service").await.current, Some(ContentHash::of(b"three")));
    assert_eq!(record(&operations, "web@.service").await.current, Some(ContentHash::of(b"shared")));

    // Neither keeps the template.
    operations.destroy(&[name("web@.service")], "ann").await.unwrap();
    assert!(record(&operations, "web@.service").await.deleting);
}

#[tokio::test(start_paused = true)]
async fn an_instance_of_which_nothing_is_wanted_is_made_only_where_that_is_asked_for() {
    let (store, _) = store(27);
    let operations = operations(&store);
    let order = |unit: &str| [(name(unit), UnitOrder::instance(Target::Inactive))];
    let refused = operations.write(&order("web@1.service"), true, "ann").await;
    assert!(matches!(refused, Err(OperationError::MissingTemplate { .. })), "{refused:?}");
    operations.write(&[with("web@.service", NewText::first("shared"))], true, "ann").await.unwrap();
    let refused = operations.set_target(&[name("web@1.service")], Target::Inactive, false, "ann").await;
    assert!(matches!(refused, Err(OperationError::NoSuchUnit(_))), "{refused:?}");
    let made = operations.write(&order("web@1.service"), true, "ann").await.unwrap();
    assert_eq!(made.written[0].effect, Effect::Created);
    let now = record(&operations, "web@1.service").await;
    assert_eq!((now.current, now.target, now.generation), (None, Target::Inactive, 1));
    let again = operations.write(&order("web@1.service"), true, "ann").await.unwrap();
    assert_eq!(again.written[0].effect, Effect::Unchanged);
}

#[tokio::test(start_paused = true)]
async fn whose_a_unit_is_changes_without_touching_what_is_wanted_of_it() {
    let (store, _) = store(28);
    let operations = operations(&store);
    let of = |unit: &str, set: &str| UnitOrder {
        set: Some(set.to_owned()),
        take_over: true,
        ..with(unit, NewText::first("one")).1
    };
    let only = |unit: &str, set: &str| [(name(unit), UnitOrder { text: None, ..of(unit, set) })];
    let refused = operations.write(&only("a.service", "shop"), true, "ann").await;
    assert!(matches!(refused, Err(OperationError::NoSuchUnit(_))), "{refused:?}");
    let made = [(name("a.service"), UnitOrder { word: Some(START), ..of("a.service", "shop") })];
    operations.write(&made, true, "ann").await.unwrap();
    let before = record(&operations, "a.service").await;
    assert_eq!((before.set.as_deref(), before.run), (Some("shop"), 1));

    // Without being told so, a set keeps what it made.
    let keeps = [(name("a.service"), UnitOrder { take_over: false, ..of("a.service", "till") })];
    let kept = operations.write(&keeps, true, "ben").await.unwrap();
    assert_eq!(kept.written[0].effect, Effect::Unchanged);
    let taken = operations.write(&only("a.service", "till"), true, "ben").await.unwrap();
    assert_eq!((taken.written[0].effect, taken.written[0].run), (Effect::Changed, 1));
    let after = record(&operations, "a.service").await;
    let expected = UnitRecord {
        set: Some("till".to_owned()),
        generation: before.generation + 1,
        by: "ben".to_owned(),
        at: after.at,
        ..before
    };
    assert_eq!(after, expected);
    let change = events(&store).await.pop().unwrap().changes.remove(0);
    assert_eq!(change.kind, "set-changed");
    assert_eq!(change.why.as_deref(), Some("from the set `shop` to the set `till`"));
    let again = operations.write(&only("a.service", "till"), true, "ben").await.unwrap();
    assert_eq!(again.written[0].effect, Effect::Unchanged);

    // An instance that only a range speaks for gets a record that says the same.
    operations.write(&[with("web@.service", NewText::first("web"))], true, "ann").await.unwrap();
    let range = flotilla_units::UnitRange::new(name("web@.service"), 1, 9).unwrap();
    let said = operations.set_target_in(&range, Target::Launched, false, "ann").await.unwrap();
    assert_eq!((said.parts[0].generation, said.parts[0].run), (1, 1));
    let taken = operations.write(&only("web@3.service", "till"), true, "ann").await.unwrap();
    assert_eq!(taken.written[0].run, 1);
    let now = record(&operations, "web@3.service").await;
    assert_eq!((now.target, now.run, now.set.as_deref()), (Target::Launched, 1, Some("till")));

    operations.destroy(&[name("a.service")], "ann").await.unwrap();
    let refused = operations.write(&only("a.service", "shop"), true, "ann").await;
    assert!(matches!(refused, Err(OperationError::BeingDestroyed(_))), "{refused:?}");
}

/// What a write answers is of the write, also where it is the third of three.
#[tokio::test(start_paused = true)]
async fn a_write_says_which_run_and_generation_it_made() {
    let (store, _) = store(29);
    let operations = operations(&store);
    operations.write(&[with("a.service", NewText::first("one"))], true, "ann").await.unwrap();
    let unit = [name("a.service")];
    for n in 1..=3 {
        let written = operations.restart(&unit, "ann").await.unwrap().remove(0);
        assert_eq!((written.run, written.generation), (n, n + 1));
        let stored = operations.registry().unit(&unit[0]).await.unwrap().unwrap();
        assert_eq!((stored.record.run, stored.written), (written.run, written.revision));
    }
    let same = operations.set_target(&unit, Target::Launched, false, "ann").await.unwrap().remove(0);
    assert_eq!((same.effect, same.run, same.generation), (Effect::Unchanged, 3, 4));
}

#[tokio::test(start_paused = true)]
async fn what_has_to_be_there_is_not_made_anew_once_it_is_destroyed() {
    let (store, _) = store(31);
    let operations = operations(&store);
    let order = |must_exist| {
        let mut order = with("a.service", NewText::replacing("two"));
        order.1.must_exist = must_exist;
        [order]
    };
    let refused = operations.write(&order(true), true, "ann").await;
    assert!(matches!(refused, Err(OperationError::NoSuchUnit(_))), "{refused:?}");
    assert!(operations.registry().unit(&name("a.service")).await.unwrap().is_none());
    operations.write(&order(false), true, "ann").await.unwrap();
    assert_eq!(
        operations.write(&order(true), true, "ann").await.unwrap().written[0].effect,
        Effect::Unchanged
    );
}

#[tokio::test(start_paused = true)]
async fn two_who_start_a_unit_that_failed_start_it_once() {
    let (store, _) = store(32);
    let operations = operations(&store);
    let mut first = with("a.service", NewText::first("one"));
    first.1.word = Some(START);
    operations.write(&[first], true, "ann").await.unwrap();
    let seen = record(&operations, "a.service").await.run;
    let word = Word::Target { target: Target::Launched, raise_run: true };
    let again = [(name("a.service"), UnitOrder { seen_run: Some(seen), ..UnitOrder::word(word) })];
    let effects = [
        operations.write(&again, false, "ann").await.unwrap().written[0].effect,
        operations.write(&again, false, "ben").await.unwrap().written[0].effect,
    ];
    assert_eq!(effects, [Effect::Changed, Effect::Unchanged]);
    assert_eq!(record(&operations, "a.service").await.run, seen + 1);
    // A target that became another in between is no such case: what is asked for is not yet so.
    operations.set_target(&[name("a.service")], Target::Loaded, false, "cem").await.unwrap();
    assert_eq!(operations.write(&again, false, "ann").await.unwrap().written[0].effect, Effect::Changed);
}

/// fleet's agents tried to run a template that was started, for ever, and nothing else.
#[tokio::test(start_paused = true)]
async fn no_template_is_started_and_an_order_with_one_changes_nothing() {
    let (store, _) = store(27);
    let operations = operations(&store);
    let texts = ["web@.service", "a.service"].map(|unit| (name(unit), "one".to_owned()));
    operations.submit(&texts, "ann").await.unwrap();
    let told = events(&store).await.len();
    for target in [Target::Loaded, Target::Launched] {
        for units in [vec![name("web@.service")], vec![name("a.service"), name("web@.service")]] {
            let refused = operations.set_target(&units, target, true, "ann").await.unwrap_err();
            assert!(
                matches!(&refused, OperationError::TemplateStarted(unit) if *unit == units[units.len() - 1])
            );
        }
    }
    let refused = operations.restart(&[name("web@.service")], "ann").await;
    assert!(matches!(refused, Err(OperationError::TemplateStarted(_))), "{refused:?}");
    let started = UnitOrder { word: Some(START), ..UnitOrder::submit(NewText::first("two")) };
    let refused = operations.write(&[(name("db@.service"), started)], true, "ann").await;
    assert!(matches!(refused, Err(OperationError::TemplateStarted(_))), "also when it is made: {refused:?}");
    assert!(operations.registry().unit(&name("db@.service")).await.unwrap().is_none());
    for unit in ["web@.service", "a.service"] {
        assert_eq!(record(&operations, unit).await.target, Target::Inactive, "{unit}");
    }
    assert_eq!(events(&store).await.len(), told);
}
