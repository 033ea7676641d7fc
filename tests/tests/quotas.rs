//! Quotas of namespaces over the socket: what is refused, when, and what is left of it.

use std::thread;

use serde_json::json;
use tests::administer::{answer, on};
use tests::client::{Client, Way, location, with_query};
use tests::content::{EMPTY_CONFIG, Manifest, artifact, bytes, sha256};
use tests::http::{Request, Response};
use tests::server::{Launch, Server};

const KIB: usize = 1 << 10;
const QUOTA: usize = 1000 * KIB;

fn start() -> Server {
    let config = "quotas: {default: 1000KiB, namespaces: {free: none, none: 0, other: 3MiB}}\n\
                  gc: {untaggedAge: 0s, blobAge: 0s, toldAge: 0s}\n";
    Launch::new().config(config).start()
}

/// Fails the test unless this is the refusal of a namespace that has `used` bytes.
#[track_caller]
fn assert_exceeded(response: Response, used: usize) {
    let response = response.expect_error(413, "QUOTA_EXCEEDED");
    let error = &response.json()["errors"][0];
    assert_eq!(error["detail"]["used"], used, "{error}");
    assert!(error["message"].as_str().is_some_and(|message| message.contains("collect garbage")), "{error}");
}

fn head(client: &Client, repository: &str, digest: &str) -> u16 {
    client.head(format!("/v2/{repository}/blobs/{digest}")).status
}

/// Sends a request up to its body, which it asks for leave to send; the answer.
#[track_caller]
fn ask(server: &Server, request: Request, length: usize) -> Response {
    let request = request.header("Expect", "100-continue").header("Content-Length", length.to_string());
    let mut connection = server.connect();
    connection.write(request.head().as_bytes()).expect("the head is sent");
    connection.receive(&request.method).expect("a response")
}

#[test]
fn every_way_to_push_ends_at_the_quota() {
    let server = start();
    let client = server.client();
    for (n, way) in Way::ALL.into_iter().enumerate() {
        let repository = format!("ns{n}/app");
        let fits = bytes(&format!("{way:?}"), QUOTA);
        let (too_long, more) = (bytes(&format!("{way:?}"), QUOTA + 1), format!("more {way:?}").into_bytes());
        for content in [&too_long, &bytes("much more", 3 * QUOTA)] {
            let uploads = with_query(&format!("/v2/{repository}/blobs/uploads/"), "digest", &sha256(content));
            let pushed = match way {
                // Refused with an earlier PATCH, where that says its length.
                Way::Patches | Way::PatchesAndPut => continue,
                Way::Post => client.send(Request::new("POST", uploads).body(&content[..])),
                way => client.push_blob_by(way, &repository, content, &sha256(content)),
            };
            assert_exceeded(pushed, 0);
            assert_eq!(head(&client, &repository, &sha256(content)), 404);
        }
        client.push_blob_by(way, &repository, &fits, &sha256(&fits)).expect(201);
        client.assert_blob(&repository, &sha256(&fits), &fits);
        let pushed = match way {
            Way::Patches | Way::PatchesAndPut => client.patch(client.begin_upload(&repository), &more),
            way => client.push_blob_by(way, &repository, &more, &sha256(&more)),
        };
        assert_exceeded(pushed, QUOTA);
        // What it has already, it may push again, and to another of its repositories.
        let again = format!("ns{n}/again");
        if !matches!(way, Way::Patches | Way::PatchesAndPut) {
            client.push_blob_by(way, &again, &fits, &sha256(&fits)).expect(201);
        }
    }
}

#[test]
fn a_length_that_is_known_is_looked_at_before_the_bytes() {
    let server = start();
    let client = server.client();
    let digest = client.push_blob("team/app", &bytes("most", QUOTA - 10));
    let other = sha256(b"other");
    let used = QUOTA - 10;
    let uploads = "/v2/team/app/blobs/uploads/";
    assert_exceeded(ask(&server, Request::new("POST", with_query(uploads, "digest", &other)), 11), used);
    let session = client.begin_upload("team/app");
    assert_exceeded(ask(&server, Request::new("PATCH", &session), 11), used);
    assert_exceeded(ask(&server, Request::new("PUT", with_query(&session, "digest", &other)), 11), used);
    let session = location(&client.patch(&session, b"1234567").expect(202));
    // With what the session has.
    assert_exceeded(ask(&server, Request::new("PATCH", &session).header("Content-Range", "7-10"), 4), used);
    assert_exceeded(ask(&server, Request::new("PUT", with_query(&session, "digest", &other)), 4), used);
    assert_eq!(client.upload_size(&session), 7);
    client.put(with_query(&session, "digest", &sha256(b"1234567890")), b"890").expect(201);
    // Content that the namespace has is let in, which the digest says.
    let known = with_query("/v2/team/copy/blobs/uploads/", "digest", &digest);
    client.send(Request::new("POST", known).body(bytes("most", QUOTA - 10))).expect(201);
}

