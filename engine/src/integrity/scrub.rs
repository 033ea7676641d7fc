//! Reading all content again, in the order of the digests, at a set pace.
//!
//! What is found wrong is looked at twice: content that is deleted or healed while it is read is not damaged, and an
//! error that does not come again is none of the content's. Only then it is taken out of use, in a transaction that looks
//! once more whether it still is what was read.

use std::cell::Cell;
use std::ops::ControlFlow;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::pace::Pace;
use super::progress::{Phase, Progress};
use super::quarantine::Quarantine;
use super::reader::{Reader, Unread, Verdict};
use super::turn::Turn;
use crate::collection::Amount;
use crate::engine::{Engine, Shared};
use crate::layout;
use crate::metadata::{BlobLocation, BlobRecord, Damage, DamageRecord, MetadataError, Timestamp, readable};
use crate::oci::{ContentHasher, Digest};

/// How much is read in a second where nothing else is asked for: 32 MiB, some 2.6 TiB a day.
pub const SCRUB_RATE_DEFAULT: u64 = 32 << 20;

/// Damaged contents that a report names, and errors that it quotes.
pub const REPORTED_DAMAGE_MAX: usize = 100;

/// Repositories that are named with damaged content.
const REPORTED_REPOSITORIES: usize = 5;

/// Contents that are taken from one snapshot.
const BATCH: usize = 256;

/// How much of a scrub is done again after a crash, at most, in milliseconds.
const SAVE_INTERVAL_MS: u64 = 30_000;

/// What can be set of a scrub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrubOptions {
    /// Bytes that are read in a second. 0: as fast as it goes.
    pub bytes_per_second: u64,
    /// Whether it begins at the beginning, also where an earlier one was not finished.
    pub afresh: bool,
}

impl Default for ScrubOptions {
    fn default() -> Self {
        Self { bytes_per_second: SCRUB_RATE_DEFAULT, afresh: false }
    }
}

/// Why a scrub has not begun.
#[derive(Debug, thiserror::Error)]
pub enum ScrubError {
    /// There is one at a time.
    #[error("another scrub is running; wait for its end, or look at its progress")]
    Running,
    /// The metadata cannot be read.
    #[error("the metadata store failed: {0}")]
    Metadata(#[from] MetadataError),
}

/// Damaged content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamageFound {
    /// Its digest.
    pub digest: Digest,
    /// The length that it should have, in bytes.
    pub bytes: u64,
    /// What is wrong with it.
    pub damage: Damage,
    /// When it was found: milliseconds since the Unix epoch, UTC.
    pub found_at_ms: u64,
    /// Some of the repositories that have it; five at most.
    pub repositories: Vec<String>,
}

/// What a scrub has found: kept in the metadata, for the one that goes on with it, and made for people and machines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ScrubReport {
    /// When it began: milliseconds since the Unix epoch, UTC.
    pub began_at_ms: u64,
    /// When this was last written down.
    pub updated_at_ms: u64,
    /// When it came to its end; `None`: it did not, and the next one goes on.
    pub ended_at_ms: Option<u64>,
    /// All up to this digest has been read; `None`: nothing yet, or everything.
    pub after: Option<Digest>,
    /// What there was to read when it began.
    pub total: Amount,
    /// What was read, damaged or not.
    pub checked: Amount,
    /// Those of it that are in the metadata.
    pub inline: Amount,
    /// What was found damaged, and is out of use now.
    pub damaged: Amount,
    /// The first of these; at most [`REPORTED_DAMAGE_MAX`].
    pub found: Vec<DamageFound>,
    /// Content that was damaged before and whose file is whole again: somebody has put it back.
    pub reinstated: Amount,
    /// Content that was deleted or pushed again while it was read.
    pub changed: u64,
    /// Content that could not be read rightly the first time, and could the second time.
    pub read_again: u64,
    /// Content that could not be read for reasons that say nothing about it; it stays in use.
    pub errors: u64,
    /// What was wrong with the first of these; at most [`REPORTED_DAMAGE_MAX`].
    pub error_texts: Vec<String>,
    /// How often it was interrupted and went on.
    pub resumed: u64,
    /// Why it ended before its end.
    pub failure: Option<String>,
}

