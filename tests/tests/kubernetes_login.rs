//! Checks how users of a cluster log in: by which ways, with how many reviews of their tokens, and what happens when
//! nobody can review them.

use std::process::Command;
use std::sync::mpsc;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use interface::{AnswerReview, NextReviews, Verdict};
use tests::client::{Client, with_query};
use tests::component::{Component, EVERYTHING, KUBERNETES, group_rule, next, receive_next, rule, user};
use tests::eventually;
use tests::http::{Request, Response};
use tests::layout;
use tests::server::{Launch, Server};
use tests::tools::tool;

const CI: &str = "system:serviceaccount:team-a:ci";

/// Users of the settings beside those of the cluster, with the password "secret1".
const USERS: &str = r#"
users:
  reader:
    passwordHash: "$2b$04$abcdefghijklmnopqrstuuCHf7DUmNUvMBdGje9JveOQe49tH5xFK"
    projects: [{name: team-a, access: READ}]
"#;

/// A JSON Web Token as a cluster issues it; the signature is nobody's business but the reviewer's.
const JWT: &str = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJodHRwczovL2t1YmVybmV0ZXMuZGVmYXVsdC5zdmMifQ.c2lnbmF0dXJl";

fn server() -> Server {
    Launch::new().config(format!("{KUBERNETES}{USERS}")).start()
}

/// A component that knows the tokens `ci` and [`JWT`], and refuses all others.
fn component(server: &Server) -> Component {
    let mut component = Component::of(server);
    component.set_rules(vec![rule(CI, "team-a", &EVERYTHING, &[])]);
    component.set_namespaces(&["team-a"], &[]);
    component.review(|token| {
        Some(match token {
            "ci" | JWT => user(CI, &["system:serviceaccounts"]),
            _ => Verdict::Refused,
        })
    });
    component
}

fn bearer(client: &Client, token: &str) -> Client {
    client.with_authorization(&format!("Bearer {token}"))
}

/// The registry's own token of an answer.
fn token(answer: &Response) -> String {
    answer.json()["token"].as_str().expect("a token").to_owned()
}

/// The claims of a token, without a look at its signature.
fn claims(token: &str) -> serde_json::Value {
    use base64::Engine as _;
    let claims = token.split('.').nth(1).expect("a JSON Web Token");
    let claims = base64::prelude::BASE64_URL_SAFE_NO_PAD.decode(claims).expect("base64");
    serde_json::from_slice(&claims).expect("JSON")
}

fn form(form: &str) -> Request {
    Request::new("POST", "/token").header("Content-Type", "application/x-www-form-urlencoded").body(form)
}

#[test]
fn every_way_in() {
    let server = server();
    let component = component(&server);
    let client = server.client();
    let (basic, by_bearer) = (client.with_basic("token", "ci"), bearer(&client, "ci"));
    // Straight away, with each request.
    for who in [&basic, &by_bearer, &bearer(&client, JWT)] {
        who.get("/v2/").expect(200);
        who.get("/v2/_catalog").expect(200);
    }
    basic.push_image("team-a/app", "latest", "app");
    // Or for a token of the registry's own.
    let target = "/token?service=payload-registry&scope=repository:team-a/app:pull,push";
    for answer in [
        basic.get(target).expect(200),
        basic.get(format!("{target}&account=token&client_id=docker")).expect(200),
        by_bearer.get(target).expect(200),
        client
            .send(form("grant_type=password&username=token&password=ci&service=payload-registry"))
            .expect(200),
    ] {
        assert_eq!(answer.json()["expires_in"], 300);
        assert_eq!(answer.json()["access_token"], answer.json()["token"]);
        assert!(answer.json()["issued_at"].is_string());
        let token = token(&answer);
        // It says who its bearer really is.
        assert_eq!(claims(&token)["sub"], CI);
        let ours = bearer(&client, &token);
        ours.get("/v2/").expect(200);
        assert_eq!(ours.tags("team-a/app"), ["latest"]);
        // And is no way to another one, so that a login ends some time.
        ours.get("/token").expect_error(401, "UNAUTHORIZED");
    }
    assert_eq!(component.reviewed(), ["ci", JWT]);
    // Users of the settings log in beside them.
    client.with_basic("reader", "secret1").get("/v2/team-a/app/tags/list").expect(200);
    client.with_basic("reader", "secret1").get("/token?account=reader").expect(200);
    assert_eq!(component.reviewed().len(), 2);
}

