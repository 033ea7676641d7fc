//! What clients were told exists, so that it is not collected before they have used it.
//!
//! A client asks whether a blob is there (HEAD), is told so, does not push it, and some time later pushes the manifest
//! that needs it. Nothing in the metadata says that this is going on. So whoever tells a client that content is there
//! takes a **lease** of it first, and collection leaves alone what is leased. Leases live in memory, as hashes, in two
//! generations that are exchanged from time to time: a lease lives for [`Leases::duration`] at least and twice that at most.
//! In a repository with an upload session that was begun in that time, it lives for as long as that session is open: a
//! push that takes long may need it at its end. Sessions that were begun later need it not, or else the garbage of a
//! repository that is always pushed to would stay for ever.
//!
//! # Why no lease and no deletion miss each other
//!
//! Both decide under the lock of the shard that the key belongs to. Before a batch of deletions is queued, each key in
//! it is **doomed**, unless it is leased; a lease is entered, and at once looks whether the key is doomed. Whoever has
//! the lock first is seen by the other:
//!
//! - the lease first: the key is not doomed, and what it names stays;
//! - the doom first: the lease waits until the batch is committed, and only then looks into a snapshot, which says what
//!   became of it. The lease holds in any case: what survived the batch is safe from the next.
//!
//! What errs, errs on the safe side: hashes that collide, and a shard that has more leases than there is room for
//! ([`LEASES_MAX`]), whose keys then all count as leased for as long as its generation lives. So do all keys for one
//! duration after the start, as nobody knows what clients were told before it.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::metadata::{RepositoryId, Timestamp};
use crate::oci::Digest;

/// How long a lease lives at least, where nothing else is asked for.
pub const LEASE_DEFAULT: Duration = Duration::from_secs(60 * 60);

/// Leases of one generation; takes some 20 MiB of memory.
pub const LEASES_MAX: usize = 1 << 20;

/// Locks that are taken independently of each other.
const SHARDS: usize = 64;

/// Bits of a key that tell its repository.
const REPOSITORY_BITS: u32 = 16;

/// A repository and a digest in it, hashed: the first bits by the repository alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LeaseKey(u64);

impl LeaseKey {
    pub(crate) fn new(repository: RepositoryId, digest: &Digest) -> Self {
        let mut value = [0; 8];
        value.copy_from_slice(&digest.value()[..8]);
        let own = u64::from_be_bytes(value) ^ mixed(repository);
        Self((u64::from(repository_bits(repository)) << (64 - REPOSITORY_BITS)) | (own >> REPOSITORY_BITS))
    }

    fn repository_bits(self) -> u16 {
        (self.0 >> (64 - REPOSITORY_BITS)) as u16
    }

    fn shard(self) -> usize {
        self.0 as usize % SHARDS
    }
}

/// Spreads ids, which are small numbers, over all bits.
fn mixed(repository: RepositoryId) -> u64 {
    let spread = (repository.0 ^ 0x5851_F42D_4C95_7F2D).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    spread ^ (spread >> 29)
}

fn repository_bits(repository: RepositoryId) -> u16 {
    (mixed(repository) >> (64 - REPOSITORY_BITS)) as u16
}

/// The leases of one engine. Shared by the threads; each call locks one of the shards for a look-up.
#[derive(Debug)]
pub(crate) struct Leases {
    shards: Vec<Mutex<Shard>>,
    /// Told when a batch of deletions has ended.
    ended: Notify,
    duration_ms: AtomicU64,
    /// How many were asked for.
    asked: AtomicU64,
    /// When the current generation began.
    since: Mutex<Timestamp>,
}

#[derive(Debug, Default)]
struct Shard {
    current: Generation,
    previous: Generation,
    /// Of older generations.
    kept: Kept,
    /// What is being deleted.
    doomed: HashSet<LeaseKey>,
}

#[derive(Debug, Default)]
struct Generation {
    keys: HashSet<LeaseKey>,
    /// More than there is room for, or not known: every key counts as leased.
    is_full: bool,
}

