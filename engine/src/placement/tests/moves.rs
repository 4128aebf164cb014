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
    world.machine(1, looks("zone=b"));
    world.want("u.service", "!zone");
    assert_eq!(world.run(), "u-1");
    world.0.remove_machine(machine(1));
    assert_eq!(world.run(), "u+2");
}

#[test]
fn units_leave_a_drained_machine_once_they_are_ready_elsewhere() {
    let mut world = World::new(&["", ""]);
    world.want("a.service", "MachineID=1");
    world.want("b.service", "");
    world.want("c.service", "");
    world.want("g.service", "Global");
    assert_eq!(world.run(), "a+1 b+2 c+1 g+1 g+2");
    world.drain(1);
    assert_eq!(world.run(), "g-1 c1>2");
    assert_eq!(
        world.why("c.service"),
        "c.service is being started on m2, and leaves m1 once it is ready there: 1 machine: draining"
    );
    assert_eq!(
        world.why("a.service"),
        "a.service stays on m1, which is drained: nothing else takes it: 1 machine: not machine 00000000"
    );
    world.gone("g.service", 1);
    assert_eq!(world.run(), "");
    world.ready("c.service", 2);
    assert_eq!(world.run(), "c-1");
    world.gone("c.service", 1);
    assert_eq!(world.run(), "");
    world.draining(1, false);
    assert_eq!(world.run(), "g+1");
}

#[test]
fn those_tied_together_leave_together_or_not_at_all() {
    let mut world = World::new(&["CPU:4000", "CPU:3000", "CPU:1000"]);
    world.want("db.service", "CPU=1000");
    world.want("web.service", "MachineOf=db.service CPU=1000");
    world.want("log.service", "MachineOf=web.service CPU=1000");
    assert_eq!(world.run(), "db+1 web+1 log+1");
    world.want("other.service", "MachineID=2 CPU=500");
    assert_eq!(world.run(), "other+2");
    world.drain(1);
    assert_eq!(world.run(), "");
    assert_eq!(
        world.why("db.service"),
        "db.service stays on m1, which is drained: nothing else takes it together with log.service, web.service"
    );
    world.unload("other.service");
    world.run();
    world.gone("other.service", 2);
    assert_eq!(world.run(), "log1>2 web1>2 db1>2");
    // Nobody's leader leaves before them.
    world.ready("db.service", 2);
    assert_eq!(world.run(), "");
    world.ready("log.service", 2);
    assert_eq!(world.run(), "log-1");
    world.ready("web.service", 2);
    assert_eq!(world.run(), "web-1 db-1");
}

#[test]
fn who_leaves_a_drained_machine_pushes_others_away_only_where_nothing_else_takes_it() {
    let mut world = World::new(&["", "", ""]);
    world.want("old.service", "MachineID=2");
    world.run();
    world.want("new.service", "Replaces=old.service");
    world.want("x@1.service", "MachineID=3");
    world.want("x@2.service", "MachineID=3");
    assert_eq!(world.run(), "new+1 x@1+3 x@2+3");
    world.drain(1);
    assert_eq!(world.run(), "new1>3", "although 2 has fewer units");
    world.ready("new.service", 3);
    assert_eq!(world.run(), "new-1");
    world.gone("new.service", 1);
    world.drain(3);
    assert_eq!(world.run(), "new3>2 old-2");
}

