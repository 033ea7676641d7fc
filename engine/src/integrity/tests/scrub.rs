use super::*;

const AT_ONCE: ScrubOptions = ScrubOptions { bytes_per_second: 0, afresh: false };

fn scrub(engine: &Engine) -> ScrubReport {
    engine.scrub(&AT_ONCE, &on_and_on).expect("begins")
}

fn damages(report: &ScrubReport) -> Vec<(Digest, Damage)> {
    report.found.iter().map(|found| (found.digest, found.damage)).collect()
}

/// Each filesystem and each way of reading is the same to those who look at the result.
fn each_way(test: impl Fn(&Path, &dyn Fn() -> Engine)) {
    for direct in [true, false] {
        let root = tempfile::tempdir().expect("a directory");
        test(root.path(), &|| open(root.path(), direct));
    }
}

#[test]
fn what_is_whole_stays_and_what_is_damaged_is_found() {
    each_way(|root, open| {
        let engine = open();
        // Around the sizes of blocks and buffers, and what is in the metadata.
        let sizes = [0, 10, 4001, 4096, 4097, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, (3 << 20) + 5];
        let mut expected = Vec::new();
        for (number, size) in (0..).zip(sizes) {
            for algorithm in Algorithm::ALL {
                expected.push(push_as(&engine, "a/b", &bytes(number, size), algorithm).0);
            }
        }
        let report = scrub(&engine);
        assert!(report.ended_at_ms.is_some() && report.after.is_none());
        assert_eq!((report.checked.count, report.damaged.count, report.errors), (18, 0, 0));
        assert_eq!((report.checked, report.inline.count), (report.total, 4));
        assert_eq!(engine.metadata().snapshot().expect("open").statistics().damaged, 0);

        // The first byte, the last one, one in the middle; too short, too long, gone, and no file.
        let mut damaged = Vec::new();
        let mut damage = |index: usize, damage: Damage, how: &dyn Fn(&Path)| {
            how(&path(&engine, root, &expected[index]));
            damaged.push((expected[index], damage));
        };
        damage(4, Damage::Content, &|path| flip(path, 0));
        damage(7, Damage::Content, &|path| flip(path, 4095));
        damage(9, Damage::Content, &|path| flip(path, 4096));
        damage(11, Damage::Content, &|path| flip(path, (1 << 20) - 2));
        damage(17, Damage::Content, &|path| flip(path, 2 << 20));
        damage(12, Damage::Length, &|path| cut(path, (1 << 20) - 4096));
        damage(13, Damage::Length, &|path| cut(path, 0));
        damage(14, Damage::Length, &|path| cut(path, (1 << 20) + 2));
        damage(15, Damage::Missing, &|path| std::fs::remove_file(path).expect("removed"));
        damaged.sort_unstable();

        let report = scrub(&engine);
        assert_eq!(damages(&report), damaged);
        assert_eq!((report.checked.count, report.damaged.count, report.read_again), (18, 9, 0));
        assert_eq!(report.found[0].repositories, ["a/b"]);
        let statistics = engine.metadata().snapshot().expect("open").statistics();
        assert_eq!((statistics.damaged, statistics.blobs, statistics.links), (9, 9, 18));
        for digest in &expected {
            let is_damaged = damaged.iter().any(|(damaged, _)| damaged == digest);
            assert_eq!(pull(&engine, "a/b", digest).is_none(), is_damaged);
        }
        // All but the missing one are kept aside, as they were found.
        let kept = std::fs::read_dir(root.join(layout::QUARANTINE)).expect("a directory").count();
        assert_eq!(kept, 8);

        // Nothing is found twice, and a restart forgets nothing.
        drop(engine);
        let engine = open();
        assert_eq!(scrub(&engine).damaged.count, 0);
        assert_eq!(engine.metadata().snapshot().expect("open").statistics().damaged, 9);
    });
}

