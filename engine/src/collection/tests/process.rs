use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::*;
use crate::metadata::Options;
use crate::metadata::tests::memory::MemoryStorage;

/// Between two checkpoints, in bytes, where it does not matter.
pub(super) const LOG_SIZE: usize = 96 << 10;

/// How long upload sessions live without progress, in milliseconds.
pub(super) const EXPIRY: u64 = 500;

/// A clock that stands still until it is moved.
#[derive(Debug, Default)]
pub(super) struct TestClock(pub(super) AtomicU64);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::Relaxed))
    }
}

/// What a process has, besides its storage and its files.
pub(super) struct Process {
    pub(super) metadata: Metadata,
    pub(super) leases: Leases,
    pub(super) sessions: Sessions,
    pub(super) files_in_use: FilesInUse,
    is_collecting: AtomicBool,
}

impl Process {
    /// `lease`: how long one lives, in milliseconds. `log_size`: how much is written between two checkpoints, in bytes.
    pub(super) fn start(storage: &Arc<MemoryStorage>, lease: u64, log_size: usize, now: Timestamp) -> Self {
        let options = Options { cache_size: 256 << 10, log_size, ..Options::default() };
        let leases = Leases::new(now);
        leases.set_duration(Duration::from_millis(lease));
        Self {
            metadata: Metadata::open(storage.clone(), options).expect("opens"),
            leases,
            sessions: Sessions::default(),
            files_in_use: FilesInUse::default(),
            is_collecting: AtomicBool::new(false),
        }
    }

    /// `is_small`: collections go over it in several rounds and many batches.
    pub(super) fn store<'s>(
        &'s self,
        files: &'s dyn Files,
        clock: &'s TestClock,
        is_small: bool,
    ) -> Store<'s> {
        Store {
            metadata: &self.metadata,
            leases: &self.leases,
            sessions: &self.sessions,
            files_in_use: &self.files_in_use,
            files,
            clock,
            upload_expiry_ms: EXPIRY,
            is_collecting: &self.is_collecting,
            marks_max: if is_small { 4 } else { MARKS_MAX },
            rows_first: if is_small { 8 } else { 1 << 10 },
        }
    }
}
