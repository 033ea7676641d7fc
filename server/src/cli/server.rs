use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use interface::client::{Address, Registry, TlsConfigSource, TokenSource};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::exit::{CommandError, Exit};
use super::root::Root;
use crate::private::socket_path;
use crate::settings::PrivateListen;

/// Where Kubernetes puts the token of a container's service account.
const TOKEN_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// Where a running registry is, and how to be let in.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
#[command(next_help_heading = "The registry")]
pub(super) struct Server {
    /// Where the registry answers: `unix:PATH`, `http://HOST:PORT` or `https://HOST[:PORT]`; default: the Unix socket that its
    /// settings have.
    #[arg(long, value_name = "ADDRESS", env = "PAYLOAD_REGISTRY_SERVER")]
    server: Option<String>,
    /// File with the Kubernetes token to log in with, over HTTP and HTTPS; default: that of the container's service
    /// account, where there is one.
    #[arg(long, value_name = "FILE", env = "PAYLOAD_REGISTRY_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// File with the authorities (PEM) to trust, over HTTPS; default: those of the system.
    #[arg(long, value_name = "FILE", env = "PAYLOAD_REGISTRY_CA_FILE")]
    ca_file: Option<PathBuf>,
}

impl Server {
    /// Does something with the registry.
    pub(super) fn with<T>(
        &self,
        root: &Root,
        work: impl AsyncFnOnce(Registry) -> Result<T, CommandError>,
    ) -> Result<T, CommandError> {
        let address = self.address(root)?;
        block_on(async { work(Registry::new(address)).await })
    }

    fn address(&self, root: &Root) -> Result<Address, CommandError> {
        let usage = |message: String| CommandError::new(Exit::Usage, message);
        match &self.server {
            None => local(root),
            Some(server) => match server.strip_prefix("unix:") {
                Some("") => Err(usage("unix: needs the path of the socket behind it".to_owned())),
                Some(path) => Ok(Address::Unix(path.into())),
                None => {
                    let config = match server.starts_with("https:") {
                        true => tls(self.ca_file.as_deref())?,
                        // Nothing asks for it.
                        false => client_config(RootCertStore::empty())?,
                    };
                    Address::parse_public(server, config, self.token())
                        .map_err(|error| usage(format!("{error}, nor unix:<path>")))
                }
            },
        }
    }

    /// Reads the token anew for each call, as Kubernetes exchanges it from time to time.
    fn token(&self) -> Option<TokenSource> {
        let default = || Path::new(TOKEN_FILE).exists().then(|| PathBuf::from(TOKEN_FILE));
        let path = self.token_file.clone().or_else(default)?;
        Some(Arc::new(move || {
            let named = |error| std::io::Error::other(format!("{}: {error}", path.display()));
            std::fs::read_to_string(&path).map_err(named)
        }))
    }
}

/// The private interface of the registry that has these settings.
fn local(root: &Root) -> Result<Address, CommandError> {
    let settings = root.settings()?;
    match &settings.private.listen {
        PrivateListen::Tls(address) => Err(CommandError::failed(format!(
            "the private interface is on {address} and wants a client certificate; say by --server where the registry can be reached otherwise"
        ))),
        PrivateListen::None => Err(CommandError::failed(
            "the settings have no private interface (private.listen); say by --server where the registry can be reached",
        )),
        PrivateListen::Root | PrivateListen::Unix(_) => {
            let path = socket_path(&settings.private.listen, &settings.root).unwrap_or_default();
            if path.exists() {
                return Ok(Address::Unix(path));
            }
            let message = format!(
                "no registry is running there: there is no socket {}; say by --root or --server where it is",
                path.display()
            );
            Err(CommandError::new(Exit::Unreachable, message))
        }
    }
}

fn tls(ca_file: Option<&Path>) -> Result<TlsConfigSource, CommandError> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        Some(path) => {
            let failed = |error: &dyn std::fmt::Display| {
                CommandError::failed(format!("cannot use the authorities in {}: {error}", path.display()))
            };
            for certificate in CertificateDer::pem_file_iter(path).map_err(|error| failed(&error))? {
                let certificate = certificate.map_err(|error| failed(&error))?;
                roots.add(certificate).map_err(|error| failed(&error))?;
            }
        }
        None => {
            // Some of a system's authorities may be odd; as long as there are any, the others do.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err(CommandError::failed(
            "there is no authority to trust; name a file with one by --ca-file",
        ));
    }
    client_config(roots)
}

fn client_config(roots: RootCertStore) -> Result<TlsConfigSource, CommandError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(CommandError::failed)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let config = Arc::new(config);
    Ok(Arc::new(move || config.clone()))
}

fn block_on<T>(work: impl Future<Output = Result<T, CommandError>>) -> Result<T, CommandError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| CommandError::failed(format!("cannot start: {error}")))?.block_on(work)
}
