//! Checks who may do what in a registry that serves a cluster: by rules, in which namespaces, and beside the users of the
//! settings.

use interface::{Rule, Verb, Verdict};
use tests::client::{Client, location, put_manifest, strings, with_query};
use tests::component::{Component, EVERYTHING, KUBERNETES, group_rule, rule, user};
use tests::content::{Manifest, artifact, bytes, sha256};
use tests::eventually;
use tests::http::Request;
use tests::server::{Launch, Server};

/// Users of the settings with the password "secret1".
const USERS: &str = r#"
users:
  jane:
    passwordHash: "$2b$04$abcdefghijklmnopqrstuuCHf7DUmNUvMBdGje9JveOQe49tH5xFK"
    projects: [{name: lab, access: FULL}]
"#;

/// A server, and a component to which every token is good: it is the user's name, and the groups behind a `/` each.
fn start(config: &str) -> (Server, Component) {
    let server = Launch::new().config(format!("{KUBERNETES}{config}")).start();
    let mut component = Component::of(&server);
    component.review(|token| {
        let mut names = token.split('/');
        let name = names.next().unwrap_or_default();
        Some(match name {
            "nobody" => Verdict::Refused,
            name => user(name, &names.collect::<Vec<_>>()),
        })
    });
    (server, component)
}

/// A client that logs in for a token of the registry's own, and goes on with that.
#[track_caller]
fn logged_in(server: &Server, token: &str) -> Client {
    let client = server.client();
    let answer = client.with_basic("token", token).get("/token").expect(200).json();
    client.with_authorization(&format!("Bearer {}", answer["token"].as_str().expect("a token")))
}

fn admin() -> Rule {
    Rule { namespace: None, ..rule("admin", "", &EVERYTHING, &[]) }
}

/// What a caller may do to a repository with the tag `latest`: the first letters of pull, push and delete.
#[track_caller]
fn may(who: &Client, repository: &str) -> String {
    let digest = sha256(b"none");
    let answers = [
        ('p', who.get(format!("/v2/{repository}/manifests/latest")), 200),
        ('p', who.head(format!("/v2/{repository}/manifests/latest")), 200),
        ('p', who.get(format!("/v2/{repository}/tags/list")), 200),
        ('p', who.get(format!("/v2/{repository}/referrers/{digest}")), 200),
        ('p', who.get(format!("/v2/{repository}/blobs/{digest}")), 404),
        ('P', who.post(format!("/v2/{repository}/blobs/uploads/")), 202),
        ('P', who.send(put_manifest(repository, "new", &Manifest::new(&artifact("a/b", "new")))), 404),
        ('d', who.delete(format!("/v2/{repository}/manifests/none")), 404),
        ('d', who.delete(format!("/v2/{repository}/blobs/{digest}")), 404),
    ];
    let mut letters: Vec<(char, bool)> = Vec::new();
    for (letter, answer, status) in answers {
        let is_allowed = answer.status == status;
        assert!(is_allowed || answer.status == 403, "{letter} {repository}: {}", answer.summary());
        match letters.last() {
            Some((last, before)) if *last == letter => {
                assert_eq!(*before, is_allowed, "{letter} {repository}")
            }
            _ => letters.push((letter, is_allowed)),
        }
    }
    letters.into_iter().filter(|(_, is_allowed)| *is_allowed).map(|(letter, _)| letter).collect()
}

