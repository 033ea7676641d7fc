/// A kind of object that the cluster keeps.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Resource {
    /// The API group; empty for the core.
    pub group: &'static str,
    /// The version.
    pub version: &'static str,
    /// The name in paths.
    pub plural: &'static str,
    /// The kind.
    pub kind: &'static str,
    /// Whether its objects are in namespaces.
    pub is_namespaced: bool,
}

impl Resource {
    /// `apiVersion` of its objects.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// The resource at a place in the API.
    pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Self> {
        RESOURCES.iter().find(|resource| {
            resource.group == group && resource.version == version && resource.plural == plural
        })
    }

    /// The resource of an object.
    pub fn of(object: &serde_json::Value) -> Option<&'static Self> {
        let (api_version, kind) = (object["apiVersion"].as_str()?, object["kind"].as_str()?);
        RESOURCES.iter().find(|resource| resource.kind == kind && resource.api_version() == api_version)
    }
}

const fn resource(
    group: &'static str,
    version: &'static str,
    plural: &'static str,
    kind: &'static str,
    is_namespaced: bool,
) -> Resource {
    Resource { group, version, plural, kind, is_namespaced }
}

const RBAC: &str = "rbac.authorization.k8s.io";

/// All of them.
pub(super) static RESOURCES: &[Resource] = &[
    resource("", "v1", "namespaces", "Namespace", false),
    resource("", "v1", "secrets", "Secret", true),
    resource("", "v1", "serviceaccounts", "ServiceAccount", true),
    resource("", "v1", "configmaps", "ConfigMap", true),
    resource("", "v1", "services", "Service", true),
    resource("", "v1", "events", "Event", true),
    resource("events.k8s.io", "v1", "events", "Event", true),
    resource(RBAC, "v1", "roles", "Role", true),
    resource(RBAC, "v1", "rolebindings", "RoleBinding", true),
    resource(RBAC, "v1", "clusterroles", "ClusterRole", false),
    resource(RBAC, "v1", "clusterrolebindings", "ClusterRoleBinding", false),
    resource("apiregistration.k8s.io", "v1", "apiservices", "APIService", false),
    resource("apps", "v1", "statefulsets", "StatefulSet", true),
    resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", true),
    resource("networking.k8s.io", "v1", "ingresses", "Ingress", true),
];
