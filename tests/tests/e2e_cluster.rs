//! Checks the whole of it in a real cluster, where there is one: `PAYLOAD_REGISTRY_TEST_KUBECONFIG`, else `KUBECONFIG`, names
//! an administrator's kubeconfig.
//!
//! Registry and component run here, beside the tests, and the API server has to reach them: its range of cluster addresses
//! is within 127.96.0.0/16, as a control plane on this machine can have it, and the component listens on the Service's own
//! address (`PAYLOAD_REGISTRY_TEST_CLUSTER_IP`, 127.96.77.1 by default). Nodes are not needed. The cluster is left as it was.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tests::authority::Authority;
use tests::client::{Client, strings};
use tests::http::{Request, Response};
use tests::installation::{GROUP_VERSION, NAMESPACE};
use tests::kapi::{self, Kapi, REGISTRY_HOST, SERVER_NAME};
use tests::kubectl::{Kubectl, minor_version};
use tests::manifests;
use tests::private::Private;
use tests::server::{Launch, Server};
use tests::{eventually, skipped};

const TYPE: &str = "payloadrepositorytags.payload-registry.deckhouse.io";

const API_SERVICE: &str = "apiservice/v1alpha1.payload-registry.deckhouse.io";

/// The service account, and its binding, that sees everything.
const READER: &str = "e2e-reader";

/// How long controllers may take: they try again after half a minute at most.
const CONTROLLERS: Duration = Duration::from_secs(120);

/// The same, for kubectl.
const PATIENCE: &str = "120s";

/// A part of the test, which leaves the cluster as it was.
type Section = fn(&mut Cluster);

#[test]
fn a_registry_in_a_real_cluster() {
    let kubeconfig = ["PAYLOAD_REGISTRY_TEST_KUBECONFIG", "KUBECONFIG"].map(std::env::var_os);
    let Some(kubeconfig) = kubeconfig.into_iter().flatten().next() else {
        skipped(
            "no test in a real cluster; PAYLOAD_REGISTRY_TEST_KUBECONFIG names none, nor does KUBECONFIG",
        );
        return;
    };
    let kubeconfig = PathBuf::from(kubeconfig);
    let sections: [(&str, Section); 12] = [
        ("the other manifests are what the API server takes", manifests_are_valid),
        ("the type is discovered and explained", discovery),
        ("service accounts push, pull, list, watch and delete", tags),
        ("rules are those that the API server itself tells", rules),
        ("others act by --as, and nobody without the ClusterRole", impersonation),
        ("a namespace goes with its tags", namespaces),
        ("a registry that is read-only delays that", read_only),
        ("namespaces can be deleted again after the component was away", absence),
        ("the garbage collector goes on", garbage_collection),
        ("pull secrets are filled, and go with their accounts", pull_secrets),
        ("certificates change", certificates),
        ("taken down in order, it leaves nothing behind", removal),
    ];
    let mut cluster = Cluster::install(&kubeconfig);
    for (what, section) in sections {
        let started = Instant::now();
        eprintln!("-- {what}");
        section(&mut cluster);
        eprintln!("   {:.1} s", started.elapsed().as_secs_f64());
    }
}

/// The cluster with the registry in it. Dropping it takes the registry out.
struct Cluster {
    admin: Kubectl,
    kapi: Kapi,
    server: Server,
    address: String,
    namespaces: BTreeSet<String>,
    dir: tempfile::TempDir,
}

