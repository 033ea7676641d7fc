//! Checks that the registry keeps its promises on every kind of ground it may stand on: with io_uring and without, with
//! direct writes and through the page cache, on file systems that know both and on those that don't.

use tests::client::{Way, location, range_up_to, with_query};
use tests::content::{DIGESTS, bytes, sha256};
use tests::http::Request;
use tests::server::{Launch, Server};
use tests::volume::Volume;

/// Pushes, pulls, breaks off, kills and restarts.
fn assert_keeps_promises(server: &mut Server) {
    // Around the limits of what is kept in the metadata, of buffers, and of windows.
    const LENGTHS: [usize; 9] =
        [0, 1, 4000, 4001, 131_073, (1 << 20) - 1, (1 << 20) + 1, 5 << 20, (6 << 20) + 4097];
    let client = server.client();
    let longest = bytes("storage", LENGTHS[LENGTHS.len() - 1]);
    let contents = LENGTHS.map(|length| &longest[..length]);
    for (position, content) in contents.into_iter().enumerate() {
        for digest_of in DIGESTS {
            let way = Way::ALL[position % Way::ALL.len()];
            client.push_blob_by(way, "storage/a", content, &digest_of(content)).expect(201);
        }
    }
    let image = client.push_image("storage/a", "latest", "storage");
    let large = bytes("unfinished", 4 << 20);
    let session = client.begin_upload("storage/a");
    let session = location(&client.patch_range(session, &large, 0..2_500_001).expect(202));
    let mut broken = server.connect();
    let sent = Request::new("PATCH", client.begin_upload("storage/a")).body(&large[..]).bytes();
    broken.write(&sent[..3 << 20]).expect("a part is sent");

    for is_killed in [false, true] {
        if is_killed {
            server.kill();
            server.restart();
        }
        let client = server.client();
        for content in contents {
            for digest_of in DIGESTS {
                client.assert_blob("storage/a", &digest_of(content), content);
            }
            if content.len() > 2 {
                let request = Request::new("GET", format!("/v2/storage/a/blobs/{}", sha256(content)));
                let part = content.len() / 3..content.len() - 1;
                let range = format!("bytes={}-{}", part.start, part.end - 1);
                assert!(client.send(request.header("Range", range)).expect(206).body == content[part]);
            }
        }
        client.assert_manifest("storage/a", "latest", &image);
        let status = client.get(&session).expect(204);
        assert_eq!(status.must("Range"), range_up_to(2_500_001));
    }
    let client = server.client();
    let session = location(&client.patch_range(session, &large, 2_500_001..large.len()).expect(202));
    client.put(with_query(&session, "digest", &sha256(&large)), b"").expect(201);
    client.assert_blob("storage/a", &sha256(&large), &large);
    for content in contents {
        client.delete(format!("/v2/storage/a/blobs/{}", sha256(content))).expect(202);
    }
    assert!(server.stop().success());
}

#[test]
fn with_io_uring_where_there_is_one() {
    assert_keeps_promises(&mut Server::start());
}

#[test]
fn without_io_uring() {
    let mut server = Launch::new().without_io_uring().start();
    assert!(!server.has_io_uring());
    assert_keeps_promises(&mut server);
}

#[test]
fn with_direct_writes() {
    assert_keeps_promises(&mut Launch::new().config("storage: {writes: direct}\n").start());
}

#[test]
fn with_buffered_writes() {
    assert_keeps_promises(&mut Launch::new().config("storage: {writes: buffered}\n").start());
}

#[test]
fn with_buffered_writes_and_without_io_uring() {
    let launch = Launch::new().config("storage: {writes: buffered}\n");
    assert_keeps_promises(&mut launch.without_io_uring().start());
}

#[test]
fn on_a_file_system_in_memory() {
    let volume = Volume::tmpfs();
    let launch = Launch::new().config("storage: {reserve: 0}\n").root(volume.path().join("root"));
    assert_keeps_promises(&mut launch.start());
}

#[test]
fn on_ext4() {
    let volume = Volume::ext4(300);
    let launch = Launch::new().config("storage: {reserve: 0}\n").root(volume.path().join("root"));
    assert_keeps_promises(&mut launch.start());
}

#[test]
fn on_a_single_thread_and_on_many() {
    for threads in ["1", "7"] {
        assert_keeps_promises(&mut Launch::new().env("PAYLOAD_REGISTRY_THREADS", threads).start());
    }
}

#[test]
fn what_was_written_in_one_way_can_be_read_in_another() {
    let dir = tempfile::tempdir().expect("a directory");
    let root = dir.path().join("root");
    let contents: Vec<Vec<u8>> = (0..4).map(|number| bytes(&format!("way {number}"), 2_000_001)).collect();
    let direct = || Launch::new().root(&root).config("storage: {writes: direct}\n");
    let buffered = || Launch::new().root(&root).config("storage: {writes: buffered}\n");
    let launches = [direct(), buffered().without_io_uring(), buffered(), direct().without_io_uring()];
    let mut session = None;
    for (position, launch) in launches.into_iter().enumerate() {
        let mut server = launch.start();
        let client = server.client();
        client.push_blob("storage/ways", &contents[position]);
        for content in &contents[..=position] {
            client.assert_blob("storage/ways", &sha256(content), content);
        }
        // One upload goes on through all of them.
        let target = session.unwrap_or_else(|| client.begin_upload("storage/ways"));
        let whole = contents.concat();
        let patched =
            client.patch_range(target, &whole, position * 2_000_001..(position + 1) * 2_000_001).expect(202);
        session = Some(location(&patched));
        server.kill();
    }
    let server = direct().start();
    let whole = contents.concat();
    let close = with_query(&session.expect("a session"), "digest", &sha256(&whole));
    server.client().put(close, b"").expect(201);
    server.client().assert_blob("storage/ways", &sha256(&whole), &whole);
}
