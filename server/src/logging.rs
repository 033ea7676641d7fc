//! The log: lines for people on a terminal, JSON for programs, on the standard error stream.

use std::io::{self, IsTerminal as _};

use crate::settings::{LogFormat, LogSettings};

/// Sends events to the standard error stream from now on.
pub fn start(settings: &LogSettings) {
    let is_text = match settings.format {
        LogFormat::Text => true,
        LogFormat::Json => false,
        LogFormat::Auto => io::stderr().is_terminal(),
    };
    let builder = tracing_subscriber::fmt().with_env_filter(settings.level.filter()).with_writer(io::stderr);
    // One process has one log: where there is one already, it goes on.
    let _ = if is_text {
        builder.try_init().is_ok()
    } else {
        builder.json().flatten_event(true).try_init().is_ok()
    };
}
