//! What makes units move, and how.

use super::*;

#[test]
fn a_unit_that_can_stay_stays() {
    let mut world = World::new(&["zone=a"]);
    for n in 1..=4 {
        world.want(&format!("u{n}.service"), "zone=a");
    }
    world.run();
    // Neither an empty machine, nor a cordon, nor changes that break nothing.
    world.machine(2, looks("zone=a"));
    world.machine(1, MachineView { schedulable: false, ..looks("zone=a disk=ssd") });
    world.want("u1.service", "zone=a zone=b");
    assert_eq!(world.run(), "");
    world.want("u5.service", "zone=a");
    assert_eq!(world.run(), "u5+2");
}

#[test]
fn a_move_waits_for_proof() {
    let mut world = World::new(&["zone=a", "zone=a"]);
    world.want("u.service", "zone=a");
    assert_eq!(world.run(), "u+1");
    world.machine(1, looks("zone=b"));
    assert_eq!(world.run(), "u-1");
    assert_eq!(
        world.why("u.service"),
        "u.service waits until it is gone from m1: 1 machine: metadata zone=a does not match (b)"
    );
    world.gone("u.service", 1);
    assert_eq!(world.run(), "u+2");
}

#[test]
fn it_is_not_placed_where_it_still_departs() {
    let mut world = World::new(&[""]);
    world.want("u.service", "");
    world.run();
    world.unload("u.service");
    assert_eq!(world.run(), "u-1");
    world.want("u.service", "");
    assert_eq!(world.run(), "");
    world.gone("u.service", 1);
    assert_eq!(world.run(), "u+1");
    world.want("g.service", "Global");
    world.0.set_departing(&name("g.service"), machine(1));
    assert_eq!(world.run(), "");
    world.gone("g.service", 1);
    assert_eq!(world.run(), "g+1");
}

#[test]
fn a_dead_machines_units_move_at_once_or_stay_until_it_returns() {
    let mut world = World::new(&["", ""]);
    world.want("a.service", "");
    world.want("b.service", "MachineID=1");
    world.want("c.service", "");
    assert_eq!(world.run(), "b+1 a+2 c+1");
    world.0.remove_machine(machine(1));
    assert_eq!(world.run(), "c-1 c+2");
    assert_eq!(world.why("b.service"), "b.service cannot be placed: 1 machine: not machine 00000000");
    world.machine(1, looks(""));
    assert_eq!(world.run(), "");
    assert_eq!(world.on("b.service"), [machine(1)]);
    // c is still departing there and goes nowhere again for it.
    assert_eq!((world.on("c.service"), world.0.load(machine(1))), (vec![machine(2)], 2));
}

#[test]
fn what_departs_from_a_dead_machine_is_in_nobodys_way() {
    let mut world = World::new(&["", ""]);
    world.want("u.service", "");
    world.run();
    world.drain(1);
    assert_eq!(world.run(), "u-1");
    world.0.remove_machine(machine(1));
    assert_eq!(world.run(), "u+2");
}

#[test]
fn a_drained_machine_is_left_by_all() {
    let mut world = World::new(&["", ""]);
    world.want("a.service", "MachineID=1");
    world.want("b.service", "");
    world.want("g.service", "Global");
    assert_eq!(world.run(), "a+1 b+2 g+1 g+2");
    world.drain(1);
    assert_eq!(world.run(), "a-1 g-1");
    world.gone("a.service", 1);
    world.gone("g.service", 1);
    assert_eq!(world.run(), "");
    world.machine(1, looks(""));
    assert_eq!(world.run(), "a+1 g+1");
}

#[test]
fn followers_move_after_their_leader() {
    let mut world = World::new(&["", ""]);
    world.want("db.service", "");
    world.want("web.service", "MachineOf=db.service");
    assert_eq!(world.run(), "db+1 web+1");
    world.drain(1);
    assert_eq!(world.run(), "web-1 db-1");
    world.gone("web.service", 1);
    assert_eq!(world.run(), "");
    world.gone("db.service", 1);
    assert_eq!(world.run(), "db+2 web+2");
    world.unload("db.service");
    assert_eq!(world.run(), "db-2 web-2");
    world.gone("web.service", 2);
    world.gone("db.service", 2);
    assert_eq!(
        world.why("web.service"),
        "web.service cannot be placed: 1 machine: draining; 1 machine: db.service is inactive"
    );
}

