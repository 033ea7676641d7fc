use std::sync::Arc;

use interface::{Caller, Verb};

use super::refusal::Refusal;
use crate::access::{Authority, CallerRules, RuleSet};

/// What somebody may see and do: the rules of the moment, and whom they are asked for.
#[derive(Clone)]
pub(super) enum Sight {
    Everything,
    ByRules { rules: Arc<RuleSet>, user: String, groups: Vec<String> },
}

/// The part of the rules that concerns one caller.
pub(super) struct View<'a>(Option<CallerRules<'a>>);

impl Sight {
    /// An error where the caller is held to rules and there are none yet.
    pub(super) fn of(authority: &Authority, caller: &Caller) -> Result<Self, Refusal> {
        match caller {
            Caller::Unrestricted => Ok(Self::Everything),
            Caller::User { name, groups } => match authority.rules() {
                Some(rules) => Ok(Self::ByRules { rules, user: name.clone(), groups: groups.clone() }),
                None => {
                    Err(Refusal::unavailable("the access rules are not known yet; try again in a moment"))
                }
            },
        }
    }

    pub(super) fn view(&self) -> View<'_> {
        View(match self {
            Self::Everything => None,
            Self::ByRules { rules, user, groups } => Some(rules.of(user, groups)),
        })
    }
}

impl View<'_> {
    pub(super) fn allows(&self, namespace: &str, path: &str, verb: Verb) -> bool {
        self.0.as_ref().is_none_or(|rules| rules.allows(namespace, path, verb))
    }

    /// Whether the tags of a repository can be seen.
    pub(super) fn sees(&self, namespace: &str, path: &str) -> bool {
        self.allows(namespace, path, Verb::List) || self.allows(namespace, path, Verb::Get)
    }
}

/// Who calls, as the audit log has it.
pub(super) fn caller_name(caller: &Caller) -> &str {
    match caller {
        Caller::User { name, .. } => name,
        Caller::Unrestricted => "unrestricted",
    }
}
