//! Checks that a restart, in order or by SIGKILL, loses nothing that was confirmed, and that uploads go on after it.

use serde_json::json;
use tests::client::{Way, location, range_up_to, with_query};
use tests::content::{DIGESTS, Manifest, OCI_INDEX, artifact, bytes, descriptor, index, sha256};
use tests::http::Request;
use tests::server::Server;

/// The two ways to end a server.
const ENDS: [fn(&mut Server); 2] = [|server| assert!(server.stop().success()), |server| server.kill()];

#[test]
fn an_upload_goes_on_after_a_restart() {
    for end in ENDS {
        for digest_of in DIGESTS {
            let mut server = Server::start();
            let content = bytes("goes on", 3_000_001);
            let digest = digest_of(&content);
            let algorithm = digest.split(':').next().expect("an algorithm");
            let uploads = with_query("/v2/restart/upload/blobs/uploads/", "digest-algorithm", algorithm);
            let mut session = location(&server.client().post(uploads).expect(202));
            session = location(&server.client().patch_range(&session, &content, 0..1).expect(202));
            // Small and large chunks, and ends that fit no block size.
            let mut size = 1;
            for next in [10, 4096, 5000, 1_000_000, 2_500_000, 3_000_001] {
                end(&mut server);
                server.restart();
                let client = server.client();
                let status = client.get(&session).expect(204);
                assert_eq!(status.must("Range"), range_up_to(size));
                session = location(&client.patch_range(location(&status), &content, size..next).expect(202));
                size = next;
            }
            end(&mut server);
            server.restart();
            let client = server.client();
            client.put(with_query(&session, "digest", &digest), b"").expect(201);
            client.assert_blob("restart/upload", &digest, &content);
        }
    }
}

#[test]
fn an_upload_that_was_only_begun_goes_on_after_an_orderly_restart() {
    let mut server = Server::start();
    let session = server.client().begin_upload("restart/begun");
    assert!(server.stop().success());
    server.restart();
    let client = server.client();
    let status = client.get(&session).expect(204);
    assert_eq!(status.must("Range"), range_up_to(0));
    client.put(with_query(&location(&status), "digest", &sha256(b"begun")), b"begun").expect(201);
    client.assert_blob("restart/begun", &sha256(b"begun"), b"begun");
}

#[test]
fn a_chunk_out_of_order_is_refused_after_a_restart_too() {
    for end in ENDS {
        let mut server = Server::start();
        let content = bytes("order", 10_000);
        let session = server.client().begin_upload("restart/order");
        let session = location(&server.client().patch_range(session, &content, 0..5000).expect(202));
        end(&mut server);
        server.restart();
        let client = server.client();
        client.patch_range(&session, &content, 0..5000).expect(416);
        client.patch_range(&session, &content, 6000..10_000).expect(416);
        assert_eq!(client.upload_size(&session), 5000);
        let put = Request::new("PUT", with_query(&session, "digest", &sha256(&content)));
        client.send(put.header("Content-Range", "5000-9999").body(&content[5000..])).expect(201);
        client.assert_blob("restart/order", &sha256(&content), &content);
    }
}

#[test]
fn a_wrong_digest_is_found_after_a_restart_too() {
    for end in ENDS {
        let mut server = Server::start();
        let content = bytes("wrong", 100_000);
        let session = server.client().begin_upload("restart/wrong");
        let session = location(&server.client().patch(session, &content).expect(202));
        end(&mut server);
        server.restart();
        let client = server.client();
        let wrong = sha256(&content[1..]);
        client.put(with_query(&session, "digest", &wrong), b"").expect_error(400, "DIGEST_INVALID");
        client.head(format!("/v2/restart/wrong/blobs/{wrong}")).expect(404);
    }
}

#[test]
fn a_cancelled_or_finished_upload_stays_ended() {
    for end in ENDS {
        let mut server = Server::start();
        let client = server.client();
        let content = bytes("ended", 50_000);
        let cancelled = location(&client.patch(client.begin_upload("restart/ended"), &content).expect(202));
        client.delete(&cancelled).expect(204);
        let finished = location(&client.patch(client.begin_upload("restart/ended"), &content).expect(202));
        client.put(with_query(&finished, "digest", &sha256(&content)), b"").expect(201);
        end(&mut server);
        server.restart();
        for session in [cancelled, finished] {
            server.client().get(session).expect_error(404, "BLOB_UPLOAD_UNKNOWN");
        }
        server.client().assert_blob("restart/ended", &sha256(&content), &content);
    }
}

