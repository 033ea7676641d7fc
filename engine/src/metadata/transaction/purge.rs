//! The end of a repository, in steps that are short enough for others to be committed between them.

use super::super::keys::{self, OfRepository};
use super::super::records::{ManifestRecord, RepositoryId, Timestamp};
use super::super::rows::{REPOSITORIES, damaged};
use super::super::tables::{owned_row, scan_prefix};
use super::super::{MetadataError, snapshot};
use super::Transaction;
use crate::oci::{Digest, RepositoryName};

/// What one step of a purge has removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PurgeStep {
    /// Tags.
    pub tags: u64,
    /// Manifests.
    pub manifests: u64,
    /// Links of blobs.
    pub links: u64,
    /// Whether there is no such repository any more.
    pub is_gone: bool,
}

impl Transaction<'_> {
    /// Removes up to `most` of the tags, manifests and links of a repository, in this order, and the repository itself
    /// with the last of them. The content stays stored. Called again until nothing is left.
    pub fn purge_repository(
        &mut self,
        name: &RepositoryName,
        most: usize,
        now: Timestamp,
    ) -> Result<PurgeStep, MetadataError> {
        let mut step = PurgeStep::default();
        let Some(id) = self.repository(name)? else { return Ok(PurgeStep { is_gone: true, ..step }) };

        let tags = self.first_keys(id, OfRepository::Tag, most)?;
        let mut left = most - tags.len();
        for tag in tags {
            let tag =
                snapshot::text(&tag, REPOSITORIES)?.parse().map_err(|error| damaged(REPOSITORIES, error))?;
            if let Some(record) = self.tag(id, &tag)? {
                self.drop_tag(id, name, &tag, &record, now)?;
                step.tags += 1;
            }
        }
        let manifests = self.first_keys(id, OfRepository::Manifest, left)?;
        left -= manifests.len();
        for key in manifests {
            let digest = whole_digest(&key)?;
            let row = keys::of_repository_digest(id, OfRepository::Manifest, &digest);
            if let Some(record) = owned_row::<ManifestRecord>(&*self.tables.repositories, &row)? {
                self.drop_manifest(id, &digest, &record)?;
                step.manifests += 1;
            }
        }
        for key in self.first_keys(id, OfRepository::Link, left)? {
            if self.unlink_blob(name, &whole_digest(&key)?)? {
                step.links += 1;
            }
        }
        step.is_gone = self.remove_repository_if_empty(name)?;
        Ok(step)
    }

    /// What the first `most` keys of a repository's rows of a kind end with.
    fn first_keys(
        &self,
        id: RepositoryId,
        kind: OfRepository,
        most: usize,
    ) -> Result<Vec<Vec<u8>>, MetadataError> {
        let prefix = keys::of_repository(id, kind);
        let rows = scan_prefix(&*self.tables.repositories, &prefix)?.take(most);
        rows.map(|row| Ok(row?.0.value().get(prefix.len()..).unwrap_or_default().to_vec())).collect()
    }
}

fn whole_digest(key: &[u8]) -> Result<Digest, MetadataError> {
    Ok(snapshot::digest_at(key, 0, REPOSITORIES)?.0)
}
