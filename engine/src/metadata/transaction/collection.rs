//! What collection removes. Each of these looks again whether it may: what was marked is an opinion about the past.

use redb::ReadableTableMetadata as _;

use super::super::MetadataError;
use super::super::keys::{self, OfDigest, OfRepository};
use super::super::records::{
    BlobRecord, EdgeKind, LinkRecord, ManifestRecord, RepositoryId, TagRecord, Timestamp,
};
use super::super::rows::{CollectionRow, DIGESTS, Row as _};
use super::super::snapshot::number;
use super::super::tables::{owned_row, scan_prefix};
use super::{Transaction, lower};
use crate::oci::{Digest, RepositoryName, Tag};

/// Runs of collection that are remembered.
const COLLECTIONS_MAX: u64 = 20;

/// What stands for a repository where content is linked in none. No repository has this id.
pub(crate) const NOWHERE: RepositoryId = RepositoryId(0);

/// What became of something that was marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Collected {
    /// It was removed, and the content with it where nothing else needs that.
    Removed {
        /// Length in bytes.
        size: u64,
        /// The content, where that was removed, too; its file is the caller's to delete, once this is committed.
        content: Option<BlobRecord>,
    },
    /// It is needed, or was used, since it was marked.
    Kept,
    /// It is gone already.
    Gone,
}

