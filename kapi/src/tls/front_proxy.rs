//! Whose word on users is taken: the authenticating proxy in front, which is the kube-apiserver's aggregator.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use http::HeaderName;
use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

use super::verify::{Untrusted, common_name};

/// What the ConfigMap `kube-system/extension-apiserver-authentication` says of the proxy; the flags of the same names say
/// the same.
const CLIENT_CA_FILE: &str = "requestheader-client-ca-file";
const ALLOWED_NAMES: &str = "requestheader-allowed-names";
const USERNAME_HEADERS: &str = "requestheader-username-headers";
const GROUP_HEADERS: &str = "requestheader-group-headers";
const EXTRA_HEADERS_PREFIX: &str = "requestheader-extra-headers-prefix";

/// The configuration in force, which whoever learns of a new one replaces at any time. Cheap to clone; all clones are
/// one.
#[derive(Clone, Debug, Default)]
pub struct FrontProxy {
    current: Arc<ArcSwapOption<FrontProxyConfig>>,
}

impl FrontProxy {
    /// Where nothing is known yet: nobody is trusted.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a configuration in force, for the next request of every connection.
    pub fn set(&self, config: FrontProxyConfig) {
        self.current.store(Some(Arc::new(config)));
    }

    /// The configuration in force; `None` before there was any.
    pub fn current(&self) -> Option<Arc<FrontProxyConfig>> {
        self.current.load_full()
    }
}

/// Which certificates are the proxy's, and in which headers it names the user.
pub struct FrontProxyConfig {
    chain: Arc<dyn ClientCertVerifier>,
    allowed_names: Vec<String>,
    headers: IdentityHeaders,
}

/// The headers in which the proxy says who the user is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityHeaders {
    /// The user's name: the first of them that is not empty.
    pub username: Vec<HeaderName>,
    /// The groups: all values of all of them.
    pub groups: Vec<HeaderName>,
    /// What the names of headers with further attributes begin with, in lower case.
    pub extra_prefixes: Vec<String>,
}

/// Why there is no configuration in what was read.
#[derive(Debug, thiserror::Error)]
pub enum InvalidFrontProxy {
    /// Something is absent or empty.
    #[error("{0} is missing or empty")]
    Missing(&'static str),
    /// A value of the ConfigMap is no list.
    #[error("{key} is no JSON array of strings: {error}")]
    NotAList {
        /// The key.
        key: &'static str,
        /// What the parser says.
        error: serde_json::Error,
    },
    /// A text that cannot be the name of a header.
    #[error("{key} names {value:?}, which is no header")]
    NotAHeader {
        /// Where it stands.
        key: &'static str,
        /// The text.
        value: String,
    },
    /// The bundle has no certificate that can be an authority.
    #[error("requestheader-client-ca-file holds no certificate of an authority in PEM: {0}")]
    Authorities(String),
}

impl FrontProxyConfig {
    /// A configuration of its parts: a bundle of authorities in PEM, the common names that the proxy's certificate may
    /// have (none of them: any), and names and prefixes of headers.
    pub fn new(
        authorities_pem: &[u8],
        allowed_names: Vec<String>,
        username_headers: &[String],
        group_headers: &[String],
        extra_prefixes: &[String],
    ) -> Result<Self, InvalidFrontProxy> {
        let username = header_names(USERNAME_HEADERS, username_headers)?;
        if username.is_empty() {
            return Err(InvalidFrontProxy::Missing(USERNAME_HEADERS));
        }
        let headers = IdentityHeaders {
            username,
            groups: header_names(GROUP_HEADERS, group_headers)?,
            extra_prefixes: header_names(EXTRA_HEADERS_PREFIX, extra_prefixes)?
                .iter()
                .map(|prefix| prefix.as_str().to_owned())
                .collect(),
        };
        Ok(Self { chain: verifier(authorities_pem)?, allowed_names, headers })
    }

