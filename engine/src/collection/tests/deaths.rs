//! A process that dies at any write and at any removal of a file while it collects, and what the next one makes of that:
//! nothing alive is missing, and nothing dead stays.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::memory_files::MemoryFiles;
use super::process::{EXPIRY, LOG_SIZE, Process, TestClock};
use super::random::Random;
use super::*;
use crate::layout;
use crate::metadata::tests::memory::MemoryStorage;
use crate::metadata::{BlobLocation, FileId, Snapshot, UploadContent, UploadId, UploadRecord};
use crate::oci::Descriptor;
use crate::uploads::fresh_hash;

const PUSHED: Timestamp = Timestamp(10_000);
const COLLECTED: u64 = PUSHED.0 + EXPIRY + 10_000;

/// What a process leaves to the next one.
struct World {
    storage: Arc<MemoryStorage>,
    /// What the next process writes between two checkpoints, in bytes.
    log_size: usize,
    /// Files, and when each was changed.
    files: BTreeMap<String, u64>,
}

/// All that can be seen of a world, row by row and file by file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    rows: BTreeSet<String>,
    files: BTreeSet<String>,
}

fn clock() -> TestClock {
    TestClock(AtomicU64::new(COLLECTED))
}

fn write<T: Send + 'static>(
    process: &Process,
    work: impl FnOnce(&mut Transaction<'_>) -> Result<T, MetadataError> + Send + 'static,
) -> T {
    process.metadata.write_blocking(work).expect("writes")
}

/// Pushes the blob of this name: in a file, where the name says so.
fn blob(process: &Process, files: &MemoryFiles, repository: &'static str, text: &'static str) -> Digest {
    let digest = digest(text);
    let content = match text.contains("file") {
        true => NewContent::File(file(text)),
        false => NewContent::Inline(text.into()),
    };
    if let NewContent::File(file) = content {
        files.put(layout::blob(&digest, file), PUSHED);
    }
    write(process, move |transaction| {
        transaction.commit_blob(&name(repository), &digest, text.len() as u64, content, None, PUSHED)
    });
    digest
}

fn file(text: &str) -> FileId {
    let mut id = [0; 16];
    id.copy_from_slice(&digest(text).value()[..16]);
    FileId(id)
}

/// Pushes a manifest of this name, with the children and the subject that it has besides.
fn manifest(
    process: &Process,
    repository: &'static str,
    text: &'static str,
    tag: Option<&'static str>,
    blobs: &[Digest],
    (children, subject): (&[&str], Option<&str>),
) {
    let subject = subject.map(|text| Descriptor {
        media_type: media_type::OCI_MANIFEST.into(),
        digest: digest(text),
        size: 1,
        artifact_type: None,
        annotations: None,
        urls: None,
    });
    let children = children.iter().map(|text| digest(text)).collect();
    let manifest = Manifest { children, subject, ..image(blobs) };
    write(process, move |transaction| {
        let tags: Vec<Tag> = tag.iter().map(|tag| tag.parse().expect("a tag")).collect();
        let put = PutManifest {
            digest: digest(text),
            manifest: &manifest,
            size: text.len() as u64,
            content: NewContent::Inline(text.into()),
            tags: &tags,
            condition: &TagCondition::Any,
            now: PUSHED,
        };
        transaction.put_manifest(&name(repository), put)
    })
    .expect("complete");
}

fn upload(process: &Process, files: &MemoryFiles, number: u8, content: UploadContent) {
    if let UploadContent::File(file) = content {
        files.put(layout::upload(file), PUSHED);
    }
    let record = UploadRecord {
        repository: name("a"),
        started_at: PUSHED,
        touched_at: PUSHED,
        size: 1,
        hash: fresh_hash(Algorithm::Sha256),
        content,
    };
    write(process, move |transaction| transaction.save_upload(UploadId([number; 16]), &record));
}

