//! What a collection has done.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::options::Mode;
use crate::metadata::{RepositoryId, Timestamp};
use crate::oci::RepositoryName;

/// Repositories that a report names.
pub const REPORTED_REPOSITORIES_MAX: usize = 20;

/// Errors that a report quotes.
pub const REPORTED_ERRORS_MAX: usize = 20;

/// A number of things, and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Amount {
    /// How many.
    pub count: u64,
    /// How long they are together, in bytes.
    pub bytes: u64,
}

impl Amount {
    pub(crate) fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes += bytes;
    }

    fn join(&mut self, other: Self) {
        self.count += other.count;
        self.bytes += other.bytes;
    }
}

/// What was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Examined {
    /// Repositories.
    pub repositories: u64,
    /// Tags.
    pub tags: u64,
    /// Manifests; one that is in two repositories counts twice.
    pub manifests: u64,
    /// Links of blobs in repositories.
    pub links: u64,
    /// Stored contents; each counts once.
    pub contents: u64,
    /// Files below the directories of blobs and uploads.
    pub files: u64,
}

/// What was removed, or, in a dry run, what would have been.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Removed {
    /// Tags that the rules of retention do not keep.
    pub tags: Amount,
    /// Manifests of repositories.
    pub manifests: Amount,
    /// Links of blobs in repositories. Their bytes count in each repository.
    pub links: Amount,
    /// Stored contents: these bytes are what is gained.
    pub contents: Amount,
    /// Those of the contents that had a file.
    pub files: Amount,
    /// Repositories that held nothing any more.
    pub repositories: Amount,
    /// Upload sessions that made no progress for too long.
    pub uploads: Amount,
    /// Files that nothing names: of a process that died. Gained, too.
    pub strays: Amount,
}

impl Removed {
    pub(super) fn join(&mut self, other: Self) {
        let Self { tags, manifests, links, contents, files, repositories, uploads, strays } = other;
        self.tags.join(tags);
        self.manifests.join(manifests);
        self.links.join(links);
        self.contents.join(contents);
        self.files.join(files);
        self.repositories.join(repositories);
        self.uploads.join(uploads);
        self.strays.join(strays);
    }
}

/// What is not needed and was kept all the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Kept {
    /// Manifests that are too young.
    pub young_manifests: u64,
    /// Manifests that a client was told of a short while ago.
    pub leased_manifests: u64,
    /// Links of blobs that are too young, or older than a push that is going on.
    pub young_links: u64,
    /// Links of blobs that a client was told of a short while ago.
    pub leased_links: u64,
    /// Files that nothing names and that are too young.
    pub young_strays: u64,
    /// Things that were marked and then needed again before they were deleted.
    pub used_again: u64,
}

/// What was removed from one repository.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RemovedFrom {
    /// Its name.
    pub repository: String,
    /// Manifests.
    pub manifests: Amount,
    /// Links of blobs. Content that is shared with others counts fully in each.
    pub links: Amount,
}

/// What a collection has done: kept in the metadata, and made for people and machines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CollectionReport {
    /// When it began: milliseconds since the Unix epoch, UTC.
    pub began_at_ms: u64,
    /// Whether nothing was changed.
    pub dry_run: bool,
    /// Whether writing was paused while it marked.
    pub mode: Mode,
    /// How long the window was open, in microseconds: from when writing was paused until it went on.
    pub window_us: u64,
    /// How long it marked, in microseconds, in the window and outside.
    pub mark_us: u64,
    /// How long it removed rows of the metadata, in microseconds.
    pub sweep_us: u64,
    /// How long it looked for files and removed them, in microseconds.
    pub files_us: u64,
    /// The longest time that one batch of deletions held the metadata's committer, in microseconds, without its flush.
    pub longest_batch_us: u64,
    /// What it looked at.
    pub examined: Examined,
    /// What it removed.
    pub removed: Removed,
    /// What it left although nothing needs it.
    pub kept: Kept,
    /// The repositories that lost most bytes, most first; at most [`REPORTED_REPOSITORIES_MAX`].
    pub repositories: Vec<RemovedFrom>,
    /// How many things could not be removed.
    pub errors: u64,
    /// What was wrong with the first of them; at most [`REPORTED_ERRORS_MAX`].
    pub error_texts: Vec<String>,
    /// Why it ended before its end; what it had removed until then is removed.
    pub failure: Option<String>,
}

impl CollectionReport {
    pub(super) fn new(now: Timestamp, mode: Mode, dry_run: bool) -> Self {
        Self { began_at_ms: now.0, mode, dry_run, ..Self::default() }
    }

    /// Bytes that were gained, or would be.
    pub fn bytes(&self) -> u64 {
        self.removed.contents.bytes + self.removed.uploads.bytes + self.removed.strays.bytes
    }

    /// Takes the errors of a part of the collection.
    pub(super) fn join_errors(&mut self, part: &mut Self) {
        self.errors += part.errors;
        let room = REPORTED_ERRORS_MAX.saturating_sub(self.error_texts.len());
        self.error_texts.extend(part.error_texts.drain(..).take(room));
    }

    pub(super) fn error(&mut self, what: String) {
        tracing::warn!("collection: {what}");
        self.errors += 1;
        if self.error_texts.len() < REPORTED_ERRORS_MAX {
            self.error_texts.push(what);
        }
    }
}

/// What was removed from the repositories, while it is being counted.
#[derive(Debug, Default)]
pub(super) struct ByRepository {
    amounts: HashMap<RepositoryId, (Amount, Amount)>,
    /// Names of those that are removed, where they are going to be named.
    names: HashMap<RepositoryId, RepositoryName>,
}

impl ByRepository {
    pub(super) fn manifest(&mut self, repository: RepositoryId, bytes: u64) {
        self.amounts.entry(repository).or_default().0.add(bytes);
    }

    pub(super) fn link(&mut self, repository: RepositoryId, bytes: u64) {
        self.amounts.entry(repository).or_default().1.add(bytes);
    }

    pub(super) fn join(&mut self, other: Self) {
        for (id, (manifests, links)) in other.amounts {
            let of = self.amounts.entry(id).or_default();
            of.0.join(manifests);
            of.1.join(links);
        }
    }

    /// Remembers the names of repositories that are about to be removed.
    pub(super) fn remember(&mut self, repositories: &[(RepositoryId, RepositoryName)]) {
        let most: HashSet<RepositoryId> = self.most().into_iter().map(|(id, ..)| id).collect();
        let named = repositories.iter().filter(|(id, _)| most.contains(id));
        self.names.extend(named.cloned());
    }

    /// The name of a repository that was removed.
    pub(super) fn name(&self, id: RepositoryId) -> Option<&RepositoryName> {
        self.names.get(&id)
    }

    /// Those that lost most, most first.
    pub(super) fn most(&self) -> Vec<(RepositoryId, Amount, Amount)> {
        let mut all: Vec<_> =
            self.amounts.iter().map(|(id, (manifests, links))| (*id, *manifests, *links)).collect();
        all.sort_unstable_by_key(|(id, manifests, links)| {
            (std::cmp::Reverse(manifests.bytes + links.bytes), *id)
        });
        all.truncate(REPORTED_REPOSITORIES_MAX);
        all
    }
}
