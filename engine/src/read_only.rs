//! Read-only mode: a hold that somebody has on all writes, for a reason and until a time.
//!
//! A hold is a lease. When its time is over the registry takes writes again by itself, so that a holder that died leaves
//! nothing behind. It is kept in the metadata and survives a restart.
//!
//! Writes that were running when it began get some time to end (the draining). What has not ended by then is refused at
//! its next step, which is between two chunks or before a commit, and upload sessions are kept.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::engine_core::Core;
use crate::error::EngineError;
use crate::metadata::{Metadata, MetadataError, Timestamp, Transaction};
use crate::runtime;

/// How long a hold may last: 7 days, in milliseconds. A holder that needs more renews it.
pub const HOLD_MS_MAX: u64 = 7 * 24 * 60 * 60 * 1000;

/// Who keeps the registry from taking writes, why and until when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Who: a name that tells holders apart. Only the same owner can extend the hold or end it early.
    pub owner: String,
    /// Why, for those who are turned away.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
    /// Until when: then it ends by itself.
    pub until: Timestamp,
    /// Until when writes that were running at the beginning may go on.
    pub drained_at: Timestamp,
}

/// How far a write has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteStage {
    /// It is about to begin.
    New,
    /// It has begun, and is about to take its next step.
    Running,
}

/// Somebody else has the hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} keeps the registry read-only already: {}", .0.owner, .0.reason)]
pub struct HeldByOther(pub Hold);

/// The hold there is, and the writes that are running.
#[derive(Debug, Default)]
pub(crate) struct ReadOnly {
    /// What the metadata has, for those who ask with every request.
    hold: ArcSwapOption<Hold>,
    /// Taken while it is read from there, so that an older state never comes after a newer one.
    reading: Mutex<()>,
    writes: AtomicUsize,
    /// Told when the last write has ended.
    ended: Notify,
}

/// A write that is running. The end of the draining waits for it.
pub struct Write(Arc<crate::engine::Shared>);

impl Drop for Write {
    fn drop(&mut self) {
        let read_only = &self.0.read_only;
        if read_only.writes.fetch_sub(1, Ordering::SeqCst) == 1 {
            read_only.ended.notify_waiters();
        }
    }
}

impl std::fmt::Debug for Write {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Write")
    }
}

impl ReadOnly {
    /// Reads the hold that the metadata has.
    pub(crate) fn read(&self, metadata: &Metadata) -> Result<(), MetadataError> {
        let _reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        self.hold.store(metadata.snapshot()?.hold()?.map(Arc::new));
        Ok(())
    }

    fn hold(&self, now: Timestamp) -> Option<Arc<Hold>> {
        self.hold.load_full().filter(|hold| now < hold.until)
    }
}

impl Core {
    /// The hold on writes, where there is one now.
    pub fn hold(&self) -> Option<Arc<Hold>> {
        self.shared().read_only.hold(self.now())
    }

    /// Begins a write, which is running until what is returned is dropped; the hold where there is one.
    pub fn begin_write(&self) -> Result<Write, Arc<Hold>> {
        let shared = self.shared();
        // Counted first: whoever begins a hold afterwards waits for it, and one who began before is seen here.
        shared.read_only.writes.fetch_add(1, Ordering::SeqCst);
        let write = Write(shared.clone());
        self.check_write(WriteStage::New).map(|()| write)
    }

    /// Whether a write may take its next step; the hold where it may not.
    pub fn check_write(&self, stage: WriteStage) -> Result<(), Arc<Hold>> {
        let now = self.now();
        match self.shared().read_only.hold(now) {
            Some(hold) if stage == WriteStage::New || now >= hold.drained_at => Err(hold),
            _ => Ok(()),
        }
    }

    /// Writes that are running.
    pub fn running_writes(&self) -> usize {
        self.shared().read_only.writes.load(Ordering::SeqCst)
    }

