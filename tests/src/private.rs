//! A client of the server's private interface: each call on a connection of its own.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use interface::{Call, Failure};
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use rustls_pki_types::ServerName;

use crate::PATIENCE;
use crate::authority::{Certificate, roots};
use crate::http::{Connection, Request, Response};

/// The way to a private interface.
#[derive(Clone, Debug)]
pub enum Private {
    /// A Unix socket.
    Unix(PathBuf),
    /// TLS.
    Tls(SocketAddr, Arc<ClientConfig>),
}

/// The name that certificates of the private interface have in the tests.
pub const SERVER_NAME: &str = "registry.test";

impl Private {
    /// A Unix socket.
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Self::Unix(path.into())
    }

    /// TLS, with authorities (PEM) to trust and a certificate to show.
    pub fn tls(address: SocketAddr, trust: &str, certificate: Option<&Certificate>) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions of TLS")
            .with_root_certificates(roots(trust));
        let config = match certificate.map(Certificate::der) {
            Some((chain, key)) => {
                config.with_client_auth_cert(chain, key).expect("a certificate and its key")
            }
            None => config.with_no_client_auth(),
        };
        Self::Tls(address, Arc::new(config))
    }

    /// Connects.
    pub fn connect(&self) -> io::Result<Connection<Box<dyn Stream>>> {
        let stream: Box<dyn Stream> = match self {
            Self::Unix(path) => Box::new(connect_unix(path)?),
            Self::Tls(address, config) => {
                let socket = TcpStream::connect_timeout(address, PATIENCE)?;
                socket.set_read_timeout(Some(PATIENCE))?;
                socket.set_write_timeout(Some(PATIENCE))?;
                let name = ServerName::try_from(SERVER_NAME).expect("a name");
                let tls = ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
                Box::new(StreamOwned::new(tls, socket))
            }
        };
        Ok(Connection::over(stream))
    }

    /// Sends a request, and reads the response.
    pub fn try_send(&self, request: &Request) -> io::Result<Response> {
        self.connect()?.exchange(request)
    }

    /// Makes a call.
    #[track_caller]
    pub fn call<C: Call>(&self, call: &C) -> Result<C::Answer, Failure> {
        let response = match self.try_send(&request(call)) {
            Ok(response) => response,
            Err(error) => panic!("no answer to {}: {error}", C::PATH),
        };
        assert_eq!(response.must("Content-Type"), "application/json", "{}", response.summary());
        if response.status == 200 {
            return Ok(serde_json::from_slice(&response.body).expect("an answer as it should be"));
        }
        let failure: Failure = serde_json::from_slice(&response.body).expect("a failure as it should be");
        assert_eq!(failure.reason.status(), response.status, "{failure:?}");
        let retry_after = failure.retry_after_seconds.map(|seconds| seconds.to_string());
        assert_eq!(response.header("Retry-After"), retry_after.as_deref(), "{failure:?}");
        Err(failure)
    }

    /// Makes a call that must not fail.
    #[track_caller]
    pub fn must<C: Call>(&self, call: &C) -> C::Answer {
        match self.call(call) {
            Ok(answer) => answer,
            Err(failure) => panic!("{} failed: {failure:?}", C::PATH),
        }
    }
}

/// The request of a call.
#[track_caller]
pub fn request<C: Call>(call: &C) -> Request {
    let body = serde_json::to_vec(call).expect("a call as JSON");
    Request::new("POST", format!("/v1/{}", C::PATH)).body(body)
}

/// A stream of bytes.
pub trait Stream: Read + Write + Send {}

impl<T: Read + Write + Send> Stream for T {}

/// By way of the directory, as an address has room for 108 bytes.
fn connect_unix(path: &Path) -> io::Result<UnixStream> {
    let directory = File::open(path.parent().expect("a path with a directory"))?;
    let name = path.file_name().expect("a path with a name");
    let short = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
    let stream = UnixStream::connect(short)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}
