use std::time::{Duration, Instant};

/// How long a thread computes before it lets others go first.
const SPELL: Duration = Duration::from_micros(500);

/// The time for which a thread has computed without a break. One that goes on for milliseconds keeps those waiting that
/// a socket has just woken on its processor: the kernel takes it off after 3 ms or so, which is more than a small transfer
/// takes as a whole.
pub(super) struct Spell(Instant);

impl Spell {
    pub(super) fn begin() -> Self {
        Self(Instant::now())
    }

    /// Lets others go first, where it has been long enough. Costs next to nothing where nobody waits.
    pub(super) fn pause(&mut self) {
        if self.0.elapsed() >= SPELL {
            std::thread::yield_now();
            self.0 = Instant::now();
        }
    }
}
