//! The asynchronous runtime, and the only module that knows which one it is: one single-threaded `monoio` runtime
//! on each data-plane thread, on io_uring where the kernel allows it and on epoll where it does not (the default
//! seccomp profiles of container runtimes block io_uring).
//!
//! Two rules of monoio that the whole data plane keeps:
//! * a read that was started is awaited to its end: dropping it loses the bytes it had already taken from the
//!   socket. A read that must end early is ended by `shutdown(2)` of its socket;
//! * the runtime is left only when nothing is in flight.

use std::future::Future;
use std::io;

pub use monoio::BufResult;
pub use monoio::buf::{IoBuf, IoBufMut, IoVecBuf, IoVecBufMut, RawBuf};
pub use monoio::io::{AsyncReadRent, AsyncWriteRent, AsyncWriteRentExt};
pub use monoio::net::{ListenerOpts, TcpListener, TcpStream, UnixListener, UnixStream};
pub use monoio::time::{Instant, sleep, timeout};
pub use monoio::{join, select, spawn};

/// Submission entries of a thread's ring. monoio flushes when they are used up, so this bounds nothing.
const RING_ENTRIES: u32 = 1024;

/// Threads of each data-plane thread that wait for what cannot be awaited (flushes, where io_uring is not allowed).
const BLOCKING_THREADS: usize = 4;

/// Runs `future` on a new runtime of this thread until it ends.
pub fn run<F: Future>(future: F) -> io::Result<F::Output> {
    let pool = Box::new(monoio::blocking::DefaultThreadPool::new(BLOCKING_THREADS));
    let mut runtime = monoio::RuntimeBuilder::<monoio::FusionDriver>::new()
        .with_entries(RING_ENTRIES)
        .attach_thread_pool(pool)
        .enable_timer()
        .build()?;
    Ok(runtime.block_on(future))
}

/// Whether the kernel lets this process use io_uring, with the operations that the runtime needs.
pub fn has_io_uring() -> bool {
    monoio::utils::detect_uring()
}

/// Runs `work` on a thread that may block.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    monoio::spawn_blocking(work)
        .await
        .map_err(|_| io::Error::other("the thread of a blocking operation ended before the operation"))
}

/// Gives memory that was freed, and that the allocator keeps for later, back to the system.
pub fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call has no preconditions; it locks the allocator's arenas by itself.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Lets the thread's other tasks go on.
pub async fn yield_now() {
    let mut has_yielded = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut has_yielded, true) {
            return std::task::Poll::Ready(());
        }
        context.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}
