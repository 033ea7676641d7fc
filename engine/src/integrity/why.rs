//! What keeps some content.

use std::collections::{HashSet, VecDeque};

use serde::{Deserialize, Serialize};

use crate::collection::LeaseKey;
use crate::engine::Engine;
use crate::layout;
use crate::metadata::{BlobLocation, Damage, EdgeKind, MetadataError, RepositoryId, Snapshot, Timestamp};
use crate::oci::Digest;

/// Repositories that an answer names.
pub const WHY_REPOSITORIES_MAX: usize = 100;

/// Manifests that an answer names for each repository; they are looked for from the content upwards, so the nearest ones
/// are named.
pub const WHY_KEEPERS_MAX: usize = 100;

/// Tags that are named for each manifest.
const TAGS_MAX: usize = 20;

/// What is known of some content, and what keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Why {
    /// Where its content is; `None`: it is not stored.
    pub stored: Option<Stored>,
    /// What is wrong with it, where it was found damaged.
    pub damage: Option<Damage>,
    /// The repositories that have it, in the order of their making; at most [`WHY_REPOSITORIES_MAX`].
    pub repositories: Vec<WhyIn>,
    /// How many repositories have it.
    pub repositories_total: u64,
    /// Whether a tag leads to it in one of the repositories that are named, or a client was told of it a short while ago.
    /// If not, the next collection takes it, unless it is too young or [`WhyIn::has_more`] is set somewhere.
    pub is_kept: bool,
}

/// Where content is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stored {
    /// Its length in bytes.
    pub bytes: u64,
    /// Its file, named from the root; `None`: it is in the metadata.
    pub file: Option<String>,
    /// When it was stored: milliseconds since the Unix epoch, UTC.
    pub stored_at_ms: u64,
}

/// What keeps content in one repository.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WhyIn {
    /// Its name.
    pub repository: String,
    /// When it was pushed to it or mounted in it as a blob: milliseconds since the Unix epoch, UTC; `None`: it is no blob
    /// of it.
    pub linked_at_ms: Option<u64>,
    /// When it was pushed as a manifest; `None`: it is none of it.
    pub pushed_at_ms: Option<u64>,
    /// Whether a client was told of it so short a while ago that it is not collected.
    pub is_leased: bool,
    /// Its own tags, where it is a manifest; at most 20 are named.
    pub tags: Vec<String>,
    /// The manifests that keep it, and those that keep these, nearest first; at most [`WHY_KEEPERS_MAX`].
    pub keepers: Vec<Keeper>,
    /// Whether there are more.
    pub has_more: bool,
}

/// In what way a manifest keeps something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keeps {
    /// It is a config or a layer of it.
    Blob,
    /// The same, and others distribute it.
    ForeignBlob,
    /// It is an entry of the index.
    Child,
    /// It is about the manifest: a signature, or another referrer.
    Referrer,
}

/// A manifest that keeps something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keeper {
    /// Its digest.
    pub digest: Digest,
    /// What it keeps: the content that was asked for, or a keeper that is named before this one.
    pub keeps: Digest,
    /// In what way.
    pub how: Keeps,
    /// When it was pushed: milliseconds since the Unix epoch, UTC.
    pub pushed_at_ms: u64,
    /// Its tags, of which at most 20 are named.
    pub tags: Vec<String>,
}

impl Engine {
    /// What is known of some content, and what keeps it: the repositories that have it, the manifests that need it there and
    /// those that need these, their tags, and leases.
    pub fn why(&self, digest: &Digest) -> Result<Why, MetadataError> {
        let snapshot = self.metadata().snapshot()?;
        let stored = snapshot.stored_blob(digest)?.map(|record| Stored {
            bytes: record.size,
            file: match record.location {
                BlobLocation::File(file) => Some(layout::blob(digest, file)),
                BlobLocation::Inline => None,
            },
            stored_at_ms: record.stored_at.0,
        });
        let damage = snapshot.damage(digest)?.map(|record| record.damage);
        let mut ids = snapshot.blob_repositories(digest)?.collect::<Result<Vec<_>, _>>()?;
        ids.extend(snapshot.manifest_repositories(digest)?.collect::<Result<Vec<_>, _>>()?);
        ids.sort_unstable();
        ids.dedup();
        let mut why = Why { stored, damage, repositories_total: ids.len() as u64, ..Why::default() };
        for id in ids.into_iter().take(WHY_REPOSITORIES_MAX) {
            let is_leased = self.shared().leases.is_leased(LeaseKey::new(id, digest));
            let within = why_in(&snapshot, id, digest, is_leased)?;
            // Whatever keeps a keeper keeps what that keeps.
            let is_reached = within.keepers.iter().any(|keeper| !keeper.tags.is_empty());
            why.is_kept |= is_leased || !within.tags.is_empty() || is_reached;
            why.repositories.push(within);
        }
        Ok(why)
    }
}

fn why_in(
    snapshot: &Snapshot,
    id: RepositoryId,
    digest: &Digest,
    is_leased: bool,
) -> Result<WhyIn, MetadataError> {
    let name = snapshot.repository_name(id)?.map(|(name, _)| name.to_string()).unwrap_or_default();
    let linked_at_ms = snapshot.link(id, digest)?.map(|link| link.linked_at.0);
    let pushed_at_ms = snapshot.manifest(id, digest)?.map(|manifest| manifest.pushed_at.0);
    let tags = tags(snapshot, id, digest)?;
    let mut within =
        WhyIn { repository: name, linked_at_ms, pushed_at_ms, is_leased, tags, ..WhyIn::default() };
    // Upwards, each manifest once.
    let mut known = HashSet::from([*digest]);
    let mut open = VecDeque::from([*digest]);
    while let Some(kept) = open.pop_front() {
        for (keeper, how) in keepers(snapshot, id, &kept)? {
            if !known.insert(keeper) {
                continue;
            }
            if within.keepers.len() == WHY_KEEPERS_MAX {
                within.has_more = true;
                return Ok(within);
            }
            let Some(manifest) = snapshot.manifest(id, &keeper)? else { continue };
            let (Timestamp(pushed_at_ms), tags) = (manifest.pushed_at, self::tags(snapshot, id, &keeper)?);
            within.keepers.push(Keeper { digest: keeper, keeps: kept, how, pushed_at_ms, tags });
            open.push_back(keeper);
        }
    }
    Ok(within)
}

/// The manifests that keep something by themselves. What is about a manifest does not keep it; it is kept by it.
fn keepers(
    snapshot: &Snapshot,
    id: RepositoryId,
    kept: &Digest,
) -> Result<Vec<(Digest, Keeps)>, MetadataError> {
    let mut keepers = Vec::new();
    for parent in snapshot.parents(id, kept)?.take(WHY_KEEPERS_MAX + 1) {
        let (parent, kind) = parent?;
        let how = match kind {
            EdgeKind::Blob => Keeps::Blob,
            EdgeKind::ForeignBlob => Keeps::ForeignBlob,
            EdgeKind::Child => Keeps::Child,
            EdgeKind::Subject => continue,
        };
        keepers.push((parent, how));
    }
    if let Some(subject) = snapshot.manifest(id, kept)?.and_then(|manifest| manifest.subject)
        && snapshot.manifest(id, &subject)?.is_some()
    {
        keepers.push((subject, Keeps::Referrer));
    }
    Ok(keepers)
}

fn tags(snapshot: &Snapshot, id: RepositoryId, digest: &Digest) -> Result<Vec<String>, MetadataError> {
    snapshot.tags_of(id, digest)?.take(TAGS_MAX).map(|tag| Ok(tag?.to_string())).collect()
}
