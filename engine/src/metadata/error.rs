use std::io;
use std::sync::Arc;

use crate::oci::Digest;

/// Why the metadata store could not do what was asked. Cheap to clone: one failed commit answers many callers.
#[derive(Clone, Debug, thiserror::Error)]
pub enum MetadataError {
    /// The storage refused a read, a write or a flush, or what it gave back is no store.
    ///
    /// A write that fails so may still have become durable as a whole; it is never durable in part.
    #[error("metadata storage: {0}")]
    Storage(#[source] Arc<redb::Error>),
    /// The storage could not be opened, or the committer's thread could not be started.
    #[error("metadata storage: {0}")]
    Io(#[source] Arc<io::Error>),
    /// A row that this version cannot read: damaged, or written by a later version.
    #[error("metadata table {table:?}: {reason}")]
    Row {
        /// The table that holds the row.
        table: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A request that was committed together with this one panicked; nothing of either was kept.
    #[error("metadata: a request of the same batch panicked, and the batch was dropped")]
    Panicked,
    /// The store is being closed, or its storage has failed and could not be opened again yet.
    #[error("metadata: the store is closed, or could not be opened again after a failure")]
    Unavailable,
}

impl MetadataError {
    /// Whether the disk or a quota is full: reads and deletions go on, and the same write works once there is room.
    pub fn is_full(&self) -> bool {
        let error = match self {
            Self::Storage(error) => match &**error {
                redb::Error::Io(error) => error,
                _ => return false,
            },
            Self::Io(error) => error,
            _ => return false,
        };
        is_full(error)
    }

    /// Whether only the request that met this error is concerned, and not the storage itself.
    pub(crate) fn is_of_one_row(&self) -> bool {
        matches!(self, Self::Row { .. })
    }
}

/// What a row says; `None` where it cannot be read, which concerns none of the others.
pub(crate) fn readable<T>(row: Result<T, MetadataError>) -> Result<Option<T>, MetadataError> {
    match row {
        Err(error) if error.is_of_one_row() => Ok(None),
        row => row.map(Some),
    }
}

/// Whether the disk or a quota is full.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

impl From<io::Error> for MetadataError {
    fn from(error: io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}

/// redb has an error type for each of its calls; all of them fold into its general one.
macro_rules! from_redb {
    ($($error:ty),+) => {$(
        impl From<$error> for MetadataError {
            fn from(error: $error) -> Self {
                Self::Storage(Arc::new(error.into()))
            }
        }
    )+};
}
from_redb!(
    redb::CommitError,
    redb::DatabaseError,
    redb::SetDurabilityError,
    redb::StorageError,
    redb::TableError,
    redb::TransactionError
);

/// The tag is not what the caller's condition wants it to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the tag is not in the state that the request is conditional on")]
pub struct PreconditionFailed {
    /// What the tag points at now; `None` where it does not exist.
    pub current: Option<Digest>,
}

/// Why a manifest is not stored. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestRefusal {
    /// The condition on the first tag does not hold.
    #[error(transparent)]
    Precondition(#[from] PreconditionFailed),
    /// The manifest refers to content that is not in the repository.
    #[error("the manifest refers to {} blobs and {} manifests that are not in the repository", blobs.len(), children.len())]
    Missing {
        /// Blobs that are not linked in the repository, in the order of the manifest's list.
        blobs: Vec<Digest>,
        /// Children of an index that are neither a manifest of the repository nor a blob linked in it.
        children: Vec<Digest>,
    },
}

/// Why the changes since some sequence number cannot be told.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ChangesError {
    /// Some of them have been trimmed: list everything again and go on from the sequence number of that list.
    #[error("tag changes up to {trimmed} are no longer kept")]
    Expired {
        /// Highest sequence number that has been trimmed; changes after it are all there.
        trimmed: u64,
    },
    /// They could not be read.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
}

impl From<redb::StorageError> for ChangesError {
    fn from(error: redb::StorageError) -> Self {
        Self::Metadata(error.into())
    }
}
