//! Checks that what was pushed comes back: the exact bytes, whole or in part, with headers that describe them.

use std::thread;

use serde_json::Value;
use tests::client::Way;
use tests::content::{
    DIGESTS, Manifest, OCI_INDEX, OCI_MANIFEST, artifact, bytes, descriptor, image, index, sha256,
};
use tests::http::Request;
use tests::server::{Launch, Shared};

static SERVER: Shared = Shared::new(Launch::new);

#[test]
fn blobs_come_back_with_headers_that_describe_them() {
    let server = SERVER.get();
    let client = server.client();
    for length in [0, 1, 511, 4095, 4096, 4097, 65_536, (1 << 20) + 3, 5 << 20] {
        for digest_of in DIGESTS {
            let content = bytes("described", length);
            let digest = digest_of(&content);
            client.push_blob_by(Way::PostPut, "pull/described", &content, &digest).expect(201);
            let target = format!("/v2/pull/described/blobs/{digest}");
            let get = client.get(&target).expect(200);
            assert!(get.body == content, "{length} bytes by {digest}");
            let head = client.head(&target).expect(200);
            assert!(head.body.is_empty());
            for response in [&get, &head] {
                assert_eq!(response.must("Content-Length"), length.to_string());
                assert_eq!(response.must("Docker-Content-Digest"), digest);
                assert_eq!(response.must("Content-Type"), "application/octet-stream");
                assert_eq!(response.must("Accept-Ranges"), "bytes");
                assert_eq!(response.must("ETag"), format!("\"{digest}\""));
                assert!(response.list("Cache-Control").contains(&"immutable"), "{}", response.summary());
            }
        }
    }
}

#[test]
fn a_manifest_comes_back_byte_by_byte() {
    let server = SERVER.get();
    let client = server.client();
    client.push_empty_config("pull/exact");
    let compact = Manifest::new(&artifact("a/b", "exact")).bytes;
    let pretty = serde_json::to_vec_pretty(&artifact("a/b", "exact")).expect("JSON");
    let odd = [b"\n\t ", &compact[..], b"\r\n\n  "].concat();
    let escaped =
        String::from_utf8(compact.clone()).expect("text").replace("schemaVersion", r"schema\u0056ersion");
    for (position, content) in [compact, pretty, odd, escaped.into_bytes()].into_iter().enumerate() {
        let manifest = Manifest { media_type: OCI_MANIFEST.into(), bytes: content };
        let tag = format!("v{position}");
        client.push_manifest("pull/exact", &tag, &manifest);
        for reference in [&tag, &manifest.digest()] {
            client.assert_manifest("pull/exact", reference, &manifest);
            let target = format!("/v2/pull/exact/manifests/{reference}");
            let (get, head) = (client.get(&target).expect(200), client.head(&target).expect(200));
            assert!(head.body.is_empty());
            for response in [get, head] {
                assert_eq!(response.must("Content-Length"), manifest.bytes.len().to_string());
                assert_eq!(response.must("Docker-Content-Digest"), manifest.digest());
                assert_eq!(response.must("ETag"), format!("\"{}\"", manifest.digest()));
            }
        }
    }
}

#[test]
fn what_the_client_accepts_changes_nothing_of_a_manifest() {
    let server = SERVER.get();
    let client = server.client();
    let image = client.push_image("pull/accept", "image", "accept");
    let multi = Manifest::new(&index([&image]));
    client.push_manifest("pull/accept", "multi", &multi);
    let none: [&str; 0] = [];
    for accept in [
        &none[..],
        &["text/plain"],
        &[OCI_MANIFEST],
        &[OCI_INDEX],
        &["*/*"],
        &["application/json;q=0"],
        &["a/b", "c/d"],
    ] {
        for (reference, manifest) in [("image", &image), ("multi", &multi)] {
            let mut request = Request::new("GET", format!("/v2/pull/accept/manifests/{reference}"));
            for value in accept {
                request = request.header("Accept", *value);
            }
            let response = client.send(request).expect(200);
            assert_eq!(response.must("Content-Type"), manifest.media_type, "for Accept: {accept:?}");
            assert_eq!(response.body, manifest.bytes);
        }
    }
}

