//! Files that nothing names: what a process left that died between making a file and committing its row, or between
//! committing a deletion and removing the file.
//!
//! A file that is on its way looks just like that: it has its name, and no row has it yet. What tells them apart:
//! whoever makes or names a file says so beforehand ([`FilesInUse`](crate::uploads::FilesInUse)), until the row is
//! committed or given up. So a file is claimed there first, which nobody can who has a use for it, then looked for in a
//! fresh snapshot, and removed while the claim lasts: a session that goes on and names it once more waits for that. Its
//! age is looked at, too, so that a file that somebody has just put back by hand is not lost.

use std::collections::HashSet;
use std::str::FromStr as _;
use std::time::Instant;

use super::report::CollectionReport;
use super::{Ages, CollectionHooks, Ended, Phase, Progress, Step, Store};
use crate::layout;
use crate::metadata::{BlobLocation, BlobRecord, FileId, Timestamp, readable};
use crate::oci::Algorithm;
use crate::uploads::Claim;

/// Removes the files that nothing names, or counts them in a dry run.
pub(super) fn remove(
    store: &Store<'_>,
    hooks: &dyn CollectionHooks,
    ages: Ages,
    report: &mut CollectionReport,
) -> Result<(), Ended> {
    let began = Instant::now();
    let mut strays = Strays { store, hooks, ages, report };
    let result = strays.remove_all();
    report.files_us += began.elapsed().as_micros() as u64;
    result
}

struct Strays<'c> {
    store: &'c Store<'c>,
    hooks: &'c dyn CollectionHooks,
    ages: Ages,
    report: &'c mut CollectionReport,
}

impl Strays<'_> {
    fn remove_all(&mut self) -> Result<(), Ended> {
        let total = Algorithm::ALL.len() as u64 * 256 + 1;
        for (algorithm, done) in Algorithm::ALL.into_iter().zip([0, 256]) {
            for first in 0..=u8::MAX {
                self.blobs(algorithm, first)?;
                if first % 8 == 7 {
                    let done = done + u64::from(first) + 1;
                    self.hooks.progress(Progress { phase: Phase::Strays, done, total });
                }
            }
        }
        self.uploads()?;
        self.hooks.progress(Progress { phase: Phase::Strays, done: total, total });
        Ok(())
    }

    fn blobs(&mut self, algorithm: Algorithm, first: u8) -> Result<(), Ended> {
        let directory = layout::blob_directory_of(algorithm, first);
        let names = self.names(&directory);
        if names.is_empty() {
            return Ok(());
        }
        let mut named = HashSet::new();
        for blob in self.store.metadata.snapshot()?.stored_blobs_of(algorithm, first)? {
            if let Some((_, BlobRecord { location: BlobLocation::File(file), .. })) = readable(blob)? {
                named.insert(file);
            }
        }
        for name in names {
            // What has another name was not put there by the registry.
            let Some((digest, file)) = layout::parse_blob(algorithm, &name) else { continue };
            let name = format!("{directory}/{name}");
            if named.contains(&file) {
                continue;
            }
            let Some(_claim) = self.claim(&name, file) else { continue };
            let snapshot = self.store.metadata.snapshot()?;
            // One that was found damaged is kept for whoever wants to look at it, as long as it is needed.
            let (stored, damage) =
                (readable(snapshot.stored_blob(&digest))?, readable(snapshot.damage(&digest))?);
            let (Some(stored), Some(damage)) = (stored, damage) else {
                self.report.error(format!("{name} stays, as a row that may name it cannot be read"));
                continue;
            };
            let named = stored.or(damage.map(|damage| damage.content));
            if named.is_none_or(|named| named.location != BlobLocation::File(file)) {
                self.remove(&name)?;
            }
        }
        Ok(())
    }

    fn uploads(&mut self) -> Result<(), Ended> {
        let Some(named) = self.store.metadata.snapshot()?.files_of_uploads()? else {
            self.report.error(format!(
                "the files of {} stay, as an upload session that may have any of them cannot be read",
                layout::UPLOADS
            ));
            return Ok(());
        };
        let mut strays = Vec::new();
        for name in self.names(layout::UPLOADS) {
            let Ok(file) = FileId::from_str(&name) else { continue };
            if !named.contains(&file) {
                strays.extend(self.claim(&layout::upload(file), file).map(|claim| (file, claim)));
            }
        }
        if strays.is_empty() {
            return Ok(());
        }
        let Some(named) = self.store.metadata.snapshot()?.files_of_uploads()? else { return Ok(()) };
        for (file, _claim) in strays {
            if !named.contains(&file) {
                self.remove(&layout::upload(file))?;
            }
        }
        Ok(())
    }

    fn names(&mut self, directory: &str) -> Vec<String> {
        match self.store.files.names(directory) {
            Ok(names) => {
                self.report.examined.files += names.len() as u64;
                names
            }
            Err(error) => {
                self.report.error(format!("cannot list {directory}: {error}"));
                Vec::new()
            }
        }
    }

    /// Claims a file that nobody is about to name and nobody has changed lately.
    fn claim(&mut self, name: &str, file: FileId) -> Option<Claim> {
        let claim = self.store.files_in_use.claim(file)?;
        // Where there is none any more, whoever had it has removed it.
        let status = self.store.files.status(name).ok()?;
        if status.changed_at > self.ages.strays_before {
            self.report.kept.young_strays += 1;
            return None;
        }
        Some(claim)
    }

    fn remove(&mut self, name: &str) -> Result<(), Ended> {
        if self.hooks.at(Step::StrayFound).is_break() {
            return Err(Ended::Stopped);
        }
        let size = self.store.files.status(name).map_or(0, |status| status.size);
        if self.report.dry_run {
            self.report.removed.strays.add(size);
            return Ok(());
        }
        match self.store.files.remove(name) {
            Ok(()) => {
                tracing::info!(file = name, bytes = size, "removed a file that nothing names");
                self.report.removed.strays.add(size);
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => self.report.error(format!("cannot remove {name}, which nothing names: {error}")),
        }
        Ok(())
    }
}

/// What is known of a file without opening it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FileStatus {
    /// Its length in bytes.
    pub(crate) size: u64,
    /// When its content, its names or anything else about it was changed.
    pub(crate) changed_at: Timestamp,
}
