//! Certificates, keys and whom to trust, read again when they change.
//!
//! The listener *requests* a client certificate and requires none, because the kubelet's probes bring none. Who is
//! behind a certificate is not decided in the handshake: TLS proves that the peer has the key ([`AnyClient`]), and each
//! request asks [`Peer::verify`] whether the configuration of that moment trusts the certificate. So a foreign certificate
//! is answered with a 401 that says why instead of an alert, and a change of the authorities acts at once, also on the
//! connections that are open (a kube-apiserver keeps one for hours).

mod certificates;
mod files;
pub mod front_proxy;
mod verify;

pub use certificates::{CertificateError, ClientCertificate, ServingCertificate};
pub use files::{Files, UnreadableFile};
pub use front_proxy::{FrontProxy, FrontProxyConfig, IdentityHeaders, InvalidFrontProxy};
pub use verify::{AnyClient, Peer, Untrusted};
