//! Placement, updates, destruction, rest.

use std::time::Duration;

use flotilla_registry::{
    keys::Key,
    records::{MachineSettings, Record as _, Target, UnitRecord, VERSION},
};

use crate::{Cluster, id, unit};

#[tokio::test(start_paused = true)]
async fn units_are_spread_and_started() {
    let mut cluster = Cluster::start(1, 3).await;
    let names: Vec<String> = (0..9).map(|n| format!("u{n}.service")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    cluster.running(&names).await;
    for n in 1..=3 {
        assert_eq!(cluster.machine(n).running.lock().unwrap().len(), 3, "on machine {n}");
    }
    assert!(cluster.told("placed"));
}

#[tokio::test(start_paused = true)]
async fn the_first_change_goes_at_once_and_later_ones_of_its_bucket_together() {
    let mut cluster = Cluster::start(1, 1).await;
    // Leads, but has no tokens yet: the first placement pays for the block.
    cluster.running(&["first.service"]).await;
    cluster.pass(Duration::from_secs(1)).await;
    cluster.submit("a.service", "").await;
    cluster.target("a.service", Target::Launched, true).await;
    let took = cluster.until("it runs", |cluster| cluster.runs_on("a.service").is_some()).await;
    assert!(took <= Duration::from_millis(40), "{took:?}");
    cluster.target("a.service", Target::Launched, true).await;
    let before = cluster.token("a.service");
    let took = cluster.until("it got another token", |cluster| cluster.token("a.service") > before).await;
    assert!(took >= Duration::from_millis(40) && took <= Duration::from_millis(140), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_restart_and_an_update_get_a_new_token_in_place() {
    let mut cluster = Cluster::start(1, 2).await;
    cluster.running(&["web.service"]).await;
    let (on, first) = (cluster.runs_on("web.service"), cluster.token("web.service"));
    cluster.operations.restart(&[unit("web.service")], "test").await.unwrap();
    cluster.until("it is restarted", |cluster| cluster.token("web.service") > first).await;
    let second = cluster.token("web.service");
    cluster.update("web.service", "Global=false").await;
    cluster.until("it is updated", |cluster| cluster.token("web.service") > second).await;
    let third = cluster.token("web.service");
    cluster.target("web.service", Target::Loaded, false).await;
    cluster.pass(Duration::from_secs(1)).await;
    let name = unit("web.service");
    let placed = cluster.checker.state.placed(&name);
    assert_eq!((placed.len(), placed[0].entry.target), (1, Target::Loaded));
    assert_eq!(cluster.token("web.service"), third, "another target is no other start");
    assert_eq!(cluster.runs_on("web.service"), on, "it stayed where it was");
}

#[tokio::test(start_paused = true)]
async fn unloading_and_destroying_wait_for_proof() {
    let mut cluster = Cluster::start(1, 1).await;
    cluster.running(&["a.service", "b.service"]).await;
    cluster.machine(1).stubborn.lock().unwrap().extend([unit("a.service"), unit("b.service")]);
    cluster.target("a.service", Target::Inactive, false).await;
    cluster.operations.destroy(&[unit("b.service")], "test").await.unwrap();
    cluster.pass(Duration::from_secs(30)).await;
    for name in ["a.service", "b.service"] {
        assert_eq!(cluster.checker.departing(&unit(name)), [id(1)], "{name} still runs");
        assert!(cluster.checker.state.units().contains_key(&unit(name)));
    }
    cluster.machine(1).stubborn.lock().unwrap().clear();
    // Something makes the agent look again.
    cluster.launch("c.service", "").await;
    cluster.target("a.service", Target::Inactive, true).await;
    cluster.running(&["d.service", "e.service", "f.service", "g.service", "h.service"]).await;
    cluster
        .until("both are gone", |cluster| {
            let gone = |name: &str| cluster.checker.state.placed(&unit(name)).is_empty();
            gone("a.service") && gone("b.service")
        })
        .await;
    cluster
        .until("the record is gone", |cluster| {
            !cluster.checker.state.units().contains_key(&unit("b.service"))
        })
        .await;
    assert!(cluster.checker.state.units().contains_key(&unit("a.service")), "only unloaded");
    assert!(cluster.told("destroyed"));
}

#[tokio::test(start_paused = true)]
async fn global_units_follow_the_machines() {
    let mut cluster = Cluster::start(1, 2).await;
    cluster.submit("agent.service", "Global=true").await;
    cluster.target("agent.service", Target::Launched, true).await;
    let everywhere = |machines: usize| {
        move |cluster: &Cluster| (1..=machines).all(|n| cluster.machine(n).runs(&unit("agent.service")))
    };
    cluster.until("it is on both", everywhere(2)).await;
    cluster.boot(3, &[]);
    cluster.until("it is on the third", everywhere(3)).await;
    cluster.operations.destroy(&[unit("agent.service")], "test").await.unwrap();
    cluster
        .until("it is gone", |cluster| !cluster.checker.state.units().contains_key(&unit("agent.service")))
        .await;
    assert!((1..=3).all(|n| !cluster.machine(n).runs(&unit("agent.service"))));
}

#[tokio::test(start_paused = true)]
async fn a_drained_machine_is_emptied_and_a_cordoned_one_gets_nothing_new() {
    let mut cluster = Cluster::start(1, 2).await;
    cluster.running(&["a.service", "b.service", "c.service", "d.service"]).await;
    let mut settings = MachineSettings { v: VERSION, draining: true, ..MachineSettings::default() };
    cluster.settings(1, &settings).await;
    cluster
        .until("the first is empty", |cluster| {
            ["a.service", "b.service", "c.service", "d.service"]
                .iter()
                .all(|name| cluster.runs_on(name) == Some(2))
                && cluster.machine(1).running.lock().unwrap().is_empty()
        })
        .await;
    (settings.draining, settings.cordoned) = (false, true);
    cluster.settings(1, &settings).await;
    cluster.running(&["e.service"]).await;
    assert_eq!(cluster.runs_on("e.service"), Some(2));
    let why = cluster.reader().why(&unit("e.service"));
    assert_eq!(why.closed, [(id(1), "it is cordoned".to_owned())]);
}

#[tokio::test(start_paused = true)]
async fn metadata_set_while_it_runs_moves_units() {
    let mut cluster = Cluster::start(1, 2).await;
    let mut settings = MachineSettings { v: VERSION, ..MachineSettings::default() };
    settings.metadata.insert("zone".to_owned(), Some("a".to_owned()));
    cluster.settings(1, &settings).await;
    cluster.launch("web.service", "MachineMetadata=zone=a").await;
    cluster.until("it runs", |cluster| cluster.runs_on("web.service") == Some(1)).await;
    cluster.settings(2, &settings).await;
    cluster.settings(1, &MachineSettings { v: VERSION, ..MachineSettings::default() }).await;
    cluster.until("it moved", |cluster| cluster.runs_on("web.service") == Some(2)).await;
    assert!(!cluster.machine(1).runs(&unit("web.service")));
    assert!(cluster.checker.departing(&unit("web.service")).is_empty());
}

#[tokio::test(start_paused = true)]
async fn at_rest_nothing_is_written_for_ten_minutes() {
    let mut cluster = Cluster::start(3, 3).await;
    cluster.running(&["a.service", "b.service", "c.service"]).await;
    cluster.launch("nowhere.service", "MachineMetadata=zone=none").await;
    cluster.pass(Duration::from_secs(30)).await;
    let before = cluster.checker.writes;
    cluster.pass(Duration::from_secs(600)).await;
    assert_eq!(cluster.checker.writes, before);
    let why = cluster.reader().why(&unit("nowhere.service"));
    assert!(why.explanation.is_unplaceable(), "{}", why.explanation);
}

#[tokio::test(start_paused = true)]
async fn a_template_outlives_an_instance_made_while_it_was_being_destroyed() {
    let mut cluster = Cluster::start(1, 2).await;
    cluster.submit("web@.service", "").await;
    cluster.target("web@5.service", Target::Launched, true).await;
    // The order to destroy the template saw no instance yet, and was written after this one was made.
    let template = Key::Unit(unit("web@.service"));
    let mut record = UnitRecord::decode("", &cluster.value(&template).await).unwrap();
    record.deleting = true;
    cluster.put(&template, record.encode()).await;
    cluster.until("the instance runs", |cluster| cluster.runs_on("web@5.service").is_some()).await;
    cluster.pass(Duration::from_secs(5)).await;
    let (row, _) = cluster.reader().unit(&unit("web@5.service"));
    assert_eq!(row.unwrap().problem, None);
    let another =
        cluster.operations.set_target(&[unit("web@6.service")], Target::Launched, true, "test").await;
    assert!(another.is_err(), "no new one is made");
    cluster.operations.destroy(&[unit("web@5.service")], "test").await.unwrap();
    cluster.until("both are gone", |cluster| cluster.checker.state.units().is_empty()).await;
}
