//! Units that were a machine's own: placed there and nowhere else, once.

use std::time::Duration;

use flotilla_engine::state::Life;
use flotilla_registry::{
    keys::Key,
    operations::{NewText, OperationError, UnitOrder},
    records::{MachineSettings, Record as _, Target, UnitRecord},
    store::faults::Link,
};

use crate::{Cluster, id, service, unit};

const WEB: &str = "web.service";

impl Cluster {
    async fn adopt(&self, n: usize, options: &str) -> Result<(), OperationError> {
        let order = UnitOrder::adopt(NewText::first(service(options)), id(n));
        self.operations.write(&[(unit(WEB), order)], true, "ada").await.map(drop)
    }

    async fn web(&self) -> UnitRecord {
        UnitRecord::decode("", &self.value(&Key::Unit(unit(WEB))).await).unwrap()
    }

    /// Tells whether it is noted that it was taken over.
    fn is_done(&self) -> bool {
        let record = self.checker.state.units().get(&unit(WEB)).and_then(|kept| kept.record());
        record.and_then(|record| record.adopted).is_some_and(|adopted| adopted.done)
    }

    /// Tells whether the entry that stays may take the machine's own over.
    fn takes_over(&self) -> Option<bool> {
        let name = unit(WEB);
        let placed = self.checker.state.placed(&name);
        placed.iter().find(|placed| placed.entry.stays()).map(|placed| placed.entry.adopt)
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_taken_over_is_placed_where_it_runs_and_is_then_like_any_other() {
    let mut cluster = Cluster::start(1, 3).await;
    // The others have more room.
    cluster.launch("a.service", &format!("MachineID={}", id(3))).await;
    cluster.adopt(3, "").await.unwrap();
    cluster.until("it is taken over", |it| it.runs_on(WEB) == Some(3) && it.is_done()).await;
    assert_eq!(cluster.takes_over(), Some(true));
    let record = cluster.web().await;
    assert!(record.adopted.is_some_and(|adopted| adopted.done && adopted.from == id(3)), "{record:?}");
    assert_eq!((record.run, record.generation, record.by.as_str()), (1, 1, "ada"));
    assert_eq!((cluster.times_told("adopted"), cluster.times_told("placed")), (1, 2));
    // The same again is done already; another text under that name is not that unit.
    cluster.adopt(3, "").await.unwrap();
    for other in [cluster.adopt(2, "").await, cluster.adopt(3, "Priority=1").await] {
        assert!(matches!(other, Err(OperationError::NameTaken(_))), "{other:?}");
    }
    assert_eq!(cluster.times_told("adopted"), 1);
    // From here on it is started and moved as any other.
    cluster.target(WEB, Target::Launched, true).await;
    cluster
        .until("it is started anew", |it| it.runs_on(WEB) == Some(3) && it.times_told("restarted") == 1)
        .await;
    assert_eq!(cluster.takes_over(), Some(false));
    cluster.settings(3, &MachineSettings { v: 1, draining: true, ..MachineSettings::default() }).await;
    cluster.until("it has moved", |it| it.runs_on(WEB).is_some_and(|n| n != 3)).await;
    assert_eq!(cluster.takes_over(), Some(false));
}

#[tokio::test(start_paused = true)]
async fn one_whose_machine_is_away_waits_for_it_unless_it_was_taken_over_before() {
    let mut cluster = Cluster::start(1, 2).await;
    cluster.machine(2).kill();
    let lost = |it: &Cluster| it.checker.state.machines().get(&id(2)).is_none_or(|m| m.life() == Life::Lost);
    cluster.until("it is lost", lost).await;
    cluster.adopt(2, "").await.unwrap();
    cluster.pass(Duration::from_secs(30)).await;
    assert_eq!((cluster.takes_over(), cluster.web().await.adopted.map(|it| it.done)), (None, Some(false)));
    // Unloaded and launched again, it is still the one that runs there.
    cluster.target(WEB, Target::Inactive, false).await;
    cluster.target(WEB, Target::Launched, false).await;
    cluster.boot(2, &[]);
    cluster.until("it is taken over", |it| it.runs_on(WEB) == Some(2) && it.is_done()).await;
    cluster.machine(2).kill();
    cluster.until("it runs elsewhere", |it| it.runs_on(WEB) == Some(1)).await;
    assert_eq!(cluster.takes_over(), Some(false));
}

#[tokio::test(start_paused = true)]
async fn what_was_placed_and_not_taken_over_runs_nowhere_else() {
    let mut cluster = Cluster::start(1, 3).await;
    cluster.link(3).set_link(Link::Cut);
    cluster.adopt(3, "").await.unwrap();
    cluster.until("it is placed", |it| it.takes_over() == Some(true)).await;
    // Its machine is lost with what runs there as its own, so another one is not started.
    cluster.pass(Duration::from_secs(40)).await;
    assert_eq!((cluster.checker.active(&unit(WEB)), cluster.is_done()), (vec![id(3)], false));
    // Nor is it drained before.
    cluster.settings(3, &MachineSettings { v: 1, draining: true, ..MachineSettings::default() }).await;
    cluster.link(3).set_link(Link::Up);
    cluster.until("it has moved", |it| it.is_done() && it.runs_on(WEB).is_some_and(|n| n != 3)).await;
}