/// Some of everything that lives, and of everything that goes.
fn world() -> World {
    let storage = Arc::new(MemoryStorage::default());
    let process = Process::start(&storage, 0, LOG_SIZE, PUSHED);
    let files = MemoryFiles::default();
    let blob = |repository, text| blob(&process, &files, repository, text);
    let (shared, layer, signature) = (blob("a", "shared file"), blob("a", "layer"), blob("a", "signature"));
    let (gone, gone_file) = (blob("a", "gone"), blob("a", "gone file"));
    blob("a", "needed by nothing, file");
    manifest(&process, "a", "image", Some("v1"), &[shared, layer], (&[], None));
    manifest(&process, "a", "about the image", None, &[signature], (&[], Some("image")));
    manifest(&process, "a", "child", None, &[layer], (&[], None));
    manifest(&process, "a", "index", Some("all"), &[], (&["child"], None));
    manifest(&process, "a", "dead child", None, &[shared, gone, gone_file], (&[], None));
    manifest(&process, "a", "dead index", None, &[], (&["dead child"], None));
    manifest(&process, "a", "about the dead index", None, &[gone], (&[], Some("dead index")));
    // Each keeps the other.
    manifest(&process, "a", "circle", None, &[gone_file], (&[], Some("other half")));
    manifest(&process, "a", "other half", None, &[], (&["circle"], None));
    // What one repository does not need, and another one does.
    blob("b", "shared file");
    blob("b", "gone file");
    manifest(&process, "b", "other image", Some("v1"), &[shared], (&[], None));
    // A repository of which nothing is left.
    let alone = blob("c", "alone, file");
    manifest(&process, "c", "untagged", None, &[alone], (&[], None));
    // Tags that a rule ends.
    for (text, tag) in [("old", "1"), ("new", "2")] {
        let layer = blob("d", text);
        manifest(
            &process,
            "d",
            if tag == "1" { "old image" } else { "new image" },
            Some(tag),
            &[layer],
            (&[], None),
        );
    }
    // Content that is linked nowhere.
    for text in ["unlinked", "unlinked file"] {
        let digest = blob("b", text);
        assert!(write(&process, move |transaction| transaction.unlink_blob(&name("b"), &digest)));
    }
    upload(&process, &files, 1, UploadContent::Inline("x".into()));
    upload(&process, &files, 2, UploadContent::File(file("session")));
    files.put(layout::upload(file("stray")), PUSHED);
    files.put(layout::blob(&layer, file("stray")), PUSHED);
    drop(process);
    World { storage, log_size: LOG_SIZE, files: files.all() }
}

/// What lives of [`world`].
fn alive() -> Seen {
    let manifests = |repository, texts: &[&str]| -> Vec<String> {
        let row = |kind: &str, text: &str| format!("{kind} {} {repository}", digest(text));
        texts.iter().flat_map(|text| [row("manifest", text), format!("content {}", digest(text))]).collect()
    };
    let links = |repository, texts: &[&str]| -> Vec<String> {
        let row = |text: &str| format!("link {} {repository}", digest(text));
        texts.iter().flat_map(|text| [row(text), format!("content {}", digest(text))]).collect()
    };
    let rows = [
        manifests("a", &["image", "about the image", "child", "index"]),
        manifests("b", &["other image"]),
        manifests("d", &["new image"]),
        links("a", &["shared file", "layer", "signature"]),
        links("b", &["shared file"]),
        links("d", &["new"]),
        ["tag v1 a", "tag all a", "tag v1 b", "tag 2 d"].map(str::to_owned).into(),
        ["repository a", "repository b", "repository d"].map(str::to_owned).into(),
    ];
    let files = [layout::blob(&digest("shared file"), file("shared file"))];
    Seen { rows: rows.into_iter().flatten().collect(), files: files.into() }
}

fn rows(snapshot: &Snapshot) -> Result<BTreeSet<String>, MetadataError> {
    let mut rows = BTreeSet::new();
    for repository in snapshot.repositories("", None)? {
        let repository = repository?;
        let (id, name) = (repository.id, repository.name);
        rows.insert(format!("repository {name}"));
        for manifest in snapshot.manifests(id, None)? {
            rows.insert(format!("manifest {} {name}", manifest?.0));
        }
        for link in snapshot.blobs(id, None)? {
            rows.insert(format!("link {} {name}", link?.0));
        }
        for tag in snapshot.tags(id, None)? {
            rows.insert(format!("tag {} {name}", tag?.0));
        }
    }
    for content in snapshot.stored_blobs(None)? {
        rows.insert(format!("content {}", content?.0));
    }
    for upload in snapshot.uploads()? {
        rows.insert(format!("upload {}", upload?.0));
    }
    Ok(rows)
}

/// Looks at a world, in which whatever is visible must be whole.
fn see(process: &Process, files: &MemoryFiles) -> Seen {
    let snapshot = process.metadata.snapshot().expect("open");
    let mut faults = Vec::new();
    let mut found = |finding: crate::metadata::Finding| {
        if finding.kind.is_fault() {
            faults.push(finding);
        }
    };
    snapshot.check(&mut found, &|_| ControlFlow::Continue(())).expect("readable");
    assert!(faults.is_empty(), "{faults:?}");
    for content in snapshot.stored_blobs(None).expect("readable") {
        let (digest, record) = content.expect("readable");
        if let BlobLocation::File(file) = record.location {
            assert!(files.has(&layout::blob(&digest, file)), "the file of {digest} is gone");
        }
    }
    Seen { rows: rows(&snapshot).expect("readable"), files: files.all().into_keys().collect() }
}

