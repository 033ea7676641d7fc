use std::collections::HashMap;

use engine::oci::RepositoryName;

use super::{AnonymousAccess, GrantLevel, Identity, PathPattern, UserName, Users};

/// What a caller wants to do to a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Read manifests, blobs, tags and referrers.
    Pull,
    /// Write manifests, blobs and tags.
    Push,
    /// Remove manifests, blobs and tags.
    Delete,
}

/// Says who may do what: what everybody may, and the grants of the static users.
#[derive(Clone, Debug)]
pub struct AccessPolicy {
    anonymous: AnonymousAccess,
    grants: HashMap<UserName, HashMap<Box<str>, Vec<Grant>>>,
}

/// A grant inside a project.
#[derive(Clone, Debug)]
struct Grant {
    /// `None`: the whole project.
    pattern: Option<PathPattern>,
    level: GrantLevel,
}

impl AccessPolicy {
    /// The policy of these users, on top of what everybody may do.
    pub fn new(users: &Users, anonymous: AnonymousAccess) -> Self {
        let mut grants: HashMap<UserName, HashMap<Box<str>, Vec<Grant>>> = HashMap::new();
        for (name, user) in users.iter() {
            let projects = grants.entry(name.clone()).or_default();
            for grant in &user.projects {
                let grants = projects.entry(grant.name.as_str().into()).or_default();
                grants.push(Grant { pattern: grant.sub_path.clone(), level: grant.access });
            }
        }
        Self { anonymous, grants }
    }

    /// Whether `identity` may do `action` to `repository`.
    pub fn allows(&self, identity: &Identity, repository: &RepositoryName, action: Action) -> bool {
        self.everybody_may(action)
            || match identity {
                Identity::Anonymous => false,
                Identity::StaticUser(name) => self.is_granted(name, repository, action),
            }
    }

    /// Whether `identity` may list the repositories. Of the list, it sees those that it may pull.
    pub fn may_see_catalog(&self, identity: &Identity) -> bool {
        identity.is_authenticated() || self.everybody_may(Action::Pull)
    }

    fn everybody_may(&self, action: Action) -> bool {
        match self.anonymous {
            AnonymousAccess::None => false,
            AnonymousAccess::Read => action == Action::Pull,
            AnonymousAccess::Write => true,
        }
    }

    fn is_granted(&self, user: &UserName, repository: &RepositoryName, action: Action) -> bool {
        let grants = self.grants.get(user).and_then(|projects| projects.get(repository.namespace()));
        grants.is_some_and(|grants| {
            grants.iter().any(|grant| {
                grant.level.covers(action)
                    && grant.pattern.as_ref().is_none_or(|pattern| pattern.matches(repository.path()))
            })
        })
    }
}

impl GrantLevel {
    fn covers(self, action: Action) -> bool {
        match self {
            Self::Read => action == Action::Pull,
            Self::Full => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ProjectGrant, User};
    use super::*;

    const ACTIONS: [Action; 3] = [Action::Pull, Action::Push, Action::Delete];

    fn grant(name: &str, sub_path: Option<&str>, access: GrantLevel) -> ProjectGrant {
        ProjectGrant {
            name: name.parse().expect("valid"),
            sub_path: sub_path.map(|text| text.parse().expect("valid")),
            access,
        }
    }

    fn users() -> Users {
        let jane = vec![
            grant("team-a", None, GrantLevel::Read),
            grant("team-a", Some("frontend/*"), GrantLevel::Full),
            grant("team-b", Some("tools"), GrantLevel::Full),
        ];
        [("jane", jane), ("idle", Vec::new())]
            .into_iter()
            .map(|(name, projects)| (name.parse().expect("valid"), User { password_hash: None, projects }))
            .collect()
    }

    fn identity(name: &str) -> Identity {
        Identity::StaticUser(name.parse().expect("valid"))
    }

    /// The first letters of what is allowed.
    fn allowed(policy: &AccessPolicy, identity: &Identity, repository: &str) -> String {
        let repository = repository.parse().expect("valid");
        let allowed = ACTIONS.iter().filter(|action| policy.allows(identity, &repository, **action));
        allowed.map(|action| ["p", "P", "D"][*action as usize]).collect()
    }

    #[test]
    fn grants_add_up() {
        let policy = AccessPolicy::new(&users(), AnonymousAccess::None);
        let jane = identity("jane");
        for (repository, expected) in [
            ("team-a/app", "p"),
            ("team-a/frontend", "p"),
            ("team-a/frontend/web", "pPD"),
            ("team-a/frontend/web/deep", "pPD"),
            ("team-a", "p"),
            ("team-b/tools", "pPD"),
            ("team-b/tools/x", ""),
            ("team-b", ""),
            ("team-c/app", ""),
            ("team-aa/app", ""),
            ("x/team-a/app", ""),
        ] {
            assert_eq!(allowed(&policy, &jane, repository), expected, "{repository}");
            assert_eq!(allowed(&policy, &Identity::Anonymous, repository), "", "{repository}");
            assert_eq!(allowed(&policy, &identity("idle"), repository), "", "{repository}");
            assert_eq!(allowed(&policy, &identity("stranger"), repository), "", "{repository}");
        }
    }

    #[test]
    fn what_everybody_may_users_may_too() {
        for (anonymous, expected) in
            [(AnonymousAccess::None, ""), (AnonymousAccess::Read, "p"), (AnonymousAccess::Write, "pPD")]
        {
            let policy = AccessPolicy::new(&users(), anonymous);
            for identity in [Identity::Anonymous, identity("idle"), identity("jane")] {
                assert_eq!(allowed(&policy, &identity, "team-z/app"), expected, "{anonymous} {identity}");
            }
            assert!(allowed(&policy, &identity("jane"), "team-b/tools").len() == 3);
        }
    }

    #[test]
    fn the_catalog_is_for_those_who_are_somebody_or_may_pull() {
        let closed = AccessPolicy::new(&users(), AnonymousAccess::None);
        assert!(!closed.may_see_catalog(&Identity::Anonymous));
        assert!(closed.may_see_catalog(&identity("idle")));
        let read = AccessPolicy::new(&users(), AnonymousAccess::Read);
        assert!(read.may_see_catalog(&Identity::Anonymous));
    }
}
