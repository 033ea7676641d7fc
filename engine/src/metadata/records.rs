use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::oci::{Digest, HashState, RepositoryName, Tag};

/// A point in time: milliseconds since the Unix epoch, UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp(pub u64);

/// A text is no file or upload id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an id is 32 lower-case hexadecimal digits")]
pub struct IdError;

/// 16 bytes from 32 lower-case hexadecimal digits.
fn parse_id(text: &str) -> Result<[u8; 16], IdError> {
    let mut bytes = [0; 16];
    if text.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(IdError);
    }
    hex::decode_to_slice(text, &mut bytes).map_err(|_| IdError)?;
    Ok(bytes)
}

fn write_id(bytes: &[u8; 16], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "{:032x}", u128::from_be_bytes(*bytes))
}

/// Names one incarnation of a file: content that is stored again after it was deleted gets another id, so that
/// deleting the old file can never hit the new one. The caller draws it at random.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FileId(pub [u8; 16]);

/// Names an upload session. Who knows it may go on with the upload, so the caller draws it from a secure source.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UploadId(pub [u8; 16]);

/// Written as 32 lower-case hexadecimal digits, and read back from exactly that.
macro_rules! id_text {
    ($id:ident) => {
        impl fmt::Display for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_id(&self.0, f)
            }
        }

        impl fmt::Debug for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $id {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                parse_id(text).map(Self)
            }
        }
    };
}
id_text!(FileId);
id_text!(UploadId);

/// Names a repository inside the store. Never used again, not even for a repository of the same name.
///
/// The upper half is the number of the namespace: so the repositories of one are together wherever rows are in the order
/// of these ids, and whether any of them has something is one look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepositoryId(pub u64);

impl RepositoryId {
    pub(super) fn new(namespace: NamespaceId, number: u32) -> Self {
        Self(u64::from(namespace.0) << 32 | u64::from(number))
    }

    pub(super) fn namespace(self) -> NamespaceId {
        NamespaceId((self.0 >> 32) as u32)
    }

    /// What tells it from all other repositories.
    pub(super) fn number(self) -> u32 {
        self.0 as u32
    }
}

/// Names a namespace inside the store, for as long as there are repositories in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct NamespaceId(pub(super) u32);

/// A repository, as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepositoryRecord {
    /// The id.
    pub id: RepositoryId,
    /// The name.
    pub name: RepositoryName,
}

/// Where the bytes of some content are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BlobLocation {
    /// In the store itself: [`Snapshot::content`](super::Snapshot::content).
    Inline,
    /// In a file of their own.
    File(FileId),
}

/// Content that is stored: a blob, a manifest, or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobRecord {
    /// Length in bytes.
    pub size: u64,
    /// Where the bytes are.
    pub location: BlobLocation,
    /// When it was stored.
    pub stored_at: Timestamp,
}

/// What is wrong with content that was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Damage {
    /// It is not there.
    Missing,
    /// It is longer or shorter than it was.
    Length,
    /// It is not what its digest says.
    Content,
    /// The volume cannot read it.
    Unreadable,
}

/// Content that was found damaged, and counts as not there until it is pushed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamageRecord {
    /// What was known of it.
    pub content: BlobRecord,
    /// What is wrong.
    pub damage: Damage,
    /// When that was found.
    pub found_at: Timestamp,
}

/// That a blob can be seen in a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkRecord {
    /// When it was pushed to or mounted in the repository, the last time.
    pub linked_at: Timestamp,
}

/// A manifest in a repository. The bytes are found by its digest: [`Snapshot::stored_blob`](super::Snapshot::stored_blob).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestRecord {
    /// Type, without parameters.
    pub media_type: String,
    /// Length in bytes.
    pub size: u64,
    /// When it was pushed, the last time.
    pub pushed_at: Timestamp,
    /// Type of the artifact, where it is one.
    pub artifact_type: Option<String>,
    /// The manifest that this one is about; it need not exist.
    pub subject: Option<Digest>,
    /// The config, for an image.
    pub config: Option<Digest>,
}

