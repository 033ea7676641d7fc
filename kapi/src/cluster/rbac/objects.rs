use std::collections::{BTreeMap, BTreeSet};

use interface::{Rule, Subject};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role as NamespacedRole, RoleBinding};
use kube::runtime::watcher::Event;

use super::binding::{Binding, Role, binding};
use super::permission::{Permission, permissions};
use crate::cluster::view::{Key, View};

/// What happened to an object of RBAC.
pub(super) enum Change {
    Role(Event<NamespacedRole>),
    ClusterRole(Event<ClusterRole>),
    RoleBinding(Event<RoleBinding>),
    ClusterRoleBinding(Event<ClusterRoleBinding>),
}

/// All of RBAC, as far as it matters to the registry: roles that say something of it, and all bindings, as the role may
/// come after its binding.
#[derive(Default)]
pub(super) struct Objects {
    roles: View<Vec<Permission>>,
    cluster_roles: View<Vec<Permission>>,
    role_bindings: View<Binding>,
    cluster_role_bindings: View<Binding>,
}

impl Objects {
    /// Takes what happened. Whether the rules may be others now.
    pub(super) fn take(&mut self, change: Change) -> bool {
        match change {
            Change::Role(event) => self.roles.take(event, |role| permissions(role.rules.as_ref())),
            // The rules of an aggregated one have been merged by the controller manager.
            Change::ClusterRole(event) => {
                self.cluster_roles.take(event, |role| permissions(role.rules.as_ref()))
            }
            Change::RoleBinding(event) => self.role_bindings.take(event, |of| {
                binding(Some(of.metadata.namespace.as_deref()?), &of.role_ref, of.subjects.as_ref())
            }),
            Change::ClusterRoleBinding(event) => {
                self.cluster_role_bindings.take(event, |of| binding(None, &of.role_ref, of.subjects.as_ref()))
            }
        }
    }

    /// The rules, in one order whatever the objects came in, and one for all who have the same; `None` before everything has
    /// been seen: rules that are a part of those that there are would turn people away who may come in.
    pub(super) fn rules(&self) -> Option<Rules<'_>> {
        let is_complete = self.roles.is_complete()
            && self.cluster_roles.is_complete()
            && self.role_bindings.is_complete()
            && self.cluster_role_bindings.is_complete();
        if !is_complete {
            return None;
        }
        let mut subjects: BTreeMap<(Option<&str>, &Permission), BTreeSet<&Subject>> = BTreeMap::new();
        let of_all = self.cluster_role_bindings.iter().map(|(_, binding)| (None, binding));
        let of_namespaces =
            self.role_bindings.iter().map(|(key, binding)| (Some(key.namespace.as_str()), binding));
        for (namespace, binding) in of_all.chain(of_namespaces) {
            for permission in self.permissions(namespace, &binding.role) {
                subjects.entry((namespace, permission)).or_default().extend(&binding.subjects);
            }
        }
        Some(Rules { subjects })
    }

    /// What a role allows that is bound in a namespace, or in the cluster.
    fn permissions(&self, namespace: Option<&str>, role: &Role) -> &[Permission] {
        let permissions = match role {
            Role::Namespaced(name) => self.roles.get(&Key::new(namespace.unwrap_or_default(), name)),
            Role::Cluster(name) => self.cluster_roles.get(&Key::new("", name)),
        };
        permissions.map_or(&[], Vec::as_slice)
    }
}

/// What comes of all objects together: who has each permission, and where.
pub(super) struct Rules<'a> {
    subjects: BTreeMap<(Option<&'a str>, &'a Permission), BTreeSet<&'a Subject>>,
}

