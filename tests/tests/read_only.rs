//! Checks read-only mode: what is turned away, what goes on, and that it ends.

use std::thread;

use interface::{
    Caller, ClearReadOnly, DeleteAllTags, DeleteTag, GetReadOnly, ObjectName, Preconditions, Reason,
    SetReadOnly,
};
use serde_json::Value;
use tests::administer::{answer, begin, on};
use tests::client::{Client, location, put_manifest, with_query};
use tests::content::{bytes, sha256};
use tests::eventually;
use tests::http::Response;
use tests::server::{Launch, Server};

fn set(owner: &str, lasting_seconds: u64, drain_seconds: u64) -> SetReadOnly {
    SetReadOnly {
        owner: owner.into(),
        reason: "the disk is being moved".into(),
        lasting_seconds,
        drain_seconds,
    }
}

fn is_read_only(server: &Server) -> bool {
    server.private().must(&GetReadOnly {}).hold.is_some()
}

/// Fails the test unless the answer says that the registry is read-only, why and by whom.
#[track_caller]
fn assert_held(response: Response, owner: &str) {
    let response = response.expect(503);
    assert!(response.header("Retry-After").is_some());
    let error = &response.json()["errors"][0];
    let message = error["message"].as_str().expect("a message");
    assert!(message.contains("read-only") && message.contains("the disk is being moved"), "{message}");
    assert_eq!(error["detail"]["owner"], owner);
    assert!(error["detail"]["until"].as_str().is_some_and(|until| until.ends_with('Z')), "{error}");
}

#[test]
fn writes_are_turned_away_and_reads_do_not_notice() {
    let server = Server::start();
    let (client, private) = (server.client(), server.private());
    let manifest = client.push_image("ns/app", "v1", "read-only");
    let blob = client.push_blob("ns/app", b"some content");
    let session = client.begin_upload("ns/app");
    private.must(&set("jane", 600, 0));

    assert_held(client.post("/v2/ns/app/blobs/uploads/"), "jane");
    assert_held(client.post(with_query("/v2/ns/b/blobs/uploads/", "mount", &blob)), "jane");
    assert_held(client.patch(&session, b"more"), "jane");
    assert_held(client.put(with_query(&session, "digest", &sha256(b"")), b""), "jane");
    assert_held(client.put_manifest("ns/app", "v2", &manifest), "jane");
    assert_held(client.delete("/v2/ns/app/manifests/v1"), "jane");
    assert_held(client.delete(format!("/v2/ns/app/manifests/{}", manifest.digest())), "jane");
    assert_held(client.delete(format!("/v2/ns/app/blobs/{blob}")), "jane");
    assert_held(client.delete(&session), "jane");
    let tag = DeleteTag {
        caller: Caller::Unrestricted { name: "jane".into() },
        namespace: "ns".into(),
        name: ObjectName::new("app", "v1"),
        preconditions: Preconditions::default(),
        dry_run: false,
    };
    let failure = private.call(&tag).expect_err("read-only");
    assert_eq!(failure.reason, Reason::ReadOnly);
    assert!(failure.message.contains("by jane"), "{failure:?}");
    let caller = Caller::Unrestricted { name: "jane".into() };
    let all = DeleteAllTags { caller, namespace: "ns".into(), names: None, dry_run: false };
    assert_eq!(private.call(&all).expect_err("read-only").reason, Reason::ReadOnly);

    client.assert_manifest("ns/app", "v1", &manifest);
    client.assert_blob("ns/app", &blob, b"some content");
    assert_eq!(client.tags("ns/app"), ["v1"]);
    client.get(&session).expect(204);
    let ready = client.get("/readyz").expect(200).json();
    assert_eq!((&ready["ready"], &ready["acceptsPushes"]), (&Value::from(true), &Value::from(false)));
    assert_eq!(ready["readOnly"]["owner"], "jane");
    let metrics = String::from_utf8(client.get("/metrics").expect(200).body).expect("text");
    assert!(metrics.contains("payload_registry_read_only 1\n"), "{metrics}");

    private.must(&ClearReadOnly { owner: Some("jane".into()) });
    client.push_manifest("ns/app", "v2", &manifest);
    client.patch(&session, b"more").expect(202);
    client.delete("/v2/ns/app/manifests/v1").expect(202);
}

