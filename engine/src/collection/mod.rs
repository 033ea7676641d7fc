//! Collection of garbage: what no tag leads to, what nothing needs, and what nothing names.
//!
//! ```text
//!  enter window ─► snapshot ─► mark ─► leave window ─► sweep: batch ─► files ─► batch ─► files … ─► strays ─► report
//!  (read-only mode)   no content is read                └ each deletion is checked again in its transaction
//! ```
//!
//! A manifest is alive that has a tag, is a child of a living index, or is about a living manifest; young ones and
//! those that a client was just told of count as alive, with all that they keep. A blob's link is needed as long as a
//! manifest of its repository refers to it, and content as long as a link or a manifest does. `docs/garbage-collection.md`
//! has the rules and why no race breaks them; [`leases`] is about clients that were told that something is there.

mod files;
mod keepers;
mod leases;
mod mark;
mod options;
mod ordered;
mod report;
mod retention;
mod slice;
mod spell;
mod strays;
mod sweep;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::environment::Clock;
use crate::error::EngineError;
use crate::metadata::{Metadata, MetadataError, RepositoryId, Timestamp, readable};
use crate::oci::RepositoryName;
use crate::uploads::{FilesInUse, Sessions};
use mark::{MarkError, Marker};
use report::ByRepository;
use slice::Slice;

pub(crate) use files::Files;
pub use leases::{LEASE_DEFAULT, LEASES_MAX};
pub(crate) use leases::{LeaseKey, Leases, to_ms};
pub use options::{
    AGE_DEFAULT, CollectionHooks, CollectionOptions, Mode, Phase, Progress, STRAY_AGE_DEFAULT, Step,
};
pub use report::{
    Amount, CollectionReport, Examined, Kept, REPORTED_ERRORS_MAX, REPORTED_REPOSITORIES_MAX, Removed,
    RemovedFrom,
};
pub use retention::{Pattern, PatternError, RetentionRule, is_immutable};
pub(crate) use slice::MARKS_MAX;
pub(crate) use strays::FileStatus;
pub(crate) use sweep::ROWS_FIRST;

/// Why a collection has not begun.
#[derive(Debug, thiserror::Error)]
pub enum CollectionError {
    /// There is one at a time.
    #[error("another collection is running; wait for its end, or look at its progress")]
    Running,
    /// Writing could not be paused.
    #[error("writing could not be paused: {0}; try again later, or collect in online mode")]
    Window(String),
    /// The metadata cannot be read.
    #[error("the metadata store failed: {0}")]
    Metadata(#[from] MetadataError),
}

/// Why a collection that has begun ended before its end.
#[derive(Debug)]
enum Ended {
    Stopped,
    Metadata(MetadataError),
    Engine(EngineError),
}

impl From<MetadataError> for Ended {
    fn from(error: MetadataError) -> Self {
        Self::Metadata(error)
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stopped => f.write_str("it was stopped; the next one goes on"),
            Self::Metadata(error) => write!(f, "the metadata store failed: {error}"),
            Self::Engine(error) => error.fmt(f),
        }
    }
}

/// What collection works on.
pub(crate) struct Store<'s> {
    pub(crate) metadata: &'s Metadata,
    pub(crate) leases: &'s Leases,
    pub(crate) sessions: &'s Sessions,
    pub(crate) files_in_use: &'s FilesInUse,
    pub(crate) files: &'s dyn Files,
    pub(crate) clock: &'s dyn Clock,
    /// How long an upload session lives without progress, in milliseconds.
    pub(crate) upload_expiry_ms: u64,
    /// Whether a collection is running.
    pub(crate) is_collecting: &'s AtomicBool,
    /// Links that are marked at a time.
    pub(crate) marks_max: u64,
    /// Rows in the first batch of deletions.
    pub(crate) rows_first: u64,
}

/// From when on something is too young, by the time at which the collection began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ages {
    now: Timestamp,
    blob_age_ms: u64,
    pushed_before: Timestamp,
    linked_before: Timestamp,
    strays_before: Timestamp,
}

impl Ages {
    fn new(now: Timestamp, options: &CollectionOptions) -> Self {
        let blob_age_ms = to_ms(options.blob_age);
        Self {
            now,
            blob_age_ms,
            pushed_before: old_enough(now, to_ms(options.untagged_age)),
            linked_before: old_enough(now, blob_age_ms),
            strays_before: Timestamp(now.0.saturating_sub(to_ms(options.stray_age))),
        }
    }

