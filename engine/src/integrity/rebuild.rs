//! Making the metadata anew where it is gone: from its last export and from the files of the blobs.
//!
//! The new store is made beside the old one and takes its place once it is complete, so that a rebuild which is
//! interrupted has done nothing.

use std::fs::File;
use std::io::{self, BufReader, Read as _};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::check::FINDING_EXAMPLES_MAX;
use super::progress::{Phase, Progress};
use crate::collection::Amount;
use crate::environment::Environment;
use crate::layout::{self, RootError};
use crate::metadata::{
    BlobCommit, BlobLocation, BlobRecord, Damage, ExportError, ExportReader, FileId, FileStorage, Metadata,
    MetadataError, Options, Timestamp, UploadContent, readable,
};
use crate::oci::{Algorithm, ContentHasher, Digest};

/// The new store while it is made, and its log.
const UNFINISHED: &str = "metadata-rebuilt.redb";
const UNFINISHED_LOG: &str = "metadata-rebuilt.log";

/// What is read of a file at once.
const BUFFER_SIZE: usize = 1 << 20;

/// What can be set of a rebuild.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RebuildOptions {
    /// Whether it takes place although there is metadata; that is kept under another name.
    pub replace: bool,
    /// Whether it takes place although there is no export: then all that is known of repositories, manifests and tags is
    /// lost.
    pub without_export: bool,
    /// Memory for pages of the new store, in bytes.
    pub cache_bytes: usize,
}

/// Why nothing was rebuilt. What was there is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// The root.
    #[error(transparent)]
    Root(#[from] RootError),
    /// There is metadata.
    #[error("{0} is there; make sure that it is of no use, and ask for it to be replaced")]
    Exists(String),
    /// There is no export.
    #[error(
        "there is no export {0}; put one there, or ask for a rebuild without one: repositories, manifests and tags are lost then"
    )]
    NoExport(String),
    /// The export cannot be used.
    #[error("cannot use the export {path}: {source}")]
    Export {
        /// Its file.
        path: String,
        /// What is wrong with it.
        source: ExportError,
    },
    /// The new store.
    #[error("cannot write the new metadata: {0}")]
    Metadata(#[from] MetadataError),
    /// The files.
    #[error("cannot look at the files below the root: {0}")]
    Disk(#[from] io::Error),
    /// Whoever was told of the progress has ended it.
    #[error("the rebuild was stopped")]
    Stopped,
}

/// What was rebuilt.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RebuildReport {
    /// When the export was made: milliseconds since the Unix epoch, UTC. What was pushed, tagged or deleted since is not
    /// known. `None`: there was none.
    pub export_made_at_ms: Option<u64>,
    /// The number of the last change that it knows.
    pub export_sequence: u64,
    /// Rows that it has.
    pub rows: u64,
    /// Content that the export knows and whose file is gone, or not whole: it counts as damaged until it is pushed again.
    pub missing: Amount,
    /// Content whose file the export does not know, and which is whole: it is stored, and nothing is linked to it.
    pub adopted: Amount,
    /// Files that the export does not know and that are not what their names say; they are left where they are.
    pub strange: u64,
    /// What they are called: at most [`FINDING_EXAMPLES_MAX`].
    pub strange_names: Vec<String>,
    /// What was kept of the metadata that was there, where there was any.
    pub replaced: Vec<String>,
}

/// Makes the metadata of a stopped registry anew, from the file `metadata.export` below its root and from the files of the
/// blobs. Files that the export does not know are read and hashed, so this may take a while.
///
/// `progress` is called for each part and each file; a break ends it, and nothing was done then.
pub fn rebuild(
    root: &Path,
    options: &RebuildOptions,
    environment: &Environment,
    progress: &dyn Fn(Progress) -> ControlFlow<()>,
) -> Result<RebuildReport, RebuildError> {
    let locked = layout::prepare(root)?;
    let now = environment.clock.now();
    let metadata = root.join(layout::METADATA);
    if metadata.exists() && !options.replace {
        return Err(RebuildError::Exists(metadata.display().to_string()));
    }
    let export = root.join(layout::EXPORT);
    if !export.exists() && !options.without_export {
        return Err(RebuildError::NoExport(export.display().to_string()));
    }
    let rebuild = Rebuild { root, now, progress };
    let mut report = RebuildReport::default();
    remove_unfinished(root)?;
    {
        let settings = Options { cache_size: options.cache_bytes, ..Options::default() };
        let store = Metadata::open(Arc::new(FileStorage::new(root.join(UNFINISHED))), settings)?;
        let filled = rebuild.fill(&store, &export, &mut report);
        // It takes its place without its log, so it has to be complete.
        let filled = filled.and(store.close().map_err(RebuildError::from));
        if filled.is_err() {
            remove_unfinished(root)?;
        }
        filled?;
    }
    rebuild.put_in_place(&mut report)?;
    drop(locked);
    Ok(report)
}

