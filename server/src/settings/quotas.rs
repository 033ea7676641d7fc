use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use bytesize::TIB;
use engine::oci::RepositoryName;
use serde::de::{Deserialize, Deserializer, Error as _};
use serde_json::{Map, Value};

use super::{InvalidValue, Size, file, value};

/// Bytes of content that a namespace may have: `none`, which is as many as there is room for, or a size up to 1 EiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota(Option<u64>);

impl Quota {
    /// The number of bytes; `None`: as many as there is room for.
    pub fn bytes(self) -> Option<u64> {
        self.0
    }
}

impl FromStr for Quota {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        if text == "none" {
            return Ok(Self(None));
        }
        let size: Result<Size<0, { 1024 * 1024 * TIB }>, InvalidValue> = text.parse();
        size.map(|size| Self(Some(size.bytes())))
            .map_err(|_| InvalidValue::new("write none, or a number of bytes with a unit, such as 50GiB"))
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("none"),
            Some(bytes) => Size::<0, { u64::MAX }>::new(bytes).fmt(f),
        }
    }
}

/// The quotas of namespaces that have one of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamespaceQuotas(BTreeMap<String, Quota>);

impl NamespaceQuotas {
    /// Each namespace and its quota.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Quota)> {
        self.0.iter().map(|(namespace, quota)| (namespace.as_str(), *quota))
    }
}

impl<'de> Deserialize<'de> for NamespaceQuotas {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let texts = BTreeMap::<String, String>::deserialize(deserializer)?;
        let read = |(namespace, text): (String, String)| {
            let is_name = |name: RepositoryName| name.path().is_empty();
            if !namespace.parse().is_ok_and(is_name) {
                let problem = "a namespace is the first segment of the names of repositories";
                return Err(D::Error::custom(format_args!("{namespace:?} will not do: {problem}")));
            }
            let quota = text.parse().map_err(|error: InvalidValue| {
                D::Error::custom(format_args!("{text:?} will not do: {error}"))
            })?;
            Ok((namespace, quota))
        };
        texts.into_iter().map(read).collect::<Result<_, _>>().map(Self)
    }
}

/// In the environment, they are written as in the file, in YAML or JSON.
impl value::Value for NamespaceQuotas {
    fn parse(text: &str) -> Result<Self, InvalidValue> {
        file::parse(text).map_err(|error| InvalidValue::new(error.to_string()))
    }

    /// As JSON, which can be read again.
    fn shown(&self) -> String {
        let quotas: Map<String, Value> =
            self.iter().map(|(namespace, quota)| (namespace.to_owned(), quota.to_string().into())).collect();
        Value::from(quotas).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Value as _;
    use super::*;

    #[test]
    fn quotas_are_read_and_can_be_read_again() {
        let quotas = NamespaceQuotas::parse("team-a: 50GiB\nteam-b: none\nteam-c: 0\n").expect("quotas");
        let read: Vec<_> = quotas.iter().map(|(namespace, quota)| (namespace, quota.bytes())).collect();
        assert_eq!(read, [("team-a", Some(50 << 30)), ("team-b", None), ("team-c", Some(0))]);
        assert_eq!(NamespaceQuotas::parse(&quotas.shown()), Ok(quotas));
        assert_eq!(NamespaceQuotas::default().shown(), "{}");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, expected) in [
            ("a/b: 1GiB", r#""a/b" will not do: a namespace is the first segment"#),
            ("Team: 1GiB", r#""Team" will not do"#),
            ("a: much", r#""much" will not do: write none, or a number of bytes"#),
            ("a: 1GiB\na: 2GiB", r#"the key "a" is there twice"#),
        ] {
            let error = NamespaceQuotas::parse(text).expect_err(text).to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
