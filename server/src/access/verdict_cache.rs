use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

/// What came of a pair of user name and password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Right,
    Wrong,
}

/// A keyed hash of a user name and a password, by which a verdict is remembered.
///
/// Looked up by plain comparison: without the key, which never leaves the process, a caller cannot choose what is
/// compared, so the time that it takes tells nothing.
pub(super) type CredentialsKey = [u8; 32];

/// Remembers verdicts, and who waits for those that are not there yet: of requests that carry the same credentials
/// at the same time, one verifies and the others wait for it.
pub(super) struct VerdictCache {
    entries: Mutex<HashMap<CredentialsKey, Entry>>,
    entries_max: usize,
}

enum Entry {
    Pending(Vec<oneshot::Sender<Verdict>>),
    Known { verdict: Verdict, expires: Instant },
}

/// What the cache has to say of some credentials.
pub(super) enum Lookup {
    /// The verdict.
    Known(Verdict),
    /// Somebody else verifies; the verdict will come. Fails when that somebody gives up.
    Wait(oneshot::Receiver<Verdict>),
    /// The caller has to verify, and to end the flight; everybody's verdict comes from there.
    Verify(Flight, oneshot::Receiver<Verdict>),
}

/// The duty to verify. Dropped without a verdict, it lets those fail who wait, and the next one try again.
pub(super) struct Flight {
    cache: Arc<VerdictCache>,
    key: CredentialsKey,
}

impl VerdictCache {
    /// How long a right password is remembered after it was last used. The hashes do not change while the process
    /// lives, so such a verdict stays true; it is forgotten to have the room.
    pub(super) const RIGHT_TTL: Duration = Duration::from_secs(5 * 60);
    /// How long a wrong password is remembered: enough to make a client cheap that tries in a loop.
    pub(super) const WRONG_TTL: Duration = Duration::from_secs(5);

    /// A cache of at most `entries_max` verdicts, pending ones among them.
    pub(super) fn new(entries_max: usize) -> Arc<Self> {
        Arc::new(Self { entries: Mutex::default(), entries_max })
    }

    pub(super) fn look_up(self: &Arc<Self>, key: CredentialsKey, now: Instant) -> Lookup {
        let mut entries = self.lock();
        match entries.get_mut(&key) {
            Some(Entry::Known { verdict, expires }) if *expires > now => {
                if *verdict == Verdict::Right {
                    *expires = now + Self::RIGHT_TTL;
                }
                return Lookup::Known(*verdict);
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

    fn lock(&self) -> MutexGuard<'_, HashMap<CredentialsKey, Entry>> {
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
fn make_room(entries: &mut HashMap<CredentialsKey, Entry>, now: Instant) {
    let before = entries.len();
    entries.retain(|_, entry| !matches!(entry, Entry::Known { expires, .. } if *expires <= now));
    if entries.len() < before {
        return;
    }
    let first = entries
        .iter()
        .filter_map(|(key, entry)| match entry {
            Entry::Known { verdict, expires } => Some((*verdict == Verdict::Right, *expires, *key)),
            Entry::Pending(_) => None,
        })
        .min();
    if let Some((_, _, key)) = first {
        entries.remove(&key);
    }
}

impl Flight {
    /// Ends the flight: remembers the verdict, and tells it to all who wait.
    pub(super) fn land(self, verdict: Verdict, now: Instant) {
        let ttl = match verdict {
            Verdict::Right => VerdictCache::RIGHT_TTL,
            Verdict::Wrong => VerdictCache::WRONG_TTL,
        };
        let pending = self.cache.lock().insert(self.key, Entry::Known { verdict, expires: now + ttl });
        if let Some(Entry::Pending(waiting)) = pending {
            for sender in waiting {
                // A caller that has gone away needs no verdict.
                let _ = sender.send(verdict);
            }
        }
    }
}

impl Drop for Flight {
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

    fn key(n: u8) -> CredentialsKey {
        [n; 32]
    }

    fn verify(cache: &Arc<VerdictCache>, n: u8, verdict: Verdict, now: Instant) {
        let Lookup::Verify(flight, mut receiver) = cache.look_up(key(n), now) else {
            panic!("known already")
        };
        flight.land(verdict, now);
        assert_eq!(receiver.try_recv(), Ok(verdict));
    }

    fn known(cache: &Arc<VerdictCache>, n: u8, now: Instant) -> Option<Verdict> {
        match cache.look_up(key(n), now) {
            Lookup::Known(verdict) => Some(verdict),
            _ => None,
        }
    }

    #[test]
    fn verdicts_expire_and_use_keeps_right_ones() {
        let cache = VerdictCache::new(8);
        let start = Instant::now();
        verify(&cache, 1, Verdict::Right, start);
        verify(&cache, 2, Verdict::Wrong, start);
        assert_eq!(known(&cache, 2, start + VerdictCache::WRONG_TTL / 2), Some(Verdict::Wrong));
        assert_eq!(known(&cache, 2, start + VerdictCache::WRONG_TTL), None);
        let used = start + VerdictCache::RIGHT_TTL / 2;
        assert_eq!(known(&cache, 1, used), Some(Verdict::Right));
        assert_eq!(known(&cache, 1, start + VerdictCache::RIGHT_TTL), Some(Verdict::Right));
        assert_eq!(known(&cache, 1, start + VerdictCache::RIGHT_TTL * 2), None);
    }

    #[test]
    fn one_verifies_and_the_others_wait() {
        let cache = VerdictCache::new(8);
        let now = Instant::now();
        let Lookup::Verify(flight, mut first) = cache.look_up(key(1), now) else { panic!("known already") };
        let Lookup::Wait(mut second) = cache.look_up(key(1), now) else { panic!("not single") };
        drop(cache.look_up(key(1), now));
        flight.land(Verdict::Right, now);
        assert_eq!((first.try_recv(), second.try_recv()), (Ok(Verdict::Right), Ok(Verdict::Right)));
    }

    #[test]
    fn a_flight_that_is_given_up_lets_the_next_one_try() {
        let cache = VerdictCache::new(8);
        let now = Instant::now();
        let Lookup::Verify(flight, _first) = cache.look_up(key(1), now) else { panic!("known already") };
        let Lookup::Wait(mut second) = cache.look_up(key(1), now) else { panic!("not single") };
        drop(flight);
        assert_eq!(second.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        assert!(matches!(cache.look_up(key(1), now), Lookup::Verify(..)));
    }

    #[test]
    fn the_bound_holds_and_guesses_go_first() {
        let cache = VerdictCache::new(4);
        let start = Instant::now();
        verify(&cache, 0, Verdict::Right, start);
        for n in 1..100u8 {
            verify(&cache, n, Verdict::Wrong, start + Duration::from_millis(u64::from(n)));
            assert!(cache.len() <= 4);
        }
        assert_eq!(known(&cache, 0, start), Some(Verdict::Right));
        assert_eq!(known(&cache, 99, start), Some(Verdict::Wrong));
    }
}
