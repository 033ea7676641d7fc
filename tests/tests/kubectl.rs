//! Checks the aggregated API with the real `kubectl`, and past it with requests that `kubectl` never makes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use serde_json::{Value, json};
use tests::authority::Authority;
use tests::client::Client;
use tests::cluster::{FRONT_PROXY_NAME, User};
use tests::content::{Manifest, OCI_CONFIG, OCI_LAYER, artifact, descriptor, image, index};
use tests::front_proxy::{FrontProxy, Settings, identity_headers};
use tests::http::Request;
use tests::installation::{GROUP_VERSION, Installation};
use tests::kapi::REGISTRY_HOST;
use tests::kubectl::{Kubectl, minor_version};
use tests::{eventually, skipped};

const TYPE: &str = "payloadrepositorytags.payload-registry.deckhouse.io";

/// The three tags of the documentation: name, repository and tag.
const TAGS: [[&str; 3]; 3] = [
    ["nb2hi4bnmvrwq3z2nrqxizltoq", "http-echo", "latest"],
    ["orsxg5bpnb2hi4bnmvrwq3z2nrqxizltoq", "test/http-echo", "latest"],
    ["orsxg5bpnb2hi4bnmvrwq3zshjwgc5dfon2a", "test/http-echo2", "latest"],
];

/// One for all tests, each with namespaces of its own; it ends with the last of them.
fn installation() -> Arc<Installation> {
    static SHARED: Mutex<Weak<Installation>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    let installation = shared.upgrade().unwrap_or_else(|| Arc::new(Installation::start()));
    *shared = Arc::downgrade(&installation);
    installation
}

fn admin(installation: &Installation, namespace: &str) -> Kubectl {
    installation.kubectl(&User::admin()).with(&["-n", namespace])
}

/// Pushes the three tags of the documentation into a namespace.
fn push_samples(installation: &Installation, namespace: &str) -> Client {
    let client = installation.client(&installation.owner(namespace));
    for [_, path, tag] in TAGS {
        client.push_image(&format!("{namespace}/{path}"), tag, path);
    }
    client
}

/// The words of each line.
fn words(text: &str) -> Vec<Vec<&str>> {
    text.lines().map(|line| line.split_whitespace().collect()).collect()
}

/// An object without what the documentation's samples do not show.
fn as_documented(mut object: Value) -> Value {
    let metadata = object["metadata"].as_object_mut().expect("metadata");
    for added in ["uid", "resourceVersion", "creationTimestamp"] {
        assert!(
            metadata.remove(added).is_some_and(|value| value.as_str().is_some_and(|text| !text.is_empty()))
        );
    }
    object
}

fn sample(namespace: &str, [name, path, tag]: [&str; 3]) -> Value {
    json!({
        "apiVersion": GROUP_VERSION,
        "kind": "PayloadRepositoryTag",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "address": format!("{REGISTRY_HOST}/{namespace}/{path}:{tag}"), "repositoryPath": path, "tag": tag,
        },
    })
}

