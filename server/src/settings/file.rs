use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, DeserializeOwned, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Error, Location, Options, Spanned};

use super::environment::nearest;

/// What is wrong in a configuration, and where. Of the text, it repeats at most the value that is wrong, and never
/// the lines around it, because there may be hashes in them.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}{problem}")]
pub(super) struct FileError {
    /// Line and column with a colon behind them, or nothing.
    place: String,
    problem: String,
}

/// Reads YAML (and so JSON), in which no key may be unknown or be there twice.
pub(super) fn parse<T: DeserializeOwned + Default>(text: &str) -> Result<T, FileError> {
    if is_blank(text) {
        return Ok(T::default());
    }
    serde_saphyr::from_str_with_options(text, options()).map_err(|error| problem(&error))
}

/// The lines in which keys are, by key: `http.headTimeout`.
pub(super) fn lines(text: &str) -> BTreeMap<String, u64> {
    let mut lines = BTreeMap::new();
    if !is_blank(text)
        && let Ok(root) = serde_saphyr::from_str_with_options::<Keys>(text, options())
    {
        root.collect("", &mut lines);
    }
    lines
}

/// Whether there is nothing but comments, as in a file of which all settings are commented out.
fn is_blank(text: &str) -> bool {
    text.lines().map(str::trim_start).all(|line| line.is_empty() || line.starts_with('#') || line == "---")
}

fn options() -> Options {
    serde_saphyr::options! { with_snippet: false }
}

fn problem(error: &Error) -> FileError {
    let error = error.without_snippet();
    let problem = match error {
        Error::SerdeUnknownField { field, expected, .. } => unknown_key(field, expected),
        Error::SerdeUnknownVariant { variant, expected, .. } => {
            format!("{variant:?} will not do: write {}", expected.join(" or "))
        }
        Error::SerdeMissingField { field, .. } => format!("the key {field:?} is missing"),
        Error::DuplicateMappingKey { key: Some(key), .. } => format!("the key {key:?} is there twice"),
        Error::NullIntoString { .. } => "the value is empty; write one, or remove the key".to_owned(),
        Error::Unexpected { expected, .. } => {
            format!("expected {expected} here; write one, or remove the key")
        }
        Error::Message { msg, .. } => msg.clone(),
        other => {
            // The library's own text says the place too, in front or behind.
            let text = other.to_string();
            let text = text.lines().next().unwrap_or_default();
            let text = text.rsplit_once(" at line ").map_or(text, |(text, _)| text);
            text.rsplit_once(": ")
                .filter(|(place, _)| place.contains("column"))
                .map_or(text, |(_, rest)| rest)
                .to_owned()
        }
    };
    let place = error.location().filter(|location| *location != Location::UNKNOWN);
    let place = place
        .map(|location| format!("line {}, column {}: ", location.line(), location.column()))
        .unwrap_or_default();
    FileError { place, problem }
}

fn unknown_key(key: &str, expected: &[&'static str]) -> String {
    let hint = match nearest(key, expected.iter().copied()) {
        Some(nearest) => format!("did you mean {nearest:?}?"),
        None => format!("there are {}", expected.join(", ")),
    };
    format!("the key {key:?} is unknown; {hint}")
}

/// The keys of a document with their places, and nothing of its values.
enum Keys {
    Mapping(Vec<(Spanned<String>, Keys)>),
    Leaf,
}

impl Keys {
    fn collect(&self, prefix: &str, lines: &mut BTreeMap<String, u64>) {
        let Self::Mapping(entries) = self else { return };
        for (key, below) in entries {
            let name = if prefix.is_empty() { key.value.clone() } else { format!("{prefix}.{}", key.value) };
            below.collect(&name, lines);
            lines.insert(name, key.referenced.line());
        }
    }
}

impl<'de> Deserialize<'de> for Keys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeysVisitor;
        impl<'de> Visitor<'de> for KeysVisitor {
            type Value = Keys;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("anything")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Keys, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Keys::Mapping(entries))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Keys, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Keys::Leaf)
            }

            fn visit_str<E>(self, _: &str) -> Result<Keys, E> {
                Ok(Keys::Leaf)
            }

            fn visit_bool<E>(self, _: bool) -> Result<Keys, E> {
                Ok(Keys::Leaf)
            }

            fn visit_u64<E>(self, _: u64) -> Result<Keys, E> {
                Ok(Keys::Leaf)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Keys, E> {
                Ok(Keys::Leaf)
            }

            fn visit_u128<E>(self, _: u128) -> Result<Keys, E> {
                Ok(Keys::Leaf)
            }

            fn visit_i128<E>(self, _: i128) -> Result<Keys, E> {
                Ok(Keys::Leaf)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Keys, E> {
                Ok(Keys::Leaf)
            }

            fn visit_unit<E>(self) -> Result<Keys, E> {
                Ok(Keys::Leaf)
            }
        }
        deserializer.deserialize_any(KeysVisitor)
    }
}
