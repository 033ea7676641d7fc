//! Serving: one thread a core, each with its own listener, ring, buffers and connections; and the end of it all.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use engine::runtime::{self, Instant, TcpListener};
use engine::{Core, Engine, EngineError, EngineOptions, Environment, OpenError, Quotas};
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, sockopt};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tokio::sync::watch;

use crate::access::{AccessPolicy, Authenticator, Authority};
use crate::administration::Administration;
use crate::http::{Connection, Limits, Watchdog};
use crate::operations::Metrics;
use crate::private::{Private, PrivateError};
use crate::registry::{Internals, Registry, Rules, Shared};
use crate::settings::{Settings, WriteMode};

/// Connections that wait to be accepted, on each listener.
const BACKLOG: i32 = 4096;

/// Bytes of large buffers that all threads together may have in use.
const BUFFER_BYTES: usize = 256 << 20;

/// How often a thread looks after itself.
const TIDY_PERIOD: Duration = Duration::from_secs(1);

/// Of these, one in so many looks for upload sessions that have expired.
const TIDIES_TO_EXPIRY: u64 = 60;

/// How often a thread that is stopping looks whether its connections have ended.
const STOPPING_PERIOD: Duration = Duration::from_millis(20);

/// How long connections that were cut may take to notice.
const CUT_TIME: Duration = Duration::from_secs(3);

/// How long an address that is in use is tried again.
const ADDRESS_WAIT: Duration = Duration::from_secs(2);

/// How long a thread waits before it accepts again, when there are no descriptors.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Why serving did not begin, or not end well.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The store.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The address.
    #[error("cannot listen on {address}: {source}{hint}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
        /// What to do.
        hint: &'static str,
    },
    /// The private interface.
    #[error(transparent)]
    Private(#[from] PrivateError),
    /// What was done before cannot be looked up.
    #[error("cannot look up when garbage was collected last: {0}")]
    Look(EngineError),
    /// A thread, a ring, a signal.
    #[error("cannot start: {0}")]
    Start(#[from] io::Error),
    /// The sessions could not be saved.
    #[error("upload sessions could not be saved at the end, and clients must begin them anew: {0}")]
    Save(EngineError),
}

/// Serves until SIGTERM or SIGINT, then lets running transfers end within the limit that is set. `announce` is called
/// with the address once connections are accepted.
pub fn serve(settings: &Settings, announce: impl FnOnce(SocketAddr)) -> Result<(), ServeError> {
    raise_descriptor_limit();
    // Before anything else, so that a signal that comes early is not lost.
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let threads = settings.worker_threads();
    let engine = Engine::open(engine_options(settings, threads), Environment::system())?;
    let authority = Arc::new(Authority::new(settings.kubernetes.enabled)?);
    let metrics = Metrics::default();
    let (gc, scrub) = (settings.gc.clone(), settings.scrub.clone());
    let administration =
        Administration::new(engine.clone(), gc, scrub, metrics.upkeep()).map_err(ServeError::Look)?;
    let shared = Arc::new(Shared {
        rules: Rules {
            manifest_size_max: settings.limits.manifest_size.bytes(),
            allows_delete: settings.delete.enabled,
            needs_namespace: settings.needs_namespace(),
            retention: settings.gc.retention.clone(),
        },
        authenticator: Authenticator::new(Arc::new(settings.users.clone()), authority.clone())?,
        policy: AccessPolicy::new(&settings.users, settings.anonymous_access(), authority.clone()),
        authority,
        administration,
        metrics,
        internals: Internals::default(),
        connections: AtomicUsize::new(0),
        is_stopping: AtomicBool::new(false),
    });
    let (address, listeners) = listen(settings.listen, threads)?;
    let private =
        Private::start(&settings.private, &settings.root, engine.clone(), shared.clone(), limits(settings))?;

    let (stop, stopping) = watch::channel(());
    let (started, starting) = mpsc::channel();
    let mut handles = Vec::with_capacity(threads);
    for (index, listener) in listeners.into_iter().enumerate() {
        let worker = Worker {
            engine: engine.clone(),
            shared: shared.clone(),
            limits: limits(settings),
            connections_max: settings.http.connections_max.get() as usize,
            drain: settings.shutdown.drain.get(),
            is_first: index == 0,
        };
        let (started, stopping) = (started.clone(), stopping.clone());
        let run = move || match runtime::run(worker.run(listener, stopping, started.clone())) {
            Ok(()) => {}
            Err(error) => drop(started.send(Err(error))),
        };
        handles.push(thread::Builder::new().name(format!("core-{index}")).spawn(run)?);
    }
    drop((started, stopping));
    for _ in 0..threads {
        starting.recv().map_err(|_| io::Error::other("a thread ended before it had begun"))??;
    }
    if !runtime::has_io_uring() {
        tracing::warn!(
            "the kernel does not let this process use io_uring: serving by epoll and blocking calls, which costs more CPU"
        );
    }
    tracing::info!(%address, root = %settings.root.display(), threads, io_uring = runtime::has_io_uring(), "serving");
    announce(address);

    let signal = signals.forever().next();
    tracing::info!(signal, limit = ?settings.shutdown.drain.get(), "stopping: no new connections; running transfers may end");
    shared.is_stopping.store(true, Ordering::Relaxed);
    shared.administration.begin_stop();
    drop(stop);
    for handle in handles {
        if handle.join().is_err() {
            tracing::error!("a thread ended by a panic");
        }
    }
    // Logins of the last requests may have needed it.
    if let Some(private) = private {
        private.stop();
    }
    shared.administration.wait_for_end();
    engine.save_uploads().map_err(ServeError::Save)?;
    tracing::info!("stopped");
    Ok(())
}

/// What the settings are for the engine.
pub(crate) fn engine_options(settings: &Settings, threads: usize) -> EngineOptions {
    EngineOptions {
        root: settings.root.clone(),
        direct_writes: settings.storage.writes != WriteMode::Buffered,
        reserve_bytes: settings.storage.reserve.bytes(),
        cache_bytes: usize::try_from(settings.storage.cache.bytes()).unwrap_or(usize::MAX),
        buffer_bytes: BUFFER_BYTES / threads,
        upload_expiry: settings.uploads.expiry.get(),
        quotas: Quotas {
            default: settings.quotas.default.bytes(),
            namespaces: settings
                .quotas
                .namespaces
                .iter()
                .map(|(name, quota)| (name.to_owned(), quota.bytes()))
                .collect(),
        },
    }
}

fn limits(settings: &Settings) -> Limits {
    let http = &settings.http;
    Limits {
        head_time: http.head_timeout.get(),
        idle_time: http.idle_timeout.get(),
        body_time: http.body_timeout.get(),
        head_size: usize::try_from(http.head_size_max.bytes()).unwrap_or(usize::MAX),
        headers: http.headers_max.get() as usize,
    }
}

/// Every connection and every blob that is sent takes a descriptor.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

/// A listener for each thread, all on one address; the kernel spreads connections over them.
fn listen(address: SocketAddr, threads: usize) -> Result<(SocketAddr, Vec<StdListener>), ServeError> {
    let failed = |error: io::Error| {
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "; another program listens there: stop it, or give this one another --listen"
            }
            io::ErrorKind::PermissionDenied => {
                "; ports below 1024 need privileges: take another one by --listen"
            }
            io::ErrorKind::AddrNotAvailable => {
                "; this machine has no such address: take another one by --listen"
            }
            _ => "",
        };
        ServeError::Listen { address, source: error, hint }
    };
    let first = bind_first(address).map_err(failed)?;
    let address = first.local_addr().map_err(failed)?;
    let mut listeners = vec![first];
    for _ in 1..threads {
        listeners.push(bind(address, Sharing::BeforeBind).map_err(failed)?);
    }
    Ok((address, listeners))
}