#[test]
fn tags_are_listed_as_documented() {
    let installation = installation();
    push_samples(&installation, "listed");
    let kubectl = admin(&installation, "listed");

    let table = kubectl.ok(&["get", TYPE]);
    let mut expected = vec![vec!["NAME", "REPOSITORY", "TAG"]];
    expected.extend(TAGS.iter().map(|tag| tag.to_vec()));
    assert_eq!(words(&table), expected);

    let addresses: Vec<String> =
        TAGS.iter().map(|[_, path, tag]| format!("{REGISTRY_HOST}/listed/{path}:{tag}")).collect();
    let wide = kubectl.ok(&["get", TYPE, "-o", "wide"]);
    let mut expected = vec![vec!["NAME", "REPOSITORY", "TAG", "ADDRESS"]];
    expected.extend(TAGS.iter().zip(&addresses).map(|(tag, address)| [&tag[..], &[address]].concat()));
    assert_eq!(words(&wide), expected);

    let yaml: Value = serde_saphyr::from_str(&kubectl.ok(&["get", TYPE, "-o", "yaml"])).expect("YAML");
    assert_eq!((&yaml["apiVersion"], &yaml["kind"]), (&json!("v1"), &json!("List")));
    assert_eq!(yaml["metadata"]["resourceVersion"], "");
    let items: Vec<Value> =
        yaml["items"].as_array().expect("a list").iter().cloned().map(as_documented).collect();
    assert_eq!(items, TAGS.map(|tag| sample("listed", tag)));

    let names = kubectl.ok(&["get", TYPE, "-o", "name"]);
    assert_eq!(
        names.lines().collect::<Vec<_>>(),
        TAGS.map(|[name, ..]| format!("{}/{name}", TYPE.replacen("tags", "tag", 1)))
    );
    assert_eq!(kubectl.ok(&["get", "payloadrepositorytags", "-o", "name"]), names);
    assert_eq!(kubectl.ok(&["get", "payloadrepositorytag", "-o", "name"]), names);
    let paths = kubectl.ok(&["get", TYPE, "-o", "jsonpath={.items[*].spec.repositoryPath}"]);
    assert_eq!(paths, "http-echo test/http-echo test/http-echo2");
    let own = kubectl.ok(&["get", TYPE, "-o", "custom-columns=T:.spec.tag", "--no-headers"]);
    assert_eq!(words(&own), [["latest"]; 3]);
    // Without the server's columns, kubectl makes its own of the objects.
    let plain = kubectl.ok(&["get", TYPE, "--server-print=false"]);
    assert_eq!(words(&plain)[0], ["NAME", "AGE"]);
    assert_eq!(words(&plain).len(), 4);
}

#[test]
fn a_single_tag_tells_what_it_points_at() {
    let installation = installation();
    let client = installation.client(&installation.owner("single"));
    let config = json!({
        "architecture": "amd64",
        "config": {
            "Entrypoint": ["/http-echo"],
            "Env": ["PATH=/usr/bin:/bin", "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"],
            "ExposedPorts": {"3000/tcp": {}},
            "Labels": {"io.buildah.version": "1.42.2", "org.opencontainers.image.ref.name": "unknown"},
            "User": "nobody",
            "WorkingDir": "/",
        },
        "created": "2026-01-23T16:41:11.519360879Z",
        "history": [
            {"created": "0001-01-01T00:00:00Z"},
            {
                "comment": "FROM gcr.io/distroless/static:latest", "created": "2026-01-23T16:41:11.140915464Z",
                "created_by": "/bin/sh -c #(nop) LABEL a=\"${B}\"", "empty_layer": true,
            },
        ],
        "os": "linux",
        "rootfs": {"diff_ids": ["sha256:a33ba213ad26a605d904a741f67154f3904c74a43182c872c35f36b10fa005e0"], "type": "layers"},
    });
    let config_bytes = config.to_string().into_bytes();
    client.push_blob("single/http-echo", &config_bytes);
    client.push_blob("single/http-echo", b"layer");
    let mut document = image(descriptor(OCI_CONFIG, &config_bytes), vec![descriptor(OCI_LAYER, b"layer")]);
    document["annotations"] = json!({"org.opencontainers.image.created": "2026-01-23T16:41:11.519360879Z"});
    let manifest = Manifest::new(&document);
    client.push_manifest("single/http-echo", "latest", &manifest);
    let kubectl = admin(&installation, "single");

    let mut expected = sample("single", TAGS[0]);
    expected["status"] = json!({"config": config, "digest": manifest.digest(), "manifest": document});
    let name = TAGS[0][0];
    let yaml = kubectl.ok(&["get", TYPE, name, "-o", "yaml"]);
    let object: Value = serde_saphyr::from_str(&yaml).expect("YAML");
    assert_eq!(as_documented(object), expected);
    assert_eq!(as_documented(kubectl.json(&["get", &format!("{TYPE}/{name}")])), expected);
    assert_eq!(words(&kubectl.ok(&["get", TYPE, name, "--no-headers"])), [TAGS[0]]);

    let described = kubectl.ok(&["describe", TYPE, name]);
    for part in
        [name, "http-echo", "latest", &manifest.digest(), "PayloadRepositoryTag", "/http-echo", "amd64"]
    {
        assert!(described.contains(part), "no {part} in {described}");
    }

    // An index has its manifests, and no configuration; an artifact has neither image nor configuration.
    let document = index([&manifest]);
    client.push_manifest("single/http-echo", "index", &Manifest::new(&document));
    let tag = kubectl.json(&["get", TYPE, &name_of(&kubectl, "index")]);
    assert_eq!(tag["status"]["manifest"], document);
    assert_eq!(tag["status"].get("config"), None);
    client.push_empty_config("single/artifact");
    let document = artifact("application/vnd.example", "x");
    client.push_manifest("single/artifact", "artifact", &Manifest::new(&document));
    let tag = kubectl.json(&["get", TYPE, &name_of(&kubectl, "artifact")]);
    assert_eq!(tag["status"]["manifest"], document);
    assert_eq!(tag["status"].get("config"), None);
}

