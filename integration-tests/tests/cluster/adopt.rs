//! Services that ran from a machine's own files become the cluster's, and do not notice.

use std::collections::BTreeMap;

use flotilla_api::adopt::Adopted;
use flotilla_integration_tests::{Cluster, LIMIT, eventually};
use flotilla_lab::Machine;

use crate::{SLEEPER, UNITS, alone, write_units};

/// How many are adopted while flotillad is killed over and over.
const MANY: usize = 10;

/// How often flotillad is killed meanwhile.
const KILLS: u32 = 12;

/// Makes services with two drop-ins each, enables and starts them.
fn make_own(machine: &Machine, names: &[String]) {
    for name in names {
        let path = format!("/etc/systemd/system/{name}");
        machine.write_file(&path, format!("{SLEEPER}[Install]\nWantedBy=multi-user.target\n")).unwrap();
        machine.write_file(&format!("{path}.d/10-a.conf"), "[Service]\nEnvironment=A=1\n").unwrap();
        machine.write_file(&format!("{path}.d/20-b.conf"), "[Unit]\nDescription=its own\n").unwrap();
    }
    let names = names.join(" ");
    let line = format!("systemctl daemon-reload && systemctl enable --quiet --now {names}");
    machine.shell(&line).unwrap();
}

/// What tells one start of units from another, by name.
fn processes(machine: &Machine, names: &[String]) -> anyhow::Result<BTreeMap<String, String>> {
    let of = |name: &String| {
        let line = format!("systemctl show --property=InvocationID,MainPID,ActiveState {name}");
        Ok((name.clone(), machine.shell(&line)?))
    };
    names.iter().map(of).collect()
}

fn refuses(cluster: &Cluster, machine: &Machine, words: &[&str], why: &str) {
    let output = cluster.flotctl(machine, words).unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains(why), "{words:?}: {said}");
}

#[test]
fn a_machines_own_services_are_adopted_without_a_restart() {
    let _alone = alone();
    let cluster = Cluster::up("adopt", 3, 1).unwrap();
    let [m1, m2, m3] = cluster.machines() else { panic!("three machines") };
    let web = ["web.service".to_owned()];
    make_own(m2, &web);
    what_cannot_be_is_refused(&cluster, m1, m2);

    let before = processes(m2, &web).unwrap();
    let plan: Adopted = cluster.json(m1, &["adopt", "m2", "web", "--plan"]).unwrap();
    assert_eq!(plan.units[0].found.moves.len(), 4, "{plan:?}");
    assert!(cluster.units(m1, "web.service").unwrap().is_empty());
    let said = cluster.ask(m1, &["adopt", "m2", "web"]).unwrap();
    assert!(
        said.contains("/var/lib/flotilla/adopted/web.service") && said.contains("active on m2"),
        "{said}"
    );
    assert_eq!(processes(m2, &web).unwrap(), before, "it runs as it did");
    m2.shell("test ! -e /etc/systemd/system/web.service -a ! -e /etc/systemd/system/web.service.d").unwrap();
    refuses(&cluster, m3, &["adopt", "m2", "web"], "adopted already");
    // Another seat hears of it a moment later.
    let text =
        eventually(LIMIT, "m3 to have its text", || cluster.ask(m3, &["cat", "web"]).map(Some)).unwrap();
    assert!(text.contains("# web.service.d/10-a.conf\n[Service]\nEnvironment=A=1"), "{text}");

    // From here on it is a unit like any other, on that machine and, when that is lost, on another.
    cluster.ask(m1, &["stop", "web"]).unwrap();
    cluster.ask(m1, &["start", "web"]).unwrap();
    let environment = "tr '\\0' '\\n' </proc/$(systemctl show --value -p MainPID web.service)/environ";
    let environment = m2.shell(environment).unwrap();
    assert!(environment.contains("FLOTILLA_TOKEN=") && environment.contains("A=1"), "{environment}");
    m2.kill().unwrap();
    let elsewhere = eventually(LIMIT, "it to run elsewhere", || {
        Ok(cluster.active(m1, "web.service")?.remove("web.service").filter(|hosts| hosts != &["m2"]))
    })
    .unwrap();
    assert_eq!(elsewhere.len(), 1);
    m2.boot().unwrap();
    cluster.wait_for_machines(m1, 3).unwrap();
    // Nothing of its own starts it there any more.
    eventually(LIMIT, "only the new one to be there", || {
        Ok((cluster.active(m1, "web.service")?.get("web.service") == Some(&elsewhere)).then_some(()))
    })
    .unwrap();
    assert_eq!(m2.shell("systemctl is-active web.service || true").unwrap().trim(), "inactive");
    let output = cluster.flotctl(m1, &["destroy", "web"]).unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains("/var/lib/flotilla/adopted/web.service"), "{said}");
    m2.shell("test -f /var/lib/flotilla/adopted/web.service/files/etc/systemd/system/web.service").unwrap();

    killed_while_it_adopts_ten(&cluster, m1, m2);
}

