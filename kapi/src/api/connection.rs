//! One connection: TLS, and HTTP/1.1 or HTTP/2 in it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use super::Api;
use super::handshakes::Handshake;
use super::lifecycle::Lifecycle;
use crate::tls::Peer;

/// How long a client may take to shake hands.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

/// How long the connection of somebody else than the front proxy takes requests: long enough for probes. Where it turns
/// out to be the front proxy's after all, as it was made before anything was known of that one, it is asked to make
/// another, which has the limits that are its own.
const STRANGER_TIME: Duration = Duration::from_secs(30);

/// How long a stranger's requests have to end then; there is no such limit for the front proxy's, watches among them.
const STRANGER_GRACE: Duration = Duration::from_secs(5);

/// Requests at once on one connection of HTTP/2: each kube-apiserver sends everything over one, watches among it.
const STREAMS_MAX: u32 = 1000;

/// Bytes of a request's head from the front proxy: what Go's servers take. The groups of a user are a header each, and
/// many groups must not lock anybody out.
const HEAD_BYTES_MAX: usize = 1 << 20;

/// Headers of such a request.
const HEADERS_MAX: usize = 16 << 10;

/// Bytes of a request's head from anybody else; the least that the HTTP library takes is 8 KiB.
const STRANGER_HEAD_BYTES_MAX: usize = 16 << 10;

/// Headers of such a request.
const STRANGER_HEADERS_MAX: usize = 100;

/// How long a client of HTTP/1.1 may be silent between requests, or take to send the head of one.
const HEAD_TIME: Duration = Duration::from_secs(90);

/// How often a silent connection of HTTP/2 is asked whether somebody is there.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// What a connection needs.
pub(super) struct Connection {
    pub(super) api: Arc<Api>,
    pub(super) acceptor: TlsAcceptor,
    /// Room for connections of others than the front proxy.
    pub(super) strangers: Arc<Semaphore>,
    pub(super) lifecycle: Lifecycle,
}

/// Why a connection was closed.
#[derive(Debug, thiserror::Error)]
enum Crowded {
    #[error("there are too many connections of others than the front proxy")]
    Strangers,
    #[error("too many clients are shaking hands, and this one took longest")]
    Handshakes,
}

impl Connection {
    /// Serves what is sent over a stream, until the client or the program ends.
    pub(super) async fn serve(
        self,
        stream: TcpStream,
        mut handshake: Handshake,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let Self { api, acceptor, strangers, lifecycle } = self;
        stream.set_nodelay(true)?;
        let stream = tokio::select! {
            stream = tokio::time::timeout(HANDSHAKE_TIME, acceptor.accept(stream)) => stream??,
            () = handshake.displaced() => return Err(Crowded::Handshakes.into()),
        };
        drop(handshake);
        let (_, session) = stream.get_ref();
        let is_http2 = session.alpn_protocol() == Some(b"h2");
        let chain = session.peer_certificates().unwrap_or_default();
        let peer = Peer::new(chain.iter().map(|certificate| certificate.clone().into_owned()).collect());
        let is_stranger = !api.trusts(&peer);
        let place = if is_stranger {
            Some(strangers.try_acquire_owned().map_err(|_| Crowded::Strangers)?)
        } else {
            None
        };

        let peer = Arc::new(peer);
        let (own_api, own_peer) = (api.clone(), peer.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            let (api, peer) = (own_api.clone(), own_peer.clone());
            async move { Ok::<_, Infallible>(api.respond(&peer, request).await) }
        });
        let builder = builder(is_http2, is_stranger);
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        tokio::select! {
            result = connection.as_mut() => return result,
            () = lifecycle.ending() => {}
            () = tokio::time::sleep(STRANGER_TIME), if is_stranger => {}
        }
        connection.as_mut().graceful_shutdown();
        if is_stranger && !api.trusts(&peer) {
            return tokio::time::timeout(STRANGER_GRACE, connection).await?;
        }
        drop(place);
        connection.await
    }
}

fn builder(is_http2: bool, is_stranger: bool) -> auto::Builder<TokioExecutor> {
    let (head_bytes_max, headers_max) = if is_stranger {
        (STRANGER_HEAD_BYTES_MAX, STRANGER_HEADERS_MAX)
    } else {
        (HEAD_BYTES_MAX, HEADERS_MAX)
    };
    let builder = auto::Builder::new(TokioExecutor::new());
    let mut builder = if is_http2 { builder.http2_only() } else { builder.http1_only() };
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(head_bytes_max)
        .max_headers(headers_max);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(u32::try_from(head_bytes_max).unwrap_or(u32::MAX));
    builder
}
