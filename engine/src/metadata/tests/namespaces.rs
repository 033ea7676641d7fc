//! Namespaces, and the purge of what is in them.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn store_of(names: &[String]) -> Metadata {
    let metadata = open(&Arc::new(MemoryStorage::default()));
    let names: Vec<RepositoryName> = names.iter().map(|text| name(text)).collect();
    let written = metadata.write_blocking(move |transaction| {
        for name in &names {
            let content = NewContent::Inline("content".into());
            transaction.commit_blob(name, &digest(0), 7, content, None, Timestamp(1))?;
        }
        Ok(())
    });
    written.expect("writes");
    metadata
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn namespaces_are_the_first_segments_in_their_order(
        names in proptest::collection::vec("[ab]([-._][ab]){0,2}(/[ab]){0,2}", 1..30),
        from in "([ab]([-._][ab]){0,2})?",
    ) {
        let metadata = store_of(&names);
        let snapshot = metadata.snapshot().expect("a snapshot");
        let segments: BTreeSet<String> =
            names.iter().map(|text| name(text).namespace().to_owned()).filter(|one| *one >= from).collect();
        prop_assert_eq!(snapshot.namespaces(&from).expect("readable"), segments);
    }
}

#[test]
fn a_namespace_knows_what_it_holds() {
    let metadata = store_of(&["a/b", "a/c", "a", "b/c", "a-b/c"].map(str::to_owned));
    let usage = |namespace: &str| {
        metadata.snapshot().and_then(|snapshot| snapshot.namespace_usage(namespace)).expect("readable")
    };
    let expected = |repositories| NamespaceUsage { repositories, contents: 1, bytes: 7 };
    assert_eq!(["a", "b", "a-b"].map(usage), [3, 1, 1].map(expected));
    assert_eq!(usage("c"), NamespaceUsage::default());
    for (repository, left) in [("a/b", expected(2)), ("a", expected(1)), ("a/c", NamespaceUsage::default())] {
        let gone = metadata.write_blocking(move |t| t.purge_repository(&name(repository), 9, Timestamp(2)));
        assert!(gone.expect("writes").is_gone);
        assert_eq!(usage("a"), left);
    }
    // Made again, it begins from nothing.
    let content = NewContent::Inline("more".into());
    let made = metadata
        .write_blocking(|t| t.commit_blob(&name("a/b"), &digest(1), 4, content, None, Timestamp(3)))
        .expect("writes");
    assert_eq!((made, usage("a").bytes), (BlobCommit::Stored, 4));
}

#[test]
fn counters_of_namespaces_are_put_right() {
    let metadata = store_of(&["a/b", "a/c", "b/c"].map(str::to_owned));
    let check = || {
        let mut findings = Vec::new();
        let snapshot = metadata.snapshot().expect("a snapshot");
        let mut found = |finding: Finding| findings.extend(finding.repair);
        snapshot.check(&mut found, &|_| std::ops::ControlFlow::Continue(())).expect("readable");
        findings.retain(|repair| matches!(repair, Repair::Namespace(..)));
        findings
    };
    assert!(check().is_empty());
    let wrong = NamespaceUsage { repositories: 9, contents: 0, bytes: 1 << 40 };
    let wrong = crate::metadata::rows::Row::encode(&wrong).expect("encodes");
    for row in [None, Some(wrong)] {
        let key = [b"n", &1_u32.to_be_bytes()[..]].concat();
        metadata.write_blocking(move |t| t.tamper("state", &key, row.as_deref())).expect("writes");
        let found = check();
        assert_eq!(found.len(), 1);
        for repair in found {
            assert!(metadata.write_blocking(move |t| t.repair(&repair, Timestamp(5))).expect("writes"));
        }
        assert!(check().is_empty());
    }
    let usage = metadata.snapshot().and_then(|snapshot| snapshot.namespace_usage("a")).expect("readable");
    assert_eq!(usage, NamespaceUsage { repositories: 2, contents: 1, bytes: 7 });
}

#[test]
fn a_repository_is_purged_step_by_step() {
    let metadata = store_of(&["ns/a".into(), "ns/b".into()]);
    let before = metadata.snapshot().expect("a snapshot").statistics();
    let filled = metadata.write_blocking(|transaction| {
        for number in 0..10 {
            let manifest = image(&[digest(0)]);
            let tags = [tag(&format!("t{number}"))];
            let put = put(digest(100 + number), &manifest, &tags, 2);
            transaction.put_manifest(&name("ns/a"), put)?.expect("accepted");
        }
        Ok(())
    });
    filled.expect("writes");
    let start = metadata.sequence();
    let mut steps = Vec::new();
    while steps.last().is_none_or(|step: &PurgeStep| !step.is_gone) {
        let step = metadata.write_blocking(|t| t.purge_repository(&name("ns/a"), 4, Timestamp(3)));
        let step = step.expect("writes");
        assert!(step.tags + step.manifests + step.links <= 4);
        steps.push(step);
    }
    let sum = |count: fn(&PurgeStep) -> u64| steps.iter().map(count).sum::<u64>();
    assert_eq!((sum(|s| s.tags), sum(|s| s.manifests), sum(|s| s.links)), (10, 10, 1));
    let snapshot = metadata.snapshot().expect("a snapshot");
    let after = snapshot.statistics();
    assert_eq!((after.repositories, after.tags, after.manifests, after.links), (1, 0, 0, 1));
    assert!(after.blobs > before.blobs, "the content goes with the next collection");
    let changes = snapshot.tag_changes_since(start, usize::MAX).expect("kept");
    assert!(changes.len() == 10 && changes.iter().all(|change| change.digest.is_none()));
    let again = metadata.write_blocking(|t| t.purge_repository(&name("ns/a"), 4, Timestamp(3)));
    assert_eq!(again.expect("writes"), PurgeStep { is_gone: true, ..PurgeStep::default() });
}