impl Transaction<'_> {
    /// Deletes a tag that is still what it was when it was marked; whether it was.
    pub(crate) fn collect_tag(
        &mut self,
        id: RepositoryId,
        repository: &RepositoryName,
        tag: &Tag,
        marked: &TagRecord,
        now: Timestamp,
    ) -> Result<bool, MetadataError> {
        if self.tag(id, tag)?.as_ref() != Some(marked) {
            return Ok(false);
        }
        self.drop_tag(id, repository, tag, marked, now)?;
        Ok(true)
    }

    /// Deletes manifests that keep each other alive, in order, and that nothing else keeps: all or none. A single
    /// manifest is the common case.
    ///
    /// A manifest stays that has a tag, was pushed at `pushed_before` or later, is a child of an index that is not in
    /// the group, or is about a manifest that is there and not in the group. What is marked is deleted in such an order
    /// that those which are deleted first keep the later ones: what still keeps one is alive.
    pub(crate) fn collect_manifests(
        &mut self,
        id: RepositoryId,
        group: &[Digest],
        pushed_before: Timestamp,
        collected: &mut Vec<Collected>,
    ) -> Result<(), MetadataError> {
        let mut records = Vec::with_capacity(group.len());
        for digest in group {
            let key = keys::of_repository_digest(id, OfRepository::Manifest, digest);
            let Some(record) = owned_row::<ManifestRecord>(&*self.tables.repositories, &key)? else {
                records.push(None);
                continue;
            };
            if record.pushed_at >= pushed_before || self.is_kept(id, digest, &record, group)? {
                collected.extend(group.iter().map(|_| Collected::Kept));
                return Ok(());
            }
            records.push(Some(record));
        }
        for (digest, record) in group.iter().zip(records) {
            let Some(record) = record else {
                collected.push(Collected::Gone);
                continue;
            };
            self.drop_manifest(id, digest, &record)?;
            let content = self.remove_unused_content(digest)?;
            collected.push(Collected::Removed { size: record.size, content });
        }
        Ok(())
    }

    /// Whether a tag, an index or a subject outside of `group` keeps a manifest.
    fn is_kept(
        &self,
        id: RepositoryId,
        digest: &Digest,
        record: &ManifestRecord,
        group: &[Digest],
    ) -> Result<bool, MetadataError> {
        let tags = keys::of_repository_digest(id, OfRepository::TagOf, digest);
        if scan_prefix(&*self.tables.repositories, &tags)?.next().is_some() {
            return Ok(true);
        }
        if let Some(subject) = &record.subject
            && group.binary_search(subject).is_err()
            && self.has_manifest(id, subject)?
        {
            return Ok(true);
        }
        let parents = keys::of_repository_digest(id, OfRepository::Parent, digest);
        for row in scan_prefix(&*self.tables.repositories, &parents)? {
            let (key, _) = row?;
            let key = key.value().get(parents.len()..).unwrap_or_default();
            let Some((parent, kind)) = keys::split_digest(key) else { return Ok(true) };
            if kind == [EdgeKind::Child as u8] && group.binary_search(&parent).is_err() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Unlinks a blob in some repositories, in each of which it must have been linked before the time that stands with
    /// it, and no manifest may refer to it; and forgets the content where no other repository has it. Without
    /// repositories ([`NOWHERE`] alone) the content alone is looked at.
    pub(crate) fn collect_blob(
        &mut self,
        links: &[(Digest, RepositoryId, Timestamp)],
        collected: &mut Vec<Collected>,
    ) -> Result<(), MetadataError> {
        let Some((digest, ..)) = links.first() else { return Ok(()) };
        let mut leaving = Vec::with_capacity(links.len());
        for (_, id, linked_before) in links {
            let answer = match *id {
                NOWHERE => None,
                id => {
                    let key = keys::of_repository_digest(id, OfRepository::Link, digest);
                    match owned_row::<LinkRecord>(&*self.tables.repositories, &key)? {
                        None => Some(Collected::Gone),
                        Some(record)
                            if record.linked_at >= *linked_before || self.is_needed(id, digest)? =>
                        {
                            Some(Collected::Kept)
                        }
                        Some(_) => None,
                    }
                }
            };
            leaving.extend(answer.is_none().then_some(*id));
            collected.push(answer.unwrap_or(Collected::Removed { size: 0, content: None }));
        }
        let (stored, is_unused) = self.content_without(digest, &leaving)?;
        let answers = collected.len() - links.len();
        for ((_, id, _), answer) in links.iter().zip(&mut collected[answers..]) {
            if let Collected::Removed { size, .. } = answer {
                *size = stored.map_or(0, |stored| stored.size);
                if *id != NOWHERE {
                    self.change();
                    let link = keys::of_repository_digest(*id, OfRepository::Link, digest);
                    self.tables.repositories.remove(link.as_slice())?;
                    if !is_unused {
                        self.remove_holder(*id, OfDigest::LinkedIn, digest)?;
                    }
                    lower(&mut self.state.statistics.links, 1);
                }
            }
        }
        if is_unused {
            self.remove_holders(&leaving, OfDigest::LinkedIn, digest)?;
        }
        if let Some(record) = stored.filter(|_| is_unused && !leaving.is_empty()) {
            self.forget_content(digest, &record)?;
            let removed = |answer: &&mut Collected| matches!(answer, Collected::Removed { .. });
            if let Some(Collected::Removed { content, .. }) = collected[answers..].iter_mut().find(removed) {
                *content = Some(record);
            }
        } else if stored.is_none() && is_unused {
            self.forget_unused_damage(digest)?;
        }
        Ok(())
    }

    /// Content that is stored, and whether nobody has it but, as a blob, these repositories. Reads few rows more than
    /// there are repositories.
    fn content_without(
        &self,
        digest: &Digest,
        leaving: &[RepositoryId],
    ) -> Result<(Option<BlobRecord>, bool), MetadataError> {
        let mut stored = None;
        for row in scan_prefix(&*self.tables.digests, digest.as_key())? {
            let (key, value) = row?;
            let rest = key.value().get(digest.as_key().len()..).unwrap_or_default();
            match rest.split_first() {
                Some((kind, [])) if *kind == OfDigest::Blob as u8 => {
                    stored = Some(BlobRecord::decode(value.value())?);
                }
                Some((kind, id)) if *kind == OfDigest::LinkedIn as u8 => {
                    if !leaving.contains(&RepositoryId(number(id, DIGESTS)?)) {
                        return Ok((stored, false));
                    }
                }
                _ => return Ok((stored, false)),
            }
        }
        Ok((stored, true))
    }

    /// Whether a manifest of the repository has the blob among its content. To be about something is not to need it.
    fn is_needed(&self, id: RepositoryId, digest: &Digest) -> Result<bool, MetadataError> {
        let parents = keys::of_repository_digest(id, OfRepository::Parent, digest);
        for row in scan_prefix(&*self.tables.repositories, &parents)? {
            let (key, _) = row?;
            if key.value().last() != Some(&(EdgeKind::Subject as u8)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Remembers what a collection has done, and forgets the oldest one beyond the last 20.
    pub(crate) fn record_collection(&mut self, report: &str) -> Result<(), MetadataError> {
        let sequence = self.change();
        let row = CollectionRow { report }.encode()?;
        let kept = &mut self.tables.collections;
        kept.insert(sequence.to_be_bytes().as_slice(), row.as_slice())?;
        while kept.len()? > COLLECTIONS_MAX {
            if kept.pop_first()?.is_none() {
                break;
            }
        }
        Ok(())
    }
}
