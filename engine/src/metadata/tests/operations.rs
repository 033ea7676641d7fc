//! Single operations, and what the model does not say.

use super::*;

fn store() -> (Arc<MemoryStorage>, Metadata) {
    let storage = Arc::new(MemoryStorage::default());
    let metadata = open(&storage);
    (storage, metadata)
}

fn commit_blob(metadata: &Metadata, repository: &str, number: u32) -> BlobCommit {
    let repository = name(repository);
    metadata
        .write_blocking(move |transaction| {
            let content = NewContent::Inline("bytes".into());
            transaction.commit_blob(&repository, &digest(number), 5, content, None, Timestamp(1))
        })
        .expect("writes")
}

#[test]
fn handles_and_snapshots_cross_threads() {
    fn check<T: Send + Sync + Clone>(_: &T) {}
    let (_storage, metadata) = store();
    check(&metadata);
    check(&metadata.snapshot().expect("a snapshot"));
    fn check_send<T: Send>(_: &T) {}
    check_send(&metadata.write(|_| Ok(())));
}

#[test]
fn a_blob_is_seen_where_it_is_linked() {
    let (_storage, metadata) = store();
    assert_eq!(commit_blob(&metadata, "a", 1), BlobCommit::Stored);
    assert_eq!(commit_blob(&metadata, "b", 2), BlobCommit::Stored);
    let snapshot = metadata.snapshot().expect("a snapshot");
    let [a, b] = ["a", "b"].map(|text| snapshot.repository(&name(text)).expect("readable").expect("exists"));
    assert_eq!(snapshot.blob(a, &digest(1)).expect("readable").map(|record| record.size), Some(5));
    assert!(snapshot.blob(b, &digest(1)).expect("readable").is_none());
    let mounted = metadata
        .write_blocking(|transaction| {
            let from_elsewhere = transaction.mount_blob(&name("b"), &digest(2), &name("a"), Timestamp(2))?;
            Ok((from_elsewhere, transaction.mount_blob(&name("b"), &digest(1), &name("a"), Timestamp(2))?))
        })
        .expect("writes");
    assert_eq!(mounted, (false, true));
    assert!(snapshot.blob(b, &digest(1)).expect("readable").is_none(), "a snapshot does not change");
    assert!(!snapshot.is_current(&metadata));
    let snapshot = metadata.snapshot().expect("a snapshot");
    assert!(snapshot.is_current(&metadata));
    let repositories: Vec<_> = snapshot.blob_repositories(&digest(1)).expect("readable").flatten().collect();
    assert_eq!(repositories, [a, b]);
    assert_eq!(snapshot.content(&digest(1), 0).expect("readable").as_deref(), Some(&b"bytes"[..]));
    // A manifest is no blob.
    let manifest = image(&[digest(1)]);
    metadata
        .write_blocking(move |transaction| {
            transaction.put_manifest(&name("a"), put(digest(9), &manifest, &[], 3))
        })
        .expect("writes")
        .expect("accepted");
    let snapshot = metadata.snapshot().expect("a snapshot");
    assert!(snapshot.blob(a, &digest(9)).expect("readable").is_none());
    assert!(snapshot.stored_blob(&digest(9)).expect("readable").is_some());
}

#[test]
fn the_same_content_again_is_another_file() {
    let (_storage, metadata) = store();
    let commit = |file| {
        metadata.write_blocking(move |transaction| {
            let content = NewContent::File(FileId([file; 16]));
            transaction.commit_blob(&name("a"), &digest(1), 5, content, None, Timestamp(1))
        })
    };
    let removed = |metadata: &Metadata| {
        metadata.write_blocking(|transaction| {
            transaction.unlink_blob(&name("a"), &digest(1))?;
            transaction.remove_unused_content(&digest(1))
        })
    };
    assert_eq!(commit(1).expect("writes"), BlobCommit::Stored);
    assert_eq!(commit(2).expect("writes"), BlobCommit::AlreadyStored);
    let location = |file| BlobLocation::File(FileId([file; 16]));
    assert_eq!(removed(&metadata).expect("writes").map(|record| record.location), Some(location(1)));
    assert_eq!(removed(&metadata).expect("writes"), None);
    assert_eq!(commit(2).expect("writes"), BlobCommit::Stored);
    let stored = metadata.snapshot().expect("a snapshot").stored_blob(&digest(1)).expect("readable");
    assert_eq!(stored.map(|record| record.location), Some(location(2)));
}

