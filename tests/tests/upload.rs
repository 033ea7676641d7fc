//! Checks that a blob can be pushed in every way that the specification knows, that a push which went wrong leaves
//! nothing behind, and that one which was interrupted can go on.

use std::collections::HashSet;
use std::thread;
use std::time::{Duration, Instant};

use tests::client::{Client, Way, location, percent_encoded, with_query};
use tests::content::{DIGESTS, Manifest, OCI_CONFIG, bytes, descriptor, image, sha256, sha512};
use tests::eventually;
use tests::http::{Request, is_timeout};
use tests::server::{Launch, Server, Shared};

static SERVER: Shared = Shared::new(Launch::new);

fn assert_absent(client: &Client, repository: &str, digests: &[&str]) {
    for digest in digests {
        client.head(format!("/v2/{repository}/blobs/{digest}")).expect(404);
        client.get(format!("/v2/{repository}/blobs/{digest}")).expect(404);
    }
}

#[test]
fn every_way_of_pushing_works_for_every_size_and_digest() {
    let server = SERVER.get();
    let client = server.client();
    for way in Way::ALL {
        for digest_of in DIGESTS {
            for length in [0, 1, 2, 4095, 4097, 100_000, 3_000_000] {
                let content = bytes(&format!("{way:?}/{length}"), length);
                let digest = digest_of(&content);
                let case = format!("{way:?} of {length} bytes as {digest}");
                let repository = format!("upload/{}", format!("{way:?}").to_lowercase());
                let response = client.push_blob_by(way, &repository, &content, &digest);
                assert_eq!(response.status, 201, "{case}: {}", response.summary());
                assert_eq!(response.must("Docker-Content-Digest"), digest, "{case}");
                let pulled = client.get(location(&response)).expect(200);
                assert!(pulled.body == content, "{case}");
                client.assert_blob(&repository, &digest, &content);
            }
        }
    }
}

#[test]
fn a_blob_without_content_works_in_every_way() {
    let server = SERVER.get();
    let client = server.client();
    for (position, way) in Way::ALL.into_iter().enumerate() {
        for digest_of in DIGESTS {
            let repository = format!("upload/empty{position}");
            let digest = digest_of(b"");
            client.push_blob_by(way, &repository, b"", &digest).expect(201);
            client.assert_blob(&repository, &digest, b"");
            assert_eq!(client.head(format!("/v2/{repository}/blobs/{digest}")).must("Content-Length"), "0");
        }
    }
}

#[test]
fn the_same_blob_can_be_pushed_again() {
    let server = SERVER.get();
    let client = server.client();
    let content = bytes("again", 50_000);
    for way in Way::ALL.into_iter().chain(Way::ALL) {
        client.push_blob_by(way, "upload/again", &content, &sha256(&content)).expect(201);
    }
    client.assert_blob("upload/again", &sha256(&content), &content);
}

#[test]
fn a_session_without_an_algorithm_takes_either_digest() {
    let server = SERVER.get();
    let client = server.client();
    let content = bytes("either", 20_000);
    for digest_of in DIGESTS {
        let digest = digest_of(&content);
        let session = location(&client.patch(client.begin_upload("upload/either"), &content).expect(202));
        client.put(with_query(&session, "digest", &digest), b"").expect(201);
        client.assert_blob("upload/either", &digest, &content);
    }
}

#[test]
fn a_session_may_name_its_algorithm() {
    let server = SERVER.get();
    let client = server.client();
    let uploads = "/v2/upload/algorithm/blobs/uploads/";
    for algorithm in ["sha256", "sha512"] {
        client.post(with_query(uploads, "digest-algorithm", algorithm)).expect(202);
    }
    for algorithm in ["", "sha1", "md5", "SHA256", "sha256:"] {
        client.post(with_query(uploads, "digest-algorithm", algorithm)).expect(400);
    }
}

