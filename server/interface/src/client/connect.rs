use std::fs::File;
use std::future::Future;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use http::uri::Authority;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

/// Gives the configuration of the next TLS connection, so that certificates can change while the program runs.
pub type TlsConfigSource = Arc<dyn Fn() -> Arc<rustls::ClientConfig> + Send + Sync>;

/// Gives the token of the next call, so that it can change while the program runs.
pub type TokenSource = Arc<dyn Fn() -> io::Result<String> + Send + Sync>;

/// Where the registry answers calls.
#[derive(Clone)]
pub enum Address {
    /// Its private interface, on a Unix socket.
    Unix(PathBuf),
    /// Its private interface, over TLS with a client certificate.
    Tls {
        /// Host and port.
        authority: String,
        /// The host, as the registry's certificate has it.
        server_name: ServerName<'static>,
        /// Certificates and whom to trust.
        config: TlsConfigSource,
    },
    /// Where it serves images, too: for administration, by those who have a token.
    Public {
        /// Host and port.
        authority: String,
        /// TLS: the host, as the certificate there has it, and whom to trust; `None`: plain HTTP.
        tls: Option<(ServerName<'static>, TlsConfigSource)>,
        /// The token; `None`: there is none.
        token: Option<TokenSource>,
    },
}

/// A text is no address of a public listener.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither http://<host>:<port> nor https://<host>[:<port>]")]
pub struct InvalidPublicAddress(pub String);

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

    /// Parses `http://<host>[:<port>]` or `https://<host>[:<port>]`; `config` is for the second.
    pub fn parse_public(
        text: &str,
        config: TlsConfigSource,
        token: Option<TokenSource>,
    ) -> Result<Self, InvalidPublicAddress> {
        let invalid = || InvalidPublicAddress(text.to_owned());
        let trimmed = text.strip_suffix('/').unwrap_or(text);
        let (is_tls, rest) = match trimmed.strip_prefix("https://") {
            Some(rest) => (true, rest),
            None => (false, trimmed.strip_prefix("http://").ok_or_else(invalid)?),
        };
        let authority = Authority::from_str(rest).map_err(|_| invalid())?;
        // A name and a password do not belong here.
        let host = authority.host();
        if host.is_empty() || rest.contains('@') || authority.port().is_some() != (rest.len() > host.len()) {
            return Err(invalid());
        }
        let port = authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let server_name = ServerName::try_from(name).map_err(|_| invalid())?;
        Ok(Self::Public {
            authority: format!("{host}:{port}"),
            tls: is_tls.then_some((server_name, config)),
            token,
        })
    }

    /// What the paths of calls are below.
    pub(super) fn base(&self) -> String {
        match self {
            // The host is not looked at: the address is the connector's business.
            Self::Unix(_) | Self::Tls { .. } => "http://registry/v1/".to_owned(),
            Self::Public { authority, tls, .. } => {
                // The names of hosts that share an address are told apart without the usual ports.
                let (scheme, usual) = if tls.is_some() { ("https", ":443") } else { ("http", ":80") };
                format!("{scheme}://{}/admin/v1/", authority.strip_suffix(usual).unwrap_or(authority))
            }
        }
    }

    /// Where the token comes from, where there is one.
    pub(super) fn token(&self) -> Option<&TokenSource> {
        match self {
            Self::Public { token, .. } => token.as_ref(),
            Self::Unix(_) | Self::Tls { .. } => None,
        }
    }
}

/// Connects by way of the directory, as an address has room for 108 bytes, whatever the directory's path.
async fn connect_unix(path: &Path) -> io::Result<UnixStream> {
    let name = path.file_name().ok_or_else(|| io::Error::other("the path ends in no file name"))?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let directory = File::open(parent)?;
    let short = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
    UnixStream::connect(short).await
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
                Address::Unix(path) => Box::new(connect_unix(&path).await?),
                Address::Tls { authority, server_name, config }
                | Address::Public { authority, tls: Some((server_name, config)), .. } => {
                    let stream = connect_tcp(authority).await?;
                    Box::new(TlsConnector::from(config()).connect(server_name, stream).await?)
                }
                Address::Public { authority, tls: None, .. } => Box::new(connect_tcp(authority).await?),
            };
            Ok(TokioIo::new(Stream(stream)))
        })
    }
}

async fn connect_tcp(authority: String) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(authority).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn public(text: &str) -> Option<(String, String)> {
        let config: TlsConfigSource = Arc::new(|| unreachable!("nothing is connected"));
        let address = Address::parse_public(text, config, None).ok()?;
        let base = address.base();
        match address {
            Address::Public { authority, .. } => Some((authority, base)),
            _ => None,
        }
    }

    #[test]
    fn addresses_of_public_listeners() {
        for (text, authority, base) in [
            ("http://registry:5000", "registry:5000", "http://registry:5000/admin/v1/"),
            ("http://127.0.0.1:5000/", "127.0.0.1:5000", "http://127.0.0.1:5000/admin/v1/"),
            ("http://registry", "registry:80", "http://registry/admin/v1/"),
            (
                "https://registry.example.com",
                "registry.example.com:443",
                "https://registry.example.com/admin/v1/",
            ),
            ("https://registry:8443", "registry:8443", "https://registry:8443/admin/v1/"),
            ("https://[::1]:8443", "[::1]:8443", "https://[::1]:8443/admin/v1/"),
            ("http://[::1]", "[::1]:80", "http://[::1]/admin/v1/"),
        ] {
            assert_eq!(public(text), Some((authority.to_owned(), base.to_owned())), "{text}");
        }
        for text in [
            "",
            "registry",
            "registry:5000",
            "ftp://registry",
            "http://",
            "http://:80",
            "https://registry/path",
            "http://user:password@registry",
            "http://registry:x",
            "http://registry:99999",
            "http://registry:",
        ] {
            assert_eq!(public(text), None, "{text:?}");
        }
    }
}