impl Cluster {
    #[track_caller]
    fn install(kubeconfig: &Path) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let config = Kubectl::new(copy(kubeconfig, dir.path()));
        assert!(
            config.run(&["get", "namespace", NAMESPACE]).stderr.contains("NotFound"),
            "the cluster has a namespace {NAMESPACE}: it is in use, or a test before this one was killed. See deploy/README.md \
             on how to take it down"
        );
        let address = std::env::var("PAYLOAD_REGISTRY_TEST_CLUSTER_IP").unwrap_or("127.96.77.1".into());
        let deploy = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy"));
        for file in ["namespace.yaml", "service-account.yaml", "component-rbac.yaml", "user-roles.yaml"] {
            config.ok(&["apply", "-f", &deploy.join(file).to_string_lossy()]);
        }
        let server = Launch::new().config("kubernetes: {enabled: true}").start();
        let launch = kapi::Launch {
            registry: format!("unix:{}", server.root().join("private.sock").display()),
            kubeconfig: account_kubeconfig(&config, NAMESPACE, "payload-registry", dir.path()),
            listen: format!("{address}:443"),
            args: Vec::new(),
        };
        let kapi = launch.start();
        let cluster = Self { admin: config, kapi, server, address, namespaces: BTreeSet::new(), dir };
        cluster.publish();
        cluster.trust(&cluster.kapi.authority().pem());
        cluster.wait_available();
        cluster
    }

    /// Makes the Service, with the component's address as its own.
    #[track_caller]
    fn publish(&self) {
        let mut service = manifests::object("Service", "payload-registry");
        service["spec"]["clusterIP"] = self.address.clone().into();
        // The component is no pod; controllers leave a Service without a selector alone.
        service["spec"].as_object_mut().expect("a spec").remove("selector");
        let endpoints = json!({
            "apiVersion": "v1", "kind": "Endpoints",
            "metadata": {"name": "payload-registry", "namespace": NAMESPACE},
            "subsets": [{"addresses": [{"ip": "192.0.2.1"}], "ports": [{"name": "https", "port": 443}]}],
        });
        let applied = self.admin.run_with_input(&["apply", "-f", "-"], &service.to_string());
        assert!(
            applied.status.success(),
            "the API server has to reach this machine by a cluster address of 127.96.0.0/16: {}",
            applied.stderr
        );
        self.apply(&endpoints);
    }

    #[track_caller]
    fn trust(&self, authorities: &str) {
        let mut service = manifests::object("APIService", "v1alpha1.payload-registry.deckhouse.io");
        service["spec"]["caBundle"] = BASE64_STANDARD.encode(authorities).into();
        self.apply(&service);
    }

    #[track_caller]
    fn wait_available(&self) {
        self.admin.ok(&["wait", "--for=condition=Available", API_SERVICE, &format!("--timeout={PATIENCE}")]);
        // What is available is listed a moment later.
        slowly("the type is listed", || self.admin.run(&["get", TYPE, "-A"]).status.success().then_some(()));
    }

    #[track_caller]
    fn apply(&self, object: &Value) {
        let applied = self.admin.run_with_input(&["apply", "-f", "-"], &object.to_string());
        assert!(applied.status.success(), "{}: {object}", applied.stderr);
    }

    #[track_caller]
    fn create_namespace(&mut self, name: &str) {
        self.admin.ok(&["create", "namespace", name]);
        self.namespaces.insert(name.to_owned());
        // Its service account comes from a controller.
        eventually("the namespace has its service account", || {
            self.admin.run(&["-n", name, "get", "serviceaccount", "default"]).status.success().then_some(())
        });
    }

    /// A namespace with a service account `bot` that may do everything in it, and a client of the registry for it.
    #[track_caller]
    fn namespace_with_bot(&mut self, namespace: &str) -> Client {
        self.create_namespace(namespace);
        let admin = self.admin.with(&["-n", namespace]);
        admin.ok(&["create", "serviceaccount", "bot"]);
        let subject = format!("--serviceaccount={namespace}:bot");
        admin.ok(&["create", "rolebinding", "bot", "--clusterrole=payload-registry:administrator", &subject]);
        let client = self.client(namespace, "bot");
        until("the rule acts", 202, || client.post(format!("/v2/{namespace}/wait/blobs/uploads/")));
        client
    }

    #[track_caller]
    fn client(&self, namespace: &str, account: &str) -> Client {
        let token = self.admin.ok(&["-n", namespace, "create", "token", account]);
        self.server.client().with_basic("token", token.trim())
    }

    fn account(&self, namespace: &str, account: &str) -> Kubectl {
        let kubeconfig = account_kubeconfig(&self.admin, namespace, account, self.dir.path());
        Kubectl::new(kubeconfig).with(&["-n", namespace])
    }

    fn private(&self) -> Private {
        Private::unix(self.server.root().join("private.sock"))
    }

    /// Deletes a namespace, and gives when it is gone.
    #[track_caller]
    fn delete_namespace(&mut self, name: &str) {
        self.admin.ok(&["delete", "namespace", name, &format!("--timeout={PATIENCE}")]);
        self.namespaces.remove(name);
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // First of all, or no namespace could be deleted any more.
        self.admin.run(&["delete", API_SERVICE, "--ignore-not-found"]);
        for name in self.namespaces.iter().map(String::as_str).chain([NAMESPACE]) {
            self.admin.run(&[
                "delete",
                "namespace",
                name,
                "--ignore-not-found",
                &format!("--timeout={PATIENCE}"),
            ]);
        }
        self.admin.run(&["delete", "clusterrolebinding", READER, "--ignore-not-found"]);
        for object in ["component-rbac.yaml", "user-roles.yaml"].into_iter().flat_map(manifests::read) {
            self.admin.run_with_input(&["delete", "--ignore-not-found", "-f", "-"], &object.to_string());
        }
    }
}