#[test]
fn session_ids_cannot_be_guessed() {
    let server = SERVER.get();
    let client = server.client();
    let sessions: Vec<String> = (0..64).map(|_| client.begin_upload("upload/ids")).collect();
    assert_eq!(sessions.iter().collect::<HashSet<_>>().len(), sessions.len());
    for pair in sessions.windows(2) {
        // 128 random bits differ in about 30 of their 32 hexadecimal digits; a counter or a clock differs in a few.
        let different = pair[0].bytes().zip(pair[1].bytes()).filter(|(a, b)| a != b).count();
        assert!(different >= 16, "{} and {} are too much alike", pair[0], pair[1]);
    }
}

#[test]
fn a_session_tells_how_far_it_is() {
    let server = SERVER.get();
    let client = server.client();
    let content = bytes("how far", 10_000);
    let session = client.begin_upload("upload/status");
    let empty = client.get(&session).expect(204);
    assert_eq!(empty.must("Range"), "0-0");
    let session = location(&client.patch_range(location(&empty), &content, 0..4000).expect(202));
    assert_eq!(client.get(&session).expect(204).must("Range"), "0-3999");
    let session = location(&client.patch_range(&session, &content, 4000..4001).expect(202));
    let status = client.get(&session).expect(204);
    assert_eq!(status.must("Range"), "0-4000");
    assert!(status.body.is_empty());
    let session = location(&client.patch_range(location(&status), &content, 4001..10_000).expect(202));
    client.put(with_query(&session, "digest", &sha256(&content)), b"").expect(201);
    client.assert_blob("upload/status", &sha256(&content), &content);
}

#[test]
fn a_session_that_is_not_there_is_unknown() {
    let server = SERVER.get();
    let client = server.client();
    let other = client.begin_upload("upload/theirs").replace("upload/theirs", "upload/mine");
    client.push_blob("upload/mine", b"so that the repository is there");
    let uploads = "/v2/upload/mine/blobs/uploads";
    for session in [
        format!("{uploads}/9b1deb4d-3b7d-4bad-9bdd-2b0d7b3dcb6d"),
        format!("{uploads}/{}", "0".repeat(32)),
        format!("{uploads}/x"),
        format!("{uploads}/{}", "a".repeat(1000)),
        other,
    ] {
        client.get(&session).expect_error(404, "BLOB_UPLOAD_UNKNOWN");
        client.patch(&session, b"x").expect_error(404, "BLOB_UPLOAD_UNKNOWN");
        client
            .put(with_query(&session, "digest", &sha256(b"x")), b"x")
            .expect_error(404, "BLOB_UPLOAD_UNKNOWN");
        client.delete(&session).expect_error(404, "BLOB_UPLOAD_UNKNOWN");
    }
}

#[test]
fn a_session_ends_with_its_blob() {
    let server = SERVER.get();
    let client = server.client();
    let session = client.begin_upload("upload/ended");
    client.put(with_query(&session, "digest", &sha256(b"ended")), b"ended").expect(201);
    client.get(&session).expect_error(404, "BLOB_UPLOAD_UNKNOWN");
    client.patch(&session, b"more").expect_error(404, "BLOB_UPLOAD_UNKNOWN");
    client.assert_blob("upload/ended", &sha256(b"ended"), b"ended");
}

#[test]
fn a_session_can_be_cancelled() {
    let server = SERVER.get();
    let client = server.client();
    let content = bytes("cancelled", 5000);
    for filled in [false, true] {
        let mut session = client.begin_upload("upload/cancelled");
        if filled {
            session = location(&client.patch(&session, &content).expect(202));
        }
        assert!(client.delete(&session).expect(204).body.is_empty());
        client.get(&session).expect_error(404, "BLOB_UPLOAD_UNKNOWN");
        client.delete(&session).expect_error(404, "BLOB_UPLOAD_UNKNOWN");
        client
            .put(with_query(&session, "digest", &sha256(&content)), b"")
            .expect_error(404, "BLOB_UPLOAD_UNKNOWN");
    }
    assert_absent(&client, "upload/cancelled", &[&sha256(&content)]);
}