#[test]
fn rules_say_who_may_do_what() {
    let (server, component) = start(USERS);
    component.set_namespaces(&["team", "lab"], &[]);
    component.set_rules(vec![
        admin(),
        rule("jane", "team", &[Verb::Get], &["frontend/**"]),
        rule("jane", "team", &[Verb::Create], &["Frontend/*"]),
        rule("lister", "team", &[Verb::List], &[]),
        rule("cleaner", "team", &[Verb::Delete], &["frontend", "{backend,tmp}/**"]),
        rule("broken", "team", &EVERYTHING, &["{frontend", ""]),
        group_rule("devs", "team", &EVERYTHING, &["backend/*"]),
        Rule { namespace: None, ..rule("auditor", "", &[Verb::Get], &["**/web"]) },
    ]);
    let admin = logged_in(&server, "admin");
    let repositories =
        ["team/frontend", "team/frontend/web", "team/frontend/web/deep", "team/backend/api", "lab/web"];
    for repository in repositories {
        admin.push_image(repository, "latest", repository);
    }
    for (who, expected) in [
        ("admin", ["pPd", "pPd", "pPd", "pPd", "pPd"]),
        ("jane", ["p", "pP", "p", "", ""]),
        ("jane/devs", ["p", "pP", "p", "pPd", ""]),
        ("john/devs", ["", "", "", "pPd", ""]),
        ("devs", ["", "", "", "", ""]),
        ("john/jane", ["", "", "", "", ""]),
        ("lister", ["", "", "", "", ""]),
        ("cleaner", ["d", "", "", "d", ""]),
        ("broken", ["", "", "", "", ""]),
        ("auditor", ["", "p", "", "", "p"]),
        ("root/system:masters", ["pPd", "pPd", "pPd", "pPd", "pPd"]),
        ("system:masters", ["", "", "", "", ""]),
    ] {
        // By the registry's own token, and with each request.
        for client in [logged_in(&server, who), server.client().with_basic("token", who)] {
            let may = repositories.map(|repository| may(&client, repository));
            assert_eq!(may, expected, "{who}");
        }
    }
    // A user of the settings is nobody in the cluster, and the other way round, also where the names are the same.
    let jane = server.client().with_basic("jane", "secret1");
    assert_eq!(repositories.map(|repository| may(&jane, repository)), ["", "", "", "", "pPd"]);
    assert!(server.log().contains("{frontend"), "a bad pattern is named");
}

#[test]
fn a_change_of_the_rules_acts_at_once() {
    let (server, component) = start("");
    component.set_namespaces(&["team"], &[]);
    component.set_rules(vec![admin(), rule("jane", "team", &EVERYTHING, &[])]);
    logged_in(&server, "admin").push_image("team/app", "latest", "app");
    let (jane, john) = (logged_in(&server, "jane"), logged_in(&server, "john/devs"));
    assert_eq!((may(&jane, "team/app"), may(&john, "team/app")), ("pPd".into(), String::new()));
    let session = jane.begin_upload("team/app");
    component.set_rules(vec![
        rule("jane", "team", &[Verb::Get], &["app"]),
        group_rule("devs", "team", &[Verb::Get], &["*"]),
    ]);
    assert_eq!((may(&jane, "team/app"), may(&john, "team/app")), ("p".into(), "p".into()));
    jane.patch(&session, b"more").expect_error(403, "DENIED");
    jane.put(with_query(&session, "digest", &sha256(b"")), b"").expect_error(403, "DENIED");
    component.set_rules(Vec::new());
    assert_eq!((may(&jane, "team/app"), may(&john, "team/app")), (String::new(), String::new()));
}

#[test]
fn nobody_is_let_in_or_turned_away_by_rules_that_are_not_known() {
    let (server, component) = start(&format!("{USERS}anonymous: read\n"));
    component.set_namespaces(&["lab", "team"], &[]);
    let jane = server.client().with_basic("jane", "secret1");
    jane.push_image("lab/app", "latest", "app");
    let john = logged_in(&server, "john");
    // What everybody may needs no rules.
    assert_eq!(john.tags("lab/app"), ["latest"]);
    john.get("/v2/_catalog").expect(200);
    john.post("/v2/lab/app/blobs/uploads/").expect_error(503, "UNAVAILABLE");
    john.put_manifest("lab/app", "new", &Manifest::new(&artifact("a/b", "new")))
        .expect_error(503, "UNAVAILABLE");
    john.delete("/v2/lab/app/manifests/latest").expect_error(503, "UNAVAILABLE");
    assert_eq!(may(&jane, "lab/app"), "pPd");
    component.set_rules(Vec::new());
    assert_eq!(may(&john, "lab/app"), "p");

    let (server, component) = start("");
    let john = logged_in(&server, "john");
    john.get("/v2/").expect(200);
    john.get("/v2/team/app/tags/list").expect_error(503, "UNAVAILABLE");
    component.set_namespaces(&["team"], &[]);
    component.set_rules(vec![admin()]);
    logged_in(&server, "admin").push_image("team/app", "latest", "app");
    john.get("/v2/team/app/tags/list").expect_error(403, "DENIED");
    assert_eq!(john.get("/v2/_catalog").expect(200).json()["repositories"], serde_json::json!([]));
}

