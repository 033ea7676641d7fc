//! Checks what happens when the disk is full: pushes are refused with an error that says so, everything else goes on,
//! nothing is lost, and pushes work again as soon as there is room. Needs root, to mount a small file system.

use std::fs::{self, File};
use std::path::PathBuf;

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use tests::client::{Client, Way, location, with_query};
use tests::content::{Manifest, artifact, bytes, sha256};
use tests::http::{Request, Response};
use tests::server::{Launch, Server};
use tests::volume::Volume;

const MIB: u64 = 1 << 20;

/// A server on a file system of its own, which can be filled up by a ballast beside the server's root.
struct Tight {
    // Dropped in this order: the server ends before its file system goes.
    server: Server,
    volume: Volume,
}

impl Tight {
    fn new(reserve: &str) -> Self {
        let volume = Volume::ext4(300);
        let config = format!("storage: {{reserve: {reserve}}}\n");
        let server = Launch::new().root(volume.path().join("root")).config(config).start();
        Self { server, volume }
    }

    fn ballast(&self) -> PathBuf {
        self.volume.path().join("ballast")
    }

    fn free_bytes(&self) -> u64 {
        let stat = statvfs(self.volume.path()).expect("the volume is mounted");
        stat.f_bavail * stat.f_frsize
    }

    /// Takes all but so many bytes of the volume.
    fn leave(&self, left: u64) {
        let file = File::create(self.ballast()).expect("a file for the ballast");
        let size = self.free_bytes().checked_sub(left).expect("that much is free");
        fallocate(&file, FallocateFlags::empty(), 0, size).expect("room for the ballast");
    }

    fn relieve(&self) {
        fs::remove_file(self.ballast()).expect("there is a ballast");
    }
}

/// Fails the test unless this is the refusal of a full disk.
#[track_caller]
fn assert_full(response: Response) {
    let response = response.expect_any(&[503, 507]);
    response.error_codes();
}

/// Fails the test unless everything but pushing works.
fn assert_serves(client: &Client, image: &Manifest, blob: &[u8]) {
    client.get("/v2/").expect(200);
    client.assert_manifest("full/kept", "latest", image);
    client.assert_blob("full/kept", &sha256(blob), blob);
    client.head(format!("/v2/full/kept/blobs/{}", sha256(blob))).expect(200);
    assert!(client.tags("full/kept").contains(&"latest".to_owned()));
    client.get("/v2/_catalog").expect(200);
    client.get(format!("/v2/full/kept/referrers/{}", image.digest())).expect(200);
}

#[test]
fn with_a_reserve_pushes_are_refused_early_and_all_else_goes_on() {
    let tight = Tight::new("32MiB");
    let client = tight.server.client();
    let blob = bytes("kept", 5 << 20);
    client.push_blob("full/kept", &blob);
    let image = client.push_image("full/kept", "latest", "kept");
    client.push_manifest("full/kept", "extra", &image);
    let deleted = client.push_blob("full/kept", &bytes("to be deleted", 1 << 20));

    // A push larger than what is left beside the reserve is refused before its content comes.
    tight.leave(40 * MIB);
    let large = bytes("large", 20 << 20);
    let promise = Request::new("POST", with_query("/v2/full/new/blobs/uploads/", "digest", &sha256(&large)));
    let promise = promise.header("Expect", "100-continue").header("Content-Length", large.len().to_string());
    let mut connection = tight.server.connect();
    connection.write(promise.head().as_bytes()).expect("the head is sent");
    assert_full(connection.receive("POST").expect("a response"));
    tight.relieve();

    tight.leave(16 * MIB);
    for way in Way::ALL {
        let content = bytes(&format!("{way:?}"), 100_000);
        let uploads = format!("/v2/full/new/blobs/uploads/?digest={}", sha256(&content));
        match way {
            Way::Post => assert_full(client.send(Request::new("POST", uploads).body(&content[..]))),
            _ => assert_full(client.post("/v2/full/new/blobs/uploads/")),
        }
    }
    assert_serves(&client, &image, &blob);
    client.delete("/v2/full/kept/manifests/extra").expect(202);
    client.delete(format!("/v2/full/kept/blobs/{deleted}")).expect(202);
    assert_serves(&client, &image, &blob);

    tight.relieve();
    let image = client.push_image("full/new", "latest", "room again");
    client.assert_manifest("full/new", "latest", &image);
    client.push_blob("full/new", &large);
    client.assert_blob("full/new", &sha256(&large), &large);
}

