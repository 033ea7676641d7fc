use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::thread;

use serde::Deserialize;

use super::{
    Count, GcMode, LogFilter, LogFormat, NamespaceQuotas, PrivateListen, Quota, Retention, Size, Time,
    WriteMode, value,
};
use crate::access::{AnonymousAccess, Users};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

/// All settings. Every value is within its bounds.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Settings {
    /// Address and port to listen on; default `127.0.0.1:5000`.
    #[serde(deserialize_with = "value::deserialize")]
    pub listen: SocketAddr,
    /// Directory that holds everything the registry stores; default `data`, relative to the working directory.
    #[serde(deserialize_with = "value::deserialize")]
    pub root: PathBuf,
    /// Threads that serve connections, at most 1024; default 0, which is one for each CPU.
    #[serde(deserialize_with = "value::deserialize")]
    pub threads: Count<0, 1024>,
    /// The log.
    pub log: LogSettings,
    /// Connections and requests.
    pub http: HttpSettings,
    /// Limits on what is stored.
    pub limits: LimitSettings,
    /// Deleting.
    pub delete: DeleteSettings,
    /// Names of repositories.
    pub namespaces: NamespaceSettings,
    /// Pushes that are under way.
    pub uploads: UploadSettings,
    /// The disk.
    pub storage: StorageSettings,
    /// The collection of garbage.
    pub gc: GcSettings,
    /// The reading of all content again.
    pub scrub: ScrubSettings,
    /// The private interface.
    pub private: PrivateSettings,
    /// The end of the process.
    pub shutdown: ShutdownSettings,
    /// What everybody may do without a login; see [`Settings::anonymous_access`] for what absence means.
    #[serde(deserialize_with = "value::deserialize")]
    pub anonymous: Option<AnonymousAccess>,
    /// How much namespaces may have.
    pub quotas: QuotaSettings,
    /// The cluster that the registry serves.
    pub kubernetes: KubernetesSettings,
    /// The static users; default none.
    pub users: Users,
    /// Whether everybody may write also on an address that other machines reach; default false.
    #[serde(deserialize_with = "value::deserialize")]
    pub allow_open: bool,
}

/// `log`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct LogSettings {
    /// How lines are written; default by where they go.
    #[serde(deserialize_with = "value::deserialize")]
    pub format: LogFormat,
    /// What is logged; default `info`.
    #[serde(deserialize_with = "value::deserialize")]
    pub level: LogFilter,
}

/// `http`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct HttpSettings {
    /// Time for the head of a request, from its first byte to its last; 1 s to 1 h, default 30 s.
    #[serde(deserialize_with = "value::deserialize")]
    pub head_timeout: Time<1, HOUR>,
    /// Time that a connection may wait for its next request; 1 s to 1 h, default 75 s.
    #[serde(deserialize_with = "value::deserialize")]
    pub idle_timeout: Time<1, HOUR>,
    /// Time in which no byte of a body moves, in either direction; 1 s to 1 h, default 60 s.
    #[serde(deserialize_with = "value::deserialize")]
    pub body_timeout: Time<1, HOUR>,
    /// Bytes of a request's head; 4 KiB to 1 MiB, default 32 KiB.
    #[serde(deserialize_with = "value::deserialize")]
    pub head_size_max: Size<{ 4 * KIB }, MIB>,
    /// Headers of a request; 16 to 1,000, default 100.
    #[serde(deserialize_with = "value::deserialize")]
    pub headers_max: Count<16, 1000>,
    /// Connections at a time, of all threads together; 1 to 1,000,000, default 10,000.
    #[serde(deserialize_with = "value::deserialize")]
    pub connections_max: Count<1, 1_000_000>,
}

/// `limits`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct LimitSettings {
    /// Bytes of a manifest: as many are accepted, one more is refused; 1 KiB to 64 MiB, default 4 MiB.
    #[serde(deserialize_with = "value::deserialize")]
    pub manifest_size: Size<KIB, { 64 * MIB }>,
}

/// `delete`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct DeleteSettings {
    /// Whether anything can be deleted through the protocol; default true.
    #[serde(deserialize_with = "value::deserialize")]
    pub enabled: bool,
}

/// `namespaces`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct NamespaceSettings {
    /// Whether a repository's name needs at least two segments, the first of which is the namespace; default false.
    #[serde(deserialize_with = "value::deserialize")]
    pub required: bool,
}

