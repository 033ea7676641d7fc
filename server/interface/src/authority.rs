use serde::{Deserialize, Serialize};

use crate::call;

/// Something that a rule allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Verb {
    /// Pull, and see the tags.
    Get,
    /// See the tags.
    List,
    /// Push.
    Create,
    /// Delete.
    Delete,
    /// Administer the registry itself: collect garbage, make it read-only, look into it. Counts in rules for every
    /// namespace and every path only.
    Administer,
}

/// Whom a rule is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Subject {
    /// A user, by name.
    User(String),
    /// All who are in a group.
    Group(String),
}

/// Lets some do something to some repositories.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    /// Whom it is for: any of them.
    pub subjects: Vec<Subject>,
    /// The namespace; `None`: every one.
    pub namespace: Option<String>,
    /// What it allows.
    pub verbs: Vec<Verb>,
    /// Patterns of paths within the namespace; none of them: every path.
    pub patterns: Vec<String>,
}

/// Sets the rules in place of those there are. Where nothing ever did, nobody who is held to them is let in or turned
/// away: the server answers 503.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SetRules {
    /// All rules there are.
    pub rules: Vec<Rule>,
}

/// A namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Namespace {
    /// The name.
    pub name: String,
    /// Whether it is being deleted, and takes no more pushes.
    pub is_terminating: bool,
}

/// Sets the namespaces in place of those there are. Where nothing ever did, pushes are answered with 503.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SetNamespaces {
    /// All namespaces there are.
    pub namespaces: Vec<Namespace>,
}

call!(SetRules, "rules/set", ());
call!(SetNamespaces, "namespaces/set", ());
