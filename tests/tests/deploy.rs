//! Checks the manifests below `deploy/`: that each is what Kubernetes takes, that they fit each other and the programs, and
//! that the Job's command does what it is for.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use interface::GetReadOnly;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::batch::v1::CronJob;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::Ingress;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, RoleBinding};
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use k8s_openapi::serde::Serialize;
use k8s_openapi::serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::administer::answer;
use tests::client::{Client, location};
use tests::cluster::{Cluster, User};
use tests::content::bytes;
use tests::http::Connection;
use tests::installation::NAMESPACE;
use tests::kapi::{self, Kapi};
use tests::server::{self, Launch, Server};
use tests::{eventually, manifests};

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
                "CronJob" => through::<CronJob>(&object),
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

    let job = &job()["spec"]["template"];
    // The Services, the StatefulSet and the budget must not take its pod for one of theirs.
    assert_ne!(&job["metadata"]["labels"], labels);
    let account =
        manifests::object("ServiceAccount", job["spec"]["serviceAccountName"].as_str().expect("a name"));
    let binding = manifests::object("ClusterRoleBinding", "payload-registry:gc");
    assert_eq!(binding["roleRef"]["name"], "payload-registry:operator");
    assert_eq!(
        binding["subjects"],
        json!([{
            "kind": "ServiceAccount", "name": account["metadata"]["name"], "namespace": account["metadata"]["namespace"],
        }])
    );
    let images: BTreeSet<&str> = [pod, job]
        .into_iter()
        .flat_map(containers)
        .map(|container| container["image"].as_str().expect("an image"))
        .collect();
    assert_eq!(images.len(), 1, "one image holds both programs: {images:?}");

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

/// What the `CronJob` makes.
fn job() -> Value {
    manifests::object("CronJob", "payload-registry-gc")["spec"]["jobTemplate"].clone()
}

/// The templates of all pods.
fn pods() -> [Value; 2] {
    let stateful_set = &manifests::object("StatefulSet", "payload-registry")["spec"];
    [stateful_set["template"].clone(), job()["spec"]["template"].clone()]
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    pod["spec"]["containers"].as_array().expect("a list").iter()
}

fn args(container: &Value) -> impl Iterator<Item = &str> {
    container["args"].as_array().expect("a list").iter().map(|arg| arg.as_str().expect("text"))
}

#[test]
fn the_programs_know_their_arguments() {
    let helps = [("payload-registry", server::command()), ("payload-registry-kapi", kapi::command())];
    let mut seen = Vec::new();
    for container in pods().iter().flat_map(containers) {
        let command = container["command"].as_array().expect("a list");
        let program = command[0].as_str().expect("text");
        let (_, help) = helps.iter().find(|(name, _)| *name == program).expect("one of the programs");
        let mut help = std::process::Command::new(help.get_program());
        let subcommands = args(container).take_while(|arg| !arg.starts_with('-'));
        help.args(command[1..].iter().filter_map(Value::as_str)).args(subcommands).arg("--help");
        let help = String::from_utf8(help.output().expect("the program runs").stdout).expect("text");
        let words: Vec<&str> = help.split(|c: char| c.is_whitespace() || ",=[]<>".contains(c)).collect();
        let flags = args(container).filter(|arg| arg.starts_with('-'));
        let flags = flags.map(|arg| arg.split('=').next().unwrap_or_default());
        let variables = container["env"].as_array().into_iter().flatten();
        for name in flags.chain(variables.filter_map(|variable| variable["name"].as_str())) {
            assert!(words.contains(&name), "{program} has no {name}: {help}");
        }
        seen.push(program.to_owned());
    }
    assert_eq!(seen, ["payload-registry", "payload-registry-kapi", "payload-registry"]);
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
    let name = |volume: &Value| volume["name"].as_str().expect("a name").to_owned();
    let stateful_set = &manifests::object("StatefulSet", "payload-registry")["spec"];
    let claims = stateful_set["volumeClaimTemplates"].as_array().expect("a list");
    assert_eq!(claims.len(), 1);
    let claimed: [BTreeSet<String>; 2] =
        [claims.iter().map(|claim| name(&claim["metadata"])).collect(), BTreeSet::new()];
    for (pod, claimed) in pods().iter().zip(claimed) {
        let own = pod["spec"]["volumes"].as_array().expect("a list").iter().map(name);
        let volumes: BTreeSet<String> = own.chain(claimed).collect();
        let mounted: BTreeSet<String> = containers(pod)
            .flat_map(|container| container["volumeMounts"].as_array().expect("a list").iter().map(name))
            .collect();
        assert_eq!(volumes, mounted);
    }
    // The Job reaches what is stored through the registry alone.
    assert_eq!(pods()[1]["spec"]["volumes"].as_array().map(Vec::len), Some(1));
    assert!(pods()[1]["spec"]["volumes"][0]["projected"].is_object());
}

