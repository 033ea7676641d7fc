//! How long collection takes on large stores, and what it needs. Run by hand, alone:
//! `cargo test --release -p engine collection::tests::figures -- --ignored --nocapture --test-threads 1`

use std::cell::Cell;
use std::ops::ControlFlow;
use std::sync::atomic::AtomicU64;

use super::*;
use crate::metadata::{FileId, Metadata, MetadataError};

const MIB: u64 = 1 << 20;

/// Highest memory of the process since it was last asked, in bytes: counted by the kernel, with the pages of files
/// that it has mapped.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("readable");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("a line");
    let kib: u64 = line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number");
    std::fs::write("/proc/self/clear_refs", "5").expect("writable");
    kib << 10
}

/// Processor time of the process since it was last asked, in milliseconds. On a busy machine, more telling than the time.
fn processor_ms() -> u64 {
    static BEFORE: AtomicU64 = AtomicU64::new(0);
    // User and system time, in hundredths of a second, are the 14th and 15th field (proc_pid_stat(5)).
    let fields = std::fs::read_to_string("/proc/self/stat").expect("readable");
    let fields = fields.rsplit_once(')').expect("a name").1.split_whitespace();
    let now = fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number") * 10).sum::<u64>();
    now - BEFORE.swap(now, Ordering::Relaxed)
}

/// Processor time of the calling thread, in microseconds.
fn processor_us_of_thread() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("readable");
    text.split_whitespace().next().and_then(|ns| ns.parse::<u64>().ok()).expect("a number") / 1000
}

/// What is not in the report.
#[derive(Default)]
struct Cost {
    entered_us: Cell<u64>,
    /// Of the window, in microseconds of processor time.
    window_us: Cell<u64>,
    batches: Cell<u64>,
}

