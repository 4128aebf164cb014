//! `/metrics` for Prometheus.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    extract::{MatchedPath, Request, State},
    http::Method,
    middleware::Next,
    response::Response,
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _, text::encode},
    metrics::{
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::Gauge,
        histogram::Histogram,
    },
    registry::Registry,
};

use crate::node::Node;

/// Upper bounds of the request durations, in seconds: from one that never left the machine to one
/// that ran into the store's limit.
const DURATIONS_S: [f64; 10] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.2, 1.0, 5.0, 15.0];

/// The daemon's counters and gauges.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    requests: Family<RequestLabels, Counter>,
    durations: Histogram,
    /// What the daemon sets.
    pub gauges: Gauges,
}

/// What the daemon tells of itself.
#[derive(Debug, Clone, Default)]
pub struct Gauges {
    /// 1 while the store knows this machine.
    pub registered: Gauge,
    /// 1 while an engine here has a seat.
    pub seat: Gauge,
    /// 1 while the engine here leads.
    pub leader: Gauge,
    /// 1 while nothing is started or stopped because the store went back.
    pub frozen: Gauge,
    /// The store's revision that the seat here has reached.
    pub revision: Gauge,
    /// Units that this machine's manifest names, as far as the seat here knows.
    pub units: Gauge,
    /// Units of the whole cluster by systemd's `ActiveState`, where there is a seat.
    pub cluster_units: Family<StateLabels, Gauge>,
}

/// A state that units are counted in.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StateLabels {
    /// systemd's `ActiveState`, or `other`.
    pub active: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    path: String,
    status: u16,
}

/// A counter that another part of the daemon keeps.
struct KeptElsewhere {
    name: &'static str,
    help: &'static str,
    read: Box<dyn Fn() -> u64 + Send + Sync>,
}

impl fmt::Debug for KeptElsewhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl Collector for KeptElsewhere {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let counter = ConstCounter::new((self.read)());
        let metric = encoder.encode_descriptor(self.name, self.help, None, counter.metric_type())?;
        counter.encode(metric)
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").field("gauges", &self.gauges).finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("flotilla");
        let requests = Family::default();
        let durations = Histogram::new(DURATIONS_S);
        let gauges = Gauges::default();
        registry.register("http_requests", "Requests answered", requests.clone());
        registry.register(
            "http_request_duration_seconds",
            "Time until the answer's head, streams included",
            durations.clone(),
        );
        let mut gauge = |name, help, gauge: &Gauge| registry.register(name, help, gauge.clone());
        gauge("machine_registered", "1 while the cluster knows this machine", &gauges.registered);
        gauge("engine_seat", "1 while the engine here has a seat", &gauges.seat);
        gauge("engine_leader", "1 while the engine here leads", &gauges.leader);
        gauge("frozen", "1 while the store went back and nothing is started or stopped", &gauges.frozen);
        gauge("store_revision", "Revision of the store that the seat here shows", &gauges.revision);
        gauge("units", "Units that this machine should have, where the seat here knows", &gauges.units);
        registry.register(
            "cluster_units",
            "Units of the whole cluster by the state that their machines report, where there is a seat",
            gauges.cluster_units.clone(),
        );
        Self { registry: Arc::new(Mutex::new(registry)), requests, durations, gauges }
    }
}

impl Metrics {
    /// Adds a counter that another part of the daemon keeps; it is read when somebody asks.
    pub fn counter(
        &self,
        name: &'static str,
        help: &'static str,
        read: impl Fn() -> u64 + Send + Sync + 'static,
    ) {
        let counter = KeptElsewhere { name, help, read: Box::new(read) };
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        registry.register_collector(Box::new(counter));
    }

    /// Writes everything in the OpenMetrics text format.
    pub(crate) fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry.lock().unwrap_or_else(PoisonError::into_inner))?;
        Ok(text)
    }
}

/// Counts requests by route, never by path: names of units are not labels.
pub(crate) async fn count(State(node): State<Arc<Node>>, request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>();
    let path = path.map_or_else(|| "none".to_owned(), |path| path.as_str().to_owned());
    let method = label(request.method());
    let started = std::time::Instant::now();
    let response = next.run(request).await;
    node.metrics.durations.observe(started.elapsed().as_secs_f64());
    let labels = RequestLabels { method, path, status: response.status().as_u16() };
    node.metrics.requests.get_or_create(&labels).inc();
    response
}

/// Returns the label of a method: whoever asks may invent as many as they like, and each would be a
/// counter for ever.
fn label(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_that_somebody_invents_are_one() {
        assert_eq!(label(&Method::POST), "POST");
        for invented in ["BREW", "get"] {
            assert_eq!(label(&invented.parse().expect("a method")), "other");
        }
    }

    #[test]
    fn metrics_are_written_as_prometheus_reads_them() {
        let metrics = Metrics::default();
        metrics.gauges.leader.set(1);
        metrics.counter("systemd_reloads", "Reloads of systemd asked for", || 3);
        let text = metrics.text().expect("text");
        for line in ["flotilla_engine_leader 1", "flotilla_systemd_reloads_total 3", "# EOF"] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
    }
}
