//! What operators see of a running registry.

pub mod health;
mod metrics;
mod upkeep_metrics;

pub use metrics::Metrics;
pub use upkeep_metrics::UpkeepMetrics;