#[test]
fn the_type_of_a_manifest_comes_back_without_parameters() {
    let server = SERVER.get();
    let client = server.client();
    client.push_empty_config("pull/parameters");
    let mut manifest = Manifest::new(&artifact("a/b", "parameters"));
    manifest.media_type += "; charset=utf-8";
    client.push_manifest("pull/parameters", "latest", &manifest);
    assert_eq!(client.get("/v2/pull/parameters/manifests/latest").must("Content-Type"), OCI_MANIFEST);
    assert_eq!(client.head("/v2/pull/parameters/manifests/latest").must("Content-Type"), OCI_MANIFEST);
}

#[test]
fn what_is_not_there_is_not_found() {
    let server = SERVER.get();
    let client = server.client();
    let digest = sha256(b"not there");
    let elsewhere = client.push_blob("pull/elsewhere", b"in another repository");
    let image = client.push_image("pull/elsewhere", "latest", "elsewhere");
    client.push_blob("pull/missing", b"so that the repository is there");
    for (target, code) in [
        (format!("/v2/pull/missing/blobs/{digest}"), "BLOB_UNKNOWN"),
        (format!("/v2/pull/missing/blobs/{elsewhere}"), "BLOB_UNKNOWN"),
        ("/v2/pull/missing/manifests/latest".to_owned(), "MANIFEST_UNKNOWN"),
        (format!("/v2/pull/missing/manifests/{digest}"), "MANIFEST_UNKNOWN"),
        (format!("/v2/pull/missing/manifests/{}", image.digest()), "MANIFEST_UNKNOWN"),
    ] {
        client.get(&target).expect_error(404, code);
        client.head(&target).expect(404);
    }
    for target in
        [format!("/v2/pull/nowhere/blobs/{elsewhere}"), "/v2/pull/nowhere/manifests/latest".to_owned()]
    {
        client.get(&target).expect(404);
        client.head(&target).expect(404);
    }
}

#[test]
fn parts_of_a_blob_can_be_asked_for() {
    let server = SERVER.get();
    let client = server.client();
    // The ranges are of a large blob; of a small one, which may be kept in another way, the front of it.
    let content = bytes("parts", 10_000);
    let small = client.push_blob("pull/parts", &content[..100]);
    let request =
        Request::new("GET", format!("/v2/pull/parts/blobs/{small}")).header("Range", "bytes=10-2000");
    let response = client.send(request).expect(206);
    assert_eq!(response.must("Content-Range"), "bytes 10-99/100");
    assert!(response.body == content[10..100]);
    for digest_of in DIGESTS {
        let digest = digest_of(&content);
        client.push_blob_by(Way::PostPut, "pull/parts", &content, &digest).expect(201);
        let target = format!("/v2/pull/parts/blobs/{digest}");
        for (range, first, last) in [
            ("bytes=0-0", 0, 0),
            ("bytes=0-9999", 0, 9999),
            ("bytes=500-1499", 500, 1499),
            ("bytes=4095-8192", 4095, 8192),
            ("bytes=9999-9999", 9999, 9999),
            ("bytes=500-", 500, 9999),
            ("bytes=0-", 0, 9999),
            ("bytes=-500", 9500, 9999),
            ("bytes=-1", 9999, 9999),
            ("bytes=-20000", 0, 9999),
            ("bytes=9000-20000", 9000, 9999),
            ("bytes=0-18446744073709551615", 0, 9999),
            ("bytes=-18446744073709551615", 0, 9999),
            ("Bytes=1-2", 1, 2),
        ] {
            let response = client.send(Request::new("GET", &target).header("Range", range)).expect(206);
            assert_eq!(response.must("Content-Range"), format!("bytes {first}-{last}/10000"), "{range}");
            assert_eq!(response.must("Content-Length"), (last - first + 1).to_string(), "{range}");
            assert_eq!(response.must("Docker-Content-Digest"), digest);
            assert_eq!(response.must("ETag"), format!("\"{digest}\""));
            assert!(response.body == content[first..=last], "{range}");
        }
    }
}

#[test]
fn large_parts_of_a_large_blob_are_right_when_read_first_and_when_read_again() {
    let server = SERVER.get();
    let client = server.client();
    const WINDOW: usize = 2 << 20;
    let content = bytes("large parts", 9 * (1 << 20) + 1);
    let digest = client.push_blob("pull/large", &content);
    let last = content.len() - 1;
    let edges =
        [0, 1, 4095, 4096, WINDOW - 1, WINDOW, WINDOW + 1, 2 * WINDOW + 5, 4 * WINDOW, last - 1, last];
    for _ in 0..2 {
        for (position, first) in edges.into_iter().enumerate() {
            for end in edges[position..].iter().step_by(3) {
                let request = Request::new("GET", format!("/v2/pull/large/blobs/{digest}"));
                let response =
                    client.send(request.header("Range", format!("bytes={first}-{end}"))).expect(206);
                assert!(response.body == content[first..=*end], "{first} to {end}");
            }
        }
        client.assert_blob("pull/large", &digest, &content);
    }
}

