use serde_json::{Value, json};

use super::resource::{RESOURCES, Resource};

/// What aggregated discovery is asked for as.
pub(super) const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

const VERBS: [&str; 7] = ["create", "delete", "get", "list", "patch", "update", "watch"];

/// Whether an `Accept` takes aggregated discovery.
pub(super) fn takes_aggregated(accept: &str) -> bool {
    accept.split(',').any(|clause| {
        let parts: Vec<&str> = clause.split(';').map(str::trim).collect();
        ["g=apidiscovery.k8s.io", "v=v2", "as=APIGroupDiscoveryList"].iter().all(|part| parts.contains(part))
    })
}

/// Aggregated discovery of the core (`/api`), or of all the other groups (`/apis`), without those of others.
pub(super) fn aggregated(of_core: bool) -> Value {
    let mut items: Vec<Value> = Vec::new();
    for (group, version) in group_versions().into_iter().filter(|(group, _)| group.is_empty() == of_core) {
        let resources: Vec<Value> = resources(group, version)
            .map(|resource| {
                json!({
                    "resource": resource.plural,
                    "responseKind": {"group": group, "version": version, "kind": resource.kind},
                    "scope": if resource.is_namespaced { "Namespaced" } else { "Cluster" },
                    "singularResource": resource.kind.to_lowercase(), "verbs": VERBS,
                })
            })
            .collect();
        items.push(json!({
            "metadata": {"name": group},
            "versions": [{"version": version, "freshness": "Current", "resources": resources}],
        }));
    }
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

/// `APIGroup`s of the cluster's own groups.
pub(super) fn groups() -> Vec<Value> {
    let groups = group_versions().into_iter().filter(|(group, _)| !group.is_empty());
    groups.map(|(group, version)| api_group(group, version)).collect()
}

/// An `APIGroup` of one version.
pub(super) fn api_group(group: &str, version: &str) -> Value {
    let version = json!({"groupVersion": format!("{group}/{version}"), "version": version});
    json!({"name": group, "versions": [version], "preferredVersion": version})
}

/// The `APIResourceList` of one of the cluster's own versions.
pub(super) fn resource_list(group: &str, version: &str) -> Option<Value> {
    let resources: Vec<Value> = resources(group, version)
        .map(|resource| {
            json!({
                "name": resource.plural, "singularName": resource.kind.to_lowercase(), "kind": resource.kind,
                "namespaced": resource.is_namespaced, "verbs": VERBS,
            })
        })
        .collect();
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let list = json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources,
    });
    (!resources.is_empty()).then_some(list)
}

fn resources(group: &str, version: &str) -> impl Iterator<Item = &'static Resource> {
    RESOURCES.iter().filter(move |resource| resource.group == group && resource.version == version)
}

fn group_versions() -> Vec<(&'static str, &'static str)> {
    let mut all: Vec<_> = RESOURCES.iter().map(|resource| (resource.group, resource.version)).collect();
    all.dedup();
    all
}