/// The name of the only object of that tag.
#[track_caller]
fn name_of(kubectl: &Kubectl, tag: &str) -> String {
    let listed = kubectl.json(&["get", TYPE]);
    let mut items = listed["items"].as_array().expect("a list").iter();
    let found = items.find(|item| item["spec"]["tag"] == tag).expect("the tag is listed");
    found["metadata"]["name"].as_str().expect("a name").to_owned()
}

#[test]
fn lists_are_narrowed_paged_and_sorted() {
    let installation = installation();
    let client = push_samples(&installation, "narrowed");
    for number in 0..9 {
        client.push_image("narrowed/many", &format!("v{number}"), "many");
    }
    push_samples(&installation, "narrowed-other");
    let kubectl = admin(&installation, "narrowed");
    let count = |args: &[&str]| kubectl.ok(&[&["get", TYPE, "--no-headers"], args].concat()).lines().count();
    assert_eq!(count(&[]), 12);
    assert_eq!(count(&["--chunk-size=5"]), 12);
    assert_eq!(count(&["--chunk-size=1"]), 12);
    assert_eq!(kubectl.ok(&["get", TYPE, "--chunk-size=5"]), kubectl.ok(&["get", TYPE]));

    // Nothing has labels, so these select nothing, or all.
    assert_eq!(count(&["-l", "app=x"]), 0);
    assert_eq!(count(&["-l", "app in (x, y)"]), 0);
    assert_eq!(count(&["-l", "app"]), 0);
    assert_eq!(count(&["-l", "!app"]), 12);
    assert_eq!(count(&["-l", "app!=x"]), 12);
    let [name, path, tag] = TAGS[1];
    let by_name = format!("metadata.name={name}");
    assert_eq!(
        words(&kubectl.ok(&["get", TYPE, "--no-headers", "--field-selector", &by_name])),
        [[name, path, tag]]
    );
    assert_eq!(count(&["--field-selector", &format!("metadata.name!={name}")]), 11);
    assert_eq!(count(&["--field-selector", "metadata.namespace=elsewhere"]), 0);
    let refused = kubectl.fails(&["get", TYPE, "--field-selector", "spec.tag=latest"]);
    assert!(refused.contains("field label not supported: spec.tag"), "{refused}");

    let sorted = kubectl.ok(&["get", TYPE, "--no-headers", "--sort-by=.spec.tag"]);
    let tags: Vec<&str> = words(&sorted).iter().map(|line| line[2]).collect();
    assert!(tags.is_sorted() && tags.len() == 12, "{sorted}");

    let everywhere = kubectl.ok(&["get", TYPE, "-A"]);
    assert_eq!(words(&everywhere)[0], ["NAMESPACE", "NAME", "REPOSITORY", "TAG"]);
    let mut of_namespace: BTreeMap<&str, usize> = BTreeMap::new();
    for line in &words(&everywhere)[1..] {
        *of_namespace.entry(line[0]).or_default() += 1;
    }
    assert_eq!((of_namespace["narrowed"], of_namespace["narrowed-other"]), (12, 3));
    let labels = kubectl.ok(&["get", TYPE, "--show-labels", "--no-headers"]);
    assert!(words(&labels).iter().all(|line| line.last() == Some(&"<none>")), "{labels}");
    let none = admin(&installation, "no-such-namespace").run(&["get", TYPE]);
    assert!(none.status.success() && none.stderr.contains("No resources found"), "{none:?}");
}