/// `quotas`: how many bytes of content namespaces may have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct QuotaSettings {
    /// For namespaces that are not named; default none.
    #[serde(deserialize_with = "value::deserialize")]
    pub default: Quota,
    /// For namespaces by their names; default none.
    pub namespaces: NamespaceQuotas,
}

/// `kubernetes`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct KubernetesSettings {
    /// Whether users of a cluster log in with their tokens and are held to its rules, and pushes to its namespaces;
    /// default false.
    #[serde(deserialize_with = "value::deserialize")]
    pub enabled: bool,
}

/// `uploads`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct UploadSettings {
    /// Time without progress after which an upload is given up and its space freed; 1 min to 365 d, default 24 h.
    #[serde(deserialize_with = "value::deserialize")]
    pub expiry: Time<60, { 365 * DAY }>,
}

/// `storage`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct StorageSettings {
    /// How content gets to the disk; default by what the file system can do.
    #[serde(deserialize_with = "value::deserialize")]
    pub writes: WriteMode,
    /// Free bytes of the file system below which pushes are refused (507), so that pulls, deletes and the collection
    /// go on; 0 to 1 PiB, default 256 MiB.
    #[serde(deserialize_with = "value::deserialize")]
    pub reserve: Size<0, { 1024 * TIB }>,
    /// Memory for metadata that was read, in bytes; 1 MiB to 1 TiB, default 8 MiB.
    #[serde(deserialize_with = "value::deserialize")]
    pub cache: Size<MIB, { 1024 * GIB }>,
}

/// `gc`: the collection of garbage.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct GcSettings {
    /// Whether writing is paused while it marks; default it is.
    #[serde(deserialize_with = "value::deserialize")]
    pub mode: GcMode,
    /// Age from which on manifests are collected that nothing keeps; 0 s to 365 d, default 24 h.
    #[serde(deserialize_with = "value::deserialize")]
    pub untagged_age: Time<0, { 365 * DAY }>,
    /// Age from which on blobs are collected that no manifest needs; 0 s to 365 d, default 24 h.
    #[serde(deserialize_with = "value::deserialize")]
    pub blob_age: Time<0, { 365 * DAY }>,
    /// Time for which content is not collected after a client was told that it is there; 0 s to 7 d, default 1 h.
    #[serde(deserialize_with = "value::deserialize")]
    pub told_age: Time<0, { 7 * DAY }>,
    /// Time that running writes get to end before it marks; 0 s to 1 h, default 30 s.
    #[serde(deserialize_with = "value::deserialize")]
    pub drain: Time<0, HOUR>,
    /// Time after which writing goes on in any case; 1 s to 7 d, default 10 min.
    #[serde(deserialize_with = "value::deserialize")]
    pub lease: Time<1, { 7 * DAY }>,
    /// Time from one collection to the next; 0 s to 365 d, default 0 s, which is never.
    #[serde(deserialize_with = "value::deserialize")]
    pub interval: Time<0, { 365 * DAY }>,
    /// Which tags are kept; default all of them.
    pub retention: Retention,
}

/// `scrub`: the reading of all content again, to see whether it is still what it was.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct ScrubSettings {
    /// Bytes that it reads in a second, 0 for as many as it can; up to 1 TiB, default 32 MiB.
    #[serde(deserialize_with = "value::deserialize")]
    pub rate: Size<0, TIB>,
    /// Time from the beginning of one scrub to that of the next; 0 s to 365 d, default 0 s, which is never.
    #[serde(deserialize_with = "value::deserialize")]
    pub interval: Time<0, { 365 * DAY }>,
}

/// `private`: the interface for the Kubernetes component and for administrators' commands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct PrivateSettings {
    /// Where it listens; default the Unix socket `private.sock` in the root.
    #[serde(deserialize_with = "value::deserialize")]
    pub listen: PrivateListen,
    /// How it speaks TLS.
    pub tls: PrivateTlsSettings,
}

/// `private.tls`: all of them where the private interface listens on an address. The files are read again when they
/// change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct PrivateTlsSettings {
    /// The server's certificates (PEM), its own first; default none.
    #[serde(deserialize_with = "value::deserialize")]
    pub certificate: Option<PathBuf>,
    /// The key of the first certificate (PEM); default none.
    #[serde(deserialize_with = "value::deserialize")]
    pub key: Option<PathBuf>,
    /// The authorities (PEM) whose certificates clients need; default none.
    #[serde(deserialize_with = "value::deserialize")]
    pub client_ca: Option<PathBuf>,
}

