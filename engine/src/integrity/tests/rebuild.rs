use super::*;
use crate::OpenError;

fn fill(engine: &Engine) -> Vec<Digest> {
    let mut layers = Vec::new();
    for number in 0..30 {
        let repository = format!("team/app-{}", number % 3);
        let config = place(engine, &repository, format!("{{{number}}}").as_bytes());
        let layer = place(engine, &repository, &bytes(number, 5000));
        let tags = [format!("v{number}"), "latest".to_owned()];
        let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
        let manifest = put(engine, &repository, &image(&[config, layer], None), &tags).expect("complete");
        put(engine, &repository, &index(&[manifest]), &[]).expect("complete");
        layers.push(layer);
    }
    layers
}

fn rows(engine: &Engine) -> Vec<(&'static str, Vec<u8>, Vec<u8>)> {
    let rows = engine.metadata().snapshot().expect("open").all_rows().expect("readable");
    rows.into_iter().filter(|(table, ..)| !["state", "tag_changes"].contains(table)).collect()
}

fn again(root: &Path, replace: bool) -> Result<RebuildReport, RebuildError> {
    let options = RebuildOptions { replace, without_export: false, cache_bytes: 1 << 20 };
    rebuild(root, &options, &Environment::system(), &on_and_on)
}

#[test]
fn an_export_gives_the_same_store() {
    let root = tempfile::tempdir().expect("a directory");
    let engine = open(root.path(), true);
    let layers = fill(&engine);
    let report = engine.export(0, &on_and_on).expect("written");
    assert_eq!(report.bytes, std::fs::metadata(root.path().join(layout::EXPORT)).expect("there").len());
    let before = rows(&engine);
    assert!(report.rows >= before.len() as u64);
    let (statistics, sequence) = {
        let snapshot = engine.metadata().snapshot().expect("open");
        (snapshot.statistics(), snapshot.sequence())
    };
    drop(engine);

    assert!(matches!(again(root.path(), false), Err(RebuildError::Exists(_))));
    for part in ["metadata.redb", "metadata.log"] {
        std::fs::remove_file(root.path().join(part)).expect("removed");
    }
    let report = again(root.path(), false).expect("rebuilt");
    assert_eq!((report.missing.count, report.adopted.count, report.strange), (0, 0, 0));
    assert_eq!(report.export_sequence, sequence);
    assert!(report.replaced.is_empty());
    let engine = open(root.path(), true);
    assert!(rows(&engine) == before, "all rows are the same");
    let snapshot = engine.metadata().snapshot().expect("open");
    assert_eq!(snapshot.statistics(), statistics);
    assert!(snapshot.sequence() > sequence && snapshot.tag_changes_since(sequence, 1).is_err());
    assert_eq!(engine.check(&CheckOptions::default(), &on_and_on).expect("looks").findings.len(), 0);
    assert_eq!(pull(&engine, "team/app-1", &layers[1]), Some(bytes(1, 5000)));
    // Ids of repositories are not given out twice.
    push(&engine, "new", b"x");
    let id = engine.metadata().snapshot().expect("open").repository(&name("new")).expect("readable");
    assert!(id.expect("made").0 > 1 << 32);
}

#[test]
fn what_happened_since_the_export_is_found_out_as_far_as_it_goes() {
    let root = tempfile::tempdir().expect("a directory");
    let engine = open(root.path(), true);
    let layers = fill(&engine);
    engine.export(0, &on_and_on).expect("written");
    // Pushed, deleted, healed, and damaged since.
    let new = push(&engine, "team/new", &bytes(100, 9000)).0;
    let lost = path(&engine, root.path(), &layers[0]);
    std::fs::remove_file(&lost).expect("removed");
    cut(&path(&engine, root.path(), &layers[1]), 1);
    std::fs::remove_file(path(&engine, root.path(), &layers[2])).expect("removed");
    push(&engine, "team/app-2", &bytes(2, 5000));
    let spoilt = push(&engine, "team/new", &bytes(101, 9000)).0;
    flip(&path(&engine, root.path(), &spoilt), 8999);
    std::fs::write(root.path().join(layout::blob_directory(&new)).join("notes"), b"").expect("written");
    drop(engine);

    let report = again(root.path(), true).expect("rebuilt");
    assert_eq!((report.missing.count, report.adopted.count, report.strange), (2, 2, 2), "{report:?}");
    assert_eq!(report.replaced.len(), 2, "what was there is kept: {report:?}");
    let engine = open(root.path(), true);
    let snapshot = engine.metadata().snapshot().expect("open");
    assert_eq!(
        snapshot.repository(&name("team/new")).expect("readable"),
        None,
        "the export does not know it"
    );
    assert_eq!(snapshot.stored_blob(&new).expect("readable").expect("adopted").size, 9000);
    assert_eq!(snapshot.blob_repositories(&new).expect("readable").count(), 0);
    assert_eq!(snapshot.stored_blob(&spoilt).expect("readable"), None);
    assert_eq!(pull(&engine, "team/app-2", &layers[2]), Some(bytes(2, 5000)), "by the file that healed it");
    assert_eq!(pull(&engine, "team/app-0", &layers[0]), None);
    // A push finds what was adopted, and heals what is missing.
    assert!(push(&engine, "team/new", &bytes(100, 9000)).1);
    assert!(!push(&engine, "team/app-0", &bytes(0, 5000)).1);
    assert!(!push(&engine, "team/app-1", &bytes(1, 5000)).1);
    let report = engine.check(&CheckOptions::default(), &on_and_on).expect("looks");
    assert_eq!(report.faults(), 0, "{report:?}");
    assert_eq!(engine.metadata().snapshot().expect("open").statistics().damaged, 0);
}

