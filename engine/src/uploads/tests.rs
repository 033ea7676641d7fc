//! Uploads through the engine's front door, on a real filesystem.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proptest::prelude::*;

use crate::collection::LeaseKey;
use crate::metadata::{INLINE_SIZE_MAX, Timestamp, UploadId};
use crate::oci::{Algorithm, ContentHasher, Digest, RepositoryName};
use crate::{
    Clock, Content, Core, Engine, EngineOptions, Environment, FinishError, ResumeError, UploadWriter, runtime,
};

fn options(root: &Path, direct_writes: bool) -> EngineOptions {
    EngineOptions {
        root: root.to_path_buf(),
        direct_writes,
        reserve_bytes: 0,
        cache_bytes: 1 << 20,
        buffer_bytes: 32 << 20,
        upload_expiry: Duration::from_secs(3600),
        quotas: crate::Quotas::default(),
    }
}

fn repository() -> RepositoryName {
    "team/app".parse().expect("valid")
}

/// Runs `test` with an engine on `root`, and closes it afterwards as the program does.
fn with_engine<T>(root: &Path, direct_writes: bool, test: impl AsyncFnOnce(Core) -> T) -> T {
    let engine = Engine::open(options(root, direct_writes), Environment::system()).expect("opens");
    let answer = runtime::run(async { test(engine.core().expect("a ring")).await }).expect("a runtime");
    engine.save_uploads().expect("saved");
    answer
}

/// Hands `content` to the session in one request. `known`: whether the length is told beforehand.
async fn send(upload: &mut UploadWriter, mut content: &[u8], known: bool) {
    loop {
        let left = |content: &[u8]| known.then_some(content.len() as u64);
        let mut buffer = upload.buffer(left(content)).await.expect("a buffer");
        let count = buffer.append(content);
        content = &content[count..];
        upload.write(buffer, left(content)).await.expect("written");
        if content.is_empty() {
            return;
        }
    }
}

async fn read(core: &Core, digest: &Digest) -> Option<Vec<u8>> {
    let snapshot = core.metadata().snapshot().expect("open");
    let repository = snapshot.repository(&repository()).expect("readable")?;
    let blob = core.open_blob(repository, digest).await.expect("readable")?;
    let mut bytes = Vec::new();
    match blob.content {
        Content::Inline(inline) => bytes.extend_from_slice(&inline),
        Content::File(file) => loop {
            let (count, buffer) =
                file.read_at(core.buffers().take(1 << 20), usize::MAX, bytes.len() as u64).await;
            if count.expect("readable") == 0 {
                break;
            }
            bytes.extend_from_slice(&buffer);
        },
    }
    assert_eq!(bytes.len() as u64, blob.size);
    Some(bytes)
}

/// Bytes that differ from one place to the next, so that a piece at the wrong place shows.
fn content(len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect()
}

fn files_below(root: &Path) -> usize {
    let mut count = 0;
    for entry in std::fs::read_dir(root).expect("a directory").map(|entry| entry.expect("readable")) {
        count += if entry.path().is_dir() { files_below(&entry.path()) } else { 1 };
    }
    count
}

