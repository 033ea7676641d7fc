use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

use super::{PasswordHash, PathPattern, ProjectName};

/// The name of a static user, as the user types it to log in.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserName(Arc<str>);

/// Why a text is no [`UserName`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUserName {
    /// Nothing at all, or more than [`UserName::LEN_MAX`] bytes.
    #[error("a user's name has 1 to {max} bytes", max = UserName::LEN_MAX)]
    Length,
    /// A colon ends the name in Basic authentication; control characters are not allowed there.
    #[error("a user's name has no colon and no control characters, because a login cannot carry them")]
    Character,
    /// A name with a meaning of its own.
    #[error("the names \"token\" (for logins with a Kubernetes token) and \"anonymous\" are reserved")]
    Reserved,
}

impl UserName {
    /// Length limit in bytes.
    pub const LEN_MAX: usize = 255;
    /// What logs call somebody without credentials; no user has this name.
    pub const ANONYMOUS: &str = "anonymous";
    /// The user name with which a Kubernetes token is sent as the password; no static user has this name.
    pub const TOKEN: &str = "token";

    /// The name as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for UserName {
    type Err = InvalidUserName;

    fn from_str(text: &str) -> Result<Self, InvalidUserName> {
        if text.is_empty() || text.len() > Self::LEN_MAX {
            return Err(InvalidUserName::Length);
        }
        if text.chars().any(|c| c == ':' || c.is_control()) {
            return Err(InvalidUserName::Character);
        }
        if text == Self::ANONYMOUS || text == Self::TOKEN {
            return Err(InvalidUserName::Reserved);
        }
        Ok(Self(text.into()))
    }
}

/// Lets maps keyed by user name be asked with a plain text.
impl std::borrow::Borrow<str> for UserName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// How much of a project a grant opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize)]
pub enum GrantLevel {
    /// Pull.
    #[serde(rename = "READ")]
    Read,
    /// Pull, push and delete.
    #[serde(rename = "FULL")]
    Full,
}

impl fmt::Display for GrantLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "READ",
            Self::Full => "FULL",
        })
    }
}

/// What a static user may do in one project, or in a part of it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ProjectGrant {
    /// The project: the first segment of a repository's name.
    #[serde(deserialize_with = "parsed")]
    pub name: ProjectName,
    /// Which of the project's repositories; absent: all of them.
    #[serde(default, deserialize_with = "present")]
    pub sub_path: Option<PathPattern>,
    /// What is allowed there.
    pub access: GrantLevel,
}

impl fmt::Display for ProjectGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.access, self.name)?;
        self.sub_path.as_ref().map_or(Ok(()), |pattern| write!(f, "/{pattern}"))
    }
}

/// A static user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// The hash of the password; a user without one can never log in.
    pub password_hash: Option<PasswordHash>,
    /// What the user may do, beyond what everybody may; the grants add up.
    pub projects: Vec<ProjectGrant>,
}

/// The static users, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Users(BTreeMap<UserName, User>);

impl Users {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The user called `name`.
    pub fn get(&self, name: &str) -> Option<(&UserName, &User)> {
        self.0.get_key_value(name)
    }

    /// All of them, ordered by name.
    pub fn iter(&self) -> impl Iterator<Item = (&UserName, &User)> {
        self.0.iter()
    }
}

impl FromIterator<(UserName, User)> for Users {
    fn from_iter<T: IntoIterator<Item = (UserName, User)>>(users: T) -> Self {
        Self(users.into_iter().collect())
    }
}

/// A user before the hash is parsed: whether it is a good one is said together with the user's name.
#[derive(serde::Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[derive(Default)]
struct UserEntry {
    password_hash: Option<String>,
    projects: Vec<ProjectGrant>,
}

impl<'de> Deserialize<'de> for Users {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct UsersVisitor;
        impl<'de> Visitor<'de> for UsersVisitor {
            type Value = Users;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping from the users' names to passwordHash and projects")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Users, A::Error> {
                let mut users = BTreeMap::new();
                while let Some(key) = map.next_key::<String>()? {
                    let name: UserName = key
                        .parse()
                        .map_err(|error| A::Error::custom(format_args!("the user name {key:?}: {error}")))?;
                    let entry: UserEntry = map.next_value()?;
                    let password_hash =
                        entry.password_hash.as_deref().map(str::parse).transpose().map_err(|error| {
                            A::Error::custom(format_args!("the passwordHash of user {key:?}: {error}"))
                        })?;
                    let user = User { password_hash, projects: entry.projects };
                    if users.insert(name, user).is_some() {
                        return Err(A::Error::custom(format_args!("the user {key:?} is there twice")));
                    }
                }
                Ok(Users(users))
            }
        }
        deserializer.deserialize_map(UsersVisitor)
    }
}

/// Reads a value through its `FromStr`, so that the file and the environment accept the same texts.
fn parsed<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: fmt::Display>,
{
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|error| D::Error::custom(format_args!("{text:?}: {error}")))
}

/// Like [`parsed`]. An empty value (`subPath:` and nothing behind it) is an error and not the same as no key: what a
/// template failed to fill in must not open the whole project.
fn present<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: fmt::Display>,
{
    parsed(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_a_login_can_carry() {
        for name in ["a", "jane.doe@example.com", "Jörg", "robot$ci", "a b"] {
            assert_eq!(name.parse::<UserName>().expect(name).as_str(), name);
        }
        assert_eq!("".parse::<UserName>(), Err(InvalidUserName::Length));
        assert_eq!("a".repeat(256).parse::<UserName>(), Err(InvalidUserName::Length));
        assert_eq!("a:b".parse::<UserName>(), Err(InvalidUserName::Character));
        assert_eq!("a\nb".parse::<UserName>(), Err(InvalidUserName::Character));
        assert_eq!("token".parse::<UserName>(), Err(InvalidUserName::Reserved));
        assert_eq!("anonymous".parse::<UserName>(), Err(InvalidUserName::Reserved));
    }

    #[test]
    fn debug_of_users_shows_no_hash() {
        let hash = PasswordHash::of("secret", 4).expect("valid");
        let text = hash.reveal().to_owned();
        let user = User { password_hash: Some(hash), projects: Vec::new() };
        let users: Users = [("jane".parse().expect("valid"), user)].into_iter().collect();
        assert!(!format!("{users:?}").contains(&text[7..]));
    }
}
