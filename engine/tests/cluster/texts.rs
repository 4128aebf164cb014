//! Texts that no unit has any more are collected after an hour, with what is written anyway.

use std::time::Duration;

use flotilla_registry::{
    keys::Key,
    records::{Rollout, Target},
};
use flotilla_units::{ContentHash, UnitRange};

use crate::{Cluster, service, unit};

const HOUR: Duration = Duration::from_secs(3_600);

fn hash(options: &str) -> ContentHash {
    ContentHash::of(service(options).as_bytes())
}

impl Cluster {
    fn has(&self, options: &str) -> bool {
        self.checker.state.content(&hash(options)).is_some()
    }

    /// Has the leader write something, and goes on until it is through with it.
    async fn work(&mut self, name: &str) {
        self.launch(name, &format!("# of {name}")).await;
        self.until("there was work", |cluster| cluster.runs_on(name).is_some()).await;
        self.pass(Duration::from_secs(2)).await;
    }

    /// Gives a unit a text and has it destroyed again.
    async fn leave_behind(&mut self, name: &str, options: &str) {
        self.submit(name, options).await;
        self.operations.destroy(&[unit(name)], "test").await.unwrap();
        self.until("it is destroyed", |cluster| !cluster.checker.state.units().contains_key(&unit(name)))
            .await;
        assert!(self.has(options), "it is not collected at once");
    }
}

#[tokio::test(start_paused = true)]
async fn a_text_that_nobody_has_goes_after_an_hour_with_later_work_and_at_rest_nothing_does() {
    let mut cluster = Cluster::start(1, 1).await;
    cluster.running(&["a.service"]).await;
    cluster.leave_behind("old.service", "# old").await;
    cluster.pass(HOUR - Duration::from_secs(120)).await;
    cluster.work("b.service").await;
    assert!(cluster.has("# old"), "an hour has not passed");
    let before = cluster.checker.writes;
    cluster.pass(2 * HOUR).await;
    assert_eq!(cluster.checker.writes, before, "at rest nothing is written");
    assert!(cluster.has("# old"));
    // What comes back in between counts from then on.
    cluster.submit("back.service", "# old").await;
    cluster.leave_behind("back.service", "# old").await;
    cluster.work("c.service").await;
    assert!(cluster.has("# old"));
    cluster.pass(HOUR).await;
    let before = cluster.checker.writes;
    cluster.work("d.service").await;
    assert!(!cluster.has("# old"));
    assert!(cluster.checker.writes > before);
    for name in ["a", "b", "c", "d"] {
        assert!(cluster.runs_on(&format!("{name}.service")).is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_leads_next_counts_the_hour_anew() {
    let mut cluster = Cluster::start(2, 1).await;
    cluster.leave_behind("old.service", "# old").await;
    cluster.pass(HOUR - Duration::from_secs(60)).await;
    let first = cluster.leader().unwrap();
    cluster.stop_engine(first).await;
    cluster.until("another leads", |cluster| cluster.leader() == Some(1 - first)).await;
    cluster.pass(Duration::from_secs(120)).await;
    cluster.work("b.service").await;
    assert!(cluster.has("# old"));
    cluster.pass(HOUR).await;
    cluster.work("c.service").await;
    assert!(!cluster.has("# old"));
}

#[tokio::test(start_paused = true)]
async fn what_records_and_entries_have_stays() {
    let mut cluster = Cluster::start(1, 2).await;
    cluster.submit("only@.service", "# only").await;
    cluster.submit("web@.service", "# first").await;
    let range = UnitRange::new(unit("web@.service"), 1, 2).unwrap();
    cluster.operations.set_target_in(&range, Target::Launched, false, "test").await.unwrap();
    cluster.until("both run", |cluster| cluster.runs_on("web@1.service").is_some()).await;
    cluster.until("both run", |cluster| cluster.runs_on("web@2.service").is_some()).await;
    // What runs keeps the first text until its next start, and it is in no record any more.
    let second = service("# second").replace("/bin/true", "/bin/false");
    let second = cluster.replace("web@.service", &second, Rollout::NextStart).await;
    // One that leaves a machine that never proves it gone.
    cluster.launch("lost.service", "# lost").await;
    cluster.until("it runs", |cluster| cluster.runs_on("lost.service").is_some()).await;
    let on = cluster.runs_on("lost.service").unwrap();
    cluster.machine(on).kill();
    cluster.until("it moved", |cluster| cluster.runs_on("lost.service").is_some_and(|now| now != on)).await;
    cluster.operations.destroy(&[unit("lost.service")], "test").await.unwrap();
    cluster
        .until("it is destroyed", |cluster| {
            !cluster.checker.state.units().contains_key(&unit("lost.service"))
        })
        .await;
    assert!(!cluster.checker.departing(&unit("lost.service")).is_empty(), "the order to leave stays");
    for name in ["b.service", "c.service"] {
        cluster.pass(2 * HOUR).await;
        cluster.work(name).await;
        for options in ["# only", "# first", "# lost"] {
            assert!(cluster.has(options), "{options}");
        }
        assert!(cluster.checker.state.content(&second).is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn while_a_record_cannot_be_read_nothing_is_collected() {
    let mut cluster = Cluster::start(1, 1).await;
    cluster.leave_behind("old.service", "# old").await;
    cluster.put(&Key::Unit(unit("newer.service")), b"{\"v\":7}".to_vec()).await;
    cluster.pass(2 * HOUR).await;
    cluster.work("b.service").await;
    assert!(cluster.has("# old"));
    cluster.delete(&Key::Unit(unit("newer.service"))).await;
    cluster.work("c.service").await;
    assert!(!cluster.has("# old"));
}
