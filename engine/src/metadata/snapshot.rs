use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use redb::ReadTransaction;

use super::keys::{self, OfDigest, OfRepository};
use super::records::{
    BlobRecord, DamageRecord, EdgeKind, FileId, LinkRecord, ManifestRecord, Referrer, RepositoryId,
    RepositoryRecord, RepositoryUsage, Statistics, TagChange, TagRecord, Timestamp, UploadContent, UploadId,
    UploadRecord,
};
use super::rows::{
    DAMAGED, DIGESTS, EdgesRow, NAMES, REPOSITORIES, ReferrerRow, RepositoryRow, Row as _, ScrubRow,
    StateRow, TAG_CHANGES, TagChangeRow, UPLOADS, UploadRow, damaged,
};
use super::tables::{ReadRange, ReadTables, content, has, owned_row, read_prefix, readable_row, row};
use super::{ChangesError, Metadata, MetadataError, readable};
use crate::oci::{Digest, RepositoryName, Tag};
use crate::read_only::Hold;

/// One committed state of the store, which never changes. Cheap to clone.
///
/// A look-up takes microseconds while its pages are in the cache, and otherwise reads some pages from the disk within
/// the call. Iterators read as they go, and may be dropped at any point.
///
/// A snapshot keeps the pages of its state from being used again, as do the iterators it gives: whoever holds one
/// for long makes the store grow. The bytes of [`Snapshot::content`] are a copy and hold nothing.
///
/// # Errors
/// Every look-up can fail with an error of the storage, or find a row it cannot read. After a failure of the storage a
/// snapshot of before it fails too; [`Metadata::snapshot`] then gives one that works.
#[derive(Clone)]
pub struct Snapshot(Arc<Inner>);

struct Inner {
    tables: ReadTables,
    state: StateRow,
}

impl Snapshot {
    pub(super) fn new(transaction: ReadTransaction, state: StateRow) -> Self {
        Self(Arc::new(Inner { tables: ReadTables::new(transaction), state }))
    }

    pub(super) fn tables(&self) -> &ReadTables {
        &self.0.tables
    }

    /// Number of the last change that is in this state.
    pub fn sequence(&self) -> u64 {
        self.0.state.sequence
    }

    /// Whether this is what [`Metadata::snapshot`] would give now.
    pub fn is_current(&self, metadata: &Metadata) -> bool {
        metadata.published().is_some_and(|published| Arc::ptr_eq(&published.0, &self.0))
    }

    /// The hold on writes, where there is one that can be read, be its time over.
    pub fn hold(&self) -> Result<Option<Hold>, MetadataError> {
        readable_row(self.tables().state()?, keys::HOLD)
    }

    /// Counts over the whole store. Costs nothing.
    pub fn statistics(&self) -> Statistics {
        self.0.state.statistics
    }

    /// The repository of this name.
    pub fn repository(&self, name: &RepositoryName) -> Result<Option<RepositoryId>, MetadataError> {
        row(self.tables().names()?, name.as_str().as_bytes(), repository_id)
    }

    /// The name of a repository, and when it came to exist.
    pub fn repository_name(
        &self,
        id: RepositoryId,
    ) -> Result<Option<(RepositoryName, Timestamp)>, MetadataError> {
        let key = keys::of_repository(id, OfRepository::Identity);
        row(self.tables().repositories()?, &key, |value| {
            let found = RepositoryRow::decode(value)?;
            let name = found.name.parse().map_err(|error| damaged(REPOSITORIES, error))?;
            Ok((name, found.created_at))
        })
    }