#[test]
fn the_command_says_who_why_and_until_when() {
    let server = Server::start();
    assert_eq!(answer(&server, &["read-only", "status"])["hold"], Value::Null);
    let on_by =
        |owner: &str| on(&server, &["read-only", "on", "--reason", "a test", "--owner", owner, "--json"]);
    let state = on_by("jane").expect(0).json();
    assert_eq!((&state["hold"]["owner"], &state["hold"]["reason"]), (&"jane".into(), &"a test".into()));
    assert_eq!(answer(&server, &["read-only", "status"]), state);
    let text = on(&server, &["read-only", "status"]).expect(0).stdout;
    assert!(text.contains("read-only: a test (by jane"), "{text}");
    // Somebody else cannot take it, nor end it, but by force.
    let refused = on_by("john").expect(3);
    assert!(
        refused.stdout.is_empty() && refused.stderr.contains("jane keeps the registry read-only"),
        "{refused:?}"
    );
    on(&server, &["read-only", "off"]).expect(3);
    assert!(is_read_only(&server));
    // The same owner extends it.
    let extended =
        answer(&server, &["read-only", "on", "--reason", "longer", "--owner", "jane", "--for", "2h"]);
    assert_eq!(extended["hold"]["since"], state["hold"]["since"]);
    assert!(extended["hold"]["until"].as_str() > state["hold"]["until"].as_str());
    on(&server, &["read-only", "off", "--owner", "jane"]).expect(0);
    assert!(!is_read_only(&server));
    on_by("jane").expect(0);
    on(&server, &["read-only", "off", "--force"]).expect(0);
    assert!(!is_read_only(&server));
    on(&server, &["read-only", "off"]).expect(0);
    for wrong in [
        &["read-only", "on"][..],
        &["read-only", "on", "--reason", "x", "--for", "8d"],
        &["read-only", "on", "--reason", "x", "--for", "soon"],
        &["read-only"],
    ] {
        on(&server, wrong).expect(2);
    }
    for wrong in [
        set("", 60, 0),
        set("gc", 60, 0),
        set("a\nb", 60, 0),
        set("a", 0, 0),
        set("a", 60, 61),
        set("a", 604_801, 0),
    ] {
        assert_eq!(server.private().call(&wrong).expect_err("wrong").reason, Reason::Invalid, "{wrong:?}");
    }
    assert!(!is_read_only(&server));
}

/// Begins a PATCH in chunked coding, and sends the first part of its body.
fn begin_patch(server: &Server, session: &str, part: &[u8]) -> tests::http::Connection {
    let mut connection = server.connect();
    let head =
        format!("PATCH {session} HTTP/1.1\r\nHost: registry.test\r\nTransfer-Encoding: chunked\r\n\r\n");
    connection.write(head.as_bytes()).expect("sends");
    send_chunk(&mut connection, part);
    // The server has begun with it.
    let id = session.rsplit_once('/').expect("a path").1;
    eventually("a running upload", || {
        let uploads = answer(server, &["uploads"]);
        let all = uploads.as_array().expect("a list");
        all.iter().any(|upload| upload["id"] == id && upload["isBusy"] == true).then_some(())
    });
    connection
}

fn send_chunk(connection: &mut tests::http::Connection, part: &[u8]) {
    connection.write(format!("{:x}\r\n", part.len()).as_bytes()).expect("sends");
    connection.write(part).expect("sends");
    connection.write(b"\r\n").expect("sends");
}

fn assert_finished(client: &Client, repository: &str, session: &str, content: &[u8]) {
    let mut session = session.to_owned();
    let size = client.upload_size(&session);
    if size < content.len() {
        session = location(&client.patch_range(session, content, size..content.len()).expect(202));
    }
    client.put(with_query(&session, "digest", &sha256(content)), b"").expect(201);
    client.assert_blob(repository, &sha256(content), content);
}

