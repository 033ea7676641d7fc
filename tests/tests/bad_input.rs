//! Checks that input which is wrong, hostile or slow is refused, does nothing, and never stops the server from
//! answering others.

use std::io::ErrorKind;
use std::path::Path;

use proptest::prelude::*;
use tests::client::{Way, location, with_query};
use tests::content::{Manifest, artifact, bytes, sha256};
use tests::eventually;
use tests::http::{Connection, Request, Response, is_timeout};
use tests::server::{Launch, Server, Shared};

static SERVER: Shared = Shared::new(|| {
    Launch::new()
        .env("PAYLOAD_REGISTRY_HTTP_HEAD_TIMEOUT", "2s")
        .env("PAYLOAD_REGISTRY_HTTP_BODY_TIMEOUT", "2s")
        .env("PAYLOAD_REGISTRY_HTTP_IDLE_TIMEOUT", "4s")
});

/// Stands in a table of statuses for a connection that is closed without a response.
const CLOSED: u16 = 0;

/// Sends these bytes and nothing more, and gives all responses until the server closes the connection.
#[track_caller]
fn responses(server: &Server, bytes: &[u8]) -> Vec<Response> {
    let mut connection = server.connect();
    let _ = connection.write(bytes);
    connection.finish_sending();
    until_closed(&mut connection)
}

#[track_caller]
fn until_closed(connection: &mut Connection) -> Vec<Response> {
    let mut responses = Vec::new();
    loop {
        match connection.receive("GET") {
            Ok(response) => responses.push(response),
            Err(e) if is_timeout(&e) => panic!("the connection hangs after {responses:?}"),
            Err(e) if e.kind() == ErrorKind::InvalidData => panic!("no HTTP after {responses:?}: {e}"),
            Err(_) => return responses,
        }
    }
}

/// Sends each of these heads, and fails the test unless the first response has one of the statuses next to it.
#[track_caller]
fn assert_statuses(server: &Server, cases: &[(&str, &[u16])]) {
    for (text, statuses) in cases {
        let responses = responses(server, text.as_bytes());
        let shown = &text[..text.len().min(300)];
        let status = responses.first().map_or(CLOSED, |response| response.status);
        assert!(statuses.contains(&status), "expected {statuses:?}, got {status}: {shown:?} {responses:?}");
        if let Some(response) = responses.first().filter(|_| (400..500).contains(&status)) {
            response.error_codes();
        }
        assert!(responses.len() <= 1, "two responses to {shown:?}: {responses:?}");
    }
    server.assert_alive();
}

