//! A ring of io_uring for the disk, beside the runtime's: the runtime has no operation for most of what a disk needs.
//!
//! Every operation's memory (buffers, paths) belongs to the ring until the kernel has answered, whatever becomes of
//! the future that waits for it; that is what makes the `unsafe` below sound.

use std::any::Any;
use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};

use io_uring::{IoUring, squeue};
use slab::Slab;

/// Entries of the submission queue. It is emptied at every submission, so this bounds nothing; the completion queue
/// has twice as many, and the kernel keeps what does not fit.
const ENTRIES: u32 = 256;

/// The ring of a thread.
#[derive(Clone)]
pub(super) struct Ring(Rc<RefCell<Inner>>);

/// A ring that may be gone.
pub(super) struct WeakRing(Weak<RefCell<Inner>>);

impl WeakRing {
    pub(super) fn upgrade(&self) -> Option<Ring> {
        self.0.upgrade().map(Ring)
    }
}

struct Inner {
    ring: IoUring,
    operations: Slab<Operation>,
}

struct Operation {
    state: State,
    /// What the kernel reads or writes; handed back with the answer.
    memory: Box<dyn Any>,
}

enum State {
    Waiting(Option<Waker>),
    Done(i32),
    /// Nobody waits any more; the memory goes when the kernel has answered.
    Abandoned,
}

impl Ring {
    pub(super) fn new() -> io::Result<Self> {
        let ring = IoUring::builder().setup_single_issuer().setup_coop_taskrun().build(ENTRIES).or_else(
            |error| {
                // Kernels before 6.0 do not know the two flags.
                if super::is_unsupported(&error) { IoUring::new(ENTRIES) } else { Err(error) }
            },
        )?;
        Ok(Self(Rc::new(RefCell::new(Inner { ring, operations: Slab::new() }))))
    }

    pub(super) fn downgrade(&self) -> WeakRing {
        WeakRing(Rc::downgrade(&self.0))
    }

    /// Whether the kernel knows an operation.
    pub(super) fn supports(&self, code: u8) -> bool {
        let mut probe = io_uring::Probe::new();
        let asked = self.0.borrow().ring.submitter().register_probe(&mut probe);
        asked.is_ok() && probe.is_supported(code)
    }

    /// A descriptor that is readable when an answer has come.
    pub(super) fn duplicate_descriptor(&self) -> io::Result<OwnedFd> {
        let inner = self.0.borrow();
        // SAFETY: the ring is open for as long as `inner` is borrowed.
        let descriptor = unsafe { BorrowedFd::borrow_raw(inner.ring.as_raw_fd()) };
        Ok(rustix::io::fcntl_dupfd_cloexec(descriptor.as_fd(), 0)?)
    }

    /// Starts the operation that `entry` describes. `entry` may take addresses in `memory`.
    ///
    /// # Safety
    ///
    /// All memory and descriptors that the entry names are owned by `memory` (not borrowed), at addresses that do
    /// not change while the box of `memory` moves.
    pub(super) unsafe fn start<M: Any>(
        &self,
        memory: M,
        entry: impl FnOnce(&mut M) -> squeue::Entry,
    ) -> Started<M> {
        let mut memory = Box::new(memory);
        let entry = entry(&mut memory);
        let mut inner = self.0.borrow_mut();
        let key = inner.operations.insert(Operation { state: State::Waiting(None), memory });
        inner.submit(&entry.user_data(key as u64));
        // What the page cache or the allocator answers at once need not wait for a turn of the runtime.
        inner.reap();
        Started { ring: self.clone(), key: Some(key), memory: PhantomData }
    }

    /// Takes the answers that have come, and wakes who waits for them.
    pub(super) fn reap(&self) {
        let mut inner = self.0.borrow_mut();
        inner.reap();
        // Answers that found no room in the queue wait in the kernel until it is entered.
        while inner.ring.submission().cq_overflow() {
            inner.flush();
            inner.reap();
        }
    }
}

impl Inner {
    fn submit(&mut self, entry: &squeue::Entry) {
        loop {
            // SAFETY: what the entry names is owned by the slab's operation until `reap` sees its answer (the
            // contract of `start`), and the slab is emptied before the ring is closed (`drop`).
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                break;
            }
            self.flush();
        }
        self.flush();
    }

    fn flush(&mut self) {
        loop {
            match self.ring.submit() {
                Ok(_) => return,
                // The kernel is out of memory for requests, or answers wait to be taken.
                Err(error) if is_temporary(&error) => {
                    self.reap();
                    std::thread::yield_now();
                }
                Err(error) => unreachable!("io_uring_enter refuses a well-formed submission: {error}"),
            }
        }
    }

    fn reap(&mut self) {
        let Self { ring, operations } = self;
        for answer in ring.completion() {
            let key = answer.user_data() as usize;
            let Some(operation) = operations.get_mut(key) else { continue };
            match std::mem::replace(&mut operation.state, State::Done(answer.result())) {
                State::Waiting(Some(waker)) => waker.wake(),
                State::Waiting(None) => {}
                State::Abandoned => drop(operations.remove(key)),
                State::Done(_) => unreachable!("the kernel answers once"),
            }
        }
    }
}

fn is_temporary(error: &io::Error) -> bool {
    [libc::EAGAIN, libc::EBUSY, libc::EINTR].iter().any(|code| error.raw_os_error() == Some(*code))
}

impl Drop for Inner {
    /// Waits for what is in flight: the kernel must not write into memory that is given back.
    fn drop(&mut self) {
        loop {
            self.reap();
            self.operations.retain(|_, operation| !matches!(operation.state, State::Done(_)));
            if self.operations.is_empty() {
                return;
            }
            if let Err(error) = self.ring.submit_and_wait(1)
                && !is_temporary(&error)
            {
                // Leaking is the only thing left that is sound.
                std::mem::take(&mut self.operations).into_iter().for_each(std::mem::forget);
                return;
            }
        }
    }
}

/// An operation that was started: gives the kernel's answer and the memory back.
pub(super) struct Started<M> {
    ring: Ring,
    /// `None` once the answer was given.
    key: Option<usize>,
    memory: PhantomData<M>,
}

impl<M> Unpin for Started<M> {}

impl<M: Any> Future for Started<M> {
    type Output = (io::Result<u32>, M);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let key = self.key.expect("not polled again after its end");
        let mut inner = self.ring.0.borrow_mut();
        let operation = &mut inner.operations[key];
        if let State::Waiting(waker) = &mut operation.state {
            *waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        let operation = inner.operations.remove(key);
        drop(inner);
        self.key = None;
        let State::Done(result) = operation.state else { unreachable!("abandoned only by drop") };
        let memory = operation.memory.downcast().expect("the type that `start` put there");
        Poll::Ready((u32::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result)), *memory))
    }
}

impl<M> Drop for Started<M> {
    fn drop(&mut self) {
        let Some(key) = self.key else { return };
        let mut inner = self.ring.0.borrow_mut();
        match inner.operations[key].state {
            State::Done(_) => drop(inner.operations.remove(key)),
            _ => inner.operations[key].state = State::Abandoned,
        }
    }
}