#[test]
fn a_push_that_came_to_nothing_gives_its_space_back() {
    const LENGTH: usize = 12 << 20;
    let server = Server::start();
    let client = server.client();
    let before = server.disk_usage();
    let content = bytes("given back", LENGTH);
    let session = location(&client.patch(client.begin_upload("upload/space"), &content).expect(202));
    assert!(server.disk_usage() >= before + LENGTH as u64 / 2, "what was confirmed is not on the disk");
    client.delete(session).expect(204);
    let wrong = sha256(b"something else");
    client.push_blob_by(Way::Post, "upload/space", &content, &wrong).expect(400);
    let mut connection = server.connect();
    let sent =
        Request::new("POST", format!("/v2/upload/space/blobs/uploads/?digest={wrong}")).body(content).bytes();
    connection.write(&sent[..LENGTH / 2]).expect("a half is sent");
    drop(connection);
    eventually("the space is free again", || (server.disk_usage() < before + (1 << 20)).then_some(()));
}

#[test]
#[ignore = "takes minutes: no expiry is shorter than one"]
fn a_session_that_is_left_alone_expires() {
    let server = Launch::new().config("uploads: {expiry: 1m}\n").start();
    let client = server.client();
    let before = server.disk_usage();
    let left = client.begin_upload("upload/expiry");
    client.patch(&left, &bytes("left alone", 5 << 20)).expect(202);
    let empty = client.begin_upload("upload/expiry");
    let mut used = client.begin_upload("upload/expiry");
    let deadline = Instant::now() + Duration::from_secs(300);
    while [&left, &empty].iter().any(|session| client.get(*session).status != 404) {
        assert!(Instant::now() < deadline, "the sessions don't expire");
        used = location(&client.patch(&used, b"progress").expect(202));
        thread::sleep(Duration::from_secs(1));
    }
    client.get(&used).expect(204);
    eventually("the space is free again", || (server.disk_usage() < before + (1 << 20)).then_some(()));
}

#[test]
fn chunks_out_of_order_are_refused_and_add_nothing() {
    let server = SERVER.get();
    let client = server.client();
    let content = bytes("order", 9000);
    let digest = sha256(&content);
    let mut session = client.begin_upload("upload/order");
    for (size, wrong_ranges) in [
        (0, [3000..6000, 1..3000, 8999..9000]),
        (3000, [0..3000, 2999..6000, 3001..6000]),
        (6000, [0..9000, 3000..6000, 6001..9000]),
    ] {
        for wrong in wrong_ranges {
            client.patch_range(&session, &content, wrong.clone()).expect(416);
            assert_eq!(client.upload_size(&session), size, "after {wrong:?}");
            let put = Request::new("PUT", with_query(&session, "digest", &digest));
            let put = put.header("Content-Range", format!("{}-{}", wrong.start, wrong.end - 1));
            client.send(put.body(&content[wrong.clone()])).expect(416);
            assert_eq!(client.upload_size(&session), size, "after a PUT of {wrong:?}");
        }
        assert_absent(&client, "upload/order", &[&digest]);
        session = location(&client.patch_range(&session, &content, size..size + 3000).expect(202));
    }
    client.put(with_query(&session, "digest", &digest), b"").expect(201);
    client.assert_blob("upload/order", &digest, &content);
}

#[test]
fn a_chunk_that_is_not_as_long_as_it_says_is_refused_and_adds_nothing() {
    let server = SERVER.get();
    let client = server.client();
    let content = bytes("chunk length", 1000);
    let digest = sha256(&content);
    let session = client.begin_upload("upload/length");
    let session = location(&client.patch_range(&session, &content, 0..500).expect(202));
    for content_range in [
        "500-999",
        "500-1099",
        "500-500",
        "500-",
        "-999",
        "999-500",
        "a-b",
        "bytes 500-999/1000",
        "",
        "500",
        "500-18446744073709551616",
    ] {
        // 400 bytes follow, which none of these announces.
        for method in ["PATCH", "PUT"] {
            let request = Request::new(method, with_query(&session, "digest", &digest))
                .header("Content-Range", content_range);
            client.send(request.body(&content[500..900])).expect_any(&[400, 416]);
            assert_eq!(
                client.upload_size(&session),
                500,
                "after {method} with Content-Range: {content_range}"
            );
        }
        let request = Request::new("PATCH", &session).header("Content-Range", content_range);
        client.send(request.chunked([&content[500..700], &content[700..900]])).expect_any(&[400, 416]);
        assert_eq!(
            client.upload_size(&session),
            500,
            "after a PATCH in chunked coding with Content-Range: {content_range}"
        );
    }
    let session = location(&client.patch_range(&session, &content, 500..1000).expect(202));
    client.put(with_query(&session, "digest", &digest), b"").expect(201);
    client.assert_blob("upload/length", &digest, &content);
}

