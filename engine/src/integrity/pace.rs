use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// The longest time that nobody is asked whether it goes on.
const REST_MAX: Duration = Duration::from_millis(100);

/// How much may be behind the pace before that is forgiven: a disk that was busy is not made up for with a burst.
const BEHIND_MAX: Duration = Duration::from_secs(1);

/// Keeps to so many bytes a second.
#[derive(Debug)]
pub(super) struct Pace {
    /// 0: as fast as it goes.
    bytes_per_second: u64,
    /// When the next bytes may be taken.
    due: Instant,
}

impl Pace {
    pub(super) fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second, due: Instant::now() }
    }

    /// Takes so many bytes; how long to wait for that from `now` on.
    fn take(&mut self, bytes: u64, now: Instant) -> Duration {
        if self.bytes_per_second == 0 {
            return Duration::ZERO;
        }
        // In whole nanoseconds: a pace is not lost by rounding.
        let ns = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second);
        let cost = Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX));
        let earliest = now.checked_sub(BEHIND_MAX).unwrap_or(now);
        let due = self.due.max(earliest);
        self.due = due.checked_add(cost).unwrap_or(due);
        self.due.saturating_duration_since(now)
    }

    /// Waits until so many bytes were due that have been read, unless `goes_on` breaks that.
    pub(super) fn keep(&mut self, bytes: u64, goes_on: &dyn Fn() -> ControlFlow<()>) -> ControlFlow<()> {
        let mut left = self.take(bytes, Instant::now());
        loop {
            goes_on()?;
            if left.is_zero() {
                return ControlFlow::Continue(());
            }
            let rest = left.min(REST_MAX);
            std::thread::sleep(rest);
            left -= rest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_waited_for() {
        let start = Instant::now();
        let mut pace = Pace { bytes_per_second: 1000, due: start };
        assert_eq!(pace.take(500, start), Duration::from_millis(500));
        assert_eq!(pace.take(500, start), Duration::from_millis(1000));
        assert_eq!(pace.take(500, start + Duration::from_millis(1500)), Duration::ZERO);
        // After an hour in which nothing could be read, no hour is made up for.
        let later = start + Duration::from_secs(3600);
        assert_eq!(pace.take(1000, later), Duration::ZERO);
        assert_eq!(pace.take(1000, later), Duration::from_secs(1));
        assert_eq!(Pace::new(0).take(u64::MAX, start), Duration::ZERO);
        assert!(Pace::new(1).take(u64::MAX, start) > Duration::from_secs(1 << 30));
    }

    #[test]
    fn a_break_ends_the_waiting() {
        let mut pace = Pace::new(1);
        assert!(pace.keep(u64::MAX, &|| ControlFlow::Break(())).is_break());
    }
}