fn copy(kubeconfig: &Path, dir: &Path) -> PathBuf {
    let path = dir.join("admin.kubeconfig");
    std::fs::copy(kubeconfig, &path).unwrap_or_else(|e| panic!("{}: {e}", kubeconfig.display()));
    path
}

/// A kubeconfig of a service account, with a token that is good for a day.
#[track_caller]
fn account_kubeconfig(admin: &Kubectl, namespace: &str, account: &str, dir: &Path) -> PathBuf {
    let token = admin.ok(&["-n", namespace, "create", "token", account, "--duration=24h"]);
    let view = admin.ok(&["config", "view", "--raw", "--flatten", "--minify", "-o", "json"]);
    let mut config: Value = serde_json::from_str(&view).expect("JSON");
    config["users"][0]["user"] = json!({"token": token.trim()});
    let path = dir.join(format!("{namespace}-{account}.kubeconfig"));
    std::fs::write(&path, config.to_string()).expect("a file");
    path
}

/// Waits for what controllers do, who have times of their own.
#[track_caller]
fn slowly<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + CONTROLLERS;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "in vain waited for this: {what}");
        std::thread::sleep(Duration::from_millis(250));
    }
}

/// Waits until a request is answered with that status.
#[track_caller]
fn until(what: &str, status: u16, mut send: impl FnMut() -> Response) -> Response {
    eventually(what, || Some(send()).filter(|response| response.status == status))
}

/// The words of each line.
fn words(text: &str) -> Vec<Vec<&str>> {
    text.lines().map(|line| line.split_whitespace().collect()).collect()
}

fn manifests_are_valid(cluster: &mut Cluster) {
    for file in manifests::files() {
        for object in manifests::read(&file) {
            let checked = cluster.admin.run_with_input(
                &["apply", "--dry-run=server", "--validate=strict", "-f", "-"],
                // Another one than the Service that is in use.
                &object
                    .to_string()
                    .replace("\"name\":\"payload-registry\"", "\"name\":\"payload-registry-valid\""),
            );
            assert!(checked.status.success(), "{file}: {}", checked.stderr);
            assert!(!checked.stderr.contains("would violate"), "{file}: {}", checked.stderr);
        }
    }
}

