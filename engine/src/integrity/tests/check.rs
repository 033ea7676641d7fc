use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::metadata::{Transaction, UploadContent, UploadId, UploadRecord};

const LOOK: CheckOptions = CheckOptions { repair: false, stray_age: Duration::ZERO };
const REPAIR: CheckOptions = CheckOptions { repair: true, ..LOOK };

fn check(engine: &Engine) -> CheckReport {
    engine.check(&LOOK, &on_and_on).expect("looks")
}

/// What was found: kinds and how often.
fn found(report: &CheckReport) -> BTreeMap<FindingKind, u64> {
    report.findings.iter().map(|(kind, found)| (*kind, found.count)).collect()
}

fn change<T: Send + 'static>(
    engine: &Engine,
    work: impl FnOnce(&mut Transaction<'_>) -> Result<T, crate::metadata::MetadataError> + Send + 'static,
) -> T {
    engine.metadata().write_blocking(work).expect("committed")
}

/// A store with some of everything: blobs with files and without, images that share layers, an index, a referrer, tags that
/// were moved, a repository that shares, an upload session. Gives the layers.
fn fill(engine: &Engine) -> Vec<Digest> {
    let layers: Vec<Digest> = (0..6).map(|number| place(engine, "team/a", &bytes(number, 5000))).collect();
    let config = place(engine, "team/a", b"{}");
    let one = put(engine, "team/a", &image(&[config, layers[0], layers[1]], None), &["v1", "latest"]);
    let two = put(engine, "team/a", &image(&[config, layers[1], layers[2]], None), &["v2", "latest"]);
    let (one, two) = (one.expect("complete"), two.expect("complete"));
    put(engine, "team/a", &index(&[one, two]), &["all"]).expect("complete");
    put(engine, "team/a", &image(&[config, layers[3]], Some(&one)), &[]).expect("complete");
    place(engine, "b", b"{}");
    change(engine, move |transaction| {
        transaction.mount_blob(&name("b"), &layers_of(4), &name("team/a"), Timestamp(9))?;
        transaction.delete_tag(&name("team/a"), &tag("v1"), &TagCondition::Any, Timestamp(9))
    })
    .expect("unconditional");
    put(engine, "b", &image(&[config, layers[4]], None), &["b"]).expect("complete");
    let file = FileId([9; 16]);
    std::fs::write(engine.shared().options.root.join(layout::upload(file)), bytes(77, 10_000))
        .expect("written");
    let upload = UploadRecord {
        repository: name("b"),
        started_at: Timestamp(9),
        touched_at: Timestamp(9),
        size: 10_000,
        hash: ContentHasher::new(Algorithm::Sha256).save(),
        content: UploadContent::File(file),
    };
    change(engine, move |transaction| transaction.save_upload(UploadId([9; 16]), &upload));
    layers
}

fn layers_of(number: u64) -> Digest {
    ContentHasher::digest(Algorithm::Sha256, &bytes(number, 5000))
}

#[test]
fn a_store_that_is_right_has_no_findings() {
    let root = tempfile::tempdir().expect("a directory");
    let engine = open(root.path(), true);
    assert!(check(&engine).findings.is_empty());
    fill(&engine);
    let report = check(&engine);
    assert_eq!(found(&report), BTreeMap::new(), "{report:?}");
    assert_eq!(
        (report.examined.repositories, report.examined.contents, report.examined.manifests),
        (2, 12, 5)
    );
    assert_eq!(report.examined.files, 7);
    let report = engine.check(&REPAIR, &on_and_on).expect("looks");
    assert_eq!((report.repaired, report.left), (0, 0));
}

