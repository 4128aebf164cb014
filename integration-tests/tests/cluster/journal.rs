//! A followed journal, merged from three machines: every line, in order, over lost connections.
//!
//! How late the lines are is printed here and judged by `cargo xtask bench journal`: a test beside
//! others on a busy computer is no place for a figure.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader},
    process::{Child, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use flotilla_api::journal::JournalLine;
use flotilla_integration_tests::{COUNT, COUNT_AT, COUNTER, Cluster, LIMIT, eventually};
use flotilla_lab::Machine;

use crate::{alone, start_instances};

/// How many units write.
const WRITERS: usize = 10;

/// What a followed journal has printed.
#[derive(Default)]
struct Heard {
    /// The numbers that each unit wrote, in the order in which they came.
    numbers: BTreeMap<String, Vec<u64>>,
    lags: Vec<Duration>,
}

#[test]
fn a_followed_journal_has_every_line_in_order_over_lost_connections() {
    let _alone = alone();
    let cluster = Cluster::up("journal", 3, 1).unwrap();
    let [m1, m2, _] = cluster.machines() else { panic!("three machines") };
    for machine in cluster.machines() {
        machine.write_file(COUNT_AT, COUNT).unwrap();
    }
    let heard = Arc::new(Mutex::new(Heard::default()));
    start_instances(&cluster, m1, "hello", COUNTER.to_owned(), WRITERS);
    let mut follower = follow(m1, &heard);
    let lines = || heard.lock().unwrap_or_else(PoisonError::into_inner).lags.len();
    let more = |what: &str, count: usize| {
        let begun = lines();
        eventually(LIMIT, format_args!("{count} more lines {what}"), || {
            Ok((lines() >= begun + count).then_some(()))
        })
        .unwrap();
    };
    more("at first", 5_000);
    let undisturbed = lines();
    m1.run(&["systemctl", "kill", "--signal=SIGKILL", "--kill-who=main", "flotillad"]).unwrap();
    more("over the death of the flotillad that was asked", 3_000);
    m1.run(&["systemctl", "restart", "flotillad"]).unwrap();
    more("over its restart", 3_000);
    m2.run(&["systemctl", "kill", "--signal=SIGKILL", "--kill-who=main", "flotillad"]).unwrap();
    more("over the death of the flotillad of another machine", 3_000);
    m2.cut().unwrap();
    m1.run(&["sleep", "3"]).unwrap();
    m2.heal().unwrap();
    more("over a cut cable", 5_000);

    // What runs is ended, so that there is a last line.
    cluster.ask(m1, &["stop", "hello@*.service"]).unwrap();
    let last = written(&cluster);
    assert_eq!(last.len(), WRITERS);
    eventually(LIMIT, "the last line of every unit", || {
        let heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(last
            .iter()
            .all(|(unit, last)| heard.numbers.get(unit).and_then(|n| n.last()) >= Some(last))
            .then_some(()))
    })
    .unwrap_or_else(|error| {
        let heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
        let ends: Vec<_> = heard.numbers.iter().map(|(unit, n)| (unit, n.len(), n.last())).collect();
        panic!("{error:#}: written {last:?}, heard {ends:?}");
    });
    follower.kill().unwrap();
    follower.wait().unwrap();

    let heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
    for (unit, last) in &last {
        let numbers = &heard.numbers[unit];
        let wrong = (1..).zip(numbers).find(|(expected, number)| expected != *number);
        assert_eq!(wrong, None, "{unit}: expected, heard");
        assert_eq!(numbers.len() as u64, *last, "{unit}");
    }
    let median = |lags: &[Duration]| {
        let mut lags = lags.to_vec();
        lags.sort();
        lags[lags.len() / 2]
    };
    let (calm, all) = (median(&heard.lags[undisturbed / 2..undisturbed]), median(&heard.lags));
    println!(
        "measured: {} lines of {WRITERS} units, none lost; lag p50 {} ms, {} ms with the lost connections",
        heard.lags.len(),
        calm.as_millis(),
        all.as_millis()
    );
}

/// Follows the writers' journal from its beginning.
fn follow(machine: &Machine, heard: &Arc<Mutex<Heard>>) -> Child {
    let words = ["flotctl", "journal", "--follow", "--since=-10min", "--output=json", "hello@*"];
    let mut command = machine.command(&words).unwrap();
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let heard = Arc::clone(heard);
    thread::spawn(move || {
        for line in output.lines() {
            let Ok(line) = line else { return };
            let line: JournalLine = serde_json::from_str(&line).unwrap();
            // systemd's own words about the unit are among its lines, too.
            if line.identifier.as_deref() != Some("perl") {
                continue;
            }
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
            heard.lags.push(now.saturating_sub(Duration::from_micros(line.realtime_us)));
            heard.numbers.entry(line.unit).or_default().push(line.message.parse().unwrap());
        }
    });
    child
}

/// The last number that each writer's own machine has of it.
fn written(cluster: &Cluster) -> BTreeMap<String, u64> {
    let mut last = BTreeMap::new();
    for machine in cluster.machines() {
        // What they printed last may not have got so far.
        machine.run(&["journalctl", "--sync"]).unwrap();
        for n in 1..=WRITERS {
            let unit = format!("hello@{n}.service");
            let line = format!("journalctl --quiet --output=cat --unit={unit} _COMM=perl | tail -n 1");
            if let Ok(number) = machine.shell(&line).unwrap().trim().parse() {
                last.insert(unit, number);
            }
        }
    }
    last
}