#[test]
fn the_pods_are_within_the_restricted_standard() {
    for pod in pods() {
        let pod = &pod["spec"];
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        assert_eq!(pod["automountServiceAccountToken"], false);
        for container in pod["containers"].as_array().expect("a list") {
            let context = &container["securityContext"];
            assert_eq!(context["allowPrivilegeEscalation"], false);
            assert_eq!(context["readOnlyRootFilesystem"], true);
            assert_eq!(context["capabilities"]["drop"], json!(["ALL"]));
        }
    }
}

/// A cluster with the registry and the component, and who may collect, by the manifests; all garbage is old enough.
struct Installed {
    kapi: Kapi,
    server: Server,
    cluster: Cluster,
}

impl Installed {
    fn start() -> Self {
        let cluster = Cluster::start();
        cluster.create_namespace(NAMESPACE);
        for file in ["service-account.yaml", "component-rbac.yaml", "user-roles.yaml"] {
            for object in manifests::read(file) {
                cluster.apply(object);
            }
        }
        let gc = "gc: {untaggedAge: 0s, blobAge: 0s, toldAge: 0s, drain: 50m, lease: 1h}";
        let server = Launch::new().config(format!("kubernetes: {{enabled: true}}\n{gc}\n")).start();
        let launch = kapi::Launch {
            registry: format!("unix:{}", server.root().join("private.sock").display()),
            kubeconfig: cluster.kubeconfig(&User::service_account(NAMESPACE, "payload-registry")),
            listen: "127.0.0.1:0".into(),
            args: Vec::new(),
        };
        Self { kapi: launch.start(), server, cluster }
    }

    /// Lets the Job's account do what the manifests let it do.
    fn allow(&self) {
        self.cluster.apply(manifests::object("ServiceAccount", "payload-registry-gc"));
        self.cluster.apply(manifests::object("ClusterRoleBinding", "payload-registry:gc"));
    }

    /// The credentials of somebody who may push, and a client that has them.
    fn pusher(&self) -> (String, Client) {
        self.cluster.create_namespace("team");
        let user = User::new("jane", &[]);
        self.cluster.grant("team", "owner", &user, &["*"], &[]);
        let authorization = format!("Bearer {}", self.cluster.token(&user));
        let client = self.server.client().with_authorization(&authorization);
        eventually("the namespace takes a push", || {
            let begun = client.post("/v2/team/app/blobs/uploads/");
            (begun.status == 202).then(|| client.delete(location(&begun)).expect(204))
        });
        (authorization, client)
    }

