//! Over real sockets: who is let in by TLS, and how connections end.

use std::net::SocketAddr;
use std::time::Duration;

use http::Version;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{ExtendedKeyUsagePurpose, KeyPair};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use super::*;
use crate::api::handshakes::HANDSHAKES_MAX;
use crate::api::{Limits, Phase, serve};
use crate::tls::ServingCertificate;

/// The API behind a listener.
struct Site {
    address: SocketAddr,
    authority: Authority,
    front_proxy: FrontProxy,
    lifecycle: Lifecycle,
    serving: JoinHandle<Result<(), rustls::Error>>,
    registry: FakeRegistry,
}

/// A connection to it.
enum Client {
    Http1(hyper::client::conn::http1::SendRequest<Empty<Bytes>>),
    Http2(hyper::client::conn::http2::SendRequest<Empty<Bytes>>),
}

impl Site {
    async fn start() -> Self {
        let site = Self::start_unconfigured().await;
        site.front_proxy.set(config(&site.authority));
        site
    }

    /// One that does not know yet who the front proxy is.
    async fn start_unconfigured() -> Self {
        let authority = Authority::new("ca");
        let folder = tempfile::tempdir().expect("a folder");
        let (certificate_file, key_file) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
        let (certificate, key) = authority.issue("localhost", ExtendedKeyUsagePurpose::ServerAuth);
        std::fs::write(&certificate_file, certificate.pem()).expect("a file");
        std::fs::write(&key_file, key.serialize_pem()).expect("a file");
        let (certificate, _) = ServingCertificate::read(&certificate_file, &key_file).expect("a certificate");
        let front_proxy = FrontProxy::new();
        let registry = FakeRegistry::start();
        let lifecycle = Lifecycle::new();
        let api = Arc::new(Api::new(
            registry.client(),
            "registry.example.com".to_owned(),
            front_proxy.clone(),
            Arc::new(Readiness::default()),
            lifecycle.clone(),
        ));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let address = listener.local_addr().expect("an address");
        let limits = Limits { drain: Duration::ZERO, grace: Duration::from_secs(30) };
        let serving = tokio::spawn({
            let lifecycle = lifecycle.clone();
            async move { serve(api, listener, certificate, &lifecycle, limits).await }
        });
        Self { address, authority, front_proxy, lifecycle, serving, registry }
    }

    async fn connect(&self, protocol: &str, identity: Option<(rcgen::Certificate, KeyPair)>) -> Client {
        let stream = TcpStream::connect(self.address).await.expect("a connection");
        self.shake_hands(stream, protocol, identity).await
    }

    async fn shake_hands(
        &self,
        stream: TcpStream,
        protocol: &str,
        identity: Option<(rcgen::Certificate, KeyPair)>,
    ) -> Client {
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_slice(self.authority.pem().as_bytes()).expect("PEM");
        roots.add(authority).expect("an authority");
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
                builder.with_client_auth_cert(vec![certificate.der().clone()], key).expect("an identity")
            }
        };
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let host = ServerName::try_from("localhost").expect("a host");
        let stream = TlsConnector::from(Arc::new(config)).connect(host, stream).await.expect("a handshake");
        let stream = TokioIo::new(stream);
        if protocol == "h2" {
            let (client, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.expect("HTTP/2");
            tokio::spawn(connection);
            Client::Http2(client)
        } else {
            let (client, connection) = hyper::client::conn::http1::handshake(stream).await.expect("HTTP/1.1");
            tokio::spawn(connection);
            Client::Http1(client)
        }
    }

    fn front_proxy_identity(&self) -> Option<(rcgen::Certificate, KeyPair)> {
        Some(self.authority.issue("front-proxy-client", ExtendedKeyUsagePurpose::ClientAuth))
    }
}

impl Client {
    async fn get(&mut self, path: &str, groups: usize) -> Response<Incoming> {
        self.try_get(path, groups).await.expect("an answer")
    }

    async fn try_get(&mut self, path: &str, groups: usize) -> hyper::Result<Response<Incoming>> {
        let mut request = Request::get(format!("https://localhost{path}")).header("x-remote-user", "jane");
        for group in 0..groups {
            request = request.header("x-remote-group", format!("a group with a long name, number {group}"));
        }
        let request = request.header("host", "localhost").body(Empty::new()).expect("a request");
        match self {
            Self::Http1(client) => client.send_request(request).await,
            Self::Http2(client) => client.send_request(request).await,
        }
    }
}

