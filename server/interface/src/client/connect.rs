use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

/// Gives the configuration of the next TLS connection, so that certificates can change while the program runs.
pub type TlsConfigSource = Arc<dyn Fn() -> Arc<rustls::ClientConfig> + Send + Sync>;

/// Where the registry's private interface is.
#[derive(Clone)]
pub enum Address {
    /// A Unix socket.
    Unix(PathBuf),
    /// TLS, with a client certificate.
    Tls {
        /// Host and port.
        authority: String,
        /// The host, as the registry's certificate has it.
        server_name: ServerName<'static>,
        /// Certificates and whom to trust.
        config: TlsConfigSource,
    },
}

/// A text is no address of a private interface.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither unix:<path> nor <host>:<port>")]
pub struct InvalidAddress(pub String);

impl Address {
    /// Parses `unix:<path>` or `<host>:<port>`; `config` is for the second.
    pub fn parse(text: &str, config: TlsConfigSource) -> Result<Self, InvalidAddress> {
        let invalid = || InvalidAddress(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() { Err(invalid()) } else { Ok(Self::Unix(path.into())) };
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(invalid)?;
        u16::from_str(port).map_err(|_| invalid())?;
        let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let server_name = ServerName::try_from(name).map_err(|_| invalid())?;
        Ok(Self::Tls { authority: text.to_owned(), server_name, config })
    }
}

/// Connects to the one address there is.
#[derive(Clone)]
pub(super) struct Connect {
    address: Address,
}

impl Connect {
    pub(super) fn new(address: Address) -> Self {
        Self { address }
    }
}

impl tower_service::Service<Uri> for Connect {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let address = self.address.clone();
        Box::pin(async move {
            let stream: Box<dyn Bytes> = match address {
                Address::Unix(path) => Box::new(UnixStream::connect(path).await?),
                Address::Tls { authority, server_name, config } => {
                    let stream = TcpStream::connect(authority).await?;
                    stream.set_nodelay(true)?;
                    Box::new(TlsConnector::from(config()).connect(server_name, stream).await?)
                }
            };
            Ok(TokioIo::new(Stream(stream)))
        })
    }
}

/// A stream of bytes of either kind.
trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Bytes for T {}

/// A connection to the registry.
pub(super) struct Stream(Box<dyn Bytes>);

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
