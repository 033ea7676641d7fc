use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use redb::{Database, ReadableDatabase as _, WriteTransaction};
use tokio::sync::oneshot;

use super::rows::StateRow;
use super::snapshot::Snapshot;
use super::storage::{Backend, Storage};
use super::store::{BATCH_MAX, Options, Shared};
use super::tables::{WriteTables, owned_row};
use super::transaction::Transaction;
use super::{MetadataError, keys};

/// Name of the committer's thread; at most 15 bytes are shown.
pub(super) const THREAD_NAME: &str = "metadata";

/// How long nothing can be read at most, after a failure that has passed.
const REOPEN_INTERVAL: Duration = Duration::from_secs(1);

/// Owns the write transactions: runs what callers have queued, commits it at once, and answers.
pub(super) struct Committer {
    storage: Arc<dyn Storage>,
    options: Options,
    shared: Arc<Shared>,
    /// `None` after a failure, until the storage can be opened again.
    database: Option<Database>,
    state: StateRow,
}

impl Committer {
    pub(super) fn open(
        storage: Arc<dyn Storage>,
        options: Options,
        shared: Arc<Shared>,
    ) -> Result<Self, MetadataError> {
        let mut committer = Self { storage, options, shared, database: None, state: StateRow::default() };
        committer.reopen()?;
        Ok(committer)
    }

    /// Serves the requests of `queue` until nobody can send any more.
    pub(super) fn run(mut self, queue: &Receiver<Box<dyn Request>>) {
        let mut batch = Vec::new();
        loop {
            let first = match self.database {
                Some(_) => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
                None => queue.recv_timeout(REOPEN_INTERVAL),
            };
            match first {
                Ok(first) => {
                    batch.push(first);
                    batch.extend(queue.try_iter().take(BATCH_MAX - 1));
                    self.serve(&mut batch);
                }
                Err(RecvTimeoutError::Timeout) => self.try_reopen(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.shared.snapshot.store(None);
    }

    /// Runs the requests, commits them, and answers all of them.
    fn serve(&mut self, batch: &mut Vec<Box<dyn Request>>) {
        let result = self.commit(batch);
        if let Err(error) = &result
            && !error.is_of_one_row()
        {
            tracing::error!(%error, requests = batch.len(), "a metadata commit failed; opening the store again");
            self.try_reopen();
        }
        for request in batch.drain(..) {
            request.answer(result.clone());
        }
    }

    fn commit(&mut self, batch: &mut [Box<dyn Request>]) -> Result<(), MetadataError> {
        if self.database.is_none() {
            self.reopen()?;
        }
        let database = self.database.as_ref().ok_or(MetadataError::Unavailable)?;
        let write = begin_write(database)?;
        let mut transaction =
            Transaction::new(WriteTables::open(&write)?, self.state, self.options.tag_changes_max);
        for request in batch {
            // The state behind the unwinding is dropped as a whole: the transaction is not committed.
            catch_unwind(AssertUnwindSafe(|| request.run(&mut transaction)))
                .map_err(|_| MetadataError::Panicked)??;
        }
        let Some(state) = transaction.finish()? else {
            write.abort()?;
            return Ok(());
        };
        write.commit()?;
        self.state = state;
        self.publish()
    }

    /// Shows what has been committed to readers.
    fn publish(&self) -> Result<(), MetadataError> {
        let database = self.database.as_ref().ok_or(MetadataError::Unavailable)?;
        let snapshot = Snapshot::new(database.begin_read()?, self.state);
        self.shared.snapshot.store(Some(Arc::new(snapshot)));
        self.shared.sequence.store(self.state.sequence, Ordering::Release);
        self.shared.watch.send_if_modified(|sequence| {
            std::mem::replace(sequence, self.state.sequence) != self.state.sequence
        });
        Ok(())
    }

    /// Drops the database and whatever of it readers could still get.
    fn close(&mut self) {
        self.shared.snapshot.store(None);
        self.database = None;
    }

    fn try_reopen(&mut self) {
        if let Err(error) = self.reopen() {
            self.close();
            tracing::error!(%error, "the metadata store cannot be opened; trying again in a second");
        }
    }

    /// Opens the store as its storage has it.
    fn reopen(&mut self) -> Result<(), MetadataError> {
        self.close();
        let database = redb::Builder::new()
            .set_cache_size(self.options.cache_size)
            .create_with_backend(Backend(self.storage.open()?))?;
        self.state = {
            let write = begin_write(&database)?;
            let tables = WriteTables::open(&write)?;
            match owned_row(&tables.state, keys::STATE)? {
                Some(state) => {
                    drop(tables);
                    write.abort()?;
                    state
                }
                None => {
                    // A new store: from here on readers find all of the tables.
                    let mut transaction = Transaction::new(tables, StateRow::default(), 0);
                    transaction.write_state()?;
                    drop(transaction);
                    write.commit()?;
                    StateRow::default()
                }
            }
        };
        self.database = Some(database);
        self.publish()
    }
}

/// Two phases make a commit safe against a crash within the one before it; quick repair stores the state of the page
/// allocator with each commit, so that opening after a crash need not walk the store.
fn begin_write(database: &Database) -> Result<WriteTransaction, MetadataError> {
    let mut write = database.begin_write()?;
    write.set_durability(redb::Durability::Immediate)?;
    write.set_two_phase_commit(true);
    write.set_quick_repair(true);
    Ok(write)
}

/// What a caller has queued.
pub(super) trait Request: Send {
    /// Does the work, and keeps what it gives. An error drops the batch.
    fn run(&mut self, transaction: &mut Transaction<'_>) -> Result<(), MetadataError>;

    /// Gives the caller what the work gave, or else why the batch was dropped.
    fn answer(self: Box<Self>, committed: Result<(), MetadataError>);
}

struct Work<T, F> {
    work: Option<F>,
    /// What the work gave, or the error that concerns this request alone.
    given: Option<Result<T, MetadataError>>,
    sender: oneshot::Sender<Result<T, MetadataError>>,
}

/// A request to run `work`, and where its answer will be.
pub(super) fn request<T, F>(work: F) -> (Box<dyn Request>, oneshot::Receiver<Result<T, MetadataError>>)
where
    T: Send + 'static,
    F: FnOnce(&mut Transaction<'_>) -> Result<T, MetadataError> + Send + 'static,
{
    let (sender, receiver) = oneshot::channel();
    (Box::new(Work { work: Some(work), given: None, sender }), receiver)
}

impl<T, F> Request for Work<T, F>
where
    T: Send + 'static,
    F: FnOnce(&mut Transaction<'_>) -> Result<T, MetadataError> + Send + 'static,
{
    fn run(&mut self, transaction: &mut Transaction<'_>) -> Result<(), MetadataError> {
        let Some(work) = self.work.take() else { return Ok(()) };
        let changes = transaction.changes();
        match work(transaction) {
            Err(error) if !error.is_of_one_row() || transaction.changes() != changes => Err(error),
            given => {
                self.given = Some(given);
                Ok(())
            }
        }
    }

    fn answer(self: Box<Self>, committed: Result<(), MetadataError>) {
        // Without an answer to give, the batch was dropped before it came to this request.
        let Self { given, sender, .. } = *self;
        let answer = committed.and_then(|()| given.unwrap_or(Err(MetadataError::Unavailable)));
        // The caller may have gone.
        let _ = sender.send(answer);
    }
}