#[test]
fn an_export_that_is_not_whole_is_refused_and_nothing_is_touched() {
    let root = tempfile::tempdir().expect("a directory");
    let engine = open(root.path(), true);
    fill(&engine);
    engine.export(0, &on_and_on).expect("written");
    drop(engine);
    let (export, metadata) = (root.path().join(layout::EXPORT), root.path().join(layout::METADATA));
    let whole = std::fs::read(&export).expect("readable");
    let before = std::fs::read(&metadata).expect("readable");
    let refused = |bytes: &[u8]| {
        std::fs::write(&export, bytes).expect("written");
        match again(root.path(), true) {
            Err(RebuildError::Export { source, .. }) => source,
            other => panic!("an export of {} bytes was not refused: {other:?}", bytes.len()),
        }
    };
    for len in [0, 20, 35] {
        assert!(matches!(refused(&whole[..len]), ExportError::NoExport), "{len}");
    }
    for len in [36, 40, 56, 1000, whole.len() - 20, whole.len() - 1] {
        assert!(matches!(refused(&whole[..len]), ExportError::Cut(_)), "{len}");
    }
    for at in (0..whole.len()).step_by(whole.len() / 50).chain([whole.len() - 1]) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        let error = refused(&bytes);
        assert!(!matches!(error, ExportError::Io(_)), "{at}: {error}");
    }
    assert!(std::fs::read(&metadata).expect("readable") == before);
    assert!(!root.path().join("metadata-rebuilt.redb").exists());
    std::fs::write(&export, &whole).expect("written");
    again(root.path(), true).expect("rebuilt");
}

#[test]
fn the_largest_manifest_that_may_be_comes_back() {
    const MANIFEST_MAX: usize = 64 << 20;
    let root = tempfile::tempdir().expect("a directory");
    let engine = open(root.path(), true);
    let mut digests: Vec<Digest> = (0..200).map(|number| place(&engine, "a", &bytes(number, 3900))).collect();
    digests.sort_unstable_by_key(|digest| digest.as_key().to_vec());
    // With others before it in its part of the export, in the order of the digests.
    let (large, content) = (digests[60], vec![b' '; MANIFEST_MAX]);
    let spoilt = engine
        .metadata()
        .write_blocking(move |transaction| transaction.spoil_content(&large, Some(&content)));
    spoilt.expect("committed");
    let before = rows(&engine);
    engine.export(0, &on_and_on).expect("written");
    drop(engine);
    again(root.path(), true).expect("rebuilt");
    assert!(rows(&open(root.path(), true)) == before, "all rows are the same");
}

#[test]
fn a_rebuild_or_an_export_that_is_stopped_has_done_nothing() {
    let root = tempfile::tempdir().expect("a directory");
    let engine = open(root.path(), true);
    for number in 0..400 {
        place(&engine, "a", &bytes(number, 2000));
    }
    let stop = |_| ControlFlow::Break(());
    assert!(matches!(engine.export(0, &stop), Err(ExportFailure::Stopped)));
    assert!(
        !root.path().join(layout::EXPORT).exists() && !root.path().join(layout::EXPORT_UNFINISHED).exists()
    );
    engine.export(0, &on_and_on).expect("written");
    let before = rows(&engine);
    drop(engine);
    let options = RebuildOptions { replace: true, without_export: false, cache_bytes: 1 << 20 };
    let stopped = rebuild(root.path(), &options, &Environment::system(), &stop);
    assert!(matches!(stopped, Err(RebuildError::Stopped)));
    let engine = open(root.path(), true);
    assert!(rows(&engine) == before);
    // Nobody rebuilds what is in use.
    assert!(matches!(again(root.path(), true), Err(RebuildError::Root(_))));
}