    /// Reads the data of the ConfigMap `kube-system/extension-apiserver-authentication`, whose lists are JSON arrays in
    /// strings. A list that is absent is an empty one.
    pub fn from_config_map(data: &BTreeMap<String, String>) -> Result<Self, InvalidFrontProxy> {
        let list = |key: &'static str| match data.get(key) {
            None => Ok(Vec::new()),
            Some(text) => serde_json::from_str::<Vec<String>>(text)
                .map_err(|error| InvalidFrontProxy::NotAList { key, error }),
        };
        let authorities = data.get(CLIENT_CA_FILE).ok_or(InvalidFrontProxy::Missing(CLIENT_CA_FILE))?;
        Self::new(
            authorities.as_bytes(),
            list(ALLOWED_NAMES)?,
            &list(USERNAME_HEADERS)?,
            &list(GROUP_HEADERS)?,
            &list(EXTRA_HEADERS_PREFIX)?,
        )
    }

    /// The headers to read.
    pub fn headers(&self) -> &IdentityHeaders {
        &self.headers
    }

    /// Checks that a chain of certificates, the peer's own first, is the proxy's: issued by one of the authorities, within
    /// its time, for clients (`clientAuth`, where it says what it is for), and with a name that is allowed.
    pub(super) fn verify(&self, chain: &[CertificateDer<'static>], now: UnixTime) -> Result<(), Untrusted> {
        let [end_entity, intermediates @ ..] = chain else {
            return Err(Untrusted::NoCertificate);
        };
        self.chain.verify_client_cert(end_entity, intermediates, now).map_err(Untrusted::Chain)?;
        if self.allowed_names.is_empty() {
            return Ok(());
        }
        match common_name(end_entity) {
            Some(name) if self.allowed_names.contains(&name) => Ok(()),
            name => Err(Untrusted::Name(name)),
        }
    }
}

impl fmt::Debug for FrontProxyConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrontProxyConfig")
            .field("allowed_names", &self.allowed_names)
            .field("headers", &self.headers)
            .finish_non_exhaustive()
    }
}

fn header_names(key: &'static str, names: &[String]) -> Result<Vec<HeaderName>, InvalidFrontProxy> {
    names
        .iter()
        .map(|name| {
            HeaderName::try_from(name.trim())
                .map_err(|_| InvalidFrontProxy::NotAHeader { key, value: name.clone() })
        })
        .collect()
}

/// What checks chains against the authorities of a bundle. Those that cannot be used are left out, as long as one can be:
/// bundles of real clusters carry what older tools made.
fn verifier(pem: &[u8]) -> Result<Arc<dyn ClientCertVerifier>, InvalidFrontProxy> {
    let invalid = |error: &dyn fmt::Display| InvalidFrontProxy::Authorities(error.to_string());
    let certificates: Vec<_> =
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|error| invalid(&error))?;
    let mut roots = RootCertStore::empty();
    let (_, ignored) = roots.add_parsable_certificates(certificates);
    if ignored > 0 {
        tracing::warn!(ignored, "certificates of requestheader-client-ca-file cannot be used");
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(ring::default_provider()))
        .build()
        .map_err(|error| invalid(&error))
}

