//! The log: lines for people on a terminal, JSON for programs, on the standard error stream.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

use crate::settings::LogFormat;

/// The client of the cluster is left out unless it is asked for by name: each of its failures is logged by whoever made the
/// request, and it quotes answers that it cannot read, which may hold secrets.
const QUIET: &str = "kube_client=off,kube_runtime=off";

/// Sends events to the standard error stream from now on.
pub fn start(level: &str, format: LogFormat) -> Result<(), ParseError> {
    let is_text = match format {
        LogFormat::Text => true,
        LogFormat::Json => false,
        LogFormat::Auto => io::stderr().is_terminal(),
    };
    let filter = EnvFilter::try_new(format!("{QUIET},{level}"))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    // One process has one log: where there is one already, it goes on.
    let _ = if is_text {
        builder.try_init().is_ok()
    } else {
        builder.json().flatten_event(true).try_init().is_ok()
    };
    Ok(())
}