#[test]
fn tags_are_deleted_and_nothing_else() {
    let installation = installation();
    let client = push_samples(&installation, "deleted");
    let (namespace, [name, path, tag]) = ("deleted", TAGS[0]);
    let repository = format!("{namespace}/{path}");
    let manifest = client.get(format!("/v2/{repository}/manifests/{tag}")).expect(200);
    let digest = manifest.must("Docker-Content-Digest").to_owned();
    let request = Request::new("PUT", format!("/v2/{repository}/manifests/stays"));
    client
        .send(request.header("Content-Type", manifest.must("Content-Type")).body(manifest.body.clone()))
        .expect(201);
    let kubectl = admin(&installation, namespace);
    let count = || kubectl.ok(&["get", TYPE, "--no-headers"]).lines().count();

    // Older ones read OpenAPI v2 first, in a form (protobuf) that the API server makes and the double does not.
    if minor_version() >= 27 {
        kubectl.ok(&["delete", TYPE, name, "--dry-run=server"]);
    } else {
        skipped("kubectl delete --dry-run=server, as this kubectl is older than 1.27");
    }
    assert_eq!(count(), 4);
    // kubectl lists by the selector and deletes what comes back, here nothing.
    kubectl.ok(&["delete", TYPE, "-l", "app=x"]);
    assert_eq!(count(), 4);

    let deleted = kubectl.ok(&["delete", TYPE, name]);
    assert!(deleted.contains(name) && deleted.contains("deleted"), "{deleted}");
    assert_eq!(client.tags(&repository), ["stays"]);
    client.get(format!("/v2/{repository}/manifests/{digest}")).expect(200);
    let missing = kubectl.fails(&["get", TYPE, name]);
    assert!(missing.contains(&format!("(NotFound): {TYPE} \"{name}\" not found")), "{missing}");
    let missing = kubectl.fails(&["delete", TYPE, name]);
    assert!(missing.contains("NotFound"), "{missing}");
    kubectl.ok(&["delete", TYPE, name, "--ignore-not-found"]);
    for text in ["no-base32!", "NB2HI4BNMVRWQ3Z2NRQXIZLTOQ", "aaaa"] {
        let missing = kubectl.fails(&["get", TYPE, text]);
        assert!(missing.contains("NotFound"), "{missing}");
    }

    kubectl.ok(&["delete", TYPE, TAGS[1][0], "--wait=true", "--grace-period=0", "--cascade=foreground"]);
    kubectl.ok(&["delete", TYPE, "--all"]);
    assert_eq!(count(), 0);
    client.get(format!("/v2/{repository}/manifests/{digest}")).expect(200);
    // A tag that is pushed again is another object.
    client.push_image(&repository, tag, "again");
    kubectl.ok(&["get", TYPE, name]);
}

