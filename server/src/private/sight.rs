use std::sync::Arc;

use interface::{Caller, Verb};

use super::refusal::Refusal;
use crate::access::{Action, CallerRules, RuleSet};
use crate::registry::Shared;

/// What somebody may see and do: the rules of the moment, and whom they are asked for.
#[derive(Clone)]
pub(super) enum Sight {
    Everything,
    ByRules {
        rules: Arc<RuleSet>,
        user: String,
        groups: Vec<String>,
        /// Whether the settings let everybody pull, and so see what there is.
        everybody_pulls: bool,
    },
}

/// The part of the rules that concerns one caller.
pub(super) enum View<'a> {
    Everything,
    ByRules { rules: CallerRules<'a>, everybody_pulls: bool },
}

impl Sight {
    /// An error where the caller is held to rules and there are none yet.
    pub(super) fn of(shared: &Shared, caller: &Caller) -> Result<Self, Refusal> {
        match caller {
            Caller::Unrestricted { .. } => Ok(Self::Everything),
            Caller::User { name, groups } => match shared.authority.rules() {
                Some(rules) => Ok(Self::ByRules {
                    rules,
                    user: name.clone(),
                    groups: groups.clone(),
                    everybody_pulls: shared.policy.everybody_may(Action::Pull),
                }),
                None => {
                    Err(Refusal::unavailable("the access rules are not known yet; try again in a moment"))
                }
            },
        }
    }

    pub(super) fn view(&self) -> View<'_> {
        match self {
            Self::Everything => View::Everything,
            Self::ByRules { rules, user, groups, everybody_pulls } => {
                View::ByRules { rules: rules.of(user, groups), everybody_pulls: *everybody_pulls }
            }
        }
    }
}

impl View<'_> {
    /// Whether the tags of a repository can be seen: who may pull may see what there is.
    pub(super) fn sees(&self, namespace: &str, path: &str) -> bool {
        self.may_read(namespace, path, Verb::List)
    }

    /// Whether what the tags of a repository point at can be seen, which is to pull.
    pub(super) fn may_get(&self, namespace: &str, path: &str) -> bool {
        self.may_read(namespace, path, Verb::Get)
    }

    /// Whether tags of a repository can be deleted, for which it takes a rule: whoever calls is somebody whom the cluster
    /// knows, and nobody's tags go by a setting that was made for pushes.
    pub(super) fn may_delete(&self, namespace: &str, path: &str) -> bool {
        match self {
            Self::Everything => true,
            Self::ByRules { rules, .. } => rules.allows(namespace, path, Verb::Delete),
        }
    }

    fn may_read(&self, namespace: &str, path: &str, verb: Verb) -> bool {
        match self {
            Self::Everything => true,
            Self::ByRules { rules, everybody_pulls } => {
                *everybody_pulls || rules.allows(namespace, path, verb)
            }
        }
    }
}

/// Who calls, as the audit log has it.
pub(super) fn caller_name(caller: &Caller) -> &str {
    let (Caller::User { name, .. } | Caller::Unrestricted { name }) = caller;
    name
}
