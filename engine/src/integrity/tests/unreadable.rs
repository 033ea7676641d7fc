//! Rows that cannot be read keep nobody from what does not need them.

use super::*;
use crate::collection::{CollectionOptions, CollectionReport, Mode};
use crate::metadata::{RepositoryId, UploadContent, UploadId, UploadRecord};

/// What no version has written.
const UNREADABLE: &[u8] = &[99, 1, 2];

/// Puts a row in place, or removes it, whatever is there.
fn tamper(engine: &Engine, table: &'static str, key: Vec<u8>, value: Option<&'static [u8]>) {
    let tampered =
        engine.metadata().write_blocking(move |transaction| transaction.tamper(table, &key, value));
    tampered.expect("committed");
}

/// The value of a row, as it is stored.
fn value(engine: &Engine, table: &str, key: &[u8]) -> Vec<u8> {
    let rows = engine.metadata().snapshot().expect("open").all_rows().expect("readable");
    let found = rows.into_iter().find(|(of, found, _)| *of == table && found == key);
    found.expect("a row").2
}

fn id(engine: &Engine, repository: &str) -> RepositoryId {
    let snapshot = engine.metadata().snapshot().expect("open");
    snapshot.repository(&name(repository)).expect("readable").expect("there")
}

/// The key of what a repository says of a digest.
fn key(engine: &Engine, repository: &str, kind: u8, digest: &Digest) -> Vec<u8> {
    [&id(engine, repository).0.to_be_bytes()[..], &[kind], digest.as_key()].concat()
}

fn collect(engine: &Engine) -> CollectionReport {
    engine.set_lease(Duration::ZERO);
    let options = CollectionOptions {
        mode: Mode::Online,
        untagged_age: Duration::ZERO,
        blob_age: Duration::ZERO,
        stray_age: Duration::ZERO,
        ..CollectionOptions::default()
    };
    engine.collect(&options, &()).expect("begins")
}

/// A session that has a file; its id, and the file.
fn save_upload(engine: &Engine, number: u8) -> (UploadId, PathBuf) {
    let (id, file) = (UploadId([number; 16]), FileId([number; 16]));
    let path = engine.shared().options.root.join(layout::upload(file));
    std::fs::write(&path, bytes(u64::from(number), 10_000)).expect("written");
    let record = UploadRecord {
        repository: name("a"),
        started_at: Timestamp(9),
        touched_at: Timestamp(9),
        size: 10_000,
        hash: ContentHasher::new(Algorithm::Sha256).save(),
        content: UploadContent::File(file),
    };
    let saved = engine.metadata().write_blocking(move |transaction| transaction.save_upload(id, &record));
    saved.expect("committed");
    (id, path)
}

#[test]
fn an_upload_session() {
    let root = tempfile::tempdir().expect("a directory");
    let engine = open(root.path(), true);
    let unused = place(&engine, "a", &bytes(1, 5000));
    let ((unreadable, file), (old, old_file)) = (save_upload(&engine, 1), save_upload(&engine, 2));
    let stray = root.path().join(layout::upload(FileId([3; 16])));
    std::fs::write(&stray, b"of nobody, as far as can be told").expect("written");
    tamper(&engine, "uploads", unreadable.0.to_vec(), Some(UNREADABLE));
    drop(engine);

    let engine = open(root.path(), true);
    assert!(file.exists() && stray.exists(), "either may be the session's");
    on(&engine, async |core| {
        assert_eq!(core.uploads().expect("readable").into_keys().collect::<Vec<_>>(), [old]);
        core.expire_uploads().await.expect("done");
        assert!(core.uploads().expect("readable").is_empty());
    });
    assert!(!old_file.exists());
    let report = collect(&engine);
    assert_eq!((report.failure, report.removed.contents.count, report.errors), (None, 1, 1));
    assert_eq!(record(&engine, &unused), None);
    assert!(file.exists() && stray.exists());

    engine.export(0, &on_and_on).expect("written");
    drop(engine);
    let options = RebuildOptions { replace: true, without_export: false, cache_bytes: 1 << 20 };
    rebuild(root.path(), &options, &Environment::system(), &on_and_on).expect("rebuilt");
    let engine = open(root.path(), true);
    assert_eq!(value(&engine, "uploads", &unreadable.0), UNREADABLE);
}

