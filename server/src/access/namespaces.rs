use std::collections::HashMap;

/// What is known of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamespaceState {
    /// Nobody has said yet which namespaces there are.
    Unknown,
    /// There is none of that name.
    Missing,
    /// It is being deleted, and takes no more pushes.
    Terminating,
    /// It exists.
    Active,
}

/// The namespaces there are.
#[derive(Debug, Default)]
pub(super) struct Namespaces(HashMap<String, NamespaceState>);

impl Namespaces {
    pub(super) fn new(namespaces: Vec<interface::Namespace>) -> Self {
        let state = |is_terminating| match is_terminating {
            true => NamespaceState::Terminating,
            false => NamespaceState::Active,
        };
        Self(namespaces.into_iter().map(|one| (one.name, state(one.is_terminating))).collect())
    }

    pub(super) fn state(&self, name: &str) -> NamespaceState {
        self.0.get(name).copied().unwrap_or(NamespaceState::Missing)
    }
}