fn discovery(cluster: &mut Cluster) {
    let admin = &cluster.admin;
    let resources = admin.ok(&["api-resources", "--api-group=payload-registry.deckhouse.io", "--no-headers"]);
    let names: Vec<&str> = words(&resources).iter().map(|line| line[0]).collect();
    assert_eq!(names, ["payloadrepositoryaccesses", "payloadrepositorytags"], "{resources}");
    slowly("the type is explained", || {
        let explained = admin.run(&["explain", &format!("{TYPE}.spec")]);
        (explained.status.success() && explained.stdout.contains("repositoryPath")).then_some(())
    });
    if minor_version() < 33 {
        admin.ok(&["explain", TYPE, "--output=plaintext-openapiv2"]);
    }
    let role = admin.json(&[
        "create",
        "role",
        "pull",
        "--verb=get",
        "--resource=payloadrepositoryaccesses.payload-registry.deckhouse.io",
        "--resource-name=frontend/**",
        "--dry-run=server",
    ]);
    assert_eq!(role["rules"][0]["resourceNames"], json!(["frontend/**"]));
}

fn tags(cluster: &mut Cluster) {
    let client = cluster.namespace_with_bot("e2e-tags");
    for path in ["http-echo", "test/http-echo", "test/http-echo2"] {
        client.push_image(&format!("e2e-tags/{path}"), "latest", path);
    }
    let bot = cluster.account("e2e-tags", "bot");
    let expected = [
        ["nb2hi4bnmvrwq3z2nrqxizltoq", "http-echo", "latest"],
        ["orsxg5bpnb2hi4bnmvrwq3z2nrqxizltoq", "test/http-echo", "latest"],
        ["orsxg5bpnb2hi4bnmvrwq3zshjwgc5dfon2a", "test/http-echo2", "latest"],
    ];
    assert_eq!(words(&bot.ok(&["get", TYPE, "--no-headers"])), expected);
    let wide = bot.ok(&["get", TYPE, "-o", "wide", "--no-headers"]);
    assert_eq!(words(&wide)[0][3], format!("{REGISTRY_HOST}/e2e-tags/http-echo:latest"));
    let tag = bot.json(&["get", TYPE, expected[0][0]]);
    assert_eq!(tag["status"]["config"]["author"], "http-echo");
    bot.ok(&["describe", TYPE, expected[0][0]]);
    assert_eq!(bot.ok(&["auth", "can-i", "list", TYPE]).trim(), "yes");
    assert_eq!(bot.ok(&["get", TYPE, "--no-headers", "--chunk-size=1"]).lines().count(), 3);
    let refused = bot.run_with_input(&["create", "--validate=false", "-f", "-"], &tag.to_string());
    // The API server refuses what it has no rule for, before the component is asked.
    assert!(refused.stderr.contains("orbidden"), "{refused:?}");
    let as_admin = cluster.admin.run_with_input(&["create", "--validate=false", "-f", "-"], &tag.to_string());
    assert!(as_admin.stderr.contains("MethodNotAllowed"), "{as_admin:?}");

    let mut watch = bot.command(&["get", TYPE, "-w", "--output-watch-events", "--no-headers"]);
    let mut watch = watch.stdout(Stdio::piped()).spawn().expect("kubectl runs");
    let stdout = watch.stdout.take().expect("piped");
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(stdout));
    let mut next = || lines.next().expect("a line").expect("text");
    for [name, ..] in expected {
        assert_eq!(words(&next())[0][..2], ["ADDED", name]);
    }
    client.push_image("e2e-tags/new", "v1", "new");
    let added = next();
    assert_eq!((words(&added)[0][0], &words(&added)[0][2..]), ("ADDED", &["new", "v1"][..]));
    bot.ok(&["delete", TYPE, expected[1][0]]);
    assert_eq!(words(&next())[0][..2], ["DELETED", expected[1][0]]);
    watch.kill().expect("kubectl can be killed");
    watch.wait().expect("kubectl ends");

    let name = expected[2][0];
    let mut waiting = bot.command(&["wait", TYPE, name, "--for=delete", "--timeout=60s"]);
    let mut waiting = waiting.stdout(Stdio::null()).spawn().expect("kubectl runs");
    bot.ok(&["delete", TYPE, "--all"]);
    assert!(waiting.wait().expect("kubectl ends").success());
    assert_eq!(client.tags("e2e-tags/http-echo"), [""; 0]);
    cluster.delete_namespace("e2e-tags");
}

