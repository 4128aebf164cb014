//! What `[Install]` says, on a real systemd: links that are made, read and taken back.

use std::collections::BTreeSet;

use flotilla_agent::systemd::{DbusSystemd, JobResult, Systemd as _};
use flotilla_integration_tests::SLEEPER;
use flotilla_units::UnitName;
use futures_util::future::join_all;

use crate::machine::{environment, eventually, evidence, get, name, open, run, shell};

/// How many units are installed together.
const TOGETHER: usize = 20;

/// Whom the target wants, as systemd has it in memory.
fn wanted_by(target: &UnitName) -> BTreeSet<String> {
    let wants = shell(&format!("systemctl show --value --property=Wants {target}"));
    wants.split_whitespace().map(str::to_owned).collect()
}

async fn stop_and_remove(systemd: &DbusSystemd, unit: &UnitName) {
    assert_eq!(systemd.stop(unit).await.unwrap(), JobResult::Done);
    systemd.remove(unit).await.unwrap();
}

pub async fn what_install_says_is_linked_read_and_taken_back() {
    let systemd = open().await;
    let (stack, web, late, last) =
        (name("stack.target"), name("web.service"), name("late@1.service"), name("last.service"));
    let text = format!("{SLEEPER}[Install]\nWantedBy=stack.target\nAlias=other.service\nAlso=more.service\n");
    let target = "[Unit]\nDescription=All of it\n";

    // Before the target is loaded nobody has to be told, and its start starts what is only loaded.
    systemd.install(&web, &text).await.unwrap();
    systemd.mark_loaded(&web, &evidence(7, &text)).await.unwrap();
    assert_eq!(run(&systemd, &stack, target, 1).await, JobResult::Done);
    eventually("web runs", async || get(&systemd, &web).await.state.active == "active").await;
    assert!(environment(&systemd, &web).await.contains("FLOTILLA_TOKEN=7"));
    assert!(get(&systemd, &web).await.evidence.is_some_and(|it| it.loaded && !it.started));
    assert_eq!(systemd.reloads(), 0);
    assert_eq!(shell("systemctl show --value --property=LoadState other.service"), "not-found\n");

    // Once it is loaded, systemd reads the links of all that come together at once.
    systemd.install(&late, &text.replace("stack.target", "%p-%i.target stack.target")).await.unwrap();
    let more: Vec<UnitName> = (0..TOGETHER).map(|n| name(&format!("more-{n}.service"))).collect();
    let installs = more.iter().map(|unit| systemd.install(unit, &text));
    assert!(join_all(installs).await.iter().all(Result::is_ok));
    eventually("they are wanted", async || wanted_by(&stack).len() == TOGETHER + 2).await;
    assert_eq!(systemd.reloads(), 1);
    assert_eq!(get(&systemd, &late).await.state.active, "inactive", "nobody started it yet");
    shell("systemctl start stack.target");
    eventually("late runs", async || get(&systemd, &late).await.state.active == "active").await;

    // An agent that is killed in between leaves it to the next.
    systemd.install(&last, &text).await.unwrap();
    drop(systemd);
    let systemd = open().await;
    eventually("it is wanted", async || wanted_by(&stack).contains("last.service")).await;
    eventually("it is noted", async || shell("ls /run/flotilla").lines().all(|it| it != "unread-links"))
        .await;
    let reloads = systemd.reloads();
    drop(systemd);
    let systemd = open().await;
    assert_eq!(run(&systemd, &name("plain.service"), SLEEPER, 1).await, JobResult::Done);
    assert_eq!((reloads, systemd.reloads()), (1, 0), "and no later one does it again");

    // Another text takes its links with it, and so does a unit that goes.
    systemd.stop(&web).await.unwrap();
    assert_eq!(run(&systemd, &web, SLEEPER, 8).await, JobResult::Done);
    eventually("it is not wanted", async || !wanted_by(&stack).contains("web.service")).await;
    let all: Vec<&UnitName> = more.iter().chain([&late, &last, &web]).collect();
    join_all(all.iter().map(|unit| stop_and_remove(&systemd, unit))).await;
    assert_eq!(wanted_by(&stack), BTreeSet::new());
    shell("systemctl start stack.target");
    for unit in all {
        assert_eq!(
            shell(&format!("systemctl show --value --property=LoadState {unit}")),
            "not-found\n",
            "{unit}"
        );
    }
    stop_and_remove(&systemd, &name("plain.service")).await;
    stop_and_remove(&systemd, &stack).await;
    let left = "find /run/flotilla/units /run/flotilla/env /run/flotilla/wanted /run/flotilla/unread-links \
                /run/systemd/system -not -type d 2>/dev/null; find /run/systemd/system -name '*.wants'";
    assert_eq!(shell(left), "");
}
