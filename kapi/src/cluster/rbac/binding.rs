use interface::Subject;
use k8s_openapi::api::rbac::v1::{RoleRef, Subject as RbacSubject};

/// The group of RBAC itself.
const RBAC_GROUP: &str = "rbac.authorization.k8s.io";

/// Who has which role. Where it holds is told by the key it is kept under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Binding {
    /// Sorted, each once, at least one.
    pub(super) subjects: Vec<Subject>,
    /// The role.
    pub(super) role: Role,
}

/// A role as a binding names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// A Role in the namespace of the binding.
    Namespaced(String),
    /// A ClusterRole.
    Cluster(String),
}

/// A binding; `None` where it binds nobody, or to nothing that can be a role. `namespace` is that of a RoleBinding.
pub(super) fn binding(
    namespace: Option<&str>,
    role: &RoleRef,
    subjects: Option<&Vec<RbacSubject>>,
) -> Option<Binding> {
    let mut subjects: Vec<Subject> =
        subjects?.iter().filter_map(|subject| self::subject(subject, namespace)).collect();
    subjects.sort_unstable();
    subjects.dedup();
    let is_of_rbac = role.api_group == RBAC_GROUP;
    let role = match (role.kind.as_str(), namespace) {
        ("ClusterRole", _) => Role::Cluster(role.name.clone()),
        ("Role", Some(_)) => Role::Namespaced(role.name.clone()),
        _ => return None,
    };
    (is_of_rbac && !subjects.is_empty()).then_some(Binding { subjects, role })
}

fn subject(subject: &RbacSubject, namespace: Option<&str>) -> Option<Subject> {
    let group = subject.api_group.as_deref().unwrap_or_default();
    match (subject.kind.as_str(), group) {
        ("User", RBAC_GROUP) => Some(Subject::User(subject.name.clone())),
        ("Group", RBAC_GROUP) => Some(Subject::Group(subject.name.clone())),
        ("ServiceAccount", "") => {
            // Kubernetes takes the binding's namespace where a RoleBinding's subject names none.
            let own = subject.namespace.as_deref().filter(|namespace| !namespace.is_empty());
            let namespace = own.or(namespace)?;
            Some(Subject::User(format!("system:serviceaccount:{namespace}:{}", subject.name)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rbac_subject(kind: &str, group: &str, namespace: &str, name: &str) -> RbacSubject {
        RbacSubject {
            kind: kind.to_owned(),
            api_group: (!group.is_empty()).then(|| group.to_owned()),
            namespace: (!namespace.is_empty()).then(|| namespace.to_owned()),
            name: name.to_owned(),
        }
    }

    fn role_ref(group: &str, kind: &str) -> RoleRef {
        RoleRef { api_group: group.to_owned(), kind: kind.to_owned(), name: "puller".to_owned() }
    }

    #[test]
    fn whom_a_subject_means() {
        let user = |name: &str| Some(Subject::User(name.to_owned()));
        let cases = [
            (("User", RBAC_GROUP, "", "alice"), user("alice"), user("alice")),
            (("User", RBAC_GROUP, "ignored", "alice"), user("alice"), user("alice")),
            (
                ("Group", RBAC_GROUP, "", "devs"),
                Some(Subject::Group("devs".to_owned())),
                Some(Subject::Group("devs".to_owned())),
            ),
            (
                ("ServiceAccount", "", "ci", "bot"),
                user("system:serviceaccount:ci:bot"),
                user("system:serviceaccount:ci:bot"),
            ),
            (("ServiceAccount", "", "", "bot"), user("system:serviceaccount:team:bot"), None),
            (("ServiceAccount", RBAC_GROUP, "ci", "bot"), None, None),
            (("User", "", "", "alice"), None, None),
            (("Group", "other", "", "devs"), None, None),
            (("Robot", RBAC_GROUP, "", "r2"), None, None),
        ];
        for ((kind, group, namespace, name), in_role_binding, in_cluster_role_binding) in cases {
            let of = rbac_subject(kind, group, namespace, name);
            assert_eq!(subject(&of, Some("team")), in_role_binding, "{kind} {group:?} {namespace:?}");
            assert_eq!(subject(&of, None), in_cluster_role_binding, "{kind} {group:?} {namespace:?}");
        }
    }

    #[test]
    fn which_role_a_binding_means() {
        let subjects = vec![rbac_subject("User", RBAC_GROUP, "", "alice")];
        let role = |namespace, group, kind| {
            binding(namespace, &role_ref(group, kind), Some(&subjects)).map(|binding| binding.role)
        };
        let name = || "puller".to_owned();
        assert_eq!(role(Some("team"), RBAC_GROUP, "Role"), Some(Role::Namespaced(name())));
        assert_eq!(role(Some("team"), RBAC_GROUP, "ClusterRole"), Some(Role::Cluster(name())));
        assert_eq!(role(None, RBAC_GROUP, "ClusterRole"), Some(Role::Cluster(name())));
        assert_eq!(role(None, RBAC_GROUP, "Role"), None);
        assert_eq!(role(Some("team"), "", "Role"), None);
        assert_eq!(role(Some("team"), RBAC_GROUP, "Other"), None);
    }

    #[test]
    fn a_binding_of_nobody_is_none() {
        assert_eq!(binding(None, &role_ref(RBAC_GROUP, "ClusterRole"), None), None);
        assert_eq!(binding(None, &role_ref(RBAC_GROUP, "ClusterRole"), Some(&Vec::new())), None);
        let unknown = vec![rbac_subject("Robot", RBAC_GROUP, "", "r2")];
        assert_eq!(binding(None, &role_ref(RBAC_GROUP, "ClusterRole"), Some(&unknown)), None);
    }
}