#[test]
fn files_are_compared_with_rows_both_ways() {
    let root = tempfile::tempdir().expect("a directory");
    let engine = open(root.path(), true);
    let layers = fill(&engine);
    std::fs::remove_file(path(&engine, root.path(), &layers[0])).expect("removed");
    cut(&path(&engine, root.path(), &layers[1]), 4999);
    let stray = root.path().join(layout::blob(&layers[2], FileId([7; 16])));
    std::fs::write(&stray, b"left by a process that died").expect("written");
    let strange = root.path().join(layout::blob_directory(&layers[2])).join("notes.txt");
    std::fs::write(&strange, b"of somebody else").expect("written");
    // The right name at the wrong place.
    let misplaced = root
        .path()
        .join("blobs/sha512/00")
        .join(path(&engine, root.path(), &layers[3]).file_name().expect("a name"));
    std::fs::write(&misplaced, b"x").expect("written");
    std::fs::create_dir(root.path().join("blobs/backup")).expect("made");
    let upload = std::fs::read_dir(root.path().join("uploads")).expect("a directory").next().expect("a file");
    std::fs::remove_file(upload.expect("readable").path()).expect("removed");
    std::fs::write(root.path().join(layout::upload(FileId([8; 16]))), b"x").expect("written");
    let empty = (0..=u8::MAX)
        .map(|first| root.path().join(layout::blob_directory_of(Algorithm::Sha512, first)))
        .find(|path| std::fs::read_dir(path).expect("a directory").next().is_none());
    std::fs::remove_dir(empty.as_ref().expect("some")).expect("removed");

    let expected = BTreeMap::from([
        (FindingKind::FileMissing, 1),
        (FindingKind::FileLength, 1),
        (FindingKind::UploadFile, 1),
        (FindingKind::StrayFile, 2),
        (FindingKind::StrangeFile, 3),
        (FindingKind::DirectoryMissing, 1),
    ]);
    let report = check(&engine);
    assert_eq!(found(&report), expected, "{report:?}");
    assert_eq!((report.faults(), report.left, report.repaired), (4, 4, 0));
    let young = engine.check(&CheckOptions::default(), &on_and_on).expect("looks");
    assert_eq!((young.findings.get(&FindingKind::StrayFile), young.young_strays), (None, 2));

    let report = engine.check(&REPAIR, &on_and_on).expect("looks");
    assert_eq!((found(&report), report.left, report.errors), (expected, 0, 0), "{report:?}");
    assert!(!stray.exists() && strange.exists() && misplaced.exists(), "what is not ours is left alone");
    assert_eq!(found(&check(&engine)), BTreeMap::from([(FindingKind::StrangeFile, 3)]));
    // What is missing is asked for again.
    assert_eq!(engine.metadata().snapshot().expect("open").statistics().damaged, 2);
    for number in [0, 1] {
        assert_eq!(pull(&engine, "team/a", &layers[number]), None);
        push(&engine, "team/a", &bytes(number as u64, 5000));
        assert!(pull(&engine, "team/a", &layers[number]).is_some());
    }
    assert_eq!(found(&check(&engine)), BTreeMap::from([(FindingKind::StrangeFile, 3)]));
}

#[test]
fn what_is_on_its_way_is_no_finding() {
    let root = tempfile::tempdir().expect("a directory");
    let engine = open(root.path(), true);
    on(&engine, async |core| {
        let mut upload = core.upload_at_once(&name("a"), Algorithm::Sha256);
        let content = bytes(1, 10_000);
        let mut buffer = upload.buffer(None).await.expect("a buffer");
        buffer.append(&content);
        upload.write(buffer, None).await.expect("written");
        let report = std::thread::scope(|scope| {
            scope.spawn(|| engine.check(&REPAIR, &on_and_on)).join().expect("no panic").expect("looks")
        });
        assert!(report.findings.is_empty(), "{report:?}");
        upload.finish(ContentHasher::digest(Algorithm::Sha256, &content)).await.expect("stored");
    });
    assert!(check(&engine).findings.is_empty());
}

