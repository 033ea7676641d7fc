//! The engine as the whole process has it: the root, the metadata, the sessions.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::buffer::BufferPool;
use crate::collection::{
    CollectionError, CollectionHooks, CollectionOptions, CollectionReport, Leases, MARKS_MAX, ROWS_FIRST,
    Store, to_ms,
};
use crate::disk::LocalVolume;
use crate::engine_core::Core;
use crate::environment::Environment;
use crate::error::EngineError;
use crate::integrity::Turns;
use crate::layout::{self, RootError};
use crate::metadata::{
    self, FileStorage, Metadata, MetadataError, Timestamp, Transaction, UploadId, readable,
};
use crate::oci::RepositoryName;
use crate::quotas::Quotas;
use crate::read_only::ReadOnly;
use crate::runtime;
use crate::uploads::{FilesInUse, Sessions};

/// How long a session that nothing was written to stays out of the metadata.
const FRESH_MS: u64 = 1_000;

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
    /// How much namespaces may have.
    pub quotas: Quotas,
}

/// Why an engine does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The root.
    #[error(transparent)]
    Root(#[from] RootError),
    /// There is content, and no metadata.
    #[error(
        "{0} is missing, and there is content beside it: put it back, or rebuild it from its export; to begin with an empty registry, use another root"
    )]
    MetadataGone(String),
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
    pub(crate) files_in_use: FilesInUse,
    pub(crate) leases: Leases,
    is_collecting: AtomicBool,
    pub(crate) read_only: ReadOnly,
    /// Which of the integrity's tasks are running.
    pub(crate) integrity: Turns,
    /// Closed last: as long as it is open, no other process uses the root.
    _lock: std::fs::File,
}

impl Engine {
    /// Opens the store below the options' root, making it where there is none, and removes what unfinished uploads have
    /// left. What this takes does not grow with the number of blobs.
    pub fn open(options: EngineOptions, environment: Environment) -> Result<Self, OpenError> {
        let engine = Self::assemble(options, environment)?;
        engine.remove_stray_uploads()?;
        Ok(engine)
    }

    /// Opens a store that there is, and removes nothing: for those who look at one that is stopped.
    ///
    /// # Errors
    /// Those of [`Engine::open`]; and there is no store, in which case nothing was made.
    pub fn open_existing(options: EngineOptions, environment: Environment) -> Result<Self, OpenError> {
        layout::look_for_metadata(&options.root)?;
        Self::assemble(options, environment)
    }

    fn assemble(options: EngineOptions, environment: Environment) -> Result<Self, OpenError> {
        let root = layout::prepare(&options.root)?;
        let root_path = || options.root.display().to_string();
        let volume = LocalVolume::open(root.directory, layout::PROBE, options.direct_writes)
            .map_err(|source| RootError::Io { path: root_path(), source })?;
        let path = options.root.join(layout::METADATA);
        let is_gone = || Ok(!path.try_exists()? && layout::has_content(&options.root)?);
        if is_gone().map_err(|source| RootError::Io { path: root_path(), source })? {
            // An empty store would be made, whose first collection removes what nothing names: everything.
            return Err(OpenError::MetadataGone(path.display().to_string()));
        }
        let settings = metadata::Options { cache_size: options.cache_bytes, ..Default::default() };
        let metadata = Metadata::open(Arc::new(FileStorage::new(&path)), settings)
            .map_err(|source| OpenError::Metadata { path: path.display().to_string(), source })?;
        let read_only = ReadOnly::default();
        read_only
            .read(&metadata)
            .map_err(|source| OpenError::Metadata { path: path.display().to_string(), source })?;
        let leases = Leases::new(environment.clock.now());
        let shared = Shared {
            options,
            environment,
            volume,
            metadata,
            sessions: Sessions::default(),
            files_in_use: FilesInUse::default(),
            leases,
            is_collecting: AtomicBool::new(false),
            read_only,
            integrity: Turns::default(),
            _lock: root.lock,
        };
        Ok(Self(Arc::new(shared)))
    }

