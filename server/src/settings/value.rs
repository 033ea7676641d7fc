use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::de::{Deserialize, Deserializer, Error as _};

use super::{Count, GcMode, LogFilter, LogFormat, PrivateListen, Quota, Size, Time, WriteMode};
use crate::access::{AnonymousAccess, Users};

/// Why a text is no value of a setting: a sentence that says what to write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidValue(String);

impl InvalidValue {
    pub(super) fn new(sentence: impl Into<String>) -> Self {
        Self(sentence.into())
    }
}

/// The value of a setting: from text, whatever the source, and back to text.
pub(crate) trait Value: Sized {
    /// Reads the value. The error does not repeat the text.
    fn parse(text: &str) -> Result<Self, InvalidValue>;
    /// The value as it can be shown: without secrets.
    fn shown(&self) -> String;
}

/// Values whose text is that of `FromStr` and `Display`.
macro_rules! from_text {
    ($([$($bound:tt)*] $type:ty),* $(,)?) => {
        $(impl<$($bound)*> Value for $type {
            fn parse(text: &str) -> Result<Self, InvalidValue> {
                text.parse()
            }

            fn shown(&self) -> String {
                self.to_string()
            }
        })*
    };
}

from_text!(
    [const MIN: u32, const MAX: u32] Count<MIN, MAX>,
    [const MIN: u64, const MAX: u64] Size<MIN, MAX>,
    [const MIN: u64, const MAX: u64] Time<MIN, MAX>,
    [] GcMode,
    [] LogFilter,
    [] LogFormat,
    [] PrivateListen,
    [] Quota,
    [] WriteMode,
);

impl Value for SocketAddr {
    fn parse(text: &str) -> Result<Self, InvalidValue> {
        text.parse().map_err(|_| {
            InvalidValue::new(
                "write an IP address and a port, such as 127.0.0.1:5000, 0.0.0.0:5000 or [::]:5000",
            )
        })
    }

    fn shown(&self) -> String {
        self.to_string()
    }
}

impl Value for PathBuf {
    fn parse(text: &str) -> Result<Self, InvalidValue> {
        if text.is_empty() || text.contains('\0') {
            return Err(InvalidValue::new("write the path of a directory"));
        }
        Ok(Path::new(text).to_owned())
    }

    fn shown(&self) -> String {
        self.display().to_string()
    }
}

impl Value for Option<PathBuf> {
    fn parse(text: &str) -> Result<Self, InvalidValue> {
        match text {
            "none" => Ok(None),
            "" => Err(InvalidValue::new("write the path of a file, or none")),
            _ if text.contains('\0') => Err(InvalidValue::new("write the path of a file, or none")),
            path => Ok(Some(path.into())),
        }
    }

    fn shown(&self) -> String {
        self.as_ref().map_or_else(|| "none".to_owned(), |path| path.display().to_string())
    }
}

impl Value for bool {
    fn parse(text: &str) -> Result<Self, InvalidValue> {
        text.parse().map_err(|_| InvalidValue::new("write true or false"))
    }

    fn shown(&self) -> String {
        self.to_string()
    }
}

impl Value for Option<AnonymousAccess> {
    fn parse(text: &str) -> Result<Self, InvalidValue> {
        text.parse().map(Some).map_err(|error| InvalidValue::new(format!("{error}")))
    }

    fn shown(&self) -> String {
        self.map_or_else(|| "write, or none with users".to_owned(), |access| access.to_string())
    }
}

/// In the environment, users are written as in the file, in YAML or JSON.
impl Value for Users {
    fn parse(text: &str) -> Result<Self, InvalidValue> {
        super::file::parse(text).map_err(|error| InvalidValue::new(error.to_string()))
    }

    fn shown(&self) -> String {
        match self.len() {
            0 => "none".to_owned(),
            1 => "1 user".to_owned(),
            count => format!("{count} users"),
        }
    }
}

/// Reads a value of the file through the same parser as that of the environment.
pub(super) fn deserialize<'de, D: Deserializer<'de>, T: Value>(deserializer: D) -> Result<T, D::Error> {
    let text = String::deserialize(deserializer)?;
    T::parse(&text).map_err(|error| D::Error::custom(format_args!("{text:?} will not do: {error}")))
}