    /// The same for links in a repository to which a push has been going on since then.
    fn linked_before_push(&self, since: Timestamp) -> Timestamp {
        old_enough(since.min(self.now), self.blob_age_ms)
    }
}

/// What happened before this has the age.
fn old_enough(now: Timestamp, age_ms: u64) -> Timestamp {
    Timestamp(now.0.saturating_sub(age_ms).saturating_add(u64::from(age_ms <= now.0)))
}

impl Store<'_> {
    /// Collects. Takes the calling thread until the end. What goes wrong on the way is in the report.
    pub(crate) fn collect(
        &self,
        options: &CollectionOptions,
        hooks: &dyn CollectionHooks,
    ) -> Result<CollectionReport, CollectionError> {
        let _turn = Turn::take(self.is_collecting)?;
        let now = self.clock.now();
        self.rotate_leases(now)?;
        let mut report = CollectionReport::new(now, options.mode, options.dry_run);
        let result = self.run(options, hooks, now, &mut report)?;
        if let Err(ended) = result {
            tracing::warn!("collection ended before its end: {ended}");
            report.failure = Some(ended.to_string());
        }
        // What a dry run says is soon out of date, and must not push out what was done.
        if !options.dry_run {
            self.record(&report);
        }
        Ok(report)
    }

    /// The outer error is why it has not begun.
    fn run(
        &self,
        options: &CollectionOptions,
        hooks: &dyn CollectionHooks,
        now: Timestamp,
        report: &mut CollectionReport,
    ) -> Result<Result<(), Ended>, CollectionError> {
        let ages = Ages::new(now, options);
        let statistics = self.metadata.snapshot()?.statistics();
        let mut by_repository = ByRepository::default();
        for slice in Slice::all(statistics.links + statistics.blobs, self.marks_max) {
            let window = match slice.is_first() {
                true => Window::enter(options.mode, hooks)?,
                false => Window { hooks: None, opened: Instant::now() },
            };
            let mut collection =
                Collection { store: self, options, hooks, ages, report, by_repository: &mut by_repository };
            if let Err(ended) = collection.slice(slice, window) {
                self.name(&by_repository, report);
                return Ok(Err(ended));
            }
        }
        self.name(&by_repository, report);
        let mut collection =
            Collection { store: self, options, hooks, ages, report, by_repository: &mut by_repository };
        Ok(collection.rest())
    }

    /// Names the repositories that lost most.
    fn name(&self, by_repository: &ByRepository, report: &mut CollectionReport) {
        let Ok(snapshot) = self.metadata.snapshot() else { return };
        for (id, manifests, links) in by_repository.most() {
            let name = match (by_repository.name(id), snapshot.repository_name(id)) {
                (Some(name), _) => name.to_string(),
                (None, Ok(Some((name, _)))) => name.to_string(),
                (None, _) => continue,
            };
            report.repositories.push(RemovedFrom { repository: name, manifests, links });
        }
    }

    /// Remembers what was done; where that fails, the report is the caller's only.
    fn record(&self, report: &CollectionReport) {
        let recorded = serde_json::to_string(report).map_err(|error| error.to_string()).and_then(|text| {
            let written =
                self.metadata.write_blocking(move |transaction| transaction.record_collection(&text));
            written.map_err(|error| error.to_string())
        });
        if let Err(error) = recorded {
            tracing::warn!(error, "cannot remember what a collection has done");
        }
    }

    /// Lets old leases end, except in repositories that are pushed to.
    pub(crate) fn rotate_leases(&self, now: Timestamp) -> Result<(), MetadataError> {
        let snapshot = self.metadata.snapshot()?;
        let mut pushed_to: Vec<(RepositoryId, Timestamp)> = Vec::new();
        for (name, begun) in self.pushes()? {
            pushed_to.extend(snapshot.repository(&name)?.map(|id| (id, begun)));
        }
        self.leases.rotate(now, pushed_to);
        Ok(())
    }

    /// The repositories that are pushed to, each with when its oldest upload session was started.
    fn pushes(&self) -> Result<HashMap<RepositoryName, Timestamp>, MetadataError> {
        // In this order: a session that leaves the memory is in the metadata by then.
        let mut pushes = self.sessions.pushes();
        for upload in self.metadata.snapshot()?.uploads()? {
            // Of one that cannot be read nobody knows where it pushes to; nobody can go on with it either.
            let Some((_, record)) = readable(upload)? else { continue };
            let since = pushes.entry(record.repository).or_insert(record.started_at);
            *since = record.started_at.min(*since);
        }
        Ok(pushes)
    }
}