#[test]
fn content_is_never_encoded_and_unknown_parameters_are_ignored() {
    let server = SERVER.get();
    let client = server.client();
    let image = client.push_image("pull/plain", "latest", "plain");
    let content = vec![b'a'; 100_000];
    let digest = client.push_blob("pull/plain", &content);
    for (target, expected) in [
        (format!("/v2/pull/plain/blobs/{digest}?ns=registry.example"), &content),
        ("/v2/pull/plain/manifests/latest?ns=registry.example&x".to_owned(), &image.bytes),
    ] {
        let response = client
            .send(Request::new("GET", target).header("Accept-Encoding", "gzip, deflate, zstd, br, *"))
            .expect(200);
        assert_eq!(response.header("Content-Encoding"), None);
        assert!(&response.body == expected);
    }
    client.get("/v2/pull/plain/tags/list?ns=registry.example").expect(200);
}

#[test]
fn a_part_beyond_the_end_is_not_satisfiable() {
    let server = SERVER.get();
    let client = server.client();
    let digest = client.push_blob("pull/beyond", &bytes("beyond", 1000));
    let empty = client.push_blob("pull/beyond", b"");
    for (digest, range, length) in [
        (&digest, "bytes=1000-", 1000),
        (&digest, "bytes=1000-1000", 1000),
        (&digest, "bytes=5000-10000", 1000),
        (&digest, "bytes=-0", 1000),
        (&digest, "bytes=500-0", 1000), // the conformance suite wants this one refused, not ignored
        (&digest, "bytes=18446744073709551615-", 1000),
        (&empty, "bytes=0-", 0),
        (&empty, "bytes=0-0", 0),
    ] {
        let target = format!("/v2/pull/beyond/blobs/{digest}");
        let response = client.send(Request::new("GET", &target).header("Range", range));
        assert_eq!(response.status, 416, "{range}");
        assert_eq!(response.must("Content-Range"), format!("bytes */{length}"), "{range}");
    }
}

#[test]
fn a_range_that_is_not_understood_is_ignored() {
    let server = SERVER.get();
    let client = server.client();
    let content = bytes("ignored", 1000);
    let digest = client.push_blob("pull/ignored", &content);
    let target = format!("/v2/pull/ignored/blobs/{digest}");
    for range in ["lines=1-2", "bytes", "bytes=", "bytes=a-b", "bytes=1", "bytes=--1", "1-2", "bytes=1-2-3"] {
        let response = client.send(Request::new("GET", &target).header("Range", range)).expect(200);
        assert!(response.body == content, "{range}");
    }
    // A range is for GET only (RFC 9110, 14.2).
    let head = client.send(Request::new("HEAD", &target).header("Range", "bytes=0-1")).expect(200);
    assert_eq!(head.must("Content-Length"), "1000");
}

#[test]
fn several_ranges_are_answered_in_full_or_in_parts() {
    let server = SERVER.get();
    let client = server.client();
    let content = bytes("several", 1000);
    let digest = client.push_blob("pull/several", &content);
    let many: String = (0..2000).map(|n| format!(",{n}-{n}")).collect();
    for ranges in ["bytes=0-1,5-6", "bytes=0-,0-,0-,0-", "bytes=0-0, -1", &format!("bytes=0-0{many}")] {
        let request = Request::new("GET", format!("/v2/pull/several/blobs/{digest}")).header("Range", ranges);
        let response = client.send(request).expect_any(&[200, 206]);
        if response.status == 200 {
            assert!(response.body == content);
        } else {
            let media_type = response.must("Content-Type");
            assert!(
                media_type.starts_with("multipart/byteranges") || response.header("Content-Range").is_some()
            );
            assert!(
                response.body.len() <= 2 * content.len(),
                "a short request makes {} bytes",
                response.body.len()
            );
        }
    }
}