#[test]
fn the_session_of_a_refused_push_goes_on_when_there_is_room() {
    let server = start();
    let client = server.client();
    let first = client.push_blob("team/app", &bytes("first", 600 * KIB));
    for length in [100, 2000 * KIB] {
        let content = bytes("second", length.min(900 * KIB));
        let filler = client.push_blob("team/app", &bytes("filler", 400 * KIB));
        let session = client.begin_upload("team/app");
        let session =
            location(&client.send(Request::new("PATCH", session).chunked([&content[..]])).expect(202));
        let end = with_query(&session, "digest", &sha256(&content));
        for _ in 0..2 {
            assert_exceeded(client.put(&end, b""), QUOTA);
            assert_eq!(client.upload_size(&session), content.len());
        }
        for digest in [&first, &filler] {
            client.delete(format!("/v2/team/app/blobs/{digest}")).expect(202);
        }
        client.put(&end, b"").expect(201);
        client.assert_blob("team/app", &sha256(&content), &content);
        client.delete(format!("/v2/team/app/blobs/{}", sha256(&content))).expect(202);
        client.push_blob("team/app", &bytes("first", 600 * KIB));
    }
    let session = client.begin_upload("none/app");
    assert_exceeded(client.put(with_query(&session, "digest", &sha256(b"x")), b"x"), 0);
    client.get(&session).expect(204);
}

#[test]
fn content_counts_once_in_each_namespace() {
    let server = start();
    let client = server.client();
    let content = bytes("shared", 900 * KIB);
    let digest = client.push_blob("team/a", &content);
    let mount = |to: &str, from: &str| {
        let target = format!("/v2/{to}/blobs/uploads/?mount={digest}&from={from}");
        client.post(target)
    };
    mount("team/b", "team/a").expect(201);
    client.push_blob("team/c", &content);
    assert_exceeded(
        client.push_blob_by(Way::Post, "team/a", &bytes("x", 101 * KIB), &sha256(&bytes("x", 101 * KIB))),
        900 * KIB,
    );
    // Another namespace pays for it, too, and may have no room.
    client.push_blob("tight/app", &bytes("tight", 200 * KIB));
    assert_exceeded(mount("tight/other", "team/a"), 200 * KIB);
    assert_eq!(head(&client, "tight/other", &digest), 404);
    // What is not there is not refused, it begins an upload as ever.
    let nowhere = sha256(b"nowhere");
    client.post(format!("/v2/tight/other/blobs/uploads/?mount={nowhere}&from=team/a")).expect(202);
    mount("other/app", "team/a").expect(201);
    // The last one that goes takes the bytes with it.
    for repository in ["team/a", "team/b"] {
        client.delete(format!("/v2/{repository}/blobs/{digest}")).expect(202);
        assert_exceeded(mount("tight/other", "team/c"), 200 * KIB);
        let more = bytes(repository, 101 * KIB);
        assert_exceeded(client.push_blob_by(Way::PostPut, "team/d", &more, &sha256(&more)), 900 * KIB);
    }
    client.delete(format!("/v2/team/c/blobs/{digest}")).expect(202);
    client.push_blob("team/d", &bytes("room", QUOTA));
    // Namespaces without a limit, and with one of their own.
    client.push_blob("free/app", &bytes("free", 4 << 20));
    client.push_blob("other/app", &bytes("other", 2 << 20));
    assert_exceeded(
        client.push_blob_by(Way::Post, "single", &bytes("free", 4 << 20), &sha256(&bytes("free", 4 << 20))),
        0,
    );
}

#[test]
fn manifests_count_too_and_tags_do_not() {
    let server = start();
    let client = server.client();
    client.push_empty_config("team/app");
    let manifest = Manifest::new(&artifact("application/vnd.example", "first"));
    client.push_manifest("team/app", "v1", &manifest);
    let used = EMPTY_CONFIG.len() + manifest.bytes.len();
    client.push_blob("team/app", &bytes("rest", QUOTA - used));
    let another = Manifest::new(&artifact("application/vnd.example", "second"));
    assert_exceeded(client.put_manifest("team/app", "v2", &another), QUOTA);
    client.push_manifest("team/app", "v2", &manifest);
    client.push_empty_config("team/copy");
    client.push_manifest("team/copy", "v1", &manifest);
    assert_eq!(client.tags("team/app"), ["v1", "v2"]);
}

