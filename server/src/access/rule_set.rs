use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
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
    left_out: BTreeMap<String, usize>,
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
    /// Tokens ([`PathGlob::tokens`]) of the patterns of one namespace, each different pattern once: some ten thousand names
    /// of fifty characters. Who makes roles in a namespace may write what stands for much more than its text, and must not
    /// fill the memory with it.
    pub const NAMESPACE_TOKENS_MAX: usize = 512 << 10;
    /// The same of the patterns of all namespaces: no fewer than a call may have characters, so that only braces can go
    /// beyond it.
    pub const NAMESPACES_TOKENS_MAX: usize = 16 << 20;
    /// The same of the rules that are for every namespace, which no other rules take anything from.
    pub const EVERYWHERE_TOKENS_MAX: usize = 4 << 20;

    /// Compiles rules. A pattern that is none matches nothing ([`RuleSet::bad_patterns`]), and so does one for which there
    /// are too many tokens ([`RuleSet::left_out`]). Takes up to some seconds of CPU.
    pub fn new(rules: Vec<Rule>) -> Self {
        let mut set = Self { rules: rules.len(), ..Self::default() };
        let mut everywhere = Vec::new();
        let mut by_namespace: BTreeMap<&str, Vec<&Rule>> = BTreeMap::new();
        for rule in &rules {
            match &rule.namespace {
                None => everywhere.push(rule),
                Some(namespace) => by_namespace.entry(namespace).or_default().push(rule),
            }
        }
        // The same few patterns are in many rules.
        let mut compiled = HashMap::new();
        set.add(None, &everywhere, Self::EVERYWHERE_TOKENS_MAX, &mut compiled);
        // Those that take little first: who wants too much takes nothing from them.
        let mut by_namespace: Vec<_> = by_namespace.into_iter().collect();
        by_namespace.sort_by_cached_key(|(_, rules)| tokens(rules));
        let mut left = Self::NAMESPACES_TOKENS_MAX;
        for (namespace, rules) in by_namespace {
            let most = left.min(Self::NAMESPACE_TOKENS_MAX);
            left -= set.add(Some(namespace), &rules, most, &mut compiled);
        }
        set
    }

    /// Adds the rules of one namespace, or of all, with patterns of `most` tokens, and gives how many it took.
    fn add<'a>(
        &mut self,
        namespace: Option<&str>,
        rules: &[&'a Rule],
        most: usize,
        compiled: &mut HashMap<&'a str, Arc<PathGlob>>,
    ) -> usize {
        let mut left = most;
        let mut left_out = 0;
        // `None`: matches nothing.
        let mut known: HashMap<&str, Option<Arc<PathGlob>>> = HashMap::new();
        let mut admit = |pattern: &'a str| {
            // Whether it is one, and how large, is known before anything is made of it.
            let Ok(tokens) = PathGlob::tokens(pattern) else {
                self.bad_patterns.insert(pattern.to_owned());
                return None;
            };
            let Some(rest) = left.checked_sub(tokens) else {
                left_out += 1;
                return None;
            };
            left = rest;
            if let Some(compiled) = compiled.get(pattern) {
                return Some(compiled.clone());
            }
            let glob = Arc::new(PathGlob::parse(pattern).ok()?);
            compiled.insert(pattern, glob.clone());
            Some(glob)
        };
        for rule in rules {
            let patterns = rule.patterns.iter();
            let patterns =
                patterns.filter_map(|pattern| known.entry(pattern).or_insert_with(|| admit(pattern)).clone());
            let patterns = (!rule.patterns.is_empty()).then(|| patterns.collect());
            let grant = Arc::new(Grant { verbs: Verbs::new(&rule.verbs), patterns });
            for subject in &rule.subjects {
                let grants = match subject {
                    Subject::User(name) => self.users.entry(name.clone()).or_default(),
                    Subject::Group(name) => self.groups.entry(name.clone()).or_default(),
                };
                let grants = match namespace {
                    None => &mut grants.everywhere,
                    Some(namespace) => grants.by_namespace.entry(namespace.to_owned()).or_default(),
                };
                grants.push(grant.clone());
            }
        }
        if left_out > 0 {
            self.left_out.insert(namespace.unwrap_or("*").to_owned(), left_out);
        }
        most - left
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

    /// The namespaces whose patterns stand for too much, with how many of them match nothing for that; `*`: the rules for
    /// every namespace.
    pub fn left_out(&self) -> &BTreeMap<String, usize> {
        &self.left_out
    }
}

