//! Removing what is marked, in batches that are short enough for pushes to go on between them.
//!
//! First tags, then manifests, those first that keep others, then links in the order of the digests, so that neighbours
//! in the tables go together, and contents with their last link. Each deletion looks again whether it may, in its own
//! transaction: a manifest that was pushed since is found there with all that it refers to.

use std::time::{Duration, Instant};

use super::leases::{Batch, LeaseKey};
use super::mark::{MarkedRepository, Marks};
use super::report::{ByRepository, CollectionReport};
use super::spell::Spell;
use super::{Ages, CollectionHooks, CollectionOptions, Ended, Phase, Progress, Step, Store};
use crate::layout;
use crate::metadata::{
    BlobLocation, BlobRecord, Collected, MetadataError, NOWHERE, RepositoryId, TagRecord, Timestamp,
    Transaction,
};
use crate::oci::{Digest, RepositoryName, Tag};

/// How long one batch may hold the committer while others push or pull.
const BATCH_GOAL: Duration = Duration::from_millis(4);

/// How many times that it may be while nobody else does: then a batch costs less for each row, flushes are fewer, and there
/// is no rest. Whoever comes first waits for the rest of one such batch, and finds short ones after it.
const ALONE_FACTOR: u64 = 4;

/// Rows in the first batch: nobody knows yet how long they take.
pub(crate) const ROWS_FIRST: u64 = 256;
const ROWS_MIN: u64 = 8;
const ROWS_MAX: u64 = 1 << 14;

/// Rows that go with a link and its content, and with a tag.
const ROWS_PER_LINK: u64 = 4;
const ROWS_PER_TAG: u64 = 3;

pub(super) struct Sweep<'c> {
    store: &'c Store<'c>,
    options: &'c CollectionOptions,
    hooks: &'c dyn CollectionHooks,
    ages: Ages,
    report: &'c mut CollectionReport,
    by_repository: &'c mut ByRepository,
    /// Rows of a batch while others push or pull.
    rows_max: u64,
    /// At the end of the last batch: the number of the last change, and of leases that were asked for.
    seen: (u64, u64),
    /// Whether nobody else has written or looked for anything since the batch before the last one.
    is_alone: bool,
    done: u64,
    total: u64,
    told: u64,
}

impl<'c> Sweep<'c> {
    pub(super) fn new(
        store: &'c Store<'c>,
        options: &'c CollectionOptions,
        hooks: &'c dyn CollectionHooks,
        ages: Ages,
        report: &'c mut CollectionReport,
        by_repository: &'c mut ByRepository,
    ) -> Self {
        Self {
            store,
            options,
            hooks,
            ages,
            report,
            by_repository,
            rows_max: store.rows_first,
            seen: (0, 0),
            is_alone: false,
            done: 0,
            total: 0,
            told: 0,
        }
    }

    /// Removes what is marked.
    pub(super) fn run(&mut self, marks: Marks) -> Result<(), Ended> {
        let Marks { mut repositories, links, linked_before, empty } = marks;
        let of_repository = |repository: &MarkedRepository| {
            repository.tags.len() + repository.groups.iter().map(Vec::len).sum::<usize>()
        };
        self.total =
            (repositories.iter().map(of_repository).sum::<usize>() + links.len() + empty.len()) as u64;
        for repository in &mut repositories {
            self.tags(repository)?;
        }
        self.manifests(repositories)?;
        let mut batch = Vec::new();
        for (digest, repository) in links.iter() {
            if batch.len() as u64 * ROWS_PER_LINK >= self.rows() {
                self.links(std::mem::take(&mut batch))?;
            }
            batch.push((
                digest,
                repository,
                *linked_before.get(&repository).unwrap_or(&self.ages.linked_before),
            ));
        }
        self.links(batch)?;
        self.repositories(empty)?;
        self.hooks.progress(Progress { phase: Phase::Sweep, done: self.done, total: self.total });
        Ok(())
    }

    fn tags(&mut self, repository: &mut MarkedRepository) -> Result<(), Ended> {
        while !repository.tags.is_empty() {
            let count = repository.tags.len().min((self.rows() / ROWS_PER_TAG) as usize + 1);
            let tags: Vec<(Tag, TagRecord)> = repository.tags.drain(..count).collect();
            let (id, name, now) = (repository.id, repository.name.clone(), self.ages.now);
            let batch = self.store.leases.batch();
            let removed = self.commit(batch, count as u64 * ROWS_PER_TAG, move |transaction| {
                let mut removed = 0;
                for (tag, record) in &tags {
                    removed += u64::from(transaction.collect_tag(id, &name, tag, record, now)?);
                }
                Ok(removed)
            })?;
            self.report.removed.tags.count += removed.unwrap_or_default();
            self.report.kept.used_again += removed.map_or(0, |removed| count as u64 - removed);
            self.advance(count as u64);
        }
        Ok(())
    }

