//! Stored content, open for reading.

use std::rc::Rc;

use bytes::Bytes;

use crate::disk::DiskFile;
use crate::oci::Digest;

/// A blob of a repository.
pub struct Blob {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Its bytes.
    pub content: Content,
}

/// Where the bytes are.
pub enum Content {
    /// Little content: in memory, out of the metadata.
    Inline(Bytes),
    /// In a file of its own.
    File(Rc<dyn DiskFile>),
}