#[test]
fn who_is_not_logged_in_is_told_where_to() {
    let server = server();
    let client = server.client();
    for request in [Request::new("GET", "/v2/"), Request::new("GET", "/v2/_catalog")] {
        let answer = client.send(request).expect_error(401, "UNAUTHORIZED");
        let challenge = r#"Bearer realm="http://registry.test/token",service="payload-registry""#;
        assert_eq!(answer.must("WWW-Authenticate"), challenge);
    }
    let behind_tls = Request::new("GET", "/v2/").header("X-Forwarded-Proto", "https");
    let answer = client.send(behind_tls).expect(401);
    assert!(answer.must("WWW-Authenticate").starts_with(r#"Bearer realm="https://registry.test/token""#));
    for (request, scope) in [
        (Request::new("GET", "/v2/team-a/app/tags/list"), "pull"),
        (Request::new("HEAD", "/v2/team-a/app/manifests/latest"), "pull"),
        (Request::new("POST", "/v2/team-a/app/blobs/uploads/").body(""), "pull,push"),
        (Request::new("DELETE", "/v2/team-a/app/manifests/latest"), "delete"),
    ] {
        let answer = client.send(request).expect(401);
        let expected = format!(r#",scope="repository:team-a/app:{scope}""#);
        assert!(answer.must("WWW-Authenticate").ends_with(&expected), "{}", answer.summary());
    }
    // At the address where tokens are given, only Basic is left to be asked for.
    let answer = client.get("/token?service=payload-registry").expect_error(401, "UNAUTHORIZED");
    assert!(answer.must("WWW-Authenticate").starts_with("Basic "));
}

#[test]
fn credentials_that_are_not_good() {
    let server = server();
    let component = component(&server);
    let client = server.client();
    for _ in 0..3 {
        for who in [client.with_basic("token", "bad"), bearer(&client, "bad")] {
            who.get("/v2/").expect_error(401, "UNAUTHORIZED").must("WWW-Authenticate");
            who.get("/token").expect_error(401, "UNAUTHORIZED").must("WWW-Authenticate");
        }
        client.send(form("username=token&password=bad")).expect_error(401, "UNAUTHORIZED");
    }
    // For a while it is known that the token is bad.
    assert_eq!(component.reviewed(), ["bad"]);
    // What can be no token of the cluster's bothers nobody: users of the settings are checked here, and so are tokens that
    // say that this registry issued them.
    let ours = token(&client.with_basic("token", "ci").get("/token").expect(200));
    let (head, signature) = ours.rsplit_once('.').expect("a signature");
    let forged = format!("{head}.{}", signature.chars().rev().collect::<String>());
    let long = "x".repeat(20_000);
    for who in [
        client.with_basic("reader", "ci"),
        client.with_basic("reader", ""),
        client.with_basic("nobody", "ci"),
        client.with_basic("Token", "ci"),
        client.with_basic("", "ci"),
        client.with_basic(CI, "ci"),
        client.with_basic("token", ""),
        client.with_basic("token", "two words"),
        client.with_basic("token", "c\u{ef}"),
        client.with_basic("token", &long),
        bearer(&client, ""),
        bearer(&client, "two words"),
        bearer(&client, &forged),
        client.with_authorization("Digest ci"),
        client.with_authorization("ci"),
    ] {
        who.get("/v2/").expect_error(401, "UNAUTHORIZED").must("WWW-Authenticate");
        who.get("/token").expect_error(401, "UNAUTHORIZED").must("WWW-Authenticate");
    }
    let twice = Request::new("GET", "/v2/").header("Authorization", "Bearer ci");
    bearer(&client, "ci").send(twice.clone()).expect_error(401, "UNAUTHORIZED");
    bearer(&client, "ci")
        .send(Request { target: "/token".into(), ..twice })
        .expect_error(401, "UNAUTHORIZED");
    assert_eq!(component.reviewed(), ["bad", "ci"]);
    bearer(&client, &ours).get("/v2/").expect(200);
}

#[test]
fn where_nobody_else_logs_in_wrong_credentials_are_wrong_all_the_same() {
    for (config, status) in [("", 401), ("anonymous: read\n", 200)] {
        let server = Launch::new().config(format!("{KUBERNETES}{config}")).start();
        let component = component(&server);
        let client = server.client();
        client.get("/v2/").expect(401);
        client.get("/v2/_catalog").expect(status);
        client.get("/token").expect(status);
        for who in
            [client.with_basic("jane", "secret"), client.with_basic("token", "bad"), bearer(&client, "bad")]
        {
            who.get("/v2/_catalog").expect_error(401, "UNAUTHORIZED");
            who.get("/token").expect_error(401, "UNAUTHORIZED");
        }
        client.with_basic("token", "ci").get("/v2/").expect(200);
        assert_eq!(component.reviewed(), ["bad", "ci"]);
    }
}

#[test]
fn scopes_are_granted_as_far_as_the_rules_go() {
    let server = server();
    let component = component(&server);
    component.set_rules(vec![
        rule(CI, "team-a", &[interface::Verb::Get, interface::Verb::Create], &["app/**"]),
        group_rule("system:serviceaccounts", "team-b", &[interface::Verb::Get], &["shared"]),
    ]);
    let ci = server.client().with_basic("token", "ci");
    let target = [
        "repository:team-a/app:pull,push,delete",
        "repository:team-a/other:pull,push repository:team-b/shared:pull,push",
        "repository:team-a/app/x:*",
        "registry:catalog:*",
        "nonsense",
        "",
    ];
    let target = target.iter().fold("/token".to_owned(), |target, scope| with_query(&target, "scope", scope));
    let access = claims(&token(&ci.get(target).expect(200)))["access"].clone();
    let granted = |index: usize| (access[index]["name"].as_str(), access[index]["actions"].to_string());
    for (index, name, actions) in [
        (0, "team-a/app", r#"["pull","push"]"#),
        (1, "team-a/other", "[]"),
        (2, "team-b/shared", r#"["pull"]"#),
        (3, "team-a/app/x", r#"["pull","push"]"#),
        (4, "catalog", r#"["*"]"#),
    ] {
        assert_eq!(granted(index), (Some(name), actions.to_owned()), "{access}");
    }
    assert_eq!(access.as_array().map(Vec::len), Some(5), "{access}");
    // Without a scope it is a login, whatever the rules say.
    component.set_rules(Vec::new());
    let access = claims(&token(&ci.get("/token?service=payload-registry&account=token").expect(200)));
    assert_eq!(access["access"].as_array().map(Vec::len), Some(0));
    ci.get("/token?account=somebody").expect(400);
    ci.get(format!("/token?account={CI}")).expect(400);
}

#[test]
fn a_token_of_the_registry_ends_with_that_of_the_cluster() {
    let server = server();
    let mut component = Component::of(&server);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    component.review(move |token| {
        let expires_at = Some(match token {
            "short" => now + 100,
            "long" => now + 100_000,
            _ => now - 1,
        });
        Some(Verdict::User { name: "jane".to_owned(), uid: None, groups: Vec::new(), expires_at })
    });
    let get = |token| server.client().with_basic("token", token).get("/token");
    let short = get("short").expect(200);
    assert!(short.json()["expires_in"].as_u64().is_some_and(|seconds| seconds <= 100), "{}", short.summary());
    assert_eq!(claims(&token(&short))["exp"], now + 100);
    assert_eq!(get("long").expect(200).json()["expires_in"], 300);
    get("past").expect_error(401, "UNAUTHORIZED");
}

#[test]
fn a_hundred_logins_at_a_time_are_one_review() {
    let server = server();
    let mut component = Component::of(&server);
    let (release, released) = mpsc::channel();
    component.review(move |_| {
        released.recv().expect("the test says when");
        Some(user(CI, &[]))
    });
    let all_are_sent = Arc::new(Barrier::new(101));
    let logins: Vec<_> = (0..100)
        .map(|number| {
            let (mut connection, all_are_sent) = (server.connect(), all_are_sent.clone());
            let request = match number % 3 {
                0 => form("username=token&password=ci"),
                1 => Request::new("GET", "/v2/").header("Authorization", "Bearer ci"),
                _ => Request::new("GET", "/token").header("Authorization", "Basic dG9rZW46Y2k="),
            };
            thread::spawn(move || {
                connection.send(&request);
                all_are_sent.wait();
                connection.receive(&request.method).expect("an answer").status
            })
        })
        .collect();
    all_are_sent.wait();
    release.send(()).expect("the component waits");
    for login in logins {
        assert_eq!(login.join().expect("no panic"), 200);
    }
    assert_eq!(component.reviewed(), ["ci"]);
    let metrics = server.client().get("/metrics").expect(200);
    let metrics = String::from_utf8_lossy(&metrics.body).into_owned();
    assert!(metrics.contains("payload_registry_token_reviews_total{outcome=\"user\"} 1\n"), "{metrics}");
}

#[test]
fn nobody_who_could_review_is_no_verdict() {
    let server = server();
    let client = server.client();
    let who = [client.with_basic("token", "ci"), bearer(&client, "ci"), client.with_basic("token", "bad")];
    for who in &who {
        for target in ["/v2/", "/token", "/v2/team-a/app/tags/list"] {
            who.get(target).expect_error(503, "UNAVAILABLE").must("Retry-After");
        }
    }
    client.send(form("username=token&password=ci")).expect_error(503, "UNAVAILABLE");
    // That concerns nobody else.
    client.with_basic("reader", "secret1").get("/v2/").expect(200);
    client.get("/v2/").expect(401);
    // As soon as somebody reviews, it goes on.
    let component = component(&server);
    who[0].get("/v2/").expect(200);
    who[1].get("/token").expect(200);
    who[2].get("/v2/").expect(401);
    assert_eq!(component.reviewed(), ["ci", "bad"]);
}

#[test]
fn a_cluster_that_cannot_say_is_no_verdict() {
    let server = server();
    let mut component = Component::of(&server);
    let (cure, cured) = mpsc::channel::<()>();
    component.review(move |_| {
        Some(match cured.try_recv() {
            Ok(()) | Err(mpsc::TryRecvError::Disconnected) => user(CI, &[]),
            Err(mpsc::TryRecvError::Empty) => Verdict::Unavailable { message: "no route to host".to_owned() },
        })
    });
    let ci = server.client().with_basic("token", "ci");
    let refused = ci.get("/v2/").expect_error(503, "UNAVAILABLE");
    // What is wrong in the cluster is for its administrators.
    assert!(!refused.summary().contains("route to host"), "{}", refused.summary());
    ci.get("/token").expect_error(503, "UNAVAILABLE");
    drop(cure);
    eventually("the login works again", || (ci.get("/v2/").status == 200).then_some(()));
}

#[test]
fn a_review_that_is_never_answered_ends_in_an_answer() {
    let server = server();
    let mut component = Component::of(&server);
    component.review(|token| (token == "ci").then(|| user(CI, &[])));
    let client = server.client();
    let stuck: Vec<_> = (0..3)
        .map(|_| {
            let stuck = client.with_basic("token", "stuck");
            thread::spawn(move || stuck.get("/v2/"))
        })
        .collect();
    // It is in nobody's way.
    client.with_basic("token", "ci").get("/v2/").expect(200);
    for stuck in stuck {
        stuck.join().expect("no panic").expect_error(503, "UNAVAILABLE");
    }
    // Whoever took it may be gone, so it was given away again, and not once for each login.
    let taken = component.reviewed().iter().filter(|token| *token == "stuck").count();
    assert!((2..=3).contains(&taken), "{taken}");
}

#[test]
fn who_has_died_is_given_no_reviews() {
    for launch in [Launch::new(), Launch::new().without_io_uring()] {
        let server = launch.config(KUBERNETES).start();
        let component = Component::of(&server);
        component.set_rules(Vec::new());
        component.set_namespaces(&[], &[]);
        let private = server.private();
        let connect = || private.connect().expect("connects");
        let wait = || {
            let mut connection = connect();
            connection.send(&tests::private::request(&NextReviews { wait_seconds: 30 }));
            connection
        };
        // Once this is answered, somebody is there.
        assert!(next(&mut connect(), 0).is_empty());
        drop([wait(), wait(), wait(), wait()]);
        let mut alive = wait();
        let client = server.client().with_basic("token", "ci");
        let login = thread::spawn(move || client.get("/v2/"));
        // More often than there is time for if each of them had to be waited for.
        for _ in 0..4 {
            assert_eq!(receive_next(&mut alive).len(), 1);
            let successor = wait();
            drop(std::mem::replace(&mut alive, successor));
        }
        let reviews = receive_next(&mut alive);
        private.must(&AnswerReview { id: reviews[0].id, verdict: user(CI, &[]) });
        login.join().expect("no panic").expect(200);
    }
}

#[test]
fn who_has_logged_in_goes_on_while_nobody_reviews() {
    let server = server();
    let mut component = component(&server);
    let client = server.client();
    let ci = client.with_basic("token", "ci");
    let image = ci.push_image("team-a/app", "latest", "app");
    let ours = bearer(&client, &token(&ci.get("/token").expect(200)));
    component.leave();
    for who in [&ours, &ci] {
        who.assert_manifest("team-a/app", "latest", &image);
        who.push_image("team-a/other", "latest", "other");
    }
    // A restart forgets both: then nobody can be let in or turned away.
    let mut server = server;
    server.stop();
    server.restart();
    let client = server.client();
    client.with_basic("token", "ci").get("/v2/team-a/app/tags/list").expect_error(503, "UNAVAILABLE");
}

#[test]
fn no_token_is_in_the_log() {
    let secret = "a-very-secret-token";
    let server = Launch::new().config(format!("{KUBERNETES}log: {{level: trace}}\n")).start();
    let mut component = component(&server);
    let client = server.client();
    for who in [client.with_basic("token", secret), bearer(&client, secret)] {
        who.get("/v2/").expect(401);
        who.get("/token").expect(401);
    }
    client.send(form(&format!("username=token&password={secret}"))).expect(401);
    let ours = token(&client.with_basic("token", "ci").get("/token").expect(200));
    bearer(&client, &ours).push_image("team-a/app", "latest", "app");
    component.leave();
    let log = server.log();
    assert!(!log.contains(secret) && !log.contains(&ours), "{log}");
    // The audit log names the real identity, and where it is from.
    let audit = log.lines().find(|line| line.contains("push manifest")).expect("a line of the audit log");
    assert!(audit.contains(CI) && audit.contains("kubernetes"), "{audit}");
}

#[test]
fn a_client_that_others_wrote_logs_in() {
    let server = server();
    let component = component(&server);
    let dir = tempfile::tempdir().expect("a directory");
    let index = layout::write(&dir.path().join("in"), "v1", &["amd64"]);
    let skopeo = |args: &[&str]| {
        let mut command = Command::new(tool("skopeo", "skopeo"));
        let command = command.args(args).current_dir(dir.path()).env("HOME", dir.path());
        command.env("XDG_RUNTIME_DIR", dir.path()).output().expect("skopeo runs")
    };
    let address = server.address().to_string();
    let login = |password| {
        let auth_file = dir.path().join("auth.json").display().to_string();
        let authfile = ["--authfile", &auth_file, "--tls-verify=false", "--username", "token"];
        skopeo(&[&["login"], &authfile[..], &["--password", password, &address]].concat())
    };
    let remote = format!("docker://{address}/team-a/app:v1");
    let copy = |credentials: &[&str]| {
        let args = ["--insecure-policy", "copy", "--all", "--dest-tls-verify=false", "oci:in:v1", &remote];
        skopeo(&[&args[..], credentials].concat())
    };
    assert!(!login("bad").status.success() && !copy(&[]).status.success());
    let output = login("ci");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let output = copy(&["--dest-authfile", "auth.json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(copy(&["--dest-creds", "token:ci"]).status.success());
    assert!(!copy(&["--dest-creds", "token:bad"]).status.success());
    server.client().with_basic("token", "ci").assert_manifest("team-a/app", "v1", &index);
    assert_eq!(component.reviewed(), ["bad", "ci"]);
}
