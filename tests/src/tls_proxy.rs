//! What an Ingress is to the registry: it ends TLS, and hands on what is within.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ServerConfig;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::authority::Certificate;
use crate::runtime;

/// A proxy, on a port of the loopback address. Dropping it ends the accepting.
#[derive(Debug)]
pub struct TlsProxy {
    port: u16,
    accepting: JoinHandle<()>,
}

impl TlsProxy {
    /// A proxy with that certificate in front of `behind`.
    pub fn start(certificate: &Certificate, behind: SocketAddr) -> Self {
        let (chain, key) = certificate.der();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions of TLS")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("a certificate and its key");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = runtime().block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let accepting = runtime().spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(hand_on(acceptor.clone(), stream, behind));
            }
        });
        Self { port, accepting }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for TlsProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// An error is the client's to notice.
async fn hand_on(acceptor: TlsAcceptor, stream: TcpStream, behind: SocketAddr) -> io::Result<()> {
    let mut inside = acceptor.accept(stream).await?;
    let mut outside = TcpStream::connect(behind).await?;
    copy_bidirectional(&mut inside, &mut outside).await?;
    Ok(())
}
