//! Criterion's view of the placement core, small and middle sizes: `cargo bench -p flotilla-engine`.
//!
//! For whoever changes the core and wants to know what that did: Criterion compares with the run before. The goals
//! and the large sizes are the table's (`cargo xtask bench placement`), of the same workloads.

mod workloads;

use std::{
    hint::black_box,
    process::ExitCode,
    time::{Duration, Instant},
};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use workloads::{Event, Failed, Kind, Workload};

/// Machines and units.
const SIZES: [(u32, u32); 2] = [(100, 1_000), (1_000, 10_000)];

/// How long one benchmark is measured: enough for ten samples of the largest.
const MEASURED: Duration = Duration::from_secs(2);

fn from_empty(criterion: &mut Criterion) -> Result<(), Failed> {
    let mut group = criterion.benchmark_group("from-empty");
    group.sample_size(10).measurement_time(MEASURED);
    for kind in Kind::ALL {
        for (machines, units) in SIZES {
            let workload = Workload::new(kind, machines, units)?;
            workload.place(&mut told(&workload))?;
            group.throughput(Throughput::Elements(u64::from(units)));
            group.bench_function(
                BenchmarkId::new(kind.to_string(), format!("{machines}x{units}")),
                |bencher| {
                    let fill = |mut core| {
                        workload.tell(&mut core);
                        _ = black_box(workload.place(&mut core));
                        core
                    };
                    bencher.iter_batched(|| workload.empty(), fill, BatchSize::LargeInput);
                },
            );
        }
    }
    Ok(())
}

fn told(workload: &Workload) -> flotilla_engine::placement::Placement {
    let mut core = workload.empty();
    workload.tell(&mut core);
    core
}

fn events(criterion: &mut Criterion) -> Result<(), Failed> {
    for event in Event::ALL {
        let mut group = criterion.benchmark_group(event.to_string());
        group.sample_size(10).measurement_time(MEASURED);
        for kind in Kind::ALL {
            for (machines, units) in SIZES {
                let workload = Workload::new(kind, machines, units)?;
                let full = workload.full()?;
                let mut failed = None;
                group.bench_function(
                    BenchmarkId::new(kind.to_string(), format!("{machines}x{units}")),
                    |bencher| {
                        bencher.iter_custom(|times| {
                            let all = repeated(&workload, &full, event, times);
                            all.unwrap_or_else(|error| {
                                failed = Some(error);
                                Duration::from_secs(1)
                            })
                        });
                    },
                );
                if let Some(error) = failed {
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}

/// Has an event happen to a cluster so often, to a new copy where it cannot happen to one any more.
fn repeated(
    workload: &Workload,
    full: &workloads::Full,
    event: Event,
    times: u64,
) -> Result<Duration, Failed> {
    let mut all = Duration::ZERO;
    let mut copy = full.clone();
    for nth in 0..times {
        if nth > 0 && nth.is_multiple_of(u64::from(event.most())) {
            copy = full.clone();
        }
        let (took, _) = workload.happen(event, &mut copy, |carry_out| {
            let start = Instant::now();
            carry_out();
            start.elapsed()
        })?;
        all += took;
    }
    Ok(all)
}

fn main() -> ExitCode {
    let mut criterion = Criterion::default().configure_from_args();
    let outcome = from_empty(&mut criterion).and_then(|()| events(&mut criterion));
    criterion.final_summary();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("placement: {error}");
            ExitCode::FAILURE
        }
    }
}
