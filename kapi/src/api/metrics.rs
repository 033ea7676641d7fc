//! Counts for Prometheus.

use std::sync::atomic::{AtomicI64, AtomicU64};

use http::StatusCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::cluster::Readiness;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AnswerLabels {
    resource: &'static str,
    verb: &'static str,
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ConditionLabel {
    condition: &'static str,
}

/// What the API counts.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    answers: Family<AnswerLabels, Counter<u64, AtomicU64>>,
    watches: Gauge<i64, AtomicI64>,
    conditions: Family<ConditionLabel, Gauge<i64, AtomicI64>>,
}

/// A watch that runs.
#[derive(Debug)]
pub struct RunningWatch(Gauge<i64, AtomicI64>);

impl Drop for RunningWatch {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    /// Where nothing is counted yet.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("payload_registry_kapi");
        let answers = Family::default();
        let watches = Gauge::default();
        let conditions = Family::default();
        registry.register("answers", "Answers to requests, by what was asked for", answers.clone());
        registry.register("watches", "Watches that run", watches.clone());
        registry.register(
            "condition",
            "What is known and what works: 1 if it holds. None of them is needed for discovery",
            conditions.clone(),
        );
        Self { registry, answers, watches, conditions }
    }

    /// An answer was given.
    pub fn answered(&self, resource: &'static str, verb: &'static str, code: StatusCode) {
        self.answers.get_or_create(&AnswerLabels { resource, verb, code: code.as_u16() }).inc();
    }

    /// A watch runs from now on, until the answer is dropped.
    pub fn watch(&self) -> RunningWatch {
        self.watches.inc();
        RunningWatch(self.watches.clone())
    }

    /// Writes everything, in the text format of OpenMetrics.
    pub fn write(&self, readiness: &Readiness) -> Result<String, std::fmt::Error> {
        for (condition, holds) in readiness.conditions() {
            self.conditions.get_or_create(&ConditionLabel { condition }).set(holds.into());
        }
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
