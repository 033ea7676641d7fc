//! What can be wrong with a store, and what is to be done about it.

use serde::{Deserialize, Serialize};

use super::records::{
    BlobRecord, Damage, EdgeKind, NamespaceId, NamespaceUsage, RepositoryId, Statistics, UploadId,
    UploadRecord,
};
use crate::oci::{Digest, Tag};

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FindingKind {
    /// A row that this version cannot read: damaged, or of a later version. It is left alone.
    UnreadableRow,
    /// A name of a repository that is not there, or is called otherwise.
    NameWithoutRepository,
    /// A repository that its name does not lead to.
    RepositoryWithoutName,
    /// Rows of a repository that is not there.
    RowsOfNoRepository,
    /// The two rows of a link of a blob, of which one is missing.
    LinkRows,
    /// The two rows of a manifest, of which one is missing.
    ManifestRows,
    /// A blob or a manifest of which nobody knows where its content is.
    ContentUnknown,
    /// What is known of a manifest is not what it says.
    ManifestDiffers,
    /// What a manifest refers to, and the rows that say the same the other way round.
    ReferenceRows,
    /// The row of a referrer that is missing, or of one that is not there.
    ReferrerRows,
    /// The two rows of a tag, of which one is missing.
    TagRows,
    /// A tag of a manifest that is not there.
    TagWithoutManifest,
    /// Content that should be in the metadata and is not, has another length or is not what its digest says; or is there and
    /// should not be.
    InlineContent,
    /// Content that counts as damaged and as whole.
    DamageRows,
    /// Something that a manifest needs and that is not in its repository. Clients may delete blobs, so this is no fault
    /// of the store; who pulls the manifest cannot have all of it.
    ReferenceMissing,
    /// The counters are not what counting gives.
    Counters,
    /// The history of the tags does not lead to the tags that there are.
    TagChanges,
    /// A file of a blob is missing.
    FileMissing,
    /// A file of a blob is longer or shorter than the blob.
    FileLength,
    /// A file of an upload session is missing, or shorter than the session.
    UploadFile,
    /// A file of the registry that nothing names.
    StrayFile,
    /// A file or a directory among those of the registry that is none of them. It is left alone.
    StrangeFile,
    /// A directory for files is missing.
    DirectoryMissing,
}

impl FindingKind {
    /// Whether something is wrong with the store; if not, it is only worth knowing.
    pub fn is_fault(self) -> bool {
        !matches!(self, Self::ReferenceMissing | Self::StrayFile | Self::StrangeFile)
    }
}

/// Something that was found.
#[derive(Debug)]
pub(crate) struct Finding {
    pub(crate) kind: FindingKind,
    /// What, for people.
    pub(crate) text: String,
    /// What puts it right, where something does.
    pub(crate) repair: Option<Repair>,
}

impl Finding {
    pub(crate) fn new(kind: FindingKind, text: String) -> Self {
        Self { kind, text, repair: None }
    }

    pub(crate) fn with(self, repair: Repair) -> Self {
        Self { repair: Some(repair), ..self }
    }
}

/// What puts something right. Each looks again what is wrong before it does anything, so that what has been put right, or has
/// changed since, stays as it is.
#[derive(Clone, Debug)]
pub(crate) enum Repair {
    /// A row of `names`.
    Name(String),
    /// A repository and its name.
    Repository(RepositoryId),
    /// Rows of a repository that is not there.
    Orphans(RepositoryId),
    /// The rows of a link.
    Link(RepositoryId, Digest),
    /// The rows of a manifest, out of its content.
    Manifest(RepositoryId, Digest),
    /// That something has this parent: child, parent.
    Parent(RepositoryId, Digest, Digest, EdgeKind),
    /// That something is a referrer: subject, referrer.
    Referrer(RepositoryId, Digest, Digest),
    /// The rows of a tag.
    Tag(RepositoryId, Tag),
    /// That a manifest has a tag.
    TagOf(RepositoryId, Digest, Tag),
    /// Where content is, and whether it is.
    Content(Digest),
    /// Content whose file is damaged.
    File(Digest, BlobRecord, Damage),
    /// An upload session whose file is damaged.
    Upload(UploadId, Box<UploadRecord>),
    /// The counters: what they said, and what counting gave, both of one state.
    Counters(Statistics, Statistics),
    /// The same of a namespace.
    Namespace(NamespaceId, NamespaceUsage, NamespaceUsage),
    /// The history of the tags.
    TagChanges,
}
