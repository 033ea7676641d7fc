use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A trouble that goes on is not logged more often than this.
const AGAIN_AFTER: Duration = Duration::from_secs(60);

/// Says when a trouble is worth a line in the log: when it begins, and once a minute while it goes on.
#[derive(Debug, Default)]
pub(super) struct Seldom {
    last: Mutex<Option<Instant>>,
}

impl Seldom {
    /// Whether to log it now.
    pub(super) fn is_time(&self) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let is_time = last.is_none_or(|last| last.elapsed() >= AGAIN_AFTER);
        if is_time {
            *last = Some(Instant::now());
        }
        is_time
    }

    /// The trouble is over: the next one is a new one.
    pub(super) fn reset(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_until_it_is_over() {
        let seldom = Seldom::default();
        assert_eq!([(); 3].map(|()| seldom.is_time()), [true, false, false]);
        seldom.reset();
        assert!(seldom.is_time());
    }
}