impl Engine {
    /// Reads all content and hashes it, at the pace that the options say; where an earlier scrub did not come to its end,
    /// goes on with that. What is damaged counts as not there from then on. Takes the calling thread until the end, so it
    /// is called on one of its own; pulls and pushes go on beside it, and keep the page cache.
    ///
    /// `progress` is called a few times a second; a break ends it, and the next one goes on from there.
    ///
    /// # Errors
    /// It has not begun. What goes wrong later is in the report.
    pub fn scrub(
        &self,
        options: &ScrubOptions,
        progress: &dyn Fn(Progress) -> ControlFlow<()>,
    ) -> Result<ScrubReport, ScrubError> {
        let shared = self.shared();
        let _turn = Turn::take(&shared.integrity.scrub).ok_or(ScrubError::Running)?;
        let report = match self.last_scrub()? {
            Some(last) if last.ended_at_ms.is_none() && !options.afresh => {
                ScrubReport { resumed: last.resumed + 1, failure: None, ..last }
            }
            _ => {
                let statistics = shared.metadata.snapshot()?.statistics();
                let total = Amount { count: statistics.blobs, bytes: statistics.bytes };
                ScrubReport { began_at_ms: shared.environment.clock.now().0, total, ..ScrubReport::default() }
            }
        };
        let mut scrub = Scrub {
            shared,
            reader: Reader::new(&shared.volume),
            pace: Pace::new(options.bytes_per_second),
            quarantine: Quarantine::new(&shared.options.root),
            progress,
            read: Cell::new(report.checked.bytes),
            report,
        };
        scrub.run();
        Ok(scrub.report)
    }

    /// The report of the scrub that is running, as it was written down last, or of the last one there was.
    pub fn last_scrub(&self) -> Result<Option<ScrubReport>, MetadataError> {
        // One of a later version that cannot be read counts as none.
        let text = readable(self.metadata().snapshot()?.scrub())?.flatten();
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
    }

    /// Whether a scrub is running.
    pub fn is_scrubbing(&self) -> bool {
        self.shared().integrity.scrub.load(std::sync::atomic::Ordering::Relaxed)
    }
}

/// Why a scrub ends before its end.
enum Ended {
    Stopped,
    Metadata(MetadataError),
}

impl From<MetadataError> for Ended {
    fn from(error: MetadataError) -> Self {
        Self::Metadata(error)
    }
}

/// What is known of content before it is condemned.
enum Seen {
    Whole,
    /// With its bytes, where they are in the metadata.
    Damaged(Damage, Option<Bytes>),
    Changed,
    Failed(String),
}

struct Scrub<'s> {
    shared: &'s Shared,
    reader: Reader<'s>,
    pace: Pace,
    quarantine: Quarantine<'s>,
    progress: &'s dyn Fn(Progress) -> ControlFlow<()>,
    /// Bytes that were read, also of content that is still being read.
    read: Cell<u64>,
    report: ScrubReport,
}