    fn manifests(&mut self, repositories: Vec<MarkedRepository>) -> Result<(), Ended> {
        let (mut batch, mut groups, mut rows) = (self.store.leases.batch(), Vec::new(), 0);
        for MarkedRepository { id, groups: marked, .. } in repositories {
            for group in marked {
                if rows >= self.rows() {
                    self.commit_groups(batch, std::mem::take(&mut groups), rows)?;
                    (batch, rows) = (self.store.leases.batch(), 0);
                }
                let leases = self.store.leases;
                if !group.iter().all(|(digest, _)| leases.doom(LeaseKey::new(id, digest), &mut batch)) {
                    self.report.kept.leased_manifests += group.len() as u64;
                    self.advance(group.len() as u64);
                    continue;
                }
                // A manifest has a row for each of its descriptors, which take more than a hundred bytes each.
                rows += group.iter().map(|(_, size)| 8 + size / 128).sum::<u64>();
                groups.push((id, group.into_iter().map(|(digest, _)| digest).collect()));
            }
        }
        self.commit_groups(batch, groups, rows)
    }

    fn commit_groups(
        &mut self,
        batch: Batch<'_>,
        groups: Vec<(RepositoryId, Vec<Digest>)>,
        rows: u64,
    ) -> Result<(), Ended> {
        if groups.is_empty() {
            return Ok(());
        }
        let before = self.ages.pushed_before;
        let all: Vec<(RepositoryId, Digest)> =
            groups.iter().flat_map(|(id, group)| group.iter().map(|digest| (*id, *digest))).collect();
        let collected = self.commit(batch, rows, move |transaction| {
            let (mut collected, mut spell) = (Vec::new(), Spell::begin());
            for (id, group) in &groups {
                transaction.collect_manifests(*id, group, before, &mut collected)?;
                spell.pause();
            }
            Ok(collected)
        })?;
        let mut contents = Vec::new();
        for ((id, digest), collected) in all.iter().zip(collected.into_iter().flatten()) {
            match collected {
                Collected::Removed { size, content } => {
                    self.report.removed.manifests.add(size);
                    self.by_repository.manifest(*id, size);
                    contents.extend(content.map(|content| (*digest, content)));
                }
                Collected::Kept => self.report.kept.used_again += 1,
                Collected::Gone => {}
            }
        }
        self.contents(&contents)?;
        self.advance(all.len() as u64);
        Ok(())
    }

    fn links(&mut self, mut links: Vec<(Digest, RepositoryId, Timestamp)>) -> Result<(), Ended> {
        let marked = links.len() as u64;
        let mut batch = self.store.leases.batch();
        links.retain(|(digest, repository, _)| {
            let kept = *repository != NOWHERE
                && !self.store.leases.doom(LeaseKey::new(*repository, digest), &mut batch);
            self.report.kept.leased_links += u64::from(kept);
            !kept
        });
        self.advance(marked);
        if links.is_empty() {
            return Ok(());
        }
        let all: Vec<(Digest, RepositoryId)> = links.iter().map(|(digest, id, _)| (*digest, *id)).collect();
        let rows = links.len() as u64 * ROWS_PER_LINK;
        let collected = self.commit(batch, rows, move |transaction| collect_links(transaction, &links))?;
        let mut contents = Vec::new();
        for ((digest, id), collected) in all.into_iter().zip(collected.into_iter().flatten()) {
            match collected {
                Collected::Removed { size, content } => {
                    if id != NOWHERE {
                        self.report.removed.links.add(size);
                        self.by_repository.link(id, size);
                    }
                    contents.extend(content.map(|content| (digest, content)));
                }
                Collected::Kept => self.report.kept.used_again += 1,
                Collected::Gone => {}
            }
        }
        self.contents(&contents)
    }

    fn repositories(&mut self, mut empty: Vec<(RepositoryId, RepositoryName)>) -> Result<(), Ended> {
        self.by_repository.remember(&empty);
        // In the order of their rows.
        empty.sort_unstable_by_key(|(id, _)| *id);
        let mut names = empty.into_iter().map(|(_, name)| name).peekable();
        while names.peek().is_some() {
            let part: Vec<RepositoryName> = names.by_ref().take((self.rows() / 2) as usize + 1).collect();
            let count = part.len() as u64;
            let removed = self.commit(self.store.leases.batch(), count * 2, move |transaction| {
                let mut removed = 0;
                for name in &part {
                    removed += u64::from(transaction.remove_repository_if_empty(name)?);
                }
                Ok(removed)
            })?;
            self.report.removed.repositories.count += removed.unwrap_or_default();
            self.advance(count);
        }
        Ok(())
    }

