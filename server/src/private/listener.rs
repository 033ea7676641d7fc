use std::cell::Cell;
use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use engine::Engine;
use engine::runtime::{self, TcpListener, TcpStream, UnixListener, UnixStream};
use rustls::ServerConfig;
use tokio::sync::watch;

use super::certificates::{CertificateError, CertificateFiles, Certificates};
use super::service::{Calls, Context};
use super::socket_file::SocketFile;
use crate::http::{Connection, Limits, TlsStream, Transport, Watchdog};
use crate::registry::Shared;
use crate::serve::{ACCEPT_PAUSE, CatchPanic, first_request_id, stop_connections, stop_listening};
use crate::settings::{PrivateListen, PrivateSettings};

/// Name of the socket in the root.
const SOCKET: &str = "private.sock";

/// Connections at a time, beyond which those without a call are closed. The component needs one for each call that
/// waits, and has some tens of them.
const CONNECTIONS_MAX: usize = 1024;

/// How long calls that are running may take when the program stops. Those that wait are ended.
const DRAIN: Duration = Duration::from_secs(5);

/// Why the private interface is not served.
#[derive(Debug, thiserror::Error)]
pub enum PrivateError {
    /// The socket.
    #[error(
        "cannot serve the private interface on the socket {}: {source}; set private.listen to unix:<path> for another place, or to none to do without",
        path.display()
    )]
    Socket {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The address.
    #[error("cannot serve the private interface on {address}: {source}")]
    Address {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The certificates.
    #[error(transparent)]
    Certificates(#[from] CertificateError),
    /// A thread, a ring.
    #[error("cannot start the thread of the private interface: {0}")]
    Thread(#[from] io::Error),
}

/// The private interface, on a thread of its own.
pub struct Private {
    thread: thread::JoinHandle<()>,
    stop: watch::Sender<()>,
    /// Removed when the thread has ended.
    _socket: Option<SocketFile>,
}

impl Private {
    /// Serves the private interface where the settings want it; `None`: nowhere. Calls are accepted when it returns.
    pub fn start(
        settings: &PrivateSettings,
        root: &Path,
        engine: Engine,
        shared: Arc<Shared>,
        limits: Limits,
    ) -> Result<Option<Self>, PrivateError> {
        let (bound, socket) = match bind(settings, root)? {
            Some((bound, socket)) => (bound, socket),
            None => return Ok(None),
        };
        let (stop, stopping) = watch::channel(());
        let (started, starting) = mpsc::channel();
        let thread = thread::Builder::new().name("private".into()).spawn(move || {
            let failed = started.clone();
            let thread = Thread { engine, shared, limits, stopping };
            if let Err(error) = runtime::run(thread.run(bound, started)) {
                drop(failed.send(Err(error)));
            }
        })?;
        starting.recv().map_err(|_| io::Error::other("it ended before it had begun"))??;
        Ok(Some(Self { thread, stop, _socket: socket }))
    }

    /// Ends it: waiting calls at once, running ones within seconds.
    pub fn stop(self) {
        drop(self.stop);
        if self.thread.join().is_err() {
            tracing::error!("the thread of the private interface ended by a panic");
        }
    }
}

/// A listener that no runtime has yet.
enum Bound {
    Unix(StdUnixListener),
    Tls(StdTcpListener, CertificateFiles),
}

fn bind(
    settings: &PrivateSettings,
    root: &Path,
) -> Result<Option<(Bound, Option<SocketFile>)>, PrivateError> {
    let path = match (socket_path(&settings.listen, root), &settings.listen) {
        (Some(path), _) => path,
        (None, PrivateListen::Tls(address)) => {
            let files = files(settings);
            // Here already, so that what cannot be used stops the start.
            Certificates::load(files.clone())?;
            let failed = |source| PrivateError::Address { address: *address, source };
            let listener = StdTcpListener::bind(address).map_err(failed)?;
            listener.set_nonblocking(true).map_err(failed)?;
            let address = listener.local_addr().map_err(failed)?;
            tracing::info!(%address, "serving the private interface over TLS");
            return Ok(Some((Bound::Tls(listener, files), None)));
        }
        (None, _) => return Ok(None),
    };
    let listen = || {
        let (file, listener) = SocketFile::listen(&path)?;
        listener.set_nonblocking(true)?;
        Ok((file, listener))
    };
    let (file, listener) = listen().map_err(|source| PrivateError::Socket { path: path.clone(), source })?;
    tracing::info!(socket = %path.display(), "serving the private interface");
    Ok(Some((Bound::Unix(listener), Some(file))))
}

/// Where the socket of the private interface is; `None`: it has none.
pub(crate) fn socket_path(listen: &PrivateListen, root: &Path) -> Option<PathBuf> {
    match listen {
        PrivateListen::Root => Some(root.join(SOCKET)),
        PrivateListen::Unix(path) => Some(path.clone()),
        PrivateListen::Tls(_) | PrivateListen::None => None,
    }
}

/// The settings are complete where TLS is spoken.
fn files(settings: &PrivateSettings) -> CertificateFiles {
    let file = |path: &Option<PathBuf>| path.clone().unwrap_or_default();
    CertificateFiles {
        certificate: file(&settings.tls.certificate),
        key: file(&settings.tls.key),
        client_ca: file(&settings.tls.client_ca),
    }
}

/// A listener of the thread's runtime.
enum Listener {
    Unix(UnixListener),
    Tls(TcpListener, Box<Certificates>),
}

/// A connection that was accepted.
enum Accepted {
    Unix(UnixStream),
    Tls(TcpStream, Arc<ServerConfig>),
}

impl Listener {
    fn new(bound: Bound) -> io::Result<Self> {
        Ok(match bound {
            Bound::Unix(listener) => Self::Unix(UnixListener::from_std(listener)?),
            Bound::Tls(listener, files) => {
                let certificates = Certificates::load(files).map_err(io::Error::other)?;
                Self::Tls(TcpListener::from_std(listener)?, Box::new(certificates))
            }
        })
    }

    async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Unix(listener) => Ok(Accepted::Unix(listener.accept().await?.0)),
            Self::Tls(listener, certificates) => {
                let (socket, _) = listener.accept().await?;
                Ok(Accepted::Tls(socket, certificates.current()))
            }
        }
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Unix(listener) => listener.as_raw_fd(),
            Self::Tls(listener, _) => listener.as_raw_fd(),
        }
    }
}