/// One collection that is running.
struct Collection<'c> {
    store: &'c Store<'c>,
    options: &'c CollectionOptions,
    hooks: &'c dyn CollectionHooks,
    ages: Ages,
    report: &'c mut CollectionReport,
    by_repository: &'c mut ByRepository,
}

impl Collection<'_> {
    fn step(&self, step: Step) -> Result<(), Ended> {
        if self.hooks.at(step).is_break() { Err(Ended::Stopped) } else { Ok(()) }
    }

    /// Marks what is in the slice, and removes it.
    fn slice(&mut self, slice: Slice, window: Window<'_>) -> Result<(), Ended> {
        let began = Instant::now();
        self.step(Step::Entered)?;
        let mut found = CollectionReport::default();
        let mut planned = ByRepository::default();
        let pushes = self.store.pushes()?;
        let marks = {
            let snapshot = self.store.metadata.snapshot()?;
            let statistics = snapshot.statistics();
            let total = statistics.manifests + statistics.links + statistics.blobs;
            let progress = |done: u64| {
                self.hooks.progress(Progress { phase: Phase::Mark, done: done.min(total), total });
                self.hooks.at(Step::Marking)
            };
            let (options, leases, ages) = (self.options, self.store.leases, self.ages);
            let mut marker = Marker {
                snapshot: &snapshot,
                options,
                leases,
                ages,
                pushes: &pushes,
                slice,
                progress: &progress,
                rows: 0,
            };
            let mut marks = marker.mark(&mut found)?;
            self.step(Step::Marked)?;
            let window_us = window.leave();
            if slice.is_first() {
                self.report.window_us = window_us;
            }
            self.step(Step::Left)?;
            marker.mark_contents(&mut marks, &mut found, &mut planned)?;
            self.hooks.progress(Progress { phase: Phase::Mark, done: total, total });
            marks
        };
        self.report.mark_us += began.elapsed().as_micros() as u64;
        if slice.is_first() {
            self.report.examined = found.examined;
            self.report.kept = found.kept;
            self.report.join_errors(&mut found);
        }
        if self.options.dry_run {
            if slice.is_first() {
                found.removed.tags.count =
                    marks.repositories.iter().map(|marked| marked.tags.len() as u64).sum();
                found.removed.repositories.count = marks.empty.len() as u64;
            }
            self.report.removed.join(found.removed);
            self.by_repository.join(planned);
            return Ok(());
        }
        let Self { store, options, hooks, ages, report, by_repository } = self;
        sweep::Sweep::new(store, options, *hooks, *ages, report, by_repository).run(marks)
    }

    /// What is not found by marking: upload sessions and files.
    fn rest(&mut self) -> Result<(), Ended> {
        let before = Timestamp(self.ages.now.0.saturating_sub(self.store.upload_expiry_ms));
        let uploads = self.store.expire_uploads(before, self.options.dry_run).map_err(Ended::Engine)?;
        self.report.removed.uploads = uploads;
        strays::remove(self.store, self.hooks, self.ages, self.report)?;
        self.step(Step::Done)
    }
}

impl From<MarkError> for Ended {
    fn from(error: MarkError) -> Self {
        match error {
            MarkError::Metadata(error) => Self::Metadata(error),
            MarkError::Stopped => Self::Stopped,
        }
    }
}

/// That writing is paused; dropped, it goes on.
struct Window<'h> {
    hooks: Option<&'h dyn CollectionHooks>,
    opened: Instant,
}

impl<'h> Window<'h> {
    fn enter(mode: Mode, hooks: &'h dyn CollectionHooks) -> Result<Self, CollectionError> {
        let opened = Instant::now();
        let hooks = match mode {
            Mode::Online => None,
            Mode::ReadOnly => {
                hooks.enter_window().map_err(CollectionError::Window)?;
                Some(hooks)
            }
        };
        Ok(Self { hooks, opened })
    }

    /// Lets writing go on; how long it was paused, in microseconds.
    fn leave(self) -> u64 {
        self.opened.elapsed().as_micros() as u64
    }
}

impl Drop for Window<'_> {
    fn drop(&mut self) {
        if let Some(hooks) = self.hooks {
            hooks.leave_window();
        }
    }
}

/// The right to collect, which one has at a time.
struct Turn<'t>(&'t AtomicBool);

impl<'t> Turn<'t> {
    fn take(is_collecting: &'t AtomicBool) -> Result<Self, CollectionError> {
        match is_collecting.swap(true, Ordering::Acquire) {
            true => Err(CollectionError::Running),
            false => Ok(Self(is_collecting)),
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}
