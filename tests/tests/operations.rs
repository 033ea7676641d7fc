//! Checks what those who run the registry rely on: health, metrics, an end that loses nothing, and refusals to start
//! that say why.

use std::collections::BTreeMap;
use std::net::TcpListener;

use tests::client::{location, with_query};
use tests::content::{bytes, sha256};
use tests::http::{Connection, Request, is_timeout};
use tests::server::{Launch, Server, Shared, run};
use tests::volume::Volume;

static SERVER: Shared = Shared::new(Launch::new);

#[test]
fn health_and_readiness_can_be_asked_for() {
    let server = SERVER.get();
    for target in ["/healthz", "/readyz"] {
        server.client().get(target).expect(200);
        assert!(server.client().head(target).expect(200).body.is_empty());
    }
}

/// The samples of a page of metrics by their names and labels; fails the test if the page is not in the format of
/// Prometheus, the older one or the newer (OpenMetrics).
fn samples(page: &str) -> BTreeMap<String, f64> {
    let mut types = BTreeMap::new();
    let mut samples = BTreeMap::new();
    for line in page.lines().filter(|line| *line != "# EOF") {
        if let Some(comment) = line.strip_prefix("# ") {
            let words: Vec<&str> = comment.splitn(3, ' ').collect();
            assert!(words.len() == 3 && ["HELP", "TYPE", "UNIT"].contains(&words[0]), "{line}");
            if words[0] == "TYPE" {
                assert!(
                    ["counter", "gauge", "histogram", "summary", "unknown", "untyped", "info"]
                        .contains(&words[2]),
                    "{line}"
                );
                assert!(types.insert(words[1].to_owned(), words[2].to_owned()).is_none(), "twice: {line}");
            }
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line:?}"));
        let (name, labels) = series.split_once('{').map_or((series, ""), |(name, rest)| (name, rest));
        assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b':'), "{line}");
        assert!(labels.is_empty() || labels.ends_with('}'), "{line}");
        let suffixes = ["_total", "_bucket", "_sum", "_count", "_info", "_created"];
        let base = suffixes.iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
        assert!(types.contains_key(name) || types.contains_key(base), "no type for {line}");
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
        assert!(samples.insert(series.to_owned(), value).is_none(), "twice: {line}");
    }
    samples
}

#[test]
fn metrics_are_in_the_format_of_prometheus_and_count() {
    let server = Server::start();
    let client = server.client();
    let read = || {
        let page = client.get("/metrics").expect(200);
        let media_type = page.must("Content-Type").split(';').next().unwrap_or_default();
        assert!(["text/plain", "application/openmetrics-text"].contains(&media_type), "{}", page.summary());
        samples(&String::from_utf8(page.body).expect("text"))
    };
    let before = read();
    assert!(!before.is_empty());
    client.push_image("operations/metrics", "latest", "metrics");
    client.get("/v2/operations/metrics/manifests/none").expect(404);
    let after = read();
    let counters = |name: &str| {
        name.split('{').next().is_some_and(|name| name.ends_with("_total") || name.ends_with("_count"))
    };
    for (name, value) in &before {
        if counters(name) {
            assert!(after.get(name).is_some_and(|later| later >= value), "{name} went down");
        }
    }
    let grown = after
        .iter()
        .filter(|(name, value)| counters(name) && before.get(*name).copied().unwrap_or(0.0) < **value);
    assert!(grown.count() > 0, "nothing was counted: {after:#?}");
    // Names of repositories are chosen by clients; as labels they would have no bound.
    assert!(after.keys().all(|name| !name.contains("operations/metrics")), "{after:#?}");
}

#[test]
fn the_end_waits_for_what_is_running() {
    let mut server = Server::start();
    let client = server.client();
    let (up, down) = (bytes("up", 1 << 20), bytes("down", 32 << 20));
    let digest = client.push_blob("operations/end", &down);
    let session = client.begin_upload("operations/end");

    let request = Request::new("PATCH", &session).header("Expect", "100-continue").body(&up[..]);
    let mut upload = server.connect();
    upload.write(request.head().as_bytes()).expect("the head is sent");
    assert_eq!(upload.receive_head().expect("an interim response").status, 100);
    upload.write(&up[..up.len() / 2]).expect("a half is sent");
    let mut download = server.connect();
    download.send(&Request::new("GET", format!("/v2/operations/end/blobs/{digest}")));
    assert_eq!(download.receive_head().expect("a response begins").status, 200);
    let mut idle = server.connect();
    idle.exchange(&Request::new("GET", "/v2/")).expect("a response").expect(200);

    server.ask_to_end();
    // It has heard: who does nothing is sent away.
    assert_eq!(idle.read_to_close(), b"");
    upload.write(&up[up.len() / 2..]).expect("the rest is sent");
    upload.receive("PATCH").expect("a response").expect(202);
    let mut pulled = vec![0; down.len()];
    download.read_exact(&mut pulled).expect("the whole blob");
    assert!(pulled == down);
    drop((upload, download));
    let status = server.wait();
    assert!(status.success(), "{status}");

    server.restart();
    let client = server.client();
    assert_eq!(client.upload_size(&session), up.len());
    client.put(with_query(&session, "digest", &sha256(&up)), b"").expect(201);
    client.assert_blob("operations/end", &sha256(&up), &up);
    client.assert_blob("operations/end", &digest, &down);
}

