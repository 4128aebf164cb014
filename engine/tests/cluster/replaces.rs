//! `Replaces=`: one unit comes, the other leaves for it, in two phases.

use std::time::Duration;

use flotilla_registry::{
    records::{Departure, MachineSettings, Target, VERSION},
    store::faults::Link,
};

use crate::{Cluster, id, unit};

/// Two machines, `old.service` on one of them, stubborn if asked, and `new.service` launched to push
/// it off.
async fn pushed(engines: usize, stubborn: bool) -> (Cluster, usize) {
    let mut cluster = Cluster::start(engines, 2).await;
    cluster.running(&["old.service"]).await;
    let on = cluster.runs_on("old.service").unwrap();
    if stubborn {
        cluster.machine(on).stubborn.lock().unwrap().push(unit("old.service"));
    }
    let mut settings = MachineSettings { v: VERSION, ..MachineSettings::default() };
    settings.metadata.insert("zone".to_owned(), Some("a".to_owned()));
    cluster.settings(on, &settings).await;
    cluster.launch("new.service", "Replaces=old.service\nMachineMetadata=zone=a").await;
    cluster.until("the new one runs", |cluster| cluster.runs_on("new.service") == Some(on)).await;
    (cluster, on)
}

fn leaves(cluster: &Cluster, on: usize) -> bool {
    let old = unit("old.service");
    let placed = cluster.checker.state.placed(&old);
    placed.len() == 1 && placed[0].machine == id(on) && placed[0].entry.departing == Some(Departure::Replaced)
}

#[tokio::test(start_paused = true)]
async fn what_is_replaced_runs_elsewhere_when_it_is_proven_gone_however_long_that_takes() {
    let (mut cluster, on) = pushed(1, true).await;
    let before = cluster.token("new.service");
    cluster.until("the old one leaves for it", |cluster| leaves(cluster, on)).await;
    cluster.pass(Duration::from_secs(600)).await;
    assert!(leaves(&cluster, on), "it runs there still, so it is placed nowhere else");
    cluster.machine(on).stubborn.lock().unwrap().clear();
    // Something makes the agent look again.
    cluster.launch("other.service", &format!("MachineID={}", id(on))).await;
    cluster
        .until("the old one runs elsewhere", |cluster| cluster.runs_on("old.service") == Some(3 - on))
        .await;
    assert!(!cluster.machine(on).runs(&unit("old.service")));
    assert!(cluster.checker.departing(&unit("old.service")).is_empty());
    cluster.pass(Duration::from_secs(30)).await;
    assert_eq!(cluster.runs_on("old.service"), Some(3 - on), "it does not come back");
    assert_eq!((cluster.runs_on("new.service"), cluster.token("new.service")), (Some(on), before));
}

#[tokio::test(start_paused = true)]
async fn a_replacement_survives_its_leader_and_a_machine_cut_off() {
    let (mut cluster, on) = pushed(2, true).await;
    cluster.until("the old one leaves for it", |cluster| leaves(cluster, on)).await;
    cluster.link(on).set_link(Link::Cut);
    let cut = tokio::time::Instant::now();
    let leader = cluster.leader().unwrap();
    cluster.stop_engine(leader).await;
    cluster
        .until("the old one runs elsewhere", |cluster| cluster.runs_on("old.service") == Some(3 - on))
        .await;
    // Its last renewal was at most 3.67 s before the cut, so its lease ended no earlier than this.
    assert!(cut.elapsed() >= Duration::from_secs(6), "{:?}", cut.elapsed());
    cluster.machine(on).stubborn.lock().unwrap().clear();
    cluster.link(on).set_link(Link::Up);
    cluster.until("only the newest runs", |cluster| !cluster.machine(on).runs(&unit("old.service"))).await;
    cluster
        .until("it is dropped", |cluster| cluster.checker.departing(&unit("old.service")).is_empty())
        .await;
    assert_eq!(cluster.runs_on("old.service"), Some(3 - on));
    assert_eq!(cluster.runs_on("new.service"), Some(on));
}

#[tokio::test(start_paused = true)]
async fn what_is_replaced_and_has_no_other_machine_waits_and_comes_back() {
    let mut cluster = Cluster::start(1, 1).await;
    cluster.running(&["old.service"]).await;
    cluster.launch("new.service", "Replaces=old*.service").await;
    cluster
        .until("it is replaced", |cluster| cluster.checker.state.placed(&unit("old.service")).is_empty())
        .await;
    assert_eq!(cluster.runs_on("new.service"), Some(1));
    let why = cluster.reader().why(&unit("old.service")).explanation;
    assert_eq!(why.to_string(), "old.service cannot be placed: 1 machine: replaced by new.service");
    cluster.target("new.service", Target::Inactive, false).await;
    cluster.until("it is back", |cluster| cluster.runs_on("old.service") == Some(1)).await;
}
