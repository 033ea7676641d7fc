//! Finding what is not needed, in one snapshot, repository by repository.
//!
//! No content is read. What a repository needs follows from rows that are in the same order, and so from walking over
//! them side by side: manifests with the tags that point at them, links of blobs with the references to them. What
//! is held in memory is the manifests of one repository that have no tag, and what was found.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

use super::keepers::Keepers;
use super::leases::{LeaseKey, Leases};
use super::ordered::Ordered;
use super::report::{ByRepository, CollectionReport};
use super::retention::{Subject, rule_for};
use super::slice::Slice;
use super::{Ages, CollectionOptions};
use crate::metadata::{
    BlobLocation, DigestRow, EdgeKind, LinkRecord, MetadataError, NOWHERE, RepositoryId, RepositoryRecord,
    Snapshot, TagRecord, Timestamp,
};
use crate::oci::{Digest, RepositoryName, Tag};

/// How many rows are looked at between two words about the progress.
const ROWS_PER_PROGRESS: u64 = 1 << 14;

/// What is not needed.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// Repositories in which tags or manifests are not needed.
    pub(super) repositories: Vec<MarkedRepository>,
    /// Links of blobs, and contents that are linked [`NOWHERE`], in the order of the digests.
    pub(super) links: Ordered<RepositoryId>,
    /// Repositories in which links must be older than elsewhere.
    pub(super) linked_before: HashMap<RepositoryId, Timestamp>,
    /// Repositories that hold nothing, once what is marked has gone.
    pub(super) empty: Vec<(RepositoryId, RepositoryName)>,
}

/// What is not needed of one repository.
#[derive(Debug)]
pub(super) struct MarkedRepository {
    pub(super) id: RepositoryId,
    pub(super) name: RepositoryName,
    /// Tags that retention does not keep.
    pub(super) tags: Vec<(Tag, TagRecord)>,
    /// Manifests in groups, each of which is kept by earlier ones at most; each group is in order, as its members go together.
    pub(super) groups: Vec<Vec<(Digest, u64)>>,
}

/// What marking goes by.
pub(super) struct Marker<'m> {
    pub(super) snapshot: &'m Snapshot,
    pub(super) options: &'m CollectionOptions,
    pub(super) leases: &'m Leases,
    pub(super) ages: Ages,
    /// Repositories to which a push is going on, and since when.
    pub(super) pushes: &'m HashMap<RepositoryName, Timestamp>,
    pub(super) slice: Slice,
    /// Told how many rows were looked at.
    pub(super) progress: &'m dyn Fn(u64) -> ControlFlow<()>,
    pub(super) rows: u64,
}

/// Why marking ended.
#[derive(Debug)]
pub(super) enum MarkError {
    Metadata(MetadataError),
    Stopped,
}

impl From<MetadataError> for MarkError {
    fn from(error: MetadataError) -> Self {
        Self::Metadata(error)
    }
}

/// Manifests of a repository that have no tag which stays. In the order of the digests.
#[derive(Default)]
struct Untagged {
    /// With their sizes.
    manifests: Ordered<u64>,
    is_young: Vec<bool>,
    /// Those that are about another manifest.
    subjects: Vec<(u32, Digest)>,
    /// Set at the end for those that are needed.
    is_alive: Vec<bool>,
}

impl Untagged {
    fn is_dead(&self, digest: &Digest) -> bool {
        !self.manifests.is_empty() && self.manifests.find(digest).is_some_and(|index| !self.is_alive[index])
    }
}

