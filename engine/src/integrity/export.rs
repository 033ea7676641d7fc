//! The metadata in one file, for the day on which it is gone.

use std::fs::File;
use std::io::{self, BufWriter};
use std::ops::ControlFlow;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::pace::Pace;
use super::progress::{Phase, Progress};
use super::turn::Turn;
use crate::engine::Engine;
use crate::layout;
use crate::metadata::{MetadataError, Unwritten};

/// How much is written in a second where nothing else is asked for: 32 MiB.
pub const EXPORT_RATE_DEFAULT: u64 = 32 << 20;

/// What is written at once.
const BUFFER_SIZE: usize = 1 << 20;

/// Why there is no new export. The one from before is as it was.
#[derive(Debug, thiserror::Error)]
pub enum ExportFailure {
    /// There is one at a time.
    #[error("another export is being written; wait for its end")]
    Running,
    /// Whoever was told of the progress has ended it.
    #[error("the export was stopped; the one from before is as it was")]
    Stopped,
    /// The metadata cannot be read.
    #[error("the metadata store failed: {0}; the export from before is as it was")]
    Metadata(#[from] MetadataError),
    /// The file cannot be written.
    #[error("cannot write the export: {0}; the one from before is as it was")]
    Disk(#[from] io::Error),
}

impl From<Unwritten> for ExportFailure {
    fn from(error: Unwritten) -> Self {
        match error {
            Unwritten::Stopped => Self::Stopped,
            Unwritten::Metadata(error) => Self::Metadata(error),
            Unwritten::Io(error) => Self::Disk(error),
        }
    }
}

/// An export that was written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExportReport {
    /// Where it is.
    pub path: String,
    /// When its state was: milliseconds since the Unix epoch, UTC.
    pub made_at_ms: u64,
    /// The number of the last change that is in it.
    pub sequence: u64,
    /// Rows of the metadata.
    pub rows: u64,
    /// Length of the file in bytes.
    pub bytes: u64,
}

impl Engine {
    /// Writes the metadata, as it is now, to the file `metadata.export` below the root, in place of the one from before,
    /// with `bytes_per_second` at most (0: as fast as it goes). Durable when this returns. Takes the calling thread until
    /// the end, and keeps one state of the metadata for as long.
    ///
    /// `progress` is called for each part of some 256 KiB; a break ends it.
    pub fn export(
        &self,
        bytes_per_second: u64,
        progress: &dyn Fn(Progress) -> ControlFlow<()>,
    ) -> Result<ExportReport, ExportFailure> {
        let shared = self.shared();
        let _turn = Turn::take(&shared.integrity.export).ok_or(ExportFailure::Running)?;
        let root = &shared.options.root;
        let unfinished = root.join(layout::EXPORT_UNFINISHED);
        let written = self.write_export(&unfinished, bytes_per_second, progress).and_then(|report| {
            let path = root.join(layout::EXPORT);
            std::fs::rename(&unfinished, &path)?;
            File::open(root)?.sync_all()?;
            Ok(ExportReport { path: path.display().to_string(), ..report })
        });
        if written.is_err() {
            // What is left of it where this fails, too, is written over by the next one.
            let _ = std::fs::remove_file(&unfinished);
        }
        written
    }

    fn write_export(
        &self,
        path: &Path,
        bytes_per_second: u64,
        progress: &dyn Fn(Progress) -> ControlFlow<()>,
    ) -> Result<ExportReport, ExportFailure> {
        let made_at = self.shared().environment.clock.now();
        let snapshot = self.metadata().snapshot()?;
        let of = snapshot.statistics();
        // Two rows for each, a row of content for most, and some more; it is a guess.
        let total = 3 * (of.blobs + of.links + of.manifests + of.tags + of.repositories);
        let mut file = BufWriter::with_capacity(BUFFER_SIZE, File::create(path)?);
        let (mut pace, mut done) = (Pace::new(bytes_per_second), 0);
        let mut written = |rows: u64, bytes: u64| {
            done += rows;
            let told = || progress(Progress { phase: Phase::Export, done: done.min(total), total });
            pace.keep(bytes, &told)
        };
        let rows = snapshot.export(made_at, &mut file, &mut written)?;
        let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        let bytes = file.metadata()?.len();
        Ok(ExportReport {
            path: path.display().to_string(),
            made_at_ms: made_at.0,
            sequence: snapshot.sequence(),
            rows,
            bytes,
        })
    }
}
