//! New texts on their way to what runs: in place, without a restart where nothing changes, one after the
//! other, and halted where they do no good.

use std::time::Duration;

use flotilla_registry::{
    operations::{NewText, UnitOrder, Word},
    records::{MachineSettings, Rollout, Target},
};
use flotilla_units::ContentHash;

use crate::{Cluster, unit};

const TEMPLATE: &str = "web@.service";

fn text(start: &str, options: &str) -> String {
    format!("[Service]\nExecStart=/bin/{start}\n[X-Flotilla]\n{options}\n")
}

fn webs(count: u64) -> Vec<String> {
    (1..=count).map(|n| format!("web@{n}.service")).collect()
}

impl Cluster {
    pub(crate) async fn replace(&self, name: &str, text: &str, rollout: Rollout) -> ContentHash {
        let new = NewText { rollout, ..NewText::replacing(text) };
        self.operations.write(&[(unit(name), UnitOrder::submit(new))], true, "test").await.unwrap();
        ContentHash::of(text.as_bytes())
    }

    /// Starts instances of the template.
    async fn instances(&mut self, count: u64, text: &str) -> Vec<String> {
        self.replace(TEMPLATE, text, Rollout::OneByOne).await;
        let names = webs(count);
        for name in &names {
            self.target(name, Target::Launched, true).await;
        }
        let all = names.clone();
        self.until("the instances run", move |it| all.iter().all(|name| it.runs_on(name).is_some())).await;
        names
    }

    /// Makes starts take this long; what runs already has started long ago.
    async fn starts_take(&mut self, takes: Duration) {
        self.pass(Duration::from_secs(2)).await;
        self.machines.values().for_each(|(machine, _)| machine.starts.lock().unwrap().takes = takes);
    }

    fn spoil(&self, hash: ContentHash) {
        self.machines.values().for_each(|(machine, _)| machine.starts.lock().unwrap().bad.push(hash));
    }

    /// Returns how many of these have a text, as their manifests say.
    fn have(&self, names: &[String], hash: ContentHash) -> usize {
        let has = |name: &&String| {
            let name = unit(name);
            let placed = self.checker.state.placed(&name);
            placed.iter().any(|it| it.entry.departing.is_none() && it.entry.hash == hash)
        };
        names.iter().filter(has).count()
    }

