//! What was measured, a JSON object a line, for whoever plots it.
//!
//! Every line has `line`, which says what it is:
//!
//! | `line` | fields |
//! | --- | --- |
//! | `run` | the first one: `machines`, `units`, `kind`, `engines`, `start_takes_ms`, `cores`, `processor`, `version`; `simulated` is always true |
//! | `sample` | `phase` (`fill`, `rest`, ...) and `at`, seconds since it began; `active` units; for `engine` (all of them; the largest's memory), `etcd` and `agents` (all of them together) `_cpu`, seconds of the processor since their start, and `_memory`, MiB resident; `etcd_size` and `etcd_in_use`, MiB of its database; `etcd_puts`, `etcd_ranges`, `etcd_fsyncs` since its start |
//! | `result` | a row of the table: `what`, `value` and `unit`; where there is one `goal`, with `at_least` telling its sense, and `met` |

use std::{
    fs::{self, File},
    io::Write as _,
    path::Path,
};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::Options;

/// The file, if one is wanted.
#[derive(Debug)]
pub(crate) struct Samples(Option<File>);

/// What was seen at one moment.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Sample {
    pub(crate) phase: &'static str,
    /// Seconds since the phase began.
    pub(crate) at: f64,
    pub(crate) active: usize,
    pub(crate) engine_cpu: f64,
    pub(crate) engine_memory: f64,
    pub(crate) etcd_cpu: f64,
    pub(crate) etcd_memory: f64,
    pub(crate) etcd_size: f64,
    pub(crate) etcd_in_use: f64,
    pub(crate) etcd_puts: f64,
    pub(crate) etcd_ranges: f64,
    pub(crate) etcd_fsyncs: f64,
    pub(crate) agents_cpu: f64,
    pub(crate) agents_memory: f64,
}

/// What a run was.
#[derive(Debug, Serialize)]
struct Run {
    machines: usize,
    units: usize,
    kind: String,
    engines: usize,
    start_takes_ms: u128,
    cores: usize,
    processor: String,
    version: &'static str,
    simulated: bool,
}

#[derive(Debug, Serialize)]
struct Line<'a, T> {
    line: &'static str,
    #[serde(flatten)]
    value: &'a T,
}

impl Samples {
    /// Begins the file with what the run is.
    pub(crate) fn begin(path: Option<&Path>, options: &Options) -> Result<Self> {
        let file = path.map(|path| File::create(path).with_context(|| format!("{}", path.display())));
        let mut samples = Self(file.transpose()?);
        let run = Run {
            machines: options.machines,
            units: options.units,
            kind: format!("{:?}", options.kind).to_lowercase(),
            engines: options.engines,
            start_takes_ms: options.start_takes.as_millis(),
            cores: std::thread::available_parallelism().map_or(0, Into::into),
            processor: processor(),
            version: env!("CARGO_PKG_VERSION"),
            simulated: true,
        };
        samples.write("run", &run)?;
        Ok(samples)
    }

    /// Adds a line of a kind.
    pub(crate) fn write(&mut self, line: &'static str, value: &impl Serialize) -> Result<()> {
        if let Some(file) = &mut self.0 {
            writeln!(file, "{}", serde_json::to_string(&Line { line, value })?)?;
        }
        Ok(())
    }
}

fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned())
}
