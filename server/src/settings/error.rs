use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::InvalidValue;

/// Why there are no settings. Each text is a sentence that says what is wrong, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The configuration file cannot be read.
    #[error("cannot read the configuration file {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The configuration file is not YAML, has an unknown key, or a value that will not do.
    #[error("{}, {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The line, and what is wrong there.
        problem: String,
    },
    /// A variable of the environment has a value that will not do. The value is not repeated.
    #[error("the environment variable {name} will not do: {problem}")]
    Variable {
        /// The variable's name.
        name: String,
        /// What to write.
        problem: InvalidValue,
    },
    /// A variable of the environment with the registry's prefix that is no setting.
    #[error(
        "the environment variable {name} is no setting; {}",
        suggestion.as_ref().map_or_else(
            || "remove it, or see `payload-registry --help` for those that there are".to_owned(),
            |suggestion| format!("did you mean {suggestion}?"),
        )
    )]
    UnknownVariable {
        /// The variable's name.
        name: String,
        /// The name that is most like it.
        suggestion: Option<String>,
    },
    /// The private interface would listen on an address without a file that TLS takes.
    #[error(
        "private.listen is {listen}, where TLS is spoken, and {missing} is not set: set private.tls.certificate, private.tls.key and private.tls.clientCa, or let private.listen be unix or none"
    )]
    PrivateTls {
        /// Where it would listen.
        listen: String,
        /// The key of a setting that is missing.
        missing: &'static str,
    },
    /// Everybody could write, from other machines too.
    #[error(
        "{listen} can be reached from other machines, and everybody who reaches it could push and delete. Add users, or set anonymous to read or none, or listen on 127.0.0.1; if an open registry is what you want, start it with --allow-open (allowOpen: true)"
    )]
    Open {
        /// The address.
        listen: SocketAddr,
    },
}
