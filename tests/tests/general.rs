//! Checks the promises that hold for every request: the entry point, names and references, the form of errors, and
//! connections that carry more than one request.

use tests::client::{Way, percent_encoded, with_query};
use tests::content::{DIGESTS, Manifest, artifact, bytes, sha256};
use tests::http::Request;
use tests::server::{Launch, Shared};

static SERVER: Shared = Shared::new(Launch::new);

#[test]
fn the_entry_point_answers_with_and_without_the_last_slash() {
    let server = SERVER.get();
    for target in ["/v2/", "/v2"] {
        server.client().get(target).expect(200);
        let head = server.client().head(target).expect(200);
        assert!(head.body.is_empty());
    }
}

#[test]
fn every_response_says_when_it_was_made() {
    let server = SERVER.get();
    for target in ["/v2/", "/v2/general/date/manifests/none"] {
        let response = server.client().get(target);
        let date = response.must("Date");
        // IMF-fixdate, RFC 9110 section 5.6.7: Sun, 06 Nov 1994 08:49:37 GMT
        assert!(date.len() == 29 && date.ends_with(" GMT") && date.as_bytes()[3] == b',', "Date: {date}");
    }
}

#[test]
fn names_of_the_grammar_are_accepted() {
    let server = SERVER.get();
    let long = format!("general/{}", "a".repeat(200));
    for name in [
        "general",
        "0",
        "a/b",
        "a/b/c/d/e/f/g",
        "a.b/c",
        "a_b/c",
        "a__b/c",
        "a-b/c",
        "a---b/c",
        "a0.b1_c2__d3-e4/5",
        &long,
    ] {
        let client = server.client();
        let digest = client.push_blob(name, b"name");
        client.assert_blob(name, &digest, b"name");
    }
}

#[test]
fn other_names_are_refused_as_invalid_names() {
    let server = SERVER.get();
    let long = "a".repeat(256);
    let names = [
        "A/b",
        "general/Upper",
        "a..b",
        "a___b",
        "a.-b",
        "-a",
        "a-",
        "a/-b",
        "_a",
        "a_",
        "a//b",
        "a/.",
        "a%20b",
        "%C3%A4",
        &long,
    ];
    for name in names {
        let client = server.client();
        client.post(format!("/v2/{name}/blobs/uploads/")).expect_error(400, "NAME_INVALID");
        client.get(format!("/v2/{name}/manifests/latest")).expect_error(400, "NAME_INVALID");
        client.get(format!("/v2/{name}/tags/list")).expect_error(400, "NAME_INVALID");
    }
}

#[test]
fn a_reference_that_is_neither_tag_nor_digest_is_a_bad_request() {
    let server = SERVER.get();
    let client = server.client();
    let repository = "general/references";
    client.push_empty_config(repository);
    let manifest = Manifest::new(&artifact("a/b", "references"));
    client.push_manifest(repository, "tag", &manifest);
    let long = "t".repeat(129);
    let hex = "a".repeat(64);
    let references = [
        ".dot",
        "-dash",
        "a%20b",
        "a+b",
        "a%2Cb",
        "%C3%A4",
        &long,
        "sha256:",
        "sha256:baddigeststring",
        &format!("sha256:{}", "A".repeat(64)),
        &format!("sha256:{hex}a"),
        &format!("sha512:{hex}"),
        &format!("md5:{}", "a".repeat(32)),
        &format!(":{hex}"),
    ];
    for reference in references {
        let target = format!("/v2/{repository}/manifests/{reference}");
        client.get(&target).expect(400);
        client.head(&target).expect(400);
        client.delete(&target).expect(400);
        client.put_manifest(repository, reference, &manifest).expect(400);
    }
    assert_eq!(client.tags(repository), ["tag"]);
}

#[test]
fn a_digest_that_is_none_is_a_bad_request_wherever_it_stands() {
    let server = SERVER.get();
    let client = server.client();
    let repository = "general/digests";
    client.push_blob(repository, b"digests");
    for digest in [
        "sha256",
        "sha256:",
        "sha256:xyz",
        &format!("sha1:{}", "a".repeat(40)),
        &format!("sha256:{}", "a".repeat(63)),
    ] {
        client.get(format!("/v2/{repository}/blobs/{digest}")).expect_error(400, "DIGEST_INVALID");
        client.delete(format!("/v2/{repository}/blobs/{digest}")).expect_error(400, "DIGEST_INVALID");
        client.head(format!("/v2/{repository}/blobs/{digest}")).expect(400);
        client.get(format!("/v2/{repository}/referrers/{digest}")).expect(400);
        client.push_blob_by(Way::Post, repository, b"digests", digest).expect_error(400, "DIGEST_INVALID");
        let session = client.begin_upload(repository);
        client.put(with_query(&session, "digest", digest), b"digests").expect_error(400, "DIGEST_INVALID");
        client.post(format!("/v2/{repository}/blobs/uploads/?mount={digest}&from={repository}")).expect(400);
    }
}

#[test]
fn tags_have_128_characters_at_most() {
    let server = SERVER.get();
    let client = server.client();
    let repository = "general/tags";
    client.push_empty_config(repository);
    let manifest = Manifest::new(&artifact("a/b", "tags"));
    let longest = "T".repeat(128);
    let tags = [longest.as_str(), "_", "0", "a.b-c_D", "v1.0.0", "_-."];
    for tag in tags {
        client.push_manifest(repository, tag, &manifest);
        client.assert_manifest(repository, tag, &manifest);
    }
    assert_eq!(client.tags(repository).len(), tags.len());
}

