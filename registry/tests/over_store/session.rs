use std::time::Duration;

use flotilla_registry::{
    session::{HandOverError, LostReason, Session, SessionState},
    store::{StoreError, faults::Link},
    timing::Timing,
};
use tokio::time::{Instant, sleep};

use super::{get, put, soon, store};

const TTL: Duration = Duration::from_secs(10);

fn is_held(state: SessionState) -> bool {
    matches!(state, SessionState::Held { .. })
}

#[tokio::test(start_paused = true)]
async fn a_session_outlives_its_lease_many_times() {
    let (store, faults) = store(1);
    let session = Session::open("the test", store.clone(), TTL, &Timing::default()).await.unwrap();
    put(&*store, "k", "v", Some(session.lease())).await;
    let before = faults.calls();
    for _ in 0..100 {
        sleep(TTL).await;
        assert!(is_held(session.state()));
    }
    assert!(get(&*store, "k").await.is_some());
    let renewals = faults.calls() - before - 1;
    assert!((270..=340).contains(&renewals), "{renewals} renewals in a hundred leases");
}

#[tokio::test(start_paused = true)]
async fn no_answer_for_a_ttl_from_before_the_last_renewal_is_lost() {
    let (store, faults) = store(2);
    let session = Session::open("the test", store.clone(), TTL, &Timing::default()).await.unwrap();
    put(&*store, "k", "v", Some(session.lease())).await;
    // Renewals take a second from here: the time counts from before they are sent.
    faults.slow(Duration::from_secs(1), Duration::from_secs(1));
    sleep(TTL).await;
    let mut handle = session.handle();
    faults.set_link(Link::Hung);
    let (mut states, mut held_until) = (Vec::new(), None);
    let lost = soon("the loss", async {
        loop {
            let state = handle.changed().await;
            held_until = state.held_until().or(held_until);
            states.push(state);
            if let SessionState::Lost(why) = state {
                return why;
            }
        }
    })
    .await;
    assert_eq!(lost, LostReason::NoAnswer);
    assert!(states.iter().any(|state| matches!(state, SessionState::Uncertain { .. })), "{states:?}");
    let late = Instant::now() - held_until.expect("it was held");
    assert!(late < Duration::from_millis(5), "{late:?}");
    // The store counts from when it handled the renewal: here it is lost before it is there.
    assert!(get(&*faults.store(), "k").await.is_some());
    assert_eq!(session.lost().await, LostReason::NoAnswer);
    faults.set_link(Link::Up);
    faults.slow(Duration::ZERO, Duration::ZERO);
    sleep(TTL).await;
    assert_eq!(session.state(), SessionState::Lost(LostReason::NoAnswer), "it stays lost");
}

#[tokio::test(start_paused = true)]
async fn a_short_cut_makes_it_uncertain_and_held_again() {
    let (store, faults) = store(3);
    let session = Session::open("the test", store, TTL, &Timing::default()).await.unwrap();
    faults.set_link(Link::Cut);
    sleep(Duration::from_secs(6)).await;
    assert!(matches!(session.state(), SessionState::Uncertain { .. }));
    faults.set_link(Link::Up);
    sleep(Duration::from_secs(1)).await;
    assert!(is_held(session.state()));
    sleep(TTL).await;
    assert!(is_held(session.state()));
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_somebody_ended_is_lost() {
    let (store, _) = store(4);
    let session = Session::open("the test", store.clone(), TTL, &Timing::default()).await.unwrap();
    store.lease_revoke(session.lease()).await.unwrap();
    assert_eq!(soon("the loss", session.lost()).await, LostReason::Ended);
}

#[tokio::test(start_paused = true)]
async fn detaching_leaves_the_lease_and_another_adopts_it() {
    let (store, _) = store(5);
    let timing = Timing::default();
    let session = Session::open("the test", store.clone(), TTL, &timing).await.unwrap();
    let handle = session.handle();
    put(&*store, "k", "v", Some(session.lease())).await;
    let lease = session.detach();
    assert_eq!(soon("the release", handle.lost()).await, LostReason::Released);
    sleep(TTL / 2).await;
    let adopted = Session::adopt("the test", store.clone(), lease, &timing).await.unwrap();
    sleep(TTL * 3).await;
    assert!(is_held(adopted.state()) && get(&*store, "k").await.is_some());
    drop(adopted);
    sleep(TTL * 2).await;
    assert!(get(&*store, "k").await.is_none());
    let gone = Session::adopt("the test", store, lease, &timing).await;
    assert!(matches!(gone, Err(StoreError::LeaseNotFound(id)) if id == lease));
}

#[tokio::test(start_paused = true)]
async fn revoking_removes_the_keys_at_once() {
    let (store, _) = store(6);
    let session = Session::open("the test", store.clone(), TTL, &Timing::default()).await.unwrap();
    put(&*store, "k", "v", Some(session.lease())).await;
    session.revoke().await.unwrap();
    assert!(get(&*store, "k").await.is_none());
}

#[tokio::test(start_paused = true)]
async fn keys_are_handed_over_to_a_lease_of_another_length() {
    let (store, _) = store(7);
    let mut session = Session::open("the test", store.clone(), TTL, &Timing::default()).await.unwrap();
    let old = session.lease();
    put(&*store, "moved", "v", Some(old)).await;
    put(&*store, "forgotten", "v", Some(old)).await;
    let longer = Duration::from_secs(300);
    session
        .hand_over(longer, |lease, granted| {
            let store = store.clone();
            async move {
                assert_eq!(granted, longer);
                put(&*store, "moved", "v", Some(lease)).await;
                Ok::<_, StoreError>(())
            }
        })
        .await
        .unwrap();
    assert_ne!(session.lease(), old);
    assert!(get(&*store, "forgotten").await.is_none(), "the old lease is revoked");
    sleep(longer * 2).await;
    assert_eq!(get(&*store, "moved").await.and_then(|kv| kv.lease), Some(session.lease()));
    session.detach();
    // The last renewal was at most a third of the lease ago.
    sleep(longer / 2).await;
    assert!(get(&*store, "moved").await.is_some(), "nobody renews it, and it is left to run out");
    sleep(longer / 2).await;
    assert!(get(&*store, "moved").await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_hand_over_that_fails_leaves_the_session_as_it_was() {
    let (store, faults) = store(8);
    let mut session = Session::open("the test", store.clone(), TTL, &Timing::default()).await.unwrap();
    let old = session.lease();
    put(&*store, "k", "v", Some(old)).await;
    let failed = session
        .hand_over(TTL * 3, |_, _| async { Err(StoreError::NoSpace("full".to_owned())) })
        .await
        .unwrap_err();
    assert!(matches!(failed, HandOverError::Move { from, .. } if from == old));
    faults.set_link(Link::Cut);
    let failed = session.hand_over(TTL * 3, |_, _| async { Ok::<_, StoreError>(()) }).await.unwrap_err();
    assert!(matches!(failed, HandOverError::Grant { .. }));
    faults.set_link(Link::Up);
    sleep(TTL * 5).await;
    assert!(is_held(session.state()) && session.lease() == old);
    assert!(get(&*store, "k").await.is_some());
}
