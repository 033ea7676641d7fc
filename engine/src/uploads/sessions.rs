//! Which sessions a request is writing to now, and which ones are too fresh to be in the metadata.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::error::EngineError;
use crate::metadata::{Metadata, Timestamp, UploadId, UploadRecord};
use crate::oci::RepositoryName;

/// Why a session cannot be taken up.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    /// There is none of this id in this repository: never was, finished, cancelled or expired.
    #[error("there is no such upload session")]
    Unknown,
    /// Another request is writing to it.
    #[error("another request is writing to this upload session")]
    Busy(Busy),
    /// The store failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// What can be known of a session while a request writes to it.
#[derive(Clone, Debug)]
pub struct Busy(Arc<BusyState>);

#[derive(Debug)]
struct BusyState {
    size: AtomicU64,
    /// When the session was started, in milliseconds; 0 until that is known.
    started_at: AtomicU64,
    released: Notify,
}

impl Busy {
    /// Bytes received so far.
    pub fn size(&self) -> u64 {
        self.0.size.load(Ordering::Relaxed)
    }

    /// Waits until the request that writes has ended. One that has ended before this was called may be missed, so
    /// the caller also sets a limit.
    pub async fn released(&self) {
        self.0.released.notified().await;
    }

    fn new() -> Self {
        let (size, started_at) = (AtomicU64::new(0), AtomicU64::new(0));
        Self(Arc::new(BusyState { size, started_at, released: Notify::new() }))
    }

    fn set_started_at(&self, started_at: Timestamp) {
        self.0.started_at.store(started_at.0, Ordering::Relaxed);
    }

    pub(super) fn set_size(&self, size: u64) {
        self.0.size.store(size, Ordering::Relaxed);
    }
}

/// A session that belongs to the request that took it.
pub(crate) struct Taken {
    pub(crate) record: UploadRecord,
    /// Whether the metadata knows the session.
    pub(crate) is_saved: bool,
    pub(crate) busy: Busy,
}

/// The sessions that are not, or not only, in the metadata. Shared by the threads, and locked for look-ups only.
#[derive(Debug, Default)]
pub(crate) struct Sessions(Mutex<HashMap<UploadId, Session>>);

#[derive(Debug)]
enum Session {
    /// Made and not yet written to. Most sessions are finished before they would reach the metadata, so only
    /// those that live for a while are saved (`save_fresh`).
    Fresh(UploadRecord),
    /// Belongs to a request.
    Busy(RepositoryName, Busy),
}

impl Sessions {
    fn map(&self) -> MutexGuard<'_, HashMap<UploadId, Session>> {
        // A panic while the lock was held cannot have left the map half changed: every change is one call.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a session that nothing was written to.
    pub(crate) fn add_fresh(&self, id: UploadId, record: UploadRecord) {
        self.map().insert(id, Session::Fresh(record));
    }

    /// Adds a session of one request, which nobody else can take.
    pub(crate) fn add_taken(&self, id: UploadId, record: UploadRecord) -> Taken {
        let busy = Busy::new();
        busy.set_started_at(record.started_at);
        self.map().insert(id, Session::Busy(record.repository.clone(), busy.clone()));
        Taken { record, is_saved: false, busy }
    }

    /// Takes the session for the calling request alone; `release` or `remove` ends that.
    pub(crate) fn take(
        &self,
        metadata: &Metadata,
        repository: &RepositoryName,
        id: UploadId,
    ) -> Result<Taken, ResumeError> {
        let busy = Busy::new();
        match self.map().entry(id) {
            Entry::Occupied(mut entry) => {
                return match entry.get() {
                    Session::Busy(owner, busy) if owner == repository => Err(ResumeError::Busy(busy.clone())),
                    Session::Fresh(record) if record.repository == *repository => {
                        let record = record.clone();
                        busy.set_started_at(record.started_at);
                        entry.insert(Session::Busy(repository.clone(), busy.clone()));
                        Ok(Taken { record, is_saved: false, busy })
                    }
                    _ => Err(ResumeError::Unknown),
                };
            }
            // Taken before it is read: whoever had it until now has saved it by then.
            Entry::Vacant(entry) => entry.insert(Session::Busy(repository.clone(), busy.clone())),
        };
        let record = metadata.snapshot().and_then(|snapshot| snapshot.upload(id));
        match record {
            Ok(Some(record)) if record.repository == *repository => {
                busy.set_size(record.size);
                busy.set_started_at(record.started_at);
                Ok(Taken { record, is_saved: true, busy })
            }
            other => {
                self.remove(id);
                other.map_err(EngineError::from)?;
                Err(ResumeError::Unknown)
            }
        }
    }

