//! The metadata store: which content there is, who may see it, what refers to what, and the tags.
//!
//! Everything that must change together changes in one transaction of an embedded store (redb), so that no crash and
//! no race leaves half of an operation behind. One thread, the committer, owns the write transactions and commits the
//! requests of many callers at once ([`Metadata::write`]); readers take the last committed state as a
//! [`Snapshot`], which costs them no lock and never waits for a writer.
//!
//! ```text
//!  data plane ──write(closure)──► queue ──► committer ──each batch──► log ─┐
//!      ▲                                       │     └──checkpoints──► redb ─┴► Storage (files, or a simulated disk)
//!      │                                       │ after each batch
//!      └────────── snapshot() ◄── published ───┘
//! ```
//!
//! A batch is durable by one flush of a log of its row writes ([`log`]); redb itself is made durable now and then.
//!
//! The keys are drawn in [`keys`], the values in [`rows`]. Callers give the time; nothing here asks a clock.

mod check;
mod committer;
mod error;
mod export;
mod finding;
mod keys;
mod log;
mod namespaces;
mod quota;
mod records;
mod rows;
mod snapshot;
mod storage;
mod store;
mod tables;
mod transaction;
mod verify;
mod walk;

#[cfg(test)]
pub(crate) mod tests;

pub(crate) use check::Unchecked;
pub(crate) use error::readable;
pub use error::{ChangesError, ManifestRefusal, MetadataError, PreconditionFailed};
pub use export::ExportError;
pub(crate) use export::{ExportReader, Unwritten};
pub use finding::FindingKind;
pub(crate) use finding::{Finding, Repair};
pub use namespaces::TagRow;
pub use quota::QuotaExceeded;
pub use records::{
    BlobLocation, BlobRecord, Damage, DamageRecord, EdgeKind, FileId, IdError, LinkRecord, ManifestRecord,
    NamespaceUsage, Referrer, RepositoryId, RepositoryRecord, RepositoryUsage, Statistics, TagChange,
    TagRecord, Timestamp, UploadContent, UploadId, UploadRecord,
};
pub use snapshot::Snapshot;
pub use storage::{FileStorage, Storage, StorageFile, StoragePart};
pub use store::{
    BATCH_MAX, CACHE_SIZE_DEFAULT, INLINE_SIZE_MAX, LOG_SIZE_DEFAULT, Metadata, Options, TAG_CHANGES_MAX,
};
pub use transaction::{
    BlobCommit, ManifestCommit, NewContent, PurgeStep, PutManifest, TagCondition, Transaction,
};
pub(crate) use transaction::{Collected, NOWHERE};
pub(crate) use verify::verify;
pub(crate) use walk::DigestRow;