/// When a listener says that it shares its port.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sharing {
    /// Listeners that share a port also share it with those of another process, unnoticed. The first one binds as if it
    /// did not, so that an address that is in use is found out, and a free port is really free.
    AfterBind,
    BeforeBind,
}

/// A program that has just ended may hold its address for some milliseconds: the kernel takes its rings down after it
/// is gone. So an address in use is tried again for a while before it is an error.
fn bind_first(address: SocketAddr) -> io::Result<StdListener> {
    let give_up_at = std::time::Instant::now() + ADDRESS_WAIT;
    loop {
        match bind(address, Sharing::AfterBind) {
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse && std::time::Instant::now() < give_up_at =>
            {
                thread::sleep(ACCEPT_PAUSE);
            }
            answer => return answer,
        }
    }
}

fn bind(address: SocketAddr, sharing: Sharing) -> io::Result<StdListener> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    sockopt::set_socket_reuseport(&socket, sharing == Sharing::BeforeBind)?;
    rustix::net::bind(&socket, &address)?;
    sockopt::set_socket_reuseport(&socket, true)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(StdListener::from(socket))
}

/// What one thread does.
struct Worker {
    engine: Engine,
    shared: Arc<Shared>,
    limits: Limits,
    connections_max: usize,
    drain: Duration,
    is_first: bool,
}

