use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, SignatureScheme};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::FrontProxyConfig;

/// How long a certificate that was trusted is not looked at again, under the same configuration: it may expire meanwhile.
const TRUSTED_TIME: Duration = Duration::from_secs(60);

/// Requests a client's certificate, takes any or none, and leaves to [`Peer::verify`] whom to trust.
///
/// The signature of the handshake is checked: whoever shows a certificate here has its key. Nothing follows from the
/// certificate until it is verified.
#[derive(Debug)]
pub struct AnyClient {
    algorithms: WebPkiSupportedAlgorithms,
}

impl AnyClient {
    /// One that checks handshakes with the algorithms of ring.
    pub fn new() -> Self {
        Self { algorithms: ring::default_provider().signature_verification_algorithms }
    }
}

impl Default for AnyClient {
    fn default() -> Self {
        Self::new()
    }
}

impl ClientCertVerifier for AnyClient {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    // No hints: clients that have one certificate send it, whichever authorities are trusted at the moment.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Why a peer is not the front proxy.
#[derive(Debug, thiserror::Error)]
pub enum Untrusted {
    /// It showed no certificate.
    #[error("no client certificate")]
    NoCertificate,
    /// Its certificate is not issued by an authority of the front proxy, is out of its time, or is not for clients.
    #[error("the client certificate is not one of the front proxy's: {0}")]
    Chain(rustls::Error),
    /// Its certificate has another name, or not exactly one.
    #[error("the name of the client certificate is not among those of the front proxy")]
    Name(Option<String>),
}

/// Who is at the other end of a connection.
#[derive(Debug)]
pub struct Peer {
    chain: Vec<CertificateDer<'static>>,
    trusted: Mutex<Option<(Arc<FrontProxyConfig>, Instant)>>,
}

impl Peer {
    /// A peer that showed a chain of certificates, its own first, or none.
    pub fn new(chain: Vec<CertificateDer<'static>>) -> Self {
        Self { chain, trusted: Mutex::new(None) }
    }

    /// Checks that the peer is the front proxy, by the configuration that is in force now.
    pub fn verify(&self, config: &Arc<FrontProxyConfig>) -> Result<(), Untrusted> {
        let mut trusted = self.trusted.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((by, at)) = &*trusted
            && Arc::ptr_eq(by, config)
            && at.elapsed() < TRUSTED_TIME
        {
            return Ok(());
        }
        *trusted = None;
        config.verify(&self.chain, UnixTime::now())?;
        *trusted = Some((config.clone(), Instant::now()));
        Ok(())
    }
}

/// The common name of a certificate's subject; `None` where there is not exactly one.
pub(super) fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let mut names = certificate.subject().iter_common_name();
    match (names.next(), names.next()) {
        (Some(name), None) => name.as_str().ok().map(str::to_owned),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::front_proxy::tests::{Authority, config};
    use super::*;

    #[test]
    fn a_change_of_authorities_acts_on_open_connections() {
        let (old, new) = (Authority::new("old"), Authority::new("new"));
        let peer = Peer::new(old.client("front-proxy-client"));
        let (with_old, with_new) = (Arc::new(config(&old)), Arc::new(config(&new)));
        assert!(peer.verify(&with_old).is_ok());
        assert!(peer.verify(&with_old).is_ok(), "from memory");
        assert!(matches!(peer.verify(&with_new), Err(Untrusted::Chain(_))));
        assert!(peer.verify(&with_old).is_ok());
    }
}
