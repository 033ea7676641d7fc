use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use redb::{Database, ReadableDatabase as _, WriteTransaction};
use tokio::sync::oneshot;

use super::log::{End, Log};
use super::rows::{LOG, Row as _, STATE, StateRow, damaged};
use super::snapshot::{Snapshot, number};
use super::storage::{Backend, Storage, StoragePart};
use super::store::{BATCH_MAX, Options, Shared};
use super::tables::{WriteTable, WriteTables, owned_row, row};
use super::transaction::Transaction;
use super::{MetadataError, keys};

/// Name of the committer's thread; at most 15 bytes are shown.
pub(super) const THREAD_NAME: &str = "metadata";

/// How long nothing can be read at most, after a failure that has passed; and how often a checkpoint is tried again
/// without which nothing can be written.
const REOPEN_INTERVAL: Duration = Duration::from_secs(1);

/// A store that nobody has written to for this long makes a checkpoint: opening it has nothing to replay then.
const IDLE_INTERVAL: Duration = Duration::from_secs(5);

/// Batches that are checkpoints, each, after the disk was found full. With each of them the pages that it has freed can
/// be used again, so that changes go on as long as there is any room in the file.
const TIGHT_BATCHES: u32 = 100;

/// Owns the write transactions: runs what callers have queued, commits it at once, and answers.
pub(super) struct Committer {
    storage: Arc<dyn Storage>,
    options: Options,
    shared: Arc<Shared>,
    /// `None` after a failure, until the storage can be opened again.
    open: Option<Open>,
    /// Where the log ended when it was last closed.
    log_end: Option<End>,
    state: StateRow,
    /// How many of the next batches are checkpoints.
    tight: u32,
}

/// The open store.
struct Open {
    database: Database,
    log: Log,
}

impl Committer {
    pub(super) fn open(
        storage: Arc<dyn Storage>,
        options: Options,
        shared: Arc<Shared>,
    ) -> Result<Self, MetadataError> {
        let state = StateRow::default();
        let mut committer = Self { storage, options, shared, open: None, log_end: None, state, tight: 0 };
        committer.reopen()?;
        Ok(committer)
    }