/// Leases that live on for the sessions that were open when their generation ended, each with when that was.
#[derive(Debug, Default)]
struct Kept {
    keys: HashMap<LeaseKey, Timestamp>,
    /// More than there is room for, or not known: every key of these repositories.
    all: HashMap<u16, Timestamp>,
}

/// The repositories that are pushed to, each with when the oldest of its open sessions was begun.
type Pushes = HashMap<u16, Timestamp>;

impl Kept {
    fn holds(&self, key: LeaseKey) -> bool {
        self.keys.contains_key(&key) || !self.all.is_empty() && self.all.contains_key(&key.repository_bits())
    }

    /// Forgets what no session needs any more.
    fn forget(&mut self, pushes: &Pushes) {
        let is_needed =
            |repository: u16, ended: Timestamp| pushes.get(&repository).is_some_and(|begun| *begun < ended);
        self.keys.retain(|key, ended| is_needed(key.repository_bits(), *ended));
        self.all.retain(|repository, ended| is_needed(*repository, *ended));
    }

    /// Keeps, of a generation that ends now, what is in repositories that are pushed to.
    fn keep(&mut self, ended: Generation, pushes: &Pushes, now: Timestamp) {
        if ended.is_full {
            self.all.extend(pushes.keys().map(|repository| (*repository, now)));
        }
        for key in ended.keys {
            let repository = key.repository_bits();
            if !pushes.contains_key(&repository) {
                continue;
            }
            match self.keys.len() < LEASES_MAX / SHARDS {
                true => self.keys.insert(key, now),
                false => self.all.insert(repository, now),
            };
        }
    }
}

impl Generation {
    fn holds(&self, key: LeaseKey) -> bool {
        self.is_full || self.keys.contains(&key)
    }

    fn insert(&mut self, key: LeaseKey) {
        if self.is_full {
            return;
        }
        self.keys.insert(key);
        if self.keys.len() > LEASES_MAX / SHARDS {
            self.is_full = true;
            self.keys = HashSet::new();
        }
    }
}

impl Leases {
    /// No lease is known, and everything counts as leased until the first generation has passed.
    pub(crate) fn new(now: Timestamp) -> Self {
        let unknown = || Generation { is_full: true, ..Generation::default() };
        let shard = || Mutex::new(Shard { previous: unknown(), ..Shard::default() });
        Self {
            shards: (0..SHARDS).map(|_| shard()).collect(),
            ended: Notify::new(),
            duration_ms: AtomicU64::new(to_ms(LEASE_DEFAULT)),
            asked: AtomicU64::new(0),
            since: Mutex::new(now),
        }
    }

    /// How long a lease lives at least. 0: there are none.
    pub(crate) fn set_duration(&self, duration: Duration) {
        self.duration_ms.store(to_ms(duration), Ordering::Relaxed);
    }

    fn duration(&self) -> u64 {
        self.duration_ms.load(Ordering::Relaxed)
    }

    fn shard(&self, key: LeaseKey) -> MutexGuard<'_, Shard> {
        // Every change is one call: a panic cannot leave half of one.
        self.shards[key.shard()].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many leases were asked for so far: whether somebody looks for anything.
    pub(super) fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// Whether a lease was taken a short while ago, or none has to be taken: a look at what it is of can be left out.
    pub(crate) fn is_fresh(&self, key: LeaseKey) -> bool {
        self.duration() == 0 || self.shard(key).current.keys.contains(&key)
    }

    /// Takes a lease, and returns when nothing is deleting what it is of; whether that is there is to be seen in a
    /// snapshot that is taken afterwards.
    pub(crate) async fn lease(&self, key: LeaseKey) {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if self.try_lease(key) {
            return;
        }
        loop {
            // Made before looking: the end of the batch cannot come in between.
            let ended = self.ended.notified();
            if self.try_lease(key) {
                return;
            }
            ended.await;
        }
    }

