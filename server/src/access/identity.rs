use std::fmt;

use super::UserName;

/// Who sent a request.
///
/// Not exhaustive: identities that a Kubernetes API server vouches for come beside these.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Identity {
    /// Nobody in particular: no credentials came with the request.
    Anonymous,
    /// A user of the settings, whose password was right.
    StaticUser(UserName),
}

impl Identity {
    /// The name to write into logs. No user can be called `anonymous`, so it is unambiguous.
    pub fn name(&self) -> &str {
        match self {
            Self::Anonymous => UserName::ANONYMOUS,
            Self::StaticUser(name) => name.as_str(),
        }
    }

    /// Whether the caller has proved to be somebody.
    pub fn is_authenticated(&self) -> bool {
        !matches!(self, Self::Anonymous)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
