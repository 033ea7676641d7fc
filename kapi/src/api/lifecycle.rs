//! How far the program is from its end.

use tokio::sync::watch;

/// Where the program is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// It serves.
    Serving,
    /// It serves on, while it says that it is not ready, so that nothing new is sent here.
    Draining,
    /// It ends: connections are told to go, and watches end.
    Ending,
}

/// Tells all parts where the program is. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Lifecycle {
    phase: watch::Sender<Phase>,
}

impl Lifecycle {
    /// At the start.
    pub fn new() -> Self {
        Self { phase: watch::Sender::new(Phase::Serving) }
    }

    /// The phase.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Enters a phase; there is no way back.
    pub fn enter(&self, phase: Phase) {
        self.phase.send_if_modified(|current| {
            let is_new = *current < phase;
            if is_new {
                *current = phase;
            }
            is_new
        });
    }

    /// Waits until the end is near.
    pub async fn draining(&self) {
        self.reached(Phase::Draining).await;
    }

    /// Waits for the end.
    pub async fn ending(&self) {
        self.reached(Phase::Ending).await;
    }

    async fn reached(&self, phase: Phase) {
        let mut phases = self.phase.subscribe();
        // It fails where the sender is gone, and that is here.
        let _ = phases.wait_for(|current| *current >= phase).await;
    }
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self::new()
    }
}
