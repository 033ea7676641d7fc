use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

/// What came of credentials.
pub(super) trait Verdict: Clone {
    /// Whether they are good.
    fn is_right(&self) -> bool;
}

/// A keyed hash of credentials, by which a verdict is remembered.
///
/// Looked up by plain comparison: without the key, which never leaves the process, a caller cannot choose what is
/// compared, so the time that it takes tells nothing.
pub(super) type CredentialsKey = [u8; 32];

/// Remembers verdicts, and who waits for those that are not there yet: of requests that carry the same credentials
/// at the same time, one verifies and the others wait for it.
pub(super) struct VerdictCache<V> {
    entries: Mutex<HashMap<CredentialsKey, Entry<V>>>,
    entries_max: usize,
}

enum Entry<V> {
    Pending(Vec<oneshot::Sender<V>>),
    Known { verdict: V, keep: Keep, expires: Instant },
}

/// How long a verdict is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// Since it was given.
    For(Duration),
    /// Since it was last used.
    SinceUse(Duration),
}

/// What the cache has to say of some credentials.
pub(super) enum Lookup<V: Verdict> {
    /// The verdict.
    Known(V),
    /// Somebody else verifies; the verdict will come. Fails when that somebody gives up.
    Wait(oneshot::Receiver<V>),
    /// The caller has to verify, and to end the flight; everybody's verdict comes from there.
    Verify(Flight<V>, oneshot::Receiver<V>),
}

/// The duty to verify. Dropped without a verdict, it lets those fail who wait, and the next one try again.
pub(super) struct Flight<V: Verdict> {
    cache: Arc<VerdictCache<V>>,
    key: CredentialsKey,
}

impl<V: Verdict> VerdictCache<V> {
    /// A cache of at most `entries_max` verdicts, pending ones among them.
    pub(super) fn new(entries_max: usize) -> Arc<Self> {
        Arc::new(Self { entries: Mutex::default(), entries_max })
    }

