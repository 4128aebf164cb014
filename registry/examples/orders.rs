//! Measures how many orders about parts of one range a store takes.
//!
//! `cargo run --release -p flotilla-registry --example orders -- ENDPOINT [CLIENTS] [SECONDS] [FLOTILLADS]`: so many
//! clients start new instances and destroy old ones of one template, each waiting for its order's answer before the
//! next, as single units, lists of ten and ranges of ten. The store must be empty, and is left as it is.

// A program to be run by hand: it says what is wrong and stops.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::{
    env,
    sync::Arc,
    time::{Duration, Instant},
};

use flotilla_registry::{
    keys::Keys,
    operations::{OperationError, Operations},
    reads::Registry,
    records::Target,
    store::etcd::{EtcdConfig, EtcdStore},
    timing::Timing,
};
use flotilla_units::{UnitName, UnitRange};
use tokio::task::JoinSet;

/// How many instances there are at first.
const THERE: u64 = 500_000;

#[derive(Debug, Default)]
struct Counts {
    orders: u64,
    units: u64,
    refused: u64,
    waits: Vec<Duration>,
}

fn web(number: u64) -> UnitName {
    format!("web@{number}.service").parse().unwrap()
}

fn webs(from: u64, to: u64) -> UnitRange {
    UnitRange::new("web@.service".parse().unwrap(), from, to).unwrap()
}

fn operations(endpoint: &str) -> Operations {
    let config = EtcdConfig { endpoints: vec![endpoint.to_owned()], ..EtcdConfig::default() };
    let store = EtcdStore::connect(config).expect("an endpoint");
    Operations::new(Registry::new(Arc::new(store), Keys::default()), Timing::default())
}

/// Gives one order after the other, each about instances of this client only.
async fn client(operations: Arc<Operations>, number: u64, until: Instant) -> Counts {
    let (mut counts, first) = (Counts::default(), number * 5_000);
    let (mut started, mut destroyed) = (THERE + number * 100_000, first);
    while Instant::now() < until {
        let since = Instant::now();
        let turn = counts.orders % 6;
        let units = if turn < 2 { 1 } else { 10 };
        let at = if turn % 2 == 0 { &mut started } else { &mut destroyed };
        let (from, to) = (*at, *at + units - 1);
        *at += units;
        let names: Vec<UnitName> = (from..=to).map(web).collect();
        let done: Result<(), OperationError> = match turn {
            0 | 2 => operations.set_target(&names, Target::Launched, false, "test").await.map(drop),
            1 | 3 => operations.destroy(&names, "test").await.map(drop),
            4 => operations.set_target_in(&webs(from, to), Target::Launched, false, "test").await.map(drop),
            _ => operations.destroy_in(&webs(from, to), "test").await.map(drop),
        };
        counts.orders += 1;
        counts.waits.push(since.elapsed());
        match done {
            Ok(()) => counts.units += units,
            Err(error) => {
                if counts.refused == 0 && number == 0 {
                    println!("{error}");
                }
                counts.refused += 1;
            }
        }
    }
    counts
}

#[tokio::main(worker_threads = 1)]
async fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let number = |at: usize, or: u64| arguments.get(at).map_or(or, |text| text.parse().expect("a number"));
    let endpoint = arguments.first().expect("the endpoint of a store");
    let (clients, seconds, flotillads) = (number(1, 50), number(2, 10), number(3, 1));
    let all: Vec<Arc<Operations>> = (0..flotillads).map(|_| Arc::new(operations(endpoint))).collect();
    let texts = [("web@.service".parse().unwrap(), "[Service]\nExecStart=/bin/true\n".to_owned())];
    all[0].submit(&texts, "test").await.expect("submitted");
    for batch in webs(0, THERE - 1).batches() {
        all[0].set_target_in(&batch, Target::Launched, false, "test").await.expect("started");
    }
    let (since, mut tasks) = (Instant::now(), JoinSet::new());
    for number in 0..clients {
        let operations = Arc::clone(&all[usize::try_from(number % flotillads).unwrap()]);
        tasks.spawn(client(operations, number, since + Duration::from_secs(seconds)));
    }
    let mut sum = Counts::default();
    while let Some(counts) = tasks.join_next().await {
        let counts = counts.expect("a client");
        sum.orders += counts.orders;
        sum.units += counts.units;
        sum.refused += counts.refused;
        sum.waits.extend(counts.waits);
    }
    let took = since.elapsed().as_secs_f64();
    sum.waits.sort();
    let at = |part: f64| sum.waits[((sum.waits.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e3;
    println!(
        "{clients} clients of {flotillads}: {:.0} orders/s, {:.0} units/s, {} of {} refused; answer median {:.1} ms, p99 {:.1} ms",
        (sum.orders - sum.refused) as f64 / took,
        sum.units as f64 / took,
        sum.refused,
        sum.orders,
        at(0.5),
        at(0.99),
    );
}
