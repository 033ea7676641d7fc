//! Checks the whole of it against a cluster's double: logins, rules, namespaces, pull secrets and certificates, and what
//! happens when one of the three is away.

use std::collections::BTreeSet;
use std::process::Command;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tests::authority::Authority;
use tests::client::{Client, strings, with_query};
use tests::cluster::{API_AUDIENCE, FRONT_PROXY_NAME, Trouble, User};
use tests::content::{bytes, sha256};
use tests::eventually;
use tests::front_proxy::{FrontProxy, Settings};
use tests::http::{Request, Response};
use tests::installation::{GROUP_VERSION, Installation};
use tests::kapi::{REGISTRY_HOST, SERVER_NAME};
use tests::private::Private;
use tests::private_tls::{PrivateTls, private_address};
use tests::tools::tool;

const REGISTRY_AUDIENCE: &str = "payload-registry";

const RBAC: &str = "rbac.authorization.k8s.io/v1";

/// A client with a token of the registry's own, got with one of the cluster.
fn with_registry_token(installation: &Installation, login: &Client, scope: &str) -> Client {
    let target = with_query("/token?service=payload-registry", "scope", scope);
    let token = login.get(target).expect(200).json()["token"].as_str().expect("a token").to_owned();
    installation.server.client().with_authorization(&format!("Bearer {token}"))
}

/// Waits until a request is answered with that status.
#[track_caller]
fn until(what: &str, status: u16, mut send: impl FnMut() -> Response) -> Response {
    let mut last = String::new();
    let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        eventually(what, || {
            let response = send();
            last = response.summary();
            (response.status == status).then_some(response)
        })
    }));
    found.unwrap_or_else(|_| panic!("{what}: never {status}, last {last}"))
}

#[test]
fn one_logs_in_with_tokens_of_the_cluster() {
    let installation = Installation::start();
    let cluster = &installation.cluster;
    let jane = User::new("jane", &["developers"]);
    let login = |token: &str| installation.server.client().with_basic("token", token).get("/v2/");
    let good = [
        cluster.token(&jane),
        cluster.token_for(&jane, &[REGISTRY_AUDIENCE], 600),
        cluster.token_for(&jane, &["something", API_AUDIENCE], 600),
        cluster.token(&User::service_account("default", "bot")),
    ];
    for token in &good {
        login(token).expect(200);
        let bearer = installation.server.client().with_authorization(&format!("Bearer {token}"));
        bearer.get("/v2/").expect(200);
    }
    let revoked = cluster.token(&jane);
    cluster.revoke(&revoked);
    let bad = [
        cluster.token_for(&jane, &["something"], 600),
        cluster.token_for(&jane, &[API_AUDIENCE], 0),
        revoked,
        "no-token-at-all".to_owned(),
        String::new(),
    ];
    for token in &bad {
        login(token).expect_error(401, "UNAUTHORIZED");
        let target = "/token?service=payload-registry";
        installation.server.client().with_basic("token", token).get(target).expect(401);
    }
    // A token is no password of anybody else.
    installation.server.client().with_basic("jane", &good[0]).get("/v2/").expect_error(401, "UNAUTHORIZED");
    let challenge = installation.server.client().get("/v2/").expect(401).must("WWW-Authenticate").to_owned();
    assert!(challenge.starts_with("Bearer realm=\"http://"), "{challenge}");

    for secret in good.iter().chain(&bad).filter(|token| !token.is_empty()) {
        assert!(!installation.kapi.log().contains(secret.as_str()), "a token is in the log");
    }
}

#[test]
fn a_real_client_logs_in_pushes_and_pulls() {
    let installation = Installation::start();
    let owner = installation.owner("clients");
    let dir = tempfile::tempdir().expect("a directory");
    tests::layout::write(&dir.path().join("in"), "v1", &["amd64"]);
    let token = installation.cluster.token(&owner);
    let address = installation.server.address().to_string();
    let remote = format!("docker://{address}/clients/app:v1");
    let skopeo = |args: &[&str]| {
        let output = Command::new(tool("skopeo", "skopeo"))
            .args(["--insecure-policy", "--tmpdir"])
            .arg(dir.path())
            .args(args)
            .current_dir(dir.path())
            .env("XDG_RUNTIME_DIR", dir.path())
            .env("HOME", dir.path())
            .output()
            .expect("skopeo runs");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    skopeo(&["login", "--tls-verify=false", "--authfile=auth.json", "-u", "token", "-p", &token, &address]);
    skopeo(&["copy", "--all", "--dest-tls-verify=false", "--authfile=auth.json", "oci:in:v1", &remote]);
    skopeo(&["copy", "--all", "--src-tls-verify=false", "--authfile=auth.json", &remote, "oci:out:v1"]);
    skopeo(&["delete", "--tls-verify=false", "--authfile=auth.json", &remote]);
    let wrong = Command::new(tool("skopeo", "skopeo"))
        .args(["inspect", "--tls-verify=false", "--creds", "token:wrong", &remote])
        .output()
        .expect("skopeo runs");
    assert!(!wrong.status.success());
}

#[test]
fn many_logins_with_one_token_are_one_review() {
    let installation = Installation::start();
    let token = installation.cluster.token(&User::new("jane", &[]));
    let client = installation.server.client().with_basic("token", &token);
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| client.get("/v2/").expect(200));
        }
    });
    assert_eq!(installation.cluster.count("create", "tokenreviews"), 1);
}