/// In what way a manifest refers to other content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum EdgeKind {
    /// A config or layer that is in the repository.
    Blob = 0,
    /// A layer that is distributed by somebody else and need not be in the repository.
    ForeignBlob = 1,
    /// An entry of an index: a manifest, or a blob where a build cache lists one.
    Child = 2,
    /// The manifest that the referring one is about; it need not exist.
    Subject = 3,
}

impl EdgeKind {
    /// Every kind, in the order of the numbers they are stored by.
    pub const ALL: [Self; 4] = [Self::Blob, Self::ForeignBlob, Self::Child, Self::Subject];
}

/// A manifest that is about another one, with all that a list of referrers says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Referrer {
    /// The referring manifest.
    pub digest: Digest,
    /// Its type.
    pub media_type: String,
    /// Its length in bytes.
    pub size: u64,
    /// Type of the artifact.
    pub artifact_type: Option<String>,
    /// Free key-value pairs.
    pub annotations: Option<BTreeMap<String, String>>,
}

/// A tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagRecord {
    /// The manifest it points at.
    pub digest: Digest,
    /// When the tag came to exist.
    pub created_at: Timestamp,
    /// When it was pushed, the last time, be it with the same digest.
    pub updated_at: Timestamp,
    /// Sequence number of the change that made it point where it points.
    pub sequence: u64,
    /// Sequence number of the change that made it exist: the same for as long as it does, and another one when it is
    /// deleted and pushed again.
    pub created: u64,
}

/// That a tag was set, moved or deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagChange {
    /// Number of the change; larger is later.
    pub sequence: u64,
    /// The tag's repository.
    pub repository: RepositoryName,
    /// The tag.
    pub tag: Tag,
    /// What it points at after the change; `None`: it was deleted.
    pub digest: Option<Digest>,
    /// What it pointed at before; `None`: it did not exist.
    pub previous: Option<Digest>,
    /// When.
    pub at: Timestamp,
    /// Sequence number of the change that made the tag exist; of a deleted tag, too.
    pub created: u64,
    /// When the tag came to exist.
    pub created_at: Timestamp,
}

/// Where the bytes of an unfinished upload are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UploadContent {
    /// Here: few enough to be stored with the session (at most [`INLINE_SIZE_MAX`](super::INLINE_SIZE_MAX)).
    Inline(Bytes),
    /// In a file of their own.
    File(FileId),
}

/// An upload session: what is needed to go on with it after a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadRecord {
    /// Where it was started; the repository need not exist yet.
    pub repository: RepositoryName,
    /// When it was started.
    pub started_at: Timestamp,
    /// When bytes last arrived.
    pub touched_at: Timestamp,
    /// Bytes received so far.
    pub size: u64,
    /// State of the hash over these bytes.
    pub hash: HashState,
    /// Where these bytes are.
    pub content: UploadContent,
}

/// Counts over the whole store, kept with every change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statistics {
    /// Repositories, also empty ones.
    pub repositories: u64,
    /// Tags in all repositories.
    pub tags: u64,
    /// Manifests; one that is in two repositories counts twice.
    pub manifests: u64,
    /// Links of blobs in repositories.
    pub links: u64,
    /// Contents stored, manifests among them; each counts once.
    pub blobs: u64,
    /// Length of the stored contents in bytes.
    pub bytes: u64,
    /// Upload sessions.
    pub uploads: u64,
    /// Contents that were found damaged and were not pushed again since; not among `blobs`.
    pub damaged: u64,
}

/// What a namespace holds, kept with every change. Content that several of its repositories have counts once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceUsage {
    /// Repositories, also empty ones.
    pub repositories: u64,
    /// Blobs and manifests.
    pub contents: u64,
    /// Length of these in bytes.
    pub bytes: u64,
}

/// What one repository holds. Content that is shared with others counts fully in each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RepositoryUsage {
    /// Manifests.
    pub manifests: u64,
    /// Linked blobs.
    pub blobs: u64,
    /// Length of manifests and linked blobs in bytes.
    pub bytes: u64,
}
