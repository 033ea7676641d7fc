use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use arc_swap::ArcSwapOption;
use tokio::sync::{oneshot, watch};

use super::committer::{Committer, Request};
use super::snapshot::Snapshot;
use super::storage::{FileStorage, Storage};
use super::transaction::Transaction;
use super::{MetadataError, committer};

/// Content of at most this many bytes is better stored in the store than in a file of its own.
///
/// Measured (ext4, 8 clients, 100,000 blobs stored before): inline 2 KiB 2,000–2,500 blobs/s and 0.2 ms of CPU each,
/// in a file 1,150 blobs/s and 0.5 ms; the file's own flushes cost more than the larger commit up to 256 KiB. What
/// limits the size is the store's growth: a value lies in a leaf of a power of two of pages, and each commit writes
/// the state of the page allocator, 2 bits a page and more, so that 1 GiB more of store makes every later commit some
/// 100 KiB heavier, and with 6 GiB in the store only half as many images a second are taken. 4,000 bytes and a key
/// are what fits one page of 4 KiB; configs, manifests and the smallest layers are below it.
pub const INLINE_SIZE_MAX: usize = 4_000;

/// Memory for pages of the store, in bytes, where nothing else is asked for.
///
/// Measured with 1,000,000 blobs: pushes are as fast with 4 MiB as with 32 MiB, as the kernel keeps the file too; what a
/// larger cache saves is the copy of a page on a look-up. The process holds this much and some 4 MiB more.
pub const CACHE_SIZE_DEFAULT: usize = 8 << 20;

/// Changes of tags that are kept for [`Snapshot::tag_changes_since`].
pub const TAG_CHANGES_MAX: u64 = 100_000;

/// Length of the log, in bytes, where nothing else is asked for.
pub const LOG_SIZE_DEFAULT: usize = 16 << 20;

/// Requests that are committed together at most; bounds the time that one commit takes.
pub const BATCH_MAX: usize = 256;

/// How a store is opened.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Memory for pages of the store, in bytes.
    pub cache_size: usize,
    /// Changes of tags that are kept.
    pub tag_changes_max: u64,
    /// Length of the log, in bytes: how much is written between two checkpoints, and read again after a crash.
    pub log_size: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { cache_size: CACHE_SIZE_DEFAULT, tag_changes_max: TAG_CHANGES_MAX, log_size: LOG_SIZE_DEFAULT }
    }
}

/// The metadata store. Clones are handles of the same store, which is closed when the last of them is dropped.
#[derive(Clone)]
pub struct Metadata {
    // Declared first, and so dropped first: the committer ends when nobody can ask it any more.
    requests: std::sync::mpsc::Sender<Box<dyn Request>>,
    shared: Arc<Shared>,
    _closing: Arc<Closing>,
}

/// What the committer shows to readers.
pub(super) struct Shared {
    /// The last committed state; `None` while the storage cannot be opened.
    pub(super) snapshot: ArcSwapOption<Snapshot>,
    pub(super) sequence: AtomicU64,
    pub(super) watch: watch::Sender<u64>,
}

/// Waits for the committer to have closed the store, when the last handle goes.
struct Closing(Option<JoinHandle<()>>);

impl Drop for Closing {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take()
            && thread.thread().id() != std::thread::current().id()
        {
            // A panic there has been reported by the panic hook.
            let _ = thread.join();
        }
    }
}

impl Metadata {
    /// Opens the store on `storage`, and creates it where there is none. Takes milliseconds whatever the size, also
    /// after a crash.
    pub fn open(storage: Arc<dyn Storage>, options: Options) -> Result<Self, MetadataError> {
        let shared = Arc::new(Shared {
            snapshot: ArcSwapOption::empty(),
            sequence: AtomicU64::new(0),
            watch: watch::Sender::new(0),
        });
        let committer = Committer::open(storage, options, shared.clone())?;
        let (requests, queue) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new()
            .name(committer::THREAD_NAME.into())
            .spawn(move || committer.run(&queue))?;
        Ok(Self { requests, shared, _closing: Arc::new(Closing(Some(thread))) })
    }

    /// Opens the store in the file at `path`, whose directory exists, with `cache_size` bytes of memory for its pages.
    ///
    /// # Errors
    /// The file cannot be opened or read, or is no store.
    pub fn open_file(path: impl Into<PathBuf>, cache_size: usize) -> Result<Self, MetadataError> {
        Self::open(Arc::new(FileStorage::new(path)), Options { cache_size, ..Options::default() })
    }

    /// Runs `work` in a write transaction, and returns what it returned once that is durable.
    ///
    /// The request is queued by the call itself, in the order of the calls; dropping the future does not take it
    /// back. It is committed together with what other callers have queued meanwhile, so `work` must be short and
    /// must not block, and it checks first and writes after: what it has written when it decides to refuse would be
    /// committed. Refusals are values of `T`.
    ///
    /// # Errors
    /// An error of the storage, in whichever request it shows, drops the whole batch: nothing of it is visible
    /// afterwards, unless the storage failed in the last step of the commit, when all of it may be. The store is then
    /// opened again for the requests that follow. A row that cannot be read fails only the request that read it,
    /// where that one has not written anything yet.
    pub fn write<T, F>(&self, work: F) -> impl Future<Output = Result<T, MetadataError>> + Send + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce(&mut Transaction<'_>) -> Result<T, MetadataError> + Send + 'static,
    {
        let answer = self.queue(work);
        async move { answer.await.unwrap_or(Err(MetadataError::Unavailable)) }
    }

    /// [`Metadata::write`] for a thread that may wait. Must not be called within an asynchronous task of tokio.
    ///
    /// # Errors
    /// Those of [`Metadata::write`].
    pub fn write_blocking<T, F>(&self, work: F) -> Result<T, MetadataError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Transaction<'_>) -> Result<T, MetadataError> + Send + 'static,
    {
        self.queue(work).blocking_recv().unwrap_or(Err(MetadataError::Unavailable))
    }

    fn queue<T, F>(&self, work: F) -> oneshot::Receiver<Result<T, MetadataError>>
    where
        T: Send + 'static,
        F: FnOnce(&mut Transaction<'_>) -> Result<T, MetadataError> + Send + 'static,
    {
        let (request, answer) = committer::request(work);
        // Where the committer is gone, the request is dropped with its sender, and that is the answer.
        let _ = self.requests.send(request);
        answer
    }

    /// The last committed state: what any [`Metadata::write`] that has returned has written is in it.
    ///
    /// Costs an atomic operation or two. Take it for one look-up after another and drop it; one that is kept holds the
    /// pages of its state in the file, which grows meanwhile.
    ///
    /// # Errors
    /// The store is closed, or its storage failed and could not be opened again yet.
    pub fn snapshot(&self) -> Result<Snapshot, MetadataError> {
        self.published().ok_or(MetadataError::Unavailable)
    }

    pub(super) fn published(&self) -> Option<Snapshot> {
        self.shared.snapshot.load().as_deref().cloned()
    }

    /// Number of the last committed change. Grows with every change, over restarts too.
    pub fn sequence(&self) -> u64 {
        self.shared.sequence.load(Ordering::Acquire)
    }

    /// The number of the last committed change, for somebody who waits for the next.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.shared.watch.subscribe()
    }
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metadata").field("sequence", &self.sequence()).finish_non_exhaustive()
    }
}