#[test]
fn one_waits_for_a_deletion() {
    let installation = installation();
    push_samples(&installation, "awaited");
    let kubectl = admin(&installation, "awaited");
    let name = TAGS[2][0];
    let timeout = kubectl.run(&["wait", TYPE, name, "--for=delete", "--timeout=1s"]);
    assert!(!timeout.status.success(), "{timeout:?}");
    let mut waiting = kubectl.command(&["wait", TYPE, name, "--for=delete", "--timeout=30s"]);
    let mut waiting = waiting.stdout(std::process::Stdio::null()).spawn().expect("kubectl runs");
    kubectl.ok(&["delete", TYPE, name]);
    assert!(waiting.wait().expect("kubectl ends").success());
}

#[test]
fn nothing_can_be_made_or_changed() {
    let installation = installation();
    push_samples(&installation, "unchanged");
    let kubectl = admin(&installation, "unchanged");
    let mut object = sample("unchanged", TAGS[0]);
    let text = object.to_string();
    for args in [
        &["create", "--validate=false", "-f", "-"][..],
        &["apply", "--validate=false", "-f", "-"],
        &["apply", "--server-side", "--validate=false", "-f", "-"],
        &["replace", "--validate=false", "-f", "-"],
    ] {
        // What is applied has to differ, or nothing would be sent.
        let text = if args[0] == "apply" { text.replace("http-echo:latest", "else") } else { text.clone() };
        let refused = kubectl.run_with_input(args, &text);
        assert!(!refused.status.success(), "{args:?}: {refused:?}");
        assert!(
            refused.stderr.contains("MethodNotAllowed") || refused.stderr.contains("does not allow"),
            "{refused:?}"
        );
    }
    let name = TAGS[0][0];
    for args in [
        &["label", TYPE, name, "a=b"][..],
        &["annotate", TYPE, name, "a=b"],
        &["patch", TYPE, name, "--type=merge", "-p", r#"{"spec":{"tag":"x"}}"#],
    ] {
        let refused = kubectl.fails(args);
        assert!(refused.contains("does not allow"), "{args:?}: {refused}");
    }
    object["metadata"]["name"] = "new".into();
    let refused = kubectl.run_with_input(&["create", "--validate=false", "-f", "-"], &object.to_string());
    assert!(refused.stderr.contains("does not allow"), "{refused:?}");
    assert_eq!(kubectl.ok(&["get", TYPE, "--no-headers"]).lines().count(), 3);
}

#[test]
fn the_type_is_discovered_and_explained() {
    let installation = installation();
    let kubectl = admin(&installation, "default");
    let resources =
        kubectl.ok(&["api-resources", "--api-group=payload-registry.deckhouse.io", "--no-headers"]);
    let tags = ["payloadrepositorytags", GROUP_VERSION, "true", "PayloadRepositoryTag"];
    let lines = words(&resources);
    assert!(lines.contains(&tags.to_vec()), "{resources}");
    assert!(lines.iter().any(|line| line[0] == "payloadrepositoryaccesses"), "{resources}");
    let verbs = kubectl.ok(&[
        "api-resources",
        "--api-group=payload-registry.deckhouse.io",
        "-o",
        "wide",
        "--no-headers",
    ]);
    let line = words(&verbs).into_iter().find(|line| line[0] == "payloadrepositorytags").expect("the type");
    for verb in ["get", "list", "delete", "deletecollection"] {
        assert!(
            line[4].trim_matches(['[', ']']).split([',', ' ']).any(|word| word == verb)
                || verbs.contains(verb)
        );
    }
    assert!(kubectl.ok(&["api-versions"]).lines().any(|line| line == GROUP_VERSION));
    let raw: Value = serde_json::from_str(&kubectl.ok(&["get", "--raw", &format!("/apis/{GROUP_VERSION}")]))
        .expect("JSON");
    assert_eq!((&raw["kind"], &raw["groupVersion"]), (&json!("APIResourceList"), &json!(GROUP_VERSION)));

    // Roles on the virtual resource can be made, as kubectl finds it.
    let role = kubectl.json(&[
        "create",
        "role",
        "pull",
        "--verb=get",
        "--resource=payloadrepositoryaccesses.payload-registry.deckhouse.io",
        "--resource-name=frontend/**",
        "--dry-run=client",
    ]);
    assert_eq!(role["rules"][0]["resourceNames"], json!(["frontend/**"]));
    assert_eq!(role["rules"][0]["apiGroups"], json!(["payload-registry.deckhouse.io"]));
    let nothing = kubectl.fails(&["get", "payloadrepositoryaccesses"]);
    assert!(nothing.contains("does not allow") || nothing.contains("not find"), "{nothing}");

    let old =
        installation.direct().send_as(&User::admin(), Request::new("GET", "/openapi/v2")).expect(200).json();
    assert_eq!(old["swagger"], "2.0");
    let definitions = old["definitions"].as_object().expect("definitions");
    assert!(definitions.keys().any(|name| name.ends_with("PayloadRepositoryTag")), "{definitions:?}");
    if minor_version() < 29 {
        skipped("kubectl explain, as this kubectl reads OpenAPI v2 first; 1.29 does not");
        return;
    }
    let explained = kubectl.ok(&["explain", TYPE]);
    for part in
        ["GROUP:", "payload-registry.deckhouse.io", "PayloadRepositoryTag", "spec", "status", "DESCRIPTION:"]
    {
        assert!(explained.contains(part), "no {part} in {explained}");
    }
    for (field, part) in
        [("spec.repositoryPath", "<string>"), ("spec.address", "<string>"), ("status.digest", "<string>")]
    {
        let explained = kubectl.ok(&["explain", &format!("{TYPE}.{field}")]);
        assert!(explained.contains(part), "{explained}");
    }
    let recursive = kubectl.ok(&["explain", TYPE, "--recursive"]);
    assert!(recursive.contains("repositoryPath"), "{recursive}");
}

#[test]
fn tags_are_watched() {
    let installation = installation();
    let client = push_samples(&installation, "watched");
    let kubectl = admin(&installation, "watched");
    let mut command = kubectl.command(&["get", TYPE, "-w", "--output-watch-events", "--no-headers"]);
    let mut watching = command.stdout(std::process::Stdio::piped()).spawn().expect("kubectl runs");
    let stdout = watching.stdout.take().expect("piped");
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(stdout));
    let mut next = || lines.next().expect("a line").expect("text");
    for [name, ..] in TAGS {
        assert_eq!(words(&next())[0][..2], ["ADDED", name]);
    }
    client.push_image("watched/http-echo", "latest", "changed");
    assert_eq!(words(&next())[0], [&["MODIFIED"], &TAGS[0][..]].concat());
    client.push_image("watched/new", "v1", "new");
    let added = next();
    assert_eq!(words(&added)[0][2..], ["new", "v1"]);
    kubectl.ok(&["delete", TYPE, TAGS[1][0]]);
    assert_eq!(words(&next())[0], [&["DELETED"], &TAGS[1][..]].concat());
    watching.kill().expect("kubectl can be killed");
    watching.wait().expect("kubectl ends");
}

