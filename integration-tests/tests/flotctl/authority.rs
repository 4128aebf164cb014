//! The commands that make certificates: they ask nobody. That what they make is accepted is shown by
//! every cluster of these tests, whose machines have their certificates from `cluster init`.

use crate::{
    Row,
    world::{World, has},
};

pub const ROWS: [Row; 5] = [
    ("cluster init", cluster_init),
    ("ca init", ca_init),
    ("ca issue machine", ca_issue_machine),
    ("ca issue etcd", ca_issue_etcd),
    ("ca issue user", ca_issue_user),
];

fn files(world: &World, folder: &str) -> String {
    world.machine().run(&["ls", folder]).unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
}

fn cluster_init(world: &World) {
    let machines = ["a=10.0.0.1", "b=10.0.0.2", "c=10.0.0.3"];
    let options = ["--out=/root/new", "--etcd=a,b,c", "--user=ada", "--cluster-name=north"];
    let said = world.ask(&[&["cluster", "init"], &options[..], &machines].concat());
    has("cluster init", &said, &["user-ada/  for ada", "a/"]);
    assert_eq!(files(world, "/root/new"), "a b c ca user-ada");
    let again = world.expect(1, &["cluster", "init", "--out", "/root/new", "a=10.0.0.1"]);
    again.complains(&["/root/new"]);
    world.expect(2, &["cluster", "init", "a"]).complains(&["expected NAME=ADDRESS"]);
}

fn ca_init(world: &World) {
    has(
        "ca init",
        &world.ask(&["ca", "init", "--ca-dir=/root/authority", "--cluster-name=north"]),
        &["/root/authority", "root on every machine"],
    );
    let again = world.expect(1, &["ca", "init", "--ca-dir=/root/authority"]);
    again.complains(&["/root/authority"]);
}

fn ca_issue_machine(world: &World) {
    let id = "--machine-id=0123456789abcdef0123456789abcdef";
    let options = ["--ca-dir=/root/authority", "--out=/root/issued-m", "--host=10.0.0.9", "--days=30", id];
    has("issue", &world.ask(&[&["ca", "issue", "machine", "m9"], &options[..]].concat()), &["machine.pem"]);
    let found = files(world, "/root/issued-m");
    has("the folder", &found, &["machine.pem", "machine-key.pem", "etcd-client.pem"]);
    world.expect(2, &["ca", "issue", "machine", "m9"]).complains(&["--machine-id"]);
}

fn ca_issue_etcd(world: &World) {
    let options = ["--ca-dir=/root/authority", "--out=/root/issued-e", "--host=10.0.0.9", "--days=30"];
    has("issue", &world.ask(&[&["ca", "issue", "etcd", "m9"], &options[..]].concat()), &["etcd.pem"]);
    has("the folder", &files(world, "/root/issued-e"), &["etcd.pem", "etcd-key.pem"]);
    let days = world.expect(2, &["ca", "issue", "etcd", "m9", "--days=0"]);
    days.complains(&["--days"]);
}

fn ca_issue_user(world: &World) {
    let options = ["--ca-dir=/root/authority", "--out=/root/issued-u", "--days=30"];
    has("issue", &world.ask(&[&["ca", "issue", "user", "ada"], &options[..]].concat()), &["user.pem"]);
    let key = world.machine().run(&["stat", "--format=%a", "/root/issued-u/user-key.pem"]).unwrap();
    assert_eq!(key, "600\n", "the key is its owner's alone");
    let missing = world.expect(1, &["ca", "issue", "user", "ada", "--ca-dir=/root/nothing"]);
    missing.complains(&["/root/nothing"]);
}
