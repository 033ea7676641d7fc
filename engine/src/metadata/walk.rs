//! Walks over many rows of a snapshot, in the order of their keys: what collection marks by.

use super::error::readable;
use super::keys::{OfDigest, OfRepository};
use super::records::{BlobRecord, EdgeKind, RepositoryId};
use super::rows::{CollectionRow, DIGESTS, REPOSITORIES, Row as _, damaged};
use super::snapshot::{digest_at, number, text};
use super::tables::read_prefix;
use super::{MetadataError, Snapshot};
use crate::oci::{Algorithm, Digest, Tag};

/// What a row says of a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DigestRow {
    /// The content is stored.
    Stored(BlobRecord),
    /// It is linked as a blob in this repository.
    Linked(RepositoryId),
    /// It is a manifest of this repository.
    Manifest(RepositoryId),
    /// Something that cannot be read.
    Unreadable,
}

/// That a manifest of a repository refers to some content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reference {
    /// What it refers to.
    pub(crate) target: Digest,
    /// The manifest.
    pub(crate) parent: Digest,
    /// In what way.
    pub(crate) kind: EdgeKind,
}

impl Snapshot {
    /// The tags of a repository, in the order of the digests that they point at.
    pub(crate) fn tags_by_digest(
        &self,
        repository: RepositoryId,
    ) -> Result<impl Iterator<Item = Result<(Digest, Tag), MetadataError>> + use<>, MetadataError> {
        let rows = self.of_repository(repository, OfRepository::TagOf, None)?;
        Ok(rows.map(|row| {
            let (key, _) = row?;
            let (digest, tag) = digest_at(key.value(), 9, REPOSITORIES)?;
            let tag = text(tag, REPOSITORIES)?.parse().map_err(|error| damaged(REPOSITORIES, error))?;
            Ok((digest, tag))
        }))
    }

    /// All that the manifests of a repository refer to, in the order of the targets.
    pub(crate) fn references(
        &self,
        repository: RepositoryId,
    ) -> Result<impl Iterator<Item = Result<Reference, MetadataError>> + use<>, MetadataError> {
        let rows = self.of_repository(repository, OfRepository::Parent, None)?;
        Ok(rows.map(|row| {
            let (key, _) = row?;
            let (target, rest) = digest_at(key.value(), 9, REPOSITORIES)?;
            let start = key.value().len() - rest.len();
            let (parent, rest) = digest_at(key.value(), start, REPOSITORIES)?;
            let kind = match rest {
                [number] => EdgeKind::ALL.get(usize::from(*number)),
                _ => None,
            };
            let kind = *kind.ok_or_else(|| damaged(REPOSITORIES, "an unknown kind of reference"))?;
            Ok(Reference { target, parent, kind })
        }))
    }

    /// All rows about digests: for each digest the content, where it is stored, then the repositories that have it.
    pub(crate) fn digest_rows(
        &self,
    ) -> Result<impl Iterator<Item = Result<(Digest, DigestRow), MetadataError>> + use<>, MetadataError> {
        let rows = read_prefix(self.tables().digests()?, &[], None)?;
        Ok(rows.map(|row| {
            let (key, value) = row?;
            let (digest, rest) = digest_at(key.value(), 0, DIGESTS)?;
            let (kind, repository) =
                rest.split_first().ok_or_else(|| damaged(DIGESTS, "a key without its kind"))?;
            let row = match *kind {
                kind if kind == OfDigest::Blob as u8 => {
                    BlobRecord::decode(value.value()).map(DigestRow::Stored)
                }
                kind if kind == OfDigest::LinkedIn as u8 => {
                    number(repository, DIGESTS).map(|id| DigestRow::Linked(RepositoryId(id)))
                }
                kind if kind == OfDigest::ManifestIn as u8 => {
                    number(repository, DIGESTS).map(|id| DigestRow::Manifest(RepositoryId(id)))
                }
                _ => Err(damaged(DIGESTS, "a key of an unknown kind")),
            };
            Ok((digest, readable(row)?.unwrap_or(DigestRow::Unreadable)))
        }))
    }

    /// The content that is stored of those digests whose value begins with the byte `first`.
    pub(crate) fn stored_blobs_of(
        &self,
        algorithm: Algorithm,
        first: u8,
    ) -> Result<impl Iterator<Item = Result<(Digest, BlobRecord), MetadataError>> + use<>, MetadataError>
    {
        let rows = read_prefix(self.tables().digests()?, &[algorithm as u8, first], None)?;
        Ok(rows.filter_map(|row| {
            let read = || {
                let (key, value) = row?;
                let (digest, kind) = digest_at(key.value(), 0, DIGESTS)?;
                let wanted = kind == [OfDigest::Blob as u8];
                wanted.then(|| Ok((digest, BlobRecord::decode(value.value())?))).transpose()
            };
            read().transpose()
        }))
    }

    /// What the last collections have left of themselves, oldest first. What cannot be read is left out.
    pub(crate) fn collections(&self) -> Result<Vec<String>, MetadataError> {
        let rows = read_prefix(self.tables().collections()?, &[], None)?.map(|row| {
            let (_, value) = row?;
            readable(CollectionRow::decode(value.value()).map(|row| row.report.to_owned()))
        });
        rows.filter_map(Result::transpose).collect()
    }

    /// Whether some repository has a manifest whose digest begins with these bytes.
    pub(crate) fn has_manifest_like(
        &self,
        algorithm: Algorithm,
        value: &[u8],
    ) -> Result<bool, MetadataError> {
        let prefix = [&[algorithm as u8], value].concat();
        for row in read_prefix(self.tables().digests()?, &prefix, None)? {
            let (key, _) = row?;
            let (_, rest) = digest_at(key.value(), 0, DIGESTS)?;
            if rest.first() == Some(&(OfDigest::ManifestIn as u8)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Content that was found damaged, and that no repository has any more.
    pub(crate) fn unused_damage(
        &self,
    ) -> Result<impl Iterator<Item = Result<Digest, MetadataError>> + use<>, MetadataError> {
        let (damaged, snapshot) = (self.damaged(None)?, self.clone());
        Ok(damaged.filter_map(move |row| {
            let is_unused = || {
                let Some((digest, _)) = readable(row)? else { return Ok(None) };
                let mut rows = read_prefix(snapshot.tables().digests()?, digest.as_key(), None)?;
                Ok(rows.next().transpose()?.is_none().then_some(digest))
            };
            is_unused().transpose()
        }))
    }
}
