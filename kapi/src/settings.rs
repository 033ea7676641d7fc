//! The settings: flags, or environment variables of the same names.

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, ValueEnum};

use crate::cluster::{ClusterSettings, DEFAULT_AUDIENCE, PullSecretSettings, TokenLifetime};

/// The Kubernetes component of payload-registry: serves the registry's tags as Kubernetes objects
/// (payload-registry.deckhouse.io/v1alpha1, an aggregated API), and tells the registry what it has to know of the cluster.
#[derive(Clone, Debug, Parser)]
#[command(name = "payload-registry-kapi", version, max_term_width = 110)]
pub struct Settings {
    /// Where the aggregated API listens
    #[arg(long, env = "KAPI_LISTEN", value_name = "ADDRESS:PORT", default_value = "0.0.0.0:8443")]
    pub listen: SocketAddr,

    /// The serving certificate with its intermediates, in PEM; read again when it changes
    #[arg(long, env = "KAPI_TLS_CERT_FILE", value_name = "FILE")]
    pub tls_cert_file: PathBuf,

    /// The private key of the serving certificate, in PEM; read again when it changes
    #[arg(long, env = "KAPI_TLS_KEY_FILE", value_name = "FILE")]
    pub tls_key_file: PathBuf,

    /// Seconds to serve on after a signal to end, while /readyz fails
    #[arg(long, env = "KAPI_DRAIN_SECONDS", value_name = "SECONDS", default_value_t = 10)]
    pub drain_seconds: u64,

    /// Seconds to wait, after that, for running requests
    #[arg(long, env = "KAPI_GRACE_SECONDS", value_name = "SECONDS", default_value_t = 20)]
    pub grace_seconds: u64,

    /// Who the front proxy is, where the cluster does not say
    #[command(flatten)]
    pub front_proxy: FrontProxyFlags,

    /// The way to the registry
    #[command(flatten)]
    pub registry: RegistryFlags,

    /// The way to the cluster
    #[command(flatten)]
    pub cluster: ClusterFlags,

    /// The log
    #[command(flatten)]
    pub log: LogFlags,
}

/// Who the front proxy is. Without the first, the ConfigMap kube-system/extension-apiserver-authentication says it all, and
/// is followed.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Front proxy")]
pub struct FrontProxyFlags {
    /// The authorities of its certificate, in PEM; read again when they change. Without it, the ConfigMap
    /// kube-system/extension-apiserver-authentication says who the front proxy is, and the other flags mean nothing
    #[arg(long, env = "KAPI_REQUESTHEADER_CLIENT_CA_FILE", value_name = "FILE")]
    pub requestheader_client_ca_file: Option<PathBuf>,

    /// Common names that its certificate may have; none: any
    #[arg(
        long,
        env = "KAPI_REQUESTHEADER_ALLOWED_NAMES",
        value_name = "NAMES",
        value_delimiter = ',',
        requires = "requestheader_client_ca_file"
    )]
    pub requestheader_allowed_names: Vec<String>,

    /// Headers in which it names the user
    #[arg(
        long,
        env = "KAPI_REQUESTHEADER_USERNAME_HEADERS",
        value_name = "HEADERS",
        value_delimiter = ',',
        default_value = "X-Remote-User"
    )]
    pub requestheader_username_headers: Vec<String>,

    /// Headers in which it names the user's groups
    #[arg(
        long,
        env = "KAPI_REQUESTHEADER_GROUP_HEADERS",
        value_name = "HEADERS",
        value_delimiter = ',',
        default_value = "X-Remote-Group"
    )]
    pub requestheader_group_headers: Vec<String>,

    /// What the names of headers with further attributes of the user begin with
    #[arg(
        long,
        env = "KAPI_REQUESTHEADER_EXTRA_HEADERS_PREFIX",
        value_name = "PREFIXES",
        value_delimiter = ',',
        default_value = "X-Remote-Extra-"
    )]
    pub requestheader_extra_headers_prefix: Vec<String>,
}

/// The log.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Log")]
pub struct LogFlags {
    /// What the log shows, such as `info`, or `warn,kapi=debug`
    #[arg(long, env = "KAPI_LOG_LEVEL", value_name = "FILTER", default_value = "info")]
    pub log_level: String,

    /// How lines of the log are written; auto: text on a terminal, JSON elsewhere
    #[arg(long, env = "KAPI_LOG_FORMAT", value_enum, default_value_t = LogFormat::Auto)]
    pub log_format: LogFormat,
}

/// The way to the registry.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Registry")]
pub struct RegistryFlags {
    /// The registry's private interface: `unix:<path>`, or `<host>:<port>` for TLS
    #[arg(
        long,
        env = "KAPI_REGISTRY_ADDRESS",
        value_name = "ADDRESS",
        default_value = "unix:/run/payload-registry/private.sock"
    )]
    pub registry_address: String,

    /// The authorities of the registry's certificate, in PEM, for TLS; read again when they change
    #[arg(long, env = "KAPI_REGISTRY_CA_FILE", value_name = "FILE")]
    pub registry_ca_file: Option<PathBuf>,

    /// The certificate that is shown to the registry, in PEM, for TLS; read again when it changes
    #[arg(long, env = "KAPI_REGISTRY_CERT_FILE", value_name = "FILE")]
    pub registry_cert_file: Option<PathBuf>,

    /// The private key of that certificate, in PEM, for TLS; read again when it changes
    #[arg(long, env = "KAPI_REGISTRY_KEY_FILE", value_name = "FILE")]
    pub registry_key_file: Option<PathBuf>,

    /// The host by which clients know the registry, with the port where it needs one: addresses of tags begin with it
    #[arg(long, env = "KAPI_REGISTRY_HOST", value_name = "HOST[:PORT]")]
    pub registry_host: RegistryHost,
}