/// The requests that push to a repository, each a way of its own.
fn pushes(repository: &str, source: &str, blob: &[u8]) -> [Request; 5] {
    let uploads = format!("/v2/{repository}/blobs/uploads/");
    let digest = sha256(blob);
    let mount = with_query(&uploads, "mount", &digest);
    [
        Request::new("POST", &uploads).body(""),
        Request::new("POST", with_query(&uploads, "digest", &digest)).body(blob),
        Request::new("POST", &mount).body(""),
        Request::new("POST", with_query(&mount, "from", source)).body(""),
        put_manifest(repository, "new", &Manifest::new(&artifact("a/b", "new"))),
    ]
}

#[test]
fn pushes_need_a_namespace_that_is_there_to_stay() {
    for anonymous in ["none", "write"] {
        let (server, component) = start(&format!("{USERS}anonymous: {anonymous}\nallowOpen: true\n"));
        component.set_rules(vec![admin()]);
        let admin = logged_in(&server, "admin");
        let mut pushers = vec![admin.clone(), server.client().with_basic("jane", "secret1")];
        if anonymous == "write" {
            let token = server.client().get("/token").expect(200).json()["token"].as_str().map(str::to_owned);
            pushers.push(server.client().with_authorization(&format!("Bearer {}", token.expect("a token"))));
            pushers.push(server.client());
        }
        let blob = bytes("blob", 5000);
        let refused = |status: u16, code: &str, word: &str| {
            for pusher in &pushers {
                for request in pushes("lab/app", "lab/app", &blob) {
                    let what = format!("{} {}", request.method, request.target);
                    let answer = pusher.send(request).expect_error(status, code);
                    assert!(answer.summary().contains(word), "{what}: {}", answer.summary());
                }
            }
        };
        // Nobody has said which there are.
        refused(503, "UNAVAILABLE", "not known yet");
        component.set_namespaces(&[], &[]);
        refused(404, "NAME_UNKNOWN", "there is no namespace lab");
        admin.get("/v2/lab/app/tags/list").expect(404);

        component.set_namespaces(&["lab"], &[]);
        for pusher in &pushers {
            pusher.push_image("lab/app", "latest", "app");
            pusher.push_blob("lab/app", &blob);
            for (request, status) in
                pushes("lab/app", "lab/app", &blob).into_iter().zip([202, 201, 201, 201, 404])
            {
                pusher.send(request).expect(status);
            }
        }
        component.set_namespaces(&[], &["lab"]);
        refused(403, "DENIED", "is being deleted");
        // What is there can be read, and deleted while there is still a namespace.
        for pusher in &pushers {
            assert_eq!(pusher.tags("lab/app"), ["latest"]);
            pusher.delete("/v2/lab/app/manifests/none").expect_error(404, "MANIFEST_UNKNOWN");
        }
        admin.delete("/v2/lab/app/manifests/latest").expect(202);
        component.set_namespaces(&["lab"], &[]);
        admin.push_image("lab/app", "latest", "app");
        component.set_namespaces(&["team"], &[]);
        refused(404, "NAME_UNKNOWN", "there is no namespace lab");
        for pusher in &pushers {
            assert_eq!(pusher.tags("lab/app"), ["latest"]);
            pusher.delete("/v2/lab/app/manifests/latest").expect_error(404, "NAME_UNKNOWN");
            pusher.delete(format!("/v2/lab/app/blobs/{}", sha256(&blob))).expect_error(404, "NAME_UNKNOWN");
        }
    }
}

