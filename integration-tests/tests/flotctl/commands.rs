//! The commands that show something of units and of the cluster.

use flotilla_api::{
    action::Outcome,
    cluster::ClusterStatus,
    unit::{UnitContent, UnitStatus},
    watch::Event,
    why::Why,
};
use flotilla_integration_tests::{LIMIT, eventually};
use serde_json::Value;

use crate::{
    Row,
    world::{World, has},
};

pub const ROWS: [Row; 18] = [
    ("submit", submit),
    ("cat", cat),
    ("edit", edit),
    ("status", status),
    ("why", why),
    ("events", events),
    ("history", history),
    ("exec", exec),
    ("shell", shell),
    ("top", top),
    ("cluster", cluster),
    ("cluster status", cluster_status),
    ("cluster release-hold", release_hold),
    ("cluster settings", cluster_settings),
    ("cluster accept-store", accept_store),
    ("version", version),
    ("completion", completion),
    ("man", man),
];

/// Has what a text loses easily: blanks at the end of a line, a tab, no end of the last line.
pub const WEB: &str = "# As it is: blanks  \n[Unit]\nDescription=Serves %i\n\n[Service]\n\tExecStart=/bin/sh -c \
                       'echo page %i served; exec sleep infinity'";

/// Starts the two units that everything is shown on.
pub fn prepare(world: &World) {
    world.write("web@.service", WEB);
    let started = world.ask(&["start", "/root/units/web@1.service", "/root/units/web@2.service"]);
    assert_eq!(started, "web@1.service active on m1\nweb@2.service active on m1\n");
}

fn submit(world: &World) {
    let path = world.write("given.service", "[Service]\nExecStart=/bin/sleep infinity\n");
    assert_eq!(world.ask(&["submit", &path]), "given.service submitted\n");
    assert_eq!(world.ask(&["submit", &path]), "given.service unchanged\n");
    let outcome: Outcome = world.json(&["submit", &path]);
    assert!(outcome.units.len() == 1 && !outcome.units[0].changed, "{outcome:?}");
    let broken = world.write("broken.service", "[Service]\nExecStart\n");
    let refused = world.expect(1, &["submit", &path, &broken]);
    refused.complains(&["/root/units/broken.service", "not a valid unit file"]);
    world
        .expect(1, &["submit", "/root/units/nothing.service"])
        .complains(&["there is no file /root/units/nothing.service"]);
    world.expect(2, &["submit"]).complains(&["Usage: flotctl submit"]);
    world.ask(&["destroy", "given"]);
}

fn exec(world: &World) {
    let out = world.ask(&["exec", "web@1", "--machine=m1", "--", "sh", "-c", "cat /proc/self/cgroup"]);
    has("exec", &out, &["/system-web.slice/web@1.service"]);
    world.expect(7, &["exec", "web@1", "--no-terminal", "--", "sh", "-c", "exit 7"]);
    let out = world.ask(&["exec", "web@1", "--terminal", "--", "tty"]);
    has("exec -t", &out, &["/dev/pts/"]);
    world.expect(4, &["exec", "nobody", "--", "true"]).complains(&["nobody.service"]);
}

fn shell(world: &World) {
    assert_eq!(world.ask(&["shell", "m1", "--", "pwd"]), "/root\n");
    assert_eq!(world.ask(&["shell", "m1", "--no-terminal", "--", "echo", "a b"]), "a b\n");
    has("shell -t", &world.ask(&["shell", "m1", "--terminal", "--", "tty"]), &["/dev/pts/"]);
    world.expect(4, &["shell", "m9"]).complains(&["there is no machine `m9`", "list-machines"]);
}

fn top(world: &World) {
    let options = ["--batch", "--interval=1", "--number=1", "--sort=name", "--machine=m1"];
    let text = world.ask(&[&["top"], &options[..], &["web@*"]].concat());
    has("top", &text, &["UNIT", "CPU%", "web@1.service", "web@2.service", " m1 "]);
    has("top -m", &world.ask(&["top", "-b", "--machines", "-d", "1"]), &["LOAD", "\nm1 "]);
    world.expect(2, &["top", "--interval=31"]).complains(&["1..=30"]);
}