/// Whether a pattern of the kinds that this test uses matches a path.
fn matches(pattern: &str, path: &str) -> bool {
    match (pattern.strip_suffix("/**"), pattern.strip_suffix("/*")) {
        (Some(prefix), _) => path == prefix || path.starts_with(&format!("{prefix}/")),
        (None, Some(prefix)) => {
            let rest = path.strip_prefix(&format!("{prefix}/"));
            rest.is_some_and(|rest| !rest.is_empty() && !rest.contains('/'))
        }
        (None, None) => pattern == path,
    }
}

fn rules(cluster: &mut Cluster) {
    drop(cluster.namespace_with_bot("e2e-rules"));
    cluster.create_namespace("e2e-other");
    let admin = cluster.admin.with(&["-n", "e2e-rules"]);
    let resource = "--resource=payloadrepositoryaccesses.payload-registry.deckhouse.io";
    for (account, verbs, names) in [
        ("below", "--verb=get", &["--resource-name=frontend/**"][..]),
        ("beside", "--verb=get,create", &["--resource-name=frontend/*", "--resource-name=backend/api"]),
        ("all", "--verb=*", &[]),
        ("deleter", "--verb=delete", &["--resource-name=frontend/**"]),
        ("nothing", "--verb=list", &["--resource-name=x"]),
    ] {
        admin.ok(&["create", "serviceaccount", account]);
        admin.ok(&[&["create", "role", account, verbs, resource], names].concat());
        let subject = format!("--serviceaccount=e2e-rules:{account}");
        admin.ok(&["create", "rolebinding", account, &format!("--role={account}"), &subject]);
    }
    let group = ["create", "rolebinding", "group", "--clusterrole=payload-registry:reader"];
    cluster
        .admin
        .with(&["-n", "e2e-other"])
        .ok(&[&group[..], &["--group=system:serviceaccounts:e2e-rules"]].concat());

    let last = cluster.client("e2e-rules", "all");
    until("the last rule acts", 404, || last.get("/v2/e2e-other/x/manifests/none"));
    let mut checked = 0;
    for account in ["below", "beside", "all", "deleter", "nothing", "default"] {
        let client = cluster.client("e2e-rules", account);
        let own = cluster.account("e2e-rules", account);
        for namespace in ["e2e-rules", "e2e-other"] {
            // What the API server itself says of somebody's rules.
            let review = json!({
                "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": namespace},
            });
            let reviewed = own.run_with_input(
                &["create", "--validate=false", "-f", "-", "-o", "json"],
                &review.to_string(),
            );
            assert!(reviewed.status.success(), "{reviewed:?}");
            let reviewed: Value = serde_json::from_str(&reviewed.stdout).expect("JSON");
            let rules = reviewed["status"]["resourceRules"].as_array().expect("rules").clone();
            for path in
                ["frontend", "frontend/app", "frontend/deep/app", "backend/api", "backend/api/x", "other"]
            {
                let says = |verb: &str| {
                    rules.iter().any(|rule| {
                        let has = |field: &str, wanted: &str| {
                            let values = rule[field].as_array().into_iter().flatten();
                            values.filter_map(Value::as_str).any(|value| value == wanted || value == "*")
                        };
                        let names = rule["resourceNames"].as_array().cloned().unwrap_or_default();
                        let mut names = names.iter().filter_map(Value::as_str).peekable();
                        has("apiGroups", "payload-registry.deckhouse.io")
                            && has("resources", "payloadrepositoryaccesses")
                            && has("verbs", verb)
                            && (names.peek().is_none() || names.any(|name| matches(name, path)))
                    })
                };
                let repository = format!("/v2/{namespace}/{path}");
                let does = [
                    ("get", client.get(format!("{repository}/manifests/none"))),
                    ("create", client.post(format!("{repository}/blobs/uploads/"))),
                    ("delete", client.delete(format!("{repository}/manifests/none"))),
                ];
                for (verb, response) in does {
                    let may = !matches!(response.status, 401 | 403);
                    assert_eq!(may, says(verb), "{account} {verb} {repository}: {}", response.summary());
                    checked += 1;
                }
            }
        }
    }
    assert_eq!(checked, 216);
    cluster.delete_namespace("e2e-rules");
    cluster.delete_namespace("e2e-other");
}