#[test]
fn who_may_not_push_is_not_told_which_namespaces_there_are() {
    let (server, component) = start(USERS);
    component.set_namespaces(&["team"], &["ending"]);
    component.set_rules(vec![rule("john", "lab", &[Verb::Get], &[])]);
    for who in [logged_in(&server, "john"), server.client().with_basic("jane", "secret1")] {
        let answers = ["team", "ending", "missing"].map(|namespace| {
            let answer = who.post(format!("/v2/{namespace}/app/blobs/uploads/")).expect_error(403, "DENIED");
            answer.summary().replace(namespace, "…").replace(&answer.body.len().to_string(), "…")
        });
        // Lengths of answers differ by the names; nothing else does.
        let sentence = |answer: &str| answer.split("message").nth(1).map(str::to_owned);
        assert_eq!(sentence(&answers[0]), sentence(&answers[1]));
        assert_eq!(sentence(&answers[0]), sentence(&answers[2]));
    }
}

#[test]
fn a_namespace_that_begins_to_go_takes_nothing_more() {
    let (server, component) = start("");
    component.set_rules(vec![admin()]);
    component.set_namespaces(&["team"], &[]);
    let admin = logged_in(&server, "admin");
    let authorization = format!(
        "Bearer {}",
        server.client().with_basic("token", "admin").get("/token").json()["token"].as_str().expect("a token")
    );
    let blob = bytes("going", 100_000);
    let digest = sha256(&blob);
    let (before, during) = (admin.begin_upload("team/app"), admin.begin_upload("team/app"));
    admin.patch(&before, &blob).expect(202);

    // The last chunk of one session is on its way, and so is a manifest.
    let manifest = Manifest::new(&artifact("a/b", "going"));
    admin.push_empty_config("team/app");
    let half_sent = |request: Request| {
        let mut connection = server.connect();
        let request = request.header("Authorization", &authorization);
        let (head, body) = (request.head(), request.framed_body());
        connection.write(head.as_bytes()).expect("the head is sent");
        connection.write(&body[..body.len() / 2]).expect("half of the body is sent");
        (connection, body[body.len() / 2..].to_vec())
    };
    let mut put = half_sent(Request::new("PUT", with_query(&during, "digest", &digest)).body(&*blob));
    let mut post = half_sent(
        Request::new("POST", with_query("/v2/team/app/blobs/uploads/", "digest", &digest)).body(&*blob),
    );
    let mut put_manifest = half_sent(put_manifest("team/app", "latest", &manifest));
    // They have been let in when the server holds them as requests that are running.
    eventually("the uploads run", || {
        let metrics = server.client().get("/metrics").expect(200);
        String::from_utf8_lossy(&metrics.body).contains("payload_registry_running_uploads 2\n").then_some(())
    });
    component.set_namespaces(&[], &["team"]);
    for (connection, rest) in [&mut put, &mut post, &mut put_manifest] {
        let _ = connection.write(rest);
        connection.receive("PUT").expect("an answer").expect_error(403, "DENIED");
    }
    admin.patch(&before, b"more").expect_error(403, "DENIED");
    admin.put(with_query(&before, "digest", &digest), b"").expect_error(403, "DENIED");
    admin.head(format!("/v2/team/app/blobs/{digest}")).expect(404);
    assert_eq!(admin.tags("team/app"), [""; 0]);

    // A namespace of the same name that comes later has nothing of it.
    component.set_namespaces(&["team"], &[]);
    admin.get(&during).expect_error(404, "BLOB_UPLOAD_UNKNOWN");
    admin.head(format!("/v2/team/app/blobs/{digest}")).expect(404);
}

