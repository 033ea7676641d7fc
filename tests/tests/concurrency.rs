//! Checks that clients who do things at the same time get answers that fit some order of events, and that content is
//! never mixed up.

use std::sync::Barrier;
use std::thread;

use tests::client::{Client, Way, location, with_query};
use tests::content::{Manifest, OCI_LAYER, artifact, bytes, descriptor, image, sha256, sha512};
use tests::eventually;
use tests::http::Request;
use tests::server::{Launch, Server, Shared};

static SERVER: Shared = Shared::new(Launch::new);

/// Runs `work` on that many threads, which all begin at the same time, and gives what they return.
fn at_once<T: Send>(threads: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let start = Barrier::new(threads);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|number| {
                let (start, work) = (&start, &work);
                scope.spawn(move || {
                    start.wait();
                    work(number)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a thread that succeeds")).collect()
    })
}

#[test]
fn the_same_blob_can_be_pushed_by_many_at_once() {
    let server = SERVER.get();
    let client = server.client();
    for (length, repositories) in [(100, 1), (3 << 20, 1), (100_000, 3)] {
        let content = bytes(&format!("same {length}"), length);
        at_once(8, |number| {
            let way = Way::ALL[number % Way::ALL.len()];
            let digest = if number % 4 == 3 { sha512(&content) } else { sha256(&content) };
            let repository = format!("concurrency/same{}", number % repositories);
            client.push_blob_by(way, &repository, &content, &digest).expect(201);
            client.assert_blob(&repository, &digest, &content);
        });
    }
}

#[test]
fn the_same_blob_is_kept_once() {
    const LENGTH: usize = 12 << 20;
    let server = Server::start();
    let client = server.client();
    let before = server.disk_usage();
    let content = bytes("kept once", LENGTH);
    at_once(6, |number| {
        let repository = format!("concurrency/once{}", number % 3);
        client.push_blob_by(Way::ALL[number], &repository, &content, &sha256(&content)).expect(201);
    });
    client.push_blob("concurrency/later", &content);
    eventually("the other copies go", || (server.disk_usage() < before + 2 * LENGTH as u64).then_some(()));
    for number in 0..3 {
        client.assert_blob(&format!("concurrency/once{number}"), &sha256(&content), &content);
    }
}

#[test]
fn of_two_chunks_for_one_place_in_a_session_one_wins() {
    let server = SERVER.get();
    let client = server.client();
    for round in 0..10 {
        let contents = ["a", "b"].map(|side| bytes(&format!("{side}{round}"), 300_000));
        let session = client.begin_upload("concurrency/session");
        let statuses =
            at_once(2, |number| client.patch_range(&session, &contents[number], 0..300_000).status);
        // With ranges, the second one is out of place or comes while the session is busy.
        let winner = match statuses[..] {
            [202, 400..500] => 0,
            [400..500, 202] => 1,
            _ => panic!("{statuses:?}"),
        };
        assert_eq!(client.upload_size(&session), 300_000);
        let (right, wrong) = (sha256(&contents[winner]), sha256(&contents[1 - winner]));
        client.put(with_query(&session, "digest", &right), b"").expect(201);
        client.assert_blob("concurrency/session", &right, &contents[winner]);
        client.head(format!("/v2/concurrency/session/blobs/{wrong}")).expect(404);
    }
}

#[test]
fn a_session_that_is_busy_takes_no_second_chunk_and_stays_consistent() {
    let server = SERVER.get();
    let client = server.client();
    let content = bytes("busy", 200_000);
    let session = client.begin_upload("concurrency/busy");
    let request = Request::new("PATCH", &session).header("Expect", "100-continue").body(&content[..]);
    let mut first = server.connect();
    first.write(request.head().as_bytes()).expect("the head is sent");
    assert_eq!(first.receive_head().expect("an interim response").status, 100);
    first.write(&content[..100_000]).expect("a half is sent");
    // The first one is running now, so a second one has to be refused, whatever it brings.
    client.patch(&session, b"intruder").expect_any(&[409, 416]);
    client.patch_range(&session, &content, 0..50_000).expect_any(&[409, 416]);
    client
        .put(with_query(&session, "digest", &sha256(b"intruder")), b"intruder")
        .expect_any(&[400, 409, 416]);
    first.write(&content[100_000..]).expect("the rest is sent");
    let session = location(&first.receive("PATCH").expect("a response").expect(202));
    assert_eq!(client.upload_size(&session), content.len());
    client.put(with_query(&session, "digest", &sha256(&content)), b"").expect(201);
    client.assert_blob("concurrency/busy", &sha256(&content), &content);
    client.head(format!("/v2/concurrency/busy/blobs/{}", sha256(b"intruder"))).expect(404);
}

#[test]
fn a_session_can_be_closed_only_once() {
    let server = SERVER.get();
    let client = server.client();
    for round in 0..10 {
        let content = bytes(&format!("close {round}"), 50_000);
        let session = location(&client.patch(client.begin_upload("concurrency/close"), &content).expect(202));
        let close = with_query(&session, "digest", &sha256(&content));
        let statuses = at_once(4, |_| client.put(&close, b"").status);
        assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 1, "{statuses:?}");
        assert!(statuses.iter().all(|status| matches!(status, 201 | 404 | 409 | 416)), "{statuses:?}");
        client.assert_blob("concurrency/close", &sha256(&content), &content);
    }
}