#[test]
fn everybody_sees_what_they_may_pull() {
    let installation = installation();
    push_samples(&installation, "filtered");
    let jane = User::new("jane", &[]);
    installation.cluster.grant("filtered", "jane", &jane, &["get"], &["test/**"]);
    let kubectl = installation.kubectl(&jane).with(&["-n", "filtered"]);
    let listed = eventually("jane's rule acts", || {
        let listed = kubectl.run(&["get", TYPE, "--no-headers"]).stdout;
        (!listed.is_empty()).then_some(listed)
    });
    assert_eq!(words(&listed), TAGS[1..]);
    kubectl.ok(&["get", TYPE, TAGS[1][0]]);
    let refused = kubectl.fails(&["get", TYPE, TAGS[0][0]]);
    assert!(refused.contains("Forbidden") || refused.contains("NotFound"), "{refused}");
    let refused = kubectl.fails(&["delete", TYPE, TAGS[1][0]]);
    assert!(refused.contains("Forbidden"), "{refused}");
    // Who may impersonate sees what the other would.
    let as_jane = admin(&installation, "filtered").with(&["--as", "jane", "--as-group", "some-group"]);
    assert_eq!(words(&as_jane.ok(&["get", TYPE, "--no-headers"])), TAGS[1..]);
    let nobody = installation.kubectl(&User::new("nobody", &[])).with(&["-n", "filtered"]);
    assert_eq!(nobody.ok(&["get", TYPE, "--no-headers"]), "");
}

