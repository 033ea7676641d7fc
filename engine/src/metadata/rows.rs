//! The values, as bytes: a version, then the fields (postcard).
//!
//! A row whose fields change gets another version; the decoder of its type then reads both, so that a store of an
//! earlier release opens without a walk over its rows.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::MetadataError;
use super::records::{
    BlobRecord, DamageRecord, EdgeKind, FileId, LinkRecord, ManifestRecord, NamespaceUsage, Referrer,
    Statistics, TagChange, TagRecord, Timestamp, UploadContent, UploadRecord,
};
use crate::oci::{Digest, HashState};
use crate::read_only::Hold;

/// A value of some table.
pub(super) trait Row<'a>: Serialize + Deserialize<'a> {
    /// The table it stands in, for errors.
    const TABLE: &'static str;
    /// Version of the fields.
    const VERSION: u8 = 1;

    /// The bytes to store.
    fn encode(&self) -> Result<Vec<u8>, MetadataError> {
        postcard::to_extend(self, vec![Self::VERSION]).map_err(|error| damaged(Self::TABLE, error))
    }

    /// Reads what [`Row::encode`] gave.
    fn decode(bytes: &'a [u8]) -> Result<Self, MetadataError> {
        let (&version, fields) = bytes.split_first().ok_or_else(|| damaged(Self::TABLE, "an empty row"))?;
        if version != Self::VERSION {
            return Err(damaged(Self::TABLE, format_args!("version {version} of a row is not known")));
        }
        read_fields(Self::TABLE, fields)
    }
}

/// The fields of a row of `table`, up to the last byte.
fn read_fields<'a, T: Deserialize<'a>>(table: &'static str, fields: &'a [u8]) -> Result<T, MetadataError> {
    let (row, rest) = postcard::take_from_bytes(fields).map_err(|error| damaged(table, error))?;
    if !rest.is_empty() {
        return Err(damaged(table, "bytes after the last field"));
    }
    Ok(row)
}

/// A row of `table` cannot be read.
pub(super) fn damaged(table: &'static str, reason: impl ToString) -> MetadataError {
    MetadataError::Row { table, reason: reason.to_string() }
}

pub(super) const DIGESTS: &str = "digests";
pub(super) const REPOSITORIES: &str = "repositories";
pub(super) const NAMES: &str = "names";
pub(super) const CONTENTS: &str = "contents";
pub(super) const UPLOADS: &str = "uploads";
pub(super) const TAG_CHANGES: &str = "tag_changes";
pub(super) const STATE: &str = "state";
pub(super) const COLLECTIONS: &str = "collections";
pub(super) const DAMAGED: &str = "damaged";
/// No table: what errors call the log.
pub(super) const LOG: &str = "log";

impl Row<'_> for BlobRecord {
    const TABLE: &'static str = DIGESTS;
}

impl Row<'_> for DamageRecord {
    const TABLE: &'static str = DAMAGED;
}

impl Row<'_> for LinkRecord {
    const TABLE: &'static str = REPOSITORIES;
}

impl Row<'_> for ManifestRecord {
    const TABLE: &'static str = REPOSITORIES;
}

impl Row<'_> for TagRecord {
    const TABLE: &'static str = REPOSITORIES;
}

/// Name and creation of a repository.
#[derive(Serialize, Deserialize)]
pub(super) struct RepositoryRow<'a> {
    pub(super) name: &'a str,
    pub(super) created_at: Timestamp,
}

impl<'a> Row<'a> for RepositoryRow<'a> {
    const TABLE: &'static str = REPOSITORIES;
}

/// All that a manifest refers to: in one row, as it is written and deleted as one.
#[derive(Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct EdgesRow(pub(super) Vec<(EdgeKind, Digest)>);

impl Row<'_> for EdgesRow {
    const TABLE: &'static str = REPOSITORIES;
}

/// A referrer, without its digest, which is in the key.
#[derive(Serialize, Deserialize)]
pub(super) struct ReferrerRow {
    pub(super) media_type: String,
    pub(super) size: u64,
    pub(super) artifact_type: Option<String>,
    pub(super) annotations: Option<BTreeMap<String, String>>,
}

impl Row<'_> for ReferrerRow {
    const TABLE: &'static str = REPOSITORIES;
}

impl ReferrerRow {
    pub(super) fn with_digest(self, digest: Digest) -> Referrer {
        let Self { media_type, size, artifact_type, annotations } = self;
        Referrer { digest, media_type, size, artifact_type, annotations }
    }
}

/// A change of a tag, without its sequence number, which is the key.
#[derive(Serialize, Deserialize)]
pub(super) struct TagChangeRow<'a> {
    pub(super) repository: &'a str,
    pub(super) tag: &'a str,
    pub(super) digest: Option<Digest>,
    pub(super) previous: Option<Digest>,
    pub(super) at: Timestamp,
    /// Which change made the tag exist, and when.
    pub(super) created: (u64, Timestamp),
}

impl<'a> Row<'a> for TagChangeRow<'a> {
    const TABLE: &'static str = TAG_CHANGES;
}

