use std::fmt;
use std::sync::Arc;

use super::{ClusterUser, UserName};

/// Who sent a request. A user of the settings and one of the cluster have nothing in common, also where they have the same
/// name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    /// Nobody in particular: no credentials came with the request.
    Anonymous,
    /// A user of the settings, whose password was right.
    StaticUser(UserName),
    /// Somebody whose token the cluster has found good.
    ClusterUser(Arc<ClusterUser>),
}

impl Identity {
    /// The name to write into logs. What kind of name it is is said by [`Identity::kind`].
    pub fn name(&self) -> &str {
        match self {
            Self::Anonymous => UserName::ANONYMOUS,
            Self::StaticUser(name) => name.as_str(),
            Self::ClusterUser(user) => &user.name,
        }
    }

    /// Who knows the name: a word for logs.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Anonymous => "anonymous",
            Self::StaticUser(_) => "static",
            Self::ClusterUser(_) => "kubernetes",
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