#[test]
fn what_changes_nothing_takes_no_number() {
    let (storage, metadata) = store();
    commit_blob(&metadata, "a", 1);
    let sequence = metadata.sequence();
    let mut watch = metadata.watch();
    assert_eq!(*watch.borrow_and_update(), sequence);
    metadata.write_blocking(|transaction| transaction.remove_upload(UploadId([7; 16]))).expect("writes");
    let refused = metadata.write_blocking(|transaction| {
        let manifest = image(&[digest(1), digest(2)]);
        transaction.put_manifest(&name("new"), put(digest(9), &manifest, &[tag("t")], 1))
    });
    let missing = ManifestRefusal::Missing { blobs: vec![digest(1), digest(2)], children: vec![] };
    assert_eq!(refused.expect("reads"), Err(missing));
    assert_eq!(metadata.sequence(), sequence);
    assert!(!watch.has_changed().expect("open"));
    commit_blob(&metadata, "a", 2);
    assert!(watch.has_changed().expect("open"));
    assert!(metadata.sequence() > sequence);
    let sequence = metadata.sequence();
    drop(metadata);
    assert_eq!(open(&storage).sequence(), sequence);
}

#[test]
fn repository_ids_are_not_used_again() {
    let (storage, metadata) = store();
    commit_blob(&metadata, "a", 1);
    let id =
        |metadata: &Metadata| metadata.snapshot().and_then(|s| s.repository(&name("a"))).expect("readable");
    let first = id(&metadata).expect("exists");
    let remove = |metadata: &Metadata| {
        metadata
            .write_blocking(|transaction| transaction.remove_repository_if_empty(&name("a")))
            .expect("writes")
    };
    assert!(!remove(&metadata));
    metadata.write_blocking(|transaction| transaction.unlink_blob(&name("a"), &digest(1))).expect("writes");
    assert!(remove(&metadata));
    assert_eq!(id(&metadata), None);
    drop(metadata);
    let metadata = open(&storage);
    commit_blob(&metadata, "a", 1);
    assert!(id(&metadata).expect("exists") > first);
}

#[test]
fn repositories_are_listed_by_prefix_and_page() {
    let (_storage, metadata) = store();
    for repository in ["a", "a/b", "a/b/c", "a-b", "ab", "b"] {
        commit_blob(&metadata, repository, 1);
    }
    let snapshot = metadata.snapshot().expect("a snapshot");
    let list = |prefix: &str, after: Option<&str>| -> Vec<String> {
        let repositories = snapshot.repositories(prefix, after).expect("readable");
        repositories.map(|repository| repository.expect("readable").name.to_string()).collect()
    };
    assert_eq!(list("", None), ["a", "a-b", "a/b", "a/b/c", "ab", "b"]);
    assert_eq!(list("", Some("a-z")), ["a/b", "a/b/c", "ab", "b"]);
    assert_eq!(list("a/", None), ["a/b", "a/b/c"]);
    assert_eq!(list("a/", Some("a/b")), ["a/b/c"]);
    assert_eq!(list("a/", Some("a-")), ["a/b", "a/b/c"]);
    assert_eq!(list("a/", Some("a")), ["a/b", "a/b/c"]);
    assert_eq!(list("a/", Some("ab")), [""; 0]);
    assert_eq!(list("c", None), [""; 0]);
}

#[test]
fn many_tags_and_referrers_are_listed_by_page() {
    const MANY: u32 = 2_000;
    let (_storage, metadata) = store();
    metadata
        .write_blocking(|transaction| {
            let subject = Manifest { subject: None, ..image(&[]) };
            let _ = transaction.put_manifest(&name("a"), put(digest(0), &subject, &[], 1))?;
            let about = crate::oci::Descriptor {
                media_type: subject.media_type.clone(),
                digest: digest(0),
                size: 7,
                artifact_type: None,
                annotations: None,
                urls: None,
            };
            let referrer = Manifest { subject: Some(about), ..image(&[]) };
            for number in 1..=MANY {
                let tags = [tag(&format!("v{number}"))];
                let put = put(digest(number), &referrer, &tags, 1);
                assert!(transaction.put_manifest(&name("a"), put)?.is_ok());
            }
            Ok(())
        })
        .expect("writes");
    let snapshot = metadata.snapshot().expect("a snapshot");
    let repository = snapshot.repository(&name("a")).expect("readable").expect("exists");

    let mut tags = Vec::new();
    loop {
        let after = tags.last().map(|tag: &Tag| tag.as_str());
        let page = snapshot.tags(repository, after).expect("readable").take(300);
        let page: Vec<Tag> = page.map(|row| row.expect("readable").0).collect();
        if page.is_empty() {
            break;
        }
        tags.extend(page);
    }
    assert!(tags.len() == MANY as usize && tags.is_sorted());
    let after =
        snapshot.tags(repository, Some("v1999~")).expect("readable").next().expect("one").expect("readable");
    assert_eq!(after.0, tag("v2"));

    let mut referrers: Vec<Digest> = Vec::new();
    loop {
        let page = snapshot.referrers(repository, &digest(0), referrers.last()).expect("readable").take(300);
        let page: Vec<Digest> = page.map(|row| row.expect("readable").digest).collect();
        if page.is_empty() {
            break;
        }
        referrers.extend(page);
    }
    assert!(referrers.len() == MANY as usize && referrers.is_sorted());
    assert_eq!(snapshot.parents(repository, &digest(0)).expect("readable").count(), MANY as usize);
    assert_eq!(snapshot.tag_changes_since(0, usize::MAX).expect("kept").len(), MANY as usize);
}

