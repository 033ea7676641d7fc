use std::fmt;
use std::str::FromStr;

use tracing_subscriber::EnvFilter;

use super::InvalidValue;

/// How lines of the log are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people on a terminal, for programs everywhere else.
    #[default]
    Auto,
    /// For people.
    Text,
    /// For programs: one JSON object a line.
    Json,
}

impl LogFormat {
    /// Every value.
    pub const ALL: [Self; 3] = [Self::Auto, Self::Text, Self::Json];

    /// The word by which settings name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

impl FromStr for LogFormat {
    type Err = InvalidValue;

    fn from_str(word: &str) -> Result<Self, InvalidValue> {
        let found = Self::ALL.into_iter().find(|format| format.name() == word);
        found.ok_or_else(|| InvalidValue::new("write auto, text or json"))
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which events are logged: a level, or levels by module, such as `info,server::access=debug`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilter(String);

impl LogFilter {
    /// The filter for the subscriber that writes the log.
    pub fn filter(&self) -> EnvFilter {
        EnvFilter::new(&self.0)
    }

    /// The filter as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for LogFilter {
    fn default() -> Self {
        Self("info".to_owned())
    }
}

impl FromStr for LogFilter {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
        let invalid = || {
            InvalidValue::new(
                "write a level (off, error, warn, info, debug or trace), or levels by module: info,server::access=debug",
            )
        };
        // A bare word that is no level would be taken for a module of which everything is logged, and nothing else:
        // with a typing error, the log would be silent.
        let is_level = |part: &str| LEVELS.iter().any(|level| part.eq_ignore_ascii_case(level));
        if !text.split(',').all(|part| part.contains(['=', '[', ']', '}']) || is_level(part.trim())) {
            return Err(invalid());
        }
        EnvFilter::try_new(text).map_err(|_| invalid())?;
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        for text in [
            "info",
            "WARN",
            "off",
            "info,server=debug",
            "warn,engine::volume=trace",
            "info,server[span]=debug",
        ] {
            assert_eq!(text.parse::<LogFilter>().expect(text).as_str(), text);
        }
        for text in ["", "inof", "info,", "server", "info,server=loud", "loud"] {
            assert!(text.parse::<LogFilter>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn formats() {
        for format in LogFormat::ALL {
            assert_eq!(format.to_string().parse::<LogFormat>().expect("own word"), format);
        }
        assert!("xml".parse::<LogFormat>().is_err());
    }
}
