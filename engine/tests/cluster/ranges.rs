//! Ranges of instances: placed, split, replaced and destroyed like the units they stand for.

use std::time::Duration;

use flotilla_registry::{
    keys::{Bucket, Key},
    operations::OperationError,
    records::Target,
    store::{RangeRequest, Store as _, faults::Link},
};
use flotilla_units::UnitRange;
use tokio::time::sleep;

use crate::{Cluster, id, unit};

fn webs(from: u64, to: u64) -> UnitRange {
    UnitRange::new(unit("web@.service"), from, to).unwrap()
}

fn web(number: u64) -> String {
    format!("web@{number}.service")
}

impl Cluster {
    async fn order(&self, range: &UnitRange, target: Target, raise_run: bool) {
        self.operations.set_target_in(range, target, raise_run, "test").await.unwrap();
    }

    /// Launches a range, and waits until all of it runs.
    async fn range_running(&mut self, range: &UnitRange, options: &str) {
        self.submit("web@.service", options).await;
        self.order(range, Target::Launched, false).await;
        let range = range.clone();
        self.until("the range runs", move |cluster| {
            range.instances().all(|name| cluster.runs_on(name.as_str()).is_some())
        })
        .await;
    }

    /// Returns the store's keys of a kind.
    async fn stored(&self, kind: &str) -> Vec<String> {
        let all = RangeRequest::all(self.keys.all_of(kind));
        self.store.range(all).await.unwrap().kvs.into_iter().map(|kv| kv.key).collect()
    }

    fn knows(&self, number: u64) -> bool {
        self.checker.state.units().contains_key(&unit(&web(number)))
    }
}

