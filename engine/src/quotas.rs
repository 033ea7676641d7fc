use std::collections::BTreeMap;

/// How many bytes of content each namespace may have. Blobs and manifests count, each once however many repositories of
/// the namespace have it, from the push until a collection or a deletion has taken it from the last of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quotas {
    /// For those that are not named; `None`: as many as there is room for.
    pub default: Option<u64>,
    /// For namespaces by their names.
    pub namespaces: BTreeMap<String, Option<u64>>,
}

impl Quotas {
    /// How many bytes this namespace may have; `None`: as many as there is room for.
    pub fn of(&self, namespace: &str) -> Option<u64> {
        self.namespaces.get(namespace).copied().unwrap_or(self.default)
    }
}