fn cat(world: &World) {
    assert_eq!(world.ask(&["cat", "web@1"]), WEB, "byte for byte");
    let both = world.ask(&["cat", "web@?.service"]);
    assert_eq!(both, format!("# web@1.service\n{WEB}\n# web@2.service\n{WEB}"));
    let contents: Vec<UnitContent> = world.json(&["cat", "web@.service"]);
    assert!(contents.len() == 1 && contents[0].text == WEB, "{contents:?}");
    let unknown = world.expect(4, &["cat", "nobody"]);
    unknown.complains(&["there is no unit nobody.service", "list-unit-files"]);
}

/// What is written in the editor runs in the end.
fn edit(world: &World) {
    let path = world.write("edited.service", "[Service]\nExecStart=/bin/sleep infinity\n");
    world.ask(&["start", &path]);
    world.note(&["edit", "--yes", "edited"]);
    let line = "HOME=/root EDITOR=\"sed -i '\\$ a Nice=5'\" flotctl edit --yes edited";
    has("edit", &world.machine().shell(line).unwrap(), &["+Nice=5", "edited.service updated"]);
    has("cat", &world.ask(&["cat", "edited"]), &["Nice=5"]);
    eventually(LIMIT, "the new text to run", || {
        Ok((world.show("edited.service", "Nice") == "5").then_some(()))
    })
    .unwrap();
    let again = world.machine().shell("HOME=/root EDITOR=true flotctl edit --yes edited 2>&1").unwrap();
    has("edit", &again, &["edited.service unchanged"]);
    world.ask(&["destroy", "edited"]);
}

fn status(world: &World) {
    let text = world.ask(&["status", "web@1"]);
    let pid = world.show("web@1.service", "MainPID");
    has(
        "status",
        &text,
        &[
            "web@1.service - Serves 1",
            "active (running)",
            &format!("Main PID: {pid} (sleep infinity)"),
            &world.show("web@1.service", "InvocationID"),
            "system-web.slice/web@1.service",
            "page 1 served",
        ],
    );
    let quiet = world.ask(&["status", "--lines=0", "web@1"]);
    assert!(!quiet.contains("page 1 served"), "{quiet}");
    let statuses: Vec<UnitStatus> = world.json(&["status", "web@*.service", "-n", "1"]);
    assert_eq!(statuses.len(), 2);
    assert!(statuses.iter().all(|s| s.active == "active" && s.journal.len() == 1), "{statuses:?}");
    world.expect(4, &["status", "web@.*"]).complains(&["no unit but a template matches web@.*"]);
    let resting = world.write("resting.service", "[Service]\nExecStart=/bin/true\n");
    world.ask(&["submit", &resting]);
    let answer = world.expect(3, &["status", "resting"]);
    has("status", &answer.out, &["resting.service", "on no machine"]);
    world.ask(&["destroy", "resting"]);
    world.expect(4, &["status", "nobody"]).complains(&["there is no unit nobody.service"]);
}

fn why(world: &World) {
    has("why", &world.ask(&["why", "web@1"]), &["web@1.service: ", "m1  here"]);
    let instances: Vec<Why> = world.json(&["why", "web@*.service"]);
    assert_eq!(instances.len(), 2, "a glob means no template: {instances:?}");
    let path = world
        .write("nowhere.service", "[Service]\nExecStart=/bin/true\n[X-Flotilla]\nMachineMetadata=host=m7\n");
    let refused = world.expect(5, &["start", &path]);
    refused.complains(&["nowhere.service cannot be placed", "flotctl why nowhere.service"]);
    let answer = world.expect(5, &["why", "nowhere"]);
    has("why", &answer.out, &["m1  MachineMetadata: metadata host=m7 does not match"]);
    let answer = world.expect(5, &["why", "nowhere", "web@1", "-o", "json"]);
    let whys: Vec<Why> = serde_json::from_str(&answer.out).unwrap();
    assert_eq!(whys.len(), 2);
    let rule = whys[0].machines[0].rule.as_deref();
    assert!(whys[0].unit.as_str() == "nowhere.service" && rule == Some("MachineMetadata"), "{whys:?}");
    world.ask(&["destroy", "nowhere"]);
    world.expect(4, &["why", "nobody"]);
}

