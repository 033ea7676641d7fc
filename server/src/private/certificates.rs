use std::cell::RefCell;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};

/// Why there is no TLS with the files that are set.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read, or has no such thing in it.
    #[error("cannot read {} ({setting}): {source}", path.display())]
    File {
        /// The setting that names it.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: pem::Error,
    },
    /// A file has no certificate in it.
    #[error("{} ({setting}) has no certificate in it", path.display())]
    Empty {
        /// The setting that names it.
        setting: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// A certificate or key that cannot be used, or two that do not belong together.
    #[error("private.tls: {0}")]
    Tls(#[from] rustls::Error),
    /// An authority that cannot be used.
    #[error("private.tls.clientCa: {0}")]
    Authority(#[from] VerifierBuilderError),
}

/// The files that TLS takes.
#[derive(Clone, Debug)]
pub(super) struct CertificateFiles {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    pub(super) client_ca: PathBuf,
}

/// What TLS takes, read again when the files change. A state of the files that cannot be used, as when only one of two
/// has been replaced yet, changes nothing.
pub(super) struct Certificates {
    files: CertificateFiles,
    state: RefCell<State>,
}

struct State {
    config: Arc<ServerConfig>,
    /// What the files were when they were last looked at, and whether that is in use.
    stamps: Stamps,
    is_in_use: bool,
}

/// What changes when a file is replaced or written to: inode, length, and time of the last change.
type Stamps = [Option<(u64, u64, i64, i64)>; 3];

impl Certificates {
    pub(super) fn load(files: CertificateFiles) -> Result<Self, CertificateError> {
        let stamps = files.stamps();
        let state = State { config: files.load()?, stamps, is_in_use: true };
        Ok(Self { files, state: RefCell::new(state) })
    }

    /// What the next connection takes.
    pub(super) fn current(&self) -> Arc<ServerConfig> {
        let mut state = self.state.borrow_mut();
        let stamps = self.files.stamps();
        let has_changed = stamps != state.stamps;
        if has_changed || !state.is_in_use {
            state.stamps = stamps;
            match self.files.load() {
                Ok(config) => {
                    state.config = config;
                    state.is_in_use = true;
                    tracing::info!("the certificates of the private interface were read again");
                }
                Err(error) => {
                    state.is_in_use = false;
                    if has_changed {
                        tracing::warn!(%error, "the new certificates of the private interface cannot be used; going on with those before");
                    }
                }
            }
        }
        state.config.clone()
    }
}

impl CertificateFiles {
    fn stamps(&self) -> Stamps {
        [&self.certificate, &self.key, &self.client_ca].map(|path| {
            let metadata = std::fs::metadata(path).ok()?;
            Some((metadata.ino(), metadata.len(), metadata.ctime(), metadata.ctime_nsec()))
        })
    }

    fn load(&self) -> Result<Arc<ServerConfig>, CertificateError> {
        let Self { certificate, key, client_ca } = self;
        let chain = certificates("private.tls.certificate", certificate)?;
        let key = PrivateKeyDer::from_pem_file(key).map_err(|source| CertificateError::File {
            setting: "private.tls.key",
            path: key.clone(),
            source,
        })?;
        let mut authorities = RootCertStore::empty();
        for authority in certificates("private.tls.clientCa", client_ca)? {
            authorities.add(authority)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        Ok(Arc::new(config(provider, chain, key, authorities)?))
    }
}

fn config(
    provider: Arc<CryptoProvider>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    authorities: RootCertStore,
) -> Result<ServerConfig, CertificateError> {
    // Without a certificate from one of the authorities, and good for clients (EKU clientAuth), nobody gets in.
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), provider.clone()).build()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn certificates(
    setting: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let failed = |source| CertificateError::File { setting, path: path.to_owned(), source };
    let found: Vec<_> =
        CertificateDer::pem_file_iter(path).map_err(failed)?.collect::<Result<_, _>>().map_err(failed)?;
    match found.is_empty() {
        true => Err(CertificateError::Empty { setting, path: path.to_owned() }),
        false => Ok(found),
    }
}