#[test]
fn a_push_heals_and_until_then_nobody_is_told_that_it_is_there() {
    each_way(|root, open| {
        let engine = open();
        let contents = [bytes(1, 5000), bytes(2, 2 << 20)];
        let layers: Vec<Digest> = contents.iter().map(|content| push(&engine, "a", content).0).collect();
        let config = push(&engine, "a", b"{}").0;
        push(&engine, "b", b"{}");
        let manifest = image(&[config, layers[0], layers[1]], None);
        let digest = put(&engine, "a", &manifest, &["v1"]).expect("complete");
        flip(&path(&engine, root, &layers[0]), 77);
        std::fs::remove_file(path(&engine, root, &layers[1])).expect("removed");
        assert_eq!(scrub(&engine).damaged.count, 2);

        let mount = |digest: Digest| {
            let mount = engine.metadata().write_blocking(move |transaction| {
                transaction.mount_blob(&name("b"), &digest, &name("a"), Timestamp(5))
            });
            mount.expect("committed")
        };
        assert!(!mount(layers[0]) && mount(config));
        let refused = put(&engine, "a", &manifest, &["v2"]).expect_err("refused");
        let mut missing = layers.clone();
        missing.sort_unstable();
        assert_eq!(refused, ManifestRefusal::Missing { blobs: missing, children: Vec::new() });

        for (layer, content) in layers.iter().zip(&contents) {
            assert_eq!(pull(&engine, "a", layer), None);
            assert_eq!(push(&engine, "a", content), (*layer, false));
            assert_eq!(pull(&engine, "a", layer).as_ref(), Some(content));
        }
        assert!(mount(layers[0]));
        assert_eq!(put(&engine, "a", &manifest, &["v2"]), Ok(digest));
        let statistics = engine.metadata().snapshot().expect("open").statistics();
        assert_eq!((statistics.damaged, statistics.blobs), (0, 4));
        assert_eq!(scrub(&engine).damaged.count, 0);
    });
}

/// Puts other bytes where content is in the metadata, as a bad disk would.
fn spoil(engine: &Engine, digest: Digest, bytes: Option<&'static [u8]>) {
    let spoil =
        engine.metadata().write_blocking(move |transaction| transaction.spoil_content(&digest, bytes));
    spoil.expect("committed");
}

#[test]
fn manifests_and_small_blobs_are_found_and_healed() {
    let root = tempfile::tempdir().expect("a directory");
    let engine = open(root.path(), true);
    let (config, small) = (push(&engine, "a", b"{}").0, push(&engine, "a", b"small").0);
    let manifest = image(&[config, small], None);
    let digest = put(&engine, "a", &manifest, &["v1"]).expect("complete");
    let list = index(&[digest]);
    put(&engine, "a", &list, &["list"]).expect("complete");
    spoil(&engine, small, Some(b"smell"));
    spoil(&engine, config, None);
    spoil(&engine, digest, Some(b"{}"));
    let mut expected = vec![(small, Damage::Content), (config, Damage::Missing), (digest, Damage::Length)];
    expected.sort_unstable();
    assert_eq!(damages(&scrub(&engine)), expected);

    let find = |digest: Digest| {
        on(&engine, async |core| {
            let id = core.metadata().snapshot().expect("open").repository(&name("a")).expect("readable");
            core.manifest(id.expect("exists"), &digest).await.expect("readable").is_some()
        })
    };
    assert!(!find(digest));
    let refused = put(&engine, "a", &list, &[]).expect_err("refused");
    assert_eq!(refused, ManifestRefusal::Missing { blobs: Vec::new(), children: vec![digest] });
    assert!(put(&engine, "a", &manifest, &[]).is_err(), "its blobs are missing");
    push(&engine, "a", b"{}");
    push(&engine, "a", b"small");
    put(&engine, "a", &manifest, &[]).expect("complete");
    put(&engine, "a", &list, &[]).expect("complete");
    assert!(find(digest));
    let snapshot = engine.metadata().snapshot().expect("open");
    assert_eq!(snapshot.statistics().damaged, 0);
    let id = snapshot.repository(&name("a")).expect("readable").expect("exists");
    let tags: Vec<Tag> =
        snapshot.tags_of(id, &digest).expect("readable").map(|tag| tag.expect("readable")).collect();
    assert_eq!(tags, [tag("v1")], "what belongs to a manifest stays while it is damaged");
}

