//! Checks the manifests below `deploy/`: that each is what Kubernetes takes, and that they fit each other and the programs.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::Ingress;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, RoleBinding};
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use k8s_openapi::serde::Serialize;
use k8s_openapi::serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tests::{kapi, manifests, server};

/// Reads an object as its type and writes it again: what the type does not know is gone then.
fn through<T: DeserializeOwned + Serialize>(object: &Value) -> Result<Value, String> {
    let typed: T = serde_json::from_value(object.clone()).map_err(|e| e.to_string())?;
    serde_json::to_value(typed).map_err(|e| e.to_string())
}

#[test]
fn every_field_is_one_that_kubernetes_knows() {
    for file in manifests::files() {
        for object in manifests::read(&file) {
            let kind = object["kind"].as_str().unwrap_or_default();
            let through = match kind {
                "APIService" => through::<APIService>(&object),
                "ClusterRole" => through::<ClusterRole>(&object),
                "ClusterRoleBinding" => through::<ClusterRoleBinding>(&object),
                "ConfigMap" => through::<ConfigMap>(&object),
                "Ingress" => through::<Ingress>(&object),
                "Namespace" => through::<Namespace>(&object),
                "PodDisruptionBudget" => through::<PodDisruptionBudget>(&object),
                "RoleBinding" => through::<RoleBinding>(&object),
                "Service" => through::<Service>(&object),
                "ServiceAccount" => through::<ServiceAccount>(&object),
                "StatefulSet" => through::<StatefulSet>(&object),
                _ => panic!("{file}: no kind that this test knows: {kind:?}"),
            };
            let through = through.unwrap_or_else(|e| panic!("{file}, {kind}: {e}"));
            assert_eq!(
                lost(&object, &through, kind),
                [""; 0],
                "{file}: what is lost is unknown to Kubernetes"
            );
        }
    }
}

/// The places of what is in `object` and not, or not so, in `through`.
fn lost(object: &Value, through: &Value, place: &str) -> Vec<String> {
    match (object, through) {
        (Value::Object(fields), Value::Object(_)) => {
            let lost =
                |(name, value): (&String, &Value)| lost(value, &through[name], &format!("{place}.{name}"));
            fields.iter().flat_map(lost).collect()
        }
        (Value::Array(items), Value::Array(others)) if items.len() == others.len() => {
            let pairs = items.iter().zip(others).enumerate();
            pairs.flat_map(|(at, (item, other))| lost(item, other, &format!("{place}[{at}]"))).collect()
        }
        _ if object == through => Vec::new(),
        _ => vec![place.to_owned()],
    }
}

