use std::sync::atomic::AtomicU64;

use engine::collection::CollectionReport;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

/// What comes of a collection.
const RESULTS: [&str; 4] = ["done", "with_errors", "interrupted", "not_begun"];

type Seconds = Gauge<f64, AtomicU64>;

/// Counts of what keeps the store in order. Cheap to clone; the clones count together.
#[derive(Clone, Debug, Default)]
pub struct UpkeepMetrics {
    collections: Family<ResultLabel, Counter>,
    collection_began: Seconds,
    collection: Seconds,
    window: Seconds,
    freed_bytes: Counter<u64, AtomicU64>,
    scrubbed_bytes: Counter<u64, AtomicU64>,
}

impl UpkeepMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        for result in RESULTS {
            self.collections.get_or_create(&ResultLabel { result }).inc_by(0);
        }
        registry.register(
            "collections",
            "Collections of garbage, by what came of them",
            self.collections.clone(),
        );
        registry.register_with_unit(
            "collection_last_began_timestamp",
            "When the last collection began, since the Unix epoch; 0: there was none",
            Unit::Seconds,
            self.collection_began.clone(),
        );
        registry.register_with_unit(
            "collection_last_duration",
            "How long the last collection took",
            Unit::Seconds,
            self.collection.clone(),
        );
        registry.register_with_unit(
            "collection_last_window",
            "How long the last collection paused writing",
            Unit::Seconds,
            self.window.clone(),
        );
        registry.register_with_unit(
            "collected",
            "Content removed by collections",
            Unit::Bytes,
            self.freed_bytes.clone(),
        );
        registry.register_with_unit(
            "scrubbed",
            "Content read by scrubs",
            Unit::Bytes,
            self.scrubbed_bytes.clone(),
        );
    }

    /// Counts a collection that has ended. Dry runs do not count.
    pub fn collected(&self, report: &CollectionReport) {
        if report.dry_run {
            return;
        }
        let result = match (&report.failure, report.errors) {
            (Some(_), _) => "interrupted",
            (None, 0) => "done",
            (None, _) => "with_errors",
        };
        self.collections.get_or_create(&ResultLabel { result }).inc();
        self.freed_bytes.inc_by(report.bytes());
        self.remember(report);
    }

    /// Counts a collection that has not begun.
    pub fn collection_failed(&self) {
        self.collections.get_or_create(&ResultLabel { result: "not_begun" }).inc();
    }

    /// Shows a collection as the last one.
    pub fn remember(&self, report: &CollectionReport) {
        let seconds = |us: u64| us as f64 / 1e6;
        self.collection_began.set(report.began_at_ms as f64 / 1e3);
        self.collection.set(seconds(report.mark_us + report.sweep_us + report.files_us));
        self.window.set(seconds(report.window_us));
    }

    /// Counts content that a scrub has read.
    pub fn scrubbed(&self, bytes: u64) {
        self.scrubbed_bytes.inc_by(bytes);
    }
}