#[test]
fn what_was_stopped_goes_on_where_it_was() {
    let root = tempfile::tempdir().expect("a directory");
    let mut engine = open(root.path(), true);
    let mut digests: Vec<Digest> = (0..20).map(|number| push(&engine, "a", &bytes(number, 5000)).0).collect();
    digests.sort_unstable();
    flip(&path(&engine, root.path(), &digests[3]), 1);
    let mut checked = 0;
    let mut rounds = 0;
    let report = loop {
        let asked = AtomicU64::new(0);
        let stop = |_| match asked.fetch_add(1, Ordering::Relaxed) {
            12.. => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        };
        let report = engine.scrub(&AT_ONCE, &stop).expect("begins");
        assert_eq!(Some(&report), engine.last_scrub().expect("readable").as_ref());
        if report.ended_at_ms.is_some() {
            break report;
        }
        assert!(report.checked.count > checked, "it comes nearer to its end");
        assert_eq!(report.after, Some(digests[report.checked.count as usize - 1]));
        checked = report.checked.count;
        rounds += 1;
        drop(engine);
        engine = open(root.path(), true);
    };
    assert!(rounds > 1);
    assert_eq!((report.checked.count, report.resumed, report.damaged.count), (20, rounds, 1));
    // The next one begins anew.
    assert_eq!(scrub(&engine).resumed, 0);
}

#[test]
fn a_process_that_dies_leaves_its_cursor() {
    let root = tempfile::tempdir().expect("a directory");
    let engine = open(root.path(), true);
    for number in 0..100 {
        push(&engine, "a", &bytes(number, 50));
    }
    // The clock goes on by a second with each content, so the cursor is saved twice before this panics.
    let asked = AtomicU64::new(0);
    let die = |_| match asked.fetch_add(1, Ordering::Relaxed) {
        90.. => panic!("the process dies"),
        _ => ControlFlow::Continue(()),
    };
    let died = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| engine.scrub(&AT_ONCE, &die)));
    assert!(died.is_err());
    drop(engine);
    let engine = open(root.path(), true);
    let left = engine.last_scrub().expect("readable").expect("some");
    assert!(left.ended_at_ms.is_none() && left.checked.count >= 50, "{left:?}");
    let report = scrub(&engine);
    assert_eq!((report.checked.count, report.resumed), (100, 1));
    assert_eq!(
        engine.scrub(&ScrubOptions { afresh: true, ..AT_ONCE }, &on_and_on).expect("begins").resumed,
        0
    );
}

#[test]
fn what_is_deleted_or_pushed_again_while_it_is_read_is_not_damaged() {
    let root = tempfile::tempdir().expect("a directory");
    let engine = open(root.path(), true);
    let contents: Vec<Vec<u8>> = (0..6).map(|number| bytes(number, 10_000)).collect();
    let digests: Vec<Digest> = contents.iter().map(|content| push(&engine, "a", content).0).collect();
    let paths: Vec<PathBuf> = digests.iter().map(|digest| path(&engine, root.path(), digest)).collect();
    // At the first word about the progress, which is in the midst of the first content, all of them go: three with their
    // rows, three to be pushed again at once.
    let once = AtomicU64::new(0);
    let meddle = |_| {
        if once.fetch_add(1, Ordering::Relaxed) == 0 {
            for (number, (digest, path)) in digests.iter().zip(&paths).enumerate() {
                if number % 2 == 0 {
                    let digest = *digest;
                    let remove = engine.metadata().write_blocking(move |transaction| {
                        transaction.unlink_blob(&name("a"), &digest)?;
                        transaction.remove_unused_content(&digest)
                    });
                    remove.expect("committed").expect("unused");
                }
                std::fs::remove_file(path).expect("removed");
            }
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    for content in contents.iter().skip(1).step_by(2) {
                        push(&engine, "a", content);
                    }
                });
            });
        }
        ControlFlow::Continue(())
    };
    let report = engine.scrub(&AT_ONCE, &meddle).expect("begins");
    assert_eq!((report.damaged.count, report.errors), (0, 0), "{report:?}");
    assert!(report.changed >= 4, "{report:?}");
    assert_eq!(engine.metadata().snapshot().expect("open").statistics().damaged, 0);
    for (digest, content) in digests.iter().zip(&contents).skip(1).step_by(2) {
        assert_eq!(pull(&engine, "a", digest).as_ref(), Some(content));
    }
}

