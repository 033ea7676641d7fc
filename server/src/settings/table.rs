use super::value::Value;
use super::{InvalidValue, Settings, variable_name};

/// A setting: its names and what it means. The value is in [`Settings`].
pub struct Setting {
    /// Its key in the configuration file; the sections are in front of dots: `http.headTimeout`.
    pub key: &'static str,
    /// Its flag on the command line, for the few that have one.
    pub flag: Option<&'static str>,
    /// What it means, its unit and its limits, in a sentence or two.
    pub meaning: &'static str,
    pub(super) set: fn(&mut Settings, &str) -> Result<(), InvalidValue>,
    shown: fn(&Settings) -> String,
}

impl Setting {
    /// Its variable in the environment.
    pub fn variable(&self) -> String {
        variable_name(self.key)
    }

    /// Its value in `settings`, as text, without secrets.
    pub fn shown(&self, settings: &Settings) -> String {
        (self.shown)(settings)
    }

    /// Its default, as text.
    pub fn default(&self) -> String {
        self.shown(&Settings::default())
    }
}

macro_rules! setting {
    ($key:literal, $($field:ident).+, $flag:expr, $meaning:literal) => {
        Setting {
            key: $key,
            flag: $flag,
            meaning: $meaning,
            set: |settings, text| Value::parse(text).map(|value| settings.$($field).+ = value),
            shown: |settings| settings.$($field).+.shown(),
        }
    };
}