#[test]
fn chunks_without_a_range_are_appended() {
    let server = SERVER.get();
    let client = server.client();
    let content = bytes("appended", 30_000);
    let mut session = client.begin_upload("upload/appended");
    session = location(&client.patch(&session, &content[..10_000]).expect(202));
    assert_eq!(client.upload_size(&session), 10_000);
    let streamed = Request::new("PATCH", &session).chunked(content[10_000..20_000].chunks(333));
    session = location(&client.send(streamed).expect(202));
    assert_eq!(client.upload_size(&session), 20_000);
    session = location(&client.patch(&session, b"").expect(202));
    assert_eq!(client.upload_size(&session), 20_000);
    client.put(with_query(&session, "digest", &sha256(&content)), &content[20_000..]).expect(201);
    client.assert_blob("upload/appended", &sha256(&content), &content);
}

#[test]
fn a_chunk_in_chunked_coding_may_have_a_range() {
    let server = SERVER.get();
    let client = server.client();
    let content = bytes("both", 5000);
    let session = client.begin_upload("upload/both");
    let request = Request::new("PATCH", &session).header("Content-Range", "0-4999");
    let session = location(&client.send(request.chunked(content.chunks(777))).expect(202));
    assert_eq!(client.upload_size(&session), 5000);
    client.put(with_query(&session, "digest", &sha256(&content)), b"").expect(201);
    client.assert_blob("upload/both", &sha256(&content), &content);
}

#[test]
fn a_wrong_digest_is_refused_and_leaves_no_blob() {
    let server = SERVER.get();
    let client = server.client();
    for way in Way::ALL {
        for digest_of in DIGESTS {
            let repository = "upload/wrong";
            let content = bytes(&format!("wrong {way:?}"), 20_000);
            let (right, wrong) = (digest_of(&content), digest_of(b"something else"));
            client.push_blob_by(way, repository, &content, &wrong).expect_error(400, "DIGEST_INVALID");
            assert_absent(&client, repository, &[&right, &wrong]);
            client.push_blob_by(way, repository, &content, &right).expect(201);
            client.assert_blob(repository, &right, &content);
            assert_absent(&client, repository, &[&wrong]);
        }
    }
}

#[test]
fn closing_a_session_takes_a_digest() {
    let server = SERVER.get();
    let client = server.client();
    let session = client.begin_upload("upload/no-digest");
    client.put(&session, b"content").expect_error(400, "DIGEST_INVALID");
    let session = client.begin_upload("upload/no-digest");
    client.put(with_query(&session, "digest", ""), b"content").expect_error(400, "DIGEST_INVALID");
    assert_absent(&client, "upload/no-digest", &[&sha256(b"content")]);
}

#[test]
fn a_blob_can_be_mounted_from_another_repository() {
    let server = SERVER.get();
    let client = server.client();
    for digest_of in DIGESTS {
        let content = bytes("mounted", 30_000);
        let digest = digest_of(&content);
        client.push_blob_by(Way::PostPut, "upload/source", &content, &digest).expect(201);
        let uploads = "/v2/upload/target/blobs/uploads/";
        let mount = with_query(&with_query(uploads, "mount", &digest), "from", "upload/source");
        let response = client.post(mount).expect(201);
        assert_eq!(response.must("Docker-Content-Digest"), digest);
        assert!(client.get(location(&response)).expect(200).body == content);
        client.assert_blob("upload/target", &digest, &content);
        // What is there already can be mounted again, from itself too.
        for from in ["upload/source", "upload/target"] {
            client.post(with_query(&with_query(uploads, "mount", &digest), "from", from)).expect(201);
        }
        // Each of the two is a blob of its own.
        client.delete(format!("/v2/upload/source/blobs/{digest}")).expect(202);
        client.assert_blob("upload/target", &digest, &content);
        assert_absent(&client, "upload/source", &[&digest]);
    }
}

