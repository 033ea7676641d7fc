use std::collections::HashMap;
use std::sync::Arc;

use engine::oci::RepositoryName;
use interface::Verb;

use super::rule_set::{CallerRules, RuleSet};
use super::{AnonymousAccess, Authority, GrantLevel, Identity, PathPattern, UserName, Users};

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

/// Whether a caller may do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Yes.
    Allowed,
    /// No.
    Denied,
    /// The caller is held to rules that are not known yet.
    Unknown,
}

/// Says who may do what: what everybody may, the grants of the static users, and the rules for the users of the cluster.
#[derive(Clone, Debug)]
pub struct AccessPolicy {
    anonymous: AnonymousAccess,
    authority: Arc<Authority>,
    grants: HashMap<UserName, HashMap<Box<str>, Vec<Grant>>>,
}

/// The policy for one caller, with the rules as they were when it was made.
#[derive(Debug)]
pub struct CallerPolicy<'a> {
    policy: &'a AccessPolicy,
    by_login: ByLogin<'a>,
}

/// What a caller may do beyond what everybody may.
#[derive(Debug)]
enum ByLogin<'a> {
    Nothing,
    Granted(&'a UserName),
    Ruled(CallerRules<'a>),
    Unknown,
}

/// A grant inside a project.
#[derive(Clone, Debug)]
struct Grant {
    /// `None`: the whole project.
    pattern: Option<PathPattern>,
    level: GrantLevel,
}

impl AccessPolicy {
    /// The policy of these users and those of the cluster, on top of what everybody may do.
    pub fn new(users: &Users, anonymous: AnonymousAccess, authority: Arc<Authority>) -> Self {
        let mut grants: HashMap<UserName, HashMap<Box<str>, Vec<Grant>>> = HashMap::new();
        for (name, user) in users.iter() {
            let projects = grants.entry(name.clone()).or_default();
            for grant in &user.projects {
                let grants = projects.entry(grant.name.as_str().into()).or_default();
                grants.push(Grant { pattern: grant.sub_path.clone(), level: grant.access });
            }
        }
        Self { anonymous, authority, grants }
    }

    /// Whether `identity` may do `action` to `repository`.
    pub fn decide(&self, identity: &Identity, repository: &RepositoryName, action: Action) -> Decision {
        // Most requests do not need the rules.
        if self.everybody_may(action) {
            return Decision::Allowed;
        }
        self.caller(identity, self.rules().as_deref()).decide(repository, action)
    }

    /// Whether it is known that `identity` may do `action` to `repository`.
    pub fn allows(&self, identity: &Identity, repository: &RepositoryName, action: Action) -> bool {
        self.decide(identity, repository, action) == Decision::Allowed
    }

    /// The rules of the cluster, for [`AccessPolicy::caller`].
    pub fn rules(&self) -> Option<Arc<RuleSet>> {
        self.authority.rules()
    }

    /// The policy for one caller, to decide on many repositories. `rules`: those of [`AccessPolicy::rules`].
    pub fn caller<'a>(&'a self, identity: &'a Identity, rules: Option<&'a RuleSet>) -> CallerPolicy<'a> {
        let by_login = match (identity, rules) {
            (Identity::Anonymous, _) => ByLogin::Nothing,
            (Identity::StaticUser(name), _) => ByLogin::Granted(name),
            (Identity::ClusterUser(user), Some(rules)) => ByLogin::Ruled(rules.of(&user.name, &user.groups)),
            (Identity::ClusterUser(_), None) => ByLogin::Unknown,
        };
        CallerPolicy { policy: self, by_login }
    }

    /// Whether `identity` may list the repositories. Of the list, it sees those that it may pull.
    pub fn may_see_catalog(&self, identity: &Identity) -> bool {
        identity.is_authenticated() || self.everybody_may(Action::Pull)
    }

    /// Whether everybody may do `action` to every repository, by the settings and with or without a login.
    pub fn everybody_may(&self, action: Action) -> bool {
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

impl CallerPolicy<'_> {
    /// Whether the caller may do `action` to `repository`.
    pub fn decide(&self, repository: &RepositoryName, action: Action) -> Decision {
        self.decide_with(repository, action, action.verb())
    }

    /// Whether the caller may see that `repository` exists: who may pull from it, and who may see its tags by a rule.
    pub fn decide_to_see(&self, repository: &RepositoryName) -> Decision {
        self.decide_with(repository, Action::Pull, Verb::List)
    }

    fn decide_with(&self, repository: &RepositoryName, action: Action, verb: Verb) -> Decision {
        let is_allowed = self.policy.everybody_may(action)
            || match &self.by_login {
                ByLogin::Nothing => false,
                ByLogin::Granted(user) => self.policy.is_granted(user, repository, action),
                ByLogin::Ruled(rules) => rules.allows(repository.namespace(), repository.path(), verb),
                ByLogin::Unknown => return Decision::Unknown,
            };
        if is_allowed { Decision::Allowed } else { Decision::Denied }
    }
}