#[test]
fn without_the_api_server_nobody_is_let_in_or_turned_away() {
    let installation = Installation::start();
    let cluster = &installation.cluster;
    let owner = installation.owner("away");
    let client = installation.client(&owner);
    let image = client.push_image("away/app", "v1", "away");
    let known = with_registry_token(&installation, &client, "repository:away/app:pull");
    let unknown = || installation.client(&owner);

    for trouble in [Trouble::Status(500), Trouble::Status(429), Trouble::Status(403), Trouble::Reset] {
        cluster.disturb("tokenreviews", trouble);
        unknown().get("/v2/").expect(503).must("Retry-After");
        known.assert_manifest("away/app", "v1", &image);
        cluster.heal("tokenreviews");
        until("logins work again", 200, || unknown().get("/v2/"));
    }
    cluster.disturb("tokenreviews", Trouble::Hang);
    unknown().get("/v2/").expect(503);
    cluster.heal("tokenreviews");

    cluster.go_away();
    unknown().get("/v2/").expect(503);
    installation.server.client().with_basic("token", "wrong").get("/v2/").expect(503);
    known.assert_manifest("away/app", "v1", &image);
    client.assert_manifest("away/app", "v1", &image);
    // What was known of rules and namespaces stays known.
    client.push_image("away/app", "v2", "meanwhile");
    let apis = FrontProxy::new(installation.way_in());
    let list = apis
        .send_as(&User::admin(), Request::new("GET", format!("/apis/{GROUP_VERSION}/payloadrepositorytags")));
    assert_eq!(list.expect(200).json()["items"].as_array().map(Vec::len), Some(2));
    cluster.come_back();
    until("logins work again", 200, || unknown().get("/v2/"));
    // And what changes from now on is heard of.
    let jane = User::new("jane", &[]);
    cluster.grant("away", "jane", &jane, &["get"], &[]);
    let jane = installation.client(&jane);
    until("the new rule acts", 200, || jane.get("/v2/away/app/manifests/v1"));
}

/// What somebody may do with a repository: pull, push, delete.
fn abilities(client: &Client, repository: &str) -> [bool; 3] {
    let may = |response: Response| match response.status {
        401 | 403 => false,
        200 | 202 | 404 => true,
        _ => panic!("{repository}: {}", response.summary()),
    };
    let digest = sha256(b"nothing");
    [
        may(client.get(format!("/v2/{repository}/manifests/none"))),
        may(client.post(format!("/v2/{repository}/blobs/uploads/"))),
        may(client.delete(format!("/v2/{repository}/manifests/{digest}"))),
    ]
}