/// All settings, in the order in which they are shown.
pub static SETTINGS: &[Setting] = &[
    setting!("listen", listen, Some("--listen"), "Address and port to listen on."),
    setting!(
        "root",
        root,
        Some("--root"),
        "Directory that holds everything the registry stores; made when it is not there."
    ),
    setting!(
        "threads",
        threads,
        Some("--threads"),
        "Threads that serve connections, up to 1024; 0 is one for each CPU."
    ),
    setting!(
        "allowOpen",
        allow_open,
        Some("--allow-open"),
        "Whether the registry may be open to everybody (`anonymous` is `write`) on an address that other machines reach; otherwise such a start is refused."
    ),
    setting!(
        "anonymous",
        anonymous,
        None,
        "What everybody may do without a login: `none`, `read` (pull) or `write` (pull, push and delete)."
    ),
    setting!(
        "users",
        users,
        None,
        "Static users by name, each with `passwordHash` (bcrypt, cost 4 to 15) and `projects`. In the environment: the same as JSON or YAML."
    ),
    setting!(
        "log.format",
        log.format,
        None,
        "How the log is written: `text`, `json`, or `auto`, which is text on a terminal and JSON elsewhere."
    ),
    setting!(
        "log.level",
        log.level,
        None,
        "What is logged: `off`, `error`, `warn`, `info`, `debug` or `trace`, also by module: `info,server::access=debug`."
    ),
    setting!(
        "http.headTimeout",
        http.head_timeout,
        None,
        "Time for the head of a request, from its first byte to its last; 1s to 1h."
    ),
    setting!(
        "http.idleTimeout",
        http.idle_timeout,
        None,
        "Time that a connection may wait for its next request; 1s to 1h."
    ),
    setting!(
        "http.bodyTimeout",
        http.body_timeout,
        None,
        "Time in which no byte of a body moves, in either direction, before the connection is closed; 1s to 1h."
    ),
    setting!("http.headSizeMax", http.head_size_max, None, "Size of a request's head; 4KiB to 1MiB."),
    setting!("http.headersMax", http.headers_max, None, "Headers of a request; 16 to 1000."),
    setting!(
        "http.connectionsMax",
        http.connections_max,
        None,
        "Connections at a time, of all threads together; 1 to 1000000."
    ),
    setting!(
        "limits.manifestSize",
        limits.manifest_size,
        None,
        "Size of a manifest: one of this size is accepted, a bigger one refused (413); 1KiB to 64MiB."
    ),
    setting!("delete.enabled", delete.enabled, None, "Whether anything can be deleted through the protocol."),
    setting!(
        "namespaces.required",
        namespaces.required,
        None,
        "Whether a repository's name needs at least two segments, of which the first is its namespace; with `kubernetes.enabled` it always does."
    ),
    setting!(
        "quotas.default",
        quotas.default,
        None,
        "Bytes of content (blobs and manifests, each counted once) that a namespace may have, which is the first segment of a name; pushes beyond it are refused (413); `none` is as many as there is room for."
    ),
    setting!(
        "quotas.namespaces",
        quotas.namespaces,
        None,
        "The same by namespace, for those that have a quota of their own: `{team-a: 50GiB, team-b: none}`. In the environment: the same as JSON or YAML."
    ),
    setting!(
        "kubernetes.enabled",
        kubernetes.enabled,
        None,
        "Whether users of a Kubernetes cluster log in with their tokens, its RBAC says what they may do, and pushes need a namespace that exists there."
    ),
    setting!(
        "uploads.expiry",
        uploads.expiry,
        None,
        "Time without progress after which an upload is given up and its space freed; 1m to 365d."
    ),
    setting!(
        "storage.writes",
        storage.writes,
        None,
        "How content gets to the disk: `direct` goes around the page cache, `buffered` through it; `auto` is direct where the file system can do it."
    ),
    setting!(
        "storage.reserve",
        storage.reserve,
        None,
        "Free space on the disk below which pushes are refused (507), while pulls, deletes and the collection go on; 0 to 1024TiB."
    ),
    setting!("storage.cache", storage.cache, None, "Memory for metadata that was read; 1MiB to 1TiB."),
    setting!(
        "gc.mode",
        gc.mode,
        None,
        "Whether writing is paused while a collection of garbage marks (`read-only`) or goes on (`online`); both are equally safe."
    ),
    setting!(
        "gc.untaggedAge",
        gc.untagged_age,
        None,
        "Age from which on a collection removes manifests that no tag leads to; 0s to 365d."
    ),
    setting!(
        "gc.blobAge",
        gc.blob_age,
        None,
        "Age from which on a collection removes blobs that no manifest needs; longer than any push takes; 0s to 365d."
    ),
    setting!(
        "gc.toldAge",
        gc.told_age,
        None,
        "Time for which a collection leaves content alone after a client was told that it is there, as that client will not push it again; after a start everything counts as told for as long; 0s to 7d."
    ),
    setting!(
        "gc.drain",
        gc.drain,
        None,
        "Time that running writes get to end before a collection in mode `read-only` marks; 0s to 1h."
    ),
    setting!(
        "gc.lease",
        gc.lease,
        None,
        "Time after which the registry takes writes again in any case when a collection has paused them, the draining counted in; 1s to 7d."
    ),
    setting!(
        "gc.interval",
        gc.interval,
        None,
        "Time from one collection to the next that the registry begins by itself; 0s is never; up to 365d."
    ),
    setting!(
        "gc.retention",
        gc.retention,
        None,
        "Rules about which tags a collection keeps, each with `repositories` (a pattern), `keepLast`, `keepYounger`, and patterns of tags that are `protected` from it or even `immutable`, so that no push moves them (409); the first that fits a repository counts. In the environment: the same as JSON or YAML."
    ),
    setting!(
        "scrub.rate",
        scrub.rate,
        None,
        "Bytes that a scrub reads in a second; 0 is as many as it can; up to 1TiB."
    ),
    setting!(
        "scrub.interval",
        scrub.interval,
        None,
        "Time from the beginning of one scrub to that of the next that the registry begins by itself; 0s is never; up to 365d."
    ),
    setting!(
        "private.listen",
        private.listen,
        None,
        "Where the private interface listens: `unix` is the socket `private.sock` in the root, `unix:<path>` one elsewhere, an IP address and a port is TLS there, `none` is nowhere."
    ),
    setting!(
        "private.tls.certificate",
        private.tls.certificate,
        None,
        "File with the certificates (PEM) of the private interface, its own first; read again when it changes."
    ),
    setting!(
        "private.tls.key",
        private.tls.key,
        None,
        "File with the key (PEM) of that certificate; read again when it changes."
    ),
    setting!(
        "private.tls.clientCa",
        private.tls.client_ca,
        None,
        "File with the authorities (PEM) one of which must have signed a client's certificate; read again when it changes."
    ),
    setting!(
        "shutdown.drain",
        shutdown.drain,
        None,
        "Time that transfers get to end after SIGTERM; 0s to 1h. Kubernetes kills after 30 seconds."
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_variables_are_unique() {
        for (n, setting) in SETTINGS.iter().enumerate() {
            for other in &SETTINGS[n + 1..] {
                assert_ne!(setting.key, other.key);
                assert_ne!(setting.variable(), other.variable());
            }
        }
    }

    /// `docs/configuration.md` has each setting, as a row of this table. Where this fails, put in what it prints.
    #[test]
    fn the_documentation_has_every_setting() {
        let page = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md"));
        let missing: Vec<String> = SETTINGS.iter().map(row).filter(|row| !page.contains(row)).collect();
        assert!(missing.is_empty(), "docs/configuration.md lacks:\n{}", missing.join("\n"));
    }

    #[test]
    fn the_examples_of_the_documentation_are_good() {
        let page = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md"));
        let blocks: Vec<&str> =
            page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
        assert!(!blocks.is_empty());
        for block in blocks {
            let path = tempfile::NamedTempFile::new().expect("a file").into_temp_path();
            std::fs::write(&path, block).expect("a file");
            let flags = crate::settings::Flags { config: Some(path.to_path_buf()), ..Default::default() };
            crate::settings::load(&flags, []).expect(block);
        }
    }

    fn row(setting: &Setting) -> String {
        let flag = setting.flag.map_or_else(String::new, |flag| format!("`{flag}`"));
        let (variable, default) = (setting.variable(), setting.default());
        format!("| `{}` | `{variable}` | {flag} | {default} | {} |", setting.key, setting.meaning)
    }

    #[test]
    fn what_is_shown_can_be_read_again() {
        for setting in SETTINGS {
            if ["users", "anonymous"].contains(&setting.key) {
                continue;
            }
            let mut settings = Settings::default();
            (setting.set)(&mut settings, &setting.default()).expect(setting.key);
            assert_eq!(settings, Settings::default(), "{}", setting.key);
        }
    }
}