#[tokio::test]
async fn certificates_decide_by_request_and_never_by_alert() {
    let site = Site::start().await;
    let foreign = Authority::new("ca");
    for protocol in ["h2", "http/1.1"] {
        for (identity, status) in [
            (site.front_proxy_identity(), 200),
            (None, 401),
            (Some(foreign.issue("front-proxy-client", ExtendedKeyUsagePurpose::ClientAuth)), 401),
            (Some(site.authority.issue("somebody", ExtendedKeyUsagePurpose::ClientAuth)), 401),
            (Some(site.authority.issue("front-proxy-client", ExtendedKeyUsagePurpose::ServerAuth)), 401),
        ] {
            let mut client = site.connect(protocol, identity).await;
            let answer = client.get("/apis", 1).await;
            assert_eq!(answer.status().as_u16(), status, "{protocol}");
            assert_eq!(answer.version() == Version::HTTP_2, protocol == "h2");
            assert_eq!(client.get("/readyz", 0).await.status(), 200, "the same connection goes on");
        }
    }
}

#[tokio::test]
async fn many_groups_lock_nobody_out() {
    let site = Site::start().await;
    for protocol in ["h2", "http/1.1"] {
        let mut client = site.connect(protocol, site.front_proxy_identity()).await;
        assert_eq!(client.get("/apis", 5000).await.status(), 200, "{protocol}");
    }
}

#[tokio::test]
async fn authorities_change_on_open_connections() {
    let site = Site::start().await;
    let mut client = site.connect("h2", site.front_proxy_identity()).await;
    assert_eq!(client.get("/apis", 1).await.status(), 200);
    let other = Authority::new("another");
    site.front_proxy.set(config(&other));
    assert_eq!(client.get("/apis", 1).await.status(), 401);
    site.front_proxy.set(config(&site.authority));
    assert_eq!(client.get("/apis", 1).await.status(), 200);
}

#[tokio::test]
async fn the_front_proxy_is_no_stranger_for_having_come_early() {
    for protocol in ["h2", "http/1.1"] {
        let site = Site::start_unconfigured().await;
        let mut client = site.connect(protocol, site.front_proxy_identity()).await;
        assert_eq!(client.get("/apis", 1).await.status(), 401, "nothing is known of the front proxy");
        site.front_proxy.set(config(&site.authority));
        let path = format!("{ROOT}/payloadrepositorytags?watch=true&resourceVersion=10");
        let mut watch = client.get(&path, 1).await;
        assert_eq!(watch.status(), 200);
        // Past the time that strangers have, and the one that they are let go in.
        tokio::time::pause();
        for seconds in [31, 6] {
            tokio::time::advance(Duration::from_secs(seconds)).await;
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
        }
        tokio::time::resume();
        site.registry.push("a", "app", "one");
        let event = watch.body_mut().frame().await.expect("the watch goes on").expect("a frame");
        assert!(event.into_data().expect("data").starts_with(b"{\"type\":\"ADDED\""), "{protocol}");
        // What is new goes over a connection that has the front proxy's limits from the first.
        if protocol == "h2" {
            assert!(
                client.try_get("/apis", 1).await.is_err(),
                "the client was told to make another connection"
            );
        }
        let mut another = site.connect(protocol, site.front_proxy_identity()).await;
        assert_eq!(another.get("/apis", 5000).await.status(), 200, "{protocol}");
    }
}

#[tokio::test]
async fn who_says_nothing_keeps_nobody_out() {
    let site = Site::start().await;
    let mut silent = Vec::new();
    for _ in 0..HANDSHAKES_MAX + 10 {
        silent.push(TcpStream::connect(site.address).await.expect("a connection"));
    }
    let mut client = site.connect("h2", site.front_proxy_identity()).await;
    assert_eq!(client.get("/apis", 1).await.status(), 200);
    // Only as many as are too many were displaced, the oldest; the others go on.
    assert_eq!(silent[0].read(&mut [0]).await.unwrap_or(0), 0, "the end");
    let late = silent.remove(HANDSHAKES_MAX / 2);
    let mut late = site.shake_hands(late, "h2", site.front_proxy_identity()).await;
    assert_eq!(late.get("/apis", 1).await.status(), 200);
}

#[tokio::test]
async fn the_end_ends_watches_and_connections() {
    let site = Site::start().await;
    let path = format!("{ROOT}/payloadrepositorytags?watch=true&resourceVersion=10");
    let mut watches = Vec::new();
    for protocol in ["h2", "http/1.1"] {
        let mut client = site.connect(protocol, site.front_proxy_identity()).await;
        let answer = client.get(&path, 1).await;
        // The head arrives though there is no event.
        assert_eq!(answer.status(), 200);
        watches.push((client, answer.into_body()));
    }
    site.lifecycle.enter(Phase::Draining);
    for (_, body) in watches {
        assert!(body.collect().await.expect("a clean end").to_bytes().is_empty());
    }
    site.serving.await.expect("no panic").expect("a good end");
}