#[test]
fn rules_say_who_may_do_what() {
    let installation = Installation::start();
    let cluster = &installation.cluster;
    installation.owner("rules");
    installation.owner("other");
    let bot = User::service_account("other", "bot");
    let role = |kind: &str, name: &str, verbs: &[&str], patterns: &[&str]| {
        let mut object = json!({
            "apiVersion": RBAC, "kind": kind, "metadata": {"name": name},
            "rules": [{
                "apiGroups": ["payload-registry.deckhouse.io"], "resources": ["payloadrepositoryaccesses"],
                "verbs": verbs, "resourceNames": patterns,
            }],
        });
        if kind == "Role" {
            object["metadata"]["namespace"] = "rules".into();
        }
        cluster.apply(object);
    };
    let bind = |namespace: Option<&str>, kind: &str, name: &str, subject: Value| {
        let mut object = json!({
            "apiVersion": RBAC, "kind": "ClusterRoleBinding", "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name}, "subjects": [subject],
        });
        if let Some(namespace) = namespace {
            object["kind"] = "RoleBinding".into();
            object["metadata"]["namespace"] = namespace.into();
        }
        cluster.apply(object);
    };
    let user = |name: &str| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": name});
    role("Role", "below", &["get"], &["frontend/**"]);
    bind(Some("rules"), "Role", "below", user("below"));
    role("Role", "one-segment", &["get", "create"], &["frontend/*"]);
    bind(Some("rules"), "Role", "one-segment", user("one-segment"));
    role("Role", "everything", &["*"], &[]);
    bind(Some("rules"), "Role", "everything", user("everything"));
    role("Role", "listing", &["list"], &[]);
    bind(Some("rules"), "Role", "listing", user("listing"));
    role("Role", "choice", &["get"], &["{a,b}/c", "x?"]);
    bind(Some("rules"), "Role", "choice", user("choice"));
    role("ClusterRole", "in-namespace", &["get", "delete"], &[]);
    let group = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "team"});
    bind(Some("rules"), "ClusterRole", "in-namespace", group);
    role("ClusterRole", "everywhere", &["get"], &["shared/**"]);
    bind(None, "ClusterRole", "everywhere", user("everywhere"));
    role("Role", "bot", &["create"], &[]);
    bind(
        Some("rules"),
        "Role",
        "bot",
        json!({"kind": "ServiceAccount", "name": "bot", "namespace": "other"}),
    );
    // Kubernetes' own roles hold these by aggregation; here, their rules are what counts.
    bind(Some("rules"), "ClusterRole", "payload-registry:writer", user("writer"));
    // A rule about anything else gives nothing.
    cluster.apply(json!({
        "apiVersion": RBAC, "kind": "ClusterRole", "metadata": {"name": "else"},
        "rules": [
            {"apiGroups": [""], "resources": ["*"], "verbs": ["*"]},
            {"apiGroups": ["payload-registry.deckhouse.io"], "resources": ["payloadrepositorytags"], "verbs": ["*"]},
        ],
    }));
    bind(None, "ClusterRole", "else", user("else"));
    cluster.apply(json!({
        "apiVersion": RBAC, "kind": "ClusterRole", "metadata": {"name": "admin"},
        "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}],
    }));
    bind(Some("rules"), "ClusterRole", "admin", user("admin"));

    const NOTHING: [bool; 3] = [false; 3];
    const PULL: [bool; 3] = [true, false, false];
    let named = |name: &str| User::new(name, &[]);
    let client = |user: &User| installation.client(user);
    // The last that was written is the last that acts.
    let last = client(&named("admin"));
    eventually("the last rule acts", || (abilities(&last, "rules/x") == [true; 3]).then_some(()));
    for (who, repository, expected) in [
        (named("below"), "rules/frontend", PULL),
        (named("below"), "rules/frontend/app", PULL),
        (named("below"), "rules/frontend/deep/down", PULL),
        (named("below"), "rules/backend", NOTHING),
        (named("below"), "other/frontend/app", NOTHING),
        (named("one-segment"), "rules/frontend/app", [true, true, false]),
        (named("one-segment"), "rules/frontend/deep/down", NOTHING),
        (named("one-segment"), "rules/frontend", NOTHING),
        (named("everything"), "rules/a/b/c", [true; 3]),
        (named("everything"), "other/a", NOTHING),
        (named("listing"), "rules/a", NOTHING),
        (named("choice"), "rules/a/c", PULL),
        (named("choice"), "rules/c/c", NOTHING),
        (named("choice"), "rules/xy", PULL),
        (User::new("anybody", &["team"]), "rules/a", [true, false, true]),
        (User::new("anybody", &["teams"]), "rules/a", NOTHING),
        (named("everywhere"), "rules/shared/a", PULL),
        (named("everywhere"), "other/shared/a", PULL),
        (named("everywhere"), "other/a", NOTHING),
        (bot.clone(), "rules/a", [false, true, false]),
        (User::service_account("rules", "bot"), "rules/a", NOTHING),
        (named("writer"), "rules/a", [true, true, false]),
        (named("else"), "rules/a", NOTHING),
        (named("admin"), "other/a", NOTHING),
        (User::admin(), "rules/a", [true; 3]),
        (named("nobody"), "rules/a", NOTHING),
    ] {
        assert_eq!(abilities(&client(&who), repository), expected, "{} in {repository}", who.name);
    }
    // Nobody needs a rule to be logged in.
    client(&named("nobody")).get("/v2/").expect(200);
}

#[test]
fn changes_of_rules_act_at_once_and_after_trouble() {
    let installation = Installation::start();
    let cluster = &installation.cluster;
    let owner = installation.owner("changing");
    installation.client(&owner).push_image("changing/app", "v1", "x");
    let jane = User::new("jane", &[]);
    let client = installation.client(&jane);
    let pull = || client.get("/v2/changing/app/manifests/v1");
    let grant = || cluster.grant("changing", "jane", &jane, &["get"], &["app"]);
    pull().expect(403);
    grant();
    until("the rule acts", 200, pull);
    cluster.grant("changing", "jane", &jane, &["get"], &["other"]);
    until("its change acts", 403, pull);
    grant();
    until("its change acts", 200, pull);
    cluster.remove(RBAC, "RoleBinding", "changing", "jane");
    until("without the binding", 403, pull);
    grant();
    until("with the binding", 200, pull);
    cluster.remove(RBAC, "Role", "changing", "jane");
    until("without the role", 403, pull);
    grant();
    until("with the role", 200, pull);
    // A registry's token carries no rights.
    let token = with_registry_token(&installation, &client, "repository:changing/app:pull");
    token.get("/v2/changing/app/manifests/v1").expect(200);

    cluster.end_watches();
    cluster.remove(RBAC, "RoleBinding", "changing", "jane");
    until("after watches have ended", 403, pull);
    token.get("/v2/changing/app/manifests/v1").expect(403);
    cluster.forget_history();
    grant();
    until("after 410", 200, pull);
    cluster.go_away();
    cluster.remove(RBAC, "RoleBinding", "changing", "jane");
    cluster.forget_history();
    pull().expect(200);
    cluster.come_back();
    until("after the API server was away", 403, pull);
    cluster.disturb("watch rolebindings", Trouble::Status(500));
    cluster.end_watches();
    grant();
    cluster.heal("watch rolebindings");
    until("after watches were refused", 200, pull);
}