impl Scrub<'_> {
    fn run(&mut self) {
        match self.all() {
            Ok(()) => {
                self.report.ended_at_ms = Some(self.now().0);
                self.report.after = None;
            }
            Err(Ended::Stopped) => {}
            Err(Ended::Metadata(error)) => {
                tracing::error!(%error, "a scrub ended before its end");
                self.report.failure = Some(format!("the metadata store failed: {error}"));
            }
        }
        if let Err(error) = self.save() {
            tracing::warn!(%error, "cannot write down how far a scrub is; the next one does a part of it again");
        }
    }

    fn all(&mut self) -> Result<(), Ended> {
        let now = self.now();
        if let Err(error) = self.quarantine.tidy(now) {
            self.error(format!("cannot remove old files from the quarantine: {error}"));
        }
        self.look_at_damaged()?;
        loop {
            let batch = self.batch()?;
            if batch.is_empty() {
                return Ok(());
            }
            for (digest, record) in batch {
                self.look_at(&digest, &record)?;
                self.report.after = Some(digest);
                if self.now().0 >= self.report.updated_at_ms.saturating_add(SAVE_INTERVAL_MS) {
                    self.save()?;
                }
            }
        }
    }

    /// The next contents.
    fn batch(&mut self) -> Result<Vec<(Digest, BlobRecord)>, MetadataError> {
        let mut batch = Vec::new();
        for row in self.shared.metadata.snapshot()?.stored_blobs(self.report.after.as_ref())? {
            match row {
                // Whatever it says, the rest can be read.
                Err(error) if error.is_of_one_row() => self.error(error.to_string()),
                row => batch.push(row?),
            }
            if batch.len() == BATCH {
                break;
            }
        }
        Ok(batch)
    }

    /// Looks whether what was found damaged earlier has been put back, or is not needed any more.
    fn look_at_damaged(&mut self) -> Result<(), Ended> {
        let mut after = None;
        loop {
            let batch = self.shared.metadata.snapshot()?.damaged(after.as_ref())?.take(BATCH);
            let batch = batch.collect::<Result<Vec<_>, _>>()?;
            let Some((last, _)) = batch.last() else { return Ok(()) };
            after = Some(*last);
            for (digest, found) in batch {
                let forget = move |transaction: &mut crate::metadata::Transaction<'_>| {
                    transaction.forget_unused_damage(&digest)
                };
                if !self.shared.metadata.write_blocking(forget)? {
                    self.look_at_file_again(digest, found)?;
                }
            }
        }
    }

    fn look_at_file_again(&mut self, digest: Digest, found: DamageRecord) -> Result<(), Ended> {
        if !matches!(found.content.location, BlobLocation::File(_)) {
            return Ok(());
        }
        if !matches!(self.see(&digest, &found.content, None)?, Seen::Whole) {
            return Ok(());
        }
        let reinstated =
            self.shared.metadata.write_blocking(move |transaction| transaction.reinstate(&digest, &found));
        if reinstated? {
            tracing::info!(%digest, "the file of damaged content is whole again, and in use");
            self.report.reinstated.add(found.content.size);
        }
        Ok(())
    }

    fn look_at(&mut self, digest: &Digest, record: &BlobRecord) -> Result<(), Ended> {
        let before = self.read.get();
        let seen = match self.see(digest, record, Some(record))? {
            Seen::Damaged(..) => {
                let again = self.see(digest, record, Some(record))?;
                self.report.read_again += u64::from(matches!(again, Seen::Whole));
                again
            }
            seen => seen,
        };
        // Counted once, however often it was read.
        self.read.set(before + record.size);
        self.report.checked.add(record.size);
        if record.location == BlobLocation::Inline {
            self.report.inline.add(record.size);
            self.told(0)?;
        }
        match seen {
            Seen::Whole => Ok(()),
            Seen::Changed => {
                self.report.changed += 1;
                Ok(())
            }
            Seen::Failed(text) => {
                self.error(text);
                Ok(())
            }
            Seen::Damaged(damage, bytes) => self.condemn(digest, record, damage, bytes),
        }
    }

    /// Reads content. `stored`: what the metadata has to say of it; where it says something else by now, the content
    /// was changed while it was read.
    fn see(
        &mut self,
        digest: &Digest,
        record: &BlobRecord,
        stored: Option<&BlobRecord>,
    ) -> Result<Seen, Ended> {
        let (verdict, bytes) = match record.location {
            BlobLocation::Inline => {
                let bytes = self.shared.metadata.snapshot()?.content(digest, record.size)?;
                (inline_verdict(digest, record, bytes.as_ref()), bytes)
            }
            BlobLocation::File(file) => {
                let (read, progress, total) = (&self.read, self.progress, self.report.total.bytes);
                let told = |count: u64| {
                    read.set(read.get() + count);
                    progress(Progress { phase: Phase::Scrub, done: read.get().min(total), total })
                };
                let name = layout::blob(digest, file);
                match self.reader.verify(&name, digest, record.size, &mut self.pace, &told) {
                    Ok(verdict) => (verdict, None),
                    Err(Unread::Stopped) => return Err(Ended::Stopped),
                    Err(Unread::Failed(error)) => {
                        return Ok(Seen::Failed(format!("cannot read {name}: {error}")));
                    }
                }
            }
        };
        let Verdict::Damaged(damage) = verdict else { return Ok(Seen::Whole) };
        if self.shared.metadata.snapshot()?.stored_blob(digest)?.as_ref() != stored {
            return Ok(Seen::Changed);
        }
        Ok(Seen::Damaged(damage, bytes))
    }

    /// Takes damaged content out of use.
    fn condemn(
        &mut self,
        digest: &Digest,
        record: &BlobRecord,
        damage: Damage,
        bytes: Option<Bytes>,
    ) -> Result<(), Ended> {
        let (of, found, now) = (*digest, *record, self.now());
        let condemn = move |transaction: &mut crate::metadata::Transaction<'_>| {
            transaction.condemn(&of, &found, damage, now)
        };
        if !self.shared.metadata.write_blocking(condemn)? {
            self.report.changed += 1;
            return Ok(());
        }
        let kept = match &bytes {
            Some(bytes) => self.quarantine.keep(digest, bytes),
            None => self.quarantine.take(digest, record.location).map(drop),
        };
        if let Err(error) = kept.and_then(|()| self.quarantine.tidy(now)) {
            self.error(format!("cannot keep the damaged content of {digest} in quarantine: {error}"));
        }
        let repositories = self.repositories(digest)?;
        tracing::error!(
            %digest,
            bytes = record.size,
            ?damage,
            ?repositories,
            "content is damaged, and out of use until it is pushed again"
        );
        self.report.damaged.add(record.size);
        if self.report.found.len() < REPORTED_DAMAGE_MAX {
            let (bytes, found_at_ms) = (record.size, now.0);
            self.report.found.push(DamageFound { digest: *digest, bytes, damage, found_at_ms, repositories });
        }
        Ok(())
    }

    /// Some of the repositories that have the digest.
    fn repositories(&self, digest: &Digest) -> Result<Vec<String>, MetadataError> {
        let snapshot = self.shared.metadata.snapshot()?;
        let mut names = Vec::new();
        for id in snapshot.blob_repositories(digest)?.chain(snapshot.manifest_repositories(digest)?) {
            if names.len() == REPORTED_REPOSITORIES {
                break;
            }
            names.extend(snapshot.repository_name(id?)?.map(|(name, _)| name.to_string()));
        }
        names.dedup();
        Ok(names)
    }

    fn told(&self, bytes: u64) -> Result<(), Ended> {
        let total = self.report.total.bytes;
        let done = (self.read.get() + bytes).min(total);
        match (self.progress)(Progress { phase: Phase::Scrub, done, total }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Ended::Stopped),
        }
    }

    fn error(&mut self, text: String) {
        tracing::warn!("scrub: {text}");
        self.report.errors += 1;
        if self.report.error_texts.len() < REPORTED_DAMAGE_MAX {
            self.report.error_texts.push(text);
        }
    }

    /// Writes down how far it is.
    fn save(&mut self) -> Result<(), MetadataError> {
        self.report.updated_at_ms = self.now().0;
        let report = match serde_json::to_string(&self.report) {
            Ok(report) => report,
            Err(error) => unreachable!("reports are numbers and texts: {error}"),
        };
        self.shared.metadata.write_blocking(move |transaction| transaction.set_scrub(&report))
    }

    fn now(&self) -> Timestamp {
        self.shared.environment.clock.now()
    }
}

fn inline_verdict(digest: &Digest, record: &BlobRecord, bytes: Option<&Bytes>) -> Verdict {
    match bytes {
        None => Verdict::Damaged(Damage::Missing),
        Some(bytes) if bytes.len() as u64 != record.size => Verdict::Damaged(Damage::Length),
        Some(bytes) if ContentHasher::digest(digest.algorithm(), bytes) != *digest => {
            Verdict::Damaged(Damage::Content)
        }
        Some(_) => Verdict::Whole,
    }
}
