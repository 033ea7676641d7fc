use super::*;

#[test]
fn what_keeps_content_is_named_up_to_the_tags() {
    let root = tempfile::tempdir().expect("a directory");
    let engine = open(root.path(), true);
    engine.set_lease(Duration::ZERO);
    let (config, layer) = (push(&engine, "a", b"{}").0, push(&engine, "a", &bytes(1, 5000)).0);
    let child = put(&engine, "a", &image(&[config, layer], None), &[]).expect("complete");
    let list = put(&engine, "a", &index(&[child]), &["v1", "v2"]).expect("complete");
    let signature = put(&engine, "a", &image(&[config], Some(&list)), &[]).expect("complete");
    push(&engine, "b", &bytes(1, 5000));

    let why = engine.why(&layer).expect("readable");
    let stored = why.stored.expect("stored");
    assert_eq!((stored.bytes, stored.file.is_some(), why.damage), (5000, true, None));
    assert_eq!((why.repositories_total, why.is_kept), (2, true));
    let [a, b] = &why.repositories[..] else { panic!("two") };
    assert_eq!((a.repository.as_str(), b.repository.as_str()), ("a", "b"));
    assert!(a.linked_at_ms.is_some() && a.pushed_at_ms.is_none() && b.keepers.is_empty());
    let keepers: Vec<_> = a.keepers.iter().map(|keeper| (keeper.digest, keeper.keeps, keeper.how)).collect();
    assert_eq!(keepers, [(child, layer, Keeps::Blob), (list, child, Keeps::Child)]);
    assert_eq!(a.keepers[1].tags, ["v1", "v2"]);

    // What is about something is kept by it.
    let why = engine.why(&signature).expect("readable");
    let keepers: Vec<_> =
        why.repositories[0].keepers.iter().map(|keeper| (keeper.digest, keeper.how)).collect();
    assert_eq!((keepers, why.is_kept), (vec![(list, Keeps::Referrer)], true));
    let why = engine.why(&list).expect("readable");
    assert_eq!(
        (why.repositories[0].tags.len(), why.repositories[0].keepers.len(), why.is_kept),
        (2, 0, true)
    );

    let alone = push(&engine, "a", b"alone").0;
    assert!(!engine.why(&alone).expect("readable").is_kept);
    let nothing = engine.why(&ContentHasher::digest(Algorithm::Sha256, b"nothing")).expect("readable");
    assert_eq!(nothing, Why::default());
    // Everything counts as leased for a while after the start.
    engine.set_lease(Duration::from_secs(60));
    assert!(engine.why(&alone).expect("readable").is_kept);
}

#[test]
fn bytes_are_shared_or_somebodys_own() {
    let root = tempfile::tempdir().expect("a directory");
    let engine = open(root.path(), true);
    let config = push(&engine, "team/a", b"{}").0;
    let mine = push(&engine, "team/a", &bytes(1, 10_000)).0;
    let ours = push(&engine, "team/a", &bytes(2, 20_000)).0;
    push(&engine, "team/b", &bytes(2, 20_000));
    push(&engine, "solo", b"{}");
    push(&engine, "solo", &bytes(3, 100));
    let manifest = image(&[config, mine, ours], None);
    put(&engine, "team/a", &manifest, &["v1"]).expect("complete");
    // The same bytes as a blob and as a manifest are stored once.
    push(&engine, "team/a", &manifest);
    let unlinked = push(&engine, "solo", b"unlinked").0;
    let unlink = engine.metadata().write_blocking(move |t| t.unlink_blob(&name("solo"), &unlinked));
    assert!(unlink.expect("committed"));

    let usage = engine.usage().expect("readable");
    let statistics = engine.metadata().snapshot().expect("open").statistics();
    assert_eq!((usage.stored.count, usage.stored.bytes), (statistics.blobs, statistics.bytes));
    assert_eq!((usage.unlinked.count, usage.unlinked.bytes, usage.damaged), (1, 8, 0));
    let of = |named: &[Named]| -> Vec<(String, u64, u64)> {
        named.iter().map(|of| (of.name.clone(), of.share.own.bytes, of.share.shared.bytes)).collect()
    };
    let own = 10_000 + manifest.len() as u64;
    let repositories =
        [("solo".into(), 100, 2), ("team/a".into(), own, 20_002), ("team/b".into(), 0, 20_000)];
    assert_eq!(of(&usage.repositories), repositories);
    assert_eq!(of(&usage.namespaces), [("solo".into(), 100, 2), ("team".into(), own + 20_000, 2)]);
    assert_eq!(usage.repositories[1].share.total().count, 4);
}