fn events(world: &World) {
    let text = world.ask(&["events", "web@1"]);
    has("events", &text, &["placed web@1.service on m1"]);
    assert!(!text.contains("web@2"), "{text}");
    assert_eq!(world.ask(&["events", "--lines", "2", "-o", "json"]).lines().count(), 2);

    let told = |words: &[&str]| world.ask(&[&["events"], words].concat());
    assert!(told(&["--unit", "web@1", "--kind", "pla*,gone"]).lines().all(|line| line.contains(" placed ")));
    assert!(!told(&["--machine", "m1", "--kind", "placed", "--since", "today"]).is_empty());
    for nothing in [&["--machine", "nobody"][..], &["--kind", "nothing"], &["--since", "now", "web@1"]] {
        assert_eq!(told(nothing), "", "{nothing:?}");
    }
    world.expect(2, &["events", "--since", "soon"]).complains(&["is not a time"]);

    // Followed: what happened last tells that it follows; then comes what happens, in order.
    let path = world.write("late.service", "[Service]\nExecStart=/bin/sleep infinity\n");
    world.ask(&["submit", &path]);
    let mut follower = world.follow(&["events", "--follow", "-n", "1", "late*", "-o", "json"]);
    let mut events: Vec<Event> = Vec::new();
    let mut next = || {
        events.push(serde_json::from_str(&follower.line().unwrap()).unwrap());
        events.last().unwrap().kind.clone()
    };
    next();
    world.ask(&["start", "late"]);
    while next() != "placed" {}
    world.ask(&["destroy", "late"]);
    while next() != "destroyed" {}
    assert!(events.iter().all(|event| event.unit.as_ref().is_some_and(|u| u.as_str() == "late.service")));
    assert!(events.is_sorted_by_key(|event| event.revision), "{events:?}");
}

fn history(world: &World) {
    let text = world.ask(&["history", "web@1"]);
    let life =
        ["web@.service submitted", "ordered: from inactive to launched", "placed on m1: started by root"];
    has("history", &text, &life);
    has("history", &text, &["active (running) on m1", "so it is now", "(root, request "]);
    assert_eq!(world.ask(&["history", "web@1", "--since", "now"]).lines().count(), 1, "how it is now");
    let path = world.write("brief.service", "[Service]\nExecStart=/bin/sleep infinity\n");
    world.ask(&["start", &path]);
    world.ask(&["destroy", "brief"]);
    let gone: Value = world.json(&["history", "brief"]);
    assert_eq!(gone["now"], Value::Null);
    assert_eq!(gone["events"].as_array().and_then(|all| all.last()).unwrap()["kind"], "destroyed");
    world.expect(4, &["history", "nobody"]).complains(&["nothing is known of nobody.service"]);
}

fn cluster_settings(world: &World) {
    assert_eq!(world.ask(&["cluster", "settings"]), "events-kept=86400s\nevents-max=10000\n");
    let set = world.ask(&["cluster", "settings", "events-kept=7d", "events-max=20000"]);
    assert_eq!(set, "events-kept=604800s\nevents-max=20000\n");
    assert_eq!(world.json::<Value>(&["cluster", "settings"])["events_max"], 20_000);
    world.expect(1, &["cluster", "settings", "events-kept=1s"]).complains(&["expected 60 s to"]);
    world.expect(2, &["cluster", "settings", "colour=red"]).complains(&["expected events-kept=SPAN"]);
    let changed = world.ask(&["events", "--kind", "settings-changed"]);
    has("events", &changed, &["events are kept for 604800 s, not 86400 s", "(root, request "]);
}

fn cluster(world: &World) {
    let text = world.ask(&["cluster"]);
    has("cluster", &text, &["Cluster: ", "Leader: ", "1 alive, none lost", "Units: ", "Store: "]);
    let status: ClusterStatus = world.json(&["cluster"]);
    assert_eq!(status.machines_alive, 1);
    assert_eq!(status.leader.map(|leader| leader.to_string()), Some(world.machine().id().to_owned()));
}

fn cluster_status(world: &World) {
    has("cluster status", &world.ask(&["cluster", "status"]), &["Leader: ", "1 alive, none lost"]);
    // A busy computer may keep an engine behind for a moment, and that is told.
    eventually(LIMIT, "nothing to be a problem", || {
        let status: ClusterStatus = world.json(&["cluster", "status"]);
        Ok(status.problems.is_empty().then_some(()))
    })
    .unwrap();
}