#[test]
fn roles_that_are_too_large_are_the_trouble_of_their_own_namespace() {
    let installation = Installation::start();
    let cluster = &installation.cluster;
    let owner = installation.owner("modest");
    installation.client(&owner).push_image("modest/app", "v1", "x");
    let jane = User::new("jane", &[]);
    let client = installation.client(&jane);
    let pull = || client.get("/v2/modest/app/manifests/v1");
    cluster.grant("modest", "jane", &jane, &["get"], &["app"]);
    until("the rule acts", 200, pull);
    // More than the registry takes at once, all of one tenant.
    let huge = installation.owner("huge");
    let patterns: Vec<String> = (0..256).map(|number| format!("{number:04096}")).collect();
    let patterns: Vec<&str> = patterns.iter().map(String::as_str).collect();
    for number in 0..17 {
        cluster.grant(
            "huge",
            &format!("huge-{number:02}"),
            &huge,
            &["get"],
            &[&patterns[..], &[&number.to_string()]].concat(),
        );
    }
    cluster.remove(RBAC, "RoleBinding", "modest", "jane");
    until("it is revoked", 403, pull);
    cluster.grant("modest", "jane", &jane, &["get"], &["app"]);
    until("it is granted again", 200, pull);
    eventually("the log says whose roles are too large", || {
        let log = installation.kapi.log();
        log.lines()
            .any(|line| line.contains("too large for the registry") && line.contains("huge"))
            .then_some(())
    });
}

#[test]
fn a_mount_takes_the_right_to_pull_from_its_source() {
    let installation = Installation::start();
    let owner = installation.client(&installation.owner("source"));
    let jane = User::new("jane", &[]);
    installation.owner("target");
    installation.cluster.grant("source", "jane", &jane, &["get"], &["open"]);
    installation.cluster.grant("target", "jane", &jane, &["get", "create"], &[]);
    let client = installation.client(&jane);
    until("both rules act", 202, || client.post("/v2/target/app/blobs/uploads/"));
    until("both rules act", 404, || client.get("/v2/source/open/manifests/none"));
    let content = bytes("mounted", 5000);
    let digest = owner.push_blob("source/open", &content);
    owner.push_blob("source/closed", &content);
    let mount = |from: &str| {
        let target = with_query("/v2/target/app/blobs/uploads/", "mount", &digest);
        client.post(with_query(&target, "from", from))
    };
    mount("source/closed").expect(202);
    client.head(format!("/v2/target/app/blobs/{digest}")).expect(404);
    mount("source/open").expect(201);
    client.assert_blob("target/app", &digest, &content);
}

#[test]
fn the_catalog_shows_what_one_may_pull() {
    let installation = Installation::start();
    for namespace in ["catalog-a", "catalog-b"] {
        let client = installation.client(&installation.owner(namespace));
        for path in ["app", "frontend/app"] {
            client.push_image(&format!("{namespace}/{path}"), "v1", path);
        }
    }
    let jane = User::new("jane", &[]);
    installation.cluster.grant("catalog-a", "jane", &jane, &["get"], &["frontend/**"]);
    installation.cluster.grant("catalog-b", "jane", &jane, &["create"], &[]);
    let catalog = |user: &User| {
        strings(&installation.client(user).get("/v2/_catalog").expect(200).json()["repositories"])
    };
    eventually("jane sees one", || (catalog(&jane) == ["catalog-a/frontend/app"]).then_some(()));
    assert_eq!(catalog(&User::new("nobody", &[])), [""; 0]);
    assert_eq!(catalog(&User::admin()).len(), 4);
}

#[test]
fn pushes_need_a_namespace_that_exists() {
    let installation = Installation::start();
    let admin = installation.client(&User::admin());
    let push = |namespace: &str| admin.post(format!("/v2/{namespace}/app/blobs/uploads/"));
    push("missing").expect_error(404, "NAME_UNKNOWN");
    installation.cluster.create_namespace("missing");
    until("the namespace is known", 202, || push("missing"));
    admin.push_image("missing/app", "v1", "x");
    installation.cluster.terminate_namespace("missing");
    until("it is known to be deleted", 403, || push("missing"));
    admin.get("/v2/missing/app/manifests/v1").expect(200);
    let tags = installation.kubectl(&User::admin()).with(&["-n", "missing"]);
    tags.ok(&["delete", "payloadrepositorytags", "--all"]);
    installation.cluster.remove_namespace("missing");
    until("it is known to be gone", 404, || push("missing"));
    eventually("nothing is left of it", || (stored(&admin, "missing").is_empty()).then_some(()));
    // One of that name that is made later begins with nothing.
    installation.cluster.create_namespace("missing");
    until("the namespace is known", 202, || push("missing"));
    admin.get("/v2/missing/app/manifests/v1").expect(404);
}

/// The repositories of a namespace that hold anything.
fn stored(admin: &Client, namespace: &str) -> BTreeSet<String> {
    let all = strings(&admin.get("/v2/_catalog?n=1000").expect(200).json()["repositories"]);
    all.into_iter().filter(|name| name.starts_with(&format!("{namespace}/"))).collect()
}