impl Rules<'_> {
    /// All of them, each made when it is asked for: they may be far more than anybody has room for.
    pub(super) fn iter(&self) -> impl Iterator<Item = Rule> + Clone {
        self.subjects.iter().map(|((namespace, permission), subjects)| Rule {
            subjects: subjects.iter().copied().cloned().collect(),
            namespace: namespace.map(str::to_owned),
            verbs: permission.verbs.clone(),
            patterns: permission.patterns.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use interface::Verb;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const KINDS: [&str; 4] = ["Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"];

    fn event(kind: &str, event: Event<Value>) -> Change {
        fn typed<K: serde::de::DeserializeOwned>(event: Event<Value>) -> Event<K> {
            let read = |object| serde_json::from_value(object).expect("an object of RBAC");
            match event {
                Event::Apply(object) => Event::Apply(read(object)),
                Event::Delete(object) => Event::Delete(read(object)),
                Event::Init => Event::Init,
                Event::InitApply(object) => Event::InitApply(read(object)),
                Event::InitDone => Event::InitDone,
            }
        }
        match kind {
            "Role" => Change::Role(typed(event)),
            "ClusterRole" => Change::ClusterRole(typed(event)),
            "RoleBinding" => Change::RoleBinding(typed(event)),
            "ClusterRoleBinding" => Change::ClusterRoleBinding(typed(event)),
            kind => panic!("{kind} is none of RBAC"),
        }
    }

    fn apply(objects: &mut Objects, object: &Value) -> bool {
        let kind = object["kind"].as_str().expect("a kind");
        objects.take(event(kind, Event::Apply(object.clone())))
    }

    fn rules(objects: &Objects) -> Option<Vec<Rule>> {
        objects.rules().map(|rules| rules.iter().collect())
    }

    fn synced() -> Objects {
        let mut objects = Objects::default();
        for kind in KINDS {
            objects.take(event(kind, Event::Init));
            objects.take(event(kind, Event::InitDone));
        }
        objects
    }

    fn role(namespace: &str, name: &str, verbs: &[&str], patterns: &[&str]) -> Value {
        json!({
            "kind": if namespace.is_empty() { "ClusterRole" } else { "Role" },
            "metadata": {"namespace": namespace, "name": name},
            "rules": [{
                "apiGroups": ["payload-registry.deckhouse.io"], "resources": ["payloadrepositoryaccesses"],
                "verbs": verbs, "resourceNames": patterns,
            }],
        })
    }

    fn bound(namespace: &str, name: &str, kind: &str, role: &str, users: &[&str]) -> Value {
        let group = "rbac.authorization.k8s.io";
        let subject = |user: &&str| json!({"apiGroup": group, "kind": "User", "name": user});
        json!({
            "kind": if namespace.is_empty() { "ClusterRoleBinding" } else { "RoleBinding" },
            "metadata": {"namespace": namespace, "name": name},
            "roleRef": {"apiGroup": group, "kind": kind, "name": role},
            "subjects": users.iter().map(subject).collect::<Vec<Value>>(),
        })
    }

    fn rule(users: &[&str], namespace: Option<&str>, verbs: &[Verb], patterns: &[&str]) -> Rule {
        Rule {
            subjects: users.iter().map(|user| Subject::User(user.to_string())).collect(),
            namespace: namespace.map(str::to_owned),
            verbs: verbs.to_vec(),
            patterns: patterns.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn where_a_binding_holds() {
        let mut objects = synced();
        for object in [
            role("a", "puller", &["get"], &["app/*"]),
            role("", "puller", &["list"], &[]),
            role("", "pusher", &["create"], &[]),
            bound("a", "own-role", "Role", "puller", &["ann"]),
            bound("b", "role-of-another-namespace", "Role", "puller", &["bob"]),
            bound("b", "cluster-role", "ClusterRole", "puller", &["cleo"]),
            bound("", "everywhere", "ClusterRole", "pusher", &["dan", "ann", "dan"]),
            bound("", "everywhere-too", "ClusterRole", "pusher", &["finn"]),
            bound("", "nothing", "ClusterRole", "missing", &["eve"]),
        ] {
            apply(&mut objects, &object);
        }
        let expected = vec![
            rule(&["ann", "dan", "finn"], None, &[Verb::Create], &[]),
            rule(&["ann"], Some("a"), &[Verb::Get], &["app/*"]),
            rule(&["cleo"], Some("b"), &[Verb::List], &[]),
        ];
        assert_eq!(rules(&objects), Some(expected));
    }

    #[test]
    fn a_part_is_never_shown() {
        let mut objects = Objects::default();
        for kind in KINDS {
            assert_eq!(rules(&objects), None);
            objects.take(event(kind, Event::Init));
            objects.take(event(kind, Event::InitDone));
        }
        assert_eq!(rules(&objects), Some(Vec::new()));

        apply(&mut objects, &role("", "puller", &["get"], &[]));
        apply(&mut objects, &bound("", "all", "ClusterRole", "puller", &["ann"]));
        let known = rules(&objects);
        objects.take(event("ClusterRole", Event::Init));
        assert_eq!(rules(&objects), known, "what is known stays while a list begins anew");
        objects.take(event("ClusterRole", Event::InitDone));
        assert_eq!(rules(&objects), Some(Vec::new()));
    }

    #[test]
    fn what_is_of_no_interest_changes_nothing() {
        let mut objects = synced();
        let mut other = role("", "reader", &["get"], &[]);
        other["rules"][0]["resources"] = json!(["pods"]);
        assert!(!apply(&mut objects, &other));
        assert!(apply(&mut objects, &role("", "reader", &["get"], &[])));
        assert!(apply(&mut objects, &other), "it no longer says anything of the registry");
    }

    #[test]
    fn what_is_taken_away_is_gone() {
        let mut objects = synced();
        let (role, bound) = (role("", "r", &["get"], &[]), bound("", "b", "ClusterRole", "r", &["ann"]));
        apply(&mut objects, &bound);
        assert_eq!(rules(&objects), Some(Vec::new()), "the role is not there yet");
        apply(&mut objects, &role);
        assert_eq!(rules(&objects).map(|rules| rules.len()), Some(1));
        objects.take(event("ClusterRoleBinding", Event::Delete(bound)));
        assert_eq!(rules(&objects), Some(Vec::new()));
    }

    proptest! {
        #[test]
        fn the_order_of_arrival_does_not_matter(
            roles in prop::collection::vec(("|[ab]", "[rs]", prop::sample::subsequence(vec!["get", "create", "*"], 0..=3),
                prop::sample::subsequence(vec!["x/*", "**", "y"], 0..=3)), 0..8),
            bindings in prop::collection::vec(("|[ab]", "[mn]", prop::sample::select(vec!["Role", "ClusterRole"]), "[rs]",
                prop::sample::subsequence(vec!["ann", "bob", "cleo"], 0..=3)), 0..8),
            seed in any::<u64>(),
        ) {
            let mut all: Vec<Value> = roles.iter()
                .map(|(namespace, name, verbs, patterns)| role(namespace, name, verbs, patterns))
                .chain(bindings.iter().map(|(namespace, name, kind, role, users)| bound(namespace, name, kind, role, users)))
                .collect();
            // One object of a name: of two, the one that comes later would count.
            let name = |object: &Value| format!("{} {}", object["kind"], object["metadata"]);
            all.sort_by_key(name);
            all.dedup_by_key(|object| name(object));

            let mut ordered = synced();
            all.iter().for_each(|object| { apply(&mut ordered, object); });

            // Listed, and in another order.
            let mut shuffled = Objects::default();
            let mut order: Vec<usize> = (0..all.len()).collect();
            order.sort_by_key(|index| (*index as u64 + 1).wrapping_mul(seed | 1));
            for kind in KINDS {
                shuffled.take(event(kind, Event::Init));
                for object in order.iter().map(|index| &all[*index]).filter(|object| object["kind"] == kind) {
                    shuffled.take(event(kind, Event::InitApply(object.clone())));
                }
                shuffled.take(event(kind, Event::InitDone));
            }
            prop_assert_eq!(rules(&ordered), rules(&shuffled));
        }
    }
}