#[cfg(test)]
pub(crate) mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    };

    use super::*;

    /// An authority that issues certificates for tests.
    pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

    impl Authority {
        pub(crate) fn new(name: &str) -> Self {
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.distinguished_name.push(DnType::CommonName, name);
            let key = KeyPair::generate().expect("a key");
            Self(CertifiedIssuer::self_signed(params, key).expect("an authority"))
        }

        pub(crate) fn pem(&self) -> String {
            self.0.pem()
        }

        /// A certificate for a client or a server, and its key.
        pub(crate) fn issue(
            &self,
            name: &str,
            usage: ExtendedKeyUsagePurpose,
        ) -> (rcgen::Certificate, KeyPair) {
            let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a host's name");
            params.distinguished_name.push(DnType::CommonName, name);
            params.extended_key_usages = vec![usage];
            let key = KeyPair::generate().expect("a key");
            (params.signed_by(&key, &self.0).expect("a certificate"), key)
        }

        /// The chain of a client's certificate.
        pub(crate) fn client(&self, name: &str) -> Vec<CertificateDer<'static>> {
            vec![self.issue(name, ExtendedKeyUsagePurpose::ClientAuth).0.der().clone()]
        }
    }

    /// The configuration that kubeadm makes, with an authority of ours.
    pub(crate) fn config(authority: &Authority) -> FrontProxyConfig {
        FrontProxyConfig::from_config_map(&config_map(authority)).expect("a configuration")
    }

    fn config_map(authority: &Authority) -> BTreeMap<String, String> {
        [
            (CLIENT_CA_FILE, authority.pem()),
            (ALLOWED_NAMES, r#"["front-proxy-client"]"#.to_owned()),
            (USERNAME_HEADERS, r#"["X-Remote-User"]"#.to_owned()),
            (GROUP_HEADERS, r#"["X-Remote-Group"]"#.to_owned()),
            (EXTRA_HEADERS_PREFIX, r#"["X-Remote-Extra-"]"#.to_owned()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into()
    }

    #[test]
    fn the_config_map_of_kubeadm() {
        let headers = config(&Authority::new("front-proxy-ca")).headers;
        assert_eq!(headers.username, ["x-remote-user"]);
        assert_eq!(headers.groups, ["x-remote-group"]);
        assert_eq!(headers.extra_prefixes, ["x-remote-extra-"]);
    }

    #[test]
    fn config_maps_that_trust_nobody_are_errors() {
        let authority = Authority::new("front-proxy-ca");
        for (key, value, message) in [
            (CLIENT_CA_FILE, None, "requestheader-client-ca-file is missing or empty"),
            (CLIENT_CA_FILE, Some("garbage"), "holds no certificate"),
            (USERNAME_HEADERS, None, "requestheader-username-headers is missing or empty"),
            (USERNAME_HEADERS, Some("X-Remote-User"), "no JSON array"),
            (USERNAME_HEADERS, Some("[]"), "missing or empty"),
            (USERNAME_HEADERS, Some(r#"["X Remote User"]"#), "which is no header"),
            (ALLOWED_NAMES, Some(r#"{"a":1}"#), "no JSON array"),
        ] {
            let mut data = config_map(&authority);
            match value {
                None => data.remove(key),
                Some(value) => data.insert(key.to_owned(), value.to_owned()),
            };
            let error = FrontProxyConfig::from_config_map(&data).expect_err(message);
            assert!(error.to_string().contains(message), "{error}");
        }
    }

    #[test]
    fn who_is_trusted() {
        let authority = Authority::new("front-proxy-ca");
        let config = config(&authority);
        let verify = |chain: Vec<CertificateDer<'static>>| config.verify(&chain, UnixTime::now());
        assert!(verify(authority.client("front-proxy-client")).is_ok());
        assert!(matches!(verify(Vec::new()), Err(Untrusted::NoCertificate)));
        assert!(matches!(
            verify(authority.client("somebody")),
            Err(Untrusted::Name(Some(name))) if name == "somebody"
        ));
        let foreign = Authority::new("front-proxy-ca").client("front-proxy-client");
        assert!(matches!(verify(foreign), Err(Untrusted::Chain(_))));
        let server = authority.issue("front-proxy-client", ExtendedKeyUsagePurpose::ServerAuth).0;
        assert!(matches!(verify(vec![server.der().clone()]), Err(Untrusted::Chain(_))));
    }

    #[test]
    fn no_allowed_names_are_any() {
        let authority = Authority::new("front-proxy-ca");
        let mut data = config_map(&authority);
        data.insert(ALLOWED_NAMES.to_owned(), "[]".to_owned());
        let config = FrontProxyConfig::from_config_map(&data).expect("a configuration");
        assert!(config.verify(&authority.client("anybody"), UnixTime::now()).is_ok());
    }
}
