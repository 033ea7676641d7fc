//! Certificate authorities and what they issue, made anew for each test.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// A certificate authority.
#[derive(Debug)]
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate with its key, both in PEM.
#[derive(Clone)]
pub struct Certificate {
    /// The certificate.
    pub certificate: String,
    /// The private key.
    pub key: String,
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificate").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

impl Authority {
    /// An authority of that common name.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        Self { issuer: CertifiedIssuer::self_signed(params, key).expect("an authority") }
    }

    /// Its own certificate, in PEM.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Issues a certificate for a server with those names (or IP addresses).
    pub fn issue_server(&self, names: &[&str]) -> Certificate {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let params = CertificateParams::new(names).expect("names of a server");
        self.issue(params, "server", ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// Issues a certificate for a client of that common name.
    pub fn issue_client(&self, name: &str) -> Certificate {
        self.issue(CertificateParams::default(), name, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn issue(
        &self,
        mut params: CertificateParams,
        name: &str,
        usage: ExtendedKeyUsagePurpose,
    ) -> Certificate {
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Certificate { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

impl Certificate {
    /// Writes both files, `<name>.crt` and `<name>.key`, each in one step, in place of those there are.
    pub fn write(&self, dir: &Path, name: &str) -> (PathBuf, PathBuf) {
        let write = |extension: &str, text: &str| {
            let path = dir.join(format!("{name}.{extension}"));
            replace_file(&path, text);
            path
        };
        // The key first: who sees the new certificate finds its key.
        let key = write("key", &self.key);
        (write("crt", &self.certificate), key)
    }

    /// What rustls takes.
    pub(crate) fn der(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).expect("a key in PEM");
        (certificates(&self.certificate), key)
    }
}

/// The text of a file, in one step, whoever else writes it at the same time.
pub(crate) fn replace_file(path: &Path, text: &str) {
    let directory = path.parent().expect("a file in a directory");
    let mut new = tempfile::NamedTempFile::new_in(directory).expect("a file in the test's own directory");
    new.write_all(text.as_bytes()).expect("a file in the test's own directory");
    new.persist(path).expect("a file in the test's own directory");
}

/// The authorities that a PEM text holds, as those to trust.
pub(crate) fn roots(pem: &str) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem) {
        roots.add(certificate).expect("a certificate of an authority");
    }
    Arc::new(roots)
}

fn certificates(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).map(|der| der.expect("a certificate in PEM")).collect()
}
