use bytes::Bytes;

use super::super::keys::{self, OfDigest, OfRepository};
use super::super::records::{BlobLocation, BlobRecord, FileId, LinkRecord, RepositoryId, Timestamp};
use super::super::rows::Row as _;
use super::super::tables::{has, owned_row, scan_prefix};
use super::super::{MetadataError, UploadId};
use super::{Transaction, lower};
use crate::oci::{Digest, RepositoryName};

/// Content that is to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewContent {
    /// These bytes, in the store: at most [`INLINE_SIZE_MAX`](super::super::INLINE_SIZE_MAX) are sensible.
    Inline(Bytes),
    /// A file that is complete, in its place and durable.
    File(FileId),
}

/// Whether content was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlobCommit {
    /// It was; the file belongs to the store now.
    Stored,
    /// It was there already; the file that was offered is the caller's to delete.
    AlreadyStored,
}

impl Transaction<'_> {
    /// Makes a blob of `size` bytes visible in `repository`, storing its content where it is not stored yet, and ends
    /// the upload session it came by.
    pub fn commit_blob(
        &mut self,
        repository: &RepositoryName,
        digest: &Digest,
        size: u64,
        content: NewContent,
        upload: Option<UploadId>,
        now: Timestamp,
    ) -> Result<BlobCommit, MetadataError> {
        let repository = self.ensure_repository(repository, now)?;
        let commit = self.store(digest, size, content, now)?;
        self.link(repository, digest, now)?;
        if let Some(upload) = upload {
            self.remove_upload(upload)?;
        }
        Ok(commit)
    }

    /// Makes a blob that is linked in the repository `from` visible in `repository`; `false` where it is not.
    pub fn mount_blob(
        &mut self,
        repository: &RepositoryName,
        digest: &Digest,
        from: &RepositoryName,
        now: Timestamp,
    ) -> Result<bool, MetadataError> {
        let Some(from) = self.repository(from)? else { return Ok(false) };
        if !self.has_blob(from, digest)? {
            return Ok(false);
        }
        let repository = self.ensure_repository(repository, now)?;
        self.link(repository, digest, now)?;
        Ok(true)
    }

    /// Makes a blob invisible in a repository; whether it was visible. The content stays stored.
    pub fn unlink_blob(
        &mut self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<bool, MetadataError> {
        let Some(repository) = self.repository(repository)? else { return Ok(false) };
        if !self.is_linked(repository, digest)? {
            return Ok(false);
        }
        self.change();
        let link = keys::of_repository_digest(repository, OfRepository::Link, digest);
        self.tables.repositories.remove(link.as_slice())?;
        self.remove_holder(repository, OfDigest::LinkedIn, digest)?;
        lower(&mut self.state.statistics.links, 1);
        Ok(true)
    }

    /// Forgets content that no repository has any more, neither as a blob nor as a manifest; `None` where it is in
    /// use or not stored. Its file is the caller's to delete, once this is committed.
    pub fn remove_unused_content(&mut self, digest: &Digest) -> Result<Option<BlobRecord>, MetadataError> {
        let Some(record) = self.stored_blob(digest)? else {
            self.forget_unused_damage(digest)?;
            return Ok(None);
        };
        if self.is_used(digest)? {
            return Ok(None);
        }
        self.forget_content(digest, &record)?;
        Ok(Some(record))
    }

    /// Forgets content that is stored.
    pub(super) fn forget_content(
        &mut self,
        digest: &Digest,
        record: &BlobRecord,
    ) -> Result<(), MetadataError> {
        self.change();
        self.tables.digests.remove(keys::of_digest(digest, OfDigest::Blob).as_slice())?;
        if record.location == BlobLocation::Inline {
            self.tables.contents.remove_content(digest, record.size)?;
        }
        lower(&mut self.state.statistics.blobs, 1);
        lower(&mut self.state.statistics.bytes, record.size);
        Ok(())
    }

    /// Says that the file of some content is `new`, where it was `old` until now; whether it was.
    pub fn replace_file(&mut self, digest: &Digest, old: FileId, new: FileId) -> Result<bool, MetadataError> {
        let Some(record) = self.stored_blob(digest)? else { return Ok(false) };
        if record.location != BlobLocation::File(old) {
            return Ok(false);
        }
        self.change();
        let row = BlobRecord { location: BlobLocation::File(new), ..record }.encode()?;
        self.tables.digests.insert(keys::of_digest(digest, OfDigest::Blob).as_slice(), row.as_slice())?;
        Ok(true)
    }

    /// Content by its digest, blob or manifest, whatever repository may see it.
    pub fn stored_blob(&self, digest: &Digest) -> Result<Option<BlobRecord>, MetadataError> {
        owned_row(&*self.tables.digests, &keys::of_digest(digest, OfDigest::Blob))
    }

    /// Whether a repository has the digest, as a blob or as a manifest.
    pub(super) fn is_used(&self, digest: &Digest) -> Result<bool, MetadataError> {
        for kind in [OfDigest::LinkedIn, OfDigest::ManifestIn] {
            if scan_prefix(&*self.tables.digests, &keys::of_digest(digest, kind))?.next().is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a blob is linked in a repository and its content can be had.
    pub(super) fn has_blob(&self, repository: RepositoryId, digest: &Digest) -> Result<bool, MetadataError> {
        Ok(self.is_linked(repository, digest)? && self.is_whole(digest)?)
    }

    pub(super) fn is_linked(&self, repository: RepositoryId, digest: &Digest) -> Result<bool, MetadataError> {
        has(&*self.tables.repositories, &keys::of_repository_digest(repository, OfRepository::Link, digest))
    }

    /// Stores content, where it is not stored yet.
    pub(super) fn store(
        &mut self,
        digest: &Digest,
        size: u64,
        content: NewContent,
        now: Timestamp,
    ) -> Result<BlobCommit, MetadataError> {
        if self.stored_blob(digest)?.is_some() {
            return Ok(BlobCommit::AlreadyStored);
        }
        let location = match &content {
            NewContent::Inline(_) => BlobLocation::Inline,
            NewContent::File(file) => BlobLocation::File(*file),
        };
        let row = BlobRecord { size, location, stored_at: now }.encode()?;
        self.change();
        self.tables.digests.insert(keys::of_digest(digest, OfDigest::Blob).as_slice(), row.as_slice())?;
        if let NewContent::Inline(bytes) = content {
            self.tables.contents.insert_content(digest, &bytes)?;
        }
        self.heal(digest)?;
        self.state.statistics.blobs += 1;
        self.state.statistics.bytes += size;
        Ok(BlobCommit::Stored)
    }

    /// Links a blob, or marks the link as used again.
    fn link(
        &mut self,
        repository: RepositoryId,
        digest: &Digest,
        now: Timestamp,
    ) -> Result<(), MetadataError> {
        let link = keys::of_repository_digest(repository, OfRepository::Link, digest);
        let row = LinkRecord { linked_at: now }.encode()?;
        self.change();
        if !self.tables.repositories.insert(link.as_slice(), row.as_slice())? {
            self.add_holder(repository, OfDigest::LinkedIn, digest)?;
            self.state.statistics.links += 1;
        }
        Ok(())
    }
}
