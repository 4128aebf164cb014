use std::{sync::Arc, time::Duration};

use flotilla_registry::{
    election::KeyLost,
    keys::Keys,
    reads::Registry,
    records::SeatRecord,
    seats::{Seat, SeatSeeker},
    session::LostReason,
    store::{Store, faults::Link},
    timing::Timing,
};
use flotilla_units::MachineId;
use tokio::time::{Instant, sleep, timeout};

use super::{beside, kept, soon, store};

fn seeker(store: &Arc<dyn Store>, number: u8) -> SeatSeeker {
    of_boot(store, number, "first")
}

fn of_boot(store: &Arc<dyn Store>, number: u8, boot_id: &str) -> SeatSeeker {
    let machine: MachineId = format!("{number:032x}").parse().expect("a machine id");
    let record = SeatRecord {
        v: 1,
        machine,
        boot_id: boot_id.to_owned(),
        api: Some(format!("https://10.0.0.{number}:7400")),
    };
    SeatSeeker::new(store.clone(), Keys::default(), record, Timing::default())
}

async fn take(seeker: &SeatSeeker) -> Seat {
    soon("a seat", seeker.take()).await.expect("a seat")
}

async fn taken(store: &Arc<dyn Store>) -> Vec<u8> {
    let registry = Registry::new(store.clone(), Keys::default());
    registry.seats().await.expect("readable").found.into_keys().collect()
}

#[tokio::test(start_paused = true)]
async fn three_engines_have_seats_and_the_fourth_waits_by_a_watch() {
    let (store, faults) = store(1);
    let mut seats = Vec::new();
    for number in 1..=3 {
        seats.push(take(&seeker(&store, number)).await);
    }
    assert_eq!(seats.iter().map(Seat::number).collect::<Vec<_>>(), [0, 1, 2]);
    let (own, own_faults) = beside(&faults, 2);
    let fourth = seeker(&own, 4);
    let waiting = tokio::spawn(async move { fourth.take().await });
    sleep(Duration::from_secs(1)).await;
    let calls = own_faults.calls();
    sleep(Duration::from_secs(300)).await;
    assert_eq!(own_faults.calls(), calls);
    assert!(!waiting.is_finished());
    seats.remove(1).leave().await.unwrap();
    let seat = soon("the free seat", waiting).await.unwrap().unwrap();
    assert_eq!(seat.number(), 1);
    assert_eq!(taken(&store).await, [0, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_machine_takes_its_old_seat_over_and_never_a_second_one() {
    let (store, _) = store(3);
    let old = take(&seeker(&store, 1)).await;
    let again = seeker(&store, 1);
    let before = Instant::now();
    let new = take(&again).await;
    assert!(before.elapsed() < Duration::from_millis(100));
    assert_eq!((new.number(), taken(&store).await), (0, vec![0]));
    assert_eq!(soon("the loss", old.lost()).await, KeyLost::Taken);
    // Leaving late does not take the seat from the one who has it.
    old.leave().await.unwrap();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(taken(&store).await, [0]);
    // The same seeker once more: it has a seat already, so it waits until that one is left.
    let second = tokio::spawn(async move { again.take().await });
    sleep(Duration::from_secs(60)).await;
    assert!(!second.is_finished());
    assert_eq!(taken(&store).await, [0]);
    new.leave().await.unwrap();
    soon("the seat", second).await.unwrap().unwrap();
    assert_eq!(taken(&store).await, [0]);
}

#[tokio::test(start_paused = true)]
async fn a_second_machine_of_one_id_takes_no_seat_from_the_first() {
    let (store, _) = store(6);
    let seat = take(&of_boot(&store, 1, "first")).await;
    for _ in 0..5 {
        // As its flotillad does, which ends when it is refused and is started again.
        let twin = of_boot(&store, 1, "second");
        assert!(timeout(Duration::from_secs(10), twin.take()).await.is_err(), "the twin has a seat");
    }
    assert!(timeout(Duration::from_secs(1), seat.lost()).await.is_err(), "the seat was taken");
    assert_eq!(taken(&store).await, [0]);
}

#[tokio::test(start_paused = true)]
async fn the_seat_of_a_cut_off_engine_is_free_after_its_lease() {
    let (store, faults) = store(4);
    let (own, own_faults) = beside(&faults, 5);
    let lost = take(&seeker(&own, 1)).await;
    let _second = take(&seeker(&store, 2)).await;
    let _third = take(&seeker(&store, 3)).await;
    own_faults.set_link(Link::Cut);
    let before = Instant::now();
    let seat = take(&seeker(&store, 4)).await;
    assert_eq!(seat.number(), 0);
    assert!(before.elapsed() <= Duration::from_secs(11), "{:?}", before.elapsed());
    assert_eq!(soon("the loss", lost.lost()).await, KeyLost::Session(LostReason::NoAnswer));
}

#[tokio::test(start_paused = true)]
async fn a_seat_that_outlived_its_session_is_taken_over_at_once() {
    let (store, faults) = store(7);
    let seeker = seeker(&store, 1);
    let seat = take(&seeker).await;
    faults.set_link(Link::Cut);
    // A store that was away and comes back gives what was there its whole time again.
    kept(&faults, "/flotilla/engine/seats/0", async {
        assert_eq!(soon("the loss", seat.lost()).await, KeyLost::Session(LostReason::NoAnswer));
    })
    .await;
    faults.set_link(Link::Up);
    let before = Instant::now();
    assert_eq!(take(&seeker).await.number(), 0);
    assert!(before.elapsed() < Duration::from_millis(100), "{:?}", before.elapsed());
    // Nothing is left of the old one.
    assert_eq!(soon("the loss", seat.lost()).await, KeyLost::Session(LostReason::NoAnswer));
    assert_eq!(taken(&store).await, [0]);
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_to_a_claim_is_resolved_by_reading() {
    let (store, faults) = store(6);
    faults.lose_replies(1);
    let seat = take(&seeker(&store, 1)).await;
    assert_eq!((seat.number(), taken(&store).await), (0, vec![0]));
    sleep(Duration::from_secs(60)).await;
    assert_eq!(taken(&store).await, [0], "it is kept alive");
}
