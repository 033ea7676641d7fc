//! Checks how administrators' commands find the registry and are let in: over the socket in the root or elsewhere, and, as a
//! Kubernetes Job does, over the address that serves images, with a token.

use std::fs;

use interface::{GetReadOnly, Rule, Subject, Verb};
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::administer::{Ended, anywhere, on};
use tests::authority::Authority;
use tests::client::Client;
use tests::component::{Component, KUBERNETES, rule, user};
use tests::http::{Request, Response};
use tests::server::{Launch, Server};
use tests::tls_proxy::TlsProxy;

/// The service account of the Job.
const JOB: &str = "system:serviceaccount:registry:gc";

fn administrators(names: &[&str]) -> Rule {
    let subjects = names.iter().map(|name| Subject::User((*name).to_owned())).collect();
    Rule { subjects, namespace: None, verbs: vec![Verb::Administer], patterns: Vec::new() }
}

/// A registry of a cluster in which the Job may administer, and others may not.
fn cluster() -> (Server, Component) {
    let server = Launch::new().config(KUBERNETES).start();
    let mut component = Component::of(&server);
    component.set_namespaces(&["team"], &[]);
    component.review(|token| {
        Some(match token {
            "job" => user(JOB, &["system:serviceaccounts"]),
            "jane" => user("jane", &["system:authenticated"]),
            "master" => user("root", &["system:masters"]),
            _ => interface::Verdict::Refused,
        })
    });
    (server, component)
}

fn call(client: &Client, path: &str, body: &Value) -> Response {
    let request =
        Request::new("POST", format!("/admin/v1/{path}")).header("Content-Type", "application/json");
    // Failures of these calls are no errors of the protocol's.
    client.send_call(request.body(body.to_string()))
}

fn bearer(server: &Server, token: &str) -> Client {
    server.client().with_authorization(&format!("Bearer {token}"))
}

#[test]
fn who_may_administer_by_token_and_who_may_not() {
    let (server, component) = cluster();
    let get = |client: &Client| call(client, "read-only/get", &json!({}));
    let unknown = get(&bearer(&server, "job")).expect(503);
    assert_eq!(unknown.json()["reason"], "unavailable", "no rules are known yet");
    component.set_rules(vec![
        administrators(&[JOB]),
        rule("jane", "team", &[Verb::Get, Verb::Administer], &[]),
        Rule { patterns: vec!["**".into()], ..administrators(&["jane"]) },
    ]);
    for client in
        [bearer(&server, "job"), server.client().with_basic("token", "job"), bearer(&server, "master")]
    {
        let state = get(&client).expect(200);
        assert_eq!(state.json(), json!({"hold": null, "runningWrites": 0}));
        assert_eq!(state.must("Cache-Control"), "no-store");
    }
    let denied = get(&bearer(&server, "jane")).expect(403).json();
    assert_eq!(denied["reason"], "denied");
    assert!(
        denied["message"].as_str().is_some_and(|text| text.starts_with("jane may not administer")),
        "{denied}"
    );
    for client in
        [bearer(&server, "unknown"), server.client(), server.client().with_basic("token", "unknown")]
    {
        assert!(get(&client).expect(401).must("WWW-Authenticate").starts_with("Bearer"));
    }
    let job = bearer(&server, "job");
    call(&job, "no/such/call", &json!({})).expect(404);
    call(&job, "read-only/get", &json!("now")).expect(400);
    call(&job, "uploads/cancel", &json!({"id": "x".repeat(100_000)})).expect(400);
    job.send_call(Request::new("GET", "/admin/v1/read-only/get")).expect(400);
    // Tags and rules are the component's, and nobody's else.
    call(&job, "tags/list", &json!({"caller": {"unrestricted": {"name": "jane"}}})).expect(404);
    call(&job, "rules/set", &json!({"rules": []})).expect(404);
}

#[test]
fn users_of_the_settings_administer_over_the_socket_only() {
    let users = r#"users: {jane: {passwordHash: "$2a$06$If6bvum7DFjUnE9p2uDeDu0YHzrHM6tf.iqN8.yx.jNN1ILEf7h0i", projects: [{name: a, access: FULL}]}}"#;
    let server = Launch::new().config(users).start();
    call(&server.client().with_basic("jane", "abc"), "read-only/get", &json!({})).expect(403);
    call(&server.client().with_basic("jane", "wrong"), "read-only/get", &json!({})).expect(401);
    call(&server.client(), "read-only/get", &json!({})).expect(403);
    call(&Server::start().client(), "read-only/get", &json!({})).expect(403);
    on(&server, &["read-only", "status"]).expect(0);
}

/// What a Job's container has: a token, and the address of the registry.
struct Job {
    dir: TempDir,
    address: String,
}

impl Job {
    fn new(server: &Server, token: &str) -> Self {
        let dir = TempDir::new().expect("a directory");
        fs::write(dir.path().join("token"), format!("{token}\n")).expect("a file");
        Self { dir, address: format!("http://{}", server.address()) }
    }