#[test]
fn a_leader_still_goes_where_a_follower_that_has_not_left_yet_may() {
    let mut world = World::new(&["zone=b", "", "zone=b"]);
    world.want("db.service", "");
    world.want("web.service", "MachineOf=db.service zone=b");
    assert_eq!(world.run(), "db+1 web+1");
    world.drain(1);
    world.run();
    world.gone("db.service", 1);
    assert_eq!(world.run(), "db+3");
    world.gone("web.service", 1);
    assert_eq!(world.run(), "web+3");
}

#[test]
fn nothing_is_concluded_from_what_was_never_told() {
    let mut world = World::new(&["", ""]);
    world.0.set_placed(&name("stranger.service"), machine(1));
    world.0.set_placed(&name("web.service"), machine(2));
    world.want("web.service", "MachineOf=unheard.service");
    assert_eq!(world.run(), "");
    // It counts all the same.
    world.want("a.service", "Conflicts=stranger.service");
    assert_eq!(world.run(), "a+2");
    world.0.remove_unit(&name("stranger.service"));
    assert_eq!(world.run(), "stranger-1");
}

#[test]
fn replaces_pushes_the_other_to_a_machine_that_can_take_it() {
    let mut world = World::new(&["", ""]);
    world.want("old.service", "");
    world.want("other.service", "MachineID=2");
    assert_eq!(world.run(), "other+2 old+1");
    world.want("new.service", "Replaces=old.service");
    assert_eq!(world.run(), "new+1 old-1");
    world.gone("old.service", 1);
    assert_eq!(world.run(), "old+2");
}

#[test]
fn replaces_does_not_flap_on_a_single_machine() {
    let mut world = World::new(&[""]);
    world.want("old.service", "");
    assert_eq!(world.run(), "old+1");
    world.want("new.service", "Replaces=ol*.service");
    assert_eq!(world.run(), "new+1 old-1");
    world.gone("old.service", 1);
    assert_eq!(world.run(), "");
    assert_eq!(world.why("old.service"), "old.service cannot be placed: 1 machine: replaced by new.service");
    world.unload("new.service");
    assert_eq!(world.run(), "new-1 old+1");
}

#[test]
fn mutual_replaces_is_ignored() {
    let mut world = World::new(&[""]);
    world.want("a.service", "Replaces=b.service");
    world.want("b.service", "Replaces=a.service");
    assert_eq!(world.run(), "a+1 b+1");
    assert_eq!(world.run(), "");
}

#[test]
fn new_conflicts_are_settled_by_precedence() {
    let mut world = World::new(&["", ""]);
    for (unit, words) in [("a.service", "Global"), ("b.service", "MachineID=1"), ("c.service", "")] {
        world.0.set_placed(&name(unit), machine(1));
        world.want(unit, words);
    }
    assert_eq!(world.run(), "a+2");
    // b cannot go elsewhere and is not global: c and a go.
    world.want("c.service", "Conflicts=b.service");
    world.want("b.service", "MachineID=1 Conflicts=a.service");
    assert_eq!(world.run(), "c-1 a-1");
}

#[test]
fn a_second_home_is_given_up() {
    let mut world = World::new(&["", ""]);
    world.want("u.service", "");
    world.0.set_placed(&name("u.service"), machine(2));
    world.0.set_placed(&name("u.service"), machine(1));
    assert_eq!(world.run(), "u-2");
}

#[test]
fn a_decision_that_could_not_be_written_is_taken_back() {
    let mut world = World::new(&["", ""]);
    world.want("u.service", "");
    assert_eq!(world.run(), "u+1");
    world.0.clear_placed(&name("u.service"), machine(1));
    assert_eq!(world.run(), "u+1");
    world.unload("u.service");
    assert_eq!(world.run(), "u-1");
    world.0.set_placed(&name("u.service"), machine(1));
    world.0.clear_departing(&name("u.service"), machine(1));
    assert_eq!(world.run(), "u-1");
}

#[test]
fn a_destroyed_unit_is_forgotten_with_its_last_entry() {
    let mut world = World::new(&[""]);
    world.want("u.service", "");
    world.run();
    world.0.remove_unit(&name("u.service"));
    assert_eq!(world.run(), "u-1");
    world.gone("u.service", 1);
    assert_eq!(world.why("u.service"), "u.service is not known");
    assert_eq!((world.0.by_name.len(), world.0.load(machine(1)), world.0.waiting()), (0, 0, 0));
}