#[test]
fn everything_that_was_confirmed_is_there_after_a_restart() {
    for end in ENDS {
        let mut server = Server::start();
        let client = server.client();
        let repository = "restart/content";
        let blobs: Vec<Vec<u8>> =
            [0, 1, 100, 4096, 70_000, 3_000_000].map(|length| bytes("kept", length)).into();
        for (blob, way) in blobs.iter().zip(Way::ALL) {
            for digest_of in DIGESTS {
                client.push_blob_by(way, repository, blob, &digest_of(blob)).expect(201);
            }
        }
        let uploads = with_query("/v2/restart/mounted/blobs/uploads/", "mount", &sha256(&blobs[4]));
        client.post(with_query(&uploads, "from", repository)).expect(201);
        let gone = client.push_blob(repository, b"deleted");
        client.delete(format!("/v2/{repository}/blobs/{gone}")).expect(202);

        client.push_empty_config(repository);
        let children = ["amd64", "arm64"].map(|tag| client.push_image(repository, tag, tag));
        let multi = Manifest::new(&index(&children));
        let reference = with_query(&with_query(&multi.digest(), "tag", "multi"), "tag", "latest");
        client.push_manifest(repository, &reference, &multi);
        client.push_manifest(repository, "moved", &children[0]);
        client.push_manifest(repository, "moved", &children[1]);
        client.push_manifest(repository, "deleted", &children[1]);
        client.delete(format!("/v2/{repository}/manifests/deleted")).expect(202);
        let mut referrer = artifact("a/b", "referrer");
        referrer["subject"] = multi.descriptor();
        let referrer = Manifest::new(&referrer);
        client.push_manifest(repository, &referrer.digest(), &referrer);
        let removed = Manifest::new(&artifact("a/b", "removed"));
        client.push_manifest(repository, "removed", &removed);
        client.delete(format!("/v2/{repository}/manifests/{}", removed.digest())).expect(202);

        for _ in 0..2 {
            end(&mut server);
            server.restart();
        }
        let client = server.client();
        for blob in &blobs {
            DIGESTS.iter().for_each(|digest_of| client.assert_blob(repository, &digest_of(blob), blob));
        }
        client.assert_blob("restart/mounted", &sha256(&blobs[4]), &blobs[4]);
        client.head(format!("/v2/{repository}/blobs/{gone}")).expect(404);
        for (tag, manifest) in [
            ("amd64", &children[0]),
            ("arm64", &children[1]),
            ("moved", &children[1]),
            ("multi", &multi),
            ("latest", &multi),
        ] {
            client.assert_manifest(repository, tag, manifest);
        }
        assert_eq!(client.tags(repository), ["amd64", "arm64", "latest", "moved", "multi"]);
        client.head(format!("/v2/{repository}/manifests/{}", removed.digest())).expect(404);
        let referrers = client.get(format!("/v2/{repository}/referrers/{}", multi.digest())).expect(200);
        assert_eq!(referrers.must("Content-Type"), OCI_INDEX);
        let mut entry = descriptor(&referrer.media_type, &referrer.bytes);
        entry["artifactType"] = "a/b".into();
        entry["annotations"] = json!({"org.example.marker": "referrer"});
        assert_eq!(referrers.json()["manifests"], json!([entry]));
        let catalog = client.get("/v2/_catalog").expect(200).json();
        assert_eq!(catalog["repositories"], json!([repository, "restart/mounted"]));
        // And the registry goes on as before.
        let image = client.push_image(repository, "after", "after");
        client.assert_manifest(repository, "after", &image);
    }
}

#[test]
fn what_a_killed_server_was_receiving_can_go_on() {
    let mut server = Server::start();
    let content = bytes("receiving", 4 << 20);
    let session = server.client().begin_upload("restart/receiving");
    let session = location(&server.client().patch_range(session, &content, 0..1 << 20).expect(202));
    let request = Request::new("PATCH", &session).header("Expect", "100-continue").body(&content[1 << 20..]);
    let mut connection = server.connect();
    connection.write(request.head().as_bytes()).expect("the head is sent");
    assert_eq!(connection.receive_head().expect("an interim response").status, 100);
    connection.write(&content[1 << 20..3 << 20]).expect("a part is sent");
    server.kill();
    server.restart();
    let client = server.client();
    let status = client.get(&session).expect(204);
    let size = client.upload_size(&session);
    // What was confirmed is there; of the rest, what the server says.
    assert!((1 << 20..=3 << 20).contains(&size), "{size}");
    let session = location(&client.patch_range(location(&status), &content, size..content.len()).expect(202));
    client.put(with_query(&session, "digest", &sha256(&content)), b"").expect(201);
    client.assert_blob("restart/receiving", &sha256(&content), &content);
}