#[test]
fn a_root_that_has_lost_its_metadata_is_not_taken_for_a_new_one() {
    let root = tempfile::tempdir().expect("a directory");
    let engine = open(root.path(), true);
    let content = bytes(1, 5000);
    let digest = push(&engine, "a", &content).0;
    let options = engine.shared().options.clone();
    drop(engine);
    std::fs::remove_file(root.path().join(layout::METADATA)).expect("removed");
    let refused = Engine::open(options, Environment::system());
    assert!(matches!(refused, Err(OpenError::MetadataGone(_))));
    assert!(!root.path().join(layout::METADATA).exists());
    // There is no export either.
    assert!(matches!(again(root.path(), false), Err(RebuildError::NoExport(_))));
    let options = RebuildOptions { replace: false, without_export: true, cache_bytes: 1 << 20 };
    let report = rebuild(root.path(), &options, &Environment::system(), &on_and_on).expect("rebuilt");
    assert_eq!((report.adopted.count, report.export_made_at_ms), (1, None));
    let engine = open(root.path(), true);
    assert!(push(&engine, "a", &content).1);
    assert_eq!(pull(&engine, "a", &digest), Some(content));
}

#[test]
fn damage_of_the_metadata_is_found_where_nobody_looks_otherwise() {
    let root = tempfile::tempdir().expect("a directory");
    let none = verify(root.path(), 1 << 20);
    assert!(matches!(none, Err(VerifyError::Root(layout::RootError::NoMetadata(_)))), "{none:?}");
    assert_eq!(std::fs::read_dir(root.path()).expect("a directory").count(), 0, "nothing was made");
    let engine = open(root.path(), true);
    fill(&engine);
    assert!(matches!(verify(root.path(), 1 << 20), Err(VerifyError::Root(_))), "it is in use");
    drop(engine);
    assert!(verify(root.path(), 1 << 20).expect("sound"));
    let path = root.path().join(layout::METADATA);
    let whole = std::fs::read(&path).expect("readable");
    // In the midst of a name: what is there can be read, and is wrong.
    let at = whole.windows(10).rposition(|part| part == b"team/app-2").expect("somewhere");
    flip(&path, at as u64 + 9);
    let wrong = verify(root.path(), 1 << 20);
    assert!(matches!(wrong, Err(VerifyError::Damaged { .. })), "{wrong:?}");
    std::fs::write(&path, &whole).expect("written");
    assert!(verify(root.path(), 1 << 20).is_ok());
    assert_eq!(
        open(root.path(), true).check(&CheckOptions::default(), &on_and_on).expect("looks").faults(),
        0
    );
}

#[test]
fn sessions_that_have_ended_since_are_forgotten() {
    let root = tempfile::tempdir().expect("a directory");
    let engine = open(root.path(), true);
    let begin = || {
        on(&engine, async |core| {
            let id = core.start_upload(&name("a"), Algorithm::Sha256);
            let mut upload = core.resume_upload(&name("a"), id).expect("there");
            let mut buffer = upload.buffer(None).await.expect("a buffer");
            buffer.append(&bytes(1, 5000));
            upload.write(buffer, None).await.expect("written");
            upload.suspend().await.expect("saved");
            id
        })
    };
    let (kept, ended) = (begin(), begin());
    engine.export(0, &on_and_on).expect("written");
    let file =
        engine.metadata().snapshot().expect("open").upload(ended).expect("readable").expect("there").content;
    let crate::metadata::UploadContent::File(FileId(id)) = file else { panic!("it has a file") };
    std::fs::remove_file(root.path().join(layout::upload(FileId(id)))).expect("removed");
    drop(engine);
    again(root.path(), true).expect("rebuilt");
    let engine = open(root.path(), true);
    on(&engine, async |core| {
        assert_eq!(core.upload_size(&name("a"), kept).expect("there"), 5000);
        assert!(core.upload_size(&name("a"), ended).is_err());
        let mut upload = core.resume_upload(&name("a"), kept).expect("there");
        let mut buffer = upload.buffer(None).await.expect("a buffer");
        buffer.append(b"end");
        upload.write(buffer, None).await.expect("written");
        let content = [bytes(1, 5000), b"end".to_vec()].concat();
        upload.finish(ContentHasher::digest(Algorithm::Sha256, &content)).await.expect("stored");
    });
    assert_eq!(engine.metadata().snapshot().expect("open").statistics().uploads, 0);
}