/// The way to the cluster.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Cluster")]
pub struct ClusterFlags {
    /// A kubeconfig; without it: $KUBECONFIG, ~/.kube/config, or the service account of the pod
    #[arg(long, env = "KAPI_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// The audience of tokens that are for the registry alone. The API server must not have it among its own
    #[arg(long, env = "KAPI_AUDIENCE", value_name = "AUDIENCE", default_value = DEFAULT_AUDIENCE)]
    pub audience: String,

    /// Whether what is stored under a name that is no namespace's is removed
    #[arg(
        long,
        env = "KAPI_PURGE_VANISHED_NAMESPACES",
        value_name = "BOOL",
        action = ArgAction::Set,
        default_value_t = true
    )]
    pub purge_vanished_namespaces: bool,

    /// Whether annotated pull secrets are filled and kept
    #[arg(
        long,
        env = "KAPI_MANAGE_PULL_SECRETS",
        value_name = "BOOL",
        action = ArgAction::Set,
        default_value_t = true
    )]
    pub manage_pull_secrets: bool,

    /// Seconds that the tokens in pull secrets are good for
    #[arg(
        long,
        env = "KAPI_PULL_SECRET_TOKEN_SECONDS",
        value_name = "SECONDS",
        default_value = "86400",
        value_parser = token_lifetime
    )]
    pub pull_secret_token_seconds: TokenLifetime,
}

fn token_lifetime(text: &str) -> Result<TokenLifetime, Box<dyn Error + Send + Sync>> {
    Ok(TokenLifetime::try_from(Duration::from_secs(text.parse()?))?)
}

/// How lines of the log are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people on a terminal, for programs everywhere else.
    Auto,
    /// For people.
    Text,
    /// For programs: one JSON object a line.
    Json,
}

/// A host, with or without a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryHost(String);

impl RegistryHost {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A text is no host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no host, with or without a port, such as registry.example.com or registry.example.com:5000")]
pub struct InvalidRegistryHost;

impl FromStr for RegistryHost {
    type Err = InvalidRegistryHost;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let authority = http::uri::Authority::from_str(text).map_err(|_| InvalidRegistryHost)?;
        if authority.as_str().contains('@') || authority.host().is_empty() {
            return Err(InvalidRegistryHost);
        }
        Ok(Self(text.to_owned()))
    }
}

impl Settings {
    /// How long to serve on after a signal to end.
    pub fn drain(&self) -> Duration {
        Duration::from_secs(self.drain_seconds)
    }

    /// How long to wait, after that, for running requests.
    pub fn grace(&self) -> Duration {
        Duration::from_secs(self.grace_seconds)
    }

    /// What the pieces that speak to the cluster are told.
    pub fn cluster_settings(&self) -> ClusterSettings {
        ClusterSettings {
            audience: self.cluster.audience.clone(),
            purges_vanished_namespaces: self.cluster.purge_vanished_namespaces,
            pull_secrets: self.cluster.manage_pull_secrets.then(|| PullSecretSettings {
                registry_host: self.registry.registry_host.as_str().to_owned(),
                token_lifetime: self.cluster.pull_secret_token_seconds,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_flags_do_not_contradict_each_other() {
        Settings::command().debug_assert();
    }

    #[test]
    fn what_is_needed_is_enough() {
        let needed =
            ["kapi", "--tls-cert-file", "c", "--tls-key-file", "k", "--registry-host", "r.example.com"];
        let settings = Settings::try_parse_from(needed).expect("settings");
        assert_eq!(settings.listen.port(), 8443);
        assert_eq!(settings.front_proxy.requestheader_username_headers, ["X-Remote-User"]);
        let cluster = settings.cluster_settings();
        assert!(cluster.purges_vanished_namespaces && cluster.pull_secrets.is_some());
        for wrong in [
            &["--registry-host", "https://r.example.com"][..],
            &["--pull-secret-token-seconds", "5"],
            &["--manage-pull-secrets", "maybe"],
            &["--requestheader-allowed-names", "front-proxy-client"],
        ] {
            assert!(Settings::try_parse_from([&needed, wrong].concat()).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn hosts() {
        for text in ["registry.example.com", "registry.example.com:5000", "127.0.0.1:5000", "[::1]:5000"] {
            assert!(RegistryHost::from_str(text).is_ok(), "{text}");
        }
        for text in ["", "https://registry.example.com", "registry.example.com/", "me@registry.example.com"] {
            assert_eq!(RegistryHost::from_str(text), Err(InvalidRegistryHost), "{text}");
        }
    }
}