/// A session with all of its content, whose file has its name among the blobs already, as a process leaves it that dies
/// before the commit.
fn session_with_a_named_file(engine: &Engine, content: &[u8]) -> (UploadId, Digest) {
    let id = on(engine, async |core| {
        let id = core.start_upload(&name("a"), Algorithm::Sha256);
        let mut upload = core.resume_upload(&name("a"), id).expect("there");
        let mut buffer = upload.buffer(None).await.expect("a buffer");
        assert_eq!(buffer.append(content), content.len());
        upload.write(buffer, None).await.expect("written");
        upload.suspend().await.expect("saved");
        id
    });
    let record = engine.metadata().snapshot().expect("open").upload(id).expect("readable");
    let UploadContent::File(file) = record.expect("there").content else { panic!("it has a file") };
    let digest = ContentHasher::digest(Algorithm::Sha256, content);
    let path = |name| engine.shared().options.root.join(name);
    std::fs::hard_link(path(layout::upload(file)), path(layout::blob(&digest, file))).expect("named");
    (id, digest)
}

/// Repairs, and does something after it has looked and before it does what is to be done about that.
fn repair_after(engine: &Engine, what: impl Fn()) -> CheckReport {
    let progress = |progress: Progress| {
        if progress.phase == Phase::Files && progress.done == progress.total {
            what();
        }
        ControlFlow::Continue(())
    };
    engine.check(&REPAIR, &progress).expect("looks")
}

#[test]
fn a_file_that_a_session_goes_on_with_is_not_removed_as_a_stray_one() {
    let root = tempfile::tempdir().expect("a directory");
    let engine = open(root.path(), true);
    let content = bytes(1, 10_000);
    let (id, digest) = session_with_a_named_file(&engine, &content);
    let (looked, wait_until_looked) = std::sync::mpsc::channel();
    let (resumed, wait_until_resumed) = std::sync::mpsc::channel();
    on(&engine, async |core| {
        let engine = core.engine();
        let check = std::thread::spawn(move || {
            repair_after(&engine, || {
                // It looks twice, and only once somebody waits for that.
                let _ = looked.send(());
                let _ = wait_until_resumed.recv();
            })
        });
        wait_until_looked.recv().expect("it looks");
        let mut upload = core.resume_upload(&name("a"), id).expect("there");
        drop(upload.buffer(None).await.expect("a buffer"));
        resumed.send(()).expect("it waits");
        drop(resumed);
        let report = check.join().expect("no panic");
        upload.finish(digest).await.expect("stored");
        assert_eq!(report.findings.get(&FindingKind::StrayFile).map(|found| found.count), Some(1));
        assert_eq!(report.repaired, 0);
    });
    assert_eq!(pull(&engine, "a", &digest), Some(content));
    assert_eq!(found(&check(&engine)), BTreeMap::new());
}

#[test]
fn a_file_that_a_session_has_named_in_the_meantime_is_not_removed_as_a_stray_one() {
    let root = tempfile::tempdir().expect("a directory");
    let engine = open(root.path(), true);
    let content = bytes(1, 10_000);
    let (id, digest) = session_with_a_named_file(&engine, &content);
    let report = repair_after(&engine, || {
        on(&engine, async |core| {
            // Not there any more in the second round.
            let Ok(upload) = core.resume_upload(&name("a"), id) else { return };
            upload.finish(digest).await.expect("stored");
        });
    });
    assert_eq!(report.findings.get(&FindingKind::StrayFile).map(|found| found.count), Some(1));
    assert_eq!((report.repaired, report.left), (0, 0));
    assert_eq!(pull(&engine, "a", &digest), Some(content));
}