#[test]
fn an_error_that_does_not_come_again_is_no_damage() {
    each_way(|root, open| {
        let engine = open();
        let content = bytes(1, 3 << 20);
        let digest = push(&engine, "a", &content).0;
        let path = path(&engine, root, &digest);
        flip(&path, 5);
        let once = AtomicU64::new(0);
        // The first part has been read when somebody is first told of the progress.
        let put_right = |_| {
            if once.fetch_add(1, Ordering::Relaxed) == 0 {
                flip(&path, 5);
            }
            ControlFlow::Continue(())
        };
        let report = engine.scrub(&AT_ONCE, &put_right).expect("begins");
        assert_eq!((report.read_again, report.damaged.count, report.checked), (1, 0, report.total));
        assert_eq!(pull(&engine, "a", &digest), Some(content));
    });
}

#[test]
fn files_that_somebody_puts_back_are_in_use_again() {
    let root = tempfile::tempdir().expect("a directory");
    let engine = open(root.path(), true);
    let content = bytes(1, 70_000);
    let digest = push(&engine, "a", &content).0;
    let path = path(&engine, root.path(), &digest);
    let aside = root.path().join("backup");
    std::fs::rename(&path, &aside).expect("moved");
    assert_eq!(damages(&scrub(&engine)), [(digest, Damage::Missing)]);
    // A copy that is damaged, too.
    std::fs::copy(&aside, &path).expect("copied");
    flip(&path, 5);
    let report = scrub(&engine);
    assert_eq!((report.reinstated.count, report.damaged.count), (0, 0));
    std::fs::copy(&aside, &path).expect("copied");
    let report = scrub(&engine);
    assert_eq!((report.reinstated.count, report.checked.count), (1, 1));
    assert_eq!(pull(&engine, "a", &digest), Some(content));
    assert_eq!(engine.metadata().snapshot().expect("open").statistics().damaged, 0);
}

#[test]
fn damage_of_what_nobody_needs_is_forgotten() {
    let root = tempfile::tempdir().expect("a directory");
    let engine = open(root.path(), true);
    let digests: Vec<Digest> = (0..2).map(|number| push(&engine, "a", &bytes(number, 5000)).0).collect();
    digests.iter().for_each(|digest| flip(&path(&engine, root.path(), digest), 0));
    assert_eq!(scrub(&engine).damaged.count, 2);
    for digest in &digests {
        let digest = *digest;
        let unlink = engine.metadata().write_blocking(move |t| t.unlink_blob(&name("a"), &digest));
        assert!(unlink.expect("committed"));
    }
    let digest = digests[0];
    let removed = engine.metadata().write_blocking(move |t| t.remove_unused_content(&digest));
    assert_eq!(
        removed.expect("committed"),
        None,
        "there is no content of which a file would have to be removed"
    );
    assert_eq!(engine.metadata().snapshot().expect("open").statistics().damaged, 1);
    scrub(&engine);
    assert_eq!(engine.metadata().snapshot().expect("open").statistics().damaged, 0);
}

