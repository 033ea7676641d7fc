//! Tags as Kubernetes objects: how long lists take, asked of the component as the front proxy asks it.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;

use crate::head::{Framing, Head};
use crate::http;
use crate::report::{Figures, Outcome, Run};
use crate::server::Server;

/// Where the resource is.
const API: &str = "/apis/payload-registry.deckhouse.io/v1alpha1";

/// Its name.
const RESOURCE: &str = "payloadrepositorytags";

/// Objects of a page, as kubectl asks for it.
const PAGE: usize = 500;

/// List tags as Kubernetes objects: of a namespace, a page of all, all.
#[derive(Args, Debug)]
pub struct Objects {
    /// The namespace that is listed.
    #[arg(long, default_value = "generated-0")]
    namespace: String,
    /// Requests of each kind in a round.
    #[arg(long, default_value_t = 20)]
    requests: usize,
    /// The name that the component's certificate is for.
    #[arg(long, default_value = "localhost")]
    server_name: String,
    /// The authorities of the component's certificate (PEM).
    #[arg(long)]
    authorities: PathBuf,
    /// The certificate of a front proxy that the component believes (PEM).
    #[arg(long)]
    certificate: PathBuf,
    /// Its key (PEM).
    #[arg(long)]
    key: PathBuf,
    /// The user in whose name is asked.
    #[arg(long, default_value = "kubernetes-admin")]
    user: String,
    /// The user's group.
    #[arg(long, default_value = "system:masters")]
    group: String,
}

impl Objects {
    /// Measures each kind of list.
    pub fn measure(&self, address: SocketAddr, server: &Server) -> Result<Vec<Figures>, String> {
        let mut client = Client::open(self, address).map_err(|error| error.to_string())?;
        let first = client.list(&format!("{API}/{RESOURCE}?limit={PAGE}"))?;
        let next = first["metadata"]["continue"].as_str().map(str::to_owned);
        let namespace = &self.namespace;
        let mut kinds = vec![
            (format!("list {namespace}"), format!("{API}/namespaces/{namespace}/{RESOURCE}")),
            (format!("a page of {PAGE} of all"), format!("{API}/{RESOURCE}?limit={PAGE}")),
        ];
        if let Some(next) = next {
            kinds.push((
                format!("the next page of {PAGE}"),
                format!("{API}/{RESOURCE}?limit={PAGE}&continue={next}"),
            ));
        }
        kinds.push(("all".to_owned(), format!("{API}/{RESOURCE}")));
        kinds
            .into_iter()
            .map(|(name, target)| self.measure_one(&mut client, server, &name, &target))
            .collect()
    }

    fn measure_one(
        &self,
        client: &mut Client,
        server: &Server,
        name: &str,
        target: &str,
    ) -> Result<Figures, String> {
        let mut outcome = Outcome::default();
        let run = Run::begin(server);
        let mut bytes = 0;
        for _ in 0..self.requests {
            let began = Instant::now();
            match client.get(target) {
                Ok(body) => {
                    outcome.latencies.push(began.elapsed());
                    bytes = body.len();
                }
                Err(error) => outcome.failures.push(error.to_string()),
            }
        }
        Ok(run.end(&format!("{name} ({bytes} bytes)"), outcome))
    }
}

/// A connection to the component.
struct Client {
    stream: StreamOwned<ClientConnection, TcpStream>,
    address: SocketAddr,
    headers: String,
}

impl Client {
    fn open(objects: &Objects, address: SocketAddr) -> Result<Self, Box<dyn std::error::Error>> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&objects.authorities)? {
            roots.add(certificate)?;
        }
        let key = PrivateKeyDer::from_pem_file(&objects.key)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(certificates(&objects.certificate)?, key)?;
        let name = ServerName::try_from(objects.server_name.clone())?;
        let connection = ClientConnection::new(Arc::new(config), name)?;
        let stream = StreamOwned::new(connection, http::connect(address)?);
        let headers = format!(
            "Accept: application/json\r\nX-Remote-User: {}\r\nX-Remote-Group: {}\r\n",
            objects.user, objects.group
        );
        Ok(Self { stream, address, headers })
    }

    fn list(&mut self, target: &str) -> Result<Value, String> {
        let body = self.get(target).map_err(|error| error.to_string())?;
        serde_json::from_slice(&body).map_err(|error| error.to_string())
    }

    /// The body, with the marks of its chunks where it has some.
    fn get(&mut self, target: &str) -> io::Result<Vec<u8>> {
        self.stream.write_all(http::head(self.address, "GET", target, &self.headers, 0).as_bytes())?;
        let mut received = Vec::new();
        let mut scratch = vec![0; 64 << 10];
        loop {
            match self.stream.read(&mut scratch)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => received.extend_from_slice(&scratch[..count]),
            }
            let Some(head) = Head::parse(&received, false)? else { continue };
            let is_whole = match head.body {
                Framing::Length(len) => (received.len() - head.len) as u64 >= len,
                Framing::Chunked => received.ends_with(b"0\r\n\r\n"),
            };
            if is_whole {
                let body = received.split_off(head.len);
                return match head.status {
                    200 => Ok(body),
                    status => Err(io::Error::other(format!(
                        "{target} answered {status}: {}",
                        String::from_utf8_lossy(&body)
                    ))),
                };
            }
        }
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, rustls::pki_types::pem::Error> {
    CertificateDer::pem_file_iter(file)?.collect()
}
