//! What kube-apiserver's aggregator is to an aggregated API: it forwards requests over TLS with a client certificate of
//! its own, and says in headers whose they are.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{HeaderName, HeaderValue, Request, Response, Uri, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::authority::{Certificate, roots};
use crate::cluster::User;
use crate::http::{Head, Response as HttpResponse};
use crate::{PATIENCE, http as plain, runtime};

/// A way to an aggregated API.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it listens.
    pub address: SocketAddr,
    /// The name that its certificate must have.
    pub server_name: String,
    /// Authorities that its certificate must be from, in PEM.
    pub trust: String,
    /// The proxy's own certificate; none: it shows none.
    pub certificate: Option<Certificate>,
    /// Whether HTTP/2 is offered, or HTTP/1.1 alone.
    pub is_http2: bool,
}

/// A proxy in front of an aggregated API. With HTTP/2, all requests go over one connection, as kube-apiserver's do.
#[derive(Debug)]
pub struct FrontProxy {
    settings: Settings,
    shared: Mutex<Option<http2::SendRequest<Full<Bytes>>>>,
}

impl FrontProxy {
    /// A proxy that has not connected yet.
    pub fn new(settings: Settings) -> Self {
        Self { settings, shared: Mutex::new(None) }
    }

    /// Sends a request as it is, without anything that a proxy adds, and waits for the whole answer.
    pub fn try_send(&self, request: &plain::Request) -> io::Result<HttpResponse> {
        let mut builder = Request::builder().method(request.method.as_str()).uri(&request.target);
        for (name, value) in &request.headers {
            builder = builder.header(name, value);
        }
        let body = Bytes::from(request.framed_body());
        let request = builder.body(body).map_err(io::Error::other)?;
        runtime().block_on(async {
            let answer = async {
                let (head, body) = self.forward(request).await?.into_parts();
                let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
                let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
                let headers =
                    head.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
                Ok(HttpResponse { head: Head { status: head.status.as_u16(), headers }, body: body.into() })
            };
            tokio::time::timeout(PATIENCE, answer).await.map_err(|_| io::ErrorKind::TimedOut)?
        })
    }

    /// The same; fails the test where no answer comes.
    #[track_caller]
    pub fn send(&self, request: &plain::Request) -> HttpResponse {
        match self.try_send(request) {
            Ok(response) => response,
            Err(e) => panic!("no response to {} {}: {e}", request.method, request.target),
        }
    }

    /// The same on behalf of somebody.
    #[track_caller]
    pub fn send_as(&self, user: &User, mut request: plain::Request) -> HttpResponse {
        request.headers.extend(identity_headers(user));
        self.send(&request)
    }

    /// Forwards a client's request on behalf of `user`, as kube-apiserver does.
    pub(crate) async fn forward_as(
        &self,
        user: &User,
        mut request: Request<Bytes>,
    ) -> io::Result<Response<Incoming>> {
        let uri = request.uri().path().to_owned();
        let headers = request.headers_mut();
        let is_forged = |name: &HeaderName| {
            let name = name.as_str();
            name.starts_with("x-remote-") || name.starts_with("impersonate-")
        };
        let removed: Vec<HeaderName> = headers.keys().filter(|name| is_forged(name)).cloned().collect();
        removed.iter().chain(&[AUTHORIZATION, CONNECTION, HOST, TRANSFER_ENCODING, CONTENT_LENGTH]).for_each(
            |name| {
                headers.remove(name);
            },
        );
        let forwarded = [
            ("x-forwarded-for", "127.0.0.1".to_owned()),
            ("x-forwarded-host", self.settings.address.to_string()),
            ("x-forwarded-proto", "https".to_owned()),
            ("x-forwarded-uri", uri),
            ("audit-id", "00000000-0000-4000-a000-000000000000".to_owned()),
        ];
        let forwarded = forwarded.into_iter().map(|(name, value)| (name.to_owned(), value));
        for (name, value) in identity_headers(user).into_iter().chain(forwarded) {
            let name = HeaderName::try_from(name).map_err(io::Error::other)?;
            headers.append(name, HeaderValue::try_from(value).map_err(io::Error::other)?);
        }
        self.forward(request).await
    }

    async fn forward(&self, request: Request<Bytes>) -> io::Result<Response<Incoming>> {
        let request = request.map(Full::new);
        if let Some(mut shared) = self.usable_connection() {
            return shared.send_request(self.absolute(request)?).await.map_err(io::Error::other);
        }
        let stream = self.connect().await?;
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let stream = TokioIo::new(stream);
        if is_http2 {
            let (mut sender, connection) =
                http2::handshake(TokioExecutor::new(), stream).await.map_err(io::Error::other)?;
            tokio::spawn(connection);
            *self.lock() = Some(sender.clone());
            return sender.send_request(self.absolute(request)?).await.map_err(io::Error::other);
        }
        let (mut sender, connection) = http1::handshake(stream).await.map_err(io::Error::other)?;
        tokio::spawn(connection);
        let mut request = request;
        *request.version_mut() = Version::HTTP_11;
        let host = HeaderValue::try_from(self.settings.address.to_string()).map_err(io::Error::other)?;
        request.headers_mut().insert(HOST, host);
        sender.send_request(request).await.map_err(io::Error::other)
    }

    fn usable_connection(&self) -> Option<http2::SendRequest<Full<Bytes>>> {
        self.lock().clone().filter(|sender| sender.is_ready() && !sender.is_closed())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<http2::SendRequest<Full<Bytes>>>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// HTTP/2 carries scheme and authority with each request.
    fn absolute(&self, mut request: Request<Full<Bytes>>) -> io::Result<Request<Full<Bytes>>> {
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let uri = format!("https://{}{path}", self.settings.address);
        *request.uri_mut() = Uri::try_from(uri).map_err(io::Error::other)?;
        *request.version_mut() = Version::HTTP_2;
        Ok(request)
    }

    async fn connect(&self) -> io::Result<TlsStream<TcpStream>> {
        let builder = rustls::ClientConfig::builder().with_root_certificates(roots(&self.settings.trust));
        let mut config = match &self.settings.certificate {
            Some(certificate) => {
                let (chain, key) = certificate.der();
                builder.with_client_auth_cert(chain, key).map_err(io::Error::other)?
            }
            None => builder.with_no_client_auth(),
        };
        let protocols: &[&[u8]] = if self.settings.is_http2 { &[b"h2", b"http/1.1"] } else { &[b"http/1.1"] };
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let name = ServerName::try_from(self.settings.server_name.clone()).map_err(io::Error::other)?;
        let connecting = async {
            let stream = TcpStream::connect(self.settings.address).await?;
            stream.set_nodelay(true)?;
            TlsConnector::from(Arc::new(config)).connect(name, stream).await
        };
        let limit = Duration::from_secs(5);
        tokio::time::timeout(limit, connecting).await.map_err(|_| io::ErrorKind::TimedOut)?
    }
}

/// The headers that say who somebody is.
pub fn identity_headers(user: &User) -> Vec<(String, String)> {
    let mut headers = vec![("X-Remote-User".to_owned(), user.name.clone())];
    headers.extend(user.groups.iter().map(|group| ("X-Remote-Group".to_owned(), group.clone())));
    for (name, values) in &user.extra {
        let name = percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC);
        let name = format!("X-Remote-Extra-{}", name.to_string().replace("%2E", ".").replace("%2D", "-"));
        headers.extend(values.iter().map(|value| (name.clone(), value.clone())));
    }
    headers
}
