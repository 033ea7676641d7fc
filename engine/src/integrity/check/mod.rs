//! Whether rows and files fit each other, and putting right what does not.
//!
//! The rows are compared within one state, so whatever does not fit there is wrong. Files come and go meanwhile: what seems
//! wrong with one is looked at again by a fresh state before it counts.

mod files;
mod report;
mod strays;

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use super::progress::{Phase, Progress};
use super::quarantine::Quarantine;
use super::turn::Turn;
use crate::collection::STRAY_AGE_DEFAULT;
use crate::engine::{Engine, Shared};
use crate::metadata::{Finding, MetadataError, Repair, Unchecked};
use files::Files;
use strays::Stray;

pub use report::{CheckReport, FINDING_EXAMPLES_MAX, Found};

/// How often a check that repairs looks again at what it has done, at most: what was put right may show something else.
const ROUNDS_MAX: u32 = 4;

/// What is put right in one round, at most.
const REPAIRS_MAX: usize = 1 << 17;

/// Repairs in one transaction.
const REPAIR_BATCH: usize = 64;

/// What can be set of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckOptions {
    /// Whether what is wrong is put right.
    pub repair: bool,
    /// How long files that nothing names stay, after they were last changed.
    pub stray_age: Duration,
}

impl Default for CheckOptions {
    fn default() -> Self {
        Self { repair: false, stray_age: STRAY_AGE_DEFAULT }
    }
}

/// Why a check has not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// There is one at a time.
    #[error("another check is running; wait for its end")]
    Running,
    /// Whoever was told of the progress has ended it.
    #[error("the check was stopped")]
    Stopped,
    /// The metadata cannot be read.
    #[error(
        "the metadata store failed: {0}; if that comes again, stop the registry and rebuild the metadata from its export"
    )]
    Metadata(#[from] MetadataError),
    /// Files below the root cannot be looked at.
    #[error("cannot look at the files below the root: {0}")]
    Disk(#[from] std::io::Error),
}

impl From<Unchecked> for CheckError {
    fn from(error: Unchecked) -> Self {
        match error {
            Unchecked::Stopped => Self::Stopped,
            Unchecked::Metadata(error) => Self::Metadata(error),
        }
    }
}

/// Something to do about a finding.
enum Remedy {
    /// In the metadata.
    Row(Repair),
    /// Remove a file that nothing names.
    Stray(Stray),
    /// Make a directory, named from the root.
    MakeDirectory(String),
}

impl Engine {
    /// Compares the rows of the metadata with each other and with the files below the root, both ways, and puts right on
    /// request what is wrong. Content is not read; that is what [`Engine::scrub`] is for. Takes the calling thread until the
    /// end, so it is called on one of its own; pulls and pushes go on beside it.
    ///
    /// `progress` is called some hundred times; a break ends it. What was put right until then is.
    ///
    /// # Errors
    /// It has not begun, or not come to its end.
    pub fn check(
        &self,
        options: &CheckOptions,
        progress: &dyn Fn(Progress) -> ControlFlow<()>,
    ) -> Result<CheckReport, CheckError> {
        let shared = self.shared();
        let _turn = Turn::take(&shared.integrity.check).ok_or(CheckError::Running)?;
        let began_at_ms = shared.environment.clock.now().0;
        let mut report = CheckReport { began_at_ms, repair: options.repair, ..CheckReport::default() };
        let check = Check { shared, options, progress };
        let mut remedies = check.round(&mut report)?;
        report.left = report.faults();
        for _ in 0..ROUNDS_MAX {
            if !options.repair || remedies.is_empty() {
                break;
            }
            check.put_right(remedies, &mut report)?;
            let mut again = CheckReport::default();
            remedies = check.round(&mut again)?;
            report.left = again.faults();
            report.left_examples = again.examples();
        }
        report.ended_at_ms = shared.environment.clock.now().0;
        Ok(report)
    }
}

/// Makes a directory below the root, with those that it is in, so that it is there after a power loss, too.
fn make_directory(root: &Path, name: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(root.join(name))?;
    // The last of them is the root itself.
    for parent in name.ancestors().skip(1) {
        std::fs::File::open(root.join(parent))?.sync_all()?;
    }
    Ok(())
}

struct Check<'c> {
    shared: &'c Shared,
    options: &'c CheckOptions,
    progress: &'c dyn Fn(Progress) -> ControlFlow<()>,
}