#[test]
fn kustomize_takes_all_but_the_api_service() {
    let [kustomization] = &manifests::read("kustomization.yaml")[..] else { panic!("one document") };
    let mut listed: Vec<&str> =
        kustomization["resources"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    listed.push("api-service.yaml");
    listed.sort_unstable();
    assert_eq!(listed, manifests::files());
}

#[test]
fn names_fit_each_other() {
    let namespace = manifests::object("Namespace", "d8-payload-registry");
    for object in manifests::all() {
        let metadata = &object["metadata"];
        let of = format!("{} {}", object["kind"], metadata["name"]);
        assert_eq!(metadata["labels"]["app.kubernetes.io/name"], "payload-registry", "{of}");
        let is_namespaced = metadata["namespace"] == namespace["metadata"]["name"];
        match object["kind"].as_str() {
            Some("APIService" | "ClusterRole" | "ClusterRoleBinding" | "Namespace") => {
                assert!(metadata["namespace"].is_null(), "{of}");
            }
            // The reader of the front proxy's configuration is bound where that is.
            Some("RoleBinding") => assert_eq!(metadata["namespace"], "kube-system", "{of}"),
            _ => assert!(is_namespaced, "{of}"),
        }
    }

    let api_service = &manifests::object("APIService", "v1alpha1.payload-registry.deckhouse.io")["spec"];
    let service = manifests::object("Service", api_service["service"]["name"].as_str().expect("a name"));
    assert_eq!(api_service["service"]["namespace"], service["metadata"]["namespace"]);
    assert_eq!(api_service["service"]["port"], service["spec"]["ports"][0]["port"]);
    // The certificate is for this name, and the documentation says how to make it.
    let readme = include_str!("../../deploy/README.md");
    assert!(readme.contains("subjectAltName=DNS:payload-registry.d8-payload-registry.svc"));

    let stateful_set = &manifests::object("StatefulSet", "payload-registry")["spec"];
    let pod = &stateful_set["template"];
    let labels = &pod["metadata"]["labels"];
    assert_eq!(&stateful_set["selector"]["matchLabels"], labels);
    let budget = manifests::object("PodDisruptionBudget", "payload-registry");
    assert_eq!(&budget["spec"]["selector"]["matchLabels"], labels);
    let ports: BTreeSet<&str> = containers(pod)
        .flat_map(|container| container["ports"].as_array().expect("a list"))
        .filter_map(|port| port["name"].as_str())
        .collect();
    for name in ["payload-registry", "registry"] {
        let service = manifests::object("Service", name);
        assert_eq!(&service["spec"]["selector"], labels);
        for port in service["spec"]["ports"].as_array().expect("a list") {
            assert!(ports.contains(port["targetPort"].as_str().expect("a name")), "{port}");
        }
    }
    manifests::object("Service", stateful_set["serviceName"].as_str().expect("a name"));
    let account =
        manifests::object("ServiceAccount", pod["spec"]["serviceAccountName"].as_str().expect("a name"));
    let subject = json!({
        "kind": "ServiceAccount", "name": account["metadata"]["name"], "namespace": account["metadata"]["namespace"],
    });
    for binding in [
        manifests::object("ClusterRoleBinding", "payload-registry:component"),
        manifests::object("RoleBinding", "payload-registry:extension-apiserver-authentication-reader"),
    ] {
        assert_eq!(binding["subjects"], json!([subject]));
    }
    for binding in manifests::all().iter().filter(|object| object["kind"] == "ClusterRoleBinding") {
        manifests::object("ClusterRole", binding["roleRef"]["name"].as_str().expect("a name"));
    }

    let ingress = &manifests::object("Ingress", "payload-registry")["spec"];
    let service = manifests::object("Service", "registry");
    for path in ingress["rules"][0]["http"]["paths"].as_array().expect("a list") {
        let backend = &path["backend"]["service"];
        assert_eq!(backend["name"], service["metadata"]["name"]);
        assert_eq!(backend["port"]["name"], service["spec"]["ports"][0]["name"]);
    }
    // One host, in all places.
    let host = ingress["rules"][0]["host"].as_str().expect("a host");
    assert_eq!(ingress["tls"][0]["hosts"], json!([host]));
    let kapi = containers(pod).find(|container| container["name"] == "kapi").expect("the component");
    assert!(args(kapi).any(|arg| arg.ends_with(&format!("={host}"))), "{kapi}");
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    pod["spec"]["containers"].as_array().expect("a list").iter()
}

fn args(container: &Value) -> impl Iterator<Item = &str> {
    container["args"].as_array().expect("a list").iter().map(|arg| arg.as_str().expect("text"))
}

#[test]
fn the_programs_know_their_arguments() {
    let pod = &manifests::object("StatefulSet", "payload-registry")["spec"]["template"];
    let helps = [("payload-registry", server::command()), ("payload-registry-kapi", kapi::command())];
    let mut seen = Vec::new();
    for container in containers(pod) {
        let command = container["command"].as_array().expect("a list");
        let program = command[0].as_str().expect("text");
        let (_, help) = helps.iter().find(|(name, _)| *name == program).expect("one of the programs");
        let mut help = std::process::Command::new(help.get_program());
        help.args(command[1..].iter().filter_map(Value::as_str)).arg("--help");
        let help = String::from_utf8(help.output().expect("the program runs").stdout).expect("text");
        for arg in args(container) {
            let flag = arg.split('=').next().unwrap_or_default();
            let is_known =
                help.split(|c: char| c.is_whitespace() || ",=[]<>".contains(c)).any(|word| word == flag);
            assert!(is_known, "{program} has no {flag}: {help}");
        }
        seen.push(program);
    }
    assert_eq!(seen, ["payload-registry", "payload-registry-kapi"]);
}

#[test]
fn the_registry_takes_its_settings() {
    let settings = manifests::object("ConfigMap", "payload-registry");
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("config.yaml");
    std::fs::write(&path, settings["data"]["config.yaml"].as_str().expect("text")).expect("a file");
    let checked = server::run(&["config", "check", "--config", "config.yaml"], dir.path());
    assert!(checked.status.success(), "{}", checked.output);

    // The socket is where the component looks for it, and the volumes are where the registry looks for them.
    let pod = &manifests::object("StatefulSet", "payload-registry")["spec"]["template"];
    let mounts = |name: &str| {
        let container = containers(pod).find(|container| container["name"] == name).expect("the container");
        let mounts = container["volumeMounts"].as_array().expect("a list").iter();
        mounts.map(|mount| mount["mountPath"].as_str().expect("text").to_owned()).collect::<Vec<_>>()
    };
    let socket = "unix:/run/payload-registry/private.sock";
    assert!(checked.output.contains(socket), "{}", checked.output);
    let kapi = containers(pod).find(|container| container["name"] == "kapi").expect("the component");
    assert!(args(kapi).any(|arg| arg.ends_with(&format!("={socket}"))), "{kapi}");
    for name in ["registry", "kapi"] {
        assert!(mounts(name).contains(&"/run/payload-registry".to_owned()));
    }
    assert!(mounts("registry").contains(&"/var/lib/payload-registry".to_owned()));
    for arg in args(kapi) {
        if let Some((_, path)) = arg.split_once("=/") {
            let is_mounted =
                mounts("kapi").iter().any(|mount| format!("/{path}").starts_with(mount.as_str()));
            assert!(is_mounted, "nothing is mounted for {arg}");
        }
    }
}

#[test]
fn every_volume_is_there_and_used() {
    let stateful_set = &manifests::object("StatefulSet", "payload-registry")["spec"];
    let pod = &stateful_set["template"];
    let name = |volume: &Value| volume["name"].as_str().expect("a name").to_owned();
    let mut volumes: BTreeSet<String> =
        pod["spec"]["volumes"].as_array().expect("a list").iter().map(name).collect();
    let claims = stateful_set["volumeClaimTemplates"].as_array().expect("a list");
    volumes.extend(claims.iter().map(|claim| name(&claim["metadata"])));
    let mounted: BTreeSet<String> = containers(pod)
        .flat_map(|container| container["volumeMounts"].as_array().expect("a list").iter().map(name))
        .collect();
    assert_eq!(volumes, mounted);
    assert_eq!(claims.len(), 1);
}

#[test]
fn the_pod_is_within_the_restricted_standard() {
    let pod = &manifests::object("StatefulSet", "payload-registry")["spec"]["template"]["spec"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    for container in pod["containers"].as_array().expect("a list") {
        let context = &container["securityContext"];
        assert_eq!(context["allowPrivilegeEscalation"], false);
        assert_eq!(context["readOnlyRootFilesystem"], true);
        assert_eq!(context["capabilities"]["drop"], json!(["ALL"]));
    }
}