fn impersonation(cluster: &mut Cluster) {
    let client = cluster.namespace_with_bot("e2e-as");
    client.push_image("e2e-as/app", "v1", "x");
    let as_bot = cluster.admin.with(&["-n", "e2e-as", "--as=system:serviceaccount:e2e-as:bot"]);
    // kubectl does not add the groups that a service account is in.
    let as_bot = as_bot.with(&["--as-group=system:authenticated"]);
    assert_eq!(as_bot.ok(&["get", TYPE, "--no-headers"]).lines().count(), 1);
    let as_jane = cluster.admin.with(&["-n", "e2e-as", "--as=jane", "--as-group=system:authenticated"]);
    assert_eq!(as_jane.ok(&["get", TYPE, "--no-headers"]), "");
    assert_eq!(as_jane.ok(&["auth", "can-i", "delete", TYPE]).trim(), "yes");
    let binding = ["clusterrolebinding", "payload-registry:tags"];
    cluster.admin.ok(&[&["delete"], &binding[..]].concat());
    eventually("the API server itself refuses", || {
        as_jane.run(&["get", TYPE]).stderr.contains("Forbidden").then_some(())
    });
    for object in manifests::read("user-roles.yaml") {
        cluster.apply(&object);
    }
    eventually("it does not any more", || as_jane.run(&["get", TYPE]).status.success().then_some(()));
    cluster.delete_namespace("e2e-as");
}

fn stored(cluster: &Cluster, namespace: &str) -> BTreeSet<String> {
    let client = cluster.server.client().with_authorization(&format!("Bearer {}", admin_token(cluster)));
    let all = strings(&client.get("/v2/_catalog?n=1000").expect(200).json()["repositories"]);
    all.into_iter().filter(|name| name.starts_with(&format!("{namespace}/"))).collect()
}

/// A token of somebody who may see everything.
fn admin_token(cluster: &Cluster) -> String {
    let (admin, name) = (cluster.admin.with(&["-n", NAMESPACE]), READER);
    if !admin.run(&["get", "serviceaccount", name]).status.success() {
        admin.ok(&["create", "serviceaccount", name]);
        let subject = format!("--serviceaccount={NAMESPACE}:{name}");
        // Bound in the cluster: for the repositories of all namespaces.
        let binding =
            ["create", "clusterrolebinding", name, "--clusterrole=payload-registry:reader", &subject];
        admin.ok(&binding);
    }
    admin.ok(&["create", "token", name]).trim().to_owned()
}

fn namespaces(cluster: &mut Cluster) {
    let client = cluster.namespace_with_bot("e2e-deleted");
    for number in 0..20 {
        client.push_image(&format!("e2e-deleted/app-{number}"), "v1", "x");
    }
    client.begin_upload("e2e-deleted/half");
    client.push_blob("e2e-deleted/untagged", b"without a tag");
    eventually("the repositories are seen", || (stored(cluster, "e2e-deleted").len() >= 20).then_some(()));
    cluster.delete_namespace("e2e-deleted");
    eventually("nothing is left of it", || stored(cluster, "e2e-deleted").is_empty().then_some(()));
    let client = cluster.namespace_with_bot("e2e-deleted");
    client.get("/v2/e2e-deleted/app-1/manifests/v1").expect(404);
    cluster.delete_namespace("e2e-deleted");
}

