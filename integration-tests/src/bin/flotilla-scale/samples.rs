//! What was measured, a JSON object a line, for whoever plots it: lines as `flotilla_figures::line` has them.
//!
//! A `sample` has `phase` (`fill`, `rest`, ...) and `at`, seconds since it began; `active` units; for `engine` (all of
//! them; the largest's memory), `etcd` and `agents` (all of them together) `_cpu`, seconds of the processor since their
//! start, and `_memory`, MiB resident; `etcd_size` and `etcd_in_use`, MiB of its database; `etcd_puts`,
//! `etcd_ranges`, `etcd_fsyncs` since its start. A `result` is a row of the table.

use std::path::Path;

use anyhow::{Context, Result};
use flotilla_figures::{
    facts::Facts,
    line::{Recorder, Run},
};
use serde::Serialize;

use crate::Options;

/// The file, if one is wanted.
#[derive(Debug)]
pub(crate) struct Samples(Recorder);

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

impl Samples {
    /// Begins a run at the end of the file.
    pub(crate) fn begin(path: Option<&Path>, options: &Options) -> Result<Self> {
        let run = Run {
            bench: "scale".to_owned(),
            machines: Some(options.machines as u64),
            units: Some(options.units as u64),
            kind: Some(format!("{:?}", options.kind).to_lowercase()),
            simulated: true,
            facts: Facts::gather(Some(&options.etcd)),
        };
        let recorder = Recorder::begin(path, &run);
        Ok(Self(recorder.with_context(|| format!("{}", path.unwrap_or(Path::new("samples")).display()))?))
    }

    /// Adds a line of a kind.
    pub(crate) fn write(&mut self, line: &str, value: &impl Serialize) -> Result<()> {
        self.0.write(line, value).context("writing a sample")
    }

    /// Adds why the run did not come to its end.
    pub(crate) fn failed(&mut self, why: String) -> Result<()> {
        self.0.failed(why).context("writing a sample")
    }
}