#[test]
fn what_cannot_be_mounted_can_be_uploaded() {
    let server = SERVER.get();
    let client = server.client();
    let content = bytes("unmounted", 3000);
    let unknown = sha256(&content);
    let elsewhere = client.push_blob("upload/elsewhere", b"mount from elsewhere");
    client.push_blob("upload/bystander", b"so that the repository is there");
    for (digest, from) in
        [(&unknown, "upload/elsewhere"), (&unknown, "upload/nowhere"), (&elsewhere, "upload/bystander")]
    {
        let uploads = "/v2/upload/unmounted/blobs/uploads/";
        let mount = with_query(&with_query(uploads, "mount", digest), "from", from);
        // A server may find the blob in another place than the one named, where the caller may read it anyway.
        let statuses: &[u16] = if digest == &unknown { &[202] } else { &[201, 202] };
        let response = client.post(mount).expect_any(statuses);
        if response.status == 202 {
            client.put(with_query(&location(&response), "digest", &unknown), &content).expect(201);
            client.assert_blob("upload/unmounted", &unknown, &content);
            client.delete(format!("/v2/upload/unmounted/blobs/{unknown}")).expect(202);
        }
    }
}

#[test]
fn a_mount_without_a_source_works_or_becomes_an_upload() {
    let server = SERVER.get();
    let client = server.client();
    let content = bytes("anonymous mount", 3000);
    let digest = client.push_blob("upload/anywhere", &content);
    let response = client
        .post(with_query("/v2/upload/somewhere/blobs/uploads/", "mount", &digest))
        .expect_any(&[201, 202]);
    if response.status == 202 {
        client.put(with_query(&location(&response), "digest", &digest), &content).expect(201);
    }
    client.assert_blob("upload/somewhere", &digest, &content);
}

#[test]
fn digests_may_be_percent_encoded_or_not() {
    let server = SERVER.get();
    let client = server.client();
    for (content, encode) in [(b"plain", false), (b"coded", true)] {
        let digest = sha256(content);
        let written = if encode { percent_encoded(&digest) } else { digest.clone() };
        let session = client.begin_upload("upload/encoding");
        let separator = if session.contains('?') { '&' } else { '?' };
        client.put(format!("{session}{separator}digest={written}"), content).expect(201);
        client.assert_blob("upload/encoding", &digest, content);
    }
}

#[test]
fn an_upload_that_broke_off_can_go_on() {
    let server = SERVER.get();
    let client = server.client();
    let content = bytes("broken off", 2 << 20);
    let digest = sha256(&content);
    for (case, streamed) in [("sized", false), ("streamed", true)] {
        let session = client.begin_upload("upload/broken");
        let request = Request::new("PATCH", &session);
        let request =
            if streamed { request.chunked(content.chunks(10_000)) } else { request.body(&content[..]) };
        let mut connection = server.connect();
        let sent = request.bytes();
        connection.write(&sent[..sent.len() / 3]).expect("a part of the request is sent");
        drop(connection);
        // How much of it has arrived is the server's to say; going on from there works once it has seen the end.
        let session = eventually(case, || {
            let status = client.get(&session).expect(204);
            let size = client.upload_size(&session);
            assert!(size <= content.len() / 3, "more than was sent: {size}");
            let rest = client.patch_range(location(&status), &content, size..content.len());
            let rest = rest.expect_any(&[202, 409, 416]);
            (rest.status == 202).then(|| location(&rest))
        });
        client.put(with_query(&session, "digest", &digest), b"").expect(201);
        client.assert_blob("upload/broken", &digest, &content);
        client.delete(format!("/v2/upload/broken/blobs/{digest}")).expect(202);
    }
}