#[test]
fn request_lines_that_are_none_are_refused() {
    let long = format!("GET /v2/{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(200_000));
    let long_query = format!("GET /v2/?{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(200_000));
    let long_method = format!("{} /v2/ HTTP/1.1\r\nHost: x\r\n\r\n", "A".repeat(100_000));
    assert_statuses(
        &SERVER.get(),
        &[
            ("GET /v2/\r\n\r\n", &[400, 505, CLOSED]),
            ("GET  /v2/ HTTP/1.1\r\nHost: x\r\n\r\n", &[400, 505]),
            ("GET\t/v2/\tHTTP/1.1\r\nHost: x\r\n\r\n", &[400]),
            ("GET /v2/ HTTP/1.1 \r\nHost: x\r\n\r\n", &[400]),
            ("GET /v2/ a HTTP/1.1\r\nHost: x\r\n\r\n", &[400, 505]),
            ("GET /v2/ http/1.1\r\nHost: x\r\n\r\n", &[400, 505]),
            ("GET /v2/ HTTP/11\r\nHost: x\r\n\r\n", &[400, 505]),
            ("GET /v2/ HTTP/3.0\r\nHost: x\r\n\r\n", &[400, 505]),
            ("GET /v2/ HTTP/0.9\r\nHost: x\r\n\r\n", &[400, 505]),
            ("get /v2/ HTTP/1.1\r\nHost: x\r\n\r\n", &[400, 405, 501]),
            ("G\0T /v2/ HTTP/1.1\r\nHost: x\r\n\r\n", &[400]),
            ("GET /v2/\0 HTTP/1.1\r\nHost: x\r\n\r\n", &[400]),
            ("GET /v2/\u{e4} HTTP/1.1\r\nHost: x\r\n\r\n", &[400, 404]),
            ("GET v2/ HTTP/1.1\r\nHost: x\r\n\r\n", &[400]),
            ("GET * HTTP/1.1\r\nHost: x\r\n\r\n", &[400, 404]),
            ("CONNECT example.com:443 HTTP/1.1\r\nHost: x\r\n\r\n", &[400, 404, 405, 501]),
            ("GET ftp://x/v2/ HTTP/1.1\r\nHost: x\r\n\r\n", &[400, 404]),
            (" GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n", &[400]),
            ("\x16\x03\x01\x02\0\x01\0\x01\x7c\x03\x03", &[400, CLOSED]), // a TLS client
            ("SSH-2.0-OpenSSH_9.2\r\n", &[400, CLOSED]),
            (&long, &[400, 414, 431]),
            (&long_query, &[400, 414, 431]),
            (&long_method, &[400, 414, 431, 501]),
        ],
    );
}

#[test]
fn heads_that_are_none_are_refused() {
    let many: String = (0..5000).map(|n| format!("X-{n}: {n}\r\n")).collect();
    let many = format!("GET /v2/ HTTP/1.1\r\nHost: x\r\n{many}\r\n");
    let large = format!("GET /v2/ HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "a".repeat(2 << 20));
    let large_name = format!("GET /v2/ HTTP/1.1\r\nHost: x\r\n{}: a\r\n\r\n", "a".repeat(2 << 20));
    assert_statuses(
        &SERVER.get(),
        &[
            ("GET /v2/ HTTP/1.1\r\n\r\n", &[400]),                       // no Host
            ("GET /v2/ HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", &[400]), // two
            ("GET /v2/ HTTP/1.1\r\nHost: x\r\nX : a\r\n\r\n", &[400]),   // a blank before the colon
            ("GET /v2/ HTTP/1.1\r\nHost: x\r\n X: a\r\n\r\n", &[400]),   // a continued first line
            ("GET /v2/ HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n", &[400, 200]), // obs-fold: refused or a blank
            ("GET /v2/ HTTP/1.1\r\nHost: x\r\nX\r\n\r\n", &[400]),
            ("GET /v2/ HTTP/1.1\r\nHost: x\r\n: a\r\n\r\n", &[400]),
            ("GET /v2/ HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n", &[400]),
            ("GET /v2/ HTTP/1.1\r\nHost: x\r\nX\0: a\r\n\r\n", &[400]),
            ("GET /v2/ HTTP/1.1\r\nHost: x\r\nX: a\rb\r\n\r\n", &[400]),
            ("GET /v2/ HTTP/1.1\r\nHost: x\r\nX(: a\r\n\r\n", &[400]),
            ("GET /v2/ HTTP/1.1\r\nHost: x\r\nX\u{e4}: a\r\n\r\n", &[400]),
            ("GET /v2/ HTTP/1.1\nHost: x\n\n", &[400, 200]), // bare LF: a server may take it
            ("GET /v2/ HTTP/1.1\r\nHost: x\r\nX: a", &[400, 408, CLOSED]),
            (&many, &[400, 431]),
            (&large, &[400, 431]),
            (&large_name, &[400, 431]),
        ],
    );
}

#[test]
fn unusual_requests_that_are_right_are_answered() {
    assert_statuses(
        &SERVER.get(),
        &[
            ("GET http://registry.test/v2/ HTTP/1.1\r\nHost: registry.test\r\n\r\n", &[200]),
            ("GET HTTP://registry.test:80/v2/?a=b HTTP/1.1\r\nHost: registry.test\r\n\r\n", &[200]),
            ("\r\nGET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n", &[200]), // RFC 9112, 2.2
            ("GET /v2/ HTTP/1.0\r\n\r\n", &[200]),
            ("GET /v2/ HTTP/1.1\r\nhOsT:x\r\nX:\r\nY: \t \r\nZ:\ta\t\r\n\r\n", &[200]),
            ("GET /v2/?a=b&c=%zz&&=&n=1 HTTP/1.1\r\nHost: x\r\n\r\n", &[200]),
            ("GET /v2/ HTTP/1.1\r\nHost: x\r\nX: \u{e4}\r\n\r\n", &[200]),
        ],
    );
}

#[test]
fn a_request_of_http_1_0_ends_its_connection() {
    let server = SERVER.get();
    let digest = server.client().push_blob("bad/old", b"for an old client");
    let mut connection = server.connect();
    connection.write(format!("GET /v2/bad/old/blobs/{digest} HTTP/1.0\r\n\r\n").as_bytes()).expect("sent");
    let responses = until_closed(&mut connection);
    assert_eq!(responses.len(), 1);
    assert_eq!(responses[0].body, b"for an old client");
    assert_eq!(responses[0].header("Transfer-Encoding"), None);
}

#[test]
fn a_request_cannot_be_hidden_in_another() {
    let server = SERVER.get();
    let client = server.client();
    client.push_empty_config("bad/victim");
    let victim = Manifest::new(&artifact("a/b", "victim"));
    client.push_manifest("bad/victim", "tag", &victim);
    let hidden = "DELETE /v2/bad/victim/manifests/tag HTTP/1.1\r\nHost: x\r\n\r\n";
    let length = hidden.len();
    let post = "POST /v2/bad/front/blobs/uploads/ HTTP/1.1\r\nHost: x\r\n";
    let get = "GET /v2/ HTTP/1.1\r\nHost: x\r\n";
    for (case, text) in [
        (
            "length and chunks",
            format!("{post}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"),
        ),
        (
            "chunks and length",
            format!("{post}Transfer-Encoding: chunked\r\nContent-Length: {length}\r\n\r\n0\r\n\r\n{hidden}"),
        ),
        (
            "chunks under another name",
            format!("{post}Content-Length: {length}\r\nTransfer-Encoding: xchunked\r\n\r\n{hidden}"),
        ),
        (
            "chunks behind a tab",
            format!("{post}Content-Length: {length}\r\nTransfer-Encoding:\tchunked\r\n\r\n0\r\n\r\n{hidden}"),
        ),
        (
            "chunks before a blank",
            format!("{post}Content-Length: {length}\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n{hidden}"),
        ),
        (
            "chunks in a folded line",
            format!(
                "{post}Content-Length: {length}\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n{hidden}"
            ),
        ),
        (
            "chunks, and then something else",
            format!("{post}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{hidden}"),
        ),
        (
            "chunks twice",
            format!(
                "{post}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"
            ),
        ),
        ("an unknown coding", format!("{post}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n{hidden}")),
        ("an empty coding", format!("{post}Transfer-Encoding:\r\nContent-Length: 0\r\n\r\n{hidden}")),
        (
            "chunks in HTTP/1.0",
            format!(
                "POST /v2/bad/front/blobs/uploads/ HTTP/1.0\r\nTransfer-Encoding: chunked\r\nContent-Length: {length}\r\n\r\n0\r\n\r\n{hidden}"
            ),
        ),
        ("two lengths", format!("{post}Content-Length: 0\r\nContent-Length: {length}\r\n\r\n{hidden}")),
        (
            "two lengths the other way",
            format!("{post}Content-Length: {length}\r\nContent-Length: 0\r\n\r\n{hidden}"),
        ),
        ("two lengths in one", format!("{post}Content-Length: 0, {length}\r\n\r\n{hidden}")),
        ("a length with a sign", format!("{post}Content-Length: +0\r\n\r\n{hidden}")),
        ("a length below zero", format!("{post}Content-Length: -1\r\n\r\n{hidden}")),
        ("a hexadecimal length", format!("{post}Content-Length: 0x0\r\n\r\n{hidden}")),
        ("a length of words", format!("{post}Content-Length: 0 0\r\n\r\n{hidden}")),
        ("an empty length", format!("{post}Content-Length:\r\n\r\n{hidden}")),
        ("a length out of range", format!("{post}Content-Length: 18446744073709551616\r\n\r\n{hidden}")),
        ("the body of a GET", format!("{get}Content-Length: {length}\r\n\r\n{hidden}")),
        (
            "a chunk of a GET",
            format!("{get}Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{hidden}\r\n0\r\n\r\n"),
        ),
        (
            "the body of a refused request",
            format!(
                "PUT /v2/bad/front/nothing HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{hidden}"
            ),
        ),
        ("a header's bare line feed", format!("{get}X: a\n\n{hidden}")),
        ("a header's bare carriage return", format!("{get}X: a\r\r{hidden}")),
        ("a chunk's bare line feed", format!("{post}Transfer-Encoding: chunked\r\n\r\n0\n\n{hidden}")),
        (
            "a chunk of a huge size",
            format!("{post}Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n\r\n0\r\n\r\n{hidden}"),
        ),
        (
            "a chunk of a size with a sign",
            format!("{post}Transfer-Encoding: chunked\r\n\r\n+0\r\n\r\n{hidden}"),
        ),
        (
            "a chunk of a hexadecimal prefix",
            format!("{post}Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n{hidden}"),
        ),
        (
            "a chunk longer than its size",
            format!("{post}Transfer-Encoding: chunked\r\n\r\n1\r\nab0\r\n\r\n{hidden}"),
        ),
        (
            "a chunk without an end",
            format!("{post}Transfer-Encoding: chunked\r\n\r\n1\r\na0\r\n\r\n{hidden}"),
        ),
    ] {
        let responses = responses(&server, text.as_bytes());
        // One at most is for what stands in front; where there is a body, none may be for what is in it.
        assert!(responses.len() <= 1, "{case}: {responses:#?}");
        assert!(
            responses.iter().all(|response| response.status < 500 || response.status == 501),
            "{case}: {responses:#?}"
        );
        client.assert_manifest("bad/victim", "tag", &victim);
    }
    server.assert_alive();
}

#[test]
fn contradictory_framing_is_a_bad_request() {
    let uploads = with_query("/v2/bad/framing/blobs/uploads/", "digest", &sha256(b""));
    let post = format!("POST {uploads} HTTP/1.1\r\nHost: x\r\n");
    let cases: Vec<String> = [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        "Content-Length: 5, 6\r\n\r\nabcdef",
        "Content-Length: -1\r\n\r\n",
        "Content-Length: +1\r\n\r\na",
        "Content-Length: 1a\r\n\r\na",
        "Content-Length:\r\n\r\n",
        "Content-Length: 99999999999999999999999999\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n",
    ]
    .map(|rest| format!("{post}{rest}"))
    .into();
    let cases: Vec<(&str, &[u16])> = cases.iter().map(|text| (text.as_str(), &[400, 501][..])).collect();
    assert_statuses(&SERVER.get(), &cases);
}

#[test]
fn chunks_that_are_none_add_no_content_of_their_own() {
    let server = SERVER.get();
    let client = server.client();
    let extension = format!("3;{}\r\nabc\r\n0\r\n\r\n", "x".repeat(1 << 20));
    let trailers: String = (0..5000).map(|n| format!("X-{n}: {n}\r\n")).collect();
    let trailers = format!("3\r\nabc\r\n0\r\n{trailers}\r\n");
    for body in [
        "3\r\nabc\r\nzz\r\n",
        "3\r\nabc\r\n-5\r\n",
        "3\r\nabc\r\n5",
        "3\r\nabc\r\n5\r\nab",
        "3\r\nabc\r\n0",
        "3\r\nabc\r\n0\r\n",
        "3\r\nabc",
        "3\r\nabcd\r\n0\r\n\r\n",
        "3\r\nabc\n0\r\n\r\n",
        "8000000000000000\r\nabc",
        "FFFFFFFFFFFFFFFF\r\nabc",
        &extension,
        &trailers,
    ] {
        let session = client.begin_upload("bad/chunks");
        let head = format!("PATCH {session} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
        let shown = &body[..body.len().min(60)];
        let responses = responses(&server, (head + body).as_bytes());
        assert!(responses.len() <= 1, "{shown:?}: {responses:#?}");
        // What stood in whole chunks, or a part of it, may be kept: "abc" is all there was, with at most "ab" behind it.
        eventually(shown, || {
            let status = client.get(&session).expect(204);
            let size = client.upload_size(&session);
            assert!(size <= 5, "{shown:?} added {size} bytes");
            let rest = client.send(
                Request::new("PATCH", location(&status))
                    .header("Content-Range", format!("{size}-{size}"))
                    .body("!"),
            );
            (rest.expect_any(&[202, 409]).status == 202).then_some(())
        });
    }
    server.assert_alive();
}

#[test]
fn bodies_that_are_shorter_than_promised_make_nothing() {
    let server = SERVER.get();
    let client = server.client();
    client.push_empty_config("bad/short");
    let content = bytes("short", 10_000);
    let manifest = Manifest::new(&artifact("a/b", "short"));
    let session = client.begin_upload("bad/short");
    let blob = with_query("/v2/bad/short/blobs/uploads/", "digest", &sha256(&content));
    for (request, length) in [
        (Request::new("POST", blob).body(&content[..]), content.len() + 1),
        (
            Request::new("PUT", with_query(&session, "digest", &sha256(&content))).body(&content[..]),
            content.len() + 1,
        ),
        (
            Request::new("PUT", "/v2/bad/short/manifests/tag")
                .header("Content-Type", &manifest.media_type)
                .body(manifest.bytes.clone()),
            manifest.bytes.len() + 1,
        ),
    ] {
        let actual = request.framed_body().len();
        let head = request
            .head()
            .replace(&format!("Content-Length: {actual}"), &format!("Content-Length: {length}"));
        let responses = responses(&server, &[head.as_bytes(), &request.framed_body()].concat());
        assert!(responses.iter().all(|response| (400..500).contains(&response.status)), "{responses:#?}");
        client.get(format!("/v2/bad/short/blobs/{}", sha256(&content))).expect(404);
        client.get(format!("/v2/bad/short/manifests/{}", manifest.digest())).expect(404);
        client.get("/v2/bad/short/manifests/tag").expect(404);
    }
    server.assert_alive();
}

#[test]
fn bodies_that_are_longer_than_promised_end_where_they_should() {
    let server = SERVER.get();
    let client = server.client();
    let content = bytes("long", 10_000);
    let digest = sha256(&content);
    let request =
        Request::new("POST", with_query("/v2/bad/long/blobs/uploads/", "digest", &digest)).body(&content[..]);
    let responses =
        responses(&server, &[&request.bytes()[..], b"and more, which is no request\r\n\r\n"].concat());
    assert_eq!(responses[0].status, 201, "{responses:#?}");
    assert!(responses[1..].iter().all(|response| matches!(response.status, 400 | 505)), "{responses:#?}");
    client.assert_blob("bad/long", &digest, &content);
    let chunked = request.chunked([&content[..]]).bytes();
    let responses = self::responses(&server, &[&chunked[..], b"and more\r\n\r\n"].concat());
    assert_eq!(responses[0].status, 201, "{responses:#?}");
    client.assert_blob("bad/long", &digest, &content);
}

#[test]
fn names_cannot_lead_out_of_the_root() {
    let server = Server::start();
    let client = server.client();
    let canary = "a canary that nobody may see";
    let beside = server.root().parent().expect("the root has a parent");
    std::fs::write(beside.join("canary"), canary).expect("a file beside the root");
    client.push_blob("bad/names", b"so that the repository is there");
    let seen_before = names_in(beside);
    let templates = [
        "/{}/canary",
        "/v2/{}/tags/list",
        "/v2/{}/canary/tags/list",
        "/v2/bad/{}/names/tags/list",
        "/v2/{}/manifests/canary",
        "/v2/{}/blobs/uploads/",
        "/v2/bad/names/manifests/{}",
        "/v2/bad/names/blobs/{}",
        "/v2/bad/names/blobs/sha256:{}",
        "/v2/bad/names/blobs/uploads/{}",
        "/v2/bad/names/blobs/uploads/{}/canary",
        "/v2/bad/names/referrers/sha256:{}",
    ];
    let parts = [
        "..",
        "../..",
        "../../canary",
        "%2e%2e",
        "%2E%2E%2Fcanary",
        "..%2f..%2fcanary",
        "..%5ccanary",
        "..\\canary",
        "%252e%252e%252fcanary",
        "%00",
        "canary%00",
        "%2fetc%2fpasswd",
        "/etc/passwd",
        "....//canary",
        "..;/canary",
        "%c0%ae%c0%ae/canary",
        "~root",
        "$HOME",
        "%0d%0aX:y",
        "con",
        "a%0ab",
        "*",
        "%25",
    ];
    for template in templates {
        for part in parts {
            let target = template.replace("{}", part);
            for method in ["GET", "PUT", "POST", "PATCH", "DELETE"] {
                if part == "con" && template.starts_with("/v2/") {
                    continue; // a good name here, as anywhere but on other systems
                }
                let response = client.send(Request::new(method, &target).body("x"));
                assert!((400..500).contains(&response.status), "{method} {target}: {}", response.summary());
                assert!(!String::from_utf8_lossy(&response.body).contains(canary), "{method} {target}");
            }
        }
    }
    for part in parts {
        let uploads = "/v2/bad/names/blobs/uploads/";
        client.post(format!("{uploads}?digest={part}")).expect(400);
        client.post(format!("{uploads}?mount={part}&from=bad/names")).expect(400);
        client.post(format!("{uploads}?mount={}&from={part}", sha256(b"x"))).expect_any(&[202, 400, 404]);
        client.get(format!("/v2/bad/names/tags/list?last={part}")).expect_any(&[200, 400]);
        client.get(format!("/v2/_catalog?last={part}")).expect_any(&[200, 400]);
    }
    assert_eq!(names_in(beside), seen_before);
    server.assert_alive();
}

/// The names in a directory, in order.
fn names_in(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).expect("a directory");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = SERVER.get();
    let client = server.client();
    let contents: Vec<Vec<u8>> = (0..20).map(|n| bytes(&format!("pipelined {n}"), 1000 * n)).collect();
    let mut sent = Vec::new();
    for (position, content) in contents.iter().enumerate() {
        let post =
            Request::new("POST", with_query("/v2/bad/pipelined/blobs/uploads/", "digest", &sha256(content)));
        let post =
            if position % 2 == 0 { post.body(&content[..]) } else { post.chunked(content.chunks(700)) };
        sent.extend_from_slice(&post.bytes());
        sent.extend_from_slice(
            &Request::new("GET", format!("/v2/bad/pipelined/blobs/{}", sha256(content))).bytes(),
        );
        sent.extend_from_slice(
            &Request::new("GET", format!("/v2/bad/pipelined/manifests/t{position}")).bytes(),
        );
    }
    let mut connection = server.connect();
    let responses = std::thread::scope(|scope| {
        let mut writer = connection.try_clone().expect("a second handle of the connection");
        scope.spawn(move || writer.write(&sent).expect("all requests are sent"));
        let mut receive = || connection.receive("GET").expect("a response");
        contents.iter().map(|_| [receive(), receive(), receive()]).collect::<Vec<_>>()
    });
    for ([post, get, missing], content) in responses.into_iter().zip(&contents) {
        assert_eq!(post.expect(201).must("Docker-Content-Digest"), sha256(content));
        assert!(&get.expect(200).body == content);
        missing.expect_error(404, "MANIFEST_UNKNOWN");
    }
    client.assert_blob("bad/pipelined", &sha256(&contents[7]), &contents[7]);
}

#[test]
fn heads_that_never_end_are_not_waited_for() {
    let server = SERVER.get();
    let starts = ["", "G", "GET /v2/ HT", "GET /v2/ HTTP/1.1\r\nHost: x\r\nX: "];
    let mut connections = starts.map(|start| {
        let mut connection = server.connect();
        connection.write(start.as_bytes()).expect("the start is sent");
        connection
    });
    for (connection, start) in connections.iter_mut().zip(starts) {
        let responses = until_closed(connection);
        assert!(responses.iter().all(|response| response.status == 408), "{start:?}: {responses:?}");
    }
    server.assert_alive();
}

#[test]
fn a_head_that_trickles_is_not_waited_for() {
    let server = SERVER.get();
    let mut connection = server.connect();
    connection.write(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n").expect("the start is sent");
    // However often a byte comes, the whole head has to come in time.
    eventually("the server ends the connection", || connection.write(b"X: y\r\n").err().map(drop));
    server.assert_alive();
}

#[test]
fn a_body_that_stalls_is_not_waited_for_and_can_go_on() {
    let server = SERVER.get();
    let client = server.client();
    let content = bytes("stalled", 100_000);
    let session = client.begin_upload("bad/stalled");
    let request = Request::new("PATCH", &session).body(&content[..]);
    let sent = request.bytes();
    let mut connection = server.connect();
    connection.write(&sent[..sent.len() - 50_000]).expect("a half is sent");
    let responses = until_closed(&mut connection);
    assert!(responses.iter().all(|response| (400..500).contains(&response.status)), "{responses:?}");
    let size = client.upload_size(&session);
    assert!(size <= 50_000);
    let session = location(&client.patch_range(&session, &content, size..content.len()).expect(202));
    client.put(with_query(&session, "digest", &sha256(&content)), b"").expect(201);
    client.assert_blob("bad/stalled", &sha256(&content), &content);
}

#[test]
fn readers_that_stall_are_not_waited_for() {
    let server = Launch::new().config("http: {bodyTimeout: 1s, idleTimeout: 1s}\n").start();
    let content = bytes("unread", 32 << 20);
    let digest = server.client().push_blob("bad/unread", &content);
    let request = Request::new("GET", format!("/v2/bad/unread/blobs/{digest}"));
    let before = server.open_files();
    let mut connections: Vec<Connection> = (0..4).map(|_| server.connect()).collect();
    for connection in &mut connections {
        connection.send(&request);
        assert_eq!(connection.receive_head().expect("a response begins").status, 200);
    }
    assert!(server.open_files() > before);
    // Nothing is read until the server has given up, which its sockets show.
    eventually("the server closes the connections", || (server.open_files() <= before).then_some(()));
    for mut connection in connections {
        let mut rest = vec![0; content.len()];
        assert!(connection.read_exact(&mut rest).is_err(), "all of it has come");
    }
    server.assert_alive();
}

#[test]
fn many_slow_clients_keep_nobody_else_waiting() {
    let server = SERVER.get();
    let client = server.client();
    let mut slow: Vec<Connection> = (0..200).map(|_| server.connect()).collect();
    for (position, connection) in slow.iter_mut().enumerate() {
        let start = if position % 2 == 0 {
            "GET /v2/ HTTP/1.1\r\nHo"
        } else {
            "POST /v2/bad/slow/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\na"
        };
        connection.write(start.as_bytes()).expect("the start is sent");
    }
    let digest = client.push_blob("bad/slow", b"meanwhile");
    client.assert_blob("bad/slow", &digest, b"meanwhile");
    server.assert_alive();
    drop(slow);
    server.assert_alive();
}

#[test]
fn connections_over_the_limit_are_turned_away_and_the_others_go_on() {
    const LIMIT: usize = 10;
    let server = Launch::new().config(format!("http: {{connectionsMax: {LIMIT}}}\n")).start();
    let ping = Request::new("GET", "/v2/");
    let mut connections: Vec<Connection> = (0..LIMIT).map(|_| server.connect()).collect();
    for connection in &mut connections {
        connection.exchange(&ping).expect("a response").expect(200);
    }
    for _ in 0..LIMIT {
        match server.connect().exchange(&ping) {
            Ok(response) => assert!(!response.expect_any(&[429, 503]).must("Retry-After").is_empty()),
            Err(e) => assert!(!is_timeout(&e), "a connection over the limit hangs"),
        }
    }
    for connection in &mut connections {
        connection.exchange(&ping).expect("a response").expect(200);
    }
    connections.truncate(LIMIT / 2);
    eventually("there is room again", || {
        let response = server.connect().exchange(&ping).ok()?;
        (response.expect_any(&[200, 429, 503]).status == 200).then_some(())
    });
}

#[test]
fn clients_that_vanish_at_any_point_harm_nobody() {
    let server = SERVER.get();
    let client = server.client();
    let content = bytes("vanishing", 5000);
    let digest = sha256(&content);
    let request = Request::new("POST", with_query("/v2/bad/vanishing/blobs/uploads/", "digest", &digest))
        .body(&content[..]);
    let sent = request.bytes();
    for end in (0..sent.len()).step_by(97) {
        let mut connection = server.connect();
        connection.write(&sent[..end]).expect("the start is sent");
    }
    server.assert_alive();
    client.get(format!("/v2/bad/vanishing/blobs/{digest}")).expect(404);
    client.push_blob_by(Way::Post, "bad/vanishing", &content, &digest).expect(201);
    client.assert_blob("bad/vanishing", &digest, &content);
}

#[test]
fn whatever_is_done_to_a_request_the_server_goes_on() {
    let server = SERVER.get();
    let client = server.client();
    let content = bytes("mutated", 300);
    let digest = client.push_blob("bad/mutated", &content);
    client.push_empty_config("bad/mutated");
    let session = client.begin_upload("bad/mutated");
    let manifest = Manifest::new(&artifact("a/b", "mutated"));
    let originals: Vec<Vec<u8>> = [
        Request::new("GET", format!("/v2/bad/mutated/blobs/{digest}")).header("Range", "bytes=1-2,5-"),
        Request::new("GET", "/v2/bad/mutated/tags/list?n=10&last=a").header("Accept", "*/*"),
        Request::new(
            "POST",
            with_query("/v2/bad/mutated/blobs/uploads/", "mount", &digest) + "&from=bad/mutated",
        )
        .body(""),
        Request::new("PATCH", &session).header("Content-Range", "0-299").body(&content[..]),
        Request::new("PUT", with_query(&session, "digest", &digest)).chunked(content.chunks(64)),
        Request::new("PUT", "/v2/bad/mutated/manifests/tag")
            .header("Content-Type", &manifest.media_type)
            .body(manifest.bytes.clone()),
        Request::new("GET", format!("/v2/bad/mutated/referrers/{digest}?artifactType=a/b")),
    ]
    .map(|request| request.bytes())
    .into();
    let config = ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() };
    let mutation = (any::<prop::sample::Index>(), 0..40usize, prop::collection::vec(any::<u8>(), 0..8));
    let strategy = (any::<prop::sample::Index>(), prop::collection::vec(mutation, 1..4));
    let mut runner = prop::test_runner::TestRunner::new(config);
    let outcome = runner.run(&strategy, |(original, mutations)| {
        let mut sent = original.get(&originals).clone();
        for (at, removed, added) in mutations {
            let at = at.index(sent.len() + 1);
            sent.splice(at..(at + removed).min(sent.len()), added);
        }
        for response in responses(&server, &sent) {
            prop_assert!(
                response.status < 500 || matches!(response.status, 501 | 505),
                "{}",
                response.summary()
            );
        }
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
    server.assert_alive();
    client.assert_blob("bad/mutated", &digest, &content);
}
