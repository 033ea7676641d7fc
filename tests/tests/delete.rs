//! Checks that a delete removes what it names, at once, and nothing else.

use tests::client::{Way, with_query};
use tests::content::{DIGESTS, Manifest, artifact, bytes, index, sha256, sha512};
use tests::server::{Launch, Shared};

static SERVER: Shared = Shared::new(Launch::new);

#[test]
fn deleting_a_tag_removes_that_tag_alone() {
    let server = SERVER.get();
    let client = server.client();
    let image = client.push_image("delete/tag", "one", "delete a tag");
    client.push_manifest("delete/tag", "two", &image);
    client.delete("/v2/delete/tag/manifests/one").expect(202);
    client.head("/v2/delete/tag/manifests/one").expect(404);
    client.get("/v2/delete/tag/manifests/one").expect_error(404, "MANIFEST_UNKNOWN");
    assert_eq!(client.tags("delete/tag"), ["two"]);
    client.assert_manifest("delete/tag", "two", &image);
    client.assert_manifest("delete/tag", &image.digest(), &image);
    client.delete("/v2/delete/tag/manifests/one").expect_error(404, "MANIFEST_UNKNOWN");
}

#[test]
fn the_last_tag_of_a_manifest_can_go_without_it() {
    let server = SERVER.get();
    let client = server.client();
    let image = client.push_image("delete/last", "only", "delete the last tag");
    client.delete("/v2/delete/last/manifests/only").expect(202);
    client.assert_manifest("delete/last", &image.digest(), &image);
}

#[test]
fn deleting_a_manifest_removes_its_tags_at_once() {
    let server = SERVER.get();
    let client = server.client();
    for digest_of in DIGESTS {
        client.push_empty_config("delete/manifest");
        let [deleted, kept] = ["deleted", "kept"].map(|marker| Manifest::new(&artifact("a/b", marker)));
        let digest = digest_of(&deleted.bytes);
        let reference =
            ["a", "b", "c"].iter().fold(digest.clone(), |target, tag| with_query(&target, "tag", tag));
        client.push_manifest("delete/manifest", &reference, &deleted);
        client.push_manifest("delete/manifest", "kept", &kept);
        client.delete(format!("/v2/delete/manifest/manifests/{digest}")).expect(202);
        for reference in ["a", "b", "c", &digest] {
            client.head(format!("/v2/delete/manifest/manifests/{reference}")).expect(404);
            client
                .get(format!("/v2/delete/manifest/manifests/{reference}"))
                .expect_error(404, "MANIFEST_UNKNOWN");
        }
        assert_eq!(client.tags("delete/manifest"), ["kept"]);
        client.assert_manifest("delete/manifest", "kept", &kept);
        client
            .delete(format!("/v2/delete/manifest/manifests/{digest}"))
            .expect_error(404, "MANIFEST_UNKNOWN");
    }
}

#[test]
fn a_deleted_blob_is_gone_at_once() {
    let server = SERVER.get();
    let client = server.client();
    let content = bytes("deleted blob", 10_000);
    for digest_of in DIGESTS {
        let digest = digest_of(&content);
        let target = format!("/v2/delete/blob/blobs/{digest}");
        client.push_blob_by(Way::PostPut, "delete/blob", &content, &digest).expect(201);
        client.delete(&target).expect(202);
        client.head(&target).expect(404);
        client.get(&target).expect_error(404, "BLOB_UNKNOWN");
        client.delete(&target).expect_error(404, "BLOB_UNKNOWN");
        // It can come again.
        client.push_blob_by(Way::Streamed, "delete/blob", &content, &digest).expect(201);
        client.assert_blob("delete/blob", &digest, &content);
    }
}

#[test]
fn a_delete_in_one_repository_leaves_the_others_alone() {
    let server = SERVER.get();
    let client = server.client();
    let content = bytes("in two repositories", 10_000);
    let digest = sha256(&content);
    let images = ["delete/one", "delete/two"].map(|repository| {
        client.push_blob(repository, &content);
        client.push_image(repository, "latest", "in two repositories")
    });
    client.delete(format!("/v2/delete/one/blobs/{digest}")).expect(202);
    client.delete(format!("/v2/delete/one/manifests/{}", images[0].digest())).expect(202);
    client.assert_blob("delete/two", &digest, &content);
    client.assert_manifest("delete/two", "latest", &images[1]);
    client.head(format!("/v2/delete/one/blobs/{digest}")).expect(404);
    client.head("/v2/delete/one/manifests/latest").expect(404);
}