fn collect(process: &Process, files: &dyn Files) -> CollectionReport {
    let rule = RetentionRule {
        repositories: "d".parse().expect("a pattern"),
        keep_last: Some(1),
        keep_younger: None,
        protected: Vec::new(),
        immutable: Vec::new(),
    };
    let options = CollectionOptions { retention: vec![rule], ..at_once(Mode::ReadOnly) };
    process.store(files, &clock(), true).collect(&options, &()).expect("begins")
}

impl World {
    /// Another one that is the same.
    fn again(&self, log_size: usize) -> Self {
        Self { storage: Arc::new(self.storage.after_kill()), log_size, files: self.files.clone() }
    }

    fn start(&self) -> (Process, MemoryFiles) {
        (Process::start(&self.storage, 0, self.log_size, Timestamp(COLLECTED)), self.files.clone().into())
    }

    /// What is left of it when the power goes while `process` collects: of the changes that were not flushed, and of
    /// the removals of files, which nobody flushes, as many as `random` says.
    fn after_power_loss(&self, files: &MemoryFiles, random: &mut Random) -> Self {
        let kept_of_four = random.below(5);
        let mut keeps = || random.below(4) < kept_of_four;
        let storage = Arc::new(self.storage.after_power_loss(&mut keeps));
        let left = self.files.iter().filter(|(name, _)| files.has(name) || !keeps());
        let files = left.map(|(name, at)| (name.clone(), *at)).collect();
        Self { storage, log_size: self.log_size, files }
    }

    /// Another collection removes all that the one before it has left, also when that dies, too.
    fn must_be_mended(self, random: &mut Random) {
        let (process, files) = self.start();
        let (seen, alive) = (see(&process, &files), alive());
        assert!(seen.rows.is_superset(&alive.rows), "missing: {:?}", alive.rows.difference(&seen.rows));
        assert!(seen.files.is_superset(&alive.files));
        if random.one_in(2) {
            self.storage.cut_power_after(random.below(60) as u64);
            collect(&process, &files);
            drop(process);
            return self.after_power_loss(&files, random).must_be_mended(random);
        }
        let report = collect(&process, &files);
        assert_eq!((report.failure, report.errors), (None, 0));
        assert_eq!(see(&process, &files), alive);
    }
}

#[test]
fn the_power_goes_at_any_write() {
    let world = world();
    // With a checkpoint at the end alone, and with one for almost each batch.
    for (log_size, changes_min) in [(LOG_SIZE, 20), (1 << 10, 60)] {
        dies_at_any_write(&world, log_size, changes_min);
    }
}

fn dies_at_any_write(world: &World, log_size: usize, changes_min: u64) {
    for changes in 0.. {
        let dying = world.again(log_size);
        let (process, files) = dying.start();
        dying.storage.cut_power_after(changes);
        let report = collect(&process, &files);
        drop(process);
        for seed in 0..2 {
            let mut random = Random::new(changes * 2 + seed);
            dying.after_power_loss(&files, &mut random).must_be_mended(&mut random);
        }
        if report.failure.is_none() {
            assert!(changes >= changes_min, "{changes} writes");
            break;
        }
    }
}

/// Files of a process that is killed before or after one of them is removed.
struct Watched<'w> {
    storage: &'w MemoryStorage,
    files: &'w MemoryFiles,
    deaths: RefCell<Vec<World>>,
}

impl Watched<'_> {
    fn die(&self) {
        let storage = Arc::new(self.storage.after_kill());
        self.deaths.borrow_mut().push(World { storage, log_size: LOG_SIZE, files: self.files.all() });
    }
}

impl Files for Watched<'_> {
    fn remove(&self, name: &str) -> io::Result<()> {
        self.die();
        let answer = self.files.remove(name);
        self.die();
        answer
    }

    fn names(&self, directory: &str) -> io::Result<Vec<String>> {
        self.files.names(directory)
    }

    fn status(&self, name: &str) -> io::Result<FileStatus> {
        self.files.status(name)
    }
}

#[test]
fn the_process_is_killed_at_any_removal_of_a_file() {
    let world = world();
    let (process, files) = world.start();
    let watched = Watched { storage: &world.storage, files: &files, deaths: RefCell::default() };
    let report = collect(&process, &watched);
    assert_eq!((report.failure, report.errors), (None, 0));
    assert_eq!(see(&process, &files), alive());
    let deaths = watched.deaths.into_inner();
    // Four of blobs, one of a session, and two that nothing names.
    assert_eq!(deaths.len(), 2 * 7);
    for (number, death) in (1..).zip(deaths) {
        death.must_be_mended(&mut Random::new(number));
    }
}
