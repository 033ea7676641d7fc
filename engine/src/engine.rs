//! The engine as the whole process has it: the root, the metadata, the sessions.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::buffer::BufferPool;
use crate::disk::LocalVolume;
use crate::engine_core::Core;
use crate::environment::Environment;
use crate::error::EngineError;
use crate::layout::{self, RootError};
use crate::metadata::{
    self, FileStorage, Metadata, MetadataError, Timestamp, Transaction, UploadContent, UploadId,
};
use crate::uploads::Sessions;

/// How long a session that nothing was written to stays out of the metadata.
const FRESH_MS: u64 = 1_000;

/// Sessions that are removed in one transaction, when they have expired.
const EXPIRE_BATCH: usize = 256;

/// What can be set of an engine.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// The directory that holds everything.
    pub root: PathBuf,
    /// Whether large blobs are written past the page cache, where the filesystem can.
    pub direct_writes: bool,
    /// Bytes of the volume that uploads leave free.
    pub reserve_bytes: u64,
    /// Bytes of metadata that are kept in memory.
    pub cache_bytes: usize,
    /// Bytes of large buffers that each thread may have in use.
    pub buffer_bytes: usize,
    /// How long an upload session lives without progress.
    pub upload_expiry: Duration,
}

/// Why an engine does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The root.
    #[error(transparent)]
    Root(#[from] RootError),
    /// The metadata.
    #[error("cannot open the metadata in {path}: {source}")]
    Metadata {
        /// Its file.
        path: String,
        /// What is wrong.
        source: MetadataError,
    },
}

/// The engine. Each data-plane thread gets a [`Core`] from it.
#[derive(Clone)]
pub struct Engine(Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) options: EngineOptions,
    pub(crate) environment: Environment,
    pub(crate) volume: LocalVolume,
    pub(crate) metadata: Metadata,
    pub(crate) sessions: Sessions,
    /// Closed last: as long as it is open, no other process uses the root.
    _lock: std::fs::File,
}

impl Engine {
    /// Opens the store below the options' root, making it where there is none. What this takes does not grow with
    /// the number of blobs.
    pub fn open(options: EngineOptions, environment: Environment) -> Result<Self, OpenError> {
        let root = layout::prepare(&options.root)?;
        let root_path = || options.root.display().to_string();
        let volume = LocalVolume::open(root.directory, layout::PROBE, options.direct_writes)
            .map_err(|source| RootError::Io { path: root_path(), source })?;
        let path = options.root.join(layout::METADATA);
        let settings = metadata::Options { cache_size: options.cache_bytes, ..Default::default() };
        let metadata = Metadata::open(Arc::new(FileStorage::new(&path)), settings)
            .map_err(|source| OpenError::Metadata { path: path.display().to_string(), source })?;
        let shared = Shared {
            options,
            environment,
            volume,
            metadata,
            sessions: Sessions::default(),
            _lock: root.lock,
        };
        let engine = Self(Arc::new(shared));
        engine.remove_stray_uploads()?;
        Ok(engine)
    }

    /// The metadata.
    pub fn metadata(&self) -> &Metadata {
        &self.0.metadata
    }

    /// The engine for the calling thread; within its runtime.
    pub fn core(&self) -> std::io::Result<Core> {
        let disk = self.0.volume.on_this_thread()?;
        Ok(Core::new(self.0.clone(), disk, BufferPool::new(self.0.options.buffer_bytes)))
    }

    /// Puts every upload session into the metadata: the last thing before the process ends. Waits.
    pub fn save_uploads(&self) -> Result<(), EngineError> {
        match self.0.fresh_uploads(u64::MAX) {
            Some((ids, save)) => {
                self.0.metadata.write_blocking(save)?;
                self.0.forget_fresh(ids);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Removes the files of uploads that no session has: requests that were cut off by the end of the process.
    /// Takes as long as there are unfinished uploads.
    fn remove_stray_uploads(&self) -> Result<(), OpenError> {
        let directory = self.0.options.root.join(layout::UPLOADS);
        let at = |source| RootError::Io { path: directory.display().to_string(), source };
        let snapshot = self.0.metadata.snapshot();
        let uploads = snapshot.and_then(|snapshot| snapshot.uploads()?.collect::<Result<Vec<_>, _>>());
        let uploads =
            uploads.map_err(|source| OpenError::Metadata { path: layout::METADATA.into(), source })?;
        let known: HashSet<String> = uploads
            .into_iter()
            .filter_map(|(_, record)| match record.content {
                UploadContent::File(file) => Some(file.to_string()),
                UploadContent::Inline(_) => None,
            })
            .collect();
        for entry in std::fs::read_dir(&directory).map_err(at)? {
            let entry = entry.map_err(at)?;
            if !entry.file_name().to_str().is_some_and(|name| known.contains(name))
                && let Err(error) = std::fs::remove_file(entry.path())
            {
                tracing::warn!(path = %entry.path().display(), %error, "cannot remove what is no upload");
            }
        }
        Ok(())
    }
}

impl Shared {
    /// The sessions that were made before `before_ms` and are not in the metadata, and how to put them there.
    #[expect(clippy::type_complexity, reason = "the second half is a closure")]
    fn fresh_uploads(
        self: &Arc<Self>,
        before_ms: u64,
    ) -> Option<(Vec<UploadId>, impl FnOnce(&mut Transaction<'_>) -> Result<(), MetadataError> + Send + use<>)>
    {
        let fresh = self.sessions.fresh_since_before(Timestamp(before_ms));
        let ids: Vec<UploadId> = fresh.iter().map(|(id, _)| *id).collect();
        let shared = self.clone();
        let save = move |transaction: &mut Transaction<'_>| {
            for (id, record) in &fresh {
                // One that was taken meanwhile may have ended: it must not come back.
                if shared.sessions.is_fresh(*id) {
                    transaction.save_upload(*id, record)?;
                }
            }
            Ok(())
        };
        (!ids.is_empty()).then_some((ids, save))
    }

    fn forget_fresh(&self, saved: Vec<UploadId>) {
        saved.into_iter().for_each(|id| self.sessions.forget_fresh(id));
    }
}

impl Core {
    /// Puts the sessions into the metadata that nothing was written to for a while. Due about once a second, on
    /// one of the threads.
    pub async fn save_waiting_uploads(&self) -> Result<(), EngineError> {
        let before = self.now().0.saturating_sub(FRESH_MS);
        if let Some((ids, save)) = self.shared().fresh_uploads(before) {
            self.metadata().write(save).await?;
            self.shared().forget_fresh(ids);
        }
        Ok(())
    }

    /// Ends the sessions that have made no progress for too long. Due about once a minute, on one of the threads.
    pub async fn expire_uploads(&self) -> Result<(), EngineError> {
        let before = self.now().0.saturating_sub(self.upload_expiry_ms());
        let mut expired = Vec::new();
        for upload in self.metadata().snapshot()?.uploads()? {
            let (id, record) = upload?;
            if record.touched_at.0 < before && !self.sessions().is_busy(id) {
                expired.push((id, record.repository));
            }
            if expired.len() == EXPIRE_BATCH {
                break;
            }
        }
        for (id, repository) in expired {
            // One that a client came back to in the meantime is left alone.
            let Ok(upload) = self.resume_upload(&repository, id) else { continue };
            if upload.touched_at().0 >= before {
                upload.suspend().await?;
                continue;
            }
            tracing::info!(upload = %id, %repository, bytes = upload.size(), "an upload session has expired");
            upload.cancel().await?;
        }
        Ok(())
    }
}