#[test]
fn a_mount_takes_the_right_to_pull_from_the_source() {
    let (server, component) = start(USERS);
    component.set_namespaces(&["team", "lab", "ending"], &[]);
    component.set_rules(vec![
        admin(),
        rule("jane", "lab", &EVERYTHING, &[]),
        rule("jane", "team", &[Verb::Get], &["open/*"]),
        rule("jane", "team", &[Verb::List, Verb::Create, Verb::Delete], &["secret/*"]),
    ]);
    let admin = logged_in(&server, "admin");
    let (open, secret) = (bytes("open to jane", 5000), bytes("secret to jane", 5000));
    admin.push_blob("team/open/source", &open);
    admin.push_blob("team/secret/source", &secret);
    admin.push_blob("ending/source", &open);
    let jane = logged_in(&server, "jane");
    let mount = |digest: &str, from: &str| {
        let target = with_query("/v2/lab/target/blobs/uploads/", "mount", digest);
        jane.post(if from.is_empty() { target } else { with_query(&target, "from", from) })
    };
    for (digest, from) in [
        (sha256(&secret), "team/secret/source"),
        (sha256(b"nothing"), "team/secret/source"),
        (sha256(&secret), "team/secret/nothing"),
        (sha256(&secret), ""),
        (sha256(b"nothing"), ""),
        (sha256(&open), "ending/source"),
        (sha256(&open), "missing/source"),
    ] {
        let answer = mount(&digest, from).expect(202);
        jane.head(format!("/v2/lab/target/blobs/{digest}")).expect(404);
        jane.delete(location(&answer)).expect(204);
    }
    mount(&sha256(&open), "team/open/source").expect(201);
    jane.assert_blob("lab/target", &sha256(&open), &open);
    // A user of the settings of the same name may not pull from there.
    let target = with_query("/v2/lab/other/blobs/uploads/", "mount", &sha256(&open));
    let static_jane = server.client().with_basic("jane", "secret1");
    static_jane.post(with_query(&target, "from", "team/open/source")).expect(202);
}

#[test]
fn the_catalog_shows_what_the_caller_may_see() {
    let (server, component) = start(USERS);
    component.set_namespaces(&["team", "lab"], &[]);
    component.set_rules(vec![
        admin(),
        rule("puller", "team", &[Verb::Get], &["a/**"]),
        rule("lister", "team", &[Verb::List], &["**/z"]),
        rule("pusher", "team", &[Verb::Create, Verb::Delete], &[]),
        group_rule("devs", "lab", &[Verb::Get], &[]),
    ]);
    let admin = logged_in(&server, "admin");
    for repository in ["lab/a", "team/a", "team/a/b/z", "team/z"] {
        admin.push_image(repository, "latest", repository);
    }
    let list = |who: &Client, query: &str| {
        strings(&who.get(format!("/v2/_catalog{query}")).expect(200).json()["repositories"])
    };
    for (who, expected) in [
        ("admin", &["lab/a", "team/a", "team/a/b/z", "team/z"][..]),
        ("puller", &["team/a", "team/a/b/z"]),
        ("lister", &["team/a/b/z", "team/z"]),
        ("pusher", &[]),
        ("pusher/devs", &["lab/a"]),
        ("root/system:masters", &["lab/a", "team/a", "team/a/b/z", "team/z"]),
    ] {
        let who = logged_in(&server, who);
        assert_eq!(list(&who, ""), expected);
        assert_eq!(list(&who, "?n=1"), &expected[..expected.len().min(1)]);
    }
    assert_eq!(list(&server.client().with_basic("jane", "secret1"), ""), ["lab/a"]);
    server.client().get("/v2/_catalog").expect_error(401, "UNAUTHORIZED");
    server.client().with_basic("token", "nobody").get("/v2/_catalog").expect_error(401, "UNAUTHORIZED");
    // Who may see that it is there may not pull it for that.
    logged_in(&server, "lister").get("/v2/team/z/tags/list").expect_error(403, "DENIED");
}

#[test]
fn names_have_a_namespace_and_a_path() {
    let (server, component) = start("");
    component.set_rules(vec![admin()]);
    component.set_namespaces(&["single"], &[]);
    let admin = logged_in(&server, "admin");
    for request in pushes("single", "single", b"blob") {
        admin.send(request).expect_error(400, "NAME_INVALID");
    }
    admin.push_image("single/app", "latest", "app");
}