fn read_only(cluster: &mut Cluster) {
    cluster.namespace_with_bot("e2e-held").push_image("e2e-held/app", "v1", "x");
    let private = cluster.private();
    private.must(&interface::SetReadOnly {
        owner: "test".into(),
        reason: "a collection".into(),
        lasting_seconds: 600,
        drain_seconds: 10,
    });
    cluster.admin.ok(&["delete", "namespace", "e2e-held", "--wait=false"]);
    // The controller's client tries again by itself for most of a minute, before the controller hears of it.
    slowly("the namespace says why it waits", || {
        let namespace = cluster.admin.json(&["get", "namespace", "e2e-held"]);
        let conditions = namespace["status"]["conditions"].as_array()?.clone();
        let failed = conditions.into_iter().find(|condition| {
            condition["type"] == "NamespaceDeletionContentFailure" && condition["status"] == "True"
        })?;
        failed["message"].as_str()?.contains("read-only").then_some(())
    });
    assert_eq!(stored(cluster, "e2e-held").len(), 1);
    private.must(&interface::ClearReadOnly { owner: None });
    cluster.delete_namespace("e2e-held");
    assert!(stored(cluster, "e2e-held").is_empty());
}

fn absence(cluster: &mut Cluster) {
    cluster.create_namespace("e2e-unrelated");
    cluster.kapi.kill();
    cluster.admin.ok(&["delete", "namespace", "e2e-unrelated", "--wait=false"]);
    slowly("the API is away", || (!cluster.admin.run(&["get", TYPE, "-A"]).status.success()).then_some(()));
    cluster.kapi.restart();
    cluster.wait_available();
    cluster.delete_namespace_if_there("e2e-unrelated");
    // The server alone, without which discovery still answers.
    cluster.create_namespace("e2e-unrelated");
    cluster.server.kill();
    cluster.admin.ok(&["get", "--raw", &format!("/apis/{GROUP_VERSION}")]);
    cluster.admin.ok(&["wait", "--for=condition=Available", API_SERVICE, "--timeout=1s"]);
    cluster.server.restart();
    let token = admin_token(cluster);
    let login = || cluster.server.client().with_basic("token", &token).get("/v2/");
    until("logins work again", 200, login);
    cluster.delete_namespace("e2e-unrelated");
}

impl Cluster {
    /// Waits for the end of a namespace that is being deleted.
    #[track_caller]
    fn delete_namespace_if_there(&mut self, name: &str) {
        self.admin.ok(&["delete", "namespace", name, "--ignore-not-found", &format!("--timeout={PATIENCE}")]);
        self.namespaces.remove(name);
    }
}

fn garbage_collection(cluster: &mut Cluster) {
    let client = cluster.namespace_with_bot("e2e-garbage");
    client.push_image("e2e-garbage/app", "v1", "x");
    let admin = cluster.admin.with(&["-n", "e2e-garbage"]);
    admin.ok(&["create", "configmap", "owner"]);
    let uid = admin.json(&["get", "configmap", "owner"])["metadata"]["uid"].clone();
    cluster.apply(&json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {
            "name": "owned", "namespace": "e2e-garbage",
            "ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid}],
        },
    }));
    admin.ok(&["delete", "configmap", "owner"]);
    admin.ok(&["wait", "configmap/owned", "--for=delete", &format!("--timeout={PATIENCE}")]);
    // And tags are no garbage.
    assert_eq!(admin.ok(&["get", TYPE, "--no-headers"]).lines().count(), 1);
    cluster.delete_namespace("e2e-garbage");
}

