//! Checks that memory is bounded: little at rest, and a fixed amount for each transfer, however large or slow it is.

use std::fs;

use tests::content::bytes;
use tests::eventually;
use tests::http::{Connection, Request};
use tests::server::{Server, is_release};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// A value of the server's `/proc/<pid>/status`, in bytes.
fn status(server: &Server, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("the server runs");
    let line = text.lines().find_map(|line| line.strip_prefix(name)).expect(name);
    let kib: u64 =
        line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().expect("a number of KiB");
    kib * KIB
}

/// Memory in use now.
fn resident(server: &Server) -> u64 {
    status(server, "VmRSS")
}

/// Forgets the peak so far, so that `VmHWM` is the peak from here on.
fn reset_peak(server: &Server) {
    fs::write(format!("/proc/{}/clear_refs", server.pid()), "5").expect("the right to reset the peak");
}

fn peak(server: &Server) -> u64 {
    status(server, "VmHWM")
}

/// A bound for an optimised program; one that isn't has larger code, and larger frames on its stacks.
fn bound(bytes: u64) -> u64 {
    if is_release() { bytes } else { 2 * bytes }
}

#[test]
fn at_rest_the_server_is_small() {
    let server = Server::start();
    let client = server.client();
    client.get("/v2/").expect(200);
    let resident = resident(&server);
    assert!(resident <= bound(32 * MIB), "{} KiB at rest", resident / KIB);
}

#[test]
fn after_work_the_server_is_small_again() {
    let server = Server::start();
    let client = server.client();
    for number in 0..40 {
        client.push_image("memory/work", &format!("t{number}"), &format!("work {number}"));
    }
    let large = bytes("large", 32 << 20);
    let digest = client.push_blob("memory/work", &large);
    client.assert_blob("memory/work", &digest, &large);
    eventually("memory goes back", || (resident(&server) <= bound(64 * MIB)).then_some(()));
}

#[test]
fn an_upload_takes_the_same_memory_however_large_it_is() {
    const UPLOADS: u64 = 16;
    let server = Server::start();
    let client = server.client();
    client.push_blob("memory/up", &bytes("warm", 3 << 20));
    let rest = resident(&server);
    reset_peak(&server);
    let content = bytes("upload", 12 << 20);
    let mut uploads: Vec<Connection> = Vec::new();
    for _ in 0..UPLOADS {
        let session = client.begin_upload("memory/up");
        let mut connection = server.connect();
        let request = Request::new("PATCH", session)
            .header("Expect", "100-continue")
            .header("Content-Length", "1000000000");
        connection.write(request.head().as_bytes()).expect("the head is sent");
        assert_eq!(connection.receive_head().expect("an interim response").status, 100);
        uploads.push(connection);
    }
    // All of them send in turns, far more than the sockets hold; so the server has taken most of it.
    for part in content.chunks(1 << 20) {
        for connection in &mut uploads {
            connection.write(part).expect("the server reads");
        }
    }
    let used = peak(&server).saturating_sub(rest);
    assert!(used <= bound(UPLOADS * 4 * MIB), "{} KiB for each of {UPLOADS} uploads", used / KIB / UPLOADS);
}

#[test]
fn a_download_takes_little_memory_however_slow_it_is() {
    const DOWNLOADS: u64 = 64;
    let server = Server::start();
    let client = server.client();
    let content = bytes("download", 32 << 20);
    let digest = client.push_blob("memory/down", &content);
    client
        .send(Request::new("GET", format!("/v2/memory/down/blobs/{digest}")).header("Range", "bytes=0-9"))
        .expect(206);
    let rest = resident(&server);
    reset_peak(&server);
    let request = Request::new("GET", format!("/v2/memory/down/blobs/{digest}"));
    let mut downloads: Vec<Connection> = Vec::new();
    let mut part = vec![0; 1 << 20];
    for _ in 0..DOWNLOADS {
        let mut connection = server.connect();
        connection.send(&request);
        assert_eq!(connection.receive_head().expect("a response begins").status, 200);
        downloads.push(connection);
    }
    for position in 0..8 {
        for connection in &mut downloads {
            connection.read_exact(&mut part).expect("the server sends");
            assert!(part == content[position << 20..(position + 1) << 20]);
        }
    }
    let used = peak(&server).saturating_sub(rest);
    assert!(
        used <= bound(DOWNLOADS * 256 * KIB),
        "{} KiB for each of {DOWNLOADS} downloads",
        used / KIB / DOWNLOADS
    );
    server.assert_alive();
}

#[test]
fn idle_connections_take_little_memory() {
    const CONNECTIONS: u64 = 500;
    let server = Server::start();
    server.assert_alive();
    let rest = resident(&server);
    reset_peak(&server);
    let ping = Request::new("GET", "/v2/");
    let mut connections: Vec<Connection> = (0..CONNECTIONS).map(|_| server.connect()).collect();
    for connection in &mut connections {
        connection.exchange(&ping).expect("a response").expect(200);
    }
    let used = peak(&server).saturating_sub(rest);
    assert!(
        used <= bound(CONNECTIONS * 64 * KIB),
        "{} KiB for each of {CONNECTIONS} connections",
        used / KIB / CONNECTIONS
    );
}
