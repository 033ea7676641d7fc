use std::collections::{BTreeMap, BTreeSet};

use interface::Rule;

/// Bytes of rules, as JSON, that bindings of one namespace may make: thousands of patterns. Whoever may make roles in a
/// namespace must not take the place of all others' rules.
const NAMESPACE_BYTES_MAX: usize = 1 << 20;

/// Bytes that the bindings of all namespaces together may make.
const NAMESPACES_BYTES_MAX: usize = 11 << 20;

/// Bytes that the bindings of the whole cluster may make. With those of the namespaces, this is well below the 16 MiB that
/// the registry takes: rules that it refuses to take would leave those before them in force for ever, with all that has
/// been revoked since.
const CLUSTER_BYTES_MAX: usize = 4 << 20;

/// Where a rule holds: in a namespace, or (`None`) in all.
type Scope = Option<String>;

/// Rules that the registry has room for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Kept {
    /// The rules, in the order that they had.
    pub(super) rules: Vec<Rule>,
    /// Where some were left out.
    pub(super) curtailed: BTreeSet<Scope>,
}

/// Keeps as many of the rules as there is room for. Rules only ever allow something, so that those that are left out take
/// away and give nothing.
///
/// Which are left out depends on nothing but the rules: of a namespace that has too many, those that do not fit behind the
/// ones before. Where it is all namespaces together that have too many, the largest are cut down to one size, and the
/// smaller ones lose nothing. The rules are gone through twice.
pub(super) fn within_budget(rules: impl Iterator<Item = Rule> + Clone) -> Kept {
    let mut used: BTreeMap<Scope, usize> = BTreeMap::new();
    for rule in rules.clone() {
        let bytes = bytes(&rule);
        *used.entry(rule.namespace).or_default() += bytes;
    }
    let of_namespaces = used.iter().filter(|(scope, _)| scope.is_some()).map(|(_, &bytes)| bytes);
    let namespace_bytes_max =
        fair_share(of_namespaces.collect(), NAMESPACES_BYTES_MAX).min(NAMESPACE_BYTES_MAX);

    let mut left: BTreeMap<Scope, usize> = BTreeMap::new();
    let mut kept = Kept { rules: Vec::new(), curtailed: BTreeSet::new() };
    for rule in rules {
        let bytes = bytes(&rule);
        let bytes_max = if rule.namespace.is_some() { namespace_bytes_max } else { CLUSTER_BYTES_MAX };
        let left = left.entry(rule.namespace.clone()).or_insert(bytes_max);
        match left.checked_sub(bytes) {
            Some(rest) => {
                *left = rest;
                kept.rules.push(rule);
            }
            None => {
                kept.curtailed.insert(rule.namespace);
            }
        }
    }
    kept
}

/// How much each may have at most of `total`, where they want this much: nobody is given less for the sake of somebody who
/// wants more.
fn fair_share(mut wanted: Vec<usize>, total: usize) -> usize {
    wanted.sort_unstable();
    let mut left = total;
    let mut count = wanted.len();
    for bytes in wanted {
        let share = left / count;
        if bytes > share {
            return share;
        }
        left -= bytes;
        count -= 1;
    }
    total
}

/// Bytes that a rule takes in the call, with the comma behind it.
fn bytes(rule: &Rule) -> usize {
    // A rule is strings, which JSON has a place for.
    serde_json::to_vec(rule).map_or(usize::MAX, |json| json.len() + 1)
}

#[cfg(test)]
mod tests {
    use interface::{SetRules, Subject, Verb};
    use proptest::prelude::*;

    use super::*;

    /// The registry's limit of a call.
    const REGISTRY_BYTES_MAX: usize = 16 << 20;

    fn rule(namespace: Option<&str>, user: &str, pattern_bytes: usize) -> Rule {
        Rule {
            subjects: vec![Subject::User(user.to_owned())],
            namespace: namespace.map(str::to_owned),
            verbs: vec![Verb::Get],
            // Takes two bytes a character in JSON.
            patterns: vec!["\"".repeat(pattern_bytes / 2)],
        }
    }

    fn keep(rules: &[Rule]) -> Kept {
        let kept = within_budget(rules.iter().cloned());
        let sent = serde_json::to_vec(&SetRules { rules: kept.rules.clone() }).expect("JSON");
        assert!(sent.len() < REGISTRY_BYTES_MAX, "{}", sent.len());
        kept
    }

    #[test]
    fn whoever_has_too_much_loses_it_and_nobody_else_does() {
        let mib = 1 << 20;
        let mut rules = vec![rule(None, "cluster", 3 * mib), rule(None, "cluster too", 2 * mib)];
        rules.extend((0..4).map(|number| rule(Some("huge"), &format!("huge {number:02}"), mib / 2)));
        rules.push(rule(Some("huge"), "small", 10));
        rules.push(rule(Some("other"), "other", mib / 2));
        let kept = keep(&rules);
        let users: Vec<_> = kept.rules.iter().map(|rule| rule.subjects.clone()).collect();
        let expected =
            ["cluster", "huge 00", "small", "other"].map(|user| vec![Subject::User(user.to_owned())]);
        assert_eq!(users, expected);
        assert_eq!(kept.curtailed, [None, Some("huge".to_owned())].into());
        assert_eq!(keep(&rules), kept);
        // What was too much is revoked: all of it is known again.
        rules.retain(|rule| rule.patterns[0].len() < 100);
        assert_eq!(keep(&rules), Kept { rules, curtailed: BTreeSet::new() });
    }

    #[test]
    fn where_all_together_have_too_much_the_small_ones_keep_theirs() {
        let mut rules = Vec::new();
        for number in 0..20 {
            let namespace = format!("greedy-{number:03}");
            rules.extend((0..4).map(|_| rule(Some(&namespace), "x", 200 << 10)));
        }
        rules.extend((0..200).map(|number| rule(Some(&format!("small-{number:03}")), "x", 1 << 10)));
        let kept = keep(&rules);
        assert_eq!(kept.curtailed.len(), 20);
        assert!(kept.curtailed.iter().flatten().all(|namespace| namespace.starts_with("greedy")));
        let small = kept.rules.iter().filter_map(|rule| rule.namespace.as_deref());
        assert_eq!(small.filter(|namespace| namespace.starts_with("small")).count(), 200);
    }

    proptest! {
        #[test]
        fn shares_are_fair(wanted in prop::collection::vec(0..1000_usize, 0..20), total in 0..10_000_usize) {
            let share = fair_share(wanted.clone(), total);
            let given: usize = wanted.iter().map(|bytes| bytes.min(&share)).sum();
            prop_assert!(given <= total);
            // Nothing is kept back that somebody wants, but what cannot be divided.
            let is_enough = wanted.iter().all(|bytes| *bytes <= share);
            prop_assert!(is_enough || given + wanted.len() > total);
        }
    }
}