#[test]
fn both_digest_algorithms_work_at_every_end_point() {
    let server = SERVER.get();
    let client = server.client();
    for digest_of in DIGESTS {
        let repository = "general/algorithms";
        client.push_empty_config(repository);
        let blob = bytes("algorithms", 5000);
        let digest = digest_of(&blob);
        client.push_blob_by(Way::PostPut, repository, &blob, &digest).expect(201);
        client.assert_blob(repository, &digest, &blob);
        assert_eq!(
            client.head(format!("/v2/{repository}/blobs/{digest}")).expect(200).must("Docker-Content-Digest"),
            digest
        );
        let manifest = Manifest::new(&artifact("a/b", "algorithms"));
        let reference = digest_of(&manifest.bytes);
        let put = client.put_manifest(repository, &reference, &manifest).expect(201);
        assert_eq!(put.must("Docker-Content-Digest"), reference);
        client.assert_manifest(repository, &reference, &manifest);
        let head = client.head(format!("/v2/{repository}/manifests/{reference}")).expect(200);
        assert_eq!(head.must("Docker-Content-Digest"), reference);
        client.get(format!("/v2/{repository}/referrers/{reference}")).expect(200);
        client.delete(format!("/v2/{repository}/manifests/{reference}")).expect(202);
        client.head(format!("/v2/{repository}/manifests/{reference}")).expect(404);
        client.delete(format!("/v2/{repository}/blobs/{digest}")).expect(202);
        client.head(format!("/v2/{repository}/blobs/{digest}")).expect(404);
    }
}

#[test]
fn percent_encoding_makes_no_difference() {
    let server = SERVER.get();
    let client = server.client();
    let digest = client.push_blob("general/encoded", b"encoded");
    for target in [
        format!("/v2/general/encoded/blobs/{}", percent_encoded(&digest)),
        format!("/v2/general/%65ncoded/blobs/{digest}"),
        format!("/%76%32/general/encoded/blobs/{digest}"),
    ] {
        assert_eq!(client.get(&target).expect(200).body, b"encoded", "{target}");
    }
}

#[test]
fn every_client_error_carries_the_document_of_the_specification() {
    let server = SERVER.get();
    let client = server.client();
    let digest = sha256(b"nowhere");
    let session = client.begin_upload("general/errors");
    let requests = [
        ("GET", "/v2/nothing".to_owned()),
        ("GET", "/nothing".to_owned()),
        ("GET", "/v2/general/errors/nothing/at/all".to_owned()),
        ("GET", format!("/v2/general/errors/blobs/{digest}")),
        ("GET", "/v2/general/errors/blobs/".to_owned()),
        ("GET", "/v2/general/errors/manifests/nothing".to_owned()),
        ("GET", "/v2/general/errors/manifests/".to_owned()),
        ("GET", "/v2/general/unknown/tags/list".to_owned()),
        ("GET", "/v2/general/errors/blobs/uploads/00000000-0000-0000-0000-000000000000".to_owned()),
        ("GET", "/v2/general/errors/referrers/nothing".to_owned()),
        ("POST", "/v2/".to_owned()),
        ("PUT", session),
        ("PUT", "/v2/general/errors/manifests/latest".to_owned()),
        ("DELETE", "/v2/general/errors/manifests/latest".to_owned()),
        ("DELETE", format!("/v2/general/errors/blobs/{digest}")),
    ];
    for (method, target) in requests {
        let response = client.send(Request::new(method, &target).body(""));
        // The client itself has looked at the document.
        assert!((400..500).contains(&response.status), "{method} {target}: {}", response.summary());
        let head = client.head(&target);
        assert!(head.body.is_empty(), "HEAD {target}");
    }
}

#[test]
fn a_method_that_a_resource_has_not_is_refused_with_those_it_has() {
    let server = SERVER.get();
    let client = server.client();
    let digest = client.push_blob("general/methods", b"methods");
    for (method, target, allowed) in [
        ("POST", "/v2/".to_owned(), "GET"),
        ("PUT", "/v2/general/methods/tags/list".to_owned(), "GET"),
        ("PATCH", format!("/v2/general/methods/blobs/{digest}"), "DELETE"),
        ("POST", "/v2/general/methods/manifests/tag".to_owned(), "PUT"),
        ("BREW", "/v2/general/methods/manifests/tag".to_owned(), "GET"),
    ] {
        let response = client.send(Request::new(method, &target).body("")).expect(405);
        assert!(response.list("Allow").contains(&allowed), "{method} {target}: {}", response.summary());
    }
}

#[test]
fn a_connection_carries_many_requests() {
    let server = SERVER.get();
    let digest = server.client().push_blob("general/reuse", b"reuse");
    let mut connection = server.connect();
    for _ in 0..3 {
        for (method, target, status) in [
            ("GET", "/v2/".to_owned(), 200),
            ("HEAD", format!("/v2/general/reuse/blobs/{digest}"), 200),
            ("GET", format!("/v2/general/reuse/blobs/{digest}"), 200),
            ("HEAD", "/v2/general/reuse/manifests/none".to_owned(), 404),
            ("GET", "/v2/general/reuse/manifests/none".to_owned(), 404),
            ("POST", "/v2/general/reuse/blobs/uploads/".to_owned(), 202),
        ] {
            let request = Request::new(method, target);
            let request = if method == "POST" { request.body("") } else { request };
            connection.exchange(&request).expect("a response").expect(status);
        }
    }
}

#[test]
fn a_connection_ends_when_the_client_says_so() {
    let server = SERVER.get();
    let mut connection = server.connect();
    connection
        .exchange(&Request::new("GET", "/v2/").header("Connection", "close"))
        .expect("a response")
        .expect(200);
    assert_eq!(connection.read_to_close(), b"");
}