#[test]
fn the_two_digests_of_one_content_are_deleted_one_by_one() {
    let server = SERVER.get();
    let client = server.client();
    let content = bytes("two digests", 10_000);
    for digest in [sha256(&content), sha512(&content)] {
        client.push_blob_by(Way::PostPut, "delete/digests", &content, &digest).expect(201);
    }
    client.delete(format!("/v2/delete/digests/blobs/{}", sha256(&content))).expect(202);
    client.head(format!("/v2/delete/digests/blobs/{}", sha256(&content))).expect(404);
    client.assert_blob("delete/digests", &sha512(&content), &content);
}

#[test]
fn the_children_of_a_deleted_index_stay() {
    let server = SERVER.get();
    let client = server.client();
    let children = ["amd64", "arm64"].map(|seed| client.push_image("delete/index", seed, seed));
    let multi = Manifest::new(&index(&children));
    client.push_manifest("delete/index", "multi", &multi);
    client.delete(format!("/v2/delete/index/manifests/{}", multi.digest())).expect(202);
    for (tag, child) in ["amd64", "arm64"].into_iter().zip(&children) {
        client.assert_manifest("delete/index", tag, child);
    }
}

#[test]
fn what_is_not_there_cannot_be_deleted() {
    let server = SERVER.get();
    let client = server.client();
    client.push_image("delete/known", "latest", "known");
    for repository in ["delete/known", "delete/unknown"] {
        for reference in ["nothing", &sha256(b"nothing"), &sha512(b"nothing")] {
            client.delete(format!("/v2/{repository}/manifests/{reference}")).expect(404);
        }
        client.delete(format!("/v2/{repository}/blobs/{}", sha256(b"nothing"))).expect(404);
    }
}

#[test]
fn a_deleted_image_can_be_pushed_again() {
    let server = SERVER.get();
    let client = server.client();
    let first = client.push_image("delete/again", "latest", "pushed again");
    let document: serde_json::Value = serde_json::from_slice(&first.bytes).expect("JSON");
    client.delete(format!("/v2/delete/again/manifests/{}", first.digest())).expect(202);
    for entry in document["layers"].as_array().expect("layers").iter().chain([&document["config"]]) {
        client
            .delete(format!("/v2/delete/again/blobs/{}", entry["digest"].as_str().expect("a digest")))
            .expect(202);
    }
    // Its blobs are gone, so it cannot come back alone.
    client.put_manifest("delete/again", "latest", &first).expect_error(404, "MANIFEST_BLOB_UNKNOWN");
    let second = client.push_image("delete/again", "latest", "pushed again");
    assert_eq!(first, second);
    client.assert_manifest("delete/again", "latest", &second);
    for entry in document["layers"].as_array().expect("layers") {
        let blob = client
            .get(format!("/v2/delete/again/blobs/{}", entry["digest"].as_str().expect("a digest")))
            .expect(200);
        assert_eq!(entry["digest"], sha256(&blob.body));
    }
}

#[test]
fn where_deleting_is_switched_off_nothing_is_deleted() {
    let server = Launch::new().config("delete: {enabled: false}\n").start();
    let client = server.client();
    let image = client.push_image("delete/off", "latest", "switched off");
    let digest = client.push_blob("delete/off", b"switched off");
    for target in [
        "/v2/delete/off/manifests/latest".to_owned(),
        format!("/v2/delete/off/manifests/{}", image.digest()),
        format!("/v2/delete/off/blobs/{digest}"),
    ] {
        client.delete(target).expect_error(405, "UNSUPPORTED");
    }
    client.assert_manifest("delete/off", "latest", &image);
    client.assert_blob("delete/off", &digest, b"switched off");
    // Cancelling an upload is no delete of content.
    let session = client.begin_upload("delete/off");
    client.delete(&session).expect(204);
}