    pub(super) fn look_up(self: &Arc<Self>, key: CredentialsKey, now: Instant) -> Lookup<V> {
        let mut entries = self.lock();
        match entries.get_mut(&key) {
            Some(Entry::Known { verdict, keep, expires }) if *expires > now => {
                if let Keep::SinceUse(time) = keep {
                    *expires = now + *time;
                }
                return Lookup::Known(verdict.clone());
            }
            Some(Entry::Pending(waiting)) => {
                let (sender, receiver) = oneshot::channel();
                waiting.push(sender);
                return Lookup::Wait(receiver);
            }
            _ => {}
        }
        if entries.len() >= self.entries_max {
            make_room(&mut entries, now);
        }
        let (sender, receiver) = oneshot::channel();
        entries.insert(key, Entry::Pending(vec![sender]));
        Lookup::Verify(Flight { cache: self.clone(), key }, receiver)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<CredentialsKey, Entry<V>>> {
        // Nothing in here can panic half-way through a change, so a poisoned map is a whole one.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.lock().len()
    }
}

/// Forgets what has expired; where that is nothing, the wrong verdict, or else the right one, that would expire
/// first. Guessing at passwords thus never drives out those who know theirs, as long as there is a guess to forget.
fn make_room<V: Verdict>(entries: &mut HashMap<CredentialsKey, Entry<V>>, now: Instant) {
    let before = entries.len();
    entries.retain(|_, entry| !matches!(entry, Entry::Known { expires, .. } if *expires <= now));
    if entries.len() < before {
        return;
    }
    let first = entries
        .iter()
        .filter_map(|(key, entry)| match entry {
            Entry::Known { verdict, expires, .. } => Some((verdict.is_right(), *expires, *key)),
            Entry::Pending(_) => None,
        })
        .min();
    if let Some((_, _, key)) = first {
        entries.remove(&key);
    }
}

impl<V: Verdict> Flight<V> {
    /// Ends the flight: remembers the verdict, and tells it to all who wait.
    pub(super) fn land(self, verdict: V, keep: Keep, now: Instant) {
        let (Keep::For(time) | Keep::SinceUse(time)) = keep;
        let known = Entry::Known { verdict: verdict.clone(), keep, expires: now + time };
        let pending = self.cache.lock().insert(self.key, known);
        if let Some(Entry::Pending(waiting)) = pending {
            for sender in waiting {
                // A caller that has gone away needs no verdict.
                let _ = sender.send(verdict.clone());
            }
        }
    }
}

impl<V: Verdict> Drop for Flight<V> {
    fn drop(&mut self) {
        let mut entries = self.cache.lock();
        if matches!(entries.get(&self.key), Some(Entry::Pending(_))) {
            entries.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RIGHT: Keep = Keep::SinceUse(Duration::from_secs(300));
    const WRONG: Keep = Keep::For(Duration::from_secs(5));

    type Cache = Arc<VerdictCache<bool>>;

    impl Verdict for bool {
        fn is_right(&self) -> bool {
            *self
        }
    }

    fn key(n: u8) -> CredentialsKey {
        [n; 32]
    }

    fn verify(cache: &Cache, n: u8, verdict: bool, now: Instant) {
        let Lookup::Verify(flight, mut receiver) = cache.look_up(key(n), now) else {
            panic!("known already")
        };
        flight.land(verdict, if verdict { RIGHT } else { WRONG }, now);
        assert_eq!(receiver.try_recv(), Ok(verdict));
    }

    fn known(cache: &Cache, n: u8, now: Instant) -> Option<bool> {
        match cache.look_up(key(n), now) {
            Lookup::Known(verdict) => Some(verdict),
            _ => None,
        }
    }

    #[test]
    fn verdicts_expire_and_use_keeps_right_ones() {
        let cache = VerdictCache::<bool>::new(8);
        let start = Instant::now();
        verify(&cache, 1, true, start);
        verify(&cache, 2, false, start);
        assert_eq!(known(&cache, 2, start + Duration::from_millis(2500)), Some(false));
        assert_eq!(known(&cache, 2, start + Duration::from_secs(5)), None);
        let used = start + Duration::from_secs(150);
        assert_eq!(known(&cache, 1, used), Some(true));
        assert_eq!(known(&cache, 1, start + Duration::from_secs(300)), Some(true));
        assert_eq!(known(&cache, 1, start + Duration::from_secs(600)), None);
    }

    #[test]
    fn one_verifies_and_the_others_wait() {
        let cache = VerdictCache::<bool>::new(8);
        let now = Instant::now();
        let Lookup::Verify(flight, mut first) = cache.look_up(key(1), now) else { panic!("known already") };
        let Lookup::Wait(mut second) = cache.look_up(key(1), now) else { panic!("not single") };
        drop(cache.look_up(key(1), now));
        flight.land(true, RIGHT, now);
        assert_eq!((first.try_recv(), second.try_recv()), (Ok(true), Ok(true)));
    }

    #[test]
    fn a_flight_that_is_given_up_lets_the_next_one_try() {
        let cache = VerdictCache::<bool>::new(8);
        let now = Instant::now();
        let Lookup::Verify(flight, _first) = cache.look_up(key(1), now) else { panic!("known already") };
        let Lookup::Wait(mut second) = cache.look_up(key(1), now) else { panic!("not single") };
        drop(flight);
        assert_eq!(second.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        assert!(matches!(cache.look_up(key(1), now), Lookup::Verify(..)));
    }

    #[test]
    fn the_bound_holds_and_guesses_go_first() {
        let cache = VerdictCache::<bool>::new(4);
        let start = Instant::now();
        verify(&cache, 0, true, start);
        for n in 1..100u8 {
            verify(&cache, n, false, start + Duration::from_millis(u64::from(n)));
            assert!(cache.len() <= 4);
        }
        assert_eq!(known(&cache, 0, start), Some(true));
        assert_eq!(known(&cache, 99, start), Some(false));
    }
}