    /// The repositories whose names begin with `prefix` and are greater than `after`, in the order of their bytes.
    /// `after` need not exist; a prefix ends wherever it ends, so `ns/` gives the repositories of a namespace.
    pub fn repositories(
        &self,
        prefix: &str,
        after: Option<&str>,
    ) -> Result<impl Iterator<Item = Result<RepositoryRecord, MetadataError>> + use<>, MetadataError> {
        let names = self.tables().names()?;
        let rows = match after {
            Some(after) if after >= prefix => match after.strip_prefix(prefix) {
                Some(rest) => read_prefix(names, prefix.as_bytes(), Some(rest.as_bytes()))?,
                // Greater than every name with the prefix.
                None => names.range::<&[u8]>(&[][..]..&[][..])?,
            },
            _ => read_prefix(names, prefix.as_bytes(), None)?,
        };
        Ok(rows.map(|row| {
            let (key, value) = row?;
            let name = text(key.value(), NAMES)?.parse().map_err(|error| damaged(NAMES, error))?;
            Ok(RepositoryRecord { id: repository_id(value.value())?, name })
        }))
    }

    /// What a repository holds. Walks over its manifests and links.
    pub fn usage(&self, repository: RepositoryId) -> Result<RepositoryUsage, MetadataError> {
        let mut usage = RepositoryUsage::default();
        for manifest in self.manifests(repository, None)? {
            let (_, record) = manifest?;
            usage.manifests += 1;
            usage.bytes += record.size;
        }
        for blob in self.blobs(repository, None)? {
            let (digest, _) = blob?;
            usage.blobs += 1;
            usage.bytes += self.stored_blob(&digest)?.map_or(0, |record| record.size);
        }
        Ok(usage)
    }

    /// A tag.
    pub fn tag(&self, repository: RepositoryId, tag: &Tag) -> Result<Option<TagRecord>, MetadataError> {
        owned_row(self.tables().repositories()?, &keys::tag(repository, tag))
    }

    /// The tags of a repository that are greater than `after`, which need not exist, in the order of their bytes.
    pub fn tags(
        &self,
        repository: RepositoryId,
        after: Option<&str>,
    ) -> Result<impl Iterator<Item = Result<(Tag, TagRecord), MetadataError>> + use<>, MetadataError> {
        let rows = self.of_repository(repository, OfRepository::Tag, after.map(str::as_bytes))?;
        Ok(rows.map(|row| {
            let (key, value) = row?;
            let tag = text(key.value().get(9..).unwrap_or_default(), REPOSITORIES)?;
            Ok((
                tag.parse().map_err(|error| damaged(REPOSITORIES, error))?,
                TagRecord::decode(value.value())?,
            ))
        }))
    }

    /// The tags that point at a manifest, in the order of their bytes.
    pub fn tags_of(
        &self,
        repository: RepositoryId,
        digest: &Digest,
    ) -> Result<impl Iterator<Item = Result<Tag, MetadataError>> + use<>, MetadataError> {
        let prefix = keys::of_repository_digest(repository, OfRepository::TagOf, digest);
        let rows = read_prefix(self.tables().repositories()?, &prefix, None)?;
        Ok(rows.map(move |row| {
            let (key, _) = row?;
            let tag = text(key.value().get(prefix.len()..).unwrap_or_default(), REPOSITORIES)?;
            tag.parse().map_err(|error| damaged(REPOSITORIES, error))
        }))
    }

    /// A manifest of a repository.
    pub fn manifest(
        &self,
        repository: RepositoryId,
        digest: &Digest,
    ) -> Result<Option<ManifestRecord>, MetadataError> {
        let key = keys::of_repository_digest(repository, OfRepository::Manifest, digest);
        owned_row(self.tables().repositories()?, &key)
    }

    /// The manifests of a repository after the digest `after`, in the order of the digests.
    pub fn manifests(
        &self,
        repository: RepositoryId,
        after: Option<&Digest>,
    ) -> Result<impl Iterator<Item = Result<(Digest, ManifestRecord), MetadataError>> + use<>, MetadataError>
    {
        let rows = self.of_repository(repository, OfRepository::Manifest, after.map(Digest::as_key))?;
        Ok(rows.map(|row| {
            let (key, value) = row?;
            Ok((digest_at(key.value(), 9, REPOSITORIES)?.0, ManifestRecord::decode(value.value())?))
        }))
    }