#[test]
fn a_running_upload_is_refused_between_chunks_and_goes_on_later() {
    let server = Server::start();
    let client = server.client();
    let content = bytes("drained", 3_000_000);
    let session = client.begin_upload("ns/app");
    let mut connection = begin_patch(&server, &session, &content[..1_000_000]);
    server.private().must(&set("jane", 600, 0));
    send_chunk(&mut connection, &content[1_000_000..2_500_000]);
    let _ = connection.write(b"0\r\n\r\n");
    assert_held(connection.receive("PATCH").expect("an answer"), "jane");
    // What came is kept: at least what was there before.
    let size = client.upload_size(&session);
    assert!((1..=2_500_000).contains(&size), "{size}");
    assert_held(client.patch_range(&session, &content, size..content.len()), "jane");
    server.private().must(&ClearReadOnly { owner: None });
    assert_finished(&client, "ns/app", &session, &content);
}

#[test]
fn draining_lasts_until_the_last_write_has_ended() {
    let server = Server::start();
    let client = server.client();
    let content = bytes("draining", 200_000);
    let session = client.begin_upload("ns/app");
    let mut connection = begin_patch(&server, &session, &content[..100_000]);
    // Longer than the test would wait.
    let holder = begin(&server, &["read-only", "on", "--reason", "a test", "--drain", "50m", "--json"]);
    eventually("no new writes", || is_read_only(&server).then_some(()));
    client.post("/v2/ns/app/blobs/uploads/").expect(503);
    send_chunk(&mut connection, &content[100_000..]);
    connection.write(b"0\r\n\r\n").expect("sends");
    connection.receive("PATCH").expect("an answer").expect(202);
    let state = holder.end().expect(0).json();
    assert_eq!(state["runningWrites"], 0);
    on(&server, &["read-only", "off"]).expect(0);
    assert_finished(&client, "ns/app", &session, &content);
}

#[test]
fn it_ends_by_itself_and_a_command_that_was_killed_leaves_nothing() {
    let server = Server::start();
    let client = server.client();
    let session = client.begin_upload("ns/app");
    let connection = begin_patch(&server, &session, b"begun");
    // The command waits for the draining when it is killed.
    let holder = begin(&server, &["read-only", "on", "--reason", "a test", "--for", "2s", "--drain", "2s"]);
    eventually("no new writes", || is_read_only(&server).then_some(()));
    drop(holder);
    eventually("writes again", || (client.post("/v2/ns/app/blobs/uploads/").status == 202).then_some(()));
    assert!(!is_read_only(&server));
    eventually("a line in the log", || {
        server.log().contains("nobody ended the read-only mode in time").then_some(())
    });
    drop(connection);
}

#[test]
fn it_survives_the_end_of_the_process() {
    let mut server = Server::start();
    let manifest = server.client().push_image("ns/app", "v1", "killed");
    server.private().must(&set("jane", 600, 0));
    let ends: [fn(&mut Server); 2] = [Server::kill, |server| assert!(server.stop().success())];
    for end in ends {
        end(&mut server);
        server.restart();
        assert_held(server.client().put_manifest("ns/app", "v2", &manifest), "jane");
        server.client().assert_manifest("ns/app", "v1", &manifest);
    }
    server.private().must(&ClearReadOnly { owner: None });
    server.client().push_manifest("ns/app", "v2", &manifest);
    server.kill();
    server.restart();
    assert!(!is_read_only(&server));
}

#[test]
fn what_is_answered_before_a_hold_began_is_in_it() {
    let server = Launch::new().config("threads: 2\n").start();
    let client = server.client();
    let manifest = client.push_image("ns/app", "v0", "storm");
    thread::scope(|scope| {
        let pushers: Vec<_> = (0..4)
            .map(|pusher| {
                let (client, manifest) = (&client, &manifest);
                scope.spawn(move || {
                    let mut pushed = vec!["v0".to_owned()];
                    for number in 0.. {
                        let tag = format!("p{pusher}-{number}");
                        match client.send(put_manifest("ns/app", &tag, manifest)).status {
                            201 => pushed.push(tag),
                            503 => return pushed,
                            status => panic!("{status}"),
                        }
                    }
                    unreachable!()
                })
            })
            .collect();
        eventually("some pushes", || (client.tags("ns/app").len() > 20).then_some(()));
        server.private().must(&set("jane", 600, 60));
        let during = client.tags("ns/app");
        let mut expected: Vec<String> =
            pushers.into_iter().flat_map(|pusher| pusher.join().expect("no panic")).collect();
        expected.sort();
        expected.dedup();
        assert_eq!(during, expected, "what was there when the call was answered is all that there is");
        assert_eq!(client.tags("ns/app"), expected);
    });
}