/// What a history does to a session.
#[derive(Clone, Debug)]
enum Step {
    /// A request that brings so many bytes, of a length that is told beforehand or not, and ends well.
    Append(usize, bool),
    /// A request that is taken back.
    Revert(usize),
    /// The program ends and starts again.
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let len = prop_oneof![
        Just(0),
        1..100usize,
        Just(INLINE_SIZE_MAX),
        4090..4100usize,
        60_000..70_000usize,
        1_000_000..3_000_000usize
    ];
    prop_oneof![
        4 => (len.clone(), any::<bool>()).prop_map(|(len, known)| Step::Append(len, known)),
        1 => len.prop_map(Step::Revert),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// Whatever the pieces, the restarts and the requests that failed: the blob is what was sent.
    #[test]
    fn any_history_gives_the_content(
        steps in prop::collection::vec(step(), 1..7),
        direct in any::<bool>(),
        begun_as in prop::sample::select(&Algorithm::ALL),
        ended_as in prop::sample::select(&Algorithm::ALL),
    ) {
        let root = tempfile::tempdir().expect("a directory");
        let total = steps.iter().map(|step| if let Step::Append(len, _) = step { *len } else { 0 }).sum();
        let expected = content(total);
        let mut sent = 0;
        let id = with_engine(root.path(), direct, async |core| core.start_upload(&repository(), begun_as));
        for part in steps.split_inclusive(|step| matches!(step, Step::Restart)) {
            with_engine(root.path(), direct, async |core| {
                for step in part {
                    let mut upload = core.resume_upload(&repository(), id).expect("there");
                    assert_eq!(upload.size(), sent as u64);
                    match step {
                        Step::Append(len, known) => {
                            send(&mut upload, &expected[sent..sent + len], *known).await;
                            sent += len;
                            assert_eq!(upload.suspend().await.expect("saved"), sent as u64);
                        }
                        Step::Revert(len) => {
                            send(&mut upload, &vec![0xAA; *len], true).await;
                            upload.revert().await.expect("reverted");
                        }
                        Step::Restart => drop(upload.suspend().await.expect("saved")),
                    }
                }
            });
        }
        let digest = ContentHasher::digest(ended_as, &expected);
        with_engine(root.path(), direct, async |core| {
            let upload = core.resume_upload(&repository(), id).expect("there");
            let committed = upload.finish(digest).await.expect("the digest is right");
            assert_eq!((committed.size, committed.was_known), (total as u64, false));
            assert!(matches!(core.resume_upload(&repository(), id), Err(ResumeError::Unknown)));
        });
        with_engine(root.path(), direct, async |core| {
            assert_eq!(read(&core, &digest).await.as_deref(), Some(expected.as_slice()));
            assert_eq!(core.metadata().snapshot().expect("open").statistics().uploads, 0);
        });
        prop_assert_eq!(files_below(&root.path().join("uploads")), 0);
        let file = usize::from(total > INLINE_SIZE_MAX);
        prop_assert_eq!(files_below(&root.path().join("blobs")), file);
    }
}

#[test]
fn a_wrong_digest_leaves_nothing_behind() {
    for len in [10, 2_000_000] {
        let root = tempfile::tempdir().expect("a directory");
        with_engine(root.path(), true, async |core| {
            let id = core.start_upload(&repository(), Algorithm::Sha256);
            let mut upload = core.resume_upload(&repository(), id).expect("there");
            send(&mut upload, &content(len), true).await;
            let wrong = ContentHasher::digest(Algorithm::Sha256, b"something else");
            assert!(matches!(upload.finish(wrong).await, Err(FinishError::Digest { .. })));
            assert!(matches!(core.resume_upload(&repository(), id), Err(ResumeError::Unknown)));
            assert_eq!(read(&core, &wrong).await, None);
        });
        assert_eq!(files_below(&root.path().join("blobs")), 0);
        // What was being removed when the program ended is removed at the next start.
        with_engine(root.path(), true, async |_| {});
        assert_eq!(files_below(&root.path().join("uploads")), 0);
    }
}

#[test]
fn a_session_belongs_to_one_request_and_one_repository() {
    let root = tempfile::tempdir().expect("a directory");
    with_engine(root.path(), true, async |core| {
        let id = core.start_upload(&repository(), Algorithm::Sha256);
        let other: RepositoryName = "team/other".parse().expect("valid");
        assert!(matches!(core.resume_upload(&other, id), Err(ResumeError::Unknown)));
        assert!(matches!(core.upload_size(&other, id), Err(ResumeError::Unknown)));
        let mut upload = core.resume_upload(&repository(), id).expect("there");
        send(&mut upload, b"abc", true).await;
        match core.resume_upload(&repository(), id) {
            Err(ResumeError::Busy(busy)) => assert_eq!(busy.size(), 3),
            other => panic!("two requests have the session: {:?}", other.err()),
        }
        assert!(matches!(core.resume_upload(&other, id), Err(ResumeError::Unknown)));
        upload.suspend().await.expect("saved");
        assert_eq!(core.upload_size(&repository(), id).expect("there"), 3);
        core.resume_upload(&repository(), id).expect("there").cancel().await.expect("cancelled");
        assert!(matches!(core.upload_size(&repository(), id), Err(ResumeError::Unknown)));
        assert!(matches!(core.resume_upload(&repository(), UploadId([7; 16])), Err(ResumeError::Unknown)));
    });
}

#[test]
fn a_request_that_just_ends_leaves_the_session_as_it_was() {
    let root = tempfile::tempdir().expect("a directory");
    with_engine(root.path(), true, async |core| {
        let id = core.start_upload(&repository(), Algorithm::Sha256);
        let mut upload = core.resume_upload(&repository(), id).expect("there");
        send(&mut upload, b"abc", true).await;
        drop(upload);
        assert_eq!(core.resume_upload(&repository(), id).expect("there").size(), 0);
    });
}

#[test]
fn the_same_content_twice_is_stored_once() {
    let root = tempfile::tempdir().expect("a directory");
    let bytes = content(100_000);
    let digest = ContentHasher::digest(Algorithm::Sha256, &bytes);
    with_engine(root.path(), true, async |core| {
        for was_known in [false, true] {
            let id = core.start_upload(&repository(), Algorithm::Sha256);
            let mut upload = core.resume_upload(&repository(), id).expect("there");
            send(&mut upload, &bytes, true).await;
            assert_eq!(upload.finish(digest).await.expect("stored").was_known, was_known);
        }
        assert_eq!(read(&core, &digest).await, Some(bytes));
        // The second file is removed in the background.
        while files_below(&root.path().join("blobs")) > 1 {
            runtime::sleep(Duration::from_millis(1)).await;
        }
    });
}

#[test]
fn an_upload_that_would_fill_the_volume_is_refused_and_can_go_on_later() {
    let root = tempfile::tempdir().expect("a directory");
    let full = EngineOptions { reserve_bytes: u64::MAX / 2, ..options(root.path(), true) };
    let engine = Engine::open(full, Environment::system()).expect("opens");
    let id = runtime::run(async {
        let core = engine.core().expect("a ring");
        assert!(!core.has_room(0).expect("readable"));
        let id = core.start_upload(&repository(), Algorithm::Sha256);
        let mut upload = core.resume_upload(&repository(), id).expect("there");
        let mut buffer = upload.buffer(Some(1 << 20)).await.expect("a buffer");
        buffer.append(&content(1 << 16));
        let refused = upload.write(buffer, Some((1 << 20) - (1 << 16))).await;
        assert!(matches!(refused, Err(crate::EngineError::Full)));
        upload.revert().await.expect("reverted");
        id
    });
    let id = id.expect("a runtime");
    engine.save_uploads().expect("saved");
    drop(engine);
    with_engine(root.path(), true, async |core| {
        assert_eq!(core.resume_upload(&repository(), id).expect("there").size(), 0);
    });
}

/// Every file below `root`.
fn files(root: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(root).expect("a directory").map(|entry| entry.expect("readable").path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn a_push_heals_a_blob_whose_file_is_gone_or_cut() {
    let root = tempfile::tempdir().expect("a directory");
    let bytes = content(100_000);
    let digest = ContentHasher::digest(Algorithm::Sha256, &bytes);
    let harms: [fn(&Path); 3] = [
        |_| (),
        |file| std::fs::remove_file(file).expect("removed"),
        |file| std::fs::File::options().write(true).open(file).and_then(|file| file.set_len(5)).expect("cut"),
    ];
    with_engine(root.path(), true, async |core| {
        for harm in harms {
            files(&root.path().join("blobs")).iter().for_each(|file| harm(file));
            if files(&root.path().join("blobs")).is_empty() {
                assert_eq!(read(&core, &digest).await, None, "whoever is told so pushes it again");
            }
            let mut upload = core.upload_at_once(&repository(), Algorithm::Sha256);
            send(&mut upload, &bytes, true).await;
            upload.finish(digest).await.expect("stored");
            assert_eq!(read(&core, &digest).await.as_ref(), Some(&bytes));
            while files_below(&root.path().join("blobs")) > 1 {
                runtime::sleep(Duration::from_millis(1)).await;
            }
        }
    });
}

#[test]
fn dying_between_the_name_and_the_commit_leaves_a_session_that_goes_on() {
    let root = tempfile::tempdir().expect("a directory");
    let bytes = content(100_000);
    let digest = ContentHasher::digest(Algorithm::Sha256, &bytes);
    let id = with_engine(root.path(), true, async |core| {
        let id = core.start_upload(&repository(), Algorithm::Sha256);
        let mut upload = core.resume_upload(&repository(), id).expect("there");
        send(&mut upload, &bytes, true).await;
        upload.suspend().await.expect("saved");
        id
    });
    // What `finish` has done when the process dies before the commit.
    let file = files(&root.path().join("uploads")).pop().expect("the session's file");
    let file_id = file.file_name().and_then(|name| name.to_str()).expect("an id").parse().expect("an id");
    std::fs::hard_link(&file, root.path().join(crate::layout::blob(&digest, file_id))).expect("linked");
    with_engine(root.path(), true, async |core| {
        let upload = core.resume_upload(&repository(), id).expect("there");
        assert_eq!(upload.finish(digest).await.expect("stored").size, 100_000);
        assert_eq!(read(&core, &digest).await, Some(bytes));
    });
}

#[test]
fn a_session_whose_file_has_lost_its_end_becomes_no_blob() {
    for direct_writes in [true, false] {
        let root = tempfile::tempdir().expect("a directory");
        let content = content(4 << 20);
        let digest = ContentHasher::digest(Algorithm::Sha256, &content);
        let (first, second) = content.split_at(2 << 20);
        with_engine(root.path(), direct_writes, async |core| {
            let id = core.start_upload(&repository(), Algorithm::Sha256);
            let mut upload = core.resume_upload(&repository(), id).expect("free");
            send(&mut upload, first, true).await;
            upload.suspend().await.expect("saved");
            let file = files(&root.path().join("uploads")).pop().expect("a file");
            let file = std::fs::File::options().write(true).open(file).expect("opens");
            file.set_len(1 << 20).expect("cut");

            let mut upload = core.resume_upload(&repository(), id).expect("free");
            assert!(upload.buffer(Some(second.len() as u64)).await.is_err());
            upload.revert().await.expect("given back");
            // Nor by an end without more content.
            let digest_of_first = ContentHasher::digest(Algorithm::Sha256, first);
            let upload = core.resume_upload(&repository(), id).expect("free");
            assert!(matches!(upload.finish(digest_of_first).await, Err(FinishError::Engine(_))));
            for digest in [digest, digest_of_first] {
                assert_eq!(read(&core, &digest).await, None);
            }
        });
    }
}

#[test]
fn an_upload_that_ends_when_the_registry_is_read_only_is_kept() {
    for (direct_writes, size) in [(true, 3 << 20), (false, 3 << 20), (true, 100)] {
        let root = tempfile::tempdir().expect("a directory");
        let bytes = content(size);
        let digest = ContentHasher::digest(Algorithm::Sha512, &bytes);
        let (first, second) = bytes.split_at(size / 2);
        with_engine(root.path(), direct_writes, async |core| {
            let id = core.start_upload(&repository(), Algorithm::Sha256);
            let mut upload = core.resume_upload(&repository(), id).expect("free");
            send(&mut upload, first, true).await;
            upload.suspend().await.expect("saved");
            let mut upload = core.resume_upload(&repository(), id).expect("free");
            send(&mut upload, second, true).await;
            // Comes after the last look of whoever receives.
            let held =
                core.hold_writes("jane".into(), "a test".into(), Duration::from_secs(60), Duration::ZERO);
            held.await.expect("saved").expect("nobody else");
            assert!(matches!(upload.finish(digest).await, Err(FinishError::Held(_))));
            assert!(read(&core, &digest).await.is_none());
            assert_eq!(core.upload_size(&repository(), id).expect("there"), size as u64);

            core.release_writes(None).await.expect("saved").expect("whoever it is");
            let upload = core.resume_upload(&repository(), id).expect("free");
            upload.finish(digest).await.expect("stored");
            assert!(read(&core, &digest).await == Some(bytes.clone()));
        });
    }
}

#[test]
fn what_is_asked_for_in_vain_is_not_leased() {
    let root = tempfile::tempdir().expect("a directory");
    let bytes = content(100_000);
    let [digest, other] = [&bytes[..], b"not there"].map(|it| ContentHasher::digest(Algorithm::Sha256, it));
    with_engine(root.path(), true, async |core| {
        let mut upload = core.upload_at_once(&repository(), Algorithm::Sha256);
        send(&mut upload, &bytes, true).await;
        upload.finish(digest).await.expect("stored");
        let id = core.metadata().snapshot().expect("open").repository(&repository()).expect("readable");
        let id = id.expect("there");
        let is_leased = |digest| core.shared().leases.is_fresh(LeaseKey::new(id, digest));
        assert!(core.open_blob(id, &digest).await.expect("readable").is_some() && is_leased(&digest));
        assert!(core.open_blob(id, &other).await.expect("readable").is_none() && !is_leased(&other));
        assert!(core.manifest(id, &other).await.expect("readable").is_none() && !is_leased(&other));
    });
}

#[test]
fn a_session_that_waits_takes_no_more_space_than_it_has() {
    use std::os::unix::fs::MetadataExt as _;
    let root = tempfile::tempdir().expect("a directory");
    with_engine(root.path(), true, async |core| {
        let id = core.start_upload(&repository(), Algorithm::Sha256);
        for len in [INLINE_SIZE_MAX + 1, 10] {
            let mut upload = core.resume_upload(&repository(), id).expect("there");
            send(&mut upload, &content(len), false).await;
            upload.suspend().await.expect("saved");
            let mut upload = core.resume_upload(&repository(), id).expect("there");
            send(&mut upload, &content(3_000_000), false).await;
            upload.revert().await.expect("reverted");
            let file = files(&root.path().join("uploads")).pop().expect("the session's file");
            let allocated = std::fs::metadata(file).expect("there").blocks() * 512;
            assert!(allocated <= 128 << 10, "{allocated} bytes for a few thousand");
        }
    });
}

#[test]
fn a_session_that_is_saved_while_it_is_taken_is_gone_when_it_is_cancelled() {
    let root = tempfile::tempdir().expect("a directory");
    with_engine(root.path(), true, async |core| {
        let id = core.start_upload(&repository(), Algorithm::Sha256);
        let upload = core.resume_upload(&repository(), id).expect("there");
        let record = core.new_upload(&repository(), Algorithm::Sha256);
        // What `save_waiting_uploads` has queued before the session was taken.
        core.metadata().write(move |transaction| transaction.save_upload(id, &record)).await.expect("saved");
        upload.cancel().await.expect("cancelled");
        assert!(matches!(core.upload_size(&repository(), id), Err(ResumeError::Unknown)));
    });
}

#[test]
fn an_upload_at_once_leaves_no_session_whatever_happens() {
    let root = tempfile::tempdir().expect("a directory");
    with_engine(root.path(), true, async |core| {
        for len in [10, 100_000] {
            let mut upload = core.upload_at_once(&repository(), Algorithm::Sha256);
            send(&mut upload, &content(len), true).await;
            let id = upload.id();
            upload.suspend().await.expect("ended");
            assert!(matches!(core.upload_size(&repository(), id), Err(ResumeError::Unknown)));
            let mut upload = core.upload_at_once(&repository(), Algorithm::Sha256);
            send(&mut upload, &content(len), true).await;
            upload.revert().await.expect("ended");
        }
        while files_below(&root.path().join("uploads")) > 0 {
            runtime::sleep(Duration::from_millis(1)).await;
        }
    });
}

/// A clock that stands still until it is moved.
#[derive(Debug, Default)]
struct StoppedClock(AtomicU64);

impl Clock for StoppedClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::Relaxed))
    }
}

