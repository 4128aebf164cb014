//! What the certificate of a machine opens when nobody stands behind it: it may read what is flotilla's,
//! also of another machine, and change nothing.

use flotilla_integration_tests::{Cluster, LIMIT, eventually};

use crate::{
    http::{Socket, events},
    world::has,
};

/// Runs on the second machine and says something.
const TALKS: &str = "[Service]\nExecStart=/bin/sh -c 'echo word of %n; exec sleep infinity'\n[X-Flotilla]\n\
                     MachineMetadata=host=m2\n";

pub fn a_certificate_alone() {
    let cluster = Cluster::up("machinecert", 2, 1).unwrap();
    let [m1, m2] = cluster.machines() else { panic!("two machines") };
    for name in ["talk", "other"] {
        m1.write_file(&format!("/root/{name}.service"), TALKS).unwrap();
    }
    cluster.ask(m1, &["start", "/root/talk.service"]).unwrap();
    let before = cluster.invocations().unwrap();
    assert!(before.contains_key(&("m2".to_owned(), "talk.service".to_owned())), "{before:?}");

    eventually(LIMIT, "what it says to be in the journal", || {
        Ok(cluster.ask(m1, &["journal", "talk"])?.contains("word of talk.service").then_some(()))
    })
    .unwrap();

    // The first machine's certificate, at the second's API.
    let endpoint = format!("https://{}:7400", m2.address());
    let as_machine = [
        "--endpoint",
        &endpoint,
        "--ca=/etc/flotilla/ca.pem",
        "--certificate=/etc/flotilla/machine.pem",
        "--key=/etc/flotilla/machine-key.pem",
    ];
    let ask = |words: &[&str]| {
        let output = cluster.flotctl(m1, &[words, &as_machine].concat()).unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    };
    let rows: [(&[&str], i32, &str); 13] = [
        (&["journal", "talk"], 0, "word of talk.service"),
        (&["status", "talk"], 0, "word of talk.service"),
        (&["list-units"], 0, "talk.service"),
        (&["events", "talk"], 0, "placed talk.service"),
        // systemd's own and the administrator's are nobody's business here.
        (&["journal", "flotillad"], 4, "there is no unit flotillad.service"),
        (&["status", "dbus"], 4, "there is no unit dbus.service"),
        (&["start", "talk"], 1, "may read only"),
        (&["restart", "talk"], 1, "may read only"),
        (&["destroy", "talk"], 1, "may read only"),
        (&["submit", "/root/other.service"], 1, "may read only"),
        (&["adopt", "m2", "dbus", "--plan"], 1, "may read only"),
        (&["cluster", "release-hold"], 1, "may read only"),
        (&["cluster", "accept-store"], 1, "may read only"),
    ];
    for (words, code, says) in rows {
        let (ended, said) = ask(words);
        assert_eq!(ended, Some(code), "{words:?}: {said}");
        has(&words.join(" "), &said, &[says]);
    }
    assert_eq!(cluster.invocations().unwrap(), before, "nothing was started anew, and nothing stopped");
    let files = cluster.ask(m1, &["list-unit-files", "--no-legend"]).unwrap();
    assert!(files.lines().count() == 1 && files.contains("launched"), "{files}");

    // Nor does the route of one machine show more, whoever asks.
    let route = |unit: &str| format!("/v1/machines/{}/journal?lines=5&units={unit}", m2.id());
    let journal = |unit: &str| {
        let reply = Socket::of(m2).ask("GET", &route(unit), None);
        assert_eq!(reply.status, 200, "{reply:?}");
        events(&reply.body).iter().filter(|data| data.contains("\"message\"")).count()
    };
    assert!(journal("talk") > 0);
    for unit in ["flotillad", "flotillad.service", "*", "dbus*"] {
        assert!(!m2.run(&["journalctl", "--quiet", "--unit=flotillad"]).unwrap().is_empty());
        let theirs = if unit == "*" { journal("talk") } else { 0 };
        assert_eq!(journal(unit), theirs, "{unit}");
    }
}