#[test]
fn while_it_ends_nobody_new_is_left_hanging() {
    // More threads than connections, so that some have nothing to wait for at the end.
    let mut server = Launch::new().config("threads: 6\nshutdown: {drain: 1h}\n").start();
    let session = server.client().begin_upload("operations/ending");
    let request = Request::new("PATCH", &session).header("Expect", "100-continue").body("0123456789");
    let mut upload = server.connect();
    upload.write(request.head().as_bytes()).expect("the head is sent");
    assert_eq!(upload.receive_head().expect("an interim response").status, 100);
    let mut idle = server.connect();
    idle.exchange(&Request::new("GET", "/v2/")).expect("a response").expect(200);
    server.ask_to_end();
    assert_eq!(idle.read_to_close(), b"");
    for _ in 0..16 {
        // Refused, closed or answered; so that a client knows that it has to go elsewhere.
        let Ok(mut connection) = Connection::try_open(server.address()) else { continue };
        if let Err(e) = connection.exchange(&Request::new("GET", "/v2/")) {
            assert!(!is_timeout(&e), "a new connection is neither refused nor answered");
        }
    }
    upload.write(b"0123456789").expect("the rest is sent");
    upload.receive("PATCH").expect("a response").expect(202);
    assert!(server.wait().success());
}

#[test]
fn what_does_not_end_in_time_is_cut_off() {
    let mut server = Launch::new().config("shutdown: {drain: 1s}\n").start();
    let session = server.client().begin_upload("operations/cut");
    let mut upload = server.connect();
    upload
        .write(&Request::new("PATCH", &session).header("Content-Length", "1000000").bytes())
        .expect("the head is sent");
    upload.write(b"a little of it").expect("a part is sent");
    let status = server.stop();
    assert!(status.success(), "{status}");
    // Its client is told so, or at least cut off.
    match upload.receive("PATCH") {
        Ok(response) => assert!(response.status >= 400, "{response:?}"),
        Err(e) => assert!(!is_timeout(&e), "the connection stays open"),
    }
    server.restart();
    assert!(server.client().upload_size(&session) <= 14);
}

#[test]
fn idle_connections_do_not_hold_up_the_end() {
    let mut server = Server::start();
    let mut connections: Vec<_> = (0..20).map(|_| server.connect()).collect();
    for connection in &mut connections[..10] {
        connection.exchange(&Request::new("GET", "/v2/")).expect("a response").expect(200);
    }
    let status = server.stop();
    assert!(status.success(), "{status}");
    for connection in &mut connections {
        assert_eq!(connection.read_to_close(), b"");
    }
}

#[test]
fn a_port_in_use_is_an_error_with_a_sentence() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address").to_string();
    Launch::new().listen(&address).refusal().mentions(&[&address, "in use"]);
}

#[test]
fn a_port_of_a_running_server_is_in_use() {
    let server = SERVER.get();
    let address = server.address().to_string();
    Launch::new().listen(&address).refusal().mentions(&[&address, "in use"]);
    server.assert_alive();
}

#[test]
fn a_second_process_on_the_same_root_is_refused() {
    let mut server = Server::start();
    let digest = server.client().push_blob("operations/lock", b"locked");
    let root = server.root().to_owned();
    Launch::new().root(&root).refusal().mentions(&[&root.to_string_lossy()]);
    server.client().assert_blob("operations/lock", &digest, b"locked");
    // A lock that its owner left behind is none.
    server.kill();
    server.restart();
    server.client().assert_blob("operations/lock", &digest, b"locked");
}

#[test]
fn a_root_that_cannot_be_written_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("file");
    std::fs::write(&file, "no directory").expect("a file");
    for root in [file.clone(), file.join("below")] {
        Launch::new().root(&root).refusal().mentions(&[&root.to_string_lossy()]);
    }
    let volume = Volume::read_only();
    for root in [volume.path().to_owned(), volume.path().join("below")] {
        Launch::new().root(&root).refusal().mentions(&[&root.to_string_lossy()]);
    }
}

