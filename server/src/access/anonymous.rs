use std::fmt;
use std::str::FromStr;

/// What everybody may do, with or without a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AnonymousAccess {
    /// Nothing.
    None,
    /// Pull from every repository.
    Read,
    /// Pull, push and delete in every repository: an open registry.
    Write,
}

impl AnonymousAccess {
    /// Every value.
    pub const ALL: [Self; 3] = [Self::None, Self::Read, Self::Write];

    /// The word by which settings name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

/// A word that is none of [`AnonymousAccess::ALL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write none, read or write")]
pub struct UnknownAnonymousAccess;

impl FromStr for AnonymousAccess {
    type Err = UnknownAnonymousAccess;

    fn from_str(word: &str) -> Result<Self, UnknownAnonymousAccess> {
        Self::ALL.into_iter().find(|access| access.name() == word).ok_or(UnknownAnonymousAccess)
    }
}

impl fmt::Display for AnonymousAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
