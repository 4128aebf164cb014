//! Units that have to be with others leave a drained machine: together, one after the other, or not at all.

use super::{bits::Homes, model::UnitIx, *};

/// Decides, has everything come true, and so on, until there is nothing to decide; in a few rounds.
fn settled(world: &mut World) {
    let mut all = Vec::new();
    for _ in 0..12 {
        let said = world.run();
        if said.is_empty() {
            return;
        }
        all.push(said);
        let units: Vec<UnitIx> = world.0.by_name.units().collect();
        for unit in units {
            let it = world.0.unit(unit);
            let unit = it.name.clone();
            let ids = |homes: &Homes| homes.iter().map(|slot| world.0.machine(slot).id).collect::<Vec<_>>();
            let (leaving, placed, moves) = (ids(&it.departing), ids(&it.placed), !it.moving.is_empty());
            leaving.into_iter().for_each(|id| world.0.clear_departing(&unit, id));
            placed.into_iter().filter(|_| moves).for_each(|id| world.0.set_ready(&unit, id));
        }
    }
    panic!("it goes on for ever: {all:#?}");
}

#[test]
fn a_leader_that_takes_its_followers_room_comes_back_once() {
    // 2 has one gpu and an `a` of its own.
    let mut world = World::new(&["gpu:2"]);
    world.want("a1.service", "Use.gpu=1 Priority=5");
    world.want("f.service", "Use.gpu=1 MachineOf=a*");
    world.run();
    world.machine(2, looks("gpu:1"));
    world.want("a2.service", "MachineID=2");
    world.run();
    world.drain(1);
    settled(&mut world);
    assert_eq!((world.on("a1.service"), world.on("f.service")), (vec![machine(1)], vec![machine(2)]));

    let mut world = World::new(&["gpu:2"]);
    world.want("z0.service", "");
    world.want("a1.service", "Use.gpu=1 MachineOf=z*");
    world.want("f.service", "Use.gpu=1 MachineOf=a*");
    world.run();
    world.machine(2, looks("gpu:1"));
    for unit in ["a2.service", "z2.service"] {
        world.want(unit, "MachineID=2");
    }
    world.run();
    world.drain(1);
    settled(&mut world);
    assert_eq!(
        world.on("f.service"),
        [machine(2)],
        "there is one gpu, and it is the follower that may have it"
    );
}

#[test]
fn two_that_follow_each_others_kind_leave_each_to_another_machine() {
    let mut world = World::new(&["CPU:200"]);
    for unit in ["a1.service", "b1.service"] {
        world.want(unit, "");
    }
    world.run();
    world.want("a1.service", "CPU=60 MachineOf=b*");
    world.want("b1.service", "CPU=60 MachineOf=a*");
    assert_eq!(world.run(), "");
    for n in [2, 3] {
        world.machine(n, looks("CPU:70"));
        world.want(&format!("a{n}.service"), &format!("MachineID={n}"));
        world.want(&format!("b{n}.service"), &format!("MachineID={n}"));
    }
    world.run();
    world.drain(1);
    settled(&mut world);
    assert_eq!((world.on("a1.service"), world.on("b1.service")), (vec![machine(2)], vec![machine(3)]));
}

#[test]
fn twins_that_follow_their_own_template_leave_each_to_another_machine() {
    let mut world = World::new(&["CPU:200"]);
    for n in [1, 2] {
        world.want(&format!("w@{n}.service"), "CPU=60");
    }
    world.run();
    for n in [1, 2] {
        world.want(&format!("w@{n}.service"), "CPU=60 MachineOf=w@*");
    }
    assert_eq!(world.run(), "");
    for n in [2, 3] {
        world.machine(n, looks("CPU:70"));
        world.want(&format!("w@{}.service", n + 1), &format!("MachineID={n}"));
    }
    world.run();
    world.drain(1);
    settled(&mut world);
    assert_eq!((world.on("w@1.service"), world.on("w@2.service")), (vec![machine(2)], vec![machine(3)]));
}