impl Marker<'_> {
    /// Marks what the repositories do not need. One that cannot be read as a whole is left out.
    pub(super) fn mark(&mut self, report: &mut CollectionReport) -> Result<Marks, MarkError> {
        let mut marks = Marks::default();
        for repository in self.snapshot.repositories("", None)? {
            let repository = match repository {
                Err(error @ MetadataError::Row { .. }) => {
                    report.error(format!("a repository was left out, as its name cannot be read: {error}"));
                    continue;
                }
                repository => repository?,
            };
            let name = repository.name.clone();
            let marked = marks.links.lens();
            match self.mark_repository(repository, &mut marks, report) {
                // What cannot be read may be what needs the rest, so nothing of the repository goes. What it shares with
                // others stays, too: the rows of the digests say that it has it.
                Err(MarkError::Metadata(error @ MetadataError::Row { .. })) => {
                    marks.links.cut(marked);
                    report.error(format!("{name} was left out, as a row of it cannot be read: {error}"));
                }
                marked => marked?,
            }
        }
        marks.links.sort();
        Ok(marks)
    }

    fn row(&mut self) -> Result<(), MarkError> {
        self.rows += 1;
        if self.rows.is_multiple_of(ROWS_PER_PROGRESS) && (self.progress)(self.rows).is_break() {
            return Err(MarkError::Stopped);
        }
        Ok(())
    }

    fn mark_repository(
        &mut self,
        RepositoryRecord { id, name }: RepositoryRecord,
        marks: &mut Marks,
        report: &mut CollectionReport,
    ) -> Result<(), MarkError> {
        report.examined.repositories += 1;
        let tags = self.expired_tags(id, &name)?;
        let expired: HashSet<&Tag> = tags.iter().map(|(tag, _)| tag).collect();
        let mut holds_more = false;
        let mut untagged = self.untagged(id, &expired, &mut holds_more, report)?;
        let keepers = self.keepers(id, &mut untagged)?;
        self.spread(id, &keepers, &mut untagged, report);
        holds_more |= untagged.is_alive.iter().any(|alive| *alive);
        holds_more |= self.mark_links(id, &name, &untagged, marks, report)?;

        if !holds_more {
            marks.empty.push((id, name.clone()));
        }
        let groups = keepers.groups(&untagged.is_alive);
        if tags.is_empty() && groups.is_empty() {
            return Ok(());
        }
        let of_group = |mut group: Vec<u32>| {
            group.sort_unstable();
            group.into_iter().filter_map(|index| untagged.manifests.get(index as usize)).collect()
        };
        let groups = groups.into_iter().map(of_group).collect();
        marks.repositories.push(MarkedRepository { id, name, tags, groups });
        Ok(())
    }

    fn expired_tags(
        &self,
        id: RepositoryId,
        name: &RepositoryName,
    ) -> Result<Vec<(Tag, TagRecord)>, MarkError> {
        let Some(rule) = rule_for(&self.options.retention, name) else { return Ok(Vec::new()) };
        let tags = self.snapshot.tags(id, None)?.collect::<Result<Vec<_>, _>>()?;
        // Signatures may be kept in another repository than what they are of.
        let is_there =
            |subject: &Subject| Ok(self.snapshot.has_manifest_like(subject.algorithm, &subject.value)?);
        rule.expired(tags, self.ages.now, self.ages.pushed_before, is_there)
    }

    /// The manifests without a tag that stays. `holds_more` is set where there are others.
    fn untagged(
        &mut self,
        id: RepositoryId,
        expired: &HashSet<&Tag>,
        holds_more: &mut bool,
        report: &mut CollectionReport,
    ) -> Result<Untagged, MarkError> {
        let mut untagged = Untagged::default();
        let mut tags = Ahead::new(self.snapshot.tags_by_digest(id)?)?;
        for manifest in self.snapshot.manifests(id, None)? {
            self.row()?;
            let (digest, record) = manifest?;
            report.examined.manifests += 1;
            let mut is_tagged = false;
            while let Some((target, tag)) = tags.take_if(|(target, _)| *target <= digest)? {
                report.examined.tags += 1;
                is_tagged |= target == digest && !expired.contains(&tag);
            }
            if is_tagged {
                *holds_more = true;
                continue;
            }
            if let Some(subject) = record.subject {
                // A repository has fewer manifests than there are numbers.
                untagged.subjects.push((untagged.manifests.len() as u32, subject));
            }
            untagged.manifests.push(&digest, record.size);
            untagged.is_young.push(record.pushed_at >= self.ages.pushed_before);
        }
        untagged.is_alive = vec![false; untagged.manifests.len()];
        Ok(untagged)
    }

    /// Makes those alive that something keeps which has a tag, and gives the others' relations among each other.
    fn keepers(&mut self, id: RepositoryId, untagged: &mut Untagged) -> Result<Keepers, MarkError> {
        let mut edges = Vec::new();
        for index in 0..untagged.manifests.len() {
            let Some((digest, _)) = untagged.manifests.get(index) else { continue };
            self.row()?;
            for parent in self.snapshot.parents(id, &digest)? {
                let (parent, kind) = parent?;
                if kind != EdgeKind::Child {
                    continue;
                }
                match untagged.manifests.find(&parent) {
                    Some(parent) => edges.push((parent as u32, index as u32)),
                    None => untagged.is_alive[index] = true,
                }
            }
        }
        for (index, subject) in &untagged.subjects {
            match untagged.manifests.find(subject) {
                Some(subject) => edges.push((subject as u32, *index)),
                None => untagged.is_alive[*index as usize] |= self.snapshot.manifest(id, subject)?.is_some(),
            }
        }
        Ok(Keepers::new(edges))
    }

    /// Makes alive what the living keep, and what age or a lease protects, with all that these keep.
    fn spread(
        &self,
        id: RepositoryId,
        keepers: &Keepers,
        untagged: &mut Untagged,
        report: &mut CollectionReport,
    ) {
        let Untagged { manifests, is_young, is_alive, .. } = untagged;
        keepers.spread(is_alive);
        for index in 0..is_alive.len() {
            if is_young[index] && !is_alive[index] {
                is_alive[index] = true;
                report.kept.young_manifests += 1;
            }
        }
        keepers.spread(is_alive);
        for (index, (digest, _)) in manifests.iter().enumerate() {
            if !is_alive[index] && self.leases.is_leased(LeaseKey::new(id, &digest)) {
                is_alive[index] = true;
                report.kept.leased_manifests += 1;
            }
        }
        keepers.spread(is_alive);
    }

    /// Marks the links of blobs that no manifest needs which stays; whether there are others.
    fn mark_links(
        &mut self,
        id: RepositoryId,
        name: &RepositoryName,
        untagged: &Untagged,
        marks: &mut Marks,
        report: &mut CollectionReport,
    ) -> Result<bool, MarkError> {
        let linked_before = match self.pushes.get(name) {
            Some(since) => {
                let before = self.ages.linked_before_push(*since);
                marks.linked_before.insert(id, before);
                before
            }
            None => self.ages.linked_before,
        };
        let mut holds_more = false;
        let mut references = Ahead::new(self.snapshot.references(id)?)?;
        for link in self.snapshot.blobs(id, None)? {
            self.row()?;
            let (digest, LinkRecord { linked_at }) = link?;
            report.examined.links += 1;
            let mut is_needed = false;
            while let Some(reference) = references.take_if(|reference| reference.target <= digest)? {
                is_needed |= reference.target == digest
                    && reference.kind != EdgeKind::Subject
                    && !untagged.is_dead(&reference.parent);
            }
            if !is_needed && linked_at >= linked_before {
                report.kept.young_links += 1;
            } else if !is_needed && self.leases.is_leased(LeaseKey::new(id, &digest)) {
                report.kept.leased_links += 1;
            } else if !is_needed {
                if self.slice.has(&digest) {
                    marks.links.push(&digest, id);
                }
                continue;
            }
            holds_more = true;
        }
        Ok(holds_more)
    }

    /// Looks at all that is stored: adds contents that are linked nowhere to the marks, and damage of what nobody has, and
    /// counts what would be removed, as far as it is in the slice.
    pub(super) fn mark_contents(
        &mut self,
        marks: &mut Marks,
        report: &mut CollectionReport,
        by_repository: &mut ByRepository,
    ) -> Result<(), MarkError> {
        let mut manifests = Ordered::default();
        for repository in &marks.repositories {
            repository.groups.iter().flatten().for_each(|(digest, _)| manifests.push(digest, repository.id));
        }
        manifests.sort();
        let mut dead_links = Ahead::new(marks.links.iter().map(Ok::<_, MetadataError>))?;
        let mut dead_manifests = Ahead::new(manifests.iter().map(Ok::<_, MetadataError>))?;
        let mut orphans = Ordered::default();
        // A row that does not even say of which digest it is ends the collection: it may be who has any of them.
        let mut rows = Ahead::new(self.snapshot.digest_rows()?)?;
        while let Some((digest, first)) = rows.take_if(|_| true)? {
            self.row()?;
            let stored = match first {
                DigestRow::Stored(record) => Some(record),
                DigestRow::Linked(_) | DigestRow::Manifest(_) | DigestRow::Unreadable => None,
            };
            let mut is_unreadable = first == DigestRow::Unreadable;
            let size = stored.map_or(0, |record| record.size);
            let is_meant = self.slice.has(&digest);
            let (mut holders, mut leaving) = (u64::from(stored.is_none()), 0);
            while let Some((_, row)) = rows.take_if(|(next, _)| *next == digest)? {
                holders += 1;
                is_unreadable |= row == DigestRow::Unreadable;
            }
            if is_unreadable {
                report.error(format!("{digest} was left out, as a row about it cannot be read"));
            }
            while let Some((_, repository)) = dead_links.take_if(|(next, _)| *next <= digest)? {
                leaving += 1;
                report.removed.links.add(size);
                by_repository.link(repository, size);
            }
            while let Some((_, repository)) = dead_manifests.take_if(|(next, _)| *next <= digest)? {
                leaving += 1;
                if is_meant {
                    report.removed.manifests.add(size);
                    by_repository.manifest(repository, size);
                }
            }
            let Some(record) = stored else { continue };
            report.examined.contents += 1;
            if !is_meant {
                continue;
            }
            if holders == leaving {
                report.removed.contents.add(size);
                if record.location != BlobLocation::Inline {
                    report.removed.files.add(size);
                }
            }
            if holders == 0 {
                orphans.push(&digest, NOWHERE);
            }
        }
        drop((dead_links, dead_manifests));
        for digest in self.snapshot.unused_damage()? {
            let digest = digest?;
            if self.slice.has(&digest) {
                orphans.push(&digest, NOWHERE);
            }
        }
        marks.links.extend(orphans);
        marks.links.sort();
        Ok(())
    }
}

/// Rows that are looked at before they are taken.
struct Ahead<I, T> {
    rows: I,
    next: Option<T>,
}

impl<I, T> Ahead<I, T>
where
    I: Iterator<Item = Result<T, MetadataError>>,
{
    fn new(mut rows: I) -> Result<Self, MetadataError> {
        let next = rows.next().transpose()?;
        Ok(Self { rows, next })
    }

    /// The next row, where `is_wanted`.
    fn take_if(&mut self, is_wanted: impl FnOnce(&T) -> bool) -> Result<Option<T>, MetadataError> {
        if !self.next.as_ref().is_some_and(is_wanted) {
            return Ok(None);
        }
        Ok(std::mem::replace(&mut self.next, self.rows.next().transpose()?))
    }
}
