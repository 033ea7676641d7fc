//! The storage engine of payload-registry: content-addressed blobs, upload sessions and the metadata of repositories,
//! on a local volume, for a registry that serves them by whatever protocol.
//!
//! [`Engine`] is what the process has, [`Core`] what each data-plane thread uses. Bytes go from a socket into a
//! [`buffer::Buffer`], are hashed there, and go to the [`disk::Disk`] from there; everything that is not bytes is in
//! the [`metadata`], whose transactions make things visible, and durable, at once.

#![deny(unsafe_op_in_unsafe_fn)]

mod blob;
pub mod buffer;
pub mod collection;
pub mod disk;
mod engine;
mod engine_core;
mod environment;
mod error;
pub mod integrity;
mod layout;
pub mod metadata;
pub mod oci;
mod quotas;
mod read_only;
pub mod runtime;
mod uploads;

pub use blob::{Blob, Content};
pub use engine::{Engine, EngineOptions, OpenError};
pub use engine_core::Core;
pub use environment::{Clock, Entropy, Environment};
pub use error::EngineError;
pub use layout::RootError;
pub use quotas::Quotas;
pub use read_only::{HOLD_MS_MAX, HeldByOther, Hold, Write, WriteStage};
pub use uploads::{Busy, Committed, FinishError, ResumeError, UploadWriter};
