//! The Kubernetes component of payload-registry.
//!
//! [`api`] serves the registry's tags as Kubernetes objects (an aggregated API), [`cluster`] brings what the registry
//! has to know of the cluster: rules, namespaces, whose token this is, and keeps pull secrets filled. Both speak to the
//! registry by [`registry`], and keep no state that matters: everything can be asked for again. [`tls`] is what is
//! reloaded without a restart: certificates and whom to trust.

pub mod api;
pub mod cluster;
pub mod logging;
pub mod settings;
pub mod tls;

pub use interface::client as registry;