    /// Takes a lease; `false` where what it is of is being deleted right now.
    pub(crate) fn try_lease(&self, key: LeaseKey) -> bool {
        let is_on = self.duration() > 0;
        let mut shard = self.shard(key);
        if is_on {
            shard.current.insert(key);
        }
        !shard.doomed.contains(&key)
    }

    /// Whether a lease is held.
    pub(crate) fn is_leased(&self, key: LeaseKey) -> bool {
        self.duration() > 0 && self.shard(key).holds(key)
    }

    /// Announces that what `key` names is going to be deleted, until the batch is dropped; `false` where it is leased.
    pub(crate) fn doom(&self, key: LeaseKey, batch: &mut Batch<'_>) -> bool {
        let is_on = self.duration() > 0;
        let mut shard = self.shard(key);
        if is_on && shard.holds(key) {
            return false;
        }
        if shard.doomed.insert(key) {
            batch.keys.push(key);
        }
        true
    }

    /// An empty batch of deletions.
    pub(crate) fn batch(&self) -> Batch<'_> {
        Batch { leases: self, keys: Vec::new() }
    }

    /// Lets a new generation begin, where the current one is old enough, and forgets the one before it: except the
    /// leases in these repositories, which are pushed to, each with when the oldest of its open sessions was begun.
    pub(crate) fn rotate(
        &self,
        now: Timestamp,
        pushed_to: impl IntoIterator<Item = (RepositoryId, Timestamp)>,
    ) {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        if now.0 < since.0.saturating_add(self.duration()) {
            return;
        }
        *since = now;
        let mut pushes = Pushes::new();
        for (repository, begun) in pushed_to {
            let oldest = pushes.entry(repository_bits(repository)).or_insert(begun);
            *oldest = begun.min(*oldest);
        }
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            let current = std::mem::take(&mut shard.current);
            let forgotten = std::mem::replace(&mut shard.previous, current);
            shard.kept.forget(&pushes);
            shard.kept.keep(forgotten, &pushes, now);
        }
    }
}

impl Shard {
    fn holds(&self, key: LeaseKey) -> bool {
        self.current.holds(key) || self.previous.holds(key) || self.kept.holds(key)
    }
}

/// What a batch of deletions has doomed. Dropped when the batch is committed, or given up.
#[derive(Debug)]
pub(crate) struct Batch<'l> {
    leases: &'l Leases,
    keys: Vec<LeaseKey>,
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        for key in &self.keys {
            self.leases.shard(*key).doomed.remove(key);
        }
        self.leases.ended.notify_waiters();
    }
}