#[tokio::test(start_paused = true)]
async fn a_range_is_placed_as_its_instances_would_be() {
    let mut cluster = Cluster::start(1, 3).await;
    cluster.range_running(&webs(1, 30), "").await;
    for n in 1..=3 {
        assert_eq!(cluster.machine(n).running.lock().unwrap().len(), 10, "on machine {n}");
    }
    assert_eq!(
        cluster.stored("units").await,
        ["/flotilla/units/web@.service"],
        "none has a record of its own"
    );
    assert_eq!(cluster.stored("contents").await.len(), 1, "nor a text");
    let reader = cluster.reader();
    assert_eq!(reader.units(&flotilla_engine::Names::all(), None, 1_000, |_| true).rows.len(), 31);
    assert_eq!(reader.cluster().units, 31);
    let (row, _) = reader.unit(&unit("web@7.service"));
    let row = row.unwrap();
    assert_eq!((row.record.unwrap().target, row.placements.len(), row.problem), (Target::Launched, 1, None));
    assert!(row.hash.is_some(), "its template's");
    assert!(reader.why(&unit("web@7.service")).problem.is_none());
    cluster.pass(Duration::from_secs(30)).await;
    let before = cluster.checker.writes;
    cluster.pass(Duration::from_secs(600)).await;
    assert_eq!(cluster.checker.writes, before, "nothing is written at rest");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_placed_of_a_range_says_why() {
    let mut cluster = Cluster::start(1, 3).await;
    cluster.submit("web@.service", "Conflicts=web@*.service").await;
    let seen = cluster.reader().revision();
    cluster.order(&webs(1, 5), Target::Launched, false).await;
    let runs = |cluster: &Cluster| (1..=5).filter(|n| cluster.runs_on(&web(*n)).is_some()).count();
    cluster.until("one is on each machine", |cluster| runs(cluster) == 3).await;
    cluster.pass(Duration::from_secs(5)).await;
    let waiting = (1..=5).find(|n| cluster.runs_on(&web(*n)).is_none()).unwrap();
    let why = cluster.reader().why(&unit(&web(waiting)));
    assert!(why.explanation.is_unplaceable(), "{}", why.explanation);
    let told = cluster.reader().since(seen).unwrap().units;
    assert!((1..=5).all(|n| told.contains(&unit(&web(n)))), "whoever watches hears of each: {told:?}");
}

#[tokio::test(start_paused = true)]
async fn an_own_record_wins_and_nobody_else_is_touched() {
    let mut cluster = Cluster::start(1, 3).await;
    cluster.range_running(&webs(1, 9), "").await;
    let tokens: Vec<_> = (1..=9).map(|n| cluster.token(&web(n))).collect();
    cluster.target("web@3.service", Target::Inactive, false).await;
    cluster.until("it stopped", |cluster| cluster.runs_on("web@3.service").is_none()).await;
    cluster.operations.destroy(&[unit("web@5.service")], "test").await.unwrap();
    cluster.until("it is gone", |cluster| !cluster.knows(5)).await;
    cluster.order(&webs(7, 8), Target::Launched, true).await;
    let token = |cluster: &Cluster, n: usize| cluster.token(&web(n as u64));
    cluster.until("two are started anew", |cluster| (7..=8).all(|n| token(cluster, n) > tokens[n - 1])).await;
    cluster.pass(Duration::from_secs(60)).await;
    for n in [1, 2, 4, 6, 9] {
        assert_eq!(token(&cluster, n), tokens[n - 1], "web@{n} is not touched");
    }
    assert!(
        cluster.runs_on("web@3.service").is_none() && !cluster.knows(5),
        "the range does not bring it back"
    );
    assert_eq!(
        cluster.stored("ranges").await.len(),
        4,
        "a guard and three parts, one of them without who was destroyed"
    );
}

#[tokio::test(start_paused = true)]
async fn a_new_content_of_the_template_reaches_every_instance() {
    let mut cluster = Cluster::start(1, 2).await;
    cluster.range_running(&webs(1, 6), "").await;
    let before: Vec<_> = (1..=6).map(|n| cluster.token(&web(n))).collect();
    cluster.update("web@.service", "Global=false").await;
    cluster
        .until("all are updated", |cluster| {
            (1..=6).zip(&before).all(|(n, before)| cluster.token(&web(n)) > *before)
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_destroyed_range_goes_with_the_last_of_its_instances() {
    let mut cluster = Cluster::start(1, 1).await;
    cluster.range_running(&webs(1, 9), "").await;
    cluster.machine(1).stubborn.lock().unwrap().push(unit("web@4.service"));
    cluster.operations.destroy_in(&webs(2, 5), "test").await.unwrap();
    cluster
        .until("the others are gone", |cluster| {
            [2, 3, 5].iter().all(|n| cluster.checker.state.placed(&unit(&web(*n))).is_empty())
        })
        .await;
    cluster.pass(Duration::from_secs(30)).await;
    assert!((2..=5).all(|n| cluster.knows(n)), "the name of each is taken");
    let refused = cluster.operations.restart(&[unit("web@2.service")], "test").await;
    assert!(matches!(refused, Err(OperationError::BeingDestroyed(_))), "{refused:?}");
    cluster.machine(1).stubborn.lock().unwrap().clear();
    cluster.order(&webs(9, 9), Target::Launched, true).await;
    cluster.running(&["a.service", "b.service", "c.service", "d.service", "e.service", "f.service"]).await;
    cluster.order(&webs(6, 9), Target::Launched, true).await;
    cluster.until("the range is gone", |cluster| !(2..=5).any(|n| cluster.knows(n))).await;
    assert!(cluster.told("range-destroyed"));
    cluster.order(&webs(1, 9), Target::Launched, false).await;
    cluster.until("the names are free", |cluster| cluster.runs_on("web@2.service").is_some()).await;
    cluster.operations.destroy_in(&webs(1, 9), "test").await.unwrap();
    cluster.operations.destroy(&[unit("web@.service")], "test").await.unwrap();
    cluster
        .until("the template is gone", |cluster| !cluster.checker.state.units().contains_key("web@.service"))
        .await;
    assert_eq!(cluster.stored("ranges").await, Vec::<String>::new(), "and its guard with it");
}

#[tokio::test(start_paused = true)]
async fn a_unit_that_departs_while_its_range_is_replaced_waits_for_proof() {
    let mut cluster = Cluster::start(1, 2).await;
    cluster.range_running(&webs(1, 4), "").await;
    let on = cluster.runs_on("web@2.service").unwrap();
    cluster.machine(on).stubborn.lock().unwrap().push(unit("web@2.service"));
    cluster.order(&webs(1, 4), Target::Inactive, false).await;
    cluster
        .until("it departs", |cluster| cluster.checker.departing(&unit("web@2.service")) == [id(on)])
        .await;
    cluster.order(&webs(2, 3), Target::Launched, true).await;
    cluster.until("the other runs", |cluster| cluster.runs_on("web@3.service").is_some()).await;
    cluster.pass(Duration::from_secs(60)).await;
    assert!(cluster.checker.active(&unit("web@2.service")).is_empty(), "it does not run twice");
    cluster.machine(on).stubborn.lock().unwrap().clear();
    cluster.running(&["a.service", "b.service", "c.service", "d.service", "e.service", "f.service"]).await;
    cluster.order(&webs(3, 3), Target::Launched, true).await;
    cluster.until("it runs again", |cluster| cluster.runs_on("web@2.service").is_some()).await;
    assert!(cluster.runs_on("web@1.service").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_range_destroyed_with_a_machine_away_is_released_by_its_lease() {
    let mut cluster = Cluster::start(1, 3).await;
    cluster.range_running(&webs(1, 6), "").await;
    let on = cluster.runs_on("web@1.service").unwrap();
    cluster.link(on).set_link(Link::Cut);
    cluster.operations.destroy_in(&webs(1, 6), "test").await.unwrap();
    cluster.pass(Duration::from_secs(3)).await;
    assert!(cluster.knows(1), "its machine's lease has not ended");
    cluster.until("the lease ended", |cluster| !cluster.knows(1)).await;
    assert!(cluster.machine(on).runs(&unit("web@1.service")), "cut off, it runs on");
    assert_eq!(cluster.checker.departing(&unit("web@1.service")), [id(on)]);
    // The name is free, and what is left of it is in nobody's way.
    cluster.order(&webs(1, 6), Target::Launched, false).await;
    cluster
        .until("it runs elsewhere", |cluster| cluster.runs_on("web@1.service").is_some_and(|now| now != on))
        .await;
    cluster.link(on).set_link(Link::Up);
    cluster
        .until("the old one stopped", |cluster| cluster.checker.departing(&unit("web@1.service")).is_empty())
        .await;
    assert!(!cluster.machine(on).runs(&unit("web@1.service")));
}

#[tokio::test(start_paused = true)]
async fn a_split_while_a_manifest_cannot_be_read_starts_nothing_twice() {
    let mut cluster = Cluster::start(1, 2).await;
    cluster.range_running(&webs(1, 4), "").await;
    let on = cluster.runs_on("web@2.service").unwrap();
    let key = Key::Manifest(id(on), Bucket::of(&unit("web@2.service")));
    let good = cluster.value(&key).await;
    // A vandal's doing: the checker is not asked from here on.
    cluster.put(&key, b"garbage".to_vec()).await;
    sleep(Duration::from_secs(1)).await;
    // What speaks for both is now younger than what hides them.
    cluster.order(&webs(2, 2), Target::Launched, true).await;
    cluster.operations.set_target(&[unit("web@2.service")], Target::Launched, true, "test").await.unwrap();
    cluster.order(&webs(3, 4), Target::Launched, true).await;
    sleep(Duration::from_secs(30)).await;
    let reader = cluster.reader();
    let (row, _) = reader.unit(&unit("web@2.service"));
    assert!(row.unwrap().placements.is_empty(), "it is not placed a second time");
    let why = reader.why(&unit("web@2.service"));
    assert!(why.problem.as_ref().is_some_and(|why| why.contains("manifest cannot be read")), "{why:?}");
    cluster.put(&key, good).await;
    sleep(Duration::from_secs(5)).await;
    let (row, _) = reader.unit(&unit("web@2.service"));
    assert_eq!(row.unwrap().placements[0].machine, id(on));
}

#[tokio::test(start_paused = true)]
async fn another_leader_goes_on_with_a_range_that_is_being_destroyed() {
    let mut cluster = Cluster::start(2, 3).await;
    cluster.range_running(&webs(1, 40), "").await;
    cluster.operations.destroy_in(&webs(1, 40), "test").await.unwrap();
    let leader = cluster.leader().unwrap();
    cluster.host(leader).faults.set_link(Link::Cut);
    cluster.until("all are gone", |cluster| !(1..=40).any(|n| cluster.knows(n))).await;
    assert!((1..=3).all(|n| cluster.machine(n).running.lock().unwrap().is_empty()));
}