impl Action {
    /// The verb of a rule that allows it.
    const fn verb(self) -> Verb {
        match self {
            Self::Pull => Verb::Get,
            Self::Push => Verb::Create,
            Self::Delete => Verb::Delete,
        }
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
    use super::super::{ClusterUser, ProjectGrant, User};
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

    fn policy(anonymous: AnonymousAccess) -> AccessPolicy {
        AccessPolicy::new(&users(), anonymous, Arc::new(Authority::new(true).expect("random bytes")))
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
        let policy = policy(AnonymousAccess::None);
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
            let policy = policy(anonymous);
            for identity in [Identity::Anonymous, identity("idle"), identity("jane")] {
                assert_eq!(allowed(&policy, &identity, "team-z/app"), expected, "{anonymous} {identity}");
            }
            assert!(allowed(&policy, &identity("jane"), "team-b/tools").len() == 3);
        }
    }

    #[test]
    fn the_catalog_is_for_those_who_are_somebody_or_may_pull() {
        let closed = policy(AnonymousAccess::None);
        assert!(!closed.may_see_catalog(&Identity::Anonymous));
        assert!(closed.may_see_catalog(&identity("idle")));
        let read = policy(AnonymousAccess::Read);
        assert!(read.may_see_catalog(&Identity::Anonymous));
    }

    #[test]
    fn rules_are_for_the_users_of_the_cluster_and_grants_for_those_of_the_settings() {
        let cluster_jane =
            Identity::ClusterUser(Arc::new(ClusterUser::new("jane", None, vec!["devs".into()], None)));
        let policy = policy(AnonymousAccess::None);
        let ours = "team-a/frontend/web";
        let decide = |identity: &Identity, repository: &str, action| {
            policy.decide(identity, &repository.parse().expect("valid"), action)
        };
        for action in ACTIONS {
            assert_eq!(decide(&cluster_jane, ours, action), Decision::Unknown);
            assert_eq!(decide(&identity("jane"), ours, action), Decision::Allowed);
            assert_eq!(decide(&Identity::Anonymous, ours, action), Decision::Denied);
        }
        let rule = |subject, verbs: &[Verb], pattern: &str| interface::Rule {
            subjects: vec![subject],
            namespace: Some("lab".to_owned()),
            verbs: verbs.to_vec(),
            patterns: vec![pattern.to_owned()],
        };
        policy.authority.set_rules(vec![
            rule(interface::Subject::User("jane".into()), &[Verb::Get], "app"),
            rule(interface::Subject::Group("devs".into()), &[Verb::Create], "app"),
            rule(interface::Subject::Group("devs".into()), &[Verb::List], "seen"),
        ]);
        for (repository, cluster, of_settings) in [
            ("lab/app", "pP", ""),
            ("lab/seen", "", ""),
            ("lab/other", "", ""),
            ("team-a/app", "", "p"),
            (ours, "", "pPD"),
        ] {
            assert_eq!(allowed(&policy, &cluster_jane, repository), cluster, "{repository}");
            assert_eq!(allowed(&policy, &identity("jane"), repository), of_settings, "{repository}");
        }
        let rules = policy.rules();
        let seen = |identity: &Identity, repository: &str| {
            let caller = policy.caller(identity, rules.as_deref());
            caller.decide_to_see(&repository.parse().expect("valid")) == Decision::Allowed
        };
        assert!(seen(&cluster_jane, "lab/app") && seen(&cluster_jane, "lab/seen"));
        assert!(!seen(&cluster_jane, "lab/other") && !seen(&cluster_jane, "team-a/app"));
        assert!(seen(&identity("jane"), "team-a/app") && !seen(&identity("jane"), "lab/seen"));
        assert!(policy.may_see_catalog(&cluster_jane));
    }
}
