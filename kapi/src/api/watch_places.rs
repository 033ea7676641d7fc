//! How many watches there may be.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use interface::Caller;

use super::status::Refusal;

/// Watches at once, beside those of the cluster's own controllers, which no crowd may lock out. Each is a call that waits
/// at the registry, which has room for some more than these; nobody else counts them, as the kube-apiserver's own limits
/// let go of a watch once it has begun.
const WATCHES_MAX: usize = 1000;

/// Watches at once of one user, so that none takes the places of all others: more than any program needs that watches
/// namespace by namespace.
const WATCHES_OF_A_USER_MAX: usize = 100;

/// The places that watches take.
#[derive(Clone, Debug, Default)]
pub(super) struct WatchPlaces(Arc<Mutex<Taken>>);

#[derive(Debug, Default)]
struct Taken {
    count: usize,
    /// Of each user that has any.
    of_users: HashMap<String, usize>,
}

/// A place; it is free again when this is dropped.
#[derive(Debug)]
pub(super) struct WatchPlace {
    places: WatchPlaces,
    user: String,
}

impl WatchPlaces {
    /// A place for one more watch; `None` for those who need none. 429 where there is none left.
    pub(super) fn take(&self, caller: &Caller) -> Result<Option<WatchPlace>, Refusal> {
        let Caller::User { name, .. } = caller else { return Ok(None) };
        let mut taken = self.lock();
        if taken.count >= WATCHES_MAX {
            let message = format!("there are {WATCHES_MAX} watches, which is as many as there may be");
            return Err(Refusal::too_many(message));
        }
        let of_user = taken.of_users.entry(name.clone()).or_default();
        if *of_user >= WATCHES_OF_A_USER_MAX {
            return Err(Refusal::too_many(format!(
                "User {name:?} has {WATCHES_OF_A_USER_MAX} watches, which is as many as one may have; end some, or watch all \
                 namespaces by one"
            )));
        }
        *of_user += 1;
        taken.count += 1;
        Ok(Some(WatchPlace { places: self.clone(), user: name.clone() }))
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        // Nothing in here can panic half-way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for WatchPlace {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        taken.count -= 1;
        if let Some(of_user) = taken.of_users.get_mut(&self.user) {
            *of_user -= 1;
            if *of_user == 0 {
                taken.of_users.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> Caller {
        Caller::User { name: name.to_owned(), groups: Vec::new() }
    }

    #[test]
    fn nobody_takes_all_places_and_each_is_given_back() {
        let places = WatchPlaces::default();
        let take = |name: &str, count| -> Vec<_> {
            (0..count).map(|_| places.take(&user(name)).expect("a place")).collect()
        };
        let is_refused =
            |name: &str| places.take(&user(name)).is_err_and(|refusal| refusal.code().as_u16() == 429);
        let mut janes = take("jane", WATCHES_OF_A_USER_MAX);
        assert!(is_refused("jane"));
        let johns = take("john", 1);
        janes.pop();
        janes.extend(take("jane", 1));
        assert!(is_refused("jane"));

        let left = WATCHES_MAX - WATCHES_OF_A_USER_MAX - 1;
        let others: Vec<_> = (0..left).flat_map(|number| take(&number.to_string(), 1)).collect();
        assert!(is_refused("john") && is_refused("somebody else"));
        // Controllers are not counted.
        let controller = Caller::Unrestricted { name: "controller".to_owned() };
        assert!(places.take(&controller).is_ok_and(|place| place.is_none()));
        drop((janes, johns, others));
        let taken = places.lock();
        assert_eq!((taken.count, taken.of_users.len()), (0, 0));
    }
}