    /// Rows of the next batch.
    fn rows(&self) -> u64 {
        if self.is_alone { self.rows_max * ALONE_FACTOR } else { self.rows_max }
    }

    /// Commits a batch of so many rows, and rests. `None` where a row of the batch cannot be read, and nothing of it
    /// was done.
    fn commit<T: Send + 'static>(
        &mut self,
        batch: Batch<'_>,
        rows: u64,
        work: impl FnOnce(&mut Transaction<'_>) -> Result<T, MetadataError> + Send + 'static,
    ) -> Result<Option<T>, Ended> {
        self.step(Step::Doomed)?;
        let began = Instant::now();
        let answer = self.store.metadata.write_blocking(move |transaction| {
            let (began, before) = (Instant::now(), transaction.sequence());
            let answer = work(transaction)?;
            Ok((answer, began.elapsed(), before, transaction.sequence()))
        });
        // What was waiting for the end of the batch sees it in its next snapshot.
        drop(batch);
        let elapsed = began.elapsed();
        self.report.sweep_us += elapsed.as_micros() as u64;
        let (answer, held, before, after) = match answer {
            Ok(answer) => answer,
            Err(error @ MetadataError::Row { .. }) => {
                self.report.error(format!("some {rows} rows were left where they are: {error}"));
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        self.report.longest_batch_us = self.report.longest_batch_us.max(held.as_micros() as u64);
        self.learn(rows, held);
        let asked = self.store.leases.asked();
        self.is_alone = self.seen == (before, asked);
        self.seen = (after, asked);
        self.step(Step::Committed)?;
        if !self.is_alone && self.options.rest_percent > 0 {
            std::thread::sleep(elapsed * self.options.rest_percent / 100);
        }
        Ok(Some(answer))
    }

    /// Makes the next batch as large as it may be by how long this one took: half of the way there, as one that had to
    /// wait for the processor says little.
    fn learn(&mut self, rows: u64, held: Duration) {
        let fitting = u128::from(rows) * BATCH_GOAL.as_micros() / held.as_micros().max(1);
        let fitting = u64::try_from(fitting).unwrap_or(ROWS_MAX);
        // A batch that was not full does not tell how long a full one takes.
        if fitting < self.rows_max || rows >= self.rows_max / 2 {
            self.rows_max = ((self.rows_max + fitting) / 2).clamp(ROWS_MIN, ROWS_MAX);
        }
    }

    /// Removes the files of contents whose rows are gone, durably.
    fn contents(&mut self, contents: &[(Digest, BlobRecord)]) -> Result<(), Ended> {
        let began = Instant::now();
        for (digest, BlobRecord { size, location, .. }) in contents {
            self.report.removed.contents.add(*size);
            let BlobLocation::File(file) = location else { continue };
            let name = layout::blob(digest, *file);
            match self.store.files.remove(&name) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    self.report.error(format!("cannot remove {name}, which nothing needs: {error}"));
                }
                _ => self.report.removed.files.add(*size),
            }
            self.step(Step::FileRemoved)?;
        }
        self.report.files_us += began.elapsed().as_micros() as u64;
        self.step(Step::FilesRemoved)
    }

    fn advance(&mut self, count: u64) {
        self.done += count;
        if self.done - self.told > self.total / 100 {
            self.told = self.done;
            self.hooks.progress(Progress { phase: Phase::Sweep, done: self.done, total: self.total });
        }
    }

    fn step(&self, step: Step) -> Result<(), Ended> {
        if self.hooks.at(step).is_break() { Err(Ended::Stopped) } else { Ok(()) }
    }
}

/// Removes links, which are in the order of the digests, and each content with its last link.
fn collect_links(
    transaction: &mut Transaction<'_>,
    links: &[(Digest, RepositoryId, Timestamp)],
) -> Result<Vec<Collected>, MetadataError> {
    let mut collected = Vec::with_capacity(links.len());
    let mut spell = Spell::begin();
    for of_digest in links.chunk_by(|(one, ..), (other, ..)| one == other) {
        transaction.collect_blob(of_digest, &mut collected)?;
        spell.pause();
    }
    Ok(collected)
}