#[test]
fn an_upload_that_meets_the_end_of_the_disk_can_go_on_later() {
    for reserve in ["0", "16MiB"] {
        let tight = Tight::new(reserve);
        let client = tight.server.client();
        let content = bytes("mid-patch", 60 << 20);
        let session = client.begin_upload("full/session");
        let session = location(&client.patch_range(&session, &content, 0..1 << 20).expect(202));
        tight.leave(30 * MIB);
        // With chunked coding nobody knows in advance how much will come.
        let patch = Request::new("PATCH", &session).chunked(content[1 << 20..].chunks(1 << 20));
        let refused = client.send(patch);
        assert_full(refused);
        let kept = client.upload_size(&session);
        assert!((1 << 20..content.len()).contains(&kept), "{kept}");
        client.get("/v2/").expect(200);
        tight.relieve();
        let status = client.get(&session).expect(204);
        let session =
            location(&client.patch_range(location(&status), &content, kept..content.len()).expect(202));
        client.put(with_query(&session, "digest", &sha256(&content)), b"").expect(201);
        client.assert_blob("full/session", &sha256(&content), &content);
    }
}

#[test]
fn without_a_reserve_a_full_disk_loses_nothing() {
    let mut tight = Tight::new("0");
    let client = tight.server.client();
    let blob = bytes("kept", 5 << 20);
    client.push_blob("full/kept", &blob);
    let image = client.push_image("full/kept", "latest", "kept");
    tight.leave(24 * MIB);

    // Pushes of all sizes, until large and small ones are refused.
    let mut confirmed = Vec::new();
    for length in [7 << 20, 300_000, 5000] {
        let refused = (0..20_000).find_map(|number| {
            let content = bytes(&format!("{length}/{number}"), length);
            let way = [Way::Post, Way::PostPut, Way::Streamed][number % 3];
            let response = try_push(&client, way, &content);
            if response.status == 201 {
                confirmed.push((sha256(&content), length, number));
                return None;
            }
            Some(response)
        });
        assert_full(refused.expect("the disk has an end"));
    }
    assert_serves(&client, &image, &blob);
    let manifest = Manifest::new(&artifact("a/b", &"x".repeat(1 << 20)));
    client.put_manifest("full/kept", "more", &manifest).expect_any(&[201, 404, 503, 507]);
    assert_serves(&client, &image, &blob);

    tight.relieve();
    client.push_blob("full/new", &bytes("room again", 1 << 20));
    let again = client.push_image("full/new", "latest", "room again");
    client.assert_manifest("full/new", "latest", &again);
    tight.server.kill();
    tight.server.restart();
    let client = tight.server.client();
    assert_serves(&client, &image, &blob);
    for (digest, length, number) in confirmed {
        client.assert_blob("full/fill", &digest, &bytes(&format!("{length}/{number}"), length));
    }
}

/// Pushes a blob in that way, and gives the first response that is no success, or else the last.
fn try_push(client: &Client, way: Way, content: &[u8]) -> Response {
    let uploads = "/v2/full/fill/blobs/uploads/";
    let digest = sha256(content);
    if way == Way::Post {
        return client.send(Request::new("POST", with_query(uploads, "digest", &digest)).body(content));
    }
    let begun = client.post(uploads);
    if begun.status != 202 {
        return begun;
    }
    let mut session = location(&begun);
    let mut rest = content;
    if way == Way::Streamed {
        let patched = client.send(Request::new("PATCH", &session).chunked(content.chunks(100_000)));
        if patched.status != 202 {
            client.delete(&session);
            return patched;
        }
        session = location(&patched);
        rest = b"";
    }
    let response = client.put(with_query(&session, "digest", &digest), rest);
    if response.status != 201 {
        client.delete(&session);
    }
    response
}

#[test]
fn a_server_starts_and_serves_on_a_full_disk() {
    let mut tight = Tight::new("16MiB");
    let client = tight.server.client();
    let blob = bytes("kept", 5 << 20);
    client.push_blob("full/kept", &blob);
    let image = client.push_image("full/kept", "latest", "kept");
    tight.leave(2 * MIB);
    for is_killed in [true, false] {
        if is_killed {
            tight.server.kill();
        } else {
            assert!(tight.server.stop().success());
        }
        tight.server.restart();
        let client = tight.server.client();
        assert_serves(&client, &image, &blob);
        assert_full(client.post("/v2/full/new/blobs/uploads/"));
    }
    tight.relieve();
    tight.server.client().push_image("full/new", "latest", "room again");
}
