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
/// Measured (ext4, 8 clients, images of three layers, a config and a manifest, 100,000 blobs stored before, a log of
/// 16 MiB, one run each on a busy machine, so trust the order of magnitude): layers inline of 2, 4, 8, 16 and 32 KiB give
/// 1,000, 410, 400, 520 and 420 images/s, at 0.12, 0.16, 0.16, 0.17 and 0.21 ms of CPU a commit; a file each gave, at
/// an earlier time, 1,150 blobs/s at 0.5 ms, as it has flushes of its own. So larger content inline may well be faster.
/// It costs space: a value lies in a leaf of a power of two of pages (written twice, in the log and in the table), and
/// what a deletion frees stays in the store, while a file goes back to the volume.
/// 4,000 bytes and a key are what fits one page of 4 KiB; configs, manifests and the smallest layers are below it.
pub const INLINE_SIZE_MAX: usize = 4_000;

/// Memory for pages of the store, in bytes, where nothing else is asked for.
///
/// Measured with 1,000,000 blobs: pushes are as fast with 4 MiB as with 32 MiB, as the kernel keeps the file too; what a
/// larger cache saves is the copy of a page on a look-up. The process holds this much and some 4 MiB more.
pub const CACHE_SIZE_DEFAULT: usize = 8 << 20;

/// Changes of tags that are kept for [`Snapshot::tag_changes_since`].
pub const TAG_CHANGES_MAX: u64 = 100_000;

/// Length of the log, in bytes, where nothing else is asked for.
///
/// Measured with 1,000,000 blobs: 4, 16 and 64 MiB take 630–890, 690–840 and 790–840 images/s, no difference beside the
/// noise of a busy machine. A longer log makes longer checkpoints, for which all pushes wait (slowest image 150, 400 and
/// up to 830 ms), and longer replays: opening after a kill took 0.3–1.9 s with 16 MiB.
pub const LOG_SIZE_DEFAULT: usize = 4 << 20;

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
    closing: Arc<Closing>,
}

/// What the committer shows to readers.
pub(super) struct Shared {
    /// The last committed state; `None` while the storage cannot be opened.
    pub(super) snapshot: ArcSwapOption<Snapshot>,
    pub(super) sequence: AtomicU64,
    pub(super) watch: watch::Sender<u64>,
}

/// Waits for the committer to have closed the store, when the last handle goes.
struct Closing(Option<JoinHandle<Result<(), MetadataError>>>);

impl Closing {
    /// Whether the store is complete without its log.
    fn wait(&mut self) -> Result<(), MetadataError> {
        match self.0.take() {
            Some(thread) if thread.thread().id() != std::thread::current().id() => {
                // A panic there has been reported by the panic hook.
                thread.join().unwrap_or(Err(MetadataError::Panicked))
            }
            _ => Err(MetadataError::Unavailable),
        }
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        // Where it is not, the committer has said so, and the log has what is missing.
        let _ = self.wait();
    }
}

impl Metadata {
    /// Opens the store on `storage`, and creates it where there is none. Takes milliseconds whatever the size, and after
    /// a crash as long as it takes to write again what the log has, which its length bounds.
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
        Ok(Self { requests, shared, closing: Arc::new(Closing(Some(thread))) })
    }

    /// Opens the store whose tables are in the file at `path` and whose log is beside it ([`FileStorage::new`]), with `cache_size` bytes of memory for its pages.
    ///
    /// # Errors
    /// The file cannot be opened or read, or is no store.
    pub fn open_file(path: impl Into<PathBuf>, cache_size: usize) -> Result<Self, MetadataError> {
        Self::open(Arc::new(FileStorage::new(path)), Options { cache_size, ..Options::default() })
    }

    /// Closes the store, and waits until it is complete without its log.
    ///
    /// # Errors
    /// It may not be: the last checkpoint failed, or there is another handle.
    pub(crate) fn close(self) -> Result<(), MetadataError> {
        let Self { requests, shared: _, closing } = self;
        // The committer ends when nobody can ask it any more.
        drop(requests);
        Arc::into_inner(closing).map_or(Err(MetadataError::Unavailable), |mut closing| closing.wait())
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
    /// afterwards, unless redb failed after the log had taken it, or in the last step of a checkpoint, when all of it may
    /// be. The store is then opened again for the requests that follow, unless only the log had failed. A row that cannot be read fails only the request that read it,
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