#[test]
fn a_session_without_progress_expires() {
    let root = tempfile::tempdir().expect("a directory");
    let clock = Arc::new(StoppedClock::default());
    let environment = Environment { clock: clock.clone(), ..Environment::system() };
    let engine = Engine::open(options(root.path(), true), environment).expect("opens");
    let expiry_ms = 3_600_000;
    runtime::run(async {
        let core = engine.core().expect("a ring");
        let sent = core.start_upload(&repository(), Algorithm::Sha256);
        let mut upload = core.resume_upload(&repository(), sent).expect("there");
        send(&mut upload, &content(100_000), true).await;
        upload.suspend().await.expect("saved");
        let begun = core.start_upload(&repository(), Algorithm::Sha256);

        clock.0.store(expiry_ms, Ordering::Relaxed);
        core.save_waiting_uploads().await.expect("saved");
        core.expire_uploads().await.expect("looked at");
        assert_eq!(core.upload_size(&repository(), sent).expect("there"), 100_000);
        let busy = core.resume_upload(&repository(), sent).expect("there");
        clock.0.store(expiry_ms + 1, Ordering::Relaxed);
        core.expire_uploads().await.expect("looked at");
        assert!(matches!(core.upload_size(&repository(), begun), Err(ResumeError::Unknown)));
        assert_eq!(busy.suspend().await.expect("one that is being written to does not expire"), 100_000);
        core.expire_uploads().await.expect("looked at");
        assert!(matches!(core.upload_size(&repository(), sent), Err(ResumeError::Unknown)));
        while files_below(&root.path().join("uploads")) > 0 {
            runtime::sleep(Duration::from_millis(1)).await;
        }
    })
    .expect("a runtime");
}

#[test]
fn a_root_belongs_to_one_engine() {
    let root = tempfile::tempdir().expect("a directory");
    let _engine = Engine::open(options(root.path(), true), Environment::system()).expect("opens");
    let second = Engine::open(options(root.path(), true), Environment::system()).err().expect("refused");
    assert!(second.to_string().contains("another process"), "{second}");
}