#[test]
fn a_put_that_broke_off_makes_no_blob() {
    let server = SERVER.get();
    let client = server.client();
    let content = bytes("broken put", 1 << 20);
    let digest = sha256(&content);
    let session = client.begin_upload("upload/broken-put");
    for target in [
        with_query(&session, "digest", &digest),
        with_query("/v2/upload/broken-put/blobs/uploads/", "digest", &digest),
    ] {
        let method = if target.starts_with(&session) { "PUT" } else { "POST" };
        let mut connection = server.connect();
        let sent = Request::new(method, target).body(&content[..]).bytes();
        connection.write(&sent[..sent.len() - 1]).expect("all but the last byte is sent");
        connection.finish_sending();
        connection.read_to_close();
        assert_absent(&client, "upload/broken-put", &[&digest]);
    }
}

#[test]
fn a_client_that_asks_first_is_told_to_continue() {
    let server = SERVER.get();
    let client = server.client();
    let content = bytes("continue", 100_000);
    let digest = sha256(&content);
    let (first, second) = content.split_at(content.len() / 2);
    let session = client.begin_upload("upload/continue");
    let mut connection = server.connect();
    let mut exchange = |request: Request| {
        connection.write(request.head().as_bytes()).expect("the head is sent");
        assert_eq!(connection.receive_head().expect("an interim response").status, 100);
        connection.write(&request.framed_body()).expect("the body is sent");
        connection.receive(&request.method).expect("a response")
    };
    let patch = Request::new("PATCH", &session).header("Expect", "100-continue").body(first);
    let session = location(&exchange(patch).expect(202));
    let put = Request::new("PUT", with_query(&session, "digest", &digest)).header("expect", "100-Continue");
    exchange(put.chunked([second])).expect(201);
    client.assert_blob("upload/continue", &digest, &content);
}

#[test]
fn a_client_that_asks_and_does_not_wait_is_served_too() {
    let server = SERVER.get();
    let content = bytes("impatient", 50_000);
    let digest = sha256(&content);
    let request = Request::new("POST", with_query("/v2/upload/impatient/blobs/uploads/", "digest", &digest));
    let mut connection = server.connect();
    for request in [request.clone().body(&content[..]), request.chunked(content.chunks(9999))] {
        connection.exchange(&request.header("Expect", "100-continue")).expect("a response").expect(201);
    }
    server.client().assert_blob("upload/impatient", &digest, &content);
}

#[test]
fn chunked_coding_is_understood_in_all_its_forms() {
    let server = SERVER.get();
    let client = server.client();
    let content = b"abcdefghijklmnopqrst";
    let digest = sha256(content);
    for (case, body) in [
        ("extensions", "5;a=b;c=\"d\"\r\nabcde\r\nf;x\r\nfghijklmnopqrst\r\n0\r\n\r\n"),
        (
            "sizes in capitals and with zeros in front",
            "000000005\r\nabcde\r\n0F\r\nfghijklmnopqrst\r\n000\r\n\r\n",
        ),
        ("trailers", "14\r\nabcdefghijklmnopqrst\r\n0\r\nX-Checksum: none\r\nX-Other: thing\r\n\r\n"),
    ] {
        let target = with_query("/v2/upload/coding/blobs/uploads/", "digest", &digest);
        let head = format!("POST {target} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n");
        let mut connection = server.connect();
        connection.write((head + body).as_bytes()).expect("the request is sent");
        let response = connection.receive("POST").expect("a response");
        assert_eq!(response.status, 201, "{case}: {}", response.summary());
        // The next request begins where the body has ended.
        connection.exchange(&Request::new("GET", "/v2/")).expect("a response").expect(200);
        client.delete(format!("/v2/upload/coding/blobs/{digest}")).expect(202);
    }
    // The smallest chunks that there are.
    let content = bytes("tiny", 30_000);
    let request =
        Request::new("POST", with_query("/v2/upload/coding/blobs/uploads/", "digest", &sha256(&content)));
    client.send(request.chunked(content.chunks(1))).expect(201);
    client.assert_blob("upload/coding", &sha256(&content), &content);
}