#[test]
fn a_move_is_taken_back_when_it_comes_to_nothing() {
    let mut world = World::new(&["", "", ""]);
    world.want("u.service", "");
    assert_eq!(world.run(), "u+1");
    world.drain(1);
    assert_eq!(world.run(), "u1>2");
    // The new place is lost: another is tried.
    world.0.remove_machine(machine(2));
    assert_eq!(world.run(), "u-2 u=1 u1>3");
    // It is refused: it is left, and while it is nothing else is tried.
    world.drain(3);
    assert_eq!(world.run(), "u-3 u=1");
    world.gone("u.service", 3);
    assert_eq!(world.run(), "");
    world.draining(3, false);
    assert_eq!(world.run(), "u1>3");
    // The drain is over before it is ready.
    world.draining(1, false);
    assert_eq!(world.run(), "u-3 u=1");
    world.gone("u.service", 3);
    assert_eq!(world.run(), "");
    // Both are lost: it is placed anew.
    world.drain(1);
    assert_eq!(world.run(), "u1>3");
    world.machine(4, looks(""));
    world.0.remove_machine(machine(1));
    assert_eq!(world.run(), "");
    world.0.remove_machine(machine(3));
    assert_eq!(world.run(), "u-3 u-1 u+4");
}

#[test]
fn what_moves_is_unloaded_everywhere() {
    let mut world = World::new(&["", ""]);
    world.want("u.service", "");
    world.run();
    world.drain(1);
    assert_eq!(world.run(), "u1>2");
    world.unload("u.service");
    assert_eq!(world.run(), "u-2 u-1");
}

#[test]
fn a_sticky_unit_waits_for_its_machine() {
    let mut world = World::new(&["", ""]);
    world.want("u.service", "Sticky");
    assert_eq!(world.run(), "u+1");
    world.drain(1);
    assert_eq!(world.run(), "");
    world.0.remove_machine(machine(1));
    assert_eq!(world.run(), "");
    assert_eq!(world.why("u.service"), "u.service is sticky and waits for 00000000 (lost)");
    world.want("u.service", "Sticky !zone");
    world.machine(1, looks("zone=a"));
    assert_eq!(world.run(), "u-1");
    world.gone("u.service", 1);
    assert_eq!(world.run(), "u+2");
}

#[test]
fn followers_move_after_their_leader() {
    let mut world = World::new(&["", "zone=b"]);
    world.want("db.service", "!zone");
    world.want("web.service", "MachineOf=db.service");
    assert_eq!(world.run(), "db+1 web+1");
    world.machine(1, looks("zone=a"));
    world.machine(2, looks(""));
    assert_eq!(world.run(), "db-1 web-1");
    world.gone("web.service", 1);
    assert_eq!(world.run(), "");
    world.gone("db.service", 1);
    assert_eq!(world.run(), "db+2 web+2");
    world.unload("db.service");
    assert_eq!(world.run(), "db-2 web-2");
    world.gone("web.service", 2);
    world.gone("db.service", 2);
    assert_eq!(world.why("web.service"), "web.service cannot be placed: 2 machines: db.service is inactive");
}

#[test]
fn a_leader_still_goes_where_a_follower_that_has_not_left_yet_may() {
    let mut world = World::new(&["zone=b", "", "zone=b"]);
    world.want("db.service", "!out");
    world.want("web.service", "MachineOf=db.service zone=b");
    assert_eq!(world.run(), "db+1 web+1");
    world.machine(1, looks("zone=b out=1"));
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
    assert_eq!((world.0.by_name.units().count(), world.0.load(machine(1)), world.0.waiting()), (0, 0, 0));
}

#[test]
fn what_one_follows_comes_back_when_a_drain_ends_before_it_could_follow() {
    let mut world = World::new(&["", ""]);
    world.machine(2, MachineView { schedulable: false, ..looks("") });
    world.want("db.service", "");
    world.want("web.service", "MachineOf=db.service");
    assert_eq!(world.run(), "db+1 web+1");
    world.machine(2, looks(""));
    world.drain(1);
    assert_eq!(world.run(), "web1>2 db1>2");
    world.ready("db.service", 2);
    world.draining(1, false);
    assert_eq!(world.run(), "web-2 web=1 db-2 db=1");
}