#[test]
fn old_tag_changes_are_trimmed() {
    let storage = Arc::new(MemoryStorage::default());
    let metadata = open_with(&storage, 3);
    let set = |text: &'static str, number| {
        let set = metadata.write_blocking(move |transaction| {
            transaction.put_manifest(&name("a"), put(digest(number), &image(&[]), &[tag(text)], 1))
        });
        set.expect("writes").expect("accepted").sequence
    };
    let first = set("one", 1);
    let second = set("two", 1);
    set("three", 1);
    let snapshot = metadata.snapshot().expect("a snapshot");
    assert_eq!(snapshot.tag_changes_since(0, 10).expect("kept").len(), 3);
    assert_eq!(snapshot.tag_changes_since(0, 2).expect("kept").len(), 2);
    assert_eq!(snapshot.tag_changes_since(first, 10).expect("kept").len(), 2);
    set("one", 2);
    let deleted = metadata.write_blocking(|transaction| {
        transaction.delete_tag(&name("a"), &tag("one"), &TagCondition::Any, Timestamp(9))
    });
    assert_eq!(deleted.expect("writes"), Ok(Some(digest(2))));
    let snapshot = metadata.snapshot().expect("a snapshot");
    match snapshot.tag_changes_since(first, 10) {
        Err(ChangesError::Expired { trimmed }) => assert_eq!(trimmed, second),
        other => panic!("{other:?}"),
    }
    let changes = snapshot.tag_changes_since(second, 10).expect("kept");
    let moves: Vec<_> =
        changes.iter().map(|change| (change.tag.as_str(), change.previous, change.digest)).collect();
    let (one, two) = (Some(digest(1)), Some(digest(2)));
    assert_eq!(moves, [("three", None, one), ("one", one, two), ("one", two, None)]);
    assert!(snapshot.tag_changes_since(snapshot.sequence(), 10).expect("kept").is_empty());
}

#[test]
fn a_panic_drops_the_batch_and_not_the_store() {
    let (_storage, metadata) = store();
    let panicked = metadata.write_blocking(|transaction| {
        transaction.save_upload(
            UploadId([1; 16]),
            &UploadRecord {
                repository: name("a"),
                started_at: Timestamp(1),
                touched_at: Timestamp(1),
                size: 0,
                hash: crate::oci::ContentHasher::new(Algorithm::Sha256).save(),
                content: UploadContent::Inline(Default::default()),
            },
        )?;
        if metadata_is_fine() { Ok(()) } else { panic!("on purpose") }
    });
    assert!(matches!(panicked, Err(MetadataError::Panicked)), "{panicked:?}");
    assert_eq!(commit_blob(&metadata, "a", 1), BlobCommit::Stored);
    assert_eq!(metadata.snapshot().expect("a snapshot").statistics().uploads, 0);
}

fn metadata_is_fine() -> bool {
    false
}

#[test]
fn many_callers_at_once() {
    let (_storage, metadata) = store();
    std::thread::scope(|scope| {
        for caller in 0..8 {
            let metadata = metadata.clone();
            scope.spawn(move || {
                for number in 0..20 {
                    commit_blob(&metadata, "a", caller * 20 + number);
                    let snapshot = metadata.snapshot().expect("a snapshot");
                    let stored = snapshot.stored_blob(&digest(caller * 20 + number)).expect("readable");
                    assert!(stored.is_some(), "what was acknowledged is visible");
                }
            });
        }
    });
    assert_eq!(metadata.snapshot().expect("a snapshot").statistics().blobs, 160);
}

#[test]
fn a_file_on_a_volume() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = directory.path().join("metadata");
    let metadata = Metadata::open_file(&path, 1 << 20).expect("opens");
    commit_blob(&metadata, "a", 1);
    let sequence = metadata.sequence();
    drop(metadata);
    let metadata = Metadata::open_file(&path, 1 << 20).expect("opens again");
    assert_eq!(metadata.sequence(), sequence);
    assert_eq!(commit_blob(&metadata, "b", 1), BlobCommit::AlreadyStored);
}

#[test]
fn ids_are_read_as_they_are_written() {
    let id = UploadId([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255]);
    assert_eq!(id.to_string(), "000102030405060708090a0b0c0d0eff");
    assert_eq!(id.to_string().parse(), Ok(id));
    for text in ["", "00", "000102030405060708090A0B0C0D0EFF", "000102030405060708090a0b0c0d0efg"] {
        assert_eq!(text.parse::<FileId>(), Err(IdError), "{text}");
    }
}
