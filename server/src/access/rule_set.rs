use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use interface::{Rule, Subject, Verb};

use super::{ClusterUser, PathGlob};

/// The rules of the cluster, found by whom they are for and where. Rules only allow, so they add up.
#[derive(Debug, Default)]
pub struct RuleSet {
    users: HashMap<String, Grants>,
    groups: HashMap<String, Grants>,
    rules: usize,
    bad_patterns: BTreeSet<String>,
}

/// What a user, or all who are in a group, may do.
#[derive(Debug, Default)]
struct Grants {
    everywhere: Vec<Arc<Grant>>,
    by_namespace: HashMap<String, Vec<Arc<Grant>>>,
}

/// What a rule allows.
#[derive(Debug)]
struct Grant {
    verbs: Verbs,
    /// `None`: every path.
    patterns: Option<Vec<Arc<PathGlob>>>,
}

/// A set of verbs: a bit for each.
#[derive(Clone, Copy, Debug)]
struct Verbs(u8);

/// What one caller may do by the rules: those of the user and those of the groups.
#[derive(Debug)]
pub struct CallerRules<'a> {
    is_master: bool,
    grants: Vec<&'a Grants>,
}

impl RuleSet {
    /// Compiles rules. A pattern that is none matches nothing; see [`RuleSet::bad_patterns`].
    pub fn new(rules: Vec<Rule>) -> Self {
        let mut set = Self { rules: rules.len(), ..Self::default() };
        // The same few patterns are in many rules.
        let mut known: HashMap<String, Option<Arc<PathGlob>>> = HashMap::new();
        for rule in rules {
            let patterns = (!rule.patterns.is_empty()).then(|| {
                let compiled = rule.patterns.into_iter().filter_map(|pattern| {
                    if let Some(compiled) = known.get(&pattern) {
                        return compiled.clone();
                    }
                    let compiled = PathGlob::parse(&pattern).ok().map(Arc::new);
                    if compiled.is_none() {
                        set.bad_patterns.insert(pattern.clone());
                    }
                    known.insert(pattern, compiled.clone());
                    compiled
                });
                compiled.collect()
            });
            let grant = Arc::new(Grant { verbs: Verbs::new(&rule.verbs), patterns });
            for subject in rule.subjects {
                let grants = match subject {
                    Subject::User(name) => set.users.entry(name).or_default(),
                    Subject::Group(name) => set.groups.entry(name).or_default(),
                };
                let grants = match &rule.namespace {
                    None => &mut grants.everywhere,
                    Some(namespace) => grants.by_namespace.entry(namespace.clone()).or_default(),
                };
                grants.push(grant.clone());
            }
        }
        set
    }

    /// The rules of a caller.
    pub fn of<'a>(&'a self, user: &str, groups: &[String]) -> CallerRules<'a> {
        let mut grants: Vec<&Grants> = groups.iter().filter_map(|group| self.groups.get(group)).collect();
        grants.extend(self.users.get(user));
        CallerRules { is_master: groups.iter().any(|group| group == ClusterUser::MASTERS), grants }
    }

    /// How many rules there are.
    pub fn len(&self) -> usize {
        self.rules
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rules == 0
    }

    /// The patterns that are none, and match nothing.
    pub fn bad_patterns(&self) -> &BTreeSet<String> {
        &self.bad_patterns
    }
}

impl CallerRules<'_> {
    /// Whether the caller may do `verb` to the repository `path` of `namespace`. Who may pull may see what there is, so
    /// [`Verb::List`] is also allowed by [`Verb::Get`].
    pub fn allows(&self, namespace: &str, path: &str, verb: Verb) -> bool {
        if self.is_master {
            return true;
        }
        let path = match path.bytes().any(|byte| byte.is_ascii_uppercase()) {
            true => Cow::Owned(path.to_ascii_lowercase()),
            false => Cow::Borrowed(path),
        };
        self.grants.iter().any(|grants| {
            let here = grants.by_namespace.get(namespace).into_iter().flatten();
            grants.everywhere.iter().chain(here).any(|grant| grant.allows(&path, verb))
        })
    }

    /// Whether the caller may administer the registry: by a rule for every namespace and every path.
    pub fn may_administer(&self) -> bool {
        let mut everywhere = self.grants.iter().flat_map(|grants| &grants.everywhere);
        self.is_master
            || everywhere.any(|grant| grant.patterns.is_none() && grant.verbs.has(Verb::Administer))
    }
}

impl Grant {
    fn allows(&self, path: &str, verb: Verb) -> bool {
        self.verbs.has(verb)
            && self.patterns.as_ref().is_none_or(|patterns| patterns.iter().any(|glob| glob.matches(path)))
    }
}

impl Verbs {
    fn new(verbs: &[Verb]) -> Self {
        Self(verbs.iter().fold(0, |bits, verb| {
            bits | match verb {
                Verb::Get => Self::bit(Verb::Get) | Self::bit(Verb::List),
                verb => Self::bit(*verb),
            }
        }))
    }

