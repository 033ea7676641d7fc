//! The listener, and the end of serving.

use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::ResolvesServerCert;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::Api;
use super::connection::Connection;
use super::handshakes::Handshakes;
use super::lifecycle::{Lifecycle, Phase};
use crate::tls::AnyClient;

/// Connections at once of others than the front proxy. That one's are not counted, so that no crowd locks it out.
const STRANGERS_MAX: usize = 512;

/// How long to wait where no connection can be accepted, for want of descriptors for example.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How the end is gone about.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long to serve on after it was said that the end is near, until nobody sends requests here any more.
    pub drain: Duration,
    /// How long to wait, after that, for requests to be answered.
    pub grace: Duration,
}

/// Serves the API on a listener until the program ends ([`Phase::Draining`] begins that), and for as long after as the
/// limits say.
pub async fn serve(
    api: Arc<Api>,
    listener: TcpListener,
    certificate: Arc<dyn ResolvesServerCert>,
    lifecycle: &Lifecycle,
    limits: Limits,
) -> Result<(), rustls::Error> {
    let acceptor = TlsAcceptor::from(Arc::new(tls_config(certificate)?));
    let handshakes = Handshakes::default();
    let strangers = Arc::new(Semaphore::new(STRANGERS_MAX));
    let mut connections = JoinSet::new();
    let end = drained(lifecycle, limits.drain);
    tokio::pin!(end);
    loop {
        tokio::select! {
            () = &mut end => break,
            Some(_) = connections.join_next() => {}
            stream = accept(&listener) => {
                let handshake = handshakes.begin();
                let connection = Connection {
                    api: api.clone(),
                    acceptor: acceptor.clone(),
                    strangers: strangers.clone(),
                    lifecycle: lifecycle.clone(),
                };
                connections.spawn(async move {
                    if let Err(error) = connection.serve(stream, handshake).await {
                        tracing::debug!(%error, "a connection ended");
                    }
                });
            }
        }
    }
    drop(listener);
    lifecycle.enter(Phase::Ending);
    let all_gone = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(limits.grace, all_gone).await.is_err() {
        tracing::warn!(connections = connections.len(), "requests are cut off: they took too long to end");
    }
    Ok(())
}

fn tls_config(certificate: Arc<dyn ResolvesServerCert>) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(Arc::new(AnyClient::new()))
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Waits for the program to say that it ends, and then for the time that it serves on.
async fn drained(lifecycle: &Lifecycle, time: Duration) {
    lifecycle.draining().await;
    tokio::select! {
        () = tokio::time::sleep(time) => {}
        () = lifecycle.ending() => {}
    }
}

/// Accepts a connection.
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