impl Check<'_> {
    /// Looks at everything once; what is to be done.
    fn round(&self, report: &mut CheckReport) -> Result<Vec<Remedy>, CheckError> {
        let mut remedies = Vec::new();
        {
            let snapshot = self.shared.metadata.snapshot()?;
            let statistics = snapshot.statistics();
            // Two rows of each kind, and as many references.
            let total =
                2 * (statistics.tags + statistics.manifests + statistics.links) + 2 * statistics.blobs;
            let rows =
                |done: u64| (self.progress)(Progress { phase: Phase::Rows, done: done.min(total), total });
            let mut found = |finding: Finding| {
                if self.options.repair && remedies.len() < REPAIRS_MAX {
                    remedies.extend(finding.repair.map(Remedy::Row));
                }
                report.add(finding.kind, finding.text);
            };
            let counted = snapshot.check(&mut found, &rows)?;
            report.examined.repositories = counted.repositories;
            report.examined.tags = counted.tags;
            report.examined.manifests = counted.manifests;
            report.examined.links = counted.links;
            report.examined.contents = counted.blobs;
        }
        let mut files = Files { check: self, report, remedies: &mut remedies };
        files.look()?;
        // First the counters: what is put right later changes them.
        remedies.sort_by_key(|remedy| !matches!(remedy, Remedy::Row(Repair::Counters(..))));
        Ok(remedies)
    }

    fn put_right(&self, remedies: Vec<Remedy>, report: &mut CheckReport) -> Result<(), CheckError> {
        let total = remedies.len() as u64;
        let mut done = 0;
        let mut remedies = remedies.into_iter().peekable();
        while remedies.peek().is_some() {
            let batch: Vec<Remedy> = remedies.by_ref().take(REPAIR_BATCH).collect();
            done += batch.len() as u64;
            let (mut rows, mut strays) = (Vec::new(), Vec::new());
            for remedy in batch {
                match remedy {
                    Remedy::Row(repair) => rows.push(repair),
                    Remedy::Stray(stray) => strays.push(stray),
                    Remedy::MakeDirectory(name) => {
                        match make_directory(&self.shared.options.root, Path::new(&name)) {
                            Ok(()) => report.repaired += 1,
                            Err(error) => report.error(format!("cannot make the directory {name}: {error}")),
                        }
                    }
                }
            }
            self.repair_rows(rows, report)?;
            strays::remove(self.shared, strays, report)?;
            if (self.progress)(Progress { phase: Phase::Repair, done, total }).is_break() {
                return Err(CheckError::Stopped);
            }
        }
        Ok(())
    }

    fn repair_rows(&self, rows: Vec<Repair>, report: &mut CheckReport) -> Result<(), CheckError> {
        let now = self.shared.environment.clock.now();
        // Each by itself: a row that cannot be read keeps none of the others from being put right.
        for repair in rows {
            let of_file = match &repair {
                Repair::File(digest, record, _) => Some((*digest, record.location)),
                _ => None,
            };
            let answer =
                self.shared.metadata.write_blocking(move |transaction| transaction.repair(&repair, now));
            let is_repaired = match answer {
                Err(error @ MetadataError::Row { .. }) => {
                    report.error(format!("something was left as it is: {error}"));
                    continue;
                }
                answer => answer?,
            };
            report.repaired += u64::from(is_repaired);
            if let Some((digest, location)) = of_file.filter(|_| is_repaired) {
                let quarantine = Quarantine::new(&self.shared.options.root);
                let kept = quarantine.take(&digest, location).and_then(|_| quarantine.tidy(now));
                if let Err(error) = kept {
                    report.error(format!("cannot keep the damaged file of {digest} in quarantine: {error}"));
                }
            }
        }
        Ok(())
    }

    fn directory(&self, done: u64, total: u64) -> Result<(), CheckError> {
        match (self.progress)(Progress { phase: Phase::Files, done, total }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(CheckError::Stopped),
        }
    }
}