    const fn bit(verb: Verb) -> u8 {
        match verb {
            Verb::Get => 1,
            Verb::List => 2,
            Verb::Create => 4,
            Verb::Delete => 8,
            Verb::Administer => 16,
        }
    }

    fn has(self, verb: Verb) -> bool {
        self.0 & Self::bit(verb) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> Subject {
        Subject::User(name.to_owned())
    }

    fn group(name: &str) -> Subject {
        Subject::Group(name.to_owned())
    }

    fn rule(subjects: &[Subject], namespace: Option<&str>, verbs: &[Verb], patterns: &[&str]) -> Rule {
        Rule {
            subjects: subjects.to_vec(),
            namespace: namespace.map(str::to_owned),
            verbs: verbs.to_vec(),
            patterns: patterns.iter().map(|pattern| (*pattern).to_owned()).collect(),
        }
    }

    /// The first letters of what is allowed.
    fn allowed(rules: &CallerRules<'_>, namespace: &str, path: &str) -> String {
        let verbs = [(Verb::Get, 'g'), (Verb::List, 'l'), (Verb::Create, 'c'), (Verb::Delete, 'd')];
        let allowed = verbs.into_iter().filter(|(verb, _)| rules.allows(namespace, path, *verb));
        allowed.map(|(_, letter)| letter).collect()
    }

    #[test]
    fn rules_add_up_over_the_user_and_the_groups() {
        let set = RuleSet::new(vec![
            rule(&[user("jane")], Some("a"), &[Verb::Get], &["frontend/**"]),
            rule(&[group("devs")], Some("a"), &[Verb::Create], &["frontend/*"]),
            rule(&[group("devs"), user("ci")], Some("a"), &[Verb::List], &[]),
            rule(&[group("auditors")], None, &[Verb::List], &[]),
            rule(&[group("ops")], None, &[Verb::Delete], &["Tmp/*"]),
        ]);
        assert_eq!(set.len(), 5);
        let groups = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        for (name, in_groups, namespace, path, expected) in [
            ("jane", &[][..], "a", "frontend/web", "gl"),
            ("jane", &[], "a", "frontend", "gl"),
            ("jane", &[], "a", "backend", ""),
            ("jane", &[], "b", "frontend", ""),
            ("jane", &["devs"], "a", "frontend/web", "glc"),
            ("jane", &["devs"], "a", "frontend/web/deep", "gl"),
            ("jane", &["devs"], "a", "backend", "l"),
            ("john", &["devs"], "a", "frontend/web", "lc"),
            ("john", &["jane"], "a", "frontend/web", ""),
            ("devs", &[], "a", "frontend/web", ""),
            ("ci", &[], "a", "anything/at/all", "l"),
            ("john", &["auditors"], "z", "anything", "l"),
            ("john", &["ops", "auditors"], "z", "tmp/x", "ld"),
            ("john", &["ops"], "z", "TMP/X", "d"),
            ("john", &["ops"], "z", "tmp", ""),
            ("", &[""], "a", "frontend", ""),
            ("john", &["system:masters"], "z", "anything", "glcd"),
            ("system:masters", &[], "z", "anything", ""),
        ] {
            let in_groups = groups(in_groups);
            let rules = set.of(name, &in_groups);
            assert_eq!(allowed(&rules, namespace, path), expected, "{name} {in_groups:?} {namespace}/{path}");
        }
    }

    #[test]
    fn to_administer_takes_a_rule_for_everything() {
        let set = RuleSet::new(vec![
            rule(&[user("jane")], None, &[Verb::Administer], &[]),
            rule(&[group("ops")], None, &[Verb::Get, Verb::Administer], &[]),
            rule(&[user("john")], Some("a"), &[Verb::Administer], &[]),
            rule(&[user("john")], None, &[Verb::Administer], &["**"]),
            rule(&[user("john")], None, &[Verb::Get, Verb::List, Verb::Create, Verb::Delete], &[]),
        ]);
        let may = |name: &str, group: &str| set.of(name, &[group.to_owned()]).may_administer();
        assert!(may("jane", "") && may("john", "ops") && may("nobody", "system:masters"));
        assert!(!may("john", "") && !may("nobody", "") && !may("ops", "jane"));
        assert!(!set.of("jane", &[]).allows("a", "b", Verb::Get));
    }

    #[test]
    fn a_bad_pattern_matches_nothing_and_is_told() {
        let set = RuleSet::new(vec![
            rule(&[user("jane")], Some("a"), &[Verb::Get], &["{a", "b"]),
            rule(&[user("john")], Some("a"), &[Verb::Get], &["{a"]),
            rule(&[user("john")], Some("a"), &[Verb::Get], &[""]),
        ]);
        assert_eq!(set.bad_patterns().iter().map(String::as_str).collect::<Vec<_>>(), ["", "{a"]);
        assert!(set.of("jane", &[]).allows("a", "b", Verb::Get));
        // A rule that has none but bad patterns is not one for every path.
        for path in ["{a", "a", "b", ""] {
            assert!(!set.of("john", &[]).allows("a", path, Verb::Get), "{path}");
        }
    }
}