fn remove_unfinished(root: &Path) -> io::Result<()> {
    for name in [UNFINISHED, UNFINISHED_LOG] {
        match std::fs::remove_file(root.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

struct Rebuild<'r> {
    root: &'r Path,
    now: Timestamp,
    progress: &'r dyn Fn(Progress) -> ControlFlow<()>,
}

impl Rebuild<'_> {
    fn fill(&self, store: &Metadata, export: &Path, report: &mut RebuildReport) -> Result<(), RebuildError> {
        if export.exists() {
            let failed = |source| RebuildError::Export { path: export.display().to_string(), source };
            self.restore(store, export, report, &failed)?;
        }
        store.write_blocking(|transaction| {
            transaction.end_restore();
            Ok(())
        })?;
        let total = Algorithm::ALL.len() as u64 * 256;
        for (algorithm, before) in Algorithm::ALL.into_iter().zip([0, 256]) {
            for first in 0..=u8::MAX {
                self.files(store, algorithm, first, report)?;
                self.told(Phase::Adopt, before + u64::from(first) + 1, total)?;
            }
        }
        self.uploads(store)
    }

    /// Forgets the upload sessions that have ended since, or have lost what they had. What cannot be read stays.
    fn uploads(&self, store: &Metadata) -> Result<(), RebuildError> {
        for upload in store.snapshot()?.uploads()? {
            let Some((id, record)) = warned(upload)? else { continue };
            let UploadContent::File(file) = record.content else { continue };
            let length = std::fs::metadata(self.root.join(layout::upload(file))).map(|status| status.len());
            if length.is_ok_and(|length| length >= record.size) {
                continue;
            }
            store.write_blocking(move |transaction| transaction.remove_upload(id))?;
        }
        Ok(())
    }

    fn told(&self, phase: Phase, done: u64, total: u64) -> Result<(), RebuildError> {
        match (self.progress)(Progress { phase, done: done.min(total), total }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(RebuildError::Stopped),
        }
    }

    fn restore(
        &self,
        store: &Metadata,
        export: &Path,
        report: &mut RebuildReport,
        failed: &dyn Fn(ExportError) -> RebuildError,
    ) -> Result<(), RebuildError> {
        let file = File::open(export)?;
        let (total, mut done) = (file.metadata()?.len(), 0);
        let from = BufReader::with_capacity(BUFFER_SIZE, file);
        let mut reader = ExportReader::new(from).map_err(failed)?;
        report.export_made_at_ms = Some(reader.header().made_at.0);
        report.export_sequence = reader.header().sequence;
        while let Some(rows) = reader.next().map_err(failed)? {
            done += rows.len() as u64;
            store.write_blocking(move |transaction| transaction.restore(&rows))?;
            self.told(Phase::Restore, done, total)?;
        }
        report.rows = reader.total();
        Ok(())
    }

    /// Compares the files of a directory with what the export says.
    fn files(
        &self,
        store: &Metadata,
        algorithm: Algorithm,
        first: u8,
        report: &mut RebuildReport,
    ) -> Result<(), RebuildError> {
        let directory = layout::blob_directory_of(algorithm, first);
        for entry in std::fs::read_dir(self.root.join(&directory))? {
            let entry = entry?;
            let name = entry.file_name();
            let known = name.to_str().and_then(|name| layout::parse_blob(algorithm, name));
            match known.filter(|(digest, _)| digest.value()[0] == first && entry.path().is_file()) {
                Some((digest, file)) => self.file(store, &digest, file, &entry.path(), report)?,
                None => strange(&entry.path(), report),
            }
        }
        let mut rows = Vec::new();
        for row in store.snapshot()?.stored_blobs_of(algorithm, first)? {
            rows.extend(warned(row)?);
        }
        for (digest, record) in rows {
            let BlobLocation::File(file) = record.location else { continue };
            let path = self.root.join(layout::blob(&digest, file));
            if let Some(damage) = damage_of(&path, &record)? {
                let now = self.now;
                store
                    .write_blocking(move |transaction| transaction.condemn(&digest, &record, damage, now))?;
                report.missing.add(record.size);
            }
        }
        Ok(())
    }

    /// Takes a file up that the export does not know, where it is whole.
    fn file(
        &self,
        store: &Metadata,
        digest: &Digest,
        file: FileId,
        path: &Path,
        report: &mut RebuildReport,
    ) -> Result<(), RebuildError> {
        // What cannot be read may know the file.
        let Some(stored) = readable(store.snapshot()?.stored_blob(digest))? else { return Ok(()) };
        let replaced = match stored {
            Some(BlobRecord { location: BlobLocation::File(known), .. }) if known == file => return Ok(()),
            // The one that the export knows is gone where this one took its place.
            Some(record @ BlobRecord { location: BlobLocation::File(known), .. }) => {
                let path = self.root.join(layout::blob(digest, known));
                if damage_of(&path, &record)?.is_none() {
                    return Ok(());
                }
                Some(known)
            }
            Some(_) => return Ok(()),
            None => None,
        };
        let size = match hash(path, digest.algorithm()) {
            Ok((size, found)) if found == *digest => size,
            Ok(_) => {
                strange(path, report);
                return Ok(());
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a file cannot be read, and is left where it is");
                strange(path, report);
                return Ok(());
            }
        };
        let (digest, now) = (*digest, self.now);
        let is_adopted = store.write_blocking(move |transaction| match replaced {
            Some(known) => transaction.replace_file(&digest, known, file),
            None => Ok(transaction.adopt(&digest, size, file, now)? == BlobCommit::Stored),
        })?;
        if is_adopted {
            report.adopted.add(size);
        }
        Ok(())
    }

    /// Gives the new store its name, and keeps what was there under another one.
    fn put_in_place(&self, report: &mut RebuildReport) -> Result<(), RebuildError> {
        let log = Path::new(layout::METADATA).with_extension("log");
        let kept =
            |name: &Path| -> PathBuf { self.root.join(format!("{}.before-{}", name.display(), self.now.0)) };
        // The old log first: the new store does not go on from it.
        let to = kept(&log);
        if std::fs::rename(self.root.join(&log), &to).map(|()| true).or_else(missing)? {
            report.replaced.push(to.display().to_string());
        }
        let metadata = self.root.join(layout::METADATA);
        let to = kept(Path::new(layout::METADATA));
        // By a second name, so that there is never none: an empty store would be made then.
        if std::fs::hard_link(&metadata, &to).map(|()| true).or_else(missing)? {
            report.replaced.push(to.display().to_string());
        }
        std::fs::rename(self.root.join(UNFINISHED), &metadata)?;
        File::open(self.root)?.sync_all()?;
        remove_unfinished(self.root)?;
        Ok(())
    }
}

/// What a row says; one that cannot be read keeps none of the others from being of use.
fn warned<T>(row: Result<T, MetadataError>) -> Result<Option<T>, MetadataError> {
    if let Err(error @ MetadataError::Row { .. }) = &row {
        tracing::warn!(%error, "a row of the export cannot be read, and stays as it is");
    }
    readable(row)
}

/// That something is not there is no failure.
fn missing(error: io::Error) -> io::Result<bool> {
    if error.kind() == io::ErrorKind::NotFound { Ok(false) } else { Err(error) }
}

fn strange(path: &Path, report: &mut RebuildReport) {
    report.strange += 1;
    if report.strange_names.len() < FINDING_EXAMPLES_MAX {
        report.strange_names.push(path.display().to_string());
    }
}

/// What is wrong with the file of a blob, as far as it can be told without reading it.
fn damage_of(path: &Path, record: &BlobRecord) -> io::Result<Option<Damage>> {
    match std::fs::metadata(path) {
        Ok(status) if status.is_file() && status.len() == record.size => Ok(None),
        Ok(_) => Ok(Some(Damage::Length)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Some(Damage::Missing)),
        Err(error) => Err(error),
    }
}

/// Length and digest of what a file has.
fn hash(path: &Path, algorithm: Algorithm) -> io::Result<(u64, Digest)> {
    let mut file = File::open(path)?;
    let mut hasher = ContentHasher::new(algorithm);
    let mut buffer = vec![0; BUFFER_SIZE];
    let mut size = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((size, hasher.finish())),
            count => {
                hasher.update(&buffer[..count]);
                size += count as u64;
            }
        }
    }
}