    /// Looks at a session without taking it.
    pub(crate) fn look(
        &self,
        metadata: &Metadata,
        repository: &RepositoryName,
        id: UploadId,
    ) -> Result<UploadRecord, ResumeError> {
        let in_memory = match self.map().get(&id) {
            Some(Session::Busy(owner, busy)) if owner == repository => {
                return Err(ResumeError::Busy(busy.clone()));
            }
            Some(Session::Fresh(record)) => Some(record.clone()),
            Some(Session::Busy(..)) | None => None,
        };
        let record = match in_memory {
            Some(record) => Some(record),
            None => {
                metadata.snapshot().and_then(|snapshot| snapshot.upload(id)).map_err(EngineError::from)?
            }
        };
        record.filter(|record| record.repository == *repository).ok_or(ResumeError::Unknown)
    }

    /// Gives back a session that was taken and is as it was.
    pub(crate) fn give_back(&self, id: UploadId, taken: Taken) {
        if taken.is_saved {
            self.remove(id);
        } else {
            self.release_fresh(id, taken.record);
        }
    }

    /// The repositories of these sessions, each with when the oldest of its sessions was started.
    pub(crate) fn pushes(&self) -> HashMap<RepositoryName, Timestamp> {
        let mut pushes = HashMap::new();
        for session in self.map().values() {
            let (repository, started_at) = match session {
                Session::Fresh(record) => (&record.repository, record.started_at),
                Session::Busy(repository, busy) => {
                    (repository, Timestamp(busy.0.started_at.load(Ordering::Relaxed)))
                }
            };
            let since = pushes.entry(repository.clone()).or_insert(started_at);
            *since = started_at.min(*since);
        }
        pushes
    }

    /// Gives back a session that still nothing was written to.
    pub(crate) fn release_fresh(&self, id: UploadId, record: UploadRecord) {
        let before = self.map().insert(id, Session::Fresh(record));
        notify(before);
    }

    /// Forgets a session: it is saved in the metadata, or it has ended.
    pub(crate) fn remove(&self, id: UploadId) {
        let before = self.map().remove(&id);
        notify(before);
    }

    /// The sessions that were made before `before` and are not in the metadata.
    pub(crate) fn fresh_since_before(&self, before: Timestamp) -> Vec<(UploadId, UploadRecord)> {
        let map = self.map();
        let fresh = map.iter().filter_map(|(id, session)| match session {
            Session::Fresh(record) if record.started_at < before => Some((*id, record.clone())),
            _ => None,
        });
        fresh.collect()
    }

    /// The sessions that are here, be they in the metadata as well or not, and their repositories.
    pub(crate) fn repositories(&self) -> Vec<(UploadId, RepositoryName)> {
        let map = self.map();
        let repositories = map.iter().map(|(id, session)| match session {
            Session::Fresh(record) => (*id, record.repository.clone()),
            Session::Busy(repository, _) => (*id, repository.clone()),
        });
        repositories.collect()
    }

    /// Whether nobody has taken the session yet.
    pub(crate) fn is_fresh(&self, id: UploadId) -> bool {
        matches!(self.map().get(&id), Some(Session::Fresh(_)))
    }

    /// Forgets a session that is saved by now, unless somebody has taken it in the meantime.
    pub(crate) fn forget_fresh(&self, id: UploadId) {
        if let Entry::Occupied(entry) = self.map().entry(id)
            && matches!(entry.get(), Session::Fresh(_))
        {
            entry.remove();
        }
    }

    /// Whether a request is writing to the session.
    pub(crate) fn is_busy(&self, id: UploadId) -> bool {
        matches!(self.map().get(&id), Some(Session::Busy(..)))
    }
}

fn notify(session: Option<Session>) {
    if let Some(Session::Busy(_, busy)) = session {
        busy.0.released.notify_waiters();
    }
}
