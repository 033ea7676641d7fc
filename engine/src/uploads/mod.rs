//! Upload sessions: content on its way from a client to the store (OCI distribution specification, "Pushing blobs").
//!
//! A session outlives the request that made it, the connection, and the process. Between requests it is a record in
//! the metadata; while a request writes to it, it belongs to that request alone.

mod expiry;
mod file_sink;
mod in_use;
mod sessions;
#[cfg(test)]
mod tests;
mod writer;

pub(crate) use in_use::{Claim, FilesInUse};
pub(crate) use sessions::Sessions;
pub use sessions::{Busy, ResumeError};
pub(crate) use writer::fresh_hash;
pub use writer::{Committed, FinishError, UploadWriter};
