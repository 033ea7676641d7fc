//! The private interface (crate `interface`): what the Kubernetes component and administrators' commands say to the
//! registry.
//!
//! It has a listener and a thread of its own, so that a list of a hundred thousand tags delays no push and no pull: a Unix
//! socket for those who may open it, or TLS for those with a client certificate. Behind the listener, callers are
//! trusted to say on whose behalf they call; what that one may do is decided here, by the same rules as pushes and pulls.

mod authority;
mod certificates;
mod listener;
mod namespaces;
mod refusal;
mod service;
mod sight;
mod socket_file;
mod tags;

pub use certificates::CertificateError;
pub(crate) use listener::socket_path;
pub use listener::{Private, PrivateError};
pub(crate) use refusal::Refusal;
pub(crate) use service::encode;
