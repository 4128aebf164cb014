//! Who may, and that it is written down.

use std::process::Output;

use crate::{World, replaced};

/// Where the folder of a user is on the machine that is asked.
const USER: &str = "/root/user";

pub fn events(world: &World) {
    world.ask(&["exec", "box", "--", "sh", "-c", "echo 'in quotes'"]);
    world.ask(&["shell", "m2", "--", "true"]);
    let event = world.event_of("exec", r"sh -c 'echo '\''in quotes'\'''");
    assert_eq!((event.by.as_str(), event.host.as_deref()), ("root", Some("m2")), "{event:?}");
    assert_eq!(event.unit.as_ref().map(|unit| unit.as_str()), Some("box.service"), "{event:?}");
    assert_eq!(world.event_of("shell", "true").host.as_deref(), Some("m2"));
    // With its end in the journal of the machine.
    flotilla_integration_tests::eventually(crate::LIMIT, "the session's end in the journal", || {
        let journal = world.far().journal(&["flotillad.service"])?;
        Ok((journal.contains("a session begins") && journal.contains("a session has ended")).then_some(()))
    })
    .unwrap();
}

pub fn refused(world: &World) {
    let asked = world.asked();
    let before = world.events("exec").len();
    // By the socket's group: everything else, but this.
    asked.shell("getent group flotilla >/dev/null || groupadd --system flotilla").unwrap();
    asked.run(&["useradd", "--groups", "flotilla", "ada"]).unwrap();
    let systemctl = |words: &[&str]| asked.run(&[&["systemctl"], words].concat());
    replaced(systemctl, || asked.run(&["systemctl", "restart", "flotillad"]).map(|_| ())).unwrap();
    world.cluster.wait_for_machines(asked, 2).unwrap();
    let as_ada =
        |words: &[&str]| asked.exec(&[&["runuser", "-u", "ada", "--", "flotctl"], words].concat()).unwrap();
    let listed = as_ada(&["list-units", "box"]);
    assert!(listed.status.success(), "{listed:?}");
    for words in [&["exec", "box", "--", "true"][..], &["shell", "m2"], &["shell", "m1"]] {
        is_refused(&as_ada(words), "ada may use the socket by its group");
    }
    // A machine's own certificate, also for its own machine.
    let (certificate, key) = ("/etc/flotilla/machine.pem", "/etc/flotilla/machine-key.pem");
    let folder = world.cluster.directory().join("cluster/user-admin");
    for file in ["ca.pem", "user.pem", "user-key.pem"] {
        asked.copy_in(&folder.join(file), &format!("{USER}/{file}")).unwrap();
    }
    for machine in ["m1", "m2"] {
        is_refused(
            &over_tls(world, certificate, key, &["shell", machine, "--", "true"]),
            "nobody's in person",
        );
    }
    assert_eq!(world.events("exec").len(), before, "what was refused is no use");
    // A user's, through another machine: the event says who.
    let (certificate, key) = (format!("{USER}/user.pem"), format!("{USER}/user-key.pem"));
    let output = over_tls(world, &certificate, &key, &["exec", "box", "--", "sh", "-c", "id -un; exit 6"]);
    assert_eq!((output.status.code(), &*output.stdout), (Some(6), &b"daemon\n"[..]), "{output:?}");
    assert_eq!(world.event_of("exec", "sh -c 'id -un; exit 6'").by, "admin");
    assert_eq!(world.events("exec").len(), before + 1);
}

#[track_caller]
fn is_refused(output: &Output, why: &str) {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(why) && said.contains("flotctl ca issue user"), "{said}");
}

fn over_tls(world: &World, certificate: &str, key: &str, words: &[&str]) -> Output {
    let endpoint = format!("--endpoint=https://{}:7400", world.asked().address());
    let (certificate, key) = (format!("--certificate={certificate}"), format!("--key={key}"));
    let ca = format!("--ca={USER}/ca.pem");
    let options: [&str; 4] = [&endpoint, &ca, &certificate, &key];
    world.cluster.flotctl(world.asked(), &[&options[..], words].concat()).unwrap()
}