pub(crate) fn to_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{Algorithm, ContentHasher};

    const HOUR: u64 = 60 * 60 * 1000;

    fn key(repository: u64, number: u64) -> LeaseKey {
        let digest = ContentHasher::digest(Algorithm::Sha256, &number.to_be_bytes());
        LeaseKey::new(RepositoryId(repository), &digest)
    }

    /// Leases for which the time after the start has passed.
    fn settled() -> Leases {
        let leases = Leases::new(Timestamp(0));
        leases.rotate(Timestamp(HOUR), []);
        leases
    }

    #[test]
    fn everything_is_leased_for_one_duration_after_the_start() {
        let leases = Leases::new(Timestamp(0));
        leases.rotate(Timestamp(HOUR - 1), []);
        assert!(leases.is_leased(key(1, 1)));
        leases.rotate(Timestamp(HOUR), []);
        assert!(!leases.is_leased(key(1, 1)));
        let leases = Leases::new(Timestamp(0));
        leases.set_duration(Duration::ZERO);
        assert!(leases.try_lease(key(1, 1)) && !leases.is_leased(key(1, 1)));
    }

    #[test]
    fn a_lease_lives_for_its_duration_at_least_and_for_two_at_most() {
        let leases = settled();
        assert!(leases.try_lease(key(1, 1)));
        assert!(leases.is_leased(key(1, 1)) && !leases.is_leased(key(2, 1)) && !leases.is_leased(key(1, 2)));
        leases.rotate(Timestamp(2 * HOUR), []);
        assert!(leases.is_leased(key(1, 1)));
        leases.rotate(Timestamp(3 * HOUR - 1), []);
        assert!(leases.is_leased(key(1, 1)));
        leases.rotate(Timestamp(3 * HOUR), []);
        assert!(!leases.is_leased(key(1, 1)));
    }

    #[test]
    fn leases_live_on_for_sessions_that_are_open() {
        let push = [(RepositoryId(1), Timestamp(HOUR + 5))];
        // What is leased; and what is not known, after the start.
        for leases in [settled(), Leases::new(Timestamp(HOUR))] {
            if !leases.is_leased(key(1, 1)) {
                assert!(leases.try_lease(key(1, 1)) && leases.try_lease(key(2, 1)));
            }
            for hour in 2..6 {
                leases.rotate(Timestamp(hour * HOUR), push);
            }
            assert!(leases.is_leased(key(1, 1)) && !leases.is_leased(key(2, 1)));
            leases.rotate(Timestamp(6 * HOUR), []);
            assert!(!leases.is_leased(key(1, 1)));
        }
    }

    #[test]
    fn sessions_that_were_begun_later_keep_no_old_leases() {
        for leases in [settled(), Leases::new(Timestamp(HOUR))] {
            if !leases.is_leased(key(1, 1)) {
                assert!(leases.try_lease(key(1, 1)));
            }
            // There is always one that is half an hour old.
            let push = |hour: u64| [(RepositoryId(1), Timestamp(hour * HOUR - HOUR / 2))];
            for hour in 2..4 {
                leases.rotate(Timestamp(hour * HOUR), push(hour));
            }
            // One that is taken in between has its own time.
            assert!(leases.try_lease(key(1, 2)));
            leases.rotate(Timestamp(4 * HOUR), push(4));
            assert!(!leases.is_leased(key(1, 1)) && leases.is_leased(key(1, 2)));
        }
    }

    #[test]
    fn more_leases_than_there_is_room_for_lease_everything() {
        let leases = settled();
        let other = key(7, 7);
        let mut number = 0;
        while !leases.is_leased(other) {
            let key = key(1, number);
            if key.shard() == other.shard() {
                assert!(leases.try_lease(key));
            }
            number += 1;
        }
        assert!(number >= LEASES_MAX as u64 / 2);
        leases.rotate(Timestamp(2 * HOUR), []);
        leases.rotate(Timestamp(3 * HOUR), []);
        assert!(!leases.is_leased(other));
    }

    #[test]
    fn what_is_leased_is_not_doomed_and_what_is_doomed_is_waited_for() {
        let leases = settled();
        assert!(leases.try_lease(key(1, 1)));
        let mut batch = leases.batch();
        assert!(!leases.doom(key(1, 1), &mut batch));
        assert!(leases.doom(key(1, 2), &mut batch) && leases.doom(key(1, 2), &mut batch));
        assert!(!leases.try_lease(key(1, 2)));
        drop(batch);
        assert!(leases.try_lease(key(1, 2)));
        // The lease that came too late for one batch is seen by the next.
        assert!(!leases.doom(key(1, 2), &mut leases.batch()));
    }

    #[test]
    fn a_lease_of_what_is_doomed_is_given_when_the_batch_ends() {
        let leases = settled();
        let mut batch = leases.batch();
        assert!(leases.doom(key(1, 1), &mut batch));
        let mut lease = std::pin::pin!(leases.lease(key(1, 1)));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(lease.as_mut().poll(&mut context).is_pending());
        drop(batch);
        assert!(lease.as_mut().poll(&mut context).is_ready());
    }

    #[test]
    fn leases_and_dooms_of_many_threads_never_meet() {
        let leases = settled();
        let rounds = 20_000;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in 0..rounds {
                    let mut batch = leases.batch();
                    let _ = leases.doom(key(1, number), &mut batch);
                }
            });
            for number in 0..rounds {
                let key = key(1, number);
                let given = leases.try_lease(key);
                // Given, it holds: nobody can doom it any more.
                assert!(!given || !leases.doom(key, &mut leases.batch()), "{number}");
            }
        });
    }
}