    /// Serves the requests of `queue` until nobody can send any more; an error where redb is not complete without the log
    /// then.
    pub(super) fn run(mut self, queue: &Receiver<Box<dyn Request>>) -> Result<(), MetadataError> {
        let mut batch = Vec::new();
        loop {
            let first = match &self.open {
                Some(open) if open.log.is_empty() => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(_) => queue.recv_timeout(IDLE_INTERVAL),
                None => queue.recv_timeout(REOPEN_INTERVAL),
            };
            match first {
                Ok(first) => {
                    batch.push(first);
                    batch.extend(queue.try_iter().take(BATCH_MAX - 1));
                    self.serve(&mut batch);
                }
                Err(RecvTimeoutError::Timeout) if self.open.is_some() => self.try_checkpoint(),
                Err(RecvTimeoutError::Timeout) => self.try_reopen(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        // redb alone is complete after a clean end. Where that fails, the log has what it lacks.
        let completed = match &mut self.open {
            Some(open) if open.log.is_empty() => Ok(()),
            Some(open) => open.checkpoint(),
            None => Err(MetadataError::Unavailable),
        };
        if let Err(error) = &completed {
            tracing::warn!(%error, "no metadata checkpoint at the end; the next start replays the log");
        }
        self.shared.snapshot.store(None);
        completed
    }

    /// Runs the requests, commits them, and answers all of them.
    fn serve(&mut self, batch: &mut Vec<Box<dyn Request>>) {
        let result = self.commit(batch);
        if let Err(error) = &result
            && !error.is_of_one_row()
        {
            tracing::error!(%error, requests = batch.len(), "a metadata commit failed");
            self.recover(error.is_full());
        }
        for request in batch.drain(..) {
            request.answer(result.clone());
        }
    }

    fn commit(&mut self, batch: &mut [Box<dyn Request>]) -> Result<(), MetadataError> {
        if self.open.is_none() {
            self.reopen()?;
        }
        let Some(Open { database, log }) = &mut self.open else { return Err(MetadataError::Unavailable) };
        let mut write = begin_write(database)?;
        let mut transaction =
            Transaction::new(WriteTables::open(&write)?, self.state, self.options.tag_changes_max);
        for request in batch {
            // The state behind the unwinding is dropped as a whole: the transaction is not committed.
            catch_unwind(AssertUnwindSafe(|| request.run(&mut transaction)))
                .map_err(|_| MetadataError::Panicked)??;
        }
        let Some((state, rows)) = transaction.finish()? else {
            write.abort()?;
            return Ok(());
        };
        if self.tight == 0 && log.takes(&rows) {
            if let Err(error) = log.append(self.state.sequence, state.sequence, &rows) {
                write.abort()?;
                return Err(error.into());
            }
            write.set_durability(redb::Durability::None)?;
            write.set_two_phase_commit(false);
            write.set_quick_repair(false);
            write.commit()?;
        } else {
            commit_checkpoint(write, log)?;
            self.tight = self.tight.saturating_sub(1);
            if self.tight == 0 && !log.ensure_length()? {
                self.tight = TIGHT_BATCHES;
            }
        }
        self.state = state;
        self.publish()
    }

    /// Shows what has been committed to readers.
    fn publish(&self) -> Result<(), MetadataError> {
        let open = self.open.as_ref().ok_or(MetadataError::Unavailable)?;
        let snapshot = Snapshot::new(open.database.begin_read()?, self.state);
        self.shared.snapshot.store(Some(Arc::new(snapshot)));
        self.shared.sequence.store(self.state.sequence, Ordering::Release);
        self.shared.watch.send_if_modified(|sequence| {
            std::mem::replace(sequence, self.state.sequence) != self.state.sequence
        });
        Ok(())
    }

    fn try_checkpoint(&mut self) {
        if let Some(open) = &mut self.open
            && let Err(error) = open.checkpoint()
        {
            tracing::error!(%error, "a metadata checkpoint failed");
            self.recover(error.is_full());
        }
    }

    /// Brings the store back to where it can be read, and written to if possible.
    fn recover(&mut self, is_full: bool) {
        if is_full {
            self.tight = TIGHT_BATCHES;
        }
        // Where only the log has failed, redb need not be opened again, and reading goes on.
        if let Some(open) = &mut self.open
            && open.log.is_in_doubt()
        {
            match open.checkpoint() {
                Ok(()) => return,
                Err(error) => tracing::error!(%error, "a metadata checkpoint failed"),
            }
        }
        self.try_reopen();
    }

    /// Drops the store and whatever of it readers could still get.
    fn close(&mut self) {
        self.shared.snapshot.store(None);
        if let Some(Open { log, .. }) = self.open.take() {
            self.log_end = Some(log.end());
        }
    }

    fn try_reopen(&mut self) {
        if let Err(error) = self.reopen() {
            self.close();
            tracing::error!(%error, "the metadata store cannot be opened; trying again in a second");
        }
    }

    /// Opens the store as its storage has it. Where it can be read but not be made durable, as on a full disk, the log
    /// stays as it is.
    fn reopen(&mut self) -> Result<(), MetadataError> {
        let mut result = self.open_files(true);
        if self.tight == 0 && result.as_ref().is_err_and(MetadataError::is_full) {
            self.tight = TIGHT_BATCHES;
            result = self.open_files(true);
        }
        if let Err(error) = result {
            tracing::warn!(%error, "opening the metadata store without a checkpoint");
            self.open_files(false)?;
            // The log takes what it can, as long as redb has room for it in memory and in the pages it has.
            self.tight = 0;
        }
        self.publish()
    }

    fn open_files(&mut self, checkpoint: bool) -> Result<(), MetadataError> {
        self.close();
        let tables = self.storage.open(StoragePart::Tables)?;
        // What another process has left in the page cache is made durable before anything rests on it.
        tables.sync()?;
        let log = self.storage.open(StoragePart::Log)?;
        // redb keeps half of its cache of unwritten pages at most; the rest is for the state of its page allocator.
        let mut log = Log::open(log, self.options.log_size, self.options.cache_size)?;
        if self.tight == 0 && !log.ensure_length()? {
            tracing::warn!("the disk has no room for the metadata's log, without which commits are slower");
        }
        let database = redb::Builder::new()
            .set_cache_size(self.options.cache_size)
            .create_with_backend(Backend(tables))?;
        let mut open = Open { database, log };
        self.state = open.replay(self.log_end, checkpoint, self.tight > 0)?;
        self.open = Some(open);
        Ok(())
    }
}

impl Open {
    /// Applies the log to what redb has, and gives the state of all that. `known` is where this process left the log.
    fn replay(
        &mut self,
        known: Option<End>,
        checkpoint: bool,
        release_spare: bool,
    ) -> Result<StateRow, MetadataError> {
        let Self { database, log } = self;
        let mut write = begin_write(database)?;
        let mut tables = WriteTables::open(&write)?;
        let state = owned_row::<StateRow>(&*tables.state, keys::STATE)?;
        let generation = log_generation(&tables.state)?;
        let sequence = state.unwrap_or_default().sequence;
        let newest = log.newest_generation()?;
        if newest > generation {
            // The log of another store, or of a later time of this one.
            log.start(newest);
        } else {
            let replayed = log.replay(generation, sequence, known, |rows| tables.replay(rows))?;
            if state.is_some() && !replayed && !log.is_in_doubt() {
                drop(tables);
                write.abort()?;
                return state.ok_or(MetadataError::Unavailable);
            }
        }
        if release_spare {
            log.release_spare()?;
        }
        // A new store has all of its tables from here on.
        let state = owned_row(&*tables.state, keys::STATE)?.unwrap_or_default();
        tables.state.insert(keys::STATE, StateRow::encode(&state)?.as_slice())?;
        drop(tables);
        if checkpoint {
            commit_checkpoint(write, log)?;
        } else {
            match log.rewrite() {
                // What this process has acknowledged is durable; it can be read.
                Err(error) if known.is_some() => {
                    tracing::warn!(%error, "the metadata's log cannot be written")
                }
                result => result?,
            }
            write.set_durability(redb::Durability::None)?;
            write.set_two_phase_commit(false);
            write.set_quick_repair(false);
            write.commit()?;
        }
        Ok(state)
    }

    /// Makes redb durable, and begins a generation of the log.
    fn checkpoint(&mut self) -> Result<(), MetadataError> {
        commit_checkpoint(begin_write(&self.database)?, &mut self.log)
    }
}

/// Commits what was written so that it is durable without the log, which begins another generation.
fn commit_checkpoint(write: WriteTransaction, log: &mut Log) -> Result<(), MetadataError> {
    let generation =
        log.generation().checked_add(1).ok_or_else(|| damaged(LOG, "there is no next generation"))?;
    WriteTables::open(&write)?.state.insert(keys::LOG_GENERATION, &generation.to_be_bytes())?;
    write.commit()?;
    log.start(generation);
    Ok(())
}

/// The generation of the log that goes on from what redb has.
fn log_generation(state: &WriteTable<'_>) -> Result<u64, MetadataError> {
    Ok(row(&**state, keys::LOG_GENERATION, |value| number(value, STATE))?.unwrap_or(0))
}

/// Two phases make a commit safe against a crash within the one before it; quick repair stores the state of the page
/// allocator with the commit, so that opening after a crash need not walk the store.
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