    /// The repositories that hold a manifest of this digest, in the order of their ids.
    pub fn manifest_repositories(
        &self,
        digest: &Digest,
    ) -> Result<impl Iterator<Item = Result<RepositoryId, MetadataError>> + use<>, MetadataError> {
        self.repositories_of(digest, OfDigest::ManifestIn)
    }

    /// All that a manifest refers to; empty where it is not in the repository.
    pub fn edges(
        &self,
        repository: RepositoryId,
        manifest: &Digest,
    ) -> Result<Vec<(EdgeKind, Digest)>, MetadataError> {
        let key = keys::of_repository_digest(repository, OfRepository::Edges, manifest);
        Ok(owned_row::<EdgesRow>(self.tables().repositories()?, &key)?.unwrap_or_default().0)
    }

    /// The manifests of a repository that refer to `digest`, and how, in the order of their digests: what keeps it
    /// alive, be it a blob or a manifest, and be it there or not. One that refers to it in two ways comes twice.
    pub fn parents(
        &self,
        repository: RepositoryId,
        digest: &Digest,
    ) -> Result<impl Iterator<Item = Result<(Digest, EdgeKind), MetadataError>> + use<>, MetadataError> {
        let prefix = keys::of_repository_digest(repository, OfRepository::Parent, digest);
        let rows = read_prefix(self.tables().repositories()?, &prefix, None)?;
        Ok(rows.map(move |row| {
            let (key, _) = row?;
            let (parent, rest) = digest_at(key.value(), prefix.len(), REPOSITORIES)?;
            let kind = match rest {
                [number] => EdgeKind::ALL.get(usize::from(*number)),
                _ => None,
            };
            Ok((parent, *kind.ok_or_else(|| damaged(REPOSITORIES, "an unknown kind of reference"))?))
        }))
    }

    /// The manifests of a repository that are about `subject`, after the digest `after`, in the order of their digests.
    pub fn referrers(
        &self,
        repository: RepositoryId,
        subject: &Digest,
        after: Option<&Digest>,
    ) -> Result<impl Iterator<Item = Result<Referrer, MetadataError>> + use<>, MetadataError> {
        let prefix = keys::of_repository_digest(repository, OfRepository::Referrer, subject);
        let rows = read_prefix(self.tables().repositories()?, &prefix, after.map(Digest::as_key))?;
        Ok(rows.map(move |row| {
            let (key, value) = row?;
            let (digest, _) = digest_at(key.value(), prefix.len(), REPOSITORIES)?;
            Ok(ReferrerRow::decode(value.value())?.with_digest(digest))
        }))
    }

    /// A blob that is linked in a repository.
    pub fn blob(
        &self,
        repository: RepositoryId,
        digest: &Digest,
    ) -> Result<Option<BlobRecord>, MetadataError> {
        let key = keys::of_repository_digest(repository, OfRepository::Link, digest);
        if !has(self.tables().repositories()?, &key)? {
            return Ok(None);
        }
        self.stored_blob(digest)
    }

    /// That a blob is linked in a repository, whether its content can be had or not.
    pub fn link(
        &self,
        repository: RepositoryId,
        digest: &Digest,
    ) -> Result<Option<LinkRecord>, MetadataError> {
        let key = keys::of_repository_digest(repository, OfRepository::Link, digest);
        owned_row(self.tables().repositories()?, &key)
    }

    /// The blobs that are linked in a repository, after the digest `after`, in the order of the digests.
    pub fn blobs(
        &self,
        repository: RepositoryId,
        after: Option<&Digest>,
    ) -> Result<impl Iterator<Item = Result<(Digest, LinkRecord), MetadataError>> + use<>, MetadataError>
    {
        let rows = self.of_repository(repository, OfRepository::Link, after.map(Digest::as_key))?;
        Ok(rows.map(|row| {
            let (key, value) = row?;
            Ok((digest_at(key.value(), 9, REPOSITORIES)?.0, LinkRecord::decode(value.value())?))
        }))
    }