#[test]
fn cancelling_and_closing_at_once_has_one_outcome() {
    let server = SERVER.get();
    let client = server.client();
    for round in 0..10 {
        let content = bytes(&format!("cancel {round}"), 50_000);
        let digest = sha256(&content);
        let session =
            location(&client.patch(client.begin_upload("concurrency/cancel"), &content).expect(202));
        let close = with_query(&session, "digest", &digest);
        let statuses = at_once(2, |number| match number {
            0 => client.put(&close, b"").status,
            _ => client.delete(&session).status,
        });
        match statuses[..] {
            [201, 400..500] => client.assert_blob("concurrency/cancel", &digest, &content),
            [400..500, 204] => {
                drop(client.head(format!("/v2/concurrency/cancel/blobs/{digest}")).expect(404))
            }
            _ => panic!("{statuses:?}"),
        }
        client.get(&session).expect(404);
    }
}

#[test]
fn cancelling_an_upload_that_is_running_has_one_outcome() {
    let server = SERVER.get();
    let client = server.client();
    let content = bytes("cancelled while running", 200_000);
    let session = client.begin_upload("concurrency/running");
    let request = Request::new("PATCH", &session).header("Expect", "100-continue").body(&content[..]);
    let mut upload = server.connect();
    upload.write(request.head().as_bytes()).expect("the head is sent");
    assert_eq!(upload.receive_head().expect("an interim response").status, 100);
    upload.write(&content[..100_000]).expect("a half is sent");
    let cancelled = client.delete(&session).expect_any(&[204, 409]).status == 204;
    let _ = upload.write(&content[100_000..]);
    let patched = upload.receive("PATCH").is_ok_and(|response| response.status == 202);
    assert_eq!(patched, !cancelled);
    client.get(&session).expect(if cancelled { 404 } else { 204 });
}

#[test]
fn deleting_a_tag_against_pushing_it_leaves_one_or_the_other() {
    let server = SERVER.get();
    let client = server.client();
    let repository = "concurrency/tag";
    client.push_empty_config(repository);
    let manifests: Vec<Manifest> = (0..2).map(|n| Manifest::new(&artifact("a/b", &n.to_string()))).collect();
    for _ in 0..20 {
        client.push_manifest(repository, "tag", &manifests[0]);
        let statuses = at_once(2, |number| match number {
            0 => client.put_manifest(repository, "tag", &manifests[1]).status,
            _ => client.delete(format!("/v2/{repository}/manifests/tag")).status,
        });
        assert_eq!(statuses, [201, 202]);
        let left = client.get(format!("/v2/{repository}/manifests/tag")).expect_any(&[200, 404]);
        if left.status == 200 {
            assert_eq!(left.body, manifests[1].bytes, "the delete came first, so the push is what stays");
        }
        let tags = client.tags(repository);
        assert_eq!(tags.contains(&"tag".to_owned()), left.status == 200, "{tags:?}");
        client.assert_manifest(repository, &manifests[1].digest(), &manifests[1]);
    }
}

