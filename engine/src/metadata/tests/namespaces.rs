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
