//! Refuses JSON that two readers could understand differently: an object that names a key twice.
//!
//! serde keeps the last of two equal keys where it fills a map and never looks at keys it does not know; other
//! parsers keep the first. A manifest that one client reads differently from another is an attack, so it is refused.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Any JSON value in which no object has the same key twice; keeps nothing of it.
pub(super) struct UniqueKeys;

impl<'de> Deserialize<'de> for UniqueKeys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

/// An object's key, borrowed from the text where it has no escapes.
#[derive(serde::Deserialize, PartialEq, Eq, Hash)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Visitor<'de> for UniqueKeys {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self, A::Error> {
        while items.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self, A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = entries.next_key::<Key<'de>>()? {
            entries.next_value::<Self>()?;
            if let Some(Key(again)) = seen.replace(key) {
                return Err(A::Error::custom(format_args!("the key {again:?} stands twice in one object")));
            }
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::UniqueKeys;

    #[test]
    fn repeated_keys_are_found_at_any_depth() {
        for good in ["1", "[]", r#"{"a":{"a":1},"b":[{"a":1},{"a":2}]}"#, "null", "-1.5e300", r#""x""#] {
            assert!(serde_json::from_str::<UniqueKeys>(good).is_ok(), "{good}");
        }
        for bad in [r#"{"a":1,"a":1}"#, r#"[{"b":{"a":1,"\u0061":1}}]"#, "{", "[1,]", "", "{} {}"] {
            assert!(serde_json::from_str::<UniqueKeys>(bad).is_err(), "{bad}");
        }
        assert!(serde_json::from_str::<UniqueKeys>(&"[".repeat(100_000)).is_err());
    }
}