    /// The repositories that a blob is linked in, in the order of their ids.
    pub fn blob_repositories(
        &self,
        digest: &Digest,
    ) -> Result<impl Iterator<Item = Result<RepositoryId, MetadataError>> + use<>, MetadataError> {
        self.repositories_of(digest, OfDigest::LinkedIn)
    }

    /// Content by its digest, blob or manifest, whatever repository may see it.
    pub fn stored_blob(&self, digest: &Digest) -> Result<Option<BlobRecord>, MetadataError> {
        owned_row(self.tables().digests()?, &keys::of_digest(digest, OfDigest::Blob))
    }

    /// All content that is stored, after the digest `after`, in the order of the digests.
    pub fn stored_blobs(
        &self,
        after: Option<&Digest>,
    ) -> Result<impl Iterator<Item = Result<(Digest, BlobRecord), MetadataError>> + use<>, MetadataError>
    {
        // Links of `after` itself may follow; they are passed over below.
        let rows = read_prefix(self.tables().digests()?, &[], after.map(Digest::as_key))?;
        let after = after.copied();
        Ok(rows.filter_map(move |row| {
            let read = || {
                let (key, value) = row?;
                let (digest, kind) = digest_at(key.value(), 0, DIGESTS)?;
                let wanted = kind == [OfDigest::Blob as u8] && after != Some(digest);
                wanted.then(|| Ok((digest, BlobRecord::decode(value.value())?))).transpose()
            };
            read().transpose()
        }))
    }

    /// Whether the content is there of something that is linked, or a manifest: it was not found damaged. Costs nothing
    /// as long as nothing is.
    pub fn is_whole(&self, digest: &Digest) -> Result<bool, MetadataError> {
        Ok(self.statistics().damaged == 0 || self.stored_blob(digest)?.is_some())
    }

    /// What was found of a content's damage, where it was not pushed again since.
    pub fn damage(&self, digest: &Digest) -> Result<Option<DamageRecord>, MetadataError> {
        owned_row(self.tables().damaged()?, digest.as_key())
    }

    /// All content that was found damaged and was not pushed again since, after the digest `after`, in the order of the
    /// digests.
    pub fn damaged(
        &self,
        after: Option<&Digest>,
    ) -> Result<impl Iterator<Item = Result<(Digest, DamageRecord), MetadataError>> + use<>, MetadataError>
    {
        let rows = read_prefix(self.tables().damaged()?, &[], after.map(Digest::as_key))?;
        Ok(rows.map(|row| {
            let (key, value) = row?;
            Ok((digest_at(key.value(), 0, DAMAGED)?.0, DamageRecord::decode(value.value())?))
        }))
    }

    /// What the last scrub has left of itself.
    pub(crate) fn scrub(&self) -> Result<Option<String>, MetadataError> {
        row(self.tables().state()?, keys::SCRUB, |value| Ok(ScrubRow::decode(value)?.report.to_owned()))
    }

    /// The bytes of content that is stored inline; `None` for other content. `size` says where to look first.
    pub fn content(&self, digest: &Digest, size: u64) -> Result<Option<Bytes>, MetadataError> {
        // Copied, as a slow client would hold the pages of this state for as long as it reads.
        content(self.tables().contents()?, digest, size, Bytes::copy_from_slice)
    }

    /// An upload session.
    pub fn upload(&self, id: UploadId) -> Result<Option<UploadRecord>, MetadataError> {
        row(self.tables().uploads()?, &id.0, |value| UploadRow::decode(value)?.try_into())
    }

