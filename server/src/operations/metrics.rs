//! Counts for Prometheus.

use std::sync::atomic::{AtomicI64, AtomicU64};
use std::time::Duration;

use engine::Core;
use http::StatusCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::UpkeepMetrics;
use crate::access::{Authority, ReviewCounts};
use crate::http::Response;
use crate::registry::ROUTE_LABELS;

/// Upper bounds of the histogram of answers' times, in seconds: from a look-up to a large push.
const SECONDS: [f64; 12] = [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AnswerLabels {
    endpoint: &'static str,
    status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndpointLabel {
    endpoint: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

/// Classes of statuses, by their first digit.
const CLASSES: [&str; 6] = ["other", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// What the registry counts. Counting is an atomic addition: the counters of all labels are found once, at start.
pub struct Metrics {
    registry: Registry,
    answers: Vec<[Counter<u64, AtomicU64>; CLASSES.len()]>,
    seconds: Vec<Histogram>,
    pushed_bytes: Counter<u64, AtomicU64>,
    pulled_bytes: Counter<u64, AtomicU64>,
    running_uploads: Gauge<i64, AtomicI64>,
    upkeep: UpkeepMetrics,
}

/// An upload that is being received.
pub struct RunningUpload<'a>(&'a Gauge<i64, AtomicI64>);

impl Drop for RunningUpload<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("payload_registry");
        let answers = Family::<AnswerLabels, Counter>::default();
        let seconds = Family::<EndpointLabel, Histogram>::new_with_constructor(|| Histogram::new(SECONDS));
        let metrics = Self {
            answers: ROUTE_LABELS
                .iter()
                .map(|endpoint| {
                    CLASSES.map(|status| answers.get_or_create_owned(&AnswerLabels { endpoint, status }))
                })
                .collect(),
            seconds: ROUTE_LABELS
                .iter()
                .map(|endpoint| seconds.get_or_create_owned(&EndpointLabel { endpoint }))
                .collect(),
            pushed_bytes: Counter::default(),
            pulled_bytes: Counter::default(),
            running_uploads: Gauge::default(),
            upkeep: UpkeepMetrics::default(),
            registry: Registry::default(),
        };
        registry.register("requests", "Requests answered, by end-point and class of status", answers);
        registry.register_with_unit(
            "request_duration",
            "Time until the answer was known, with the request's body and without the answer's",
            Unit::Seconds,
            seconds,
        );
        registry.register_with_unit("pushed", "Content stored", Unit::Bytes, metrics.pushed_bytes.clone());
        registry.register_with_unit(
            "pulled",
            "Blobs' content sent or being sent",
            Unit::Bytes,
            metrics.pulled_bytes.clone(),
        );
        registry.register("running_uploads", "Uploads being received now", metrics.running_uploads.clone());
        metrics.upkeep.register(&mut registry);
        Self { registry, ..metrics }
    }
}

impl Metrics {
    /// Counts an answer.
    pub fn answered(&self, route: usize, status: StatusCode, elapsed: Duration) {
        let class = usize::from(status.as_u16() / 100);
        self.answers[route][if class < CLASSES.len() { class } else { 0 }].inc();
        self.seconds[route].observe(elapsed.as_secs_f64());
    }

    /// Counts content that was stored.
    pub fn pushed(&self, bytes: u64) {
        self.pushed_bytes.inc_by(bytes);
    }

    /// Counts content that is sent.
    pub fn pulled(&self, bytes: u64) {
        self.pulled_bytes.inc_by(bytes);
    }

    /// Counts an upload until what is returned is dropped.
    pub fn upload(&self) -> RunningUpload<'_> {
        self.running_uploads.inc();
        RunningUpload(&self.running_uploads)
    }

    /// Counts of what keeps the store in order.
    pub fn upkeep(&self) -> UpkeepMetrics {
        self.upkeep.clone()
    }

    /// The counts as OpenMetrics text, with the state of the store, and of the cluster's word where it counts.
    pub fn render(&self, core: &Core, authority: &Authority) -> Response {
        let mut text = String::new();
        let encoded = self.encode(core, authority, &mut text);
        if let Err(error) = encoded {
            tracing::error!(%error, "the metrics cannot be written down");
            return Response::new(StatusCode::INTERNAL_SERVER_ERROR);
        }
        Response::new(StatusCode::OK)
            .with_body("application/openmetrics-text; version=1.0.0; charset=utf-8", text)
    }

    fn encode(&self, core: &Core, authority: &Authority, text: &mut String) -> std::fmt::Result {
        // The store counts by itself, so its figures are read when they are asked for.
        let mut store = Registry::with_prefix("payload_registry");
        let mut gauge = |name: &str, help: &str, value: u64| {
            store.register(name, help, ConstGauge::new(value));
        };
        if let Ok(snapshot) = core.metadata().snapshot() {
            let statistics = snapshot.statistics();
            gauge("repositories", "Repositories", statistics.repositories);
            gauge("tags", "Tags", statistics.tags);
            gauge(
                "manifests",
                "Manifests, each counted in every repository that has it",
                statistics.manifests,
            );
            gauge("blobs", "Contents stored, each counted once", statistics.blobs);
            gauge("stored_bytes", "Length of the stored contents", statistics.bytes);
            gauge(
                "damaged_contents",
                "Contents found damaged that were not pushed again since",
                statistics.damaged,
            );
            gauge("upload_sessions", "Upload sessions that are open", statistics.uploads);
            // There are few of them at a time, so they are looked at when somebody asks.
            let sizes = snapshot
                .uploads()
                .map(|uploads| uploads.filter_map(Result::ok).map(|(_, upload)| upload.size));
            gauge(
                "upload_session_bytes",
                "Bytes that open upload sessions hold",
                sizes.map_or(0, Iterator::sum),
            );
            gauge("sequence", "Number of the last change", snapshot.sequence());
        }
        gauge("read_only", "Whether the registry takes no writes", u64::from(core.hold().is_some()));
        if let Ok(free) = core.free_bytes() {
            gauge("volume_free_bytes", "Bytes that the volume has room for", free);
        }
        if authority.is_enabled() {
            register_authority(&mut store, authority);
        }
        encode(text, &store)?;
        // One text has one end.
        text.truncate(text.len() - "# EOF\n".len());
        encode(text, &self.registry)
    }
}

/// What the cluster said, and how often it was asked.
fn register_authority(registry: &mut Registry, authority: &Authority) {
    let ReviewCounts { users, refused, unavailable, unanswered, remembered } = authority.review_counts();
    let reviews = Family::<OutcomeLabel, Counter>::default();
    for (outcome, count) in
        [("user", users), ("refused", refused), ("unavailable", unavailable), ("unanswered", unanswered)]
    {
        reviews.get_or_create(&OutcomeLabel { outcome }).inc_by(count);
    }
    registry.register("token_reviews", "Reviews of the cluster's tokens, by what came out", reviews);
    registry.register(
        "token_reviews_remembered",
        "Logins with the cluster's tokens that needed no review",
        ConstCounter::new(remembered),
    );
    let rules = authority.rules().map_or(0, |rules| rules.len() as u64);
    registry.register("access_rules", "Access rules of the cluster", ConstGauge::new(rules));
    let is_known = !authority.needs_rules() && !authority.needs_namespaces();
    registry.register(
        "cluster_known",
        "Whether rules and namespaces of the cluster have been brought since the start",
        ConstGauge::new(u64::from(is_known)),
    );
}
