//! The scheduling stories: what units ask of their machines, on machines; each reaches what is documented, and
//! a unit that is nowhere says why, machine by machine.
//!
//! The stories of a test share one cluster. Each begins on machines without units and ends so.

use flotilla_integration_tests::Cluster;

use crate::alone;

mod away;
mod places;
mod room;
mod stage;

use stage::Stage;

#[test]
fn stories_of_where_units_may_be() {
    let _alone = alone();
    let cluster = Cluster::up("places", 3, 1).unwrap();
    let stage = Stage::new(&cluster);
    stage.tell("conflicts with more units than machines", places::more_that_conflict_than_machines);
    stage.tell("a pair follows its leader", places::a_pair_follows_its_leader);
    stage.tell("one that is replaced waits", places::who_is_replaced_goes_elsewhere_or_waits);
    stage
        .tell("global units with metadata and conflicts", places::global_where_metadata_and_conflicts_let_it);
    stage.tell("metadata changes while it runs", places::metadata_changes_while_units_run);
    stage.tell("one machine by host name, id and prefix", places::one_machine_and_no_other);
}

#[test]
fn stories_of_how_units_share_machines() {
    let _alone = alone();
    let cluster = Cluster::up("sharing", 3, 1).unwrap();
    let stage = Stage::new(&cluster);
    stage.tell("spread over zones", room::spread_over_zones);
    stage.tell("so many on a machine", room::so_many_on_a_machine);
    stage.tell("wishes keep nobody away", room::wishes_keep_nobody_away);
    stage.tell("one holder of a port on a machine", room::one_holder_of_a_port_on_a_machine);
    room::give_each_one_slot(&stage);
    stage.tell("priority and preemption", room::who_comes_first_and_who_may_push);
}

#[test]
fn stories_of_a_machine_that_leaves_and_returns() {
    let _alone = alone();
    let cluster = Cluster::up("away", 3, 1).unwrap();
    let stage = Stage::new(&cluster);
    stage.tell("a machine leaves and returns", away::a_machine_leaves_and_returns);
}