#[test]
fn what_is_known_of_content() {
    let root = tempfile::tempdir().expect("a directory");
    let engine = open(root.path(), true);
    let [unreadable, unused, kept] = [1, 2, 3].map(|number| place(&engine, "a", &bytes(number, 5000)));
    put(&engine, "a", &image(&[kept], None), &["v1"]).expect("complete");
    let files = [&unreadable, &unused].map(|digest| path(&engine, root.path(), digest));
    tamper(&engine, "digests", [unreadable.as_key(), b"b"].concat(), Some(UNREADABLE));
    // Nobody has it either.
    tamper(&engine, "repositories", key(&engine, "a", b'l', &unreadable), None);
    let id = id(&engine, "a").0.to_be_bytes();
    tamper(&engine, "digests", [unreadable.as_key(), b"l", &id].concat(), None);
    let report = collect(&engine);
    assert_eq!((report.failure, report.removed.contents.count, report.errors > 0), (None, 1, true));
    assert_eq!(files.map(|file| file.exists()), [true, false]);

    engine.export(0, &on_and_on).expect("written");
    drop(engine);
    let options = RebuildOptions { replace: true, without_export: false, cache_bytes: 1 << 20 };
    let report = rebuild(root.path(), &options, &Environment::system(), &on_and_on).expect("rebuilt");
    assert_eq!((report.missing.count, report.adopted.count), (0, 0));
    assert!(pull(&open(root.path(), true), "a", &kept).is_some());
}

#[test]
fn who_has_some_content_or_other() {
    let root = tempfile::tempdir().expect("a directory");
    let engine = open(root.path(), true);
    let unused = place(&engine, "a", &bytes(1, 5000));
    tamper(&engine, "digests", UNREADABLE.to_vec(), Some(&[]));
    let report = collect(&engine);
    assert!(report.failure.is_some(), "{report:?}");
    assert!(record(&engine, &unused).is_some(), "it may be somebody's");
    tamper(&engine, "digests", UNREADABLE.to_vec(), None);
    assert_eq!(collect(&engine).removed.contents.count, 1);
}

#[test]
fn the_hold_on_writes() {
    let root = tempfile::tempdir().expect("a directory");
    tamper(&open(root.path(), true), "state", b"r".to_vec(), Some(UNREADABLE));
    let engine = open(root.path(), true);
    on(&engine, async |core| {
        drop(core.begin_write().expect("nobody has said otherwise"));
        let (lasting, drain) = (Duration::from_secs(60), Duration::ZERO);
        let held = core.hold_writes("a".into(), "a test".into(), lasting, drain).await.expect("stored");
        assert!(held.is_ok() && core.begin_write().is_err());
        core.release_writes(Some("a".into())).await.expect("stored").expect("its own");
    });
    let rows = engine.metadata().snapshot().expect("open").all_rows().expect("readable");
    assert!(!rows.iter().any(|(table, key, _)| *table == "state" && key == b"r"), "it has gone with that");
}

#[test]
fn what_others_have_done() {
    let root = tempfile::tempdir().expect("a directory");
    let engine = open(root.path(), true);
    collect(&engine);
    engine.scrub(&ScrubOptions { bytes_per_second: 0, afresh: true }, &on_and_on).expect("done");
    assert_eq!(engine.collections().expect("readable").len(), 1);
    tamper(&engine, "state", b"s".to_vec(), Some(UNREADABLE));
    let rows = engine.metadata().snapshot().expect("open").all_rows().expect("readable");
    let (_, report, _) = rows.into_iter().find(|(table, ..)| *table == "collections").expect("one");
    tamper(&engine, "collections", report, Some(UNREADABLE));
    assert_eq!(engine.last_scrub().expect("readable"), None);
    assert_eq!(engine.collections().expect("readable"), []);
}

