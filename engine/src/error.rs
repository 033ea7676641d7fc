//! What can go wrong below the protocol.

use std::io;

use crate::metadata::{MetadataError, QuotaExceeded};

/// Why the store has not done something.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The volume has no room for what is to be stored. Reading and deleting go on.
    #[error("the volume is full: free some space, or delete what is not needed and collect garbage")]
    Full,
    /// The namespace has no room for what is to be stored.
    #[error(transparent)]
    Quota(#[from] QuotaExceeded),
    /// The volume failed.
    #[error("{what} failed: {source}")]
    Disk {
        /// What was being done, to what.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The metadata failed.
    #[error("the metadata store failed: {0}")]
    Metadata(MetadataError),
    /// The metadata names content that is not there.
    #[error(
        "the content of {0} is missing on the volume; run an integrity check, and push the blob again to heal it"
    )]
    Missing(crate::oci::Digest),
}

impl EngineError {
    /// Turns an error of the disk, while doing `what`, into one of the engine.
    pub(crate) fn disk(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| {
            if is_full(&source) { Self::Full } else { Self::Disk { what, source } }
        }
    }
}

impl From<MetadataError> for EngineError {
    fn from(error: MetadataError) -> Self {
        if error.is_full() { Self::Full } else { Self::Metadata(error) }
    }
}

/// Whether an error of the system says that there is no room (disk, quota, or the limit of a file's size).
fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}
