//! How long the integrity's tasks take on a large store, and what they need. Run by hand, alone:
//! `cargo test --release -p engine integrity::tests::figures -- --ignored --nocapture --test-threads 1`

use std::time::Instant;

use super::*;

const BLOBS: u64 = 1_000_000;

/// Highest memory of the process since it was last asked, in MiB.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("readable");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("a line");
    let kib: u64 = line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number");
    std::fs::write("/proc/self/clear_refs", "5").expect("writable");
    kib >> 10
}

fn measure<T>(what: &str, work: impl FnOnce() -> T) -> T {
    peak_memory();
    let began = Instant::now();
    let answer = work();
    println!("{what}: {:.1} s, {} MiB", began.elapsed().as_secs_f64(), peak_memory());
    answer
}

/// Images of ten small blobs, of which one is shared, in a hundred repositories of ten namespaces.
fn fill(engine: &Engine) -> Digest {
    let shared = push(engine, "shared", b"{}").0;
    for start in (0..BLOBS / 9).step_by(500) {
        let fill = engine.metadata().write_blocking(move |transaction| {
            for number in start..start + 500 {
                let repository = name(&format!("team-{}/app-{}", number % 10, number % 100));
                transaction.mount_blob(&repository, &shared, &name("shared"), Timestamp(1))?;
                let mut blobs = vec![shared];
                for blob in 0..9 {
                    let content = format!("{number} {blob}").into_bytes();
                    let digest = ContentHasher::digest(Algorithm::Sha256, &content);
                    let (size, content) = (content.len() as u64, NewContent::Inline(content.into()));
                    transaction.commit_blob(&repository, &digest, size, content, None, Timestamp(1))?;
                    blobs.push(digest);
                }
                let content = image(&blobs, None);
                let manifest = Manifest::parse(None, &content).expect("a manifest");
                let tags = [tag(&format!("v{number}"))];
                let put = PutManifest {
                    digest: ContentHasher::digest(Algorithm::Sha256, &content),
                    manifest: &manifest,
                    size: content.len() as u64,
                    content: NewContent::Inline(content.into()),
                    tags: &tags,
                    condition: &TagCondition::Any,
                    now: Timestamp(1),
                };
                transaction.put_manifest(&repository, put)?.expect("complete");
            }
            Ok(())
        });
        fill.expect("committed");
    }
    shared
}

#[test]
#[ignore = "takes minutes; figures are to be read by people"]
fn a_million_blobs() {
    let root = tempfile::tempdir().expect("a directory");
    let engine = open(root.path(), true);
    let shared = measure("fill", || fill(&engine));
    println!("{:?}", engine.metadata().snapshot().expect("open").statistics());
    measure("usage", || engine.usage().expect("readable"));
    measure("why", || engine.why(&shared).expect("readable"));
    let report = measure("check", || engine.check(&CheckOptions::default(), &on_and_on).expect("looks"));
    assert!(report.findings.is_empty(), "{report:?}");
    let at_once = ScrubOptions { bytes_per_second: 0, afresh: true };
    let report = measure("scrub", || engine.scrub(&at_once, &on_and_on).expect("begins"));
    assert_eq!(report.damaged.count, 0);
    let report = measure("export", || engine.export(0, &on_and_on).expect("written"));
    println!("{} rows, {} MiB", report.rows, report.bytes >> 20);
    drop(engine);
    let options = RebuildOptions { replace: true, without_export: false, cache_bytes: 8 << 20 };
    let clock = Environment::system();
    measure("rebuild", || rebuild(root.path(), &options, &clock, &on_and_on).expect("rebuilt"));
}

#[test]
#[ignore = "takes minutes; figures are to be read by people"]
fn large_files() {
    for direct in [true, false] {
        let root = tempfile::tempdir().expect("a directory");
        let engine = open(root.path(), direct);
        for number in 0..8 {
            push(&engine, "a", &bytes(number, 256 << 20));
        }
        let at_once = ScrubOptions { bytes_per_second: 0, afresh: true };
        let report = measure("scrub of 2 GiB", || engine.scrub(&at_once, &on_and_on).expect("begins"));
        assert_eq!((report.checked.count, report.damaged.count), (8, 0));
    }
}