/// `shutdown`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct ShutdownSettings {
    /// Time that transfers get to end after SIGTERM; 0 s to 1 h, default 25 s, which fits into the 30 s after which
    /// Kubernetes kills.
    #[serde(deserialize_with = "value::deserialize")]
    pub drain: Time<0, HOUR>,
}

impl Settings {
    /// What everybody may do without a login: `anonymous`; where that is absent, everything if nobody can log in, and
    /// nothing if somebody can.
    pub fn anonymous_access(&self) -> AnonymousAccess {
        self.anonymous.unwrap_or(match self.users.is_empty() && !self.kubernetes.enabled {
            true => AnonymousAccess::Write,
            false => AnonymousAccess::None,
        })
    }

    /// Whether a repository's name needs a namespace and a path.
    pub fn needs_namespace(&self) -> bool {
        self.namespaces.required || self.kubernetes.enabled
    }

    /// Threads that serve connections: at least one.
    pub fn worker_threads(&self) -> usize {
        match self.threads.get() {
            0 => thread::available_parallelism().map_or(1, usize::from),
            threads => threads as usize,
        }
    }

    /// Whether everybody who reaches the address may write, and others than this machine reach it.
    pub(super) fn is_open_to_others(&self) -> bool {
        self.anonymous_access() == AnonymousAccess::Write && !self.listen.ip().to_canonical().is_loopback()
    }
}

impl PrivateSettings {
    /// The setting of a file that is needed to listen there and is not set.
    pub(super) fn missing_file(&self) -> Option<&'static str> {
        let PrivateListen::Tls(_) = self.listen else { return None };
        let PrivateTlsSettings { certificate, key, client_ca } = &self.tls;
        let files = [
            ("private.tls.certificate", certificate),
            ("private.tls.key", key),
            ("private.tls.clientCa", client_ca),
        ];
        files.into_iter().find(|(_, file)| file.is_none()).map(|(name, _)| name)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 5000),
            root: PathBuf::from("data"),
            threads: Count::new(0),
            log: LogSettings::default(),
            http: HttpSettings::default(),
            limits: LimitSettings::default(),
            delete: DeleteSettings::default(),
            namespaces: NamespaceSettings::default(),
            uploads: UploadSettings::default(),
            storage: StorageSettings::default(),
            gc: GcSettings::default(),
            scrub: ScrubSettings::default(),
            private: PrivateSettings::default(),
            shutdown: ShutdownSettings::default(),
            anonymous: None,
            quotas: QuotaSettings::default(),
            kubernetes: KubernetesSettings::default(),
            users: Users::default(),
            allow_open: false,
        }
    }
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            head_timeout: Time::new(30),
            idle_timeout: Time::new(75),
            body_timeout: Time::new(60),
            head_size_max: Size::new(32 * KIB),
            headers_max: Count::new(100),
            connections_max: Count::new(10_000),
        }
    }
}

impl Default for LimitSettings {
    fn default() -> Self {
        Self { manifest_size: Size::new(4 * MIB) }
    }
}

impl Default for DeleteSettings {
    fn default() -> Self {
        Self { enabled: true }
    }
}

impl Default for UploadSettings {
    fn default() -> Self {
        Self { expiry: Time::new(DAY) }
    }
}

impl Default for StorageSettings {
    fn default() -> Self {
        Self { writes: WriteMode::default(), reserve: Size::new(256 * MIB), cache: Size::new(8 * MIB) }
    }
}

impl Default for GcSettings {
    fn default() -> Self {
        Self {
            mode: GcMode::default(),
            untagged_age: Time::new(DAY),
            blob_age: Time::new(DAY),
            told_age: Time::new(HOUR),
            drain: Time::new(30),
            lease: Time::new(600),
            interval: Time::new(0),
            retention: Retention::default(),
        }
    }
}

impl Default for ScrubSettings {
    fn default() -> Self {
        Self { rate: Size::new(32 * MIB), interval: Time::new(0) }
    }
}

impl Default for ShutdownSettings {
    fn default() -> Self {
        Self { drain: Time::new(25) }
    }
}