#[test]
fn a_setting_that_is_none_is_named() {
    for (config, words) in [
        ("lisen: 127.0.0.1:1\n", &["lisen"][..]),
        ("http: {headTimout: 1s}\n", &["headTimout"]),
        ("users: {jane: {passwrd: x}}\n", &["passwrd"]),
        ("users: {jane: {projects: [{name: a, access: SOME}]}}\n", &["SOME"]),
        ("users: {jane: {passwordHash: plain}}\n", &["config.yaml"]),
        ("anonymous: perhaps\n", &["perhaps"]),
        ("limits: {manifestSize: -1}\n", &["-1"]),
        ("http: {headTimeout: soon}\n", &["soon"]),
        ("threads: 1\nthreads: 2\n", &["threads"]),
        ("a: b: c\n", &["config.yaml", "line 1"]),
    ] {
        Launch::new().config(config).refusal().mentions(words);
    }
    for (name, value) in [("PAYLOAD_REGISTRY_HTTP_HEAD_TIMOUT", "1s"), ("PAYLOAD_REGISTRY_THREADS", "many")] {
        Launch::new().env(name, value).refusal().mentions(&[name]);
    }
}

#[test]
fn a_configuration_can_be_checked_without_starting() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("good.yaml"), "http: {headTimeout: 7s}\n").expect("a file");
    std::fs::write(dir.path().join("bad.yaml"), "http: {headTimout: 7s}\n").expect("a file");
    let good = run(&["config", "check", "--config", "good.yaml"], dir.path());
    assert!(good.status.success(), "{}", good.output);
    assert!(good.output.contains("headTimeout") && good.output.contains("7s"), "{}", good.output);
    run(&["config", "check", "--config", "bad.yaml"], dir.path()).mentions(&["bad.yaml", "headTimout"]);
    run(&["config", "check", "--config", "none.yaml"], dir.path()).mentions(&["none.yaml"]);
    // Checking leaves nothing behind.
    assert_eq!(std::fs::read_dir(dir.path()).expect("a directory").count(), 2);
}

#[test]
fn secrets_are_not_shown() {
    let hash = "$2b$04$abcdefghijklmnopqrstuuCHf7DUmNUvMBdGje9JveOQe49tH5xFK";
    let dir = tempfile::tempdir().expect("a directory");
    let config = |rest: &str| format!("users: {{jane: {{passwordHash: \"{hash}\"}}}}\n{rest}\n");
    std::fs::write(dir.path().join("good.yaml"), config("")).expect("a file");
    std::fs::write(dir.path().join("bad.yaml"), config("x: y")).expect("a file");
    for name in ["good.yaml", "bad.yaml"] {
        let checked = run(&["config", "check", "--config", name], dir.path());
        assert!(!checked.output.contains(&hash[10..]), "{}", checked.output);
    }
}

#[test]
fn the_program_says_what_it_is() {
    let dir = tempfile::tempdir().expect("a directory");
    let version = run(&["--version"], dir.path());
    assert!(
        version.status.success() && version.output.starts_with("payload-registry "),
        "{}",
        version.output
    );
    let help = run(&["--help"], dir.path());
    assert!(help.status.success() && help.output.contains("serve"), "{}", help.output);
    run(&["no-such-command"], dir.path()).mentions(&["no-such-command"]);
}

#[test]
fn hashes_for_the_settings_can_be_made() {
    use std::io::Write;
    let mut hasher = tests::server::command()
        .args(["config", "hash-password", "--cost", "4"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("the program runs");
    hasher.stdin.take().expect("piped").write_all(b"from the tests\n").expect("the password is read");
    let output = hasher.wait_with_output().expect("the program ends");
    assert!(output.status.success());
    let hash = String::from_utf8(output.stdout).expect("text");
    let config = format!(
        "users: {{jane: {{passwordHash: \"{}\", projects: [{{name: a, access: FULL}}]}}}}\n",
        hash.trim()
    );
    let server = Launch::new().config(config).start();
    let jane = server.client().with_basic("jane", "from the tests");
    jane.push_blob("a/b", b"jane's");
    server.client().with_basic("jane", "from the test").get("/v2/").expect(401);
}

#[test]
fn the_root_is_all_that_the_registry_writes_to() {
    let mut server = Server::start();
    let client = server.client();
    let session = client.begin_upload("operations/root");
    let session = location(&client.patch(&session, &bytes("root", 100_000)).expect(202));
    client.push_image("operations/root", "latest", "root");
    client.delete(&session).expect(204);
    server.stop();
    let beside = server.root().parent().expect("the root has a parent");
    let names: Vec<_> = std::fs::read_dir(beside)
        .expect("a directory")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    assert_eq!(names, ["root"]);
}