/// Also what the cluster could not have there, or has already.
fn what_cannot_be_is_refused(cluster: &Cluster, m1: &Machine, m2: &Machine) {
    let own = |name: &str, text: String| {
        m2.write_file(&format!("/etc/systemd/system/{name}"), text).unwrap();
    };
    own("here.service", SLEEPER.to_owned());
    own("elsewhere.service", format!("{SLEEPER}[X-Flotilla]\nMachineMetadata=host=m1\n"));
    own("wrong.service", format!("{SLEEPER}[X-Flotilla]\nMachineMetadta=host=m1\n"));
    own("global.service", format!("{SLEEPER}[X-Flotilla]\nGlobal=true\n"));
    m2.shell("systemctl daemon-reload && systemctl start here elsewhere wrong global").unwrap();
    write_units(m1, &[("here.service", SLEEPER.to_owned())]);
    cluster.ask(m1, &["submit", &format!("{UNITS}/here.service")]).unwrap();
    for (unit, why) in [
        ("here", "the cluster has a unit here.service already"),
        ("elsewhere", "metadata host=m1 does not match"),
        ("wrong", "MachineMetadta"),
        ("global", "Global="),
        ("flotillad", "part of flotilla"),
        ("nothing", "not-found"),
    ] {
        refuses(cluster, m1, &["adopt", "m2", unit], why);
    }
    // All of them, or none.
    refuses(cluster, m1, &["adopt", "m2", "web", "elsewhere"], "metadata host=m1 does not match");
    refuses(cluster, m1, &["adopt", "m9", "web"], "no machine `m9`");
    assert!(cluster.units(m1, "web.service").unwrap().is_empty());
    let running = m2.shell("systemctl is-active here elsewhere wrong global web").unwrap();
    assert_eq!(running, "active\n".repeat(5));
}

fn killed_while_it_adopts_ten(cluster: &Cluster, m1: &Machine, m2: &Machine) {
    let names: Vec<String> = (1..=MANY).map(|n| format!("many{n}.service")).collect();
    make_own(m2, &names);
    let before = processes(m2, &names).unwrap();
    let kill = "systemctl kill --signal=SIGKILL --kill-who=main flotillad; systemctl start flotillad";
    let mut words = vec!["adopt", "m2", "--no-block"];
    words.extend(names.iter().map(String::as_str));
    cluster.ask(m1, &words).unwrap();
    for n in 0..KILLS {
        m2.shell(kill).unwrap();
        // Each time a little later in what it does.
        m2.run(&["sleep", &(0.02 * f64::from(n)).to_string()]).unwrap();
    }
    eventually(LIMIT, "all of them to be the cluster's", || {
        let active = cluster.active(m1, "many*")?;
        Ok((active.len() == MANY && active.values().all(|hosts| hosts == &["m2"])).then_some(()))
    })
    .unwrap();
    assert_eq!(processes(m2, &names).unwrap(), before, "none of them was started anew");
    let fragments = m2.shell(&format!("systemctl show --value -p FragmentPath {}", names.join(" "))).unwrap();
    assert_eq!(fragments.matches("/run/systemd/system/many").count(), MANY, "{fragments}");
    m2.shell(
        "! ls /etc/systemd/system | grep many; ! ls /etc/systemd/system/multi-user.target.wants | grep many",
    )
    .unwrap();
    m2.shell("! grep -l '\"taking\": true' /var/lib/flotilla/adopted/*/ledger.json").unwrap();
    cluster.ask(m1, &["destroy", "many*"]).unwrap();
}