    /// What the Job's container runs: the manifest's command line and environment; but the address is that of the server here
    /// instead of the Service's, and the file with the token is one here, too, of an account and audience that the manifest has.
    fn container(&self, dir: &Path) -> Command {
        let pod = &job()["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        let projected = &pod["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"];
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        let account = User::service_account(NAMESPACE, &text(&pod["serviceAccountName"]));
        let seconds = projected["expirationSeconds"].as_u64().expect("a number");
        let token = self.cluster.token_for(&account, &[&text(&projected["audience"])], seconds);
        let file = dir.join(text(&projected["path"]));
        std::fs::write(&file, token).expect("a file");

        assert_eq!(container["command"], json!(["payload-registry"]));
        let mut command = server::command();
        command.args(args(container)).current_dir(dir);
        let service = manifests::object("Service", "registry");
        let (name, port) = (text(&service["metadata"]["name"]), &service["spec"]["ports"][0]["port"]);
        let mount = Path::new(container["volumeMounts"][0]["mountPath"].as_str().expect("a path"));
        for variable in container["env"].as_array().expect("a list") {
            let (name, value) = match (variable["name"].as_str(), text(&variable["value"])) {
                (Some(of @ "PAYLOAD_REGISTRY_SERVER"), value) => {
                    assert_eq!(value, format!("http://{name}.{NAMESPACE}.svc:{port}"));
                    (of, format!("http://{}", self.server.address()))
                }
                (Some(of @ "PAYLOAD_REGISTRY_TOKEN_FILE"), value) => {
                    assert_eq!(Path::new(&value), mount.join(text(&projected["path"])));
                    (of, file.display().to_string())
                }
                other => panic!("what is this to be here? {other:?}"),
            };
            command.env(name, value);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn attempt(&self) -> Output {
        let dir = TempDir::new().expect("a directory");
        self.container(dir.path()).output().expect("the program runs")
    }

    /// Waits until the rules of the cluster let the Job do its work.
    fn wait_until_allowed(&self) {
        eventually("the Job may administer", || self.attempt().status.success().then_some(()));
    }
}

/// Whether the Job gives up at once when its command ends so, instead of trying again.
fn is_final(code: i32) -> bool {
    let rules = job()["spec"]["podFailurePolicy"]["rules"].clone();
    rules.as_array().expect("a list").iter().any(|rule| {
        let codes = rule["onExitCodes"]["values"].as_array().into_iter().flatten();
        rule["action"] == "FailJob" && codes.filter_map(Value::as_i64).any(|value| value == i64::from(code))
    })
}

#[test]
fn the_job_collects_with_its_role_and_not_without() {
    let installed = Installed::start();
    let (_, client) = installed.pusher();
    let kept = client.push_image("team/app", "v1", "kept");
    let old = client.push_image("team/app", "old", "old");
    client.delete("/v2/team/app/manifests/old").expect(202);
    client.push_blob("team/app", &bytes("not needed by anything", 50_000));

    let refused = installed.attempt();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(5), "{said}");
    assert!(
        said.contains("system:serviceaccount:d8-payload-registry:payload-registry-gc may not administer"),
        "{said}"
    );
    assert!(is_final(5) && is_final(2) && !is_final(1) && !is_final(3) && !is_final(4));
    client.get(format!("/v2/team/app/manifests/{}", old.digest())).expect(200);

    installed.allow();
    installed.wait_until_allowed();
    let history = answer(&installed.server, &["gc", "--history"]);
    let report = &history[0];
    assert_eq!((&report["dryRun"], &report["mode"]), (&json!(false), &json!("read-only")));
    assert_eq!((&report["errors"], &report["failure"]), (&json!(0), &Value::Null), "{report}");
    assert_eq!(report["removed"]["manifests"]["count"], 1, "{report}");
    client.get(format!("/v2/team/app/manifests/{}", old.digest())).expect(404);
    client.assert_manifest("team/app", "v1", &kept);
    // Again, nothing is left to do, and that is a success, too.
    let again = installed.attempt();
    assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
    assert!(String::from_utf8_lossy(&again.stdout).starts_with("Collection of "));
    assert!(!installed.server.log().contains("Bearer") && !installed.kapi.log().contains("Bearer"));

    // What the account is for is all that it may do.
    let account = User::service_account(NAMESPACE, "payload-registry-gc");
    let token = installed.cluster.token_for(&account, &["payload-registry"], 600);
    let as_job = installed.server.client().with_basic("token", &token);
    as_job.get("/v2/team/app/manifests/v1").expect(403);
    as_job.post("/v2/team/app/blobs/uploads/").expect(403);
}

/// An attempt of the Job that is running. Dropping it kills it (SIGKILL), as a container is killed.
struct Attempt {
    child: Child,
    _dir: TempDir,
}

impl Attempt {
    fn begin(installed: &Installed) -> Self {
        let dir = TempDir::new().expect("a directory");
        let child = installed.container(dir.path()).spawn().expect("the program runs");
        Self { child, _dir: dir }
    }

    /// Waits for a line on its standard error that contains `text`.
    fn wait_for(&mut self, text: &str) {
        let lines = BufReader::new(self.child.stderr.as_mut().expect("piped")).lines();
        let found = lines.map_while(Result::ok).any(|line| line.contains(text));
        assert!(found, "it ended without saying: {text}");
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_job_that_is_killed_in_the_window_leaves_nothing_to_mend() {
    let installed = Installed::start();
    let (authorization, client) = installed.pusher();
    installed.allow();
    installed.wait_until_allowed();
    let server = &installed.server;
    client.push_blob("team/app", &bytes("not needed by anything", 50_000));
    let before = answer(server, &["gc", "--history"]).as_array().map_or(0, Vec::len);
    // As long as this goes on, the collection waits in its window.
    let mut write = write_without_end(&client, &authorization, server);
    let first = Attempt::begin(&installed);
    eventually("the window", || {
        server.private().must(&GetReadOnly {}).hold.filter(|hold| hold.owner == "gc")
    });
    drop(first);
    assert!(server.private().must(&GetReadOnly {}).hold.is_some(), "the registry does the work, not the Job");
    // The next attempt waits for what the first has begun.
    let mut second = Attempt::begin(&installed);
    second.wait_for("waiting for the one that");
    write.write(b"0\r\n\r\n").expect("sends");
    write.receive("PATCH").expect("an answer").expect(202);
    assert!(second.child.wait().expect("a child can be waited for").success());
    assert_eq!(server.private().must(&GetReadOnly {}).hold, None);
    let history = answer(server, &["gc", "--history"]);
    assert_eq!(history.as_array().map(Vec::len), Some(before + 1), "both were one: {history}");
    assert_eq!(history[0]["removed"]["contents"]["count"], 1, "{history}");
    client.push_image("team/app", "v1", "after");
}

/// A client in the middle of a PATCH.
fn write_without_end(client: &Client, authorization: &str, server: &Server) -> Connection {
    let session = client.begin_upload("team/app");
    let mut connection = server.connect();
    let head = format!(
        "PATCH {session} HTTP/1.1\r\nHost: registry.test\r\nAuthorization: {authorization}\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    connection.write(head.as_bytes()).expect("sends");
    connection.write(b"5\r\nbegun\r\n").expect("sends");
    eventually("a running write", || {
        (server.private().must(&GetReadOnly {}).running_writes > 0).then_some(())
    });
    connection
}