#[test]
fn what_rows_say_twice_is_compared() {
    let root = tempfile::tempdir().expect("a directory");
    let engine = open(root.path(), true);
    fill(&engine);
    let rows = engine.metadata().snapshot().expect("open").all_rows().expect("readable");
    let mut kinds = BTreeMap::new();
    for (table, key, value) in rows {
        if ["state", "collections", "damaged", "uploads"].contains(&table) {
            continue;
        }
        let removed = key.clone();
        change(&engine, move |transaction| transaction.tamper(table, &removed, None));
        let report = check(&engine);
        // The oldest change of the tags may have been trimmed as well.
        assert!(report.faults() > 0 || table == "tag_changes", "{table} {}", hex::encode(&key));
        for kind in report.findings.keys() {
            *kinds.entry(*kind).or_insert(0) += 1;
        }
        change(&engine, move |transaction| transaction.tamper(table, &key, Some(&value)));
    }
    assert_eq!(found(&check(&engine)), BTreeMap::new(), "all is as it was");
    for kind in [
        FindingKind::NameWithoutRepository,
        FindingKind::RepositoryWithoutName,
        FindingKind::RowsOfNoRepository,
        FindingKind::LinkRows,
        FindingKind::ManifestRows,
        FindingKind::ContentUnknown,
        FindingKind::ManifestDiffers,
        FindingKind::ReferenceRows,
        FindingKind::ReferrerRows,
        FindingKind::TagRows,
        FindingKind::TagWithoutManifest,
        FindingKind::InlineContent,
        FindingKind::Counters,
        FindingKind::TagChanges,
    ] {
        assert!(kinds.contains_key(&kind), "{kind:?} was never found");
    }
}

#[test]
fn rows_that_cannot_be_read_are_found_and_left_alone() {
    let root = tempfile::tempdir().expect("a directory");
    let engine = open(root.path(), true);
    let layers = fill(&engine);
    let rows = engine.metadata().snapshot().expect("open").all_rows().expect("readable");
    let of_later = |table: &'static str, key: Vec<u8>| {
        change(&engine, move |transaction| transaction.tamper(table, &key, Some(&[99, 1, 2])));
    };
    let statistics = engine.metadata().snapshot().expect("open").statistics();
    let mut tried = 0;
    for (table, key, value) in rows.iter().filter(|(_, _, value)| !value.is_empty()) {
        // Names and contents have no version of their own.
        if ["state", "names", "contents", "collections"].contains(table) {
            continue;
        }
        of_later(table, key.clone());
        let report = engine.check(&REPAIR, &on_and_on).expect("looks");
        let unreadable = report.findings.get(&FindingKind::UnreadableRow).map(|found| found.count);
        assert_eq!(unreadable, Some(1), "{table} {} {report:?}", hex::encode(key));
        let now = engine.metadata().snapshot().expect("open").all_rows().expect("readable");
        assert!(now.iter().any(|(_, found, value)| found == key && value == &[99, 1, 2]), "{table}");
        assert!(engine.scrub(&ScrubOptions { bytes_per_second: 0, afresh: true }, &on_and_on).is_ok());
        let (table, key, value) = (*table, key.clone(), value.clone());
        change(&engine, move |transaction| transaction.tamper(table, &key, Some(&value)));
        engine.check(&REPAIR, &on_and_on).expect("looks");
        assert_eq!(check(&engine).faults(), 0, "{table}");
        tried += 1;
    }
    assert!(tried > 30);
    assert_eq!(
        engine.metadata().snapshot().expect("open").statistics(),
        statistics,
        "nothing was lost by that"
    );
    layers.iter().for_each(|layer| assert!(pull(&engine, "team/a", layer).is_some()));
}

#[test]
fn damage_of_what_nobody_has_is_forgotten_by_a_collection() {
    let root = tempfile::tempdir().expect("a directory");
    let engine = open(root.path(), true);
    let [used, unused] = [1, 2].map(|number| place(&engine, "a", &bytes(number, 5000)));
    put(&engine, "a", &image(&[used], None), &["v1"]).expect("complete");
    for digest in [&used, &unused] {
        std::fs::remove_file(path(&engine, root.path(), digest)).expect("removed");
    }
    engine.check(&REPAIR, &on_and_on).expect("looks");
    let damaged = || engine.metadata().snapshot().expect("open").statistics().damaged;
    assert_eq!(damaged(), 2);
    // A rebuild leaves it so, of content that the export knows and nobody has.
    let rows = engine.metadata().snapshot().expect("open").all_rows().expect("readable");
    for (table, key, _) in rows {
        let is_of_unused = key.windows(33).any(|part| part == unused.as_key());
        if is_of_unused && ["digests", "repositories"].contains(&table) {
            change(&engine, move |transaction| transaction.tamper(table, &key, None));
        }
    }
    let options = crate::collection::CollectionOptions {
        mode: crate::collection::Mode::Online,
        ..crate::collection::CollectionOptions::default()
    };
    let report = engine.collect(&options, &()).expect("begins");
    assert_eq!((report.failure, report.errors, damaged()), (None, 0, 1));
    assert!(engine.metadata().snapshot().expect("open").damage(&used).expect("readable").is_some());
}

