use std::time::Duration;

/// How long to wait before the next attempt: twice as long each time, up to a limit.
#[derive(Clone, Debug)]
pub(super) struct Backoff {
    first: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    /// Waits `first` after the first failure and `max` at most.
    pub(super) fn new(first: Duration, max: Duration) -> Self {
        Self { first, max, next: first }
    }

    /// For calls to the registry: it is near, and back within moments when it is restarted.
    pub(super) fn registry() -> Self {
        Self::new(Duration::from_millis(100), Duration::from_secs(3))
    }

    /// For calls to the API server, which has many to serve after an outage.
    pub(super) fn api_server() -> Self {
        Self::new(Duration::from_millis(500), Duration::from_secs(15))
    }

    /// The time to wait now, after one more failure.
    pub(super) fn delay(&mut self) -> Duration {
        let delay = self.next;
        self.next = self.max.min(delay * 2);
        delay
    }

    /// The last attempt was good.
    pub(super) fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_limit_and_begin_again() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
        let seconds = [1, 2, 4, 5, 5].map(Duration::from_secs);
        assert_eq!(seconds.map(|_| backoff.delay()), seconds);
        backoff.reset();
        assert_eq!(backoff.delay(), Duration::from_secs(1));
    }
}