#[test]
fn what_vanished_while_the_component_was_away_is_removed() {
    let mut installation = Installation::start();
    let admin =
        with_registry_token(&installation, &installation.client(&User::admin()), "registry:catalog:*");
    for namespace in ["vanished", "doubtful", "kept"] {
        installation.client(&installation.owner(namespace)).push_image(
            &format!("{namespace}/app"),
            "v1",
            "x",
        );
    }
    installation.client(&installation.owner("vanished")).begin_upload("vanished/half");
    installation.kapi.stop();
    installation.cluster.remove_namespace("vanished");
    installation.cluster.remove_namespace("doubtful");
    // Nothing but the API server's own 404 about a namespace lets anything go.
    for trouble in [Trouble::Status(500), Trouble::Status(403), Trouble::Status(404), Trouble::Reset] {
        installation.cluster.disturb("get namespaces", trouble);
        let before = installation.cluster.count("get", "namespaces");
        installation.kapi.restart();
        installation.route();
        eventually("the component has looked", || {
            (installation.cluster.count("get", "namespaces") >= before + 2).then_some(())
        });
        for namespace in ["vanished", "doubtful", "kept"] {
            assert!(!stored(&admin, namespace).is_empty(), "{namespace} after {trouble:?}");
        }
        installation.kapi.stop();
    }
    installation.cluster.heal("get namespaces");
    installation.kapi.restart();
    installation.route();
    for namespace in ["vanished", "doubtful"] {
        eventually("what vanished is removed", || (stored(&admin, namespace).is_empty()).then_some(()));
    }
    admin.get("/v2/kept/app/manifests/v1").expect(200);
    // The blob is no longer there for whoever makes a namespace of that name.
    installation.owner("vanished");
    let digest = sha256(&bytes("x/0", 3000));
    admin.head(format!("/v2/vanished/app/blobs/{digest}")).expect(404);
}

#[test]
fn an_empty_list_of_namespaces_is_not_believed() {
    let mut installation = Installation::start();
    let admin = installation.client(&User::admin());
    installation.client(&installation.owner("believed")).push_image("believed/app", "v1", "x");
    installation.kapi.stop();
    // As a cluster looks that was set up anew, or another one that was connected to by mistake.
    for namespace in ["believed", "default", "kube-system", "kube-public"] {
        installation.cluster.remove_namespace(namespace);
    }
    installation.cluster.create_namespace("another");
    let before =
        installation.cluster.count("list", "namespaces") + installation.cluster.count("watch", "namespaces");
    installation.kapi.restart();
    installation.route();
    eventually("the component has read the list", || {
        let now = installation.cluster.count("list", "namespaces")
            + installation.cluster.count("watch", "namespaces");
        (now > before).then_some(())
    });
    until("the list is known", 404, || admin.post("/v2/believed/app/blobs/uploads/"));
    assert_eq!(stored(&admin, "believed").len(), 1);
}