/// What damage does to a store.
#[derive(Clone, Debug)]
enum Harm {
    /// A row goes, chosen by a number.
    Remove(usize),
    /// A row is there twice, at a place that differs in one byte.
    Misplace(usize, usize, u8),
    /// A file goes, or is cut.
    File(usize, bool),
}

fn harm() -> impl Strategy<Value = Harm> {
    prop_oneof![
        4 => any::<usize>().prop_map(Harm::Remove),
        2 => (any::<usize>(), any::<usize>(), 1..=u8::MAX).prop_map(|(row, at, by)| Harm::Misplace(row, at, by)),
        1 => (any::<usize>(), any::<bool>()).prop_map(|(file, cut)| Harm::File(file, cut)),
    ]
}

/// 24 cases, or as many as `PROPTEST_CASES` says.
fn config() -> ProptestConfig {
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => config,
        None => ProptestConfig { cases: 24, ..config },
    }
}

proptest! {
    #![proptest_config(config())]

    /// Whatever happens to rows and files: a repair leaves a store that is right, and in which nobody is told that
    /// something is there that is not.
    #[test]
    fn after_a_repair_there_are_no_faults(harms in prop::collection::vec(harm(), 1..12)) {
        let root = tempfile::tempdir().expect("a directory");
        let engine = open(root.path(), true);
        let layers = fill(&engine);
        let rows = engine.metadata().snapshot().expect("open").all_rows().expect("readable");
        let rows: Vec<_> = rows.into_iter().filter(|(table, ..)| !["state", "uploads"].contains(table)).collect();
        for harm in &harms {
            match harm {
                Harm::Remove(row) => {
                    let (table, key, _) = rows[row % rows.len()].clone();
                    change(&engine, move |transaction| transaction.tamper(table, &key, None));
                }
                Harm::Misplace(row, at, by) => {
                    let (table, mut key, value) = rows[row % rows.len()].clone();
                    let at = at % key.len();
                    key[at] ^= by;
                    change(&engine, move |transaction| transaction.tamper(table, &key, Some(&value)));
                }
                Harm::File(file, is_cut) => {
                    let Some(record) = record(&engine, &layers[file % layers.len()]) else { continue };
                    let BlobLocation::File(id) = record.location else { continue };
                    let path = root.path().join(layout::blob(&layers[file % layers.len()], id));
                    match (path.exists(), is_cut) {
                        (true, true) => cut(&path, 10),
                        (true, false) => std::fs::remove_file(path).expect("removed"),
                        (false, _) => {}
                    }
                }
            }
        }
        let report = engine.check(&REPAIR, &on_and_on).expect("looks");
        let again = check(&engine);
        // Rows of a repository that is put together again are looked at only then.
        let unreadable = again.findings.get(&FindingKind::UnreadableRow).map_or(0, |found| found.count);
        let left: Vec<_> = again.findings.iter().filter(|(kind, _)| kind.is_fault()).collect();
        if unreadable == 0 {
            prop_assert!(left.is_empty(), "{left:?} after {report:?}");
            prop_assert_eq!(report.left, 0);
        }
        // All that is told to be there can be read.
        let snapshot = engine.metadata().snapshot().expect("open");
        for repository in snapshot.repositories("", None).expect("readable") {
            let Ok(repository) = repository else { continue };
            for blob in snapshot.blobs(repository.id, None).expect("readable") {
                let Ok((digest, _)) = blob else { continue };
                if unreadable == 0 && let Some(content) = fetch(&engine, repository.name.as_str(), &digest) {
                    prop_assert_eq!(content.len() as u64, record(&engine, &digest).expect("stored").size);
                }
            }
        }
        // And what is not there can be pushed again.
        for number in 0..6 {
            place(&engine, "team/a", &bytes(number, 5000));
            prop_assert_eq!(fetch(&engine, "team/a", &layers[number as usize]), Some(bytes(number, 5000)));
        }
    }
}

