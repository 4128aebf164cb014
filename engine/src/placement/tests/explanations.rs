//! Explanations as people see them.

use super::*;

#[test]
fn machines_are_counted_per_rule() {
    let mut world = World::new(&["zone=a", "zone=c", "zone=b", "", "zone=b"]);
    world.machine(5, MachineView { schedulable: false, ..looks("zone=b") });
    world.want("web@1.service", "MachineID=3 Conflicts=web@*.service");
    world.want("web@2.service", "zone=b Conflicts=web@*.service");
    world.run();
    insta::assert_snapshot!(world.why("web@2.service"), @"web@2.service cannot be placed: 1 machine: cordoned, stopped or held; 3 machines: metadata zone=b does not match (a, c, not set); 1 machine: conflicts with web@1.service");
    insta::assert_snapshot!(world.why("web@1.service"), @"web@1.service is on m3: 1 machine: cordoned, stopped or held; 3 machines: not machine 00000000");
    insta::assert_snapshot!(world.why("web@9.service"), @"web@9.service is not known");
}

#[test]
fn many_of_a_kind_are_one_line() {
    let mut world = World::new(&[""; 6]);
    for n in 1..=7 {
        world.want(&format!("web@{n}.service"), "Conflicts=web@*.service");
    }
    world.run();
    insta::assert_snapshot!(world.why("web@7.service"), @"web@7.service cannot be placed: 6 machines: conflicts with web@1.service, web@2.service, web@3.service and 3 more");
}

#[test]
fn every_rule_that_a_machine_breaks_is_listed() {
    let mut world = World::new(&["zone=a"]);
    world.want("db.service", "");
    world.want("g.service", "Global");
    world.run();
    world.drain(1);
    world.want("u.service", "MachineID=2 zone=b MachineOf=ghost.service Conflicts=db*");
    let told = world.0.explain(&name("u.service"));
    let reasons: Vec<String> = told.machines[0].reasons.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(reasons.join("\n"), @r"
    draining
    not machine 00000000
    metadata zone=b does not match (a)
    ghost.service is not known
    conflicts with db.service
    ");
    assert!(told.is_unplaceable());
    assert_eq!((told.machines[0].load, told.machines[0].here), (2, false));
}

#[test]
fn an_empty_cluster_says_so() {
    let mut world = World::default();
    world.want("u.service", "");
    insta::assert_snapshot!(world.why("u.service"), @"u.service cannot be placed: there are no machines");
}

#[test]
fn what_if_changes_nothing() {
    let mut world = World::new(&["zone=a", "zone=b"]);
    world.want("u.service", "zone=a");
    assert_eq!(world.run(), "u+1");
    let ask = |words: &str| UnitView { requirements: asks(words), wanted: Wanted::Placed };
    let told = world.0.what_if(&name("v.service"), ask("zone=b Conflicts=x.service"));
    assert_eq!(told.standing, Standing::Placeable(machine(2)));
    let told = world.0.what_if(&name("w.service"), ask("MachineOf=u.service zone=b Conflicts=v*"));
    insta::assert_snapshot!(told, @"w.service cannot be placed: 1 machine: metadata zone=b does not match (a); 1 machine: u.service is not there");
    let _ = world.0.what_if(&name("u.service"), ask("zone=b"));
    assert_eq!(world.run(), "");
    insta::assert_snapshot!(world.why("u.service"), @"u.service is on m1: 1 machine: metadata zone=a does not match (b)");
    insta::assert_snapshot!(world.why("v.service"), @"v.service is not known");
    assert_eq!((world.0.by_name.units().count(), world.0.followers.len()), (1, 0));
}