#[test]
fn a_refused_upload_costs_a_client_that_asks_first_no_body() {
    let server = SERVER.get();
    let client = server.client();
    let session = location(&client.patch(client.begin_upload("upload/expect"), b"0123456789").expect(202));
    for (request, status) in [
        (Request::new("PATCH", format!("{session}0")), 404),
        (Request::new("POST", "/v2/UPPER/blobs/uploads/?digest=x"), 400),
        (Request::new("PUT", &session), 400),
        (Request::new("PATCH", &session).header("Content-Range", "5-1000004"), 416),
        (Request::new("PUT", "/v2/upload/expect/manifests/a..%20"), 400),
        (Request::new("PUT", "/v2/"), 405),
    ] {
        let request = request.header("Expect", "100-continue").header("Content-Length", "1000000");
        let mut connection = server.connect();
        connection.write(request.head().as_bytes()).expect("the head is sent");
        let head = connection.receive_head().expect("a response");
        assert_eq!(head.status, status, "{} {}", request.method, request.target);
    }
    assert_eq!(client.upload_size(&session), 10);
}

#[test]
fn after_an_early_error_a_connection_goes_on_or_ends_cleanly() {
    let server = SERVER.get();
    let body = bytes("early", 8 << 20);
    for (method, target) in [
        ("PATCH", "/v2/upload/early/blobs/uploads/9b1deb4d-3b7d-4bad-9bdd-2b0d7b3dcb6d"),
        ("POST", "/v2/upload/early/blobs/uploads/?digest=sha256:none"),
        ("PUT", "/v2/upload/early/manifests/latest"),
        ("PUT", "/v2/"),
    ] {
        for streamed in [false, true] {
            let request = Request::new(method, target).header("Content-Type", "application/json");
            let request =
                if streamed { request.chunked(body.chunks(100_000)) } else { request.body(&body[..]) };
            let mut connection = server.connect();
            // All of the response has to arrive, though the client is still sending.
            let response = connection.exchange(&request).expect("a whole response");
            assert!((400..500).contains(&response.status), "{method} {target}: {}", response.summary());
            response.error_codes();
            match connection.exchange(&Request::new("GET", "/v2/")) {
                Ok(next) => drop(next.expect(200)),
                Err(e) => assert!(!is_timeout(&e), "after {method} {target} the connection hangs"),
            }
        }
    }
    server.assert_alive();
}

#[test]
fn uploads_into_one_session_leave_others_alone() {
    let server = SERVER.get();
    let client = server.client();
    thread::scope(|scope| {
        for worker in 0..8 {
            let client = &client;
            scope.spawn(move || {
                let content = bytes(&format!("worker {worker}"), 200_000);
                let mut session = client.begin_upload("upload/many");
                for start in (0..content.len()).step_by(25_000) {
                    session =
                        location(&client.patch_range(&session, &content, start..start + 25_000).expect(202));
                }
                client.put(with_query(&session, "digest", &sha512(&content)), b"").expect(201);
                client.assert_blob("upload/many", &sha512(&content), &content);
            });
        }
    });
}

#[test]
fn an_image_whose_blobs_came_in_different_ways_is_whole() {
    let server = SERVER.get();
    let client = server.client();
    let blobs: Vec<Vec<u8>> = Way::ALL.iter().map(|way| bytes(&format!("image {way:?}"), 40_000)).collect();
    for (way, blob) in Way::ALL.into_iter().zip(&blobs) {
        client.push_blob_by(way, "upload/image", blob, &sha256(blob)).expect(201);
    }
    let layers = blobs[1..].iter().map(|blob| descriptor("application/octet-stream", blob)).collect();
    let manifest = Manifest::new(&image(descriptor(OCI_CONFIG, &blobs[0]), layers));
    client.push_manifest("upload/image", "latest", &manifest);
    blobs.iter().for_each(|blob| client.assert_blob("upload/image", &sha256(blob), blob));
}