#[test]
fn without_the_cluster_role_nothing_gets_through() {
    let installation = Installation::start();
    push_samples(&installation, "closed");
    installation.cluster.remove(
        "rbac.authorization.k8s.io/v1",
        "ClusterRoleBinding",
        "",
        "payload-registry:tags",
    );
    let jane = installation.kubectl(&User::new("jane", &[])).with(&["-n", "closed"]);
    let refused = jane.fails(&["get", TYPE]);
    assert!(refused.contains("Forbidden"), "{refused}");
}

#[test]
fn either_version_of_http_will_do() {
    let installation = Installation::start();
    push_samples(&installation, "versions");
    let kubectl = admin(&installation, "versions");
    let by_http2 = kubectl.ok(&["get", TYPE]);
    installation.cluster.forward_by_http2(false);
    assert_eq!(kubectl.ok(&["get", TYPE]), by_http2);
    kubectl.ok(&["delete", TYPE, "--all"]);
}

/// A way in, with another certificate.
fn with_certificate(
    installation: &Installation,
    certificate: Option<tests::authority::Certificate>,
) -> FrontProxy {
    FrontProxy::new(Settings { certificate, ..installation.way_in() })
}

#[test]
fn only_the_front_proxy_is_believed() {
    let installation = installation();
    let (foreign, own) = (Authority::new("front-proxy-ca"), installation.cluster.front_proxy_authority());
    let forgers = [
        ("no certificate", None),
        ("a foreign one", Some(foreign.issue_client(FRONT_PROXY_NAME))),
        ("another name", Some(own.issue_client("somebody-else"))),
        ("of the cluster's authority", Some(installation.cluster.authority().issue_client(FRONT_PROXY_NAME))),
        ("a server's", Some(own.issue_server(&[FRONT_PROXY_NAME]))),
    ];
    drop(own);
    let list = format!("/apis/{GROUP_VERSION}/payloadrepositorytags");
    for (who, certificate) in forgers {
        let proxy = with_certificate(&installation, certificate);
        for target in [list.as_str(), "/apis", "/openapi/v2"] {
            let mut request = Request::new("GET", target);
            request.headers = identity_headers(&User::admin());
            // Where TLS itself refuses the certificate, there is no answer at all.
            if let Ok(response) = proxy.try_send(&request) {
                assert_eq!(response.status, 401, "{who}, {target}: {}", response.summary());
                let status = response.json();
                assert_eq!((&status["kind"], &status["reason"]), (&json!("Status"), &json!("Unauthorized")));
            } else {
                assert!(who != "no certificate", "{who} is answered with 401");
            }
        }
    }
    // And the front proxy itself has to say whose request it is.
    installation.direct().send(&Request::new("GET", list.as_str())).expect(401);
    let probe = with_certificate(&installation, None);
    for target in ["/healthz", "/livez", "/readyz"] {
        assert_eq!(probe.send(&Request::new("GET", target)).expect(200).body, b"ok", "{target}");
    }
}