/// Nothing is held; that what is held goes on is shown where machines are lost.
fn release_hold(world: &World) {
    assert_eq!(world.ask(&["cluster", "release-hold"]), "");
}

/// The store has not gone back; that one which has is gone on with is shown where it does.
fn accept_store(world: &World) {
    assert_eq!(world.ask(&["cluster", "accept-store"]), "");
    assert_eq!(world.show("web@1.service", "ActiveState"), "active");
}

fn version(world: &World) {
    let own = env!("CARGO_PKG_VERSION");
    let id = world.machine().id();
    assert_eq!(world.ask(&["version"]), format!("flotctl {own}\nflotillad {own} on m1 ({id})\n"));
    assert_eq!(world.ask(&["--version"]), format!("flotctl {own}\n"));
    let both: Value = world.json(&["version"]);
    assert_eq!(both["flotillad"]["machine"], id);

    // Wherever it is asked: the endpoint and the certificates may be given in each way.
    let folder = world.cluster.directory().join("cluster/user-admin");
    for file in ["ca.pem", "user.pem", "user-key.pem", "flotctl.toml"] {
        world.machine().copy_in(&folder.join(file), &format!("/root/admin/{file}")).unwrap();
    }
    let endpoint = format!("https://{}:7400", world.machine().address());
    let certificate = ["--ca=/root/admin/ca.pem", "--certificate=/root/admin/user.pem"];
    let by_options =
        [&["version", "--endpoint", &endpoint, "--key=/root/admin/user-key.pem"], &certificate[..]];
    has("over TLS", &world.ask(&by_options.concat()), &[id]);
    has("by file", &world.ask(&["version", "--config=/root/admin/flotctl.toml"]), &[id]);
    let submitted = world.write("theirs.service", "[Service]\nExecStart=/bin/true\n");
    world.ask(&["submit", "--config=/root/admin/flotctl.toml", &submitted]);
    let by = world.ask(&["list-unit-files", "--no-legend", "--fields=by", "theirs*"]);
    assert_eq!(by, "admin\n", "a user is who the certificate says");
    world.ask(&["destroy", "theirs"]);
    let unreachable = world.expect(6, &["list-units", "--endpoint=unix:///run/nobody.sock"]);
    unreachable.complains(&["unix:///run/nobody.sock", "systemctl status flotillad"]);
    // A version can be told without a cluster.
    has("alone", &world.ask(&["version", "--endpoint=/run/nobody.sock"]), &[own, "unknown"]);
}

fn completion(world: &World) {
    for (shell, marker) in [("bash", "complete -o"), ("zsh", "#compdef flotctl"), ("fish", "complete ")] {
        has(shell, &world.ask(&["completion", shell]), &[marker, "flotctl"]);
    }
    world.expect(2, &["completion", "tcsh"]).complains(&["bash, zsh, fish"]);
    // What bash does at a tab.
    let line = r#"eval "$(flotctl completion bash)"; COMP_LINE='flotctl cat web@'; COMP_POINT=16; COMP_TYPE=9
                  _flotctl flotctl @ cat; printf '%s\n' "${COMPREPLY[@]}""#;
    // Who types waits no longer than half a second for them, and presses the key again.
    eventually(LIMIT, "the cluster's units at a tab", || {
        let names = world.machine().run(&["bash", "-c", line])?;
        let offered = |name| names.lines().any(|line| line.trim() == name);
        // Of the word bash gives away, and takes, what stands behind the sign that divides it.
        Ok(["@.service", "@1.service", "@2.service"].into_iter().all(offered).then_some(()))
    })
    .unwrap();
    world.expect(2, &["no-such-command"]).complains(&["unrecognized subcommand"]);
    has("help", &world.ask(&["help", "start"]), &["--no-block"]);
}

fn man(world: &World) {
    world.expect(0, &["man", "/root/man"]);
    let pages = world.machine().run(&["ls", "/root/man"]).unwrap();
    has("man", &pages, &["flotctl.1", "flotctl-start.1"]);
}