fn pull_secrets(cluster: &mut Cluster) {
    let client = cluster.namespace_with_bot("e2e-pull");
    let image = client.push_image("e2e-pull/app", "v1", "x");
    let admin = cluster.admin.with(&["-n", "e2e-pull"]);
    cluster.apply(&json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/dockerconfigjson",
        "metadata": {
            "name": "pull", "namespace": "e2e-pull",
            "annotations": {"payload-registry.deckhouse.io/service-account.name": "bot"},
        },
        "stringData": {".dockerconfigjson": r#"{"auths":{}}"#},
    }));
    let login = |secret: &Value| {
        let config = BASE64_STANDARD.decode(secret["data"][".dockerconfigjson"].as_str()?).ok()?;
        let config: Value = serde_json::from_slice(&config).ok()?;
        let auth = BASE64_STANDARD.decode(config["auths"][REGISTRY_HOST]["auth"].as_str()?).ok()?;
        let (user, token) = std::str::from_utf8(&auth).ok()?.split_once(':')?;
        Some((user.to_owned(), token.to_owned()))
    };
    let (user, token) = eventually("the secret is filled", || login(&admin.json(&["get", "secret", "pull"])));
    cluster.server.client().with_basic(&user, &token).assert_manifest("e2e-pull/app", "v1", &image);
    // For the API itself the token is worth nothing.
    let as_token = cluster.account("e2e-pull", "bot").with(&["--token", &token]);
    let refused = as_token.fails(&["auth", "whoami"]);
    assert!(refused.contains("nauthorized") || refused.contains("logged in"), "{refused}");
    let secret = admin.json(&["get", "secret", "pull"]);
    let account = admin.json(&["get", "serviceaccount", "bot"]);
    let annotations = &secret["metadata"]["annotations"];
    assert_eq!(annotations["payload-registry.deckhouse.io/service-account.uid"], account["metadata"]["uid"]);
    let expires_at = annotations["payload-registry.deckhouse.io/expires-at"].as_str().expect("an end");
    assert!(expires_at.parse::<jiff::Timestamp>().expect("RFC 3339") > jiff::Timestamp::now());
    admin.ok(&["delete", "serviceaccount", "bot"]);
    admin.ok(&["wait", "secret/pull", "--for=delete", &format!("--timeout={PATIENCE}")]);
    assert!(!cluster.kapi.log().contains(&token), "a token is in the log");
    cluster.delete_namespace("e2e-pull");
}

fn certificates(cluster: &mut Cluster) {
    let pid = cluster.kapi.pid();
    let new = Authority::new("payload-registry-ca");
    let (old_pem, new_pem) = (cluster.kapi.authority().pem(), new.pem());
    cluster.trust(&format!("{old_pem}{new_pem}"));
    let certificate = new.issue_server(&[SERVER_NAME]);
    cluster.kapi.replace_certificate(new, &certificate);
    cluster.wait_available();
    // Whoever does not trust the old one sees when the new one is there.
    let probe = || {
        let settings = tests::front_proxy::Settings {
            address: cluster.kapi.address(),
            server_name: SERVER_NAME.into(),
            trust: new_pem.clone(),
            certificate: None,
            is_http2: true,
        };
        tests::front_proxy::FrontProxy::new(settings).try_send(&Request::new("GET", "/livez")).ok()
    };
    eventually("the new certificate is shown", probe);
    cluster.trust(&new_pem);
    cluster.wait_available();
    cluster.admin.ok(&["get", TYPE, "-A"]);
    assert_eq!(cluster.kapi.pid(), pid);
}

fn removal(cluster: &mut Cluster) {
    cluster.create_namespace("e2e-last");
    cluster.admin.ok(&["delete", API_SERVICE]);
    assert!(cluster.kapi.stop().success());
    cluster.delete_namespace("e2e-last");
    slowly("the group is gone", || {
        (!cluster.admin.ok(&["api-versions"]).contains("payload-registry.deckhouse.io")).then_some(())
    });
}