#[test]
fn a_manifest_pushed_while_its_blob_is_deleted_is_refused_or_complete() {
    let server = SERVER.get();
    let client = server.client();
    let repository = "concurrency/blob";
    client.push_empty_config(repository);
    let config = descriptor(tests::content::OCI_EMPTY, tests::content::EMPTY_CONFIG);
    for round in 0..20 {
        let layer = bytes(&format!("layer {round}"), 5000);
        let digest = client.push_blob(repository, &layer);
        let manifest = Manifest::new(&image(config.clone(), vec![descriptor(OCI_LAYER, &layer)]));
        let statuses = at_once(2, |number| match number {
            0 => client.put_manifest(repository, "latest", &manifest).status,
            _ => client.delete(format!("/v2/{repository}/blobs/{digest}")).status,
        });
        match statuses[..] {
            // The push came first, and then somebody deleted the layer, as asked.
            [201, 202] => client.assert_manifest(repository, "latest", &manifest),
            // The delete came first, or was refused because the layer is in use.
            [404, 202] => {
                drop(client.get(format!("/v2/{repository}/manifests/{}", manifest.digest())).expect(404))
            }
            [201, 400..500] => client.assert_blob(repository, &digest, &layer),
            _ => panic!("{statuses:?}"),
        }
    }
}

#[test]
fn what_is_deleted_and_pushed_again_at_once_can_be_pulled_if_it_is_there() {
    let server = SERVER.get();
    let client = server.client();
    let content = bytes("again and again", 50_000);
    let digest = sha256(&content);
    let target = format!("/v2/concurrency/again/blobs/{digest}");
    at_once(6, |number| {
        for _ in 0..10 {
            match number % 3 {
                0 => drop(
                    client.push_blob_by(Way::PostPut, "concurrency/again", &content, &digest).expect(201),
                ),
                1 => drop(client.delete(&target).expect_any(&[202, 404])),
                _ => {
                    let pulled = client.get(&target).expect_any(&[200, 404]);
                    assert!(pulled.status == 404 || pulled.body == content);
                }
            }
        }
    });
    client.push_blob("concurrency/again", &content);
    client.assert_blob("concurrency/again", &digest, &content);
}

#[test]
fn a_blob_being_read_can_be_deleted() {
    let server = SERVER.get();
    let client = server.client();
    let content = bytes("read and deleted", 16 << 20);
    let digest = client.push_blob("concurrency/read", &content);
    let target = format!("/v2/concurrency/read/blobs/{digest}");
    let mut reader = server.connect();
    reader.send(&Request::new("GET", &target));
    assert_eq!(reader.receive_head().expect("a response begins").status, 200);
    client.delete(&target).expect(202);
    client.head(&target).expect(404);
    // Who began to read before may read to the end.
    let mut pulled = vec![0; content.len()];
    reader.read_exact(&mut pulled).expect("the whole blob");
    assert!(pulled == content);
}

#[test]
fn many_pushes_and_pulls_at_once_get_what_they_asked_for() {
    let server = SERVER.get();
    let client = server.client();
    let shared = bytes("shared by all", 2 << 20);
    let shared_digest = client.push_blob("concurrency/mixed", &shared);
    at_once(64, |number| match number % 4 {
        0 => {
            let image =
                client.push_image("concurrency/mixed", &format!("t{number}"), &format!("mixed {number}"));
            client.assert_manifest("concurrency/mixed", &format!("t{number}"), &image);
        }
        1 => {
            let content = bytes(&format!("mixed {number}"), 300_000 + number);
            let way = Way::ALL[number / 4 % Way::ALL.len()];
            client.push_blob_by(way, "concurrency/mixed", &content, &sha256(&content)).expect(201);
            client.assert_blob("concurrency/mixed", &sha256(&content), &content);
        }
        2 => client.assert_blob("concurrency/mixed", &shared_digest, &shared),
        _ => {
            let range = format!("bytes={}-{}", number * 1000, number * 20_000);
            let target = format!("/v2/concurrency/mixed/blobs/{shared_digest}");
            let part = client.send(Request::new("GET", target).header("Range", range)).expect(206);
            assert!(part.body == shared[number * 1000..=number * 20_000]);
        }
    });
    assert_eq!(client.tags("concurrency/mixed").len(), 16);
    server.assert_alive();
}

#[test]
fn tags_pushed_at_once_are_all_there() {
    let server = SERVER.get();
    let client: Client = server.client();
    client.push_empty_config("concurrency/tags");
    at_once(8, |number| {
        for round in 0..8 {
            let manifest = Manifest::new(&artifact("a/b", &format!("{number}/{round}")));
            client.push_manifest("concurrency/tags", &format!("t{number}-{round}"), &manifest);
        }
    });
    assert_eq!(client.tags("concurrency/tags").len(), 64);
}
