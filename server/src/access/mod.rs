//! Who a caller is, and what the caller may do.
//!
//! [`Authenticator`] turns the `Authorization` header into an [`Identity`]; [`AccessPolicy`] says what that identity
//! may do to a repository. The first may take a tenth of a second of CPU, or wait for somebody outside, and is
//! asynchronous; the second is asked for each request, several times, and is a few comparisons.
//!
//! [`Authority`] holds what the cluster says, where there is one: its rules ([`RuleSet`]), its namespaces, and the reviews
//! of its tokens. What is asked of it with each request is in memory.

mod anonymous;
mod authenticator;
mod authority;
mod basic_credentials;
mod cluster_user;
mod identity;
mod namespaces;
mod password_hash;
mod path_glob;
mod path_pattern;
mod policy;
mod project_name;
mod reviews;
mod rule_set;
mod token;
mod users;
mod verdict_cache;
mod verification_pool;

pub use anonymous::{AnonymousAccess, UnknownAnonymousAccess};
pub use authenticator::{AuthenticationError, Authenticator, Login};
pub use authority::{Authority, Reviewer};
pub use basic_credentials::MalformedCredentials;
pub use cluster_user::ClusterUser;
pub use identity::Identity;
pub use namespaces::NamespaceState;
pub use password_hash::{InvalidPassword, InvalidPasswordHash, PasswordHash};
pub use path_glob::{InvalidPathGlob, PathGlob};
pub use path_pattern::{InvalidPathPattern, PathPattern};
pub use policy::{AccessPolicy, Action, CallerPolicy, Decision};
pub use project_name::{InvalidProjectName, ProjectName};
pub use reviews::{ReviewCounts, ReviewError};
pub use rule_set::{CallerRules, RuleSet};
pub use token::{Grant, IssuedToken, SERVICE, TokenIssuer};
pub use users::{GrantLevel, InvalidUserName, ProjectGrant, User, UserName, Users};