#[test]
fn of_pushes_at_the_same_time_only_as_many_are_let_in_as_fit() {
    let server = start();
    let content = |n: usize| bytes(&format!("one of many {n}"), 300 * KIB);
    let sessions: Vec<_> = (0..8)
        .map(|n| {
            let client = server.client();
            let session = client.begin_upload(&format!("team/app{n}"));
            let session = location(&client.patch(&session, &content(n)).expect(202));
            with_query(&session, "digest", &sha256(&content(n)))
        })
        .collect();
    let ends: Vec<_> = sessions
        .iter()
        .map(|end| (server.client(), end.clone()))
        .map(|(client, end)| thread::spawn(move || client.put(end, b"").expect_any(&[201, 413]).status))
        .collect();
    let statuses: Vec<u16> = ends.into_iter().map(|end| end.join().expect("no panic")).collect();
    let of_status = |wanted| (0..8).filter(|n| statuses[*n] == wanted).collect::<Vec<usize>>();
    let (stored, refused) = (of_status(201), of_status(413));
    assert_eq!(stored.len(), 3, "{statuses:?}");
    // Those that were refused at the last moment have lost nothing.
    let client = server.client();
    for n in stored {
        client.delete(format!("/v2/team/app{n}/blobs/{}", sha256(&content(n)))).expect(202);
    }
    for n in refused.into_iter().take(3) {
        client.put(&sessions[n], b"").expect(201);
        client.assert_blob(&format!("team/app{n}"), &sha256(&content(n)), &content(n));
    }
}

#[test]
fn a_collection_makes_room_and_a_restart_forgets_nothing() {
    let mut server = start();
    let client = server.client();
    let manifest = client.push_image("team/app", "v1", "an image");
    let rest = |client: &Client| {
        let usage = answer(&server, &["du"])["namespaces"][0].clone();
        assert_eq!((usage["name"].as_str(), usage["quota"].as_u64()), (Some("team"), Some(QUOTA as u64)));
        let used = usage["share"]["own"]["bytes"].as_u64().expect("bytes") as usize;
        client.push_blob("team/rest", &bytes("rest", QUOTA - used));
        used
    };
    let used = rest(&client);
    client.delete("/v2/team/app/manifests/v1").expect(202);
    let more = |client: &Client| client.push_blob_by(Way::PostPut, "team/more", b"more", &sha256(b"more"));
    assert_exceeded(more(&client), QUOTA);
    server.kill();
    server.restart();
    let client = server.client();
    assert_exceeded(more(&client), QUOTA);
    answer(&server, &["gc"]);
    client.get(format!("/v2/team/app/manifests/{}", manifest.digest())).expect(404);
    let fits = bytes("fits", QUOTA - used);
    // The blobs of team/rest went as well, as no manifest needs them.
    client.push_blob("team/app", &bytes("all", QUOTA - fits.len()));
    client.push_blob("team/app", &fits);
    assert_exceeded(more(&client), QUOTA);
    let table = on(&server, &["du"]).expect(0).stdout;
    assert!(table.contains("QUOTA") && table.contains("1000.0 KiB"), "{table}");
    on(&server, &["fsck"]).expect(0);
}

#[test]
fn immutable_tags_stay_where_they_are() {
    let rules = "gc: {untaggedAge: 0s, blobAge: 0s, toldAge: 0s, retention: [{repositories: 'team/**', keepLast: 1, immutable: ['v*']}]}\n";
    let server = Launch::new().config(rules).start();
    let client = server.client();
    let first = client.push_image("team/app", "v1", "first");
    let second = client.push_image("team/app", "latest", "second");
    let refused = client.put_manifest("team/app", "v1", &second).expect_error(409, "DENIED");
    assert_eq!(refused.json()["errors"][0]["detail"], json!({"current": first.digest()}));
    // One of several tags is enough, and then none is set.
    let target = format!("/v2/team/app/manifests/{}?tag=v2&tag=v1", second.digest());
    let put = Request::new("PUT", target).header("Content-Type", &second.media_type).body(&second.bytes[..]);
    client.send(put).expect_error(409, "DENIED");
    assert_eq!(client.tags("team/app"), ["latest", "v1"]);
    client.assert_manifest("team/app", "v1", &first);
    // The same again changes nothing, other tags move, and so does every tag elsewhere.
    client.push_manifest("team/app", "v1", &first);
    client.push_manifest("team/app", "latest", &first);
    for seed in ["a", "b"] {
        client.push_image("other/app", "v1", seed);
        client.push_image("team/app", seed, seed);
    }
    let report = answer(&server, &["gc"]);
    assert_eq!(report["removed"]["tags"]["count"], 2, "{report}");
    assert_eq!(client.tags("team/app"), ["b", "v1"]);
    // Who may delete may begin anew.
    client.delete("/v2/team/app/manifests/v1").expect(202);
    client.push_image("team/app", "v1", "third");
}

#[test]
fn quotas_that_make_no_sense_are_refused() {
    for (config, words) in [
        ("quotas: {default: lots}\n", &["lots", "none, or a number of bytes", "line 1"][..]),
        ("quotas: {namespaces: {a/b: 1GiB}}\n", &["a/b", "first segment"]),
        ("quotas: {namespace: {}}\n", &["namespace", "unknown"]),
    ] {
        Launch::new().config(config).refusal().mentions(words);
    }
}