impl Worker {
    async fn run(
        self,
        listener: StdListener,
        mut stopping: watch::Receiver<()>,
        started: mpsc::Sender<io::Result<()>>,
    ) {
        let begun = listener.set_nonblocking(true).and_then(|()| TcpListener::from_std(listener));
        let (core, listener) = match begun.and_then(|listener| Ok((self.engine.core()?, listener))) {
            Ok(begun) => begun,
            Err(error) => return drop(started.send(Err(error))),
        };
        if self.is_first
            && let Err(error) = self.shared.administration.end_dead_window(&core).await
        {
            tracing::warn!(%error, "a collection that has died keeps the registry read-only until its time is over");
        }
        let watchdog = Watchdog::default();
        runtime::spawn(watchdog.clone().watch());
        runtime::spawn(look_after(core.clone(), self.is_first.then(|| self.shared.clone())));
        // The receiver waits for every thread.
        let _ = started.send(Ok(()));

        let registry = Rc::new(Registry::new(core.clone(), self.shared.clone(), first_request_id()));
        let limits = Rc::new(self.limits);
        loop {
            let mut accepting = std::pin::pin!(listener.accept());
            let accepted = runtime::select! {
                accepted = &mut accepting => accepted,
                _ = stopping.changed() => {
                    // Nobody can connect from here on. What is being accepted is awaited to its end, as a connection
                    // that came in this moment would otherwise be left without an answer.
                    stop_listening(&listener);
                    accepting.as_mut().await
                }
            };
            let is_stopping = self.shared.is_stopping.load(Ordering::Relaxed);
            match accepted {
                Ok((stream, _)) => {
                    // Without it an answer of several pieces may wait for the acknowledgement of the first.
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "a connection ended as it began");
                        continue;
                    }
                    let buffers = core.buffers().clone();
                    let connection =
                        Connection::new(stream, buffers, limits.clone(), registry.clone(), &watchdog);
                    let counted = CountedConnection::new(self.shared.clone());
                    let is_too_many = counted.number > self.connections_max;
                    let task = async move {
                        if is_too_many {
                            // One that is turned away takes nobody's place.
                            drop(counted);
                            connection.turn_away().await;
                        } else {
                            connection.run().await;
                            drop(counted);
                        }
                    };
                    runtime::spawn(CatchPanic::new(task));
                }
                Err(_) if is_stopping => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection; trying again");
                    runtime::sleep(ACCEPT_PAUSE).await;
                }
            }
            if is_stopping {
                break;
            }
        }
        // The program may have said that it stops before it woke this thread.
        stop_listening(&listener);
        stop_connections(&watchdog, self.drain).await;
    }
}

/// Ends the listening at once; closing the listener would do so only when nothing of the kernel refers to it any more.
pub(crate) fn stop_listening(listener: &impl AsRawFd) {
    // SAFETY: the listener is open for as long as it is borrowed.
    let socket = unsafe { BorrowedFd::borrow_raw(listener.as_raw_fd()) };
    if let Err(error) = rustix::net::shutdown(socket, Shutdown::Both) {
        tracing::debug!(%error, "the listener had ended already");
    }
}

/// A connection that counts among those of all threads.
struct CountedConnection {
    shared: Arc<Shared>,
    /// How many there were when it began, with itself.
    number: usize,
}

impl CountedConnection {
    fn new(shared: Arc<Shared>) -> Self {
        let number = shared.connections.fetch_add(1, Ordering::Relaxed) + 1;
        Self { shared, number }
    }
}

impl Drop for CountedConnection {
    fn drop(&mut self) {
        self.shared.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Where a thread's names of requests begin: at random, so that they differ between threads and processes.
pub(crate) fn first_request_id() -> u64 {
    let random = Environment::system().entropy.random();
    u64::from_le_bytes(random[..8].try_into().unwrap_or_default())
}

/// Lets running transfers end; cuts them when the limit is reached.
pub(crate) async fn stop_connections(watchdog: &Watchdog, limit: Duration) {
    let mut cut_at = Some(Instant::now() + limit);
    let give_up_at = Instant::now() + limit + CUT_TIME;
    while watchdog.connections() > 0 && Instant::now() < give_up_at {
        watchdog.end_idle();
        if cut_at.is_some_and(|at| at <= Instant::now()) {
            cut_at = None;
            tracing::warn!(
                connections = watchdog.connections(),
                "the limit is reached: cutting the transfers that are left"
            );
            watchdog.end_all();
        }
        runtime::sleep(STOPPING_PERIOD).await;
    }
}

/// What a thread does by itself from time to time; the first one does what is due for the whole process, too.
async fn look_after(core: Core, of_all: Option<Arc<Shared>>) {
    let mut round = 0_u64;
    loop {
        runtime::sleep(TIDY_PERIOD).await;
        core.tidy();
        let Some(shared) = &of_all else { continue };
        shared.administration.begin_due(core.now());
        round += 1;
        let mut result = core.save_waiting_uploads().await;
        result = result.and(core.end_expired_hold().await);
        if round.is_multiple_of(TIDIES_TO_EXPIRY) {
            result = result.and(core.expire_uploads().await);
            runtime::give_back_memory();
        }
        if let Err(error) = result {
            tracing::warn!(%error, "looking after the upload sessions failed; trying again");
        }
    }
}

/// A connection's task. A panic in it is a mistake of ours; it ends the connection, and not the thread with all the
/// others.
pub(crate) struct CatchPanic<F>(Pin<Box<F>>);

impl<F> CatchPanic<F> {
    pub(crate) fn new(task: F) -> Self {
        Self(Box::pin(task))
    }
}

impl<F: Future<Output = ()>> Future for CatchPanic<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let future = &mut self.0;
        // What a panic leaves half done belongs to the connection, which is dropped, or is put right by the drop of
        // what guards it (upload sessions).
        catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))).unwrap_or_else(|_| {
            tracing::error!("a connection's task panicked; its connection ends");
            Poll::Ready(())
        })
    }
}
