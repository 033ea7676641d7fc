use std::fmt;
use std::str::FromStr;

use engine::oci::RepositoryName;

/// The name of a project: the first segment of its repositories' names.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProjectName(RepositoryName);

/// A text that cannot be the first segment of a repository's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a project's name is the first segment of a repository's name, without \"/\" and without patterns: team-a; what is inside of it is said by subPath"
)]
pub struct InvalidProjectName;

impl ProjectName {
    /// The name as it is written.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl FromStr for ProjectName {
    type Err = InvalidProjectName;

    fn from_str(text: &str) -> Result<Self, InvalidProjectName> {
        let name: RepositoryName = text.parse().map_err(|_| InvalidProjectName)?;
        if name.as_str() != name.namespace() {
            return Err(InvalidProjectName);
        }
        Ok(Self(name))
    }
}

impl fmt::Display for ProjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for ProjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_segment_and_nothing_else() {
        assert_eq!("team-a".parse::<ProjectName>().expect("valid").as_str(), "team-a");
        for text in ["", "a/b", "*", "Team", "a/", "-a"] {
            assert_eq!(text.parse::<ProjectName>(), Err(InvalidProjectName), "{text:?}");
        }
    }
}
