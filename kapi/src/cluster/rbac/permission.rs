use std::collections::{BTreeMap, BTreeSet};

use interface::Verb;
use k8s_openapi::api::rbac::v1::PolicyRule;

/// The group that the resource of access rules is in.
const API_GROUP: &str = "payload-registry.deckhouse.io";

/// The resource that access rules name. There are no objects of it.
const RESOURCE: &str = "payloadrepositoryaccesses";

/// What RBAC has for everything.
const ALL: &str = "*";

/// What rules of a role allow in the registry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Permission {
    /// Patterns of paths; none of them: every path. Sorted, each once.
    pub(super) patterns: Vec<String>,
    /// Sorted, each once, at least one.
    pub(super) verbs: Vec<Verb>,
}

/// What the rules of a role allow in the registry, one permission for the same patterns; `None` where they allow nothing.
pub(super) fn permissions(rules: Option<&Vec<PolicyRule>>) -> Option<Vec<Permission>> {
    let mut permissions: BTreeMap<Vec<String>, BTreeSet<Verb>> = BTreeMap::new();
    for rule in rules?.iter().filter(|rule| is_ours(rule)) {
        let verbs = rule.verbs.iter().flat_map(|verb| verbs(verb)).copied();
        permissions.entry(patterns(rule)).or_default().extend(verbs);
    }
    permissions.retain(|_, verbs| !verbs.is_empty());
    let permissions: Vec<Permission> = permissions
        .into_iter()
        .map(|(patterns, verbs)| Permission { patterns, verbs: verbs.into_iter().collect() })
        .collect();
    (!permissions.is_empty()).then_some(permissions)
}

/// Whether a rule speaks of the resource.
fn is_ours(rule: &PolicyRule) -> bool {
    let names = |names: &Option<Vec<String>>, own: &str| {
        names.as_ref().is_some_and(|names| names.iter().any(|name| name == own || name == ALL))
    };
    names(&rule.api_groups, API_GROUP) && names(&rule.resources, RESOURCE)
}

/// The patterns of a rule. None may be left out, however odd: a rule without any is for every path.
fn patterns(rule: &PolicyRule) -> Vec<String> {
    let mut patterns = rule.resource_names.clone().unwrap_or_default();
    patterns.sort_unstable();
    patterns.dedup();
    patterns
}

/// What a verb of RBAC stands for here; nothing for those that the registry does not know.
fn verbs(verb: &str) -> &'static [Verb] {
    match verb {
        "get" => &[Verb::Get],
        "list" => &[Verb::List],
        "create" => &[Verb::Create],
        "delete" => &[Verb::Delete],
        // Counts in the registry where the binding is for the whole cluster, and the rule names no paths.
        "administer" => &[Verb::Administer],
        ALL => &[Verb::Get, Verb::List, Verb::Create, Verb::Delete, Verb::Administer],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(groups: &[&str], resources: &[&str], verbs: &[&str], names: &[&str]) -> PolicyRule {
        let list = |items: &[&str]| Some(items.iter().map(ToString::to_string).collect::<Vec<String>>());
        PolicyRule {
            api_groups: list(groups),
            resources: list(resources),
            verbs: verbs.iter().map(ToString::to_string).collect(),
            resource_names: list(names).filter(|names| !names.is_empty()),
            non_resource_urls: None,
        }
    }

    fn allowed(rule: PolicyRule) -> Option<(Vec<Verb>, Vec<String>)> {
        let permissions = permissions(Some(&vec![rule]))?;
        permissions.into_iter().map(|permission| (permission.verbs, permission.patterns)).next()
    }

    #[test]
    fn which_rules_matter() {
        use Verb::{Administer, Create, Delete, Get, List};
        let (group, resource) = (API_GROUP, RESOURCE);
        for (groups, resources, verbs, expected) in [
            (vec![group], vec![resource], vec!["get"], vec![Get]),
            (vec!["*"], vec!["*"], vec!["*"], vec![Get, List, Create, Delete, Administer]),
            (vec![group], vec![resource], vec!["administer"], vec![Administer]),
            (vec!["apps", group], vec!["pods", resource], vec!["delete", "get", "get"], vec![Get, Delete]),
            (vec![group], vec![resource], vec!["list", "watch", "update"], vec![List]),
            (vec!["*"], vec![resource], vec!["create"], vec![Create]),
            (vec![group], vec!["*"], vec!["list"], vec![List]),
            (vec![group], vec![resource], vec!["watch", "deletecollection", "GET"], vec![]),
            (vec![group], vec!["payloadrepositorytags"], vec!["*"], vec![]),
            (vec![group], vec!["payloadrepositoryaccesses/status"], vec!["*"], vec![]),
            (vec![group], vec!["payloadrepositoryaccesses/*"], vec!["*"], vec![]),
            (vec![group], vec!["*/status"], vec!["*"], vec![]),
            (vec![group], vec!["PayloadRepositoryAccesses"], vec!["*"], vec![]),
            (vec![""], vec!["*"], vec!["*"], vec![]),
            (vec!["deckhouse.io"], vec![resource], vec!["*"], vec![]),
            (vec![group], vec![], vec!["*"], vec![]),
            (vec![], vec![resource], vec!["*"], vec![]),
        ] {
            let given = allowed(rule(&groups, &resources, &verbs, &[])).map(|(verbs, _)| verbs);
            assert_eq!(given.unwrap_or_default(), expected, "{groups:?} {resources:?} {verbs:?}");
        }
    }

    #[test]
    fn names_are_patterns_and_none_of_them_is_lost() {
        let names = ["frontend/**", "a", "[", "", "a"];
        let patterns =
            allowed(rule(&[API_GROUP], &[RESOURCE], &["get"], &names)).map(|(_, patterns)| patterns);
        assert_eq!(
            patterns,
            Some(vec![String::new(), "[".to_owned(), "a".to_owned(), "frontend/**".to_owned()])
        );
    }

    #[test]
    fn rules_for_the_same_patterns_are_one() {
        let ours = |verbs: &[&str], names: &[&str]| rule(&[API_GROUP], &[RESOURCE], verbs, names);
        let rules = [
            ours(&["get", "list"], &[]),
            ours(&["create"], &["b", "a"]),
            ours(&["delete"], &[]),
            ours(&["get"], &["a", "b"]),
            ours(&["watch"], &["c"]),
        ];
        let everywhere =
            Permission { patterns: Vec::new(), verbs: vec![Verb::Get, Verb::List, Verb::Delete] };
        let patterns = vec!["a".to_owned(), "b".to_owned()];
        let there = Permission { patterns, verbs: vec![Verb::Get, Verb::Create] };
        assert_eq!(permissions(Some(&rules.to_vec())), Some(vec![everywhere, there]));
    }

    #[test]
    fn rules_for_urls_and_no_rules_allow_nothing() {
        let url = PolicyRule {
            non_resource_urls: Some(vec!["*".to_owned()]),
            verbs: vec!["*".to_owned()],
            ..PolicyRule::default()
        };
        assert_eq!(permissions(Some(&vec![url])), None);
        assert_eq!(permissions(Some(&Vec::new())), None);
        assert_eq!(permissions(None), None);
    }
}
