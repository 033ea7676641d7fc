use std::sync::atomic::{AtomicBool, Ordering};

/// What is done by one at a time.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    pub(super) scrub: AtomicBool,
    pub(super) check: AtomicBool,
    pub(super) export: AtomicBool,
}

/// The right to do something that one does at a time, for as long as this lives.
pub(super) struct Turn<'t>(&'t AtomicBool);

impl<'t> Turn<'t> {
    /// `None` where another one has it.
    pub(super) fn take(taken: &'t AtomicBool) -> Option<Self> {
        (!taken.swap(true, Ordering::Acquire)).then_some(Self(taken))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}
