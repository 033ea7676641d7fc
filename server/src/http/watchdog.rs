//! Ends connections that wait too long, without a timer for each wait.
//!
//! A read in flight is never dropped (see `engine::runtime`), so a wait is ended by shutting the socket down: the read
//! then comes back with nothing. One task on each thread looks over the thread's connections twice a second.

use std::cell::{Cell, RefCell};
use std::os::fd::{BorrowedFd, RawFd};
use std::rc::Rc;
use std::time::Duration;

use engine::runtime::{self, Instant};
use rustix::net::Shutdown;
use slab::Slab;

const PERIOD: Duration = Duration::from_millis(500);

/// The connections of a thread.
#[derive(Clone, Default)]
pub struct Watchdog(Rc<RefCell<Slab<Rc<Entry>>>>);

struct Entry {
    socket: RawFd,
    due: Cell<Option<Instant>>,
    wait: Cell<Wait>,
    has_expired: Cell<bool>,
}

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// Waiting for a request to begin.
    Idle,
    /// Receiving: it can still be told why it is ended.
    Reading,
    /// Sending.
    Writing,
    /// Working.
    Busy,
}

impl Watchdog {
    /// Watches until the thread's runtime ends. Spawned once on each thread.
    pub async fn watch(self) {
        loop {
            runtime::sleep(PERIOD).await;
            let now = Instant::now();
            for (_, entry) in self.0.borrow().iter() {
                if entry.due.get().is_some_and(|due| due <= now) {
                    entry.due.set(None);
                    entry.has_expired.set(true);
                    entry.shut_down();
                }
            }
        }
    }

    /// Connections of the thread.
    pub fn connections(&self) -> usize {
        self.0.borrow().len()
    }

    /// Ends the connections that have no request at the moment.
    pub fn end_idle(&self) {
        self.end(|wait| wait == Wait::Idle);
    }

    /// Ends all connections.
    pub fn end_all(&self) {
        self.end(|_| true);
    }

    fn end(&self, which: impl Fn(Wait) -> bool) {
        for (_, entry) in self.0.borrow().iter() {
            if which(entry.wait.get()) {
                entry.shut_down();
            }
        }
    }

    /// Watches a connection. `socket` stays open until what is returned is dropped.
    pub(super) fn add(&self, socket: RawFd) -> Watched {
        let entry = Rc::new(Entry {
            socket,
            due: Cell::new(None),
            wait: Cell::new(Wait::Idle),
            has_expired: Cell::new(false),
        });
        let key = self.0.borrow_mut().insert(entry.clone());
        Watched { watchdog: self.clone(), key, entry }
    }
}

impl Entry {
    fn shut_down(&self) {
        let how = match self.wait.get() {
            Wait::Idle | Wait::Reading => Shutdown::Read,
            Wait::Writing | Wait::Busy => Shutdown::Both,
        };
        // SAFETY: the entry leaves the watchdog before its connection closes the socket (`Watched`).
        let socket = unsafe { BorrowedFd::borrow_raw(self.socket) };
        // A socket that the peer has closed is no longer connected: then there is nothing to end.
        let _ = rustix::net::shutdown(socket, how);
    }
}

/// A connection under watch.
pub(super) struct Watched {
    watchdog: Watchdog,
    key: usize,
    entry: Rc<Entry>,
}

impl Watched {
    /// Says what the connection waits for from now on, and for how long at most.
    pub(super) fn wait(&self, wait: Wait, limit: Duration) {
        self.entry.wait.set(wait);
        self.entry.due.set(Some(Instant::now() + limit));
    }

    /// Whether a wait has taken too long, so that the connection was shut down.
    pub(super) fn has_expired(&self) -> bool {
        self.entry.has_expired.get()
    }

    /// Says that the connection waits for nothing that the peer does.
    pub(super) fn work(&self) {
        self.entry.wait.set(Wait::Busy);
        self.entry.due.set(None);
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.watchdog.0.borrow_mut().remove(self.key);
    }
}