/// What a pull secret holds for the registry: user and password.
fn login_of(secret: &Value) -> Option<(String, String)> {
    let config = secret["data"][".dockerconfigjson"].as_str()?;
    let config: Value =
        serde_json::from_slice(&BASE64_STANDARD.decode(config).expect("base64")).expect("JSON");
    let entry = config["auths"].get(REGISTRY_HOST)?;
    let auth = BASE64_STANDARD.decode(entry["auth"].as_str()?).expect("base64");
    let (user, password) = std::str::from_utf8(&auth).expect("text").split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

fn pull_secret(namespace: &str, account: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/dockerconfigjson",
        "metadata": {
            "name": "pull", "namespace": namespace,
            "annotations": {"payload-registry.deckhouse.io/service-account.name": account},
        },
        "data": {".dockerconfigjson": BASE64_STANDARD.encode(r#"{"auths":{}}"#)},
    })
}

#[test]
fn pull_secrets_are_filled_renewed_and_deleted() {
    let mut installation = Installation::start();
    let cluster = &installation.cluster;
    let owner = installation.client(&installation.owner("pulling"));
    let image = owner.push_image("pulling/app", "v1", "x");
    cluster.grant("pulling", "bot", &User::service_account("pulling", "bot"), &["get"], &[]);
    let account = cluster.apply(json!({
        "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "bot", "namespace": "pulling"},
    }));
    let made = cluster.apply(pull_secret("pulling", "bot"));
    let read = |installation: &Installation| installation.cluster.get("v1", "Secret", "pulling", "pull");
    let filled = eventually("the secret is filled", || {
        read(&installation).filter(|secret| login_of(secret).is_some())
    });
    let (user, token) = login_of(&filled).expect("a login");
    assert_eq!(user, "token");
    let annotation = |secret: &Value, name: &str| {
        secret["metadata"]["annotations"][format!("payload-registry.deckhouse.io/{name}")]
            .as_str()
            .map(str::to_owned)
    };
    assert_eq!(annotation(&filled, "service-account.name").as_deref(), Some("bot"));
    assert_eq!(annotation(&filled, "service-account.uid").as_deref(), account["metadata"]["uid"].as_str());
    let expires_at: jiff::Timestamp =
        annotation(&filled, "expires-at").expect("an end").parse().expect("RFC 3339");
    assert!(expires_at > jiff::Timestamp::now());
    assert_eq!(annotation(&filled, "hash").map(|hash| hash.len()), Some(64));
    assert_eq!(filled["metadata"]["uid"], made["metadata"]["uid"]);
    assert_eq!(filled["type"], "kubernetes.io/dockerconfigjson");
    // The token is for the registry, and for nothing else, and lets one pull.
    assert_eq!(cluster.review(&token, &[]), None);
    let whose = cluster.review(&token, &[REGISTRY_AUDIENCE]).expect("the registry's audience");
    assert_eq!(whose.name, "system:serviceaccount:pulling:bot");
    let kubelet = installation.server.client().with_basic("token", &token);
    until("the rule acts", 200, || kubelet.get("/v2/pulling/app/manifests/v1"));
    kubelet.assert_manifest("pulling/app", "v1", &image);

    // Somebody took it out: it is filled again.
    let mut emptied = filled.clone();
    emptied["data"][".dockerconfigjson"] =
        BASE64_STANDARD.encode(r#"{"auths":{"else.example.com":{"auth":"eDp5"}}}"#).into();
    emptied["metadata"].as_object_mut().expect("metadata").remove("resourceVersion");
    cluster.apply(emptied);
    let again =
        eventually("it is filled again", || read(&installation).filter(|secret| login_of(secret).is_some()));
    let config = again["data"][".dockerconfigjson"].as_str().expect("text");
    let config = String::from_utf8(BASE64_STANDARD.decode(config).expect("base64")).expect("text");
    assert!(config.contains("else.example.com"), "what others put there stays");

    // The service account is another one of the same name: so is the token.
    let (_, before) = login_of(&again).expect("a login");
    cluster.remove("v1", "ServiceAccount", "pulling", "bot");
    cluster.apply(json!({
        "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "bot", "namespace": "pulling"},
    }));
    cluster.apply(pull_secret("pulling", "bot"));
    eventually("the token is of the new account", || {
        let (_, token) = login_of(&read(&installation)?)?;
        (token != before && installation.cluster.review(&token, &[REGISTRY_AUDIENCE]).is_some()).then_some(())
    });

    // The service account goes while the component is away: so does the secret, when it is back.
    installation.kapi.stop();
    installation.cluster.remove("v1", "ServiceAccount", "pulling", "bot");
    installation.kapi.restart();
    eventually("the secret is deleted", || read(&installation).is_none().then_some(()));
    assert!(!installation.kapi.log().contains(&token) && !installation.kapi.log().contains(&before));
}

#[test]
fn tokens_in_pull_secrets_are_renewed_before_they_end() {
    let installation = Installation::start();
    let cluster = &installation.cluster;
    cluster.create_namespace("renewed");
    cluster.limit_token_lifetime(Some(8));
    cluster.apply(json!({
        "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "bot", "namespace": "renewed"},
    }));
    cluster.apply(pull_secret("renewed", "bot"));
    let mut tokens = BTreeSet::new();
    eventually("three tokens came", || {
        let secret = cluster.get("v1", "Secret", "renewed", "pull")?;
        tokens.extend(login_of(&secret).map(|(_, token)| token));
        (tokens.len() >= 3).then_some(())
    });
    cluster.limit_token_lifetime(None);
}

#[test]
fn secrets_that_are_not_for_it_are_left_alone() {
    let installation = Installation::start();
    let cluster = &installation.cluster;
    cluster.create_namespace("alone");
    cluster.apply(json!({
        "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "bot", "namespace": "alone"},
    }));
    let mut others = Vec::new();
    for (name, kind, annotated) in
        [("opaque", "Opaque", true), ("unannotated", "kubernetes.io/dockerconfigjson", false)]
    {
        let mut secret = pull_secret("alone", "bot");
        secret["metadata"]["name"] = name.into();
        secret["type"] = kind.into();
        if !annotated {
            secret["metadata"]["annotations"] = json!({"else": "x"});
        }
        others.push(cluster.apply(secret));
    }
    cluster.apply(pull_secret("alone", "bot"));
    eventually("the one is filled", || login_of(&cluster.get("v1", "Secret", "alone", "pull")?));
    for before in others {
        let name = before["metadata"]["name"].as_str().expect("a name");
        assert_eq!(cluster.get("v1", "Secret", "alone", name), Some(before));
    }
}

#[test]
fn certificates_change_without_a_restart() {
    let mut installation = Installation::start();
    installation.client(&installation.owner("certified")).push_image("certified/app", "v1", "x");
    let kubectl = installation.kubectl(&User::admin()).with(&["-n", "certified"]);
    let works = |kubectl: &tests::kubectl::Kubectl| {
        let output = kubectl.run(&["get", "payloadrepositorytags", "--no-headers"]);
        (output.status.success() && output.stdout.lines().count() == 1).then_some(())
    };
    works(&kubectl).expect("it works");
    let pid = installation.kapi.pid();

    // The front proxy: first both authorities are trusted, then the proxy changes, then the old one is gone.
    let new = Authority::new("front-proxy-ca");
    let old_certificate = installation.cluster.front_proxy_certificate();
    let both = format!("{}{}", installation.cluster.front_proxy_authority().pem(), new.pem());
    let new_alone = new.pem();
    installation.cluster.trust_front_proxies(&both, &[FRONT_PROXY_NAME]);
    installation.cluster.replace_front_proxy(new);
    eventually("the new front proxy is believed", || works(&kubectl));
    let with_old = |installation: &Installation| {
        FrontProxy::new(Settings { certificate: Some(old_certificate.clone()), ..installation.way_in() })
    };
    let ask = |proxy: &FrontProxy| {
        let mut request = Request::new("GET", "/apis");
        request.headers = tests::front_proxy::identity_headers(&User::admin());
        proxy.try_send(&request).map(|response| response.status)
    };
    assert_eq!(ask(&with_old(&installation)).ok(), Some(200));
    let open = with_old(&installation);
    assert_eq!(ask(&open).ok(), Some(200));
    installation.cluster.trust_front_proxies(&new_alone, &[FRONT_PROXY_NAME]);
    eventually("the old front proxy is not believed any more", || {
        (ask(&with_old(&installation)).ok() != Some(200)).then_some(())
    });
    assert_ne!(ask(&open).ok(), Some(200), "nor by a connection from before");
    works(&kubectl).expect("the new one is");
    // What cannot be used changes nothing.
    installation.cluster.trust_front_proxies("no certificate", &[FRONT_PROXY_NAME]);
    installation.cluster.trust_front_proxies(&new_alone, &[FRONT_PROXY_NAME, "somebody-else"]);
    works(&kubectl).expect("it goes on");

    // The serving certificate: first both authorities are trusted, then it changes, then the old one is gone.
    let new = Authority::new("payload-registry-ca");
    let (old_pem, new_pem) = (installation.kapi.authority().pem(), new.pem());
    installation.trust(&format!("{old_pem}{new_pem}"));
    works(&kubectl).expect("it goes on");
    let certificate = new.issue_server(&[SERVER_NAME]);
    installation.kapi.replace_certificate(new, &certificate);
    installation.trust(&new_pem);
    eventually("the new certificate is shown", || works(&kubectl));
    assert_eq!(installation.kapi.pid(), pid);
}

#[test]
fn discovery_answers_whatever_is_wrong_elsewhere() {
    let mut installation = Installation::start();
    installation.client(&installation.owner("discovered")).push_image("discovered/app", "v1", "x");
    let kubectl = installation.kubectl(&User::admin()).with(&["-n", "discovered"]);
    let documents = ["/apis", &format!("/apis/{GROUP_VERSION}"), "/openapi/v2", "/openapi/v3"];
    let check = |installation: &Installation| {
        let direct = installation.direct();
        for user in [
            User { name: "system:kube-aggregator".into(), ..User::default() },
            User { name: "system:aggregator".into(), ..User::default() },
            User::new("jane", &[]),
        ] {
            for target in documents {
                direct.send_as(&user, Request::new("GET", target)).expect(200);
            }
        }
    };
    check(&installation);
    installation.server.kill();
    check(&installation);
    kubectl.ok(&["api-resources", "--api-group=payload-registry.deckhouse.io"]);
    let list = Request::new("GET", format!("/apis/{GROUP_VERSION}/payloadrepositorytags"));
    let status = installation.direct().send_as(&User::admin(), list).expect(503);
    assert_eq!(status.json()["kind"], "Status");
    installation.cluster.go_away();
    check(&installation);
    installation.cluster.come_back();

    // The server comes back without rules, asks for them, and everything is as before.
    installation.server.restart();
    let owner = installation.client(&User::new("owner-of-discovered", &[]));
    until("rules are brought again", 200, || owner.get("/v2/discovered/app/manifests/v1"));
    until("namespaces are brought again", 202, || owner.post("/v2/discovered/app/blobs/uploads/"));
    kubectl.ok(&["get", "payloadrepositorytags"]);
}

#[test]
fn without_the_component_pulls_go_on() {
    let mut installation = Installation::start();
    let owner = installation.owner("alone");
    let client = installation.client(&owner);
    let image = client.push_image("alone/app", "v1", "x");
    let known = with_registry_token(&installation, &client, "repository:alone/app:pull,push");
    installation.kapi.kill();
    known.assert_manifest("alone/app", "v1", &image);
    client.assert_manifest("alone/app", "v1", &image);
    known.push_blob("alone/app", b"pushed meanwhile");
    until("nobody is let in or turned away", 503, || installation.client(&owner).get("/v2/"));
    installation.kapi.restart();
    installation.route();
    until("logins work again", 200, || installation.client(&owner).get("/v2/"));
    let kubectl = installation.kubectl(&User::admin());
    assert_eq!(
        kubectl.ok(&["get", "payloadrepositorytags", "-n", "alone", "--no-headers"]).lines().count(),
        1
    );
    assert!(installation.kapi.stop().success());
}

/// An installation whose component and registry speak TLS, and the authority of the component's certificate.
fn over_tls() -> (Installation, Authority) {
    let (servers, components) = (Authority::new("servers"), Authority::new("components"));
    let files = PrivateTls::new(&servers.issue_server(&["127.0.0.1"]), &components.pem());
    files.equip_component(&components.issue_client("component"), &servers.pem());
    (Installation::start_over_tls(files), components)
}

#[test]
fn the_first_login_after_the_component_was_killed_succeeds() {
    for mut installation in [Installation::start(), over_tls().0] {
        let jane = User::new("jane", &[]);
        // One of them is under way when it happens.
        installation.cluster.disturb("tokenreviews", Trouble::Hang);
        let client = installation.client(&jane);
        let under_way = std::thread::spawn(move || client.get("/v2/"));
        eventually("a review is under way", || {
            (installation.cluster.count("create", "tokenreviews") > 0).then_some(())
        });
        installation.kapi.kill();
        installation.cluster.heal("tokenreviews");
        installation.kapi.restart();
        installation.wait();
        installation.client(&jane).get("/v2/").expect(200);
        under_way.join().expect("no panic").expect(200);
    }
}

#[test]
fn over_tls_a_component_with_another_certificate_gets_nothing() {
    let (mut installation, components) = over_tls();
    let owner = installation.owner("tls");
    installation.client(&owner).push_image("tls/app", "v1", "x");
    let kubectl = installation.kubectl(&owner).with(&["-n", "tls"]);
    let get = ["get", "payloadrepositorytags", "--no-headers"];
    assert_eq!(kubectl.ok(&get).lines().count(), 1);
    // Nobody else gets in, not even to be told what is wrong.
    let servers = std::fs::read_to_string(installation.tls.as_ref().expect("TLS").path("servers.crt"));
    let (servers, others) = (servers.expect("a file"), Authority::new("others"));
    let address = private_address(&installation.server);
    for certificate in [None, Some(others.issue_client("component"))] {
        let stranger = Private::tls(address, &servers, certificate.as_ref());
        let answer = stranger.try_send(&tests::private::request(&interface::ListPrefixes {}));
        assert!(answer.is_err(), "{answer:?}");
    }

    installation.kapi.kill();
    let files = installation.tls.as_ref().expect("TLS");
    files.equip_component(&others.issue_client("component"), &servers);
    installation.kapi.restart();
    installation.route();
    eventually("the component is told about by the cluster", || {
        let discovery = Request::new("GET", format!("/apis/{GROUP_VERSION}"));
        (installation.direct().send_as(&owner, discovery).status == 200).then_some(())
    });
    let output = kubectl.run(&get);
    assert!(!output.status.success() && output.stderr.contains("registry"), "{output:?}");
    installation.client(&owner).get("/v2/").expect(503);
    let status = installation.direct().send(&Request::new("GET", "/readyz?verbose"));
    let status = String::from_utf8_lossy(&status.body).into_owned();
    assert!(status.contains("[-]registry"), "{status}");

    // With its own again, nobody has to start anything.
    files.equip_component(&components.issue_client("component"), &servers);
    installation.wait();
    installation.client(&owner).get("/v2/").expect(200);
    assert_eq!(kubectl.ok(&get).lines().count(), 1);
}

#[test]
fn the_component_waits_for_a_cluster_that_is_not_there_yet() {
    let mut installation = Installation::start();
    let owner = installation.owner("late");
    installation.kapi.stop();
    installation.cluster.go_away();
    installation.kapi.restart();
    installation.route();
    // Without the cluster nobody knows who the front proxy is.
    installation.direct().send_as(&User::admin(), Request::new("GET", "/apis")).expect_any(&[401, 503]);
    installation.direct().send(&Request::new("GET", "/livez")).expect(200);
    installation.cluster.come_back();
    installation.wait();
    installation.direct().send_as(&User::admin(), Request::new("GET", "/apis")).expect(200);
    until("logins work", 200, || installation.client(&owner).get("/v2/"));
    installation.client(&owner).push_image("late/app", "v1", "x");
}

#[test]
fn a_registry_that_is_read_only_deletes_nothing() {
    let installation = Installation::start();
    installation.client(&installation.owner("held")).push_image("held/app", "v1", "x");
    let private = tests::private::Private::unix(installation.server.root().join("private.sock"));
    private.must(&interface::SetReadOnly {
        owner: "test".into(),
        reason: "a collection".into(),
        lasting_seconds: 600,
        drain_seconds: 10,
    });
    let list = format!("/apis/{GROUP_VERSION}/namespaces/held/payloadrepositorytags");
    let direct = installation.direct();
    let refused = direct.send_as(&User::admin(), Request::new("DELETE", list.as_str())).expect(503);
    refused.must("Retry-After");
    assert_eq!(refused.json()["reason"], "ServiceUnavailable");
    let listed = direct.send_as(&User::admin(), Request::new("GET", list.as_str())).expect(200);
    assert_eq!(listed.json()["items"].as_array().map(Vec::len), Some(1));
    private.must(&interface::ClearReadOnly { owner: None });
    direct.send_as(&User::admin(), Request::new("DELETE", list.as_str())).expect(200);
}

#[test]
fn the_component_asks_for_nothing_that_it_may_not() {
    let installation = Installation::start();
    let owner = installation.owner("asked");
    installation.client(&owner).push_image("asked/app", "v1", "x");
    let component = "system:serviceaccount:d8-payload-registry:payload-registry";
    let asked: BTreeSet<(String, String)> = installation
        .cluster
        .seen()
        .into_iter()
        .filter(|seen| seen.user == component)
        .map(|seen| (seen.verb, seen.resource))
        .collect();
    let watched = asked.iter().filter(|(verb, _)| verb == "watch").map(|(_, resource)| resource.as_str());
    let expected = [
        "clusterrolebindings",
        "clusterroles",
        "configmaps",
        "namespaces",
        "rolebindings",
        "roles",
        "secrets",
        "serviceaccounts",
    ];
    assert_eq!(watched.collect::<Vec<_>>(), expected);
    assert!(!installation.kapi.log().contains("is forbidden"), "{}", installation.kapi.log());
}
