//! The brake by itself, on a clock of its own.

use super::*;

/// Machines 1 to `of`, of which the first `lost` are away, each with units that have a place elsewhere.
struct Machines {
    living: usize,
    takes_units: bool,
    would_move: Vec<MachineId>,
}

impl Surroundings for Machines {
    fn living(&self) -> usize {
        self.living
    }

    fn takes_units(&self) -> bool {
        self.takes_units
    }

    fn would_move(&self, machine: MachineId) -> bool {
        self.would_move.contains(&machine)
    }
}

fn machine(n: usize) -> MachineId {
    format!("{n:032x}").parse().expect("valid")
}

fn living(living: usize) -> Machines {
    Machines { living, takes_units: living > 0, would_move: Vec::new() }
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The first `lost` of `of` machines are away, and nobody else.
fn lose(brake: &mut Brake, lost: usize, of: usize, now: Duration) -> Option<BrakeChange> {
    (1..=of).for_each(|n| match n <= lost {
        true => brake.away(machine(n), true, Noticed::Now, now),
        false => brake.not_away(machine(n)),
    });
    brake.update(&living(of - lost), now, false)
}

fn find(brake: &mut Brake, machines: impl IntoIterator<Item = usize>) {
    machines.into_iter().for_each(|n| brake.away(machine(n), true, Noticed::Listed, at(0)));
}

#[test]
fn one_machine_never_trips_it() {
    for of in 1..10 {
        assert_eq!(lose(&mut Brake::default(), 1, of, at(0)), None, "1 of {of}");
    }
}

#[test]
fn it_takes_three_and_more_than_thirty_per_cent() {
    assert_eq!(lose(&mut Brake::default(), 2, 2, at(0)), None);
    assert_eq!(lose(&mut Brake::default(), 3, 10, at(0)), None, "exactly 30 %");
    let tripped = lose(&mut Brake::default(), 3, 9, at(0));
    assert_eq!(tripped, Some(BrakeChange::Tripped { lost: 3, of: 9 }));
}

#[test]
fn losses_further_apart_than_the_window_do_not_add_up() {
    let mut brake = Brake::default();
    assert_eq!(lose(&mut brake, 1, 5, at(0)), None);
    assert_eq!(lose(&mut brake, 2, 5, at(40)), None);
    assert_eq!(lose(&mut brake, 3, 5, at(61)), None, "the first is too long ago");
    assert!(lose(&mut brake, 4, 5, at(62)).is_some(), "three within 22 s");
}

#[test]
fn a_loss_counts_although_its_units_have_moved_on_until_the_machine_is_back() {
    let mut brake = Brake::default();
    brake.away(machine(1), true, Noticed::Now, at(0));
    assert_eq!(brake.update(&living(5), at(0), false), None);
    brake.away(machine(1), false, Noticed::Now, at(1));
    brake.away(machine(2), true, Noticed::Now, at(1));
    assert_eq!(brake.update(&living(4), at(1), false), None);
    // The first is back, and its loss with it.
    brake.not_away(machine(1));
    brake.away(machine(2), false, Noticed::Now, at(2));
    brake.away(machine(3), true, Noticed::Now, at(2));
    assert_eq!(brake.update(&living(4), at(2), false), None);
    brake.away(machine(4), true, Noticed::Now, at(3));
    let tripped = brake.update(&living(3), at(3), false);
    assert_eq!(tripped, Some(BrakeChange::Tripped { lost: 3, of: 6 }));
    assert_eq!(brake.update(&living(3), at(4), false), None, "it holds");
}

#[test]
fn machines_long_dead_count_on_neither_side() {
    let mut brake = Brake::default();
    (100..130).for_each(|n| brake.away(machine(n), false, Noticed::Now, at(0)));
    assert_eq!(brake.update(&living(10), at(0), false), None);
    // A unit that only this machine may have stays with it.
    brake.away(machine(99), true, Noticed::Now, at(100));
    assert_eq!(brake.update(&living(9), at(100), false), None);
    (1..=3).for_each(|n| brake.away(machine(n), true, Noticed::Now, at(200)));
    assert_eq!(brake.update(&living(6), at(200), false), Some(BrakeChange::Tripped { lost: 3, of: 9 }));
}

#[test]
fn what_a_listing_finds_away_counts_if_something_would_move() {
    let mut brake = Brake::default();
    find(&mut brake, 1..=4);
    assert_eq!(brake.update(&living(5), at(1), false), None, "all that could move has");
    let would_move = |n: &[usize]| n.iter().map(|n| machine(*n)).collect();
    let some = Machines { would_move: would_move(&[1, 2]), ..living(5) };
    assert_eq!(brake.update(&some, at(2), false), None, "two of seven");
    let more = Machines { would_move: would_move(&[1, 2, 3]), ..living(5) };
    assert_eq!(brake.update(&more, at(3), false), Some(BrakeChange::Tripped { lost: 3, of: 8 }));
}

#[test]
fn what_a_listing_finds_away_is_looked_at_while_machines_register_and_for_a_window_after() {
    let all = |lost: usize| Machines { would_move: (1..=lost).map(machine).collect(), ..living(1) };
    let mut brake = Brake::default();
    find(&mut brake, 1..=4);
    assert_eq!(brake.update(&living(0), at(0), false), None, "nobody is there");
    // Ten minutes until the first has booted.
    assert_eq!(brake.update(&all(4), at(600), false), Some(BrakeChange::Tripped { lost: 4, of: 5 }));

    let mut brake = Brake::default();
    find(&mut brake, 1..=4);
    assert_eq!(brake.update(&living(1), at(0), false), None);
    assert_eq!(brake.update(&all(4), at(61), false), None, "they get a place long after they died");
    // Another listing finds the same: they are known.
    find(&mut brake, 1..=4);
    assert_eq!(brake.update(&all(4), at(62), false), None);
}

#[test]
fn it_goes_on_at_recovery_at_the_end_and_on_a_word() {
    let tripped = || {
        let mut brake = Brake::default();
        assert!(lose(&mut brake, 4, 6, at(10)).is_some());
        brake
    };
    let mut brake = tripped();
    assert_eq!(lose(&mut brake, 3, 6, at(100)), None, "three are still too many");
    assert_eq!(lose(&mut brake, 2, 6, at(110)), Some(BrakeChange::Recovered));
    assert!(!brake.holds());

    let mut brake = tripped();
    assert_eq!(brake.ends_at(), Some(at(310)));
    assert_eq!(lose(&mut brake, 4, 6, at(309)), None);
    assert_eq!(lose(&mut brake, 4, 6, at(310)), Some(BrakeChange::Expired));
    assert_eq!(lose(&mut brake, 4, 6, at(311)), None, "what was judged never trips again");

    let mut brake = tripped();
    assert_eq!(brake.update(&living(2), at(11), true), Some(BrakeChange::Released));
    assert_eq!(lose(&mut brake, 4, 6, at(12)), None);

    let mut brake = tripped();
    brake.over();
    assert_eq!(lose(&mut brake, 4, 6, at(12)), None, "another seat's word is as good");
}