#[test]
fn a_move_that_fails_is_taken_back_and_goes_elsewhere_or_nowhere() {
    let mut world = World::new(&["", "", ""]);
    world.want("a.service", "");
    assert_eq!(world.run(), "a+1");
    world.drain(1);
    assert_eq!(world.run(), "a1>2");
    let fails = |world: &mut World, n| world.0.set_failing(&name("a.service"), machine(n), true);
    fails(&mut world, 2);
    assert_eq!(world.run(), "a-2 a=1");
    world.gone("a.service", 2);
    assert_eq!(world.run(), "a1>3", "not to where it failed");
    fails(&mut world, 3);
    assert_eq!(world.run(), "a-3 a=1");
    world.gone("a.service", 3);
    assert_eq!(world.run(), "", "it runs where it is");
    // Another machine of that id, or a drain that is asked for again, is another try.
    world.machine(3, looks("zone=a"));
    assert_eq!(world.run(), "a1>3");
    fails(&mut world, 3);
    world.draining(1, false);
    assert_eq!(world.run(), "a-3 a=1");
    world.gone("a.service", 3);
    world.drain(1);
    assert_eq!(world.run(), "a1>2");
}

#[test]
fn those_that_belong_together_come_back_together_when_one_fails() {
    let mut world = World::new(&["", ""]);
    world.machine(2, MachineView { schedulable: false, ..looks("") });
    world.want("db.service", "");
    world.want("web.service", "MachineOf=db.service");
    assert_eq!(world.run(), "db+1 web+1");
    world.machine(2, looks(""));
    world.drain(1);
    assert_eq!(world.run(), "web1>2 db1>2");
    world.ready("db.service", 2);
    world.0.set_failing(&name("web.service"), machine(2), true);
    assert_eq!(world.run(), "web-2 web=1 db-2 db=1");
    world.gone("web.service", 2);
    world.gone("db.service", 2);
    assert_eq!(world.run(), "", "db goes nowhere without web");
}

#[test]
fn those_that_leave_together_take_with_them_whom_they_leave_alone() {
    // f follows any of a1 and a2, x keeps it from the other machine; a2 has to be with a1.
    let mut world = World::new(&["", "zone=b"]);
    world.want("x.service", "zone=b Conflicts=f.service");
    world.want("s.service", "zone=b");
    for (unit, asks) in [("a1", ""), ("a2", "MachineOf=a1.service"), ("f", "MachineOf=a*")] {
        world.want(&format!("{unit}.service"), asks);
    }
    world.run();
    for unit in ["a1.service", "a2.service", "f.service"] {
        assert_eq!(world.on(unit), [machine(1)]);
    }
    world.drain(1);
    assert_eq!(world.run(), "", "had both gone, f would have had to, and there is no place for it");
    for unit in ["a1.service", "a2.service", "f.service"] {
        assert_eq!(world.on(unit), [machine(1)]);
    }
    world.0.remove_unit(&name("x.service"));
    assert_eq!(world.run(), "x-2");
    world.gone("x.service", 2);
    assert_eq!(world.run(), "a21>2 a11>2 f1>2");
}

#[test]
fn who_is_held_back_by_its_follower_is_not_left_alone_either() {
    // a1 finds others of its pattern elsewhere, but c, which has to be with it, finds no way.
    let mut world = World::new(&["", "zone=b"]);
    world.want("x.service", "zone=b Conflicts=c.service");
    world.want("a0.service", "zone=b");
    for (unit, asks) in [("a2", "!zone"), ("a1", "MachineOf=a2.service"), ("c", "MachineOf=a1.service")] {
        world.want(&format!("{unit}.service"), asks);
    }
    world.run();
    world.want("a2.service", "");
    world.want("a1.service", "MachineOf=a*");
    assert_eq!(world.run(), "");
    world.drain(1);
    assert_eq!(world.run(), "", "moved and taken back for ever otherwise");
    for unit in ["a1.service", "a2.service", "c.service"] {
        assert_eq!(world.on(unit), [machine(1)]);
    }
    world.0.remove_unit(&name("x.service"));
    world.run();
    world.gone("x.service", 2);
    let said = world.run();
    assert!(["a1", "a2", "c"].iter().all(|unit| said.contains(&format!("{unit}1>2"))), "{said}");
}
