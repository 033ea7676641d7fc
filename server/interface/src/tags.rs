use serde::{Deserialize, Serialize};

use crate::{ObjectName, call};

/// On whose behalf a call about tags is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Caller {
    /// Somebody who is held to the rules ([`SetRules`](crate::SetRules)).
    User {
        /// The user's name.
        name: String,
        /// The groups that the user is in.
        groups: Vec<String>,
    },
    /// Somebody who is not: the cluster's own controllers, which must see and delete everything whatever the rules say,
    /// and before there are any.
    Unrestricted {
        /// The user's name, for the audit log.
        name: String,
    },
}

/// A tag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tag {
    /// The first segment of the repository's name.
    pub namespace: String,
    /// The rest of the repository's name.
    pub path: String,
    /// The tag.
    pub tag: String,
    /// The manifest it points at.
    pub digest: String,
    /// A UUID: the same for as long as the tag exists, and another one when it is deleted and pushed again.
    pub uid: String,
    /// When the tag came to exist: milliseconds since the Unix epoch, UTC.
    pub created_at_ms: u64,
    /// Number of the change that made it point where it points. Always above 0.
    pub sequence: u64,
}

impl Tag {
    /// Its name within the namespace.
    pub fn object_name(&self) -> ObjectName {
        ObjectName::new(&self.path, &self.tag)
    }
}

/// A place in the order of all tags: by namespace, then by [`ObjectName`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Position {
    /// The namespace.
    pub namespace: String,
    /// The name within it.
    pub name: ObjectName,
}

/// Lists the tags that the caller may see (`list` or `get`, or what the settings let everybody pull), in the order of
/// [`Position`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListTags {
    /// Who asks.
    pub caller: Caller,
    /// The namespace; `None`: all.
    pub namespace: Option<String>,
    /// Only what comes behind this.
    pub after: Option<Position>,
    /// Tags at most; `None`: all there are.
    pub limit: Option<u32>,
}

/// Tags, and the state they are from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TagPage {
    /// Number of the last change that is in it. Always above 0.
    pub sequence: u64,
    /// Changes after this number can be read with [`WatchTags`].
    pub oldest: u64,
    /// The tags.
    pub tags: Vec<Tag>,
    /// Whether there are more behind the last one.
    pub has_more: bool,
    /// How many more there are, where that is known.
    pub remaining: Option<u64>,
}

/// Gets one tag, with what it points at. The caller needs `get`, where the settings do not let everybody pull.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GetTag {
    /// Who asks.
    pub caller: Caller,
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: ObjectName,
}

/// A tag and what it points at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TagDetails {
    /// Number of the last change that is in the state this is from.
    pub sequence: u64,
    /// The tag.
    pub tag: Tag,
    /// The manifest's media type.
    pub media_type: String,
    /// The manifest as it was pushed: a JSON text.
    pub manifest: String,
    /// The image's configuration as it was pushed, a JSON text; `None` where the manifest is of no image, where the
    /// configuration is larger than the server reads for this, or where it is no JSON object.
    pub config: Option<String>,
}

/// What must hold for a deletion.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Preconditions {
    /// The tag's uid.
    pub uid: Option<String>,
    /// The tag's sequence number.
    pub sequence: Option<u64>,
}

/// Deletes one tag; the manifest and its other tags stay. The caller needs `delete`. Answers what was deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeleteTag {
    /// Who asks.
    pub caller: Caller,
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: ObjectName,
    /// What must hold, else [`Reason::Conflict`](crate::Reason::Conflict); checked in the transaction that deletes.
    pub preconditions: Preconditions,
    /// Whether to check everything and delete nothing.
    pub dry_run: bool,
}

/// Deletes tags of a namespace: those that the caller may see. One that the caller may see and not delete fails the
/// call before anything is deleted. When it answers, none of them is listed any more. Where there are none, it succeeds also
/// while the registry is read-only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeleteAllTags {
    /// Who asks.
    pub caller: Caller,
    /// The namespace.
    pub namespace: String,
    /// Only these; `None`: all.
    pub names: Option<Vec<ObjectName>>,
    /// Whether to check everything and delete nothing.
    pub dry_run: bool,
}

/// What was deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeletedTags {
    /// Number of the last change that is in the state after it.
    pub sequence: u64,
    /// The tags as they were.
    pub tags: Vec<Tag>,
}

/// Waits for changes of tags that the caller may see, and gives them in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WatchTags {
    /// Who asks.
    pub caller: Caller,
    /// The namespace; `None`: all.
    pub namespace: Option<String>,
    /// Changes after this number. One that is no longer kept fails with [`Reason::Expired`](crate::Reason::Expired), one
    /// that has not been reached with [`Reason::Future`](crate::Reason::Future).
    pub after: u64,
    /// Changes at most.
    pub limit: u32,
    /// Seconds to wait where there is none yet; [`WAIT_SECONDS_MAX`](crate::WAIT_SECONDS_MAX) at most.
    pub wait_seconds: u64,
}

/// Changes, and how far they go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Changes {
    /// The number to go on after: all changes that matter up to this one are here.
    pub sequence: u64,
    /// The changes.
    pub changes: Vec<Change>,
}

/// What happened to a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ChangeKind {
    /// It came to exist.
    Added,
    /// It points elsewhere.
    Modified,
    /// It was deleted.
    Deleted,
}

/// A change of a tag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// What happened.
    pub kind: ChangeKind,
    /// The tag after it, or, where it was deleted, as it was, with the number of its deletion.
    pub tag: Tag,
}

call!(ListTags, "tags/list", TagPage);
call!(GetTag, "tags/get", TagDetails);
call!(DeleteTag, "tags/delete", Tag);
call!(DeleteAllTags, "tags/delete-all", DeletedTags);
call!(WatchTags, "tags/watch", Changes);