impl CollectionHooks for Cost {
    fn at(&self, step: Step) -> ControlFlow<()> {
        match step {
            Step::Entered => self.entered_us.set(processor_us_of_thread()),
            Step::Marked => self.window_us.set(processor_us_of_thread() - self.entered_us.get()),
            Step::Committed => self.batches.set(self.batches.get() + 1),
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// What an image is made of: how many blobs, how large, and whether they are in the metadata.
#[derive(Clone, Copy)]
struct Shape {
    blobs: u64,
    inline: bool,
}

/// Puts an image of blobs that no other has; `tag`: whether it has one.
fn put_image(
    transaction: &mut Transaction<'_>,
    repository: &RepositoryName,
    number: u64,
    shape: Shape,
    tag: bool,
) -> Result<Digest, MetadataError> {
    let now = Timestamp(1);
    let mut blobs = Vec::new();
    for blob in 0..shape.blobs {
        let digest = digest(&format!("blob {number} {blob}"));
        let content = match shape.inline {
            true => NewContent::Inline(vec![7; 700].into()),
            false => NewContent::File(FileId(u128::from(number * 100 + blob).to_be_bytes())),
        };
        transaction.commit_blob(repository, &digest, 1000, content, None, now)?;
        blobs.push(digest);
    }
    let digest = digest(&format!("image {number}"));
    let tags: Vec<Tag> = tag.then(|| format!("v{number}").parse().expect("a tag")).into_iter().collect();
    let put = PutManifest {
        digest,
        manifest: &image(&blobs),
        size: 1200,
        content: NewContent::Inline(vec![8; 1200].into()),
        tags: &tags,
        condition: &TagCondition::Any,
        now,
    };
    transaction.put_manifest(repository, put)?.expect("complete");
    Ok(digest)
}

fn fill(metadata: &Metadata, images: u64, per_repository: u64, shape: Shape, is_tagged: fn(u64) -> bool) {
    for start in (0..images).step_by(500) {
        metadata
            .write_blocking(move |transaction| {
                for number in start..(start + 500).min(images) {
                    // Spread, as pushes are.
                    let repository = name(&format!("team/app-{}", number % images.div_ceil(per_repository)));
                    put_image(transaction, &repository, number, shape, is_tagged(number))?;
                }
                Ok(())
            })
            .expect("writes");
    }
}

fn show(what: &str, report: &CollectionReport, cost: &Cost) {
    println!(
        "{what}: window {} ms ({} ms of processor time), mark {} ms, sweep {} ms in {} batches, files {} ms, longest batch {} us; removed {} manifests, {} links, {} contents; {} ms of processor time, peak memory {} MiB",
        report.window_us / 1000,
        cost.window_us.get() / 1000,
        report.mark_us / 1000,
        report.sweep_us / 1000,
        cost.batches.get(),
        report.files_us / 1000,
        report.longest_batch_us,
        report.removed.manifests.count,
        report.removed.links.count,
        report.removed.contents.count,
        processor_ms(),
        peak_memory() / MIB,
    );
}

fn half_garbage(images: u64, per_repository: u64) {
    let root = tempfile::tempdir().expect("a directory");
    let engine = engine(root.path());
    fill(engine.metadata(), images, per_repository, Shape { blobs: 5, inline: false }, |number| {
        number % 2 == 0
    });
    drop(engine);
    let engine = self::engine(root.path());
    engine.set_lease(Duration::ZERO);
    peak_memory();
    processor_ms();
    let cost = Cost::default();
    let dry = CollectionOptions { dry_run: true, ..at_once(Mode::Online) };
    let dry = engine.collect(&dry, &cost).expect("collects");
    show(&format!("{images} images, dry run"), &dry, &cost);
    let report = engine.collect(&at_once(Mode::Online), &cost).expect("collects");
    show(&format!("{images} images, half of them garbage"), &report, &cost);
    assert_eq!(dry.removed.contents, report.removed.contents);
    assert_eq!(report.removed.manifests.count, images / 2);
    assert_eq!(report.removed.links.count, images / 2 * 5);
    assert_eq!(report.removed.contents.count, images / 2 * 6);
}

#[test]
#[ignore = "measures"]
fn a_million_blobs_half_of_them_garbage() {
    half_garbage(200_000, 1000);
}

#[test]
#[ignore = "measures"]
fn a_million_blobs_in_one_repository() {
    half_garbage(200_000, 200_000);
}

#[test]
#[ignore = "measures"]
fn a_hundred_thousand_blobs() {
    half_garbage(20_000, 1000);
}

/// The images of the comparison with other registries: three tiny layers and a config; a third is deleted.
fn small_images(per_repository: u64) {
    let images = 33_334;
    let root = tempfile::tempdir().expect("a directory");
    let engine = engine(root.path());
    fill(engine.metadata(), images, per_repository, Shape { blobs: 4, inline: true }, |_| true);
    for start in (0..images).step_by(500) {
        engine
            .metadata()
            .write_blocking(move |transaction| {
                for number in (start..(start + 500).min(images)).filter(|number| number % 3 == 0) {
                    let repository = name(&format!("team/app-{}", number % images.div_ceil(per_repository)));
                    transaction.delete_manifest(
                        &repository,
                        &digest(&format!("image {number}")),
                        Timestamp(2),
                    )?;
                }
                Ok(())
            })
            .expect("writes");
    }
    drop(engine);
    let engine = self::engine(root.path());
    engine.set_lease(Duration::ZERO);
    peak_memory();
    processor_ms();
    let began = std::time::Instant::now();
    let cost = Cost::default();
    let report = engine.collect(&at_once(Mode::ReadOnly), &cost).expect("collects");
    println!("{} ms in all", began.elapsed().as_millis());
    show(&format!("33,334 small images, {per_repository} in a repository, a third deleted"), &report, &cost);
    assert_eq!(report.removed.contents.count, 11_112 * 5);
}

#[test]
#[ignore = "measures"]
fn small_images_in_large_repositories() {
    small_images(5000);
}

#[test]
#[ignore = "measures"]
fn small_images_in_small_repositories() {
    small_images(1);
}
