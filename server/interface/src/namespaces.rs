use serde::{Deserialize, Serialize};

use crate::call;

/// Lists the first segments of the names of all repositories and upload sessions there are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListPrefixes {}

/// First segments of names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Prefixes {
    /// In byte order, each once.
    pub prefixes: Vec<String>,
}

/// Removes all that is stored under a namespace that is gone: tags, manifests, links, upload sessions, repositories. The
/// bytes go with the next collection. Fails with [`Reason::Conflict`](crate::Reason::Conflict) while the namespace is among those that
/// exist ([`SetNamespaces`](crate::SetNamespaces)), and always by a registry that serves no cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PurgeNamespace {
    /// The namespace.
    pub namespace: String,
}

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Purged {
    /// Repositories.
    pub repositories: u64,
    /// Tags.
    pub tags: u64,
    /// Manifests.
    pub manifests: u64,
    /// Upload sessions.
    pub uploads: u64,
}

call!(ListPrefixes, "namespaces/prefixes", Prefixes);
call!(PurgeNamespace, "namespaces/purge", Purged);