#[test]
fn collection_keeps_what_a_damaged_manifest_needs_and_forgets_damage_that_nobody_needs() {
    let root = tempfile::tempdir().expect("a directory");
    let engine = open(root.path(), true);
    engine.set_lease(Duration::ZERO);
    let (config, layer) = (push(&engine, "a", b"{}").0, push(&engine, "a", &bytes(1, 5000)).0);
    let manifest = image(&[config, layer], None);
    let digest = put(&engine, "a", &manifest, &["v1"]).expect("complete");
    let signature = put(&engine, "a", &image(&[config], Some(&digest)), &[]).expect("complete");
    let garbage = push(&engine, "b", &bytes(2, 5000)).0;
    spoil(&engine, digest, Some(b"{}"));
    flip(&path(&engine, root.path(), &garbage), 9);
    assert_eq!(scrub(&engine).damaged.count, 2);

    let age = Duration::ZERO;
    let options = crate::collection::CollectionOptions {
        untagged_age: age,
        blob_age: age,
        stray_age: age,
        ..crate::collection::CollectionOptions::default()
    };
    let report = engine.collect(&options, &()).expect("begins");
    assert_eq!((report.removed.links.count, report.removed.contents.count, report.failure), (1, 0, None));
    let snapshot = engine.metadata().snapshot().expect("open");
    let id = snapshot.repository(&name("a")).expect("readable").expect("exists");
    assert_eq!(snapshot.statistics().damaged, 1);
    assert!(snapshot.manifest(id, &signature).expect("readable").is_some());
    assert!(pull(&engine, "a", &layer).is_some());
    put(&engine, "a", &manifest, &[]).expect("complete");
    let report = engine.check(&CheckOptions::default(), &on_and_on).expect("looks");
    assert!(report.findings.is_empty(), "{report:?}");
}

#[test]
fn one_scrub_at_a_time() {
    let root = tempfile::tempdir().expect("a directory");
    let engine = open(root.path(), true);
    push(&engine, "a", b"x");
    let second = std::sync::Mutex::new(None);
    let meanwhile = |_| {
        *second.lock().expect("locked") = Some(engine.scrub(&AT_ONCE, &on_and_on));
        ControlFlow::Continue(())
    };
    assert_eq!(engine.scrub(&AT_ONCE, &meanwhile).expect("begins").checked.count, 1);
    assert!(matches!(second.into_inner().expect("locked"), Some(Err(ScrubError::Running))));
    assert!(!engine.is_scrubbing());
}

#[test]
fn the_page_cache_is_left_as_it_was() {
    let root = tempfile::tempdir().expect("a directory");
    let engine = open(root.path(), false);
    let cold = push(&engine, "a", &bytes(1, 3 << 20)).0;
    let warm = push(&engine, "a", &bytes(2, 3 << 20)).0;
    let paths = [cold, warm].map(|digest| path(&engine, root.path(), &digest));
    let open_cold = std::fs::File::open(&paths[0]).expect("opens");
    open_cold.sync_all().expect("flushed");
    rustix::fs::fadvise(&open_cold, 0, None, rustix::fs::Advice::DontNeed).expect("advised");
    let is_cached = |digest: &Digest, at: u64| {
        on(&engine, async |core| {
            let BlobLocation::File(file) = record(&engine, digest).expect("stored").location else {
                panic!("no file")
            };
            core.disk().open(layout::blob(digest, file)).await.expect("opens").is_cached(at, 1 << 20)
        })
    };
    std::fs::read(&paths[1]).expect("read");
    if is_cached(&cold, 0) {
        // A filesystem in memory: there is no other place where the file could be.
        return;
    }
    assert_eq!(scrub(&engine).checked.count, 2);
    for part in 0..3 {
        assert!(!is_cached(&cold, part << 20) && is_cached(&warm, part << 20), "{part}");
    }
}