    /// All upload sessions, in the order of their ids.
    pub fn uploads(
        &self,
    ) -> Result<impl Iterator<Item = Result<(UploadId, UploadRecord), MetadataError>> + use<>, MetadataError>
    {
        let rows = read_prefix(self.tables().uploads()?, &[], None)?;
        Ok(rows.map(|row| {
            let (key, value) = row?;
            let id = key.value().try_into().map_err(|_| damaged(UPLOADS, "an id of the wrong length"))?;
            Ok((UploadId(id), UploadRow::decode(value.value())?.try_into()?))
        }))
    }

    /// The files of the upload sessions; `None` where a session cannot be read, which may have any.
    pub(crate) fn files_of_uploads(&self) -> Result<Option<HashSet<FileId>>, MetadataError> {
        let mut files = HashSet::new();
        for upload in self.uploads()? {
            let Some((_, record)) = readable(upload)? else { return Ok(None) };
            if let UploadContent::File(file) = record.content {
                files.insert(file);
            }
        }
        Ok(Some(files))
    }

    /// Changes of tags after this number can be told ([`Snapshot::tag_changes_since`]). Costs nothing.
    pub fn tag_changes_kept_after(&self) -> u64 {
        self.0.state.changes_trimmed
    }

    /// Up to `limit` changes of tags after the one numbered `sequence`, oldest first.
    ///
    /// # Errors
    /// [`ChangesError::Expired`] where some changes after `sequence` are no longer kept.
    pub fn tag_changes_since(&self, sequence: u64, limit: usize) -> Result<Vec<TagChange>, ChangesError> {
        let trimmed = self.0.state.changes_trimmed;
        if sequence < trimmed {
            return Err(ChangesError::Expired { trimmed });
        }
        let rows = read_prefix(self.tables().tag_changes()?, &[], Some(&sequence.to_be_bytes()))?;
        let changes = rows.take(limit).map(|row| {
            let (key, value) = row?;
            TagChangeRow::decode(value.value())?.with_sequence(number(key.value(), TAG_CHANGES)?)
        });
        Ok(changes.collect::<Result<_, MetadataError>>()?)
    }

    pub(super) fn of_repository(
        &self,
        repository: RepositoryId,
        kind: OfRepository,
        after: Option<&[u8]>,
    ) -> Result<ReadRange, MetadataError> {
        read_prefix(self.tables().repositories()?, &keys::of_repository(repository, kind), after)
    }

    fn repositories_of(
        &self,
        digest: &Digest,
        kind: OfDigest,
    ) -> Result<impl Iterator<Item = Result<RepositoryId, MetadataError>> + use<>, MetadataError> {
        let prefix = keys::of_digest(digest, kind);
        let rows = read_prefix(self.tables().digests()?, &prefix, None)?;
        Ok(rows.map(move |row| {
            let (key, _) = row?;
            Ok(RepositoryId(number(key.value().get(prefix.len()..).unwrap_or_default(), DIGESTS)?))
        }))
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot").field("sequence", &self.sequence()).finish_non_exhaustive()
    }
}

/// The number that `bytes` is.
pub(super) fn number(bytes: &[u8], table: &'static str) -> Result<u64, MetadataError> {
    let bytes = bytes.try_into().map_err(|_| damaged(table, "a number of the wrong length"))?;
    Ok(u64::from_be_bytes(bytes))
}

/// A value of the table `names`.
pub(super) fn repository_id(value: &[u8]) -> Result<RepositoryId, MetadataError> {
    Ok(RepositoryId(number(value, NAMES)?))
}

pub(super) fn text<'a>(bytes: &'a [u8], table: &'static str) -> Result<&'a str, MetadataError> {
    std::str::from_utf8(bytes).map_err(|error| damaged(table, error))
}

/// The digest that begins at `start` of `key`, and what follows it.
pub(super) fn digest_at<'a>(
    key: &'a [u8],
    start: usize,
    table: &'static str,
) -> Result<(Digest, &'a [u8]), MetadataError> {
    key.get(start..).and_then(keys::split_digest).ok_or_else(|| damaged(table, "a key without its digest"))
}
