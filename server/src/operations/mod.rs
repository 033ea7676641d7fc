//! What operators see of a running registry.

pub mod health;
mod metrics;

pub use metrics::Metrics;