/// Tokens of the different patterns of some rules.
fn tokens(rules: &[&Rule]) -> usize {
    let patterns: HashSet<&str> = rules.iter().flat_map(|rule| &rule.patterns).map(String::as_str).collect();
    patterns.into_iter().filter_map(|pattern| PathGlob::tokens(pattern).ok()).sum()
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

    /// Patterns that stand for 3,840 tokens each, all different.
    fn heavy(from: usize, count: usize) -> Vec<String> {
        (from..from + count).map(|number| format!("{number:06}{}", "{a,b}".repeat(8))).collect()
    }

    fn heavy_rule(namespace: Option<&str>, patterns: Vec<String>) -> Rule {
        Rule { patterns, ..rule(&[user("jane")], namespace, &[Verb::Get], &[]) }
    }

    #[test]
    fn patterns_that_stand_for_too_much_match_nothing_and_take_nothing_from_others() {
        let (first, last) = ("000000abababab", "027999abababab");
        let plain: Vec<String> = (0..10_000).map(|number| format!("apps/{number:040}")).collect();
        let last_plain = plain[9_999].clone();
        let set = RuleSet::new(vec![
            heavy_rule(Some("greedy"), heavy(0, 28_000)),
            // A rule that has none but such patterns is not one for every path.
            heavy_rule(Some("greedy"), heavy(27_999, 1)),
            rule(&[user("jane")], Some("greedy"), &[Verb::Get], &["small"]),
            heavy_rule(Some("modest"), plain),
            rule(&[user("jane")], Some("modest"), &[Verb::Get], &["{back,front}/{a,b}/**"]),
            heavy_rule(None, heavy(0, 2_000)),
        ]);
        let admitted = RuleSet::NAMESPACE_TOKENS_MAX / 3840;
        let admitted_everywhere = RuleSet::EVERYWHERE_TOKENS_MAX / 3840;
        let expected = [("*", 2_000 - admitted_everywhere), ("greedy", 28_000 - admitted)];
        let left_out: Vec<_> = set.left_out().iter().map(|(name, count)| (name.as_str(), *count)).collect();
        assert_eq!(left_out, expected);
        let jane = set.of("jane", &[]);
        let may_get = |namespace: &str, path: &str| jane.allows(namespace, path, Verb::Get);
        assert!(may_get("greedy", first) && may_get("elsewhere", first));
        assert!(!may_get("greedy", last) && !may_get("greedy", "any"));
        assert!(may_get("greedy", "small"), "what is left is for what fits");
        assert!(may_get("modest", &last_plain) && may_get("modest", "front/b/x"));
    }

    #[test]
    fn many_who_want_too_much_take_nothing_from_those_who_want_little() {
        let of_each = RuleSet::NAMESPACE_TOKENS_MAX / 3840;
        let greedy: Vec<String> = (0..40).map(|number| format!("a{number}")).collect();
        let rules = greedy.iter().enumerate();
        let rules = rules.map(|(number, name)| heavy_rule(Some(name), heavy(number * of_each, of_each)));
        let modest = rule(&[user("jane")], Some("z"), &[Verb::Get], &["app-{1,2}"]);
        let set = RuleSet::new(rules.chain([modest]).collect());
        assert!(set.of("jane", &[]).allows("z", "app-2", Verb::Get));
        assert!(!set.left_out().is_empty() && !set.left_out().contains_key("z"), "{:?}", set.left_out());
        let left_out: usize = set.left_out().values().sum();
        let compiled = greedy.len() * of_each - left_out;
        assert!(compiled * 3840 <= RuleSet::NAMESPACES_TOKENS_MAX, "{compiled}");
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
