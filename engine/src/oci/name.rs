use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Why a text is no repository name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing at all.
    #[error("a repository name has at least one segment")]
    Empty,
    /// More than [`RepositoryName::LEN_MAX`] bytes.
    #[error("a repository name has at most {max} bytes", max = RepositoryName::LEN_MAX)]
    Long,
    /// Something the grammar does not allow.
    #[error(
        "a repository name is segments of lower-case letters and digits, joined inside by one of \".\", \"_\", \"__\" or dashes, and separated by \"/\""
    )]
    Format,
}

/// The name of a repository: one or more segments (OCI distribution specification, "Pulling manifests", `<name>`).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepositoryName(Arc<str>);

impl RepositoryName {
    /// Length limit in bytes: what clients accept of a host and a name together.
    pub const LEN_MAX: usize = 255;

    /// The name as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first segment: the namespace, where the registry serves a cluster.
    pub fn namespace(&self) -> &str {
        self.0.split_once('/').map_or(&*self.0, |(namespace, _)| namespace)
    }

    /// What follows the first segment; empty for a name of one segment.
    pub fn path(&self) -> &str {
        self.0.split_once('/').map_or("", |(_, path)| path)
    }
}

/// One segment: `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`.
fn is_segment(segment: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = segment.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else { return false };
    if !alphanumeric(first) || !alphanumeric(last) {
        return false;
    }
    bytes.split(|b| alphanumeric(*b)).all(|separator| match separator {
        b"" | b"." | b"_" | b"__" => true,
        other => other.iter().all(|b| *b == b'-'),
    })
}

impl FromStr for RepositoryName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > Self::LEN_MAX {
            return Err(NameError::Long);
        }
        if !text.split('/').all(is_segment) {
            return Err(NameError::Format);
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_grammar_are_accepted() {
        for name in
            ["a", "0", "library/busybox", "a.b", "a_b", "a__b", "a-b", "a---b", "a/b/c/d", "a0.b1_c2__d3-e4"]
        {
            assert_eq!(name.parse::<RepositoryName>().expect(name).as_str(), name);
        }
        let longest = "a".repeat(255);
        assert!(longest.parse::<RepositoryName>().is_ok());
    }

    #[test]
    fn other_names_are_refused() {
        for name in [
            "", "/", "a/", "/a", "a//b", "A", "a..b", "a.-b", "a___b", "-a", "a-", ".", "..", "a/../b",
            "a b", "a%2fb", "ä", "a\0b", "a._b", "_a", "a_",
        ] {
            assert!(name.parse::<RepositoryName>().is_err(), "{name:?}");
        }
        assert_eq!("a".repeat(256).parse::<RepositoryName>(), Err(NameError::Long));
    }

    #[test]
    fn namespace_and_path() {
        let name: RepositoryName = "ns/a/b".parse().expect("valid");
        assert_eq!((name.namespace(), name.path()), ("ns", "a/b"));
        let name: RepositoryName = "one".parse().expect("valid");
        assert_eq!((name.namespace(), name.path()), ("one", ""));
    }
}