#[test]
fn a_range_may_be_bound_to_a_version() {
    let server = SERVER.get();
    let client = server.client();
    let digest = client.push_blob("pull/if-range", &bytes("if-range", 1000));
    for (if_range, status) in [
        (format!("\"{digest}\""), 206),
        ("\"another\"".to_owned(), 200),
        (format!("W/\"{digest}\""), 200), // weak tags never match here (RFC 9110, 13.1.5)
        ("Sun, 06 Nov 1994 08:49:37 GMT".to_owned(), 200),
    ] {
        let request = Request::new("GET", format!("/v2/pull/if-range/blobs/{digest}"));
        let response =
            client.send(request.header("Range", "bytes=0-9").header("If-Range", &if_range)).expect(status);
        assert_eq!(response.body.len(), if status == 206 { 10 } else { 1000 }, "{if_range}");
    }
}

#[test]
fn what_the_client_has_already_is_not_sent_again() {
    let server = SERVER.get();
    let client = server.client();
    let image = client.push_image("pull/cached", "latest", "cached");
    let blob = client.push_blob("pull/cached", &bytes("cached", 1000));
    for (target, digest) in [
        (format!("/v2/pull/cached/blobs/{blob}"), &blob),
        ("/v2/pull/cached/manifests/latest".to_owned(), &image.digest()),
        (format!("/v2/pull/cached/manifests/{}", image.digest()), &image.digest()),
    ] {
        for (if_none_match, status) in [
            (format!("\"{digest}\""), 304),
            (format!("W/\"{digest}\""), 304),
            (format!("\"a\", \"{digest}\""), 304),
            ("*".to_owned(), 304),
            ("\"another\"".to_owned(), 200),
        ] {
            for method in ["GET", "HEAD"] {
                let request = Request::new(method, &target).header("If-None-Match", &if_none_match);
                let response = client.send(request).expect(status);
                assert_eq!(response.must("ETag"), format!("\"{digest}\""), "{method} {target}");
                assert!(status == 200 || response.body.is_empty());
            }
        }
    }
}

#[test]
fn only_what_cannot_change_is_called_immutable() {
    let server = SERVER.get();
    let client = server.client();
    client.push_image("pull/immutable", "latest", "immutable");
    let by_tag = client.get("/v2/pull/immutable/manifests/latest").expect(200);
    assert!(!by_tag.list("Cache-Control").contains(&"immutable"), "{}", by_tag.summary());
}

#[test]
fn one_blob_can_be_fetched_by_many_ranges_at_once() {
    let server = SERVER.get();
    let client = server.client();
    let content = bytes("parallel", 8 << 20);
    let digest = client.push_blob("pull/parallel", &content);
    let part = content.len() / 16;
    thread::scope(|scope| {
        for (position, expected) in content.chunks(part).enumerate() {
            let (client, digest) = (&client, &digest);
            scope.spawn(move || {
                let range = format!("bytes={}-{}", position * part, (position + 1) * part - 1);
                let request =
                    Request::new("GET", format!("/v2/pull/parallel/blobs/{digest}")).header("Range", range);
                assert!(client.send(request).expect(206).body == expected, "part {position}");
            });
        }
    });
}

#[test]
fn clients_that_leave_in_the_middle_of_a_download_harm_nobody() {
    let server = SERVER.get();
    let content = bytes("leaving", 8 << 20);
    let digest = server.client().push_blob("pull/leaving", &content);
    let request = Request::new("GET", format!("/v2/pull/leaving/blobs/{digest}"));
    for _ in 0..16 {
        let mut connection = server.connect();
        connection.send(&request);
        connection.receive_head().expect("a response begins");
    }
    server.assert_alive();
    server.client().assert_blob("pull/leaving", &digest, &content);
}

#[test]
fn an_image_can_be_pulled_by_what_its_manifest_says() {
    let server = SERVER.get();
    let client = server.client();
    let pushed = client.push_image("pull/image", "latest", "pull an image");
    let manifest: Value = client.get("/v2/pull/image/manifests/latest").expect(200).json();
    assert_eq!(manifest, serde_json::from_slice::<Value>(&pushed.bytes).expect("JSON"));
    let layers = manifest["layers"].as_array().expect("layers");
    for entry in layers.iter().chain([&manifest["config"]]) {
        let digest = entry["digest"].as_str().expect("a digest");
        let blob = client.get(format!("/v2/pull/image/blobs/{digest}")).expect(200);
        assert_eq!(entry, &descriptor(entry["mediaType"].as_str().expect("a type"), &blob.body));
    }
    let rebuilt = image(manifest["config"].clone(), layers.clone());
    assert_eq!(rebuilt, manifest);
}