    pub(crate) fn of(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.0
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

    /// Collects garbage, by the rules of `options`: what no tag leads to, what nothing needs, and what nothing names.
    /// Takes the calling thread until the end, so it is called on one of its own; pulls and pushes go on beside it.
    ///
    /// What it has done is in the report, also where it failed on the way, and is remembered ([`Engine::collections`]) where
    /// it was no dry run.
    ///
    /// # Errors
    /// It has not begun: another one is running, writing could not be paused, or the metadata cannot be read.
    pub fn collect(
        &self,
        options: &CollectionOptions,
        hooks: &dyn CollectionHooks,
    ) -> Result<CollectionReport, CollectionError> {
        self.0.store().collect(options, hooks)
    }

    /// The reports of the last 20 collections, newest first. Dry runs are not remembered.
    pub fn collections(&self) -> Result<Vec<CollectionReport>, MetadataError> {
        let texts = self.0.metadata.snapshot()?.collections()?;
        // One of a later version that cannot be read is left out.
        Ok(texts.iter().rev().filter_map(|text| serde_json::from_str(text).ok()).collect())
    }

    /// Whether a collection is running.
    pub fn is_collecting(&self) -> bool {
        self.0.is_collecting.load(Ordering::Relaxed)
    }

    /// Sets how long content is not collected, at least, after a client was told that it is there ([`Core::lease`]): as
    /// long as a push takes after that. For the same time after the start everything counts as told. Zero: nothing is
    /// leased, for roots that nobody pushes to while collecting.
    pub fn set_lease(&self, duration: Duration) {
        self.0.leases.set_duration(duration);
    }

    /// Removes the files of uploads that no session has: requests that were cut off by the end of the process.
    /// Takes as long as there are unfinished uploads.
    fn remove_stray_uploads(&self) -> Result<(), OpenError> {
        let directory = self.0.options.root.join(layout::UPLOADS);
        let at = |source| RootError::Io { path: directory.display().to_string(), source };
        let files = self.0.metadata.snapshot().and_then(|snapshot| snapshot.files_of_uploads());
        let files = files.map_err(|source| OpenError::Metadata { path: layout::METADATA.into(), source })?;
        let Some(files) = files else {
            // The session that cannot be read may have any of them.
            tracing::warn!(path = %directory.display(), "an upload session cannot be read: no file of uploads is removed");
            return Ok(());
        };
        let known: HashSet<String> = files.iter().map(ToString::to_string).collect();
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
    /// What collection works on.
    fn store(&self) -> Store<'_> {
        Store {
            metadata: &self.metadata,
            leases: &self.leases,
            sessions: &self.sessions,
            files_in_use: &self.files_in_use,
            files: &self.volume,
            clock: &*self.environment.clock,
            upload_expiry_ms: to_ms(self.options.upload_expiry),
            is_collecting: &self.is_collecting,
            marks_max: MARKS_MAX,
            rows_first: ROWS_FIRST,
        }
    }

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

    /// All upload sessions that can be read, and their repositories.
    pub fn uploads(&self) -> Result<BTreeMap<UploadId, RepositoryName>, EngineError> {
        // The memory first: a session is in the metadata before it leaves the memory.
        let mut uploads: BTreeMap<UploadId, RepositoryName> =
            self.sessions().repositories().into_iter().collect();
        for upload in self.metadata().snapshot()?.uploads()? {
            if let Some((id, record)) = readable(upload)? {
                uploads.insert(id, record.repository);
            }
        }
        Ok(uploads)
    }

    /// Ends the sessions that have made no progress for too long, and the leases that are old enough. Due about once a
    /// minute, on one of the threads.
    pub async fn expire_uploads(&self) -> Result<(), EngineError> {
        let shared = self.shared().clone();
        let expire = move || {
            let (store, now) = (shared.store(), shared.environment.clock.now());
            store.rotate_leases(now)?;
            store.expire_uploads(Timestamp(now.0.saturating_sub(store.upload_expiry_ms)), false).map(drop)
        };
        runtime::blocking(expire).await.map_err(EngineError::disk("ending upload sessions"))?
    }
}