impl TagChangeRow<'_> {
    pub(super) fn with_sequence(&self, sequence: u64) -> Result<TagChange, MetadataError> {
        let &Self { repository, tag, digest, previous, at, created: (created, created_at) } = self;
        let repository = repository.parse().map_err(|error| damaged(TAG_CHANGES, error))?;
        let tag = tag.parse().map_err(|error| damaged(TAG_CHANGES, error))?;
        Ok(TagChange { sequence, repository, tag, digest, previous, at, created, created_at })
    }
}

impl Row<'_> for Hold {
    const TABLE: &'static str = STATE;
}

/// What a collection has left of itself: its report, as JSON.
#[derive(Serialize, Deserialize)]
pub(super) struct CollectionRow<'a> {
    pub(super) report: &'a str,
}

impl<'a> Row<'a> for CollectionRow<'a> {
    const TABLE: &'static str = COLLECTIONS;
}

/// How far the scrub is: its report, as JSON.
#[derive(Serialize, Deserialize)]
pub(super) struct ScrubRow<'a> {
    pub(super) report: &'a str,
}

impl<'a> Row<'a> for ScrubRow<'a> {
    const TABLE: &'static str = STATE;
}

/// An upload session.
#[derive(Serialize, Deserialize)]
pub(super) struct UploadRow<'a> {
    repository: &'a str,
    started_at: Timestamp,
    touched_at: Timestamp,
    size: u64,
    hash: HashState,
    #[serde(borrow)]
    content: UploadContentRow<'a>,
}

#[derive(Serialize, Deserialize)]
enum UploadContentRow<'a> {
    #[serde(borrow)]
    Inline(Raw<'a>),
    File(FileId),
}

impl<'a> Row<'a> for UploadRow<'a> {
    const TABLE: &'static str = UPLOADS;
}

impl<'a> From<&'a UploadRecord> for UploadRow<'a> {
    fn from(record: &'a UploadRecord) -> Self {
        Self {
            repository: record.repository.as_str(),
            started_at: record.started_at,
            touched_at: record.touched_at,
            size: record.size,
            hash: record.hash.clone(),
            content: match &record.content {
                UploadContent::Inline(bytes) => UploadContentRow::Inline(Raw(bytes)),
                UploadContent::File(file) => UploadContentRow::File(*file),
            },
        }
    }
}

impl TryFrom<UploadRow<'_>> for UploadRecord {
    type Error = MetadataError;

    fn try_from(row: UploadRow<'_>) -> Result<Self, MetadataError> {
        Ok(Self {
            repository: row.repository.parse().map_err(|error| damaged(UPLOADS, error))?,
            started_at: row.started_at,
            touched_at: row.touched_at,
            size: row.size,
            hash: row.hash,
            content: match row.content {
                UploadContentRow::Inline(Raw(bytes)) => UploadContent::Inline(Bytes::copy_from_slice(bytes)),
                UploadContentRow::File(file) => UploadContent::File(file),
            },
        })
    }
}

/// Bytes that are copied as a whole; serde by itself goes over a slice byte by byte.
struct Raw<'a>(&'a [u8]);

impl Serialize for Raw<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Raw<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Borrowed;
        impl<'de> Visitor<'de> for Borrowed {
            type Value = &'de [u8];
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }
            fn visit_borrowed_bytes<E>(self, bytes: &'de [u8]) -> Result<&'de [u8], E> {
                Ok(bytes)
            }
        }
        deserializer.deserialize_bytes(Borrowed).map(Raw)
    }
}

/// What the store knows of itself: one row, written with every commit.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) struct StateRow {
    /// Number of the last change.
    pub(super) sequence: u64,
    /// The last number of a repository that was given out.
    pub(super) repository: u32,
    /// The last number of a namespace that was given out.
    pub(super) namespace: u32,
    /// Highest sequence number trimmed from `tag_changes`.
    pub(super) changes_trimmed: u64,
    pub(super) statistics: Statistics,
}

/// Versions 1 and 2 were in no release.
impl Row<'_> for StateRow {
    const TABLE: &'static str = STATE;
    const VERSION: u8 = 3;
}

impl Row<'_> for NamespaceUsage {
    const TABLE: &'static str = STATE;
}

/// A new store. Its making counts as the first change: a sequence number is never 0, which means "any" to those who
/// name states by these numbers.
impl Default for StateRow {
    fn default() -> Self {
        Self {
            sequence: 1,
            repository: 0,
            namespace: 0,
            changes_trimmed: 0,
            statistics: Statistics::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_do_not_decode_name_their_table() {
        let row = LinkRecord { linked_at: Timestamp(5) }.encode().expect("encodes");
        assert_eq!(LinkRecord::decode(&row).expect("decodes"), LinkRecord { linked_at: Timestamp(5) });
        let longer = [row.as_slice(), &[0]].concat();
        let later = [&[2], &row[1..]].concat();
        for bad in [&[][..], &row[..1], &longer, &later] {
            let error = LinkRecord::decode(bad).expect_err("damaged");
            assert!(matches!(error, MetadataError::Row { table: REPOSITORIES, .. }), "{error}");
        }
    }
}