#[test]
fn what_cannot_be_accepted_is_406_and_415() {
    let installation = installation();
    push_samples(&installation, "accepted");
    let direct = installation.direct();
    let list = format!("/apis/{GROUP_VERSION}/namespaces/accepted/payloadrepositorytags");
    let get = |accept: &str| {
        let request = Request::new("GET", list.as_str());
        let request = if accept.is_empty() { request } else { request.header("Accept", accept) };
        direct.send_as(&User::admin(), request)
    };
    let partial = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let protobuf = "application/vnd.kubernetes.protobuf";
    for (accept, kind) in [
        (String::new(), "PayloadRepositoryTagList"),
        ("*/*".into(), "PayloadRepositoryTagList"),
        ("application/json".into(), "PayloadRepositoryTagList"),
        (format!("{protobuf},application/json"), "PayloadRepositoryTagList"),
        (partial.into(), "PartialObjectMetadataList"),
        (
            format!("{protobuf};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,{partial},application/json"),
            "PartialObjectMetadataList",
        ),
        ("application/json;as=Table;v=v1;g=meta.k8s.io,application/json".into(), "Table"),
        (
            "application/json;as=Something;v=v1;g=meta.k8s.io,application/json".into(),
            "PayloadRepositoryTagList",
        ),
    ] {
        let response = get(&accept).expect(200);
        assert_eq!(response.json()["kind"], kind, "{accept}");
        let rows = if kind == "Table" { "rows" } else { "items" };
        assert_eq!(response.json()[rows].as_array().map(Vec::len), Some(3), "{accept}");
    }
    for accept in [protobuf, "application/cbor", "text/html", "application/json;as=Table;v=v7;g=meta.k8s.io"]
    {
        let status = get(accept).expect(406).json();
        assert_eq!(
            (&status["kind"], &status["reason"]),
            (&json!("Status"), &json!("NotAcceptable")),
            "{accept}"
        );
    }
    let name = TAGS[0][0];
    let delete = |media_type: &str, body: &str| {
        let request = Request::new("DELETE", format!("{list}/{name}")).header("Content-Type", media_type);
        direct.send_as(&User::admin(), request.body(body))
    };
    delete(protobuf, "k8s\0").expect(415);
    delete("application/json", r#"{"dryRun":["Some"]}"#).expect(422);
    delete("application/json", r#"{"preconditions":{"uid":"another"}}"#).expect(409);
    delete("application/json", r#"{"preconditions":{"resourceVersion":"no-number"}}"#).expect(409);
    delete("application/json", "{").expect(400);
    let unreadable = Request::new("DELETE", format!("{list}/{name}")).header("Accept", protobuf);
    direct.send_as(&User::admin(), unreadable).expect(406);
    assert_eq!(get("").json()["items"].as_array().map(Vec::len), Some(3));
    let whole = Request::new("DELETE", format!("/apis/{GROUP_VERSION}/payloadrepositorytags"));
    direct.send_as(&User::admin(), whole).expect(405);
    for (method, target) in
        [("DELETE", format!("{list}/{name}/status")), ("POST", "/apis/nothing".to_owned())]
    {
        direct.send_as(&User::admin(), Request::new(method, target)).expect(404);
    }
}

#[test]
fn the_namespace_controller_clears_a_namespace() {
    let installation = installation();
    let client = push_samples(&installation, "cleared");
    let controller = User::service_account("kube-system", "namespace-controller");
    let direct = installation.direct();
    let list = format!("/apis/{GROUP_VERSION}/namespaces/cleared/payloadrepositorytags");
    let options =
        json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}).to_string();
    let request = Request::new("DELETE", list.as_str())
        .header("Accept", "application/vnd.kubernetes.protobuf,application/json")
        .header("Content-Type", "application/json");
    direct.send_as(&controller, request.body(options)).expect(200);
    let left = direct.send_as(&controller, Request::new("GET", list.as_str())).expect(200).json();
    assert_eq!(left["items"], json!([]));
    assert_eq!(client.tags("cleared/http-echo"), [""; 0]);
    // Without a body, too, as kube-rs sends it, and where nothing is left.
    direct.send_as(&controller, Request::new("DELETE", list.as_str())).expect(200);
}
