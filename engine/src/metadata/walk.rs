//! Walks over many rows of a snapshot, in the order of their keys: what collection marks by.

use super::keys::{OfDigest, OfRepository};
use super::records::{BlobRecord, EdgeKind, RepositoryId};
use super::rows::{COLLECTIONS, CollectionRow, DIGESTS, REPOSITORIES, Row as _, damaged};
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
                kind if kind == OfDigest::Blob as u8 => DigestRow::Stored(BlobRecord::decode(value.value())?),
                kind if kind == OfDigest::LinkedIn as u8 => {
                    DigestRow::Linked(RepositoryId(number(repository, DIGESTS)?))
                }
                kind if kind == OfDigest::ManifestIn as u8 => {
                    DigestRow::Manifest(RepositoryId(number(repository, DIGESTS)?))
                }
                _ => return Err(damaged(DIGESTS, "a key of an unknown kind")),
            };
            Ok((digest, row))
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

    /// What the last collections have left of themselves, oldest first.
    pub(crate) fn collections(&self) -> Result<Vec<String>, MetadataError> {
        let rows = read_prefix(self.tables().collections()?, &[], None)?.map(|row| {
            let (_, value) = row.map_err(MetadataError::from)?;
            if value.value().is_empty() {
                return Err(damaged(COLLECTIONS, "an empty row"));
            }
            Ok(CollectionRow::decode(value.value())?.report.to_owned())
        });
        rows.collect()
    }
}
