use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::environment::{self, COMMAND_VARIABLES, CONFIG, PREFIX};
use super::{Count, InvalidValue, Origin, SETTINGS, Settings, SettingsError, file};

/// The settings that came on the command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--listen`.
    pub listen: Option<SocketAddr>,
    /// `--root`.
    pub root: Option<PathBuf>,
    /// `--threads`.
    pub threads: Option<Count<0, 1024>>,
    /// `--allow-open`.
    pub allow_open: bool,
}

/// Settings, and where each of them came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// The configuration file that was read, if there is one.
    pub config: Option<PathBuf>,
    origins: HashMap<&'static str, Origin>,
}

impl Loaded {
    /// Where the value of the setting `key` came from.
    pub fn origin(&self, key: &str) -> &Origin {
        self.origins.get(key).unwrap_or(&Origin::Default)
    }
}

/// Finds the settings: flags go before the environment, the environment before the file, the file before the defaults.
///
/// `environment` is that of the process (`std::env::vars_os()`); variables without the registry's prefix are ignored.
pub fn load(
    flags: &Flags,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Loaded, SettingsError> {
    let mut variables = variables(environment)?;
    let config = variables.remove(CONFIG).map(PathBuf::from);
    let config = flags.config.clone().or(config);

    let (mut settings, mut origins) = match &config {
        Some(path) => from_file(path)?,
        None => (Settings::default(), HashMap::new()),
    };
    for setting in SETTINGS {
        let name = setting.variable();
        if let Some(text) = variables.remove(&name) {
            (setting.set)(&mut settings, &text)
                .map_err(|problem| SettingsError::Variable { name: name.clone(), problem })?;
            origins.insert(setting.key, Origin::Variable(name));
        }
    }
    // In the order of the names, so that the same error is reported each time.
    if let Some(name) = variables.into_keys().next() {
        let suggestion = environment::nearest_variable(&name);
        return Err(SettingsError::UnknownVariable { name, suggestion });
    }
    apply(flags, &mut settings, &mut origins);

    if settings.is_open_to_others() && !settings.allow_open {
        return Err(SettingsError::Open { listen: settings.listen });
    }
    if let Some(missing) = settings.private.missing_file() {
        return Err(SettingsError::PrivateTls { listen: settings.private.listen.to_string(), missing });
    }
    Ok(Loaded { settings, config, origins })
}

/// The registry's variables.
fn variables(
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<BTreeMap<String, String>, SettingsError> {
    let mut variables = BTreeMap::new();
    for (name, value) in environment {
        if !name.as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
            continue;
        }
        let name = name.to_string_lossy().into_owned();
        if environment::is_of_a_service(&name) || COMMAND_VARIABLES.contains(&name.as_str()) {
            continue;
        }
        let invalid = |name, sentence| SettingsError::Variable { name, problem: InvalidValue::new(sentence) };
        let Ok(value) = value.into_string() else {
            return Err(invalid(name, "its value is not UTF-8"));
        };
        if value.is_empty() {
            return Err(invalid(name, "its value is empty; give it one, or unset it"));
        }
        variables.insert(name, value);
    }
    Ok(variables)
}

fn from_file(path: &Path) -> Result<(Settings, HashMap<&'static str, Origin>), SettingsError> {
    let text =
        fs::read_to_string(path).map_err(|error| SettingsError::Read { path: path.to_owned(), error })?;
    let settings = file::parse(&text)
        .map_err(|error| SettingsError::File { path: path.to_owned(), problem: error.to_string() })?;
    let lines = file::lines(&text);
    let origin = |key| lines.get(key).map(|line| Origin::File { path: path.to_owned(), line: *line });
    let origins = SETTINGS.iter().filter_map(|setting| Some((setting.key, origin(setting.key)?))).collect();
    Ok((settings, origins))
}

fn apply(flags: &Flags, settings: &mut Settings, origins: &mut HashMap<&'static str, Origin>) {
    // Every flag is named, so that a new one cannot be forgotten here.
    let Flags { config: _, listen, root, threads, allow_open } = flags;
    if let Some(listen) = listen {
        settings.listen = *listen;
        origins.insert("listen", Origin::Flag("--listen"));
    }
    if let Some(root) = root {
        settings.root.clone_from(root);
        origins.insert("root", Origin::Flag("--root"));
    }
    if let Some(threads) = threads {
        settings.threads = *threads;
        origins.insert("threads", Origin::Flag("--threads"));
    }
    if *allow_open {
        settings.allow_open = true;
        origins.insert("allowOpen", Origin::Flag("--allow-open"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{AnonymousAccess, GrantLevel, PasswordHash};

    /// A good hash, of the password "abc".
    const HASH: &str = "$2a$06$If6bvum7DFjUnE9p2uDeDu0YHzrHM6tf.iqN8.yx.jNN1ILEf7h0i";

    fn environment(variables: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        variables.iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    /// Loads with a file that has this text; `/file` stands for its name in the error.
    fn load_with(text: &str, variables: &[(&str, &str)], flags: Flags) -> Result<Loaded, String> {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("registry.yaml");
        fs::write(&path, text).expect("a file");
        load(&Flags { config: Some(path.clone()), ..flags }, environment(variables))
            .map_err(|error| error.to_string().replace(&path.display().to_string(), "/file"))
    }

    fn file_error(text: &str) -> String {
        load_with(text, &[], Flags::default()).expect_err(text)
    }

    fn variable_error(name: &str, value: &str) -> String {
        load(&Flags::default(), environment(&[(name, value)])).expect_err(name).to_string()
    }

    #[test]
    fn nothing_given_is_the_defaults() {
        let loaded =
            load(&Flags::default(), environment(&[("PATH", "/bin"), ("LISTEN", "x")])).expect("defaults");
        assert_eq!(loaded.settings, Settings::default());
        assert_eq!(loaded.settings.anonymous_access(), AnonymousAccess::Write);
        assert!(loaded.settings.worker_threads() > 0);
        assert!(SETTINGS.iter().all(|setting| *loaded.origin(setting.key) == Origin::Default));
        for blank in ["", "\n\n", "# nothing\n  # here\n", "---\n# nothing\n"] {
            let loaded = load_with(blank, &[], Flags::default()).expect("defaults");
            assert_eq!(loaded.settings, Settings::default());
        }
    }

    #[test]
    fn flags_go_before_variables_before_the_file_before_defaults() {
        let text = "listen: 127.0.0.1:1\nroot: /file-root\nthreads: 1\nhttp:\n  headTimeout: 10s\n";
        let variables = [
            ("PAYLOAD_REGISTRY_LISTEN", "127.0.0.1:2"),
            ("PAYLOAD_REGISTRY_THREADS", "2"),
            ("PAYLOAD_REGISTRY_HTTP_IDLE_TIMEOUT", "20s"),
        ];
        let flags = Flags { listen: Some(([127, 0, 0, 1], 3).into()), ..Flags::default() };
        let loaded = load_with(text, &variables, flags).expect("valid");
        let settings = &loaded.settings;
        assert_eq!(settings.listen.port(), 3);
        assert_eq!(settings.threads.get(), 2);
        assert_eq!(settings.worker_threads(), 2);
        assert_eq!(settings.root, Path::new("/file-root"));
        assert_eq!(settings.http.head_timeout.to_string(), "10s");
        assert_eq!(settings.http.idle_timeout.to_string(), "20s");
        assert_eq!(settings.http.body_timeout, Settings::default().http.body_timeout);

        let path = loaded.config.clone().expect("a file");
        assert_eq!(loaded.origin("listen"), &Origin::Flag("--listen"));
        assert_eq!(loaded.origin("threads"), &Origin::Variable("PAYLOAD_REGISTRY_THREADS".into()));
        assert_eq!(loaded.origin("root"), &Origin::File { path: path.clone(), line: 2 });
        assert_eq!(loaded.origin("http.headTimeout"), &Origin::File { path, line: 5 });
        assert_eq!(loaded.origin("http.bodyTimeout"), &Origin::Default);
    }

    #[test]
    fn the_flag_names_the_file_before_the_variable() {
        let variables = [("PAYLOAD_REGISTRY_CONFIG", "/nowhere/of/the/variable.yaml")];
        assert!(load_with("threads: 3", &variables, Flags::default()).is_ok());
        let error = load(&Flags::default(), environment(&variables)).expect_err("no such file").to_string();
        assert!(
            error.starts_with("cannot read the configuration file /nowhere/of/the/variable.yaml: "),
            "{error}"
        );
    }

    #[test]
    fn every_setting_can_be_given_in_the_environment() {
        let users = format!(r#"{{"jane": {{"passwordHash": "{HASH}", "projects": []}}}}"#);
        for setting in SETTINGS {
            let value = match setting.key {
                "users" => users.clone(),
                "anonymous" => "read".to_owned(),
                _ => setting.default(),
            };
            let loaded =
                load(&Flags::default(), environment(&[(&setting.variable(), &value)])).expect(setting.key);
            assert_eq!(loaded.origin(setting.key), &Origin::Variable(setting.variable()));
        }
    }

    #[test]
    fn every_setting_can_be_given_in_the_file() {
        for setting in SETTINGS {
            let value = match setting.key {
                "users" => "{}".to_owned(),
                "anonymous" => "read".to_owned(),
                _ => setting.default(),
            };
            let levels = setting.key.split('.').enumerate();
            let text: String = levels.map(|(depth, key)| format!("\n{}{key}:", "  ".repeat(depth))).collect();
            let text = format!("{text} {value}\n");
            let loaded = load_with(&text, &[], Flags::default()).expect(&text);
            assert!(matches!(loaded.origin(setting.key), Origin::File { .. }), "{}", setting.key);
        }
    }

    #[test]
    fn errors_of_the_file_name_the_line_and_what_to_do() {
        for (text, expected) in [
            (
                "listn: 127.0.0.1:80",
                r#"/file, line 1, column 1: the key "listn" is unknown; did you mean "listen"?"#,
            ),
            (
                "threads: 1\nhttp:\n  headTimout: 1s",
                r#"/file, line 3, column 3: the key "headTimout" is unknown; did you mean "headTimeout"?"#,
            ),
            (
                "log: {colour: red}",
                r#"/file, line 1, column 7: the key "colour" is unknown; there are format, level"#,
            ),
            (
                "http:\n  headTimeout: soon",
                r#"/file, line 2, column 16: "soon" will not do: write a number with a unit, such as 30s, 5m, 24h or 7d"#,
            ),
            (
                "http: {headTimeout: 2h}",
                r#"/file, line 1, column 21: "2h" will not do: write a time from 1s to 1h"#,
            ),
            (
                "http: {headersMax: -3}",
                r#"/file, line 1, column 20: "-3" will not do: write a number from 16 to 1000"#,
            ),
            ("delete: {enabled: yes}", r#"/file, line 1, column 19: "yes" will not do: write true or false"#),
            ("anonymous: all", r#"/file, line 1, column 12: "all" will not do: write none, read or write"#),
            ("threads: 1\nthreads: 2", r#"/file, line 2, column 1: the key "threads" is there twice"#),
            ("http:\n", "/file, line 1, column 5: expected mapping start here; write one, or remove the key"),
            ("root:\n", "/file, line 1, column 5: the value is empty; write one, or remove the key"),
            ("root: b: c", "/file, line 1, column 8: mapping values are not allowed in this context"),
            (
                "users: {jane: {projects: [{name: a, access: REED}]}}",
                r#"/file, line 1, column 45: "REED" will not do: write READ or FULL"#,
            ),
            (
                "users: {jane: {projects: [{name: a}]}}",
                r#"/file, line 1, column 28: the key "access" is missing"#,
            ),
            (
                "users: {jane: {passwordHsh: x}}",
                r#"/file, line 1, column 16: the key "passwordHsh" is unknown; did you mean "passwordHash"?"#,
            ),
            (
                "users: {token: {}}",
                r#"/file, line 1, column 8: the user name "token": the names "token" (for logins with a Kubernetes token) and "anonymous" are reserved"#,
            ),
        ] {
            assert_eq!(file_error(text), expected, "{text}");
        }
        assert!(
            file_error("users: {jane: {projects: [{name: a/b, access: FULL}]}}")
                .contains(r#""a/b": a project's name"#)
        );
        assert!(
            file_error("users: {jane: {projects: [{name: a, subPath: /b, access: FULL}]}}")
                .contains(r#""/b": a sub-path"#)
        );
    }

    #[test]
    fn errors_of_variables_name_them_and_what_to_do() {
        for (name, value, expected) in [
            (
                "PAYLOAD_REGISTRY_LISTEN",
                "localhost",
                "the environment variable PAYLOAD_REGISTRY_LISTEN will not do: write an IP address and a port, such as 127.0.0.1:5000, 0.0.0.0:5000 or [::]:5000",
            ),
            (
                "PAYLOAD_REGISTRY_LISTEN",
                "",
                "the environment variable PAYLOAD_REGISTRY_LISTEN will not do: its value is empty; give it one, or unset it",
            ),
            (
                "PAYLOAD_REGISTRY_HTTP_HEAD_TIMOUT",
                "1s",
                "the environment variable PAYLOAD_REGISTRY_HTTP_HEAD_TIMOUT is no setting; did you mean PAYLOAD_REGISTRY_HTTP_HEAD_TIMEOUT?",
            ),
            (
                "PAYLOAD_REGISTRY_XYZZY",
                "1",
                "the environment variable PAYLOAD_REGISTRY_XYZZY is no setting; remove it, or see `payload-registry --help` for those that there are",
            ),
        ] {
            assert_eq!(variable_error(name, value), expected);
        }
        let error = variable_error("PAYLOAD_REGISTRY_USERS", r#"{"jane": {"passwordHash": "hunter2"}}"#);
        let expected =
            r#"PAYLOAD_REGISTRY_USERS will not do: the passwordHash of user "jane": it is no bcrypt hash"#;
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn variables_of_kubernetes_services_and_of_commands_are_left_alone() {
        let variables = [
            ("PAYLOAD_REGISTRY_SERVICE_HOST", "10.0.0.1"),
            ("PAYLOAD_REGISTRY_SERVICE_PORT", "5000"),
            ("PAYLOAD_REGISTRY_PORT", "tcp://10.0.0.1:5000"),
            ("PAYLOAD_REGISTRY_PORT_5000_TCP_ADDR", "10.0.0.1"),
            ("PAYLOAD_REGISTRY_API_PORT_443_TCP", "tcp://10.0.0.1:443"),
            ("PAYLOAD_REGISTRY_SERVER", "https://registry.example.com"),
        ];
        let loaded = load(&Flags::default(), environment(&variables)).expect("ignored");
        assert_eq!(loaded.settings, Settings::default());
    }

    #[test]
    fn users() {
        let text = format!(
            "users:
  jane.doe:
    passwordHash: {HASH}
    projects:
      - {{name: team-a, access: READ}}
      - name: 010
        subPath: frontend/*
        access: FULL
  ghost: {{}}
"
        );
        let settings = load_with(&text, &[], Flags::default()).expect("valid").settings;
        let (_, jane) = settings.users.get("jane.doe").expect("a user");
        assert!(jane.password_hash.as_ref().is_some_and(|hash: &PasswordHash| hash.verify(b"abc")));
        let grants: Vec<String> = jane.projects.iter().map(ToString::to_string).collect();
        // The name is taken as it is written, and not as a number.
        assert_eq!(grants, ["READ in team-a", "FULL in 010/frontend/*"]);
        assert_eq!(jane.projects[1].access, GrantLevel::Full);
        assert_eq!(settings.users.get("ghost").expect("a user").1.password_hash, None);
        assert_eq!(settings.anonymous_access(), AnonymousAccess::None);
    }

    #[test]
    fn a_hash_that_will_not_do_names_the_user_and_is_not_repeated() {
        for (hash, expected) in [
            ("hunter2", r#"the passwordHash of user "jane": it is no bcrypt hash"#),
            (&HASH.replace("$06$", "$16$"), r#"the passwordHash of user "jane": its bcrypt cost is 16"#),
        ] {
            let text = format!("users:\n  jane:\n    passwordHash: {hash}\n");
            let error = file_error(&text);
            assert!(error.starts_with(&format!("/file, line 2, column 3: {expected}")), "{error}");
            assert!(!error.contains(hash), "{error}");
        }
        // Nor is one of a line near the error.
        let error = file_error(&format!("users:\n  jane:\n    passwordHash: {HASH}\n    project: []\n"));
        assert!(!error.contains(&HASH[7..]), "{error}");
    }

    #[test]
    fn an_empty_sub_path_does_not_open_the_project() {
        let error =
            file_error("users:\n  jane:\n    projects:\n      - {name: a, subPath: , access: FULL}\n");
        assert!(error.contains("the value is empty"), "{error}");
    }

    #[test]
    fn the_private_interface_on_an_address_needs_its_certificates() {
        let complete = [
            ("PAYLOAD_REGISTRY_PRIVATE_LISTEN", "127.0.0.1:5443"),
            ("PAYLOAD_REGISTRY_PRIVATE_TLS_CERTIFICATE", "tls.crt"),
            ("PAYLOAD_REGISTRY_PRIVATE_TLS_KEY", "tls.key"),
            ("PAYLOAD_REGISTRY_PRIVATE_TLS_CLIENT_CA", "ca.crt"),
        ];
        let loaded = load(&Flags::default(), environment(&complete)).expect("complete").settings;
        assert_eq!(loaded.private.tls.client_ca, Some("ca.crt".into()));
        for (missing, key) in
            [(1, "private.tls.certificate"), (2, "private.tls.key"), (3, "private.tls.clientCa")]
        {
            let mut variables = complete;
            variables[missing].1 = "none";
            let error = load(&Flags::default(), environment(&variables)).expect_err(key).to_string();
            assert!(error.contains(key), "{error}");
        }
    }

    #[test]
    fn an_open_registry_on_a_reachable_address_is_refused() {
        for listen in ["0.0.0.0:5000", "[::]:5000", "192.0.2.1:5000", "[::ffff:192.0.2.1]:5000"] {
            let listen_flag = Flags { listen: Some(listen.parse().expect("valid")), ..Flags::default() };
            let error = load(&listen_flag, []).expect_err(listen).to_string();
            assert!(error.starts_with(listen) && error.contains("--allow-open"), "{error}");
            assert!(load(&Flags { allow_open: true, ..listen_flag.clone() }, []).is_ok());
            let closed = [
                ("PAYLOAD_REGISTRY_ANONYMOUS", "read"),
                ("PAYLOAD_REGISTRY_ANONYMOUS", "none"),
                ("PAYLOAD_REGISTRY_USERS", "{jane: {}}"),
                ("PAYLOAD_REGISTRY_ALLOW_OPEN", "true"),
            ];
            for variable in closed {
                assert!(load(&listen_flag, environment(&[variable])).is_ok(), "{variable:?}");
            }
            let open = [("PAYLOAD_REGISTRY_ANONYMOUS", "write"), ("PAYLOAD_REGISTRY_USERS", "{jane: {}}")];
            assert!(matches!(load(&listen_flag, environment(&open)), Err(SettingsError::Open { .. })));
        }
        for listen in ["127.0.0.1:5000", "127.1.2.3:80", "[::1]:5000", "[::ffff:127.0.0.1]:5000"] {
            let flags = Flags { listen: Some(listen.parse().expect("valid")), ..Flags::default() };
            assert!(load(&flags, []).is_ok(), "{listen}");
        }
    }
}
