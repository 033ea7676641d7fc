use serde_json::Value;

use super::resource::{RESOURCES, Resource};
use super::store::Store;
use super::user::User;

/// What a request does, as the rules see it.
#[derive(Clone, Debug)]
pub(super) struct Attributes<'a> {
    pub verb: &'a str,
    pub group: &'a str,
    /// With its sub-resource: `serviceaccounts/token`.
    pub resource: &'a str,
    pub namespace: Option<&'a str>,
    pub name: &'a str,
}

/// Whether roles and bindings allow it, as Kubernetes' own authorizer reads them.
pub(super) fn is_allowed(store: &Store, user: &User, attributes: &Attributes<'_>) -> bool {
    if user.groups.iter().any(|group| group == "system:masters") {
        return true;
    }
    let mut bindings = store.list(kind("clusterrolebindings"), None).0;
    if let Some(namespace) = attributes.namespace {
        bindings.extend(store.list(kind("rolebindings"), Some(namespace)).0);
    }
    let bindings = bindings.iter().filter(|binding| {
        array(&binding["subjects"])
            .iter()
            .any(|subject| is_subject(subject, user, &binding["metadata"]["namespace"]))
    });
    bindings.flat_map(|binding| rules(store, binding)).any(|rule| covers(&rule, attributes))
}

fn kind(plural: &str) -> &'static Resource {
    RESOURCES.iter().find(|resource| resource.plural == plural).expect("a resource of RBAC")
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn is_subject(subject: &Value, user: &User, namespace: &Value) -> bool {
    let name = subject["name"].as_str().unwrap_or_default();
    match subject["kind"].as_str() {
        Some("User") => name == user.name,
        Some("Group") => user.groups.iter().any(|group| group == name),
        Some("ServiceAccount") => {
            let namespace = subject["namespace"].as_str().or(namespace.as_str()).unwrap_or_default();
            user.name == format!("system:serviceaccount:{namespace}:{name}")
        }
        _ => false,
    }
}

fn rules(store: &Store, binding: &Value) -> Vec<Value> {
    let (role, namespace) = (&binding["roleRef"], binding["metadata"]["namespace"].as_str());
    let plural = if role["kind"] == "ClusterRole" { "clusterroles" } else { "roles" };
    let namespace = namespace.unwrap_or_default();
    let key = super::store::Key::new(kind(plural), namespace, role["name"].as_str().unwrap_or_default());
    store.get(&key).map(|role| array(&role["rules"]).to_vec()).unwrap_or_default()
}

fn covers(rule: &Value, attributes: &Attributes<'_>) -> bool {
    let has =
        |field: &str, wanted: &str| array(&rule[field]).iter().any(|value| value == wanted || value == "*");
    let sub_resource = attributes.resource.split_once('/').map(|(_, sub)| format!("*/{sub}"));
    let names = array(&rule["resourceNames"]);
    has("verbs", attributes.verb)
        && has("apiGroups", attributes.group)
        && (has("resources", attributes.resource) || sub_resource.is_some_and(|any| has("resources", &any)))
        && (names.is_empty() || names.iter().any(|name| name == attributes.name))
}
