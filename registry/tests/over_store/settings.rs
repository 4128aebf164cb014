//! What operators set for the whole cluster.

use std::{sync::Arc, time::Duration};

use flotilla_registry::{
    keys::Keys,
    operations::{Asker, Operations, SettingsError, SettingsOrder},
    reads::Registry,
    records::{ClusterSettings, EventRecord, Record as _},
    store::{RangeRequest, Revision},
    timing::Timing,
};

use super::store;

#[tokio::test(start_paused = true)]
async fn settings_are_set_once_with_an_event_and_within_bounds() {
    let (store, faults) = store(31);
    let operations = Operations::new(Registry::new(Arc::clone(&store), Keys::default()), Timing::default());
    assert_eq!(operations.settings().await.unwrap(), (ClusterSettings::default(), Revision(0)));
    let hour = SettingsOrder { events_kept_s: Some(3_600), ..SettingsOrder::default() };
    let asker = Asker { by: "ann", request: Some("r1") };
    let (set, at) = operations.configure(hour, asker).await.unwrap();
    assert_eq!((set.events_kept_s, set.events_max), (3_600, 10_000));
    assert_eq!(operations.configure(hour, asker).await.unwrap(), (set, at), "the same again writes nothing");

    let stale = SettingsOrder { events_max: Some(200), expected: Some(Revision(0)), ..hour };
    let refused = operations.configure(stale, asker).await.unwrap_err();
    assert!(matches!(refused, SettingsError::RevisionDiffers { found, .. } if found == at), "{refused}");
    for (bad, says) in [
        (SettingsOrder { events_kept_s: Some(59), ..SettingsOrder::default() }, "expected 60 s to"),
        (SettingsOrder { events_max: Some(99), ..SettingsOrder::default() }, "expected 100 to 100000"),
    ] {
        let refused = operations.configure(bad, asker).await.unwrap_err().to_string();
        assert!(refused.contains(says), "{refused}");
    }

    // A write that is late is asked for again, and nothing is written twice.
    faults.late_writes(1, Duration::from_millis(100));
    let more = SettingsOrder { events_max: Some(200), ..SettingsOrder::default() };
    let (set, _) = operations.configure(more, asker).await.unwrap();
    assert_eq!((set.events_kept_s, set.events_max), (3_600, 200));
    let kvs = store.range(RangeRequest::all(Keys::default().all_of("events"))).await.unwrap().kvs;
    let events: Vec<_> = kvs.iter().map(|kv| EventRecord::from_kv(kv).unwrap()).collect();
    let why: Vec<_> = events.iter().map(|event| event.changes[0].why.clone().unwrap()).collect();
    assert_eq!(why, ["events are kept for 3600 s, not 86400 s", "at most 200 events are kept, not 10000"]);
    assert!(events.iter().all(|it| it.by == "ann" && it.request.as_deref() == Some("r1")));
}