    /// Makes the registry read-only for `owner`, or extends the hold that `owner` has. When it returns, no write that
    /// has not ended can be committed any more: those that were running have ended, or had `drain` to do so.
    ///
    /// `lasting`: how long, [`HOLD_MS_MAX`] at most; the draining counts in.
    pub async fn hold_writes(
        &self,
        owner: String,
        reason: String,
        lasting: Duration,
        drain: Duration,
    ) -> Result<Result<Hold, HeldByOther>, EngineError> {
        let now = self.now();
        let later = |time: Duration| {
            let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).min(HOLD_MS_MAX);
            Timestamp(now.0.saturating_add(ms))
        };
        let wanted = Hold { owner, reason, since: now, until: later(lasting), drained_at: later(drain) };
        let work = move |transaction: &mut Transaction<'_>| {
            let hold = match transaction.hold()?.filter(|held| now < held.until) {
                Some(held) if held.owner != wanted.owner => return Ok(Err(HeldByOther(held))),
                // What has been drained stays so.
                Some(held) => Hold { since: held.since, drained_at: held.drained_at, ..wanted },
                None => wanted,
            };
            transaction.set_hold(Some(&hold))?;
            Ok(Ok(hold))
        };
        let hold = match self.metadata().write(work).await? {
            Ok(hold) => hold,
            Err(other) => return Ok(Err(other)),
        };
        self.shared().read_only.read(self.metadata())?;
        self.drain_writes(&hold).await;
        // What had passed its last check before the draining ended is in the queue before this.
        self.metadata().write(|_| Ok(())).await?;
        Ok(Ok(hold))
    }

    /// Waits until no write is running, or the draining is over.
    async fn drain_writes(&self, hold: &Hold) {
        let read_only = &self.shared().read_only;
        loop {
            let ended = read_only.ended.notified();
            if read_only.writes.load(Ordering::SeqCst) == 0 {
                return;
            }
            let Some(left) = hold.drained_at.0.checked_sub(self.now().0).filter(|left| *left > 0) else {
                return;
            };
            // Whichever comes first, the loop looks again.
            let _ = runtime::timeout(Duration::from_millis(left), ended).await;
        }
    }

    /// Ends the hold that `owner` has, or, where no owner is given, whichever there is; what was ended.
    pub async fn release_writes(
        &self,
        owner: Option<String>,
    ) -> Result<Result<Option<Hold>, HeldByOther>, EngineError> {
        let now = self.now();
        let work = move |transaction: &mut Transaction<'_>| {
            let Some(held) = transaction.hold()?.filter(|held| now < held.until) else { return Ok(Ok(None)) };
            if owner.is_some_and(|owner| owner != held.owner) {
                return Ok(Err(HeldByOther(held)));
            }
            transaction.set_hold(None)?;
            Ok(Ok(Some(held)))
        };
        let ended = self.metadata().write(work).await?;
        self.shared().read_only.read(self.metadata())?;
        Ok(ended)
    }

    /// Puts a hold away whose time is over, and says so in the log. Due about once a second, on one of the threads.
    pub async fn end_expired_hold(&self) -> Result<(), EngineError> {
        let now = self.now();
        if self.shared().read_only.hold.load().as_ref().is_none_or(|hold| hold.until > now) {
            return Ok(());
        }
        let work = move |transaction: &mut Transaction<'_>| {
            let ended = transaction.hold()?.filter(|hold| hold.until <= now);
            if ended.is_some() {
                transaction.set_hold(None)?;
            }
            Ok(ended)
        };
        let ended = self.metadata().write(work).await?;
        self.shared().read_only.read(self.metadata())?;
        if let Some(hold) = ended {
            tracing::warn!(
                owner = hold.owner,
                reason = hold.reason,
                "nobody ended the read-only mode in time: the registry takes writes again"
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::atomic::AtomicU64;

    use super::*;
    use crate::environment::{Clock, Environment};
    use crate::{Engine, EngineOptions};

    #[derive(Debug)]
    struct SetClock(AtomicU64);

    impl Clock for SetClock {
        fn now(&self) -> Timestamp {
            Timestamp(self.0.load(Ordering::SeqCst))
        }
    }

    fn with_engine<T>(root: &Path, clock: &Arc<SetClock>, test: impl AsyncFnOnce(Core) -> T) -> T {
        let options = EngineOptions {
            root: root.to_path_buf(),
            direct_writes: false,
            reserve_bytes: 0,
            cache_bytes: 1 << 20,
            buffer_bytes: 1 << 20,
            upload_expiry: Duration::from_secs(3600),
            quotas: crate::Quotas::default(),
        };
        let environment = Environment { clock: clock.clone(), ..Environment::system() };
        let engine = Engine::open(options, environment).expect("opens");
        runtime::run(async { test(engine.core().expect("a ring")).await }).expect("a runtime")
    }

    async fn hold(core: &Core, owner: &str, seconds: u64, drain_ms: u64) -> Result<Hold, HeldByOther> {
        let (lasting, drain) = (Duration::from_secs(seconds), Duration::from_millis(drain_ms));
        core.hold_writes(owner.into(), "a test".into(), lasting, drain).await.expect("the store works")
    }

    #[test]
    fn a_hold_is_a_lease_of_its_owner_and_survives_a_restart() {
        let root = tempfile::tempdir().expect("a directory");
        let clock = Arc::new(SetClock(AtomicU64::new(1_000_000)));
        with_engine(root.path(), &clock, async |core| {
            drop(core.begin_write().expect("open"));
            let held = hold(&core, "a", 60, 0).await.expect("free");
            assert_eq!(held.until, Timestamp(1_060_000));
            assert_eq!(core.begin_write().map(drop), Err(Arc::new(held.clone())));
            assert_eq!(core.check_write(WriteStage::Running), Err(Arc::new(held.clone())));
            assert_eq!(hold(&core, "b", 60, 0).await, Err(HeldByOther(held.clone())));
            assert_eq!(
                core.release_writes(Some("b".into())).await.expect("the store works"),
                Err(HeldByOther(held))
            );
            clock.0.store(1_030_000, Ordering::SeqCst);
            let extended = hold(&core, "a", 60, 0).await.expect("the owner's");
            assert_eq!((extended.since, extended.until), (Timestamp(1_000_000), Timestamp(1_090_000)));
        });
        with_engine(root.path(), &clock, async |core| {
            assert!(core.begin_write().is_err(), "a restart does not end it");
            clock.0.store(1_090_000, Ordering::SeqCst);
            drop(core.begin_write().expect("its time is over"));
            core.end_expired_hold().await.expect("the store works");
            assert_eq!(core.hold(), None);
            hold(&core, "b", 60, 0).await.expect("free");
            let ended = core.release_writes(None).await.expect("the store works").expect("anybody's");
            assert_eq!(ended.map(|hold| hold.owner), Some("b".into()));
        });
        with_engine(root.path(), &clock, async |core| drop(core.begin_write().expect("released")));
    }

    #[test]
    fn running_writes_are_waited_for_until_the_draining_ends() {
        let root = tempfile::tempdir().expect("a directory");
        let clock = Arc::new(SetClock(AtomicU64::new(1_000_000)));
        with_engine(root.path(), &clock, async |core| {
            let write = core.begin_write().expect("open");
            let holder = runtime::spawn({
                let core = core.clone();
                async move { hold(&core, "a", 3600, 600_000).await }
            });
            while core.hold().is_none() {
                runtime::sleep(Duration::from_millis(1)).await;
            }
            assert!(core.begin_write().is_err(), "nothing new begins");
            assert_eq!(core.check_write(WriteStage::Running), Ok(()), "what runs goes on");
            assert_eq!(core.running_writes(), 1);
            drop(write);
            // The clock stands still: only the write's end lets the holder go on.
            holder.await.expect("held");
            clock.0.store(1_600_000, Ordering::SeqCst);
            assert!(core.check_write(WriteStage::Running).is_err(), "drained");

            core.release_writes(None).await.expect("the store works").expect("anybody's");
            let write = core.begin_write().expect("open");
            // A write that does not end is not waited for.
            hold(&core, "a", 3600, 0).await.expect("free");
            assert!(core.check_write(WriteStage::Running).is_err());
            drop(write);
        });
    }
}