    fn places(&self, names: &[String]) -> Vec<(Option<usize>, Option<i64>)> {
        names.iter().map(|name| (self.runs_on(name), self.token(name))).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn instances_follow_their_template_one_at_a_time_where_they_are() {
    let mut cluster = Cluster::start(1, 3).await;
    let names = cluster.instances(6, &text("one", "")).await;
    let before = cluster.places(&names);
    cluster.starts_take(Duration::from_millis(700)).await;
    let two = cluster.replace(TEMPLATE, &text("two", ""), Rollout::OneByOne).await;
    for count in 1..=6 {
        // The checker holds that the one before it is ready.
        cluster.until("one more has it", |it| it.have(&names, two) == count).await;
    }
    cluster.until("all run", |it| names.iter().all(|name| it.runs_on(name).is_some())).await;
    assert_eq!(cluster.checker.updates, 6);
    let after = cluster.places(&names);
    for ((on, token), (still_on, newer)) in before.iter().zip(&after) {
        assert!(on == still_on && newer > token, "{before:?} {after:?}");
    }
    assert!(cluster.checker.state.rollout(&unit(TEMPLATE)).is_none());
    // The same text again: nothing at all.
    let writes = cluster.checker.writes;
    cluster.replace(TEMPLATE, &text("two", ""), Rollout::OneByOne).await;
    cluster.pass(Duration::from_secs(3)).await;
    assert_eq!((cluster.checker.writes, cluster.places(&names)), (writes, after));
}

#[tokio::test(start_paused = true)]
async fn what_runs_alike_is_not_started_anew_and_all_have_it_at_once() {
    let mut cluster = Cluster::start(1, 3).await;
    let names = cluster.instances(6, &text("one", "")).await;
    let before = cluster.places(&names);
    let quiet = format!("# said\n{}[Install]\nWantedBy=multi-user.target\n", text("one", ""));
    let two = cluster.replace(TEMPLATE, &quiet, Rollout::NextStart).await;
    let took = cluster.until("all have it", |it| it.have(&names, two) == 6).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    cluster.pass(Duration::from_secs(5)).await;
    assert_eq!((cluster.places(&names), cluster.checker.updates), (before, 0));
}

#[tokio::test(start_paused = true)]
async fn a_text_that_asks_for_other_machines_moves_instances_one_at_a_time() {
    let mut cluster = Cluster::start(1, 1).await;
    cluster.boot(2, &[("zone", "b")]);
    cluster.boot(3, &[("zone", "b")]);
    let names = cluster.instances(4, &text("one", "")).await;
    cluster.starts_take(Duration::from_millis(700)).await;
    let moving = cluster.places(&names).iter().filter(|(on, _)| *on == Some(1)).count();
    assert!(moving > 0);
    let two = cluster.replace(TEMPLATE, &text("one", "MachineMetadata=zone=b"), Rollout::OneByOne).await;
    cluster
        .until("all are there", |it| {
            let here = names.iter().filter(|name| it.runs_on(name).is_some_and(|on| on != 1)).count();
            // At most one is down, or on its way.
            let up = names.iter().filter(|name| it.runs_on(name).is_some()).count();
            assert!(up + 1 >= names.len(), "{up} run");
            here == names.len() && it.have(&names, two) == names.len()
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_taken_down_for_a_text_that_no_machine_can_have() {
    let mut cluster = Cluster::start(1, 2).await;
    let names = cluster.instances(3, &text("one", "")).await;
    let before = cluster.places(&names);
    let two = cluster.replace(TEMPLATE, &text("two", "MachineMetadata=zone=b"), Rollout::OneByOne).await;
    cluster.until("it is told", |it| it.told("rollout-halted")).await;
    cluster.pass(Duration::from_secs(20)).await;
    assert_eq!((cluster.places(&names), cluster.times_told("rollout-halted")), (before, 1));
    cluster.boot(3, &[("zone", "b")]);
    cluster.until("all are there", |it| it.have(&names, two) == 3).await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_instance_halts_the_rollout_until_the_template_changes_again() {
    let mut cluster = Cluster::start(1, 3).await;
    let names = cluster.instances(4, &text("one", "")).await;
    let bad = ContentHash::of(text("bad", "").as_bytes());
    cluster.spoil(bad);
    cluster.replace(TEMPLATE, &text("bad", ""), Rollout::OneByOne).await;
    cluster.until("it is told", |it| it.told("rollout-halted")).await;
    cluster.pass(Duration::from_secs(40)).await;
    assert_eq!((cluster.have(&names, bad), cluster.times_told("rollout-halted")), (1, 1));
    let rollout = cluster.checker.state.rollout(&unit(TEMPLATE)).unwrap();
    assert_eq!((rollout.updated, rollout.behind.len(), rollout.in_flight.len()), (0, 3, 1));
    assert!(rollout.halted().unwrap().contains("web@1.service"), "{rollout}");
    let good = cluster.replace(TEMPLATE, &text("good", ""), Rollout::OneByOne).await;
    cluster.until("all have it", |it| it.have(&names, good) == 4).await;
    cluster.until("all run", |it| names.iter().all(|name| it.runs_on(name).is_some())).await;
}

#[tokio::test(start_paused = true)]
async fn without_a_restart_a_text_waits_for_the_next_start() {
    let mut cluster = Cluster::start(1, 3).await;
    let names = cluster.instances(3, &text("one", "")).await;
    let before = cluster.places(&names);
    let two = cluster.replace(TEMPLATE, &text("two", ""), Rollout::NextStart).await;
    cluster.pass(Duration::from_secs(10)).await;
    assert_eq!((cluster.places(&names), cluster.have(&names, two)), (before, 0));
    cluster.operations.restart(&[unit(&names[1])], "test").await.unwrap();
    cluster.until("one has it", |it| it.have(&names, two) == 1 && it.runs_on(&names[1]).is_some()).await;
    cluster.pass(Duration::from_secs(5)).await;
    assert_eq!(cluster.have(&names, two), 1);
    cluster.replace(TEMPLATE, &text("two", ""), Rollout::OneByOne).await;
    cluster.until("all have it", |it| it.have(&names, two) == 3).await;
}

#[tokio::test(start_paused = true)]
async fn a_rollout_goes_on_over_the_loss_of_leaders_and_machines() {
    let mut cluster = Cluster::start(3, 4).await;
    let names = cluster.instances(8, &text("one", "")).await;
    cluster.starts_take(Duration::from_millis(500)).await;
    let two = cluster.replace(TEMPLATE, &text("two", ""), Rollout::OneByOne).await;
    cluster.until("it has begun", |it| it.have(&names, two) == 2).await;
    let leader = cluster.leader().unwrap();
    cluster.host(leader).faults.set_link(flotilla_registry::store::faults::Link::Cut);
    cluster.until("it goes on", |it| it.have(&names, two) >= 4).await;
    let on = cluster.runs_on(&names[7]).unwrap();
    cluster.machine(on).kill();
    cluster.until("all have it", |it| it.have(&names, two) == 8).await;
    cluster.until("all run", |it| names.iter().all(|name| it.runs_on(name).is_some())).await;
}

#[tokio::test(start_paused = true)]
async fn a_global_unit_is_updated_machine_by_machine_and_a_lone_one_where_it_is() {
    let mut cluster = Cluster::start(1, 3).await;
    cluster.replace("all.service", &text("one", "Global=true"), Rollout::OneByOne).await;
    cluster.replace("a.service", &text("one", ""), Rollout::OneByOne).await;
    cluster.target("all.service", Target::Launched, true).await;
    cluster.target("a.service", Target::Launched, true).await;
    cluster
        .until("they run", |it| {
            it.checker.active(&unit("all.service")).len() == 3 && it.runs_on("a.service").is_some()
        })
        .await;
    cluster.starts_take(Duration::from_millis(500)).await;
    let on = cluster.runs_on("a.service");
    let two = cluster.replace("all.service", &text("two", "Global=true"), Rollout::OneByOne).await;
    cluster.replace("a.service", &text("two", ""), Rollout::OneByOne).await;
    let count = |it: &Cluster| it.checker.state.versions(&unit("all.service")).find(|(hash, _)| *hash == two);
    for n in 1..=3 {
        cluster.until("one more has it", |it| count(it).is_some_and(|(_, count)| count == n)).await;
    }
    cluster.until("it runs", |it| it.runs_on("a.service").is_some()).await;
    assert_eq!((cluster.runs_on("a.service"), cluster.checker.updates), (on, 4));
}

#[tokio::test(start_paused = true)]
async fn a_bad_text_is_not_spread_by_the_loss_of_a_machine() {
    let mut cluster = Cluster::start(1, 3).await;
    let names = cluster.instances(6, &text("one", "")).await;
    let bad = ContentHash::of(text("bad", "").as_bytes());
    cluster.spoil(bad);
    cluster.replace(TEMPLATE, &text("bad", ""), Rollout::OneByOne).await;
    cluster.until("it is told", |it| it.told("rollout-halted")).await;
    let failed = cluster.places(&names)[0].0;
    let on = cluster.runs_on(&names[5]).unwrap();
    assert_ne!(failed, Some(on));
    cluster.machine(on).kill();
    let rest = names[1..].to_vec();
    cluster
        .until("the others run elsewhere", |it| {
            rest.iter().all(|name| it.runs_on(name).is_some_and(|it| it != on))
        })
        .await;
    assert_eq!(cluster.have(&rest, bad), 0);
    let good = cluster.replace(TEMPLATE, &text("good", ""), Rollout::OneByOne).await;
    cluster.until("all have it", |it| it.have(&names, good) == 6).await;
}

/// With `--no-restart` the new text waits for the next start, and that is one.
#[tokio::test(start_paused = true)]
async fn what_a_lost_machine_had_starts_with_the_text_that_waits_where_that_may_run() {
    let mut cluster = Cluster::start(1, 2).await;
    cluster.boot(3, &[("disk", "ssd")]);
    let names = cluster.instances(3, &text("one", "")).await;
    let two = cluster.replace(TEMPLATE, &text("two", "MachineMetadata=disk=ssd"), Rollout::NextStart).await;
    cluster.pass(Duration::from_secs(5)).await;
    let lost = names.iter().find(|name| cluster.runs_on(name) == Some(1)).unwrap().clone();
    cluster.machine(1).kill();
    cluster.until("it runs elsewhere", |it| it.runs_on(&lost).is_some_and(|on| on != 1)).await;
    assert_eq!((cluster.runs_on(&lost), cluster.have(&[lost], two)), (Some(3), 1));
    assert_eq!(cluster.have(&names, two), 1);
}

#[tokio::test(start_paused = true)]
async fn a_text_with_other_options_reaches_a_unit_on_a_cordoned_machine() {
    let mut cluster = Cluster::start(1, 1).await;
    let names = cluster.instances(2, &text("one", "")).await;
    let before = cluster.places(&names);
    cluster.settings(1, &MachineSettings { cordoned: true, ..MachineSettings::default() }).await;
    let two = cluster.replace(TEMPLATE, &text("one", "Priority=5"), Rollout::OneByOne).await;
    cluster.until("all have it", |it| it.have(&names, two) == 2).await;
    assert_eq!((cluster.places(&names), cluster.told("rollout-halted")), (before, false));
}

#[tokio::test(start_paused = true)]
async fn a_text_that_wants_fewer_on_a_machine_moves_instances_one_at_a_time() {
    let mut cluster = Cluster::start(1, 1).await;
    let names = cluster.instances(3, &text("one", "")).await;
    cluster.boot(2, &[]);
    cluster.boot(3, &[]);
    cluster.starts_take(Duration::from_millis(700)).await;
    let two = cluster.replace(TEMPLATE, &text("one", "MaxPerMachine=1"), Rollout::OneByOne).await;
    cluster
        .until("each has a machine of its own", |it| {
            let up = names.iter().filter(|name| it.runs_on(name).is_some()).count();
            assert!(up + 1 >= names.len(), "{up} run");
            let on: std::collections::BTreeSet<_> =
                names.iter().filter_map(|name| it.runs_on(name)).collect();
            on.len() == 3 && it.have(&names, two) == 3
        })
        .await;
}

/// What a lost machine has of a new text is down as far as anybody knows: nothing else is taken down for it.
#[tokio::test(start_paused = true)]
async fn an_instance_that_is_lost_with_its_new_text_keeps_the_others_from_being_taken_down() {
    let mut cluster = Cluster::start(1, 3).await;
    // It waits for its machine.
    let names = cluster.instances(3, &text("one", "Sticky=yes")).await;
    cluster.starts_take(Duration::from_secs(30)).await;
    let two = cluster.replace(TEMPLATE, &text("two", "Sticky=yes"), Rollout::OneByOne).await;
    cluster.until("it has begun", |it| it.have(&names, two) == 1).await;
    let first =
        names.iter().find(|name| cluster.have(std::slice::from_ref(*name), two) == 1).unwrap().clone();
    let placed = cluster.checker.state.placed(&unit(&first)).first().unwrap().machine;
    let on = (1..=3).find(|n| crate::id(*n) == placed).unwrap();
    cluster.machine(on).kill();
    cluster.until("it is lost", |it| it.told("machine-lost")).await;
    let others: Vec<String> = names.iter().filter(|name| **name != first).cloned().collect();
    let before = cluster.places(&others);
    cluster.pass(Duration::from_secs(120)).await;
    assert_eq!((cluster.places(&others), cluster.have(&names, two)), (before, 1));
    let rollout = cluster.checker.state.rollout(&unit(TEMPLATE)).unwrap();
    assert!(rollout.to_string().contains(&format!("wait for {first}, whose machine is lost")), "{rollout}");
    let why = cluster.reader().unit(&unit(&others[0])).0.unwrap().waits.unwrap();
    assert!(why.contains(&format!("it waits for {first}")), "{why}");
    // Its machine is back: it goes on.
    cluster.boot(on, &[]);
    cluster.machines.values().for_each(|(machine, _)| machine.starts.lock().unwrap().takes = Duration::ZERO);
    cluster.until("all have it", |it| it.have(&names, two) == 3).await;
    cluster.until("all run", |it| names.iter().all(|name| it.runs_on(name).is_some())).await;
}

/// Who never comes back keeps a text from the others only until the text changes again.
#[tokio::test(start_paused = true)]
async fn a_lost_machine_keeps_no_later_text_from_the_others_and_none_of_what_runs_everywhere() {
    let mut cluster = Cluster::start(1, 3).await;
    let names = cluster.instances(3, &text("one", "Sticky=yes")).await;
    cluster.replace("all.service", &text("one", "Global=true"), Rollout::OneByOne).await;
    cluster.target("all.service", Target::Launched, true).await;
    cluster.until("it runs", |it| it.checker.active(&unit("all.service")).len() == 3).await;
    let on = cluster.runs_on(&names[0]).unwrap();
    cluster.machine(on).kill();
    cluster.until("it is lost", |it| it.told("machine-lost")).await;
    let two = cluster.replace(TEMPLATE, &text("two", "Sticky=yes"), Rollout::OneByOne).await;
    let all = cluster.replace("all.service", &text("two", "Global=true"), Rollout::OneByOne).await;
    cluster.until("the others have it", |it| it.have(&names, two) == 2).await;
    let count = |it: &Cluster| it.checker.state.versions(&unit("all.service")).find(|(hash, _)| *hash == all);
    cluster.until("the others have that", |it| count(it).is_some_and(|(_, count)| count == 2)).await;
}

/// What failed and gets another text together with the order to start it, is started once.
#[tokio::test(start_paused = true)]
async fn a_new_text_and_a_start_in_one_write_are_one_start() {
    let mut cluster = Cluster::start(1, 1).await;
    let bad = text("bad", "");
    cluster.spoil(ContentHash::of(bad.as_bytes()));
    cluster.replace("a.service", &bad, Rollout::OneByOne).await;
    cluster.target("a.service", Target::Launched, true).await;
    cluster.pass(Duration::from_secs(2)).await;
    assert_eq!(cluster.runs_on("a.service"), None, "it failed");
    let tokens = cluster.checker.tokens;
    let good = text("good", "");
    let word = Word::Target { target: Target::Launched, raise_run: true };
    let order = UnitOrder { word: Some(word), ..UnitOrder::submit(NewText::replacing(&good)) };
    cluster.operations.write(&[(unit("a.service"), order)], true, "test").await.unwrap();
    cluster.until("it runs", |it| it.runs_on("a.service").is_some()).await;
    cluster.pass(Duration::from_secs(5)).await;
    assert_eq!(cluster.have(&["a.service".to_owned()], ContentHash::of(good.as_bytes())), 1);
    assert_eq!(cluster.checker.tokens, tokens + 1, "one start");
}
