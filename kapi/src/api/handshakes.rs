//! Connections that have not shaken hands: so many at once, and where one more comes, the oldest goes.
//!
//! Connections are always accepted, so that nobody who connects and says nothing keeps the front proxy out: that one shakes
//! hands in milliseconds, and is displaced only if [`HANDSHAKES_MAX`] others come meanwhile.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Connections at once that have not shaken hands.
pub(super) const HANDSHAKES_MAX: usize = 256;

/// The handshakes that go on.
#[derive(Clone, Debug, Default)]
pub(super) struct Handshakes(Arc<Mutex<Unfinished>>);

#[derive(Debug, Default)]
struct Unfinished {
    /// How many have begun.
    begun: u64,
    /// Those that go on, the oldest first. What is dropped here is displaced.
    places: BTreeMap<u64, oneshot::Sender<Infallible>>,
}

/// A handshake that goes on, until this is dropped.
#[derive(Debug)]
pub(super) struct Handshake {
    handshakes: Handshakes,
    number: u64,
    place: oneshot::Receiver<Infallible>,
}

impl Handshakes {
    /// Begins one more, in place of the oldest where there are too many.
    pub(super) fn begin(&self) -> Handshake {
        let (sender, place) = oneshot::channel();
        let mut unfinished = self.lock();
        if unfinished.places.len() >= HANDSHAKES_MAX {
            unfinished.places.pop_first();
        }
        unfinished.begun += 1;
        let number = unfinished.begun;
        unfinished.places.insert(number, sender);
        Handshake { handshakes: self.clone(), number, place }
    }

    fn lock(&self) -> MutexGuard<'_, Unfinished> {
        // Nothing in here can panic half-way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Handshake {
    /// Waits until a newer one has taken the place of this one.
    pub(super) async fn displaced(&mut self) {
        // Nothing is ever sent: the other end is dropped.
        let _ = (&mut self.place).await;
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.handshakes.lock().places.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn the_oldest_of_those_that_go_on_is_displaced() {
        let handshakes = Handshakes::default();
        let mut begun: Vec<Handshake> = (0..HANDSHAKES_MAX).map(|_| handshakes.begin()).collect();
        let finished = begun.remove(0);
        drop(finished);
        begun.push(handshakes.begin());
        assert!(begun.iter_mut().all(|one| one.displaced().now_or_never().is_none()), "there was room");
        begun.push(handshakes.begin());
        let displaced: Vec<bool> =
            begun.iter_mut().map(|one| one.displaced().now_or_never().is_some()).collect();
        assert!(displaced[0] && !displaced[1..].contains(&true));
        drop(begun);
        assert!(handshakes.lock().places.is_empty());
    }
}