/// What the thread does.
struct Thread {
    engine: Engine,
    shared: Arc<Shared>,
    limits: Limits,
    stopping: watch::Receiver<()>,
}

impl Thread {
    async fn run(self, bound: Bound, started: mpsc::Sender<io::Result<()>>) {
        let begun = Listener::new(bound).and_then(|listener| Ok((listener, self.engine.core()?)));
        let (listener, core) = match begun {
            Ok(begun) => begun,
            Err(error) => return drop(started.send(Err(error))),
        };
        // Whoever starts the thread waits for it.
        let _ = started.send(Ok(()));
        drop(started);

        let watchdog = Watchdog::default();
        runtime::spawn(watchdog.clone().watch());
        let mut stopping = self.stopping.clone();
        let context = Rc::new(Context {
            core,
            shared: self.shared,
            stopping: self.stopping,
            is_stopping: Cell::new(false),
            setting_rules: Arc::default(),
            next_id: Cell::new(first_request_id()),
        });
        let accepting =
            Accepting { context: context.clone(), limits: Rc::new(self.limits), watchdog: watchdog.clone() };
        while !context.is_stopping.get() {
            let mut accept = std::pin::pin!(listener.accept());
            let accepted = runtime::select! {
                accepted = &mut accept => accepted,
                _ = stopping.changed() => {
                    // Nobody can connect from here on; what the kernel is accepting is awaited to its end. Where it is
                    // asked by epoll, it is not, and a Unix socket would not say that it has ended.
                    context.is_stopping.set(true);
                    stop_listening(&listener);
                    if !runtime::has_io_uring() {
                        break;
                    }
                    accept.as_mut().await
                }
            };
            match accepted {
                Ok(Accepted::Unix(stream)) => accepting.serve(stream),
                Ok(Accepted::Tls(socket, config)) => accepting.serve_tls(socket, config),
                Err(_) if context.is_stopping.get() => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a private connection; trying again");
                    runtime::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        stop_connections(&watchdog, DRAIN).await;
    }
}

/// What a new connection gets.
struct Accepting {
    context: Rc<Context>,
    limits: Rc<Limits>,
    watchdog: Watchdog,
}

impl Accepting {
    fn serve_tls(&self, socket: TcpStream, config: Arc<ServerConfig>) {
        let stream = socket.set_nodelay(true).and_then(|()| {
            // Fails where the configuration contradicts itself, and not because of the peer.
            TlsStream::new(socket, config).map_err(io::Error::other)
        });
        match stream {
            Ok(stream) => self.serve(stream),
            Err(error) => tracing::debug!(%error, "a private connection ended as it began"),
        }
    }

    fn serve(&self, stream: impl Transport + 'static) {
        let connections = self.watchdog.connections();
        if connections >= CONNECTIONS_MAX {
            // Those who have not shown a certificate yet are among them, and nobody else can be there in such numbers.
            tracing::warn!(connections, "too many private connections; those without a call are closed");
            self.watchdog.end_idle();
        }
        if connections >= 2 * CONNECTIONS_MAX {
            return;
        }
        let buffers = self.context.core.buffers().clone();
        let calls = Rc::new(Calls::new(self.context.clone()));
        let connection = Connection::new(stream, buffers, self.limits.clone(), calls, &self.watchdog);
        runtime::spawn(CatchPanic::new(connection.run()));
    }
}