    fn run(&self, arguments: &[&str]) -> Ended {
        let token = self.dir.path().join("token");
        let to = ["--server", &self.address, "--token-file", token.to_str().expect("text")];
        anywhere(&[arguments, &to].concat())
    }
}

#[test]
fn a_job_collects_with_the_token_of_its_service_account() {
    let (server, component) = cluster();
    component.set_rules(vec![administrators(&[JOB])]);
    let job = Job::new(&server, "job");
    let report = job.run(&["gc", "--json"]).expect(0).json();
    assert_eq!((&report["dryRun"], &report["mode"]), (&json!(false), &json!("read-only")));
    // Lines, as there is no terminal.
    let ended = job.run(&["gc", "--dry-run"]).expect(0);
    assert!(ended.stdout.starts_with("Dry run of a collection of "), "{ended:?}");
    assert!(!ended.stderr.contains('\u{1b}') && !ended.stdout.contains('\u{1b}'), "{ended:?}");
    assert!(server.log().contains("start collection"), "{}", server.log());
    assert!(!server.log().contains("Bearer") && !ended.stderr.contains("job\n"));
    job.run(&["read-only", "on", "--reason", "a job"]).expect(0);
    assert_eq!(server.private().must(&GetReadOnly {}).hold.expect("a hold").reason, "a job");
    job.run(&["read-only", "off"]).expect(0);
    for command in
        [&["fsck"][..], &["scrub", "--rate", "0"], &["du"], &["uploads"], &["export"], &["gc", "--history"]]
    {
        job.run(command).expect(0);
    }
    // The token is exchanged while the container runs.
    fs::write(job.dir.path().join("token"), "unknown").expect("a file");
    job.run(&["gc"]).expect(5);
    fs::remove_file(job.dir.path().join("token")).expect("a file");
    let ended = job.run(&["gc"]).expect(5);
    assert!(ended.stderr.contains("cannot read the token"), "{ended:?}");
    Job::new(&server, "jane").run(&["gc"]).expect(5);
}

#[test]
fn the_way_can_be_https() {
    let (server, component) = cluster();
    component.set_rules(vec![administrators(&[JOB])]);
    let (authority, other) = (Authority::new("trusted"), Authority::new("another"));
    let proxy = TlsProxy::start(&authority.issue_server(&["localhost"]), server.address());
    let mut job = Job::new(&server, "job");
    let write = |name: &str, text: String| {
        let path = job.dir.path().join(name);
        fs::write(&path, text).expect("a file");
        path.to_str().expect("text").to_owned()
    };
    let (trusted, another) = (write("ca.pem", authority.pem()), write("other.pem", other.pem()));
    job.address = format!("https://localhost:{}", proxy.port());
    job.run(&["gc", "--ca-file", &trusted]).expect(0);
    let ended = job.run(&["gc", "--ca-file", &another]).expect(4);
    assert!(ended.stderr.contains("certificate"), "{ended:?}");
    job.run(&["gc"]).expect(4);
    // The certificate is for another name.
    job.address = format!("https://127.0.0.1:{}", proxy.port());
    job.run(&["gc", "--ca-file", &trusted]).expect(4);
}

#[test]
fn a_registry_that_is_not_there_is_not_waited_for() {
    let mut server = Server::start();
    let job = Job::new(&server, "job");
    assert!(server.stop().success());
    job.run(&["gc"]).expect(4);
    let ended = on(&server, &["read-only", "status"]).expect(4);
    assert!(ended.stderr.contains("no registry is running there"), "{ended:?}");
    server.restart();
    server.kill();
    on(&server, &["read-only", "status"]).expect(4);
    for wrong in ["registry:5000", "unix:", "ftp://registry", "http://registry/path"] {
        anywhere(&["gc", "--server", wrong]).expect(2);
    }
    anywhere(&["gc", "--server", "https://127.0.0.1:1", "--ca-file", "/nowhere.pem"]).expect(1);
    anywhere(&["gc", "--server", "http://127.0.0.1:1", "--offline"]).expect(2);
}

#[test]
fn the_socket_is_found_where_the_settings_have_it() {
    // Deeper than an address has room for.
    let dir = TempDir::new().expect("a directory");
    let deep = dir.path().join("d".repeat(100));
    fs::create_dir(&deep).expect("a directory");
    let socket = deep.join("elsewhere.sock");
    let config = format!("private: {{listen: 'unix:{}'}}\n", socket.display());
    let server = Launch::new().root(deep.join("root")).config(config.clone()).start();
    on(&server, &["read-only", "status"]).expect(4);
    let file = dir.path().join("config.yaml");
    fs::write(&file, config).expect("a file");
    on(&server, &["read-only", "status", "--config", file.to_str().expect("text")]).expect(0);
    let address = format!("unix:{}", socket.display());
    anywhere(&["read-only", "status", "--server", &address]).expect(0);
    let elsewhere = Launch::new().root(deep.join("other")).start();
    on(&elsewhere, &["read-only", "status"]).expect(0);
}
