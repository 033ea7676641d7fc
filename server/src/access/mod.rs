//! Who a caller is, and what the caller may do.
//!
//! [`Authenticator`] turns the `Authorization` header into an [`Identity`]; [`AccessPolicy`] says what that identity
//! may do to a repository. The first may take a tenth of a second of CPU and is asynchronous; the second is asked for
//! each request, several times, and is a few comparisons.

mod anonymous;
mod authenticator;
mod basic_credentials;
mod identity;
mod password_hash;
mod path_pattern;
mod policy;
mod project_name;
mod token;
mod users;
mod verdict_cache;
mod verification_pool;

pub use anonymous::{AnonymousAccess, UnknownAnonymousAccess};
pub use authenticator::{AuthenticationError, Authenticator};
pub use basic_credentials::MalformedCredentials;
pub use identity::Identity;
pub use password_hash::{InvalidPassword, InvalidPasswordHash, PasswordHash};
pub use path_pattern::{InvalidPathPattern, PathPattern};
pub use policy::{AccessPolicy, Action};
pub use project_name::{InvalidProjectName, ProjectName};
pub use token::{Grant, IssuedToken, SERVICE, TokenIssuer};
pub use users::{GrantLevel, InvalidUserName, ProjectGrant, User, UserName, Users};
