use std::time::Duration;

use engine::integrity::ScrubReport;
use engine::metadata::Timestamp;

use super::calls::{CollectionRequest, ScrubRequest, Work};

/// When the registry begins a collection or a scrub by itself.
#[derive(Debug)]
pub(super) struct Schedule {
    collection: Option<Due>,
    scrub: Option<Due>,
}

#[derive(Debug)]
struct Due {
    interval_ms: u64,
    /// When it is time, in milliseconds since the Unix epoch.
    at_ms: u64,
}

impl Schedule {
    /// With the interval of each, which is zero for never, and when the last one began.
    pub(super) fn new(collection: (Duration, Option<u64>), scrub: (Duration, Option<&ScrubReport>)) -> Self {
        // One that was interrupted goes on.
        let scrubbed = scrub.1.filter(|last| last.ended_at_ms.is_some()).map(|last| last.began_at_ms);
        Self { collection: Due::new(collection.0, collection.1), scrub: Due::new(scrub.0, scrubbed) }
    }

    /// What is due, each once.
    pub(super) fn due(&mut self, now: Timestamp) -> Vec<Work> {
        let mut work = Vec::new();
        if self.collection.as_mut().is_some_and(|due| due.is_now(now)) {
            work.push(Work::Collection(CollectionRequest::default()));
        }
        if self.scrub.as_mut().is_some_and(|due| due.is_now(now)) {
            work.push(Work::Scrub(ScrubRequest::default()));
        }
        work
    }
}

impl Due {
    fn new(interval: Duration, last_ms: Option<u64>) -> Option<Self> {
        let interval_ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
        let at_ms = last_ms.map_or(0, |last| last.saturating_add(interval_ms));
        (interval_ms > 0).then_some(Self { interval_ms, at_ms })
    }

    /// Whether it is time; the next time is one interval later.
    fn is_now(&mut self, now: Timestamp) -> bool {
        // A clock that was set back does not put it off for longer than the interval.
        let latest = now.0.saturating_add(self.interval_ms);
        self.at_ms = self.at_ms.min(latest);
        let is_now = self.at_ms <= now.0;
        if is_now {
            self.at_ms = latest;
        }
        is_now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_due_once_an_interval() {
        let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
        let scrub =
            ScrubReport { began_at_ms: 100_000, ended_at_ms: Some(101_000), ..ScrubReport::default() };
        let mut schedule = Schedule::new((second, Some(100_000)), (minute, Some(&scrub)));
        let mut due =
            |at| schedule.due(Timestamp(at)).iter().map(|work| work.task().name()).collect::<Vec<_>>();
        assert_eq!(due(100_999), Vec::<&str>::new());
        assert_eq!(due(101_000), ["collection"]);
        assert_eq!(due(101_999), Vec::<&str>::new());
        assert_eq!(due(160_000), ["collection", "scrub"]);
        // The clock is set back.
        assert_eq!(due(10_000), Vec::<&str>::new());
        assert_eq!(due(11_000), ["collection"]);
    }

    #[test]
    fn what_never_was_is_due_at_once_and_what_is_not_wanted_never() {
        let interrupted = ScrubReport { began_at_ms: u64::MAX / 2, ..ScrubReport::default() };
        let mut schedule =
            Schedule::new((Duration::ZERO, None), (Duration::from_secs(60), Some(&interrupted)));
        assert_eq!(schedule.due(Timestamp(1)), [Work::Scrub(ScrubRequest::default())]);
        assert_eq!(schedule.due(Timestamp(2)), []);
    }
}