/// Two repositories that share a blob, each with one of its own that nothing needs and one that a tag needs.
struct Shared {
    shared: Digest,
    left_out: Digest,
    other: Digest,
}

fn share(engine: &Engine) -> Shared {
    let shared = place(engine, "team/left-out", &bytes(1, 5000));
    place(engine, "team/other", &bytes(1, 5000));
    let [left_out, needed] = [2, 3].map(|number| place(engine, "team/left-out", &bytes(number, 5000)));
    put(engine, "team/left-out", &image(&[needed], None), &["v1"]).expect("complete");
    put(engine, "team/left-out", &image(&[needed, needed], None), &[]).expect("complete");
    let other = place(engine, "team/other", &bytes(4, 5000));
    Shared { shared, left_out, other }
}

#[test]
fn a_row_of_a_repository() {
    let root = tempfile::tempdir().expect("a directory");
    let engine = open(root.path(), true);
    let Shared { shared, left_out, other } = share(&engine);
    let needed = ContentHasher::digest(Algorithm::Sha256, &bytes(3, 5000));
    let manifests = {
        let snapshot = engine.metadata().snapshot().expect("open");
        let manifests = snapshot.manifests(id(&engine, "team/left-out"), None).expect("readable");
        manifests.map(|manifest| manifest.expect("readable").0).collect::<Vec<_>>()
    };
    let links = [&shared, &left_out, &needed].map(|digest| key(&engine, "team/left-out", b'l', digest));
    let of_manifests = manifests.iter().map(|digest| key(&engine, "team/left-out", b'm', digest));
    let mut keys = links.into_iter().chain(of_manifests).peekable();
    while let Some(unreadable) = keys.next() {
        let before = value(&engine, "repositories", &unreadable).leak();
        tamper(&engine, "repositories", unreadable.clone(), Some(UNREADABLE));
        for _ in 0..2 {
            let report = collect(&engine);
            assert_eq!((&report.failure, report.errors), (&None, 1), "{report:?}");
            assert!(report.error_texts[0].starts_with("team/left-out was left out"), "{report:?}");
        }
        assert_eq!(record(&engine, &other), None, "what other repositories do not need goes");
        for kept in [&shared, &left_out, &needed].into_iter().chain(&manifests) {
            assert!(record(&engine, kept).is_some(), "{kept}");
        }
        let snapshot = engine.metadata().snapshot().expect("open");
        let holders = snapshot.blob_repositories(&shared).expect("readable").count();
        assert_eq!(holders, 1, "the other repository's link of it has gone");
        drop(snapshot);
        tamper(&engine, "repositories", unreadable, Some(before));
        if keys.peek().is_none() {
            let report = collect(&engine);
            assert_eq!((report.errors, report.removed.contents.count), (0, 3), "{report:?}");
            assert!(record(&engine, &needed).is_some() && record(&engine, &shared).is_none());
        } else {
            // For the next row.
            place(&engine, "team/other", &bytes(1, 5000));
            place(&engine, "team/other", &bytes(4, 5000));
        }
    }
}

#[test]
fn the_name_of_a_repository() {
    let root = tempfile::tempdir().expect("a directory");
    let engine = open(root.path(), true);
    let Shared { shared, left_out, other } = share(&engine);
    tamper(&engine, "names", b"team/left-out".to_vec(), Some(UNREADABLE));
    let report = collect(&engine);
    assert_eq!((&report.failure, report.errors), (&None, 1), "{report:?}");
    assert_eq!(
        [&shared, &left_out, &other].map(|digest| record(&engine, digest).is_some()),
        [true, true, false]
    );
}
