use std::fmt;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore};

use super::files::{Files, UnreadableFile};
use crate::registry::TlsConfigSource;

/// Why there is no certificate in what was read.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error(transparent)]
    Unreadable(#[from] UnreadableFile),
    /// No certificates in PEM.
    #[error("no certificate in PEM: {0}")]
    Certificate(rustls::pki_types::pem::Error),
    /// No private key in PEM.
    #[error("no private key in PEM: {0}")]
    Key(rustls::pki_types::pem::Error),
    /// Certificate and key do not go together, or cannot be used.
    #[error("the certificate and the private key cannot be used together: {0}")]
    Pair(rustls::Error),
    /// No certificate of an authority.
    #[error("no certificate of an authority in PEM")]
    Authorities,
}

/// The certificate that clients are shown: the one in force when they connect.
pub struct ServingCertificate {
    current: ArcSwap<CertifiedKey>,
}

impl ServingCertificate {
    /// Reads the chain and the key, both in PEM. The future beside it puts new ones in force when the files change, for as
    /// long as it is polled.
    pub fn read(
        certificate: &Path,
        key: &Path,
    ) -> Result<(Arc<Self>, impl Future<Output = ()> + Send + use<>), CertificateError> {
        let files = Files::read([certificate, key])?;
        let serving = Arc::new(Self { current: ArcSwap::from_pointee(pair(files.contents())?) });
        let followed = serving.clone();
        let follow = files.follow(move |contents| {
            followed.current.store(Arc::new(pair(contents)?));
            Ok::<_, CertificateError>(())
        });
        Ok((serving, follow))
    }
}

impl ResolvesServerCert for ServingCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

impl fmt::Debug for ServingCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServingCertificate").finish_non_exhaustive()
    }
}

/// What this program shows to the registry where they speak TLS, and whom it takes for the registry: what is in force
/// when it connects.
pub struct ClientCertificate {
    current: ArcSwap<ClientConfig>,
}

impl ClientCertificate {
    /// Reads the chain, the key, and the authorities of the registry's certificate, all in PEM. The future beside it puts
    /// new ones in force when the files change, for as long as it is polled.
    pub fn read(
        certificate: &Path,
        key: &Path,
        authorities: &Path,
    ) -> Result<(Arc<Self>, impl Future<Output = ()> + Send + use<>), CertificateError> {
        let files = Files::read([certificate, key, authorities])?;
        let client = Arc::new(Self { current: ArcSwap::from_pointee(client_config(files.contents())?) });
        let followed = client.clone();
        let follow = files.follow(move |contents| {
            followed.current.store(Arc::new(client_config(contents)?));
            Ok::<_, CertificateError>(())
        });
        Ok((client, follow))
    }

    /// For the connections to the registry.
    pub fn source(self: Arc<Self>) -> TlsConfigSource {
        Arc::new(move || self.current.load_full())
    }
}

impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCertificate").finish_non_exhaustive()
    }
}

fn chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(CertificateError::Certificate)?;
    if chain.is_empty() {
        return Err(CertificateError::Certificate(rustls::pki_types::pem::Error::NoItemsFound));
    }
    Ok(chain)
}

fn key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, CertificateError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(CertificateError::Key)
}

/// Certificate and key are read one after the other, and a change may fall between: then they do not go together, and the
/// next look finds both.
fn pair([certificate, private_key]: &[Vec<u8>; 2]) -> Result<CertifiedKey, CertificateError> {
    CertifiedKey::from_der(chain(certificate)?, key(private_key)?, &provider())
        .map_err(CertificateError::Pair)
}

fn client_config(
    [certificate, private_key, authorities]: &[Vec<u8>; 3],
) -> Result<ClientConfig, CertificateError> {
    let mut roots = RootCertStore::empty();
    if roots.add_parsable_certificates(chain(authorities)?).0 == 0 {
        return Err(CertificateError::Authorities);
    }
    ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()
        .map_err(CertificateError::Pair)?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain(certificate)?, key(private_key)?)
        .map_err(CertificateError::Pair)
}

fn provider() -> CryptoProvider {
    ring::default_provider()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use rcgen::ExtendedKeyUsagePurpose;

    use super::super::front_proxy::tests::Authority;
    use super::*;

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let authority = Authority::new("ca");
        let folder = tempfile::tempdir().expect("a folder");
        let (certificate_file, key_file) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
        let (certificate, key) = authority.issue("localhost", ExtendedKeyUsagePurpose::ServerAuth);
        let (_, other_key) = authority.issue("localhost", ExtendedKeyUsagePurpose::ServerAuth);
        fs::write(&certificate_file, certificate.pem()).expect("a file");
        fs::write(&key_file, key.serialize_pem()).expect("a file");
        assert!(ServingCertificate::read(&certificate_file, &key_file).is_ok());
        fs::write(&key_file, other_key.serialize_pem()).expect("a file");
        let error = ServingCertificate::read(&certificate_file, &key_file).err().expect("an error");
        assert!(matches!(error, CertificateError::Pair(_)), "{error}");
        fs::write(&key_file, "").expect("a file");
        let error = ServingCertificate::read(&certificate_file, &key_file).err().expect("an error");
        assert!(matches!(error, CertificateError::Key(_)), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_pair_is_in_force_without_a_restart() {
        let authority = Authority::new("ca");
        let folder = tempfile::tempdir().expect("a folder");
        let (certificate_file, key_file) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
        let write = |certificate: &rcgen::Certificate, key: &rcgen::KeyPair| {
            fs::write(&certificate_file, certificate.pem()).expect("a file");
            fs::write(&key_file, key.serialize_pem()).expect("a file");
        };
        let (old, old_key) = authority.issue("localhost", ExtendedKeyUsagePurpose::ServerAuth);
        write(&old, &old_key);
        let (serving, follow) = ServingCertificate::read(&certificate_file, &key_file).expect("a pair");
        let shown = || serving.current.load().cert[0].clone();
        assert_eq!(shown(), *old.der());
        let script = async {
            let (new, new_key) = authority.issue("localhost", ExtendedKeyUsagePurpose::ServerAuth);
            write(&new, &old_key);
            tokio::time::sleep(Duration::from_secs(60)).await;
            assert_eq!(shown(), *old.der(), "a pair that does not go together");
            write(&new, &new_key);
            tokio::time::sleep(Duration::from_secs(60)).await;
            assert_eq!(shown(), *new.der());
        };
        tokio::select! {
            () = follow => unreachable!("it follows for ever"),
            () = script => {}
        }
    }
}