#[test]
fn upload_sessions_keep_their_files() {
    let root = tempfile::tempdir().expect("a directory");
    let engine = open(root.path(), true);
    fill(&engine);
    engine.check(&REPAIR, &on_and_on).expect("looks");
    let snapshot = engine.metadata().snapshot().expect("open");
    let (_, record) = snapshot.uploads().expect("readable").next().expect("one").expect("readable");
    let UploadContent::File(file) = record.content else { panic!("it has a file") };
    assert!(root.path().join(layout::upload(file)).exists());
}

#[test]
fn inline_content_is_had_from_wherever_its_row_is_and_from_one_place_only() {
    let root = tempfile::tempdir().expect("a directory");
    let engine = open(root.path(), true);
    let contents = [0, 1, 1365, 1366, INLINE_SIZE_MAX].map(|len| bytes(len as u64, len));
    let digests = contents.clone().map(|content| place(&engine, "a", &content));
    let rows = || {
        let rows = engine.metadata().snapshot().expect("open").all_rows().expect("readable");
        let of_contents = rows.into_iter().filter(|(table, ..)| *table == "contents");
        of_contents.map(|(_, key, value)| (key, value)).collect::<Vec<_>>()
    };
    let pulled = || digests.map(|digest| pull(&engine, "a", &digest));
    let large = |key: &[u8]| [b"l", key].concat();
    for (digest, content) in digests.iter().zip(&contents) {
        let is_large = rows().iter().any(|(key, value)| *key == large(digest.as_key()) && value == content);
        assert_eq!(is_large, content.len() > 1365, "{}", content.len());
    }
    assert_eq!(found(&check(&engine)), BTreeMap::new());

    // Where the other size would have it.
    let before = rows();
    for (key, value) in before.clone() {
        let other = key.strip_prefix(b"l").map_or_else(|| large(&key), <[u8]>::to_vec);
        change(&engine, move |transaction| {
            transaction.tamper("contents", &key, None)?;
            transaction.tamper("contents", &other, Some(&value))
        });
    }
    assert!(before.iter().all(|row| !rows().contains(row)));
    assert_eq!(pulled(), contents.clone().map(Some));
    assert_eq!(found(&check(&engine)), BTreeMap::new());

    // In both places.
    for (key, value) in before.clone() {
        change(&engine, move |transaction| transaction.tamper("contents", &key, Some(&value)));
    }
    assert_eq!(found(&check(&engine)), BTreeMap::from([(FindingKind::InlineContent, 5)]));
    engine.check(&REPAIR, &on_and_on).expect("looks");
    assert_eq!(found(&check(&engine)), BTreeMap::new());
    assert_eq!(rows(), before, "where its size has it");
    assert_eq!(pulled(), contents.clone().map(Some));

    // In both places, wrong where its size has it.
    let (key, value) = before.iter().find(|(_, value)| value.len() == 1365).cloned().expect("there");
    let other = large(&key);
    change(&engine, move |transaction| {
        transaction.tamper("contents", &other, Some(&value))?;
        transaction.tamper("contents", &key, Some(&vec![9; value.len()]))
    });
    engine.check(&REPAIR, &on_and_on).expect("looks");
    assert_eq!(found(&check(&engine)), BTreeMap::new());
    assert_eq!(pulled(), contents.map(Some));

    change(&engine, move |transaction| {
        for digest in &digests {
            transaction.unlink_blob(&name("a"), digest)?;
            transaction.remove_unused_content(digest)?;
        }
        Ok(())
    });
    assert_eq!(rows(), [], "removed with the last link");
}
