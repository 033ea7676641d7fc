//! Collection and clients at the same time, through the engine's front door, on a real filesystem.

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use super::*;
use crate::metadata::{BlobLocation, FileId, UploadContent, UploadId};
use crate::{Clock, Content, Core, UploadWriter, runtime};

const HOUR_MS: u64 = 60 * 60 * 1000;

/// A clock that stands still until it is moved, with the time of the filesystem's to begin with.
#[derive(Debug)]
struct StoppedClock(AtomicU64);

impl Clock for StoppedClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::Relaxed))
    }
}

struct Registry {
    engine: Engine,
    clock: Arc<StoppedClock>,
    root: tempfile::TempDir,
}

/// Called at each step.
struct At<F>(RefCell<F>);

impl<F: FnMut(Step)> CollectionHooks for At<F> {
    fn at(&self, step: Step) -> ControlFlow<()> {
        (self.0.borrow_mut())(step);
        ControlFlow::Continue(())
    }
}

impl Registry {
    /// Three hours after its start, when nothing is leased.
    fn new() -> Self {
        let root = tempfile::tempdir().expect("a directory");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after the epoch").as_millis() as u64;
        let clock = Arc::new(StoppedClock(AtomicU64::new(now)));
        let environment = Environment { clock: clock.clone(), ..Environment::system() };
        let engine = Engine::open(options(root.path()), environment).expect("opens");
        let registry = Self { engine, clock, root };
        registry.wait(3 * HOUR_MS);
        registry
    }

    /// Lets time pass, as a server does that looks after its sessions.
    fn wait(&self, ms: u64) {
        for _ in 0..3 {
            self.clock.0.fetch_add(ms / 3 + 1, Ordering::Relaxed);
            self.run(async |core| core.expire_uploads().await.expect("looks"));
        }
    }

    fn run<T: Send>(&self, work: impl AsyncFnOnce(Core) -> T + Send) -> T {
        let engine = &self.engine;
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                runtime::run(async { work(engine.core().expect("a ring")).await }).expect("a runtime")
            });
            thread.join().expect("no panic")
        })
    }

    fn push(&self, repository: &str, content: &[u8]) -> Digest {
        let digest = ContentHasher::digest(Algorithm::Sha256, content);
        self.run(async move |core| {
            let upload = core.upload_at_once(&name(repository), Algorithm::Sha256);
            send(upload, content).await.finish(digest).await.expect("stored");
        });
        digest
    }

    fn tag(&self, repository: &str, tag: Option<&str>, blobs: &[Digest]) -> Option<Digest> {
        let (repository, now) = (name(repository), self.clock.now());
        let tags: Vec<Tag> = tag.iter().map(|tag| tag.parse().expect("a tag")).collect();
        let manifest = image(blobs);
        let digest = digest(&format!("{blobs:?}"));
        let stored = self.engine.metadata().write_blocking(move |transaction| {
            let put = PutManifest {
                digest,
                manifest: &manifest,
                size: 1,
                content: NewContent::Inline("manifest".into()),
                tags: &tags,
                condition: &TagCondition::Any,
                now,
            };
            transaction.put_manifest(&repository, put)
        });
        stored.expect("writes").ok().map(|_| digest)
    }

    fn read(&self, repository: &str, digest: Digest) -> Option<Vec<u8>> {
        let snapshot = self.engine.metadata().snapshot().expect("open");
        let repository = snapshot.repository(&name(repository)).expect("readable")?;
        self.run(async move |core| {
            let blob = core.open_blob(repository, &digest).await.expect("readable")?;
            Some(match blob.content {
                Content::Inline(bytes) => bytes.to_vec(),
                Content::File(file) => {
                    let (count, buffer) = file.read_at(core.buffers().take(1 << 20), usize::MAX, 0).await;
                    count.expect("readable");
                    buffer.to_vec()
                }
            })
        })
    }

    fn collect(&self, hook: impl FnMut(Step)) -> CollectionReport {
        let report = self.engine.collect(&at_once(Mode::Online), &At(RefCell::new(hook))).expect("begins");
        assert_eq!((&report.failure, report.errors), (&None, 0));
        report
    }

    fn files(&self, directory: &str) -> Vec<PathBuf> {
        files(&self.root.path().join(directory))
    }
}

/// Every file below `root`.
fn files(root: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root).expect("a directory").map(|entry| entry.expect("readable").path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

async fn send(mut upload: UploadWriter, mut content: &[u8]) -> UploadWriter {
    while !content.is_empty() {
        let mut buffer = upload.buffer(Some(content.len() as u64)).await.expect("a buffer");
        let count = buffer.append(content);
        content = &content[count..];
        upload.write(buffer, Some(content.len() as u64)).await.expect("written");
    }
    upload
}

fn content(number: u8) -> Vec<u8> {
    vec![number; 100_000]
}

#[test]
fn what_no_tag_leads_to_goes_with_its_files_and_the_rest_stays() {
    let registry = Registry::new();
    let (kept, dead) = (registry.push("a", &content(1)), registry.push("a", &content(2)));
    registry.tag("a", Some("v1"), &[kept]).expect("complete");
    registry.tag("a", None, &[kept, dead]).expect("complete");
    registry.wait(3 * HOUR_MS);
    let dry = CollectionOptions { dry_run: true, ..at_once(Mode::ReadOnly) };
    let planned = registry.engine.collect(&dry, &()).expect("begins");
    assert_eq!(registry.files("blobs").len(), 2);
    let report = registry.collect(|_| {});
    assert_eq!(planned.removed, report.removed);
    assert_eq!((report.removed.manifests.count, report.removed.links.count), (1, 1));
    assert_eq!(report.removed.files, Amount { count: 1, bytes: 100_000 });
    assert_eq!(report.repositories[0].repository, "a");
    assert_eq!(registry.files("blobs").len(), 1);
    assert_eq!(registry.read("a", kept), Some(content(1)));
    assert_eq!(registry.read("a", dead), None);
}

#[test]
fn a_manifest_that_is_pushed_while_its_blob_is_about_to_be_deleted_keeps_it() {
    let registry = Registry::new();
    let blob = registry.push("a", &content(1));
    registry.wait(3 * HOUR_MS);
    let mut pushed = None;
    let report = registry.collect(|step| {
        if step == Step::Doomed && pushed.is_none() {
            pushed = registry.tag("a", Some("v1"), &[blob]);
        }
    });
    assert_eq!((report.removed.links.count, report.kept.used_again), (0, 1));
    assert!(pushed.is_some());
    assert_eq!(registry.read("a", blob), Some(content(1)));
}

#[test]
fn a_manifest_that_comes_after_its_blob_was_deleted_is_refused() {
    let registry = Registry::new();
    let blob = registry.push("a", &content(1));
    registry.wait(3 * HOUR_MS);
    let mut pushed = None;
    registry.collect(|step| {
        if step == Step::Committed {
            pushed = Some(registry.tag("a", Some("v1"), &[blob]));
        }
    });
    assert_eq!(pushed, Some(None));
}

#[test]
fn a_client_that_was_told_that_a_layer_is_there_can_push_the_manifest() {
    let registry = Registry::new();
    let blob = registry.push("a", &content(1));
    registry.wait(3 * HOUR_MS);
    // Told before it marks, and after.
    for told in [Step::Entered, Step::Left] {
        let mut answer = None;
        let report = registry.collect(|step| {
            if step == told {
                answer = registry.read("a", blob);
            }
        });
        assert_eq!((answer, report.kept.leased_links), (Some(content(1)), 1));
        registry.wait(3 * HOUR_MS);
    }
    registry.read("a", blob).expect("there");
    registry.collect(|_| {});
    registry.tag("a", Some("v1"), &[blob]).expect("complete");
}

#[test]
fn a_client_that_asks_in_the_middle_of_a_batch_is_told_what_came_of_it() {
    let registry = Registry::new();
    let blob = registry.push("a", &content(1));
    registry.wait(3 * HOUR_MS);
    let answers = std::thread::scope(|scope| {
        let mut asked = Vec::new();
        registry.collect(|step| {
            if matches!(step, Step::Doomed | Step::Committed) {
                asked.push(scope.spawn(|| registry.read("a", blob)));
            }
        });
        asked.into_iter().map(|thread| thread.join().expect("no panic")).collect::<Vec<_>>()
    });
    // One batch for the link, and one for the repository.
    assert_eq!(answers, [None, None, None, None]);
}

#[test]
fn the_children_of_an_index_are_leased_as_manifests() {
    let registry = Registry::new();
    let blob = registry.push("a", &content(1));
    let manifest = registry.tag("a", None, &[blob]).expect("complete");
    registry.wait(3 * HOUR_MS);
    let repository = registry.engine.metadata().snapshot().expect("open").repository(&name("a"));
    let repository = repository.expect("readable").expect("there");
    assert!(
        registry.run(async |core| core.manifest(repository, &manifest).await.expect("readable").is_some())
    );
    let report = registry.collect(|_| {});
    // With all that it refers to.
    assert_eq!((report.removed, report.kept.leased_manifests), (Removed::default(), 1));
    registry.wait(3 * HOUR_MS);
    assert_eq!(registry.collect(|_| {}).removed.manifests.count, 1);
    assert!(
        registry.run(async |core| core.manifest(repository, &manifest).await.expect("readable").is_none())
    );
}

#[test]
fn a_blob_that_is_mounted_elsewhere_while_it_is_about_to_be_deleted_stays_there() {
    let registry = Registry::new();
    let blob = registry.push("a", &content(1));
    registry.wait(3 * HOUR_MS);
    let mut mounted = false;
    registry.collect(|step| {
        if step == Step::Doomed && !mounted {
            let now = registry.clock.now();
            let mount = registry.engine.metadata().write_blocking(move |transaction| {
                transaction.mount_blob(&name("b"), &blob, &name("a"), now)
            });
            mounted = mount.expect("writes");
        }
    });
    assert!(mounted);
    assert_eq!((registry.read("a", blob), registry.read("b", blob)), (None, Some(content(1))));
}

#[test]
fn content_that_is_pushed_again_while_its_old_file_is_removed_is_there() {
    let registry = Registry::new();
    let blob = registry.push("a", &content(1));
    registry.wait(3 * HOUR_MS);
    let old = registry.files("blobs");
    let mut pushed = false;
    registry.collect(|step| {
        if step == Step::Committed && !pushed {
            pushed = true;
            assert_eq!(registry.files("blobs"), old, "the file goes after the commit");
            registry.push("a", &content(1));
        }
    });
    let files = registry.files("blobs");
    assert!(files.len() == 1 && files != old);
    assert_eq!(registry.read("a", blob), Some(content(1)));
}

#[test]
fn a_reader_that_has_a_blob_open_reads_it_to_the_end() {
    let registry = Registry::new();
    let blob = registry.push("a", &content(1));
    let snapshot = registry.engine.metadata().snapshot().expect("open");
    let repository = snapshot.repository(&name("a")).expect("readable").expect("there");
    registry.run(async |core| {
        let Content::File(file) =
            core.open_blob(repository, &blob).await.expect("readable").expect("there").content
        else {
            panic!("a file");
        };
        registry.wait(3 * HOUR_MS);
        assert_eq!(registry.collect(|_| {}).removed.files.count, 1);
        let (count, _) = file.read_at(core.buffers().take(1 << 20), usize::MAX, 0).await;
        assert_eq!(count.expect("readable"), 100_000);
        assert!(core.open_blob(repository, &blob).await.expect("readable").is_none());
    });
}

#[test]
fn files_that_nothing_names_go_when_they_are_old_and_those_on_their_way_stay() {
    let registry = Registry::new();
    let blob = registry.push("a", &content(1));
    let file = FileId([7; 16]);
    let stray = registry.root.path().join(crate::layout::blob(&blob, file));
    std::fs::write(&stray, "left behind").expect("writes");
    let upload = registry.root.path().join(crate::layout::upload(file));
    std::fs::write(&upload, "left behind").expect("writes");
    let other = registry.root.path().join("blobs/sha256/00/README");
    std::fs::write(&other, "somebody else's").expect("writes");
    registry.read("a", blob).expect("there");

    let young = CollectionOptions { stray_age: Duration::from_secs(24 * 3600), ..at_once(Mode::Online) };
    let report = registry.engine.collect(&young, &()).expect("begins");
    assert_eq!((report.removed.strays.count, report.kept.young_strays), (0, 2));
    // What is being written is not in the metadata either.
    registry.run(async |core| {
        let upload = send(core.upload_at_once(&name("a"), Algorithm::Sha256), &content(2)).await;
        assert_eq!(registry.files("uploads").len(), 2);
        assert_eq!(registry.collect(|_| {}).removed.strays, Amount { count: 2, bytes: 22 });
        let digest = ContentHasher::digest(Algorithm::Sha256, &content(2));
        upload.finish(digest).await.expect("stored");
    });
    assert!(!stray.exists() && !upload.exists() && other.exists());
    assert_eq!(registry.read("a", blob), Some(content(1)));
}

/// A session whose file has its name among the blobs already, as a process leaves it that dies before the commit.
fn session_with_a_named_file(registry: &Registry) -> (UploadId, FileId, Digest) {
    let id = registry.run(async |core| {
        let id = core.start_upload(&name("a"), Algorithm::Sha256);
        let upload = core.resume_upload(&name("a"), id).expect("there");
        send(upload, &content(1)).await.suspend().await.expect("saved");
        id
    });
    let record = registry.engine.metadata().snapshot().expect("open").upload(id).expect("readable");
    let UploadContent::File(file) = record.expect("there").content else { panic!("it has a file") };
    let digest = ContentHasher::digest(Algorithm::Sha256, &content(1));
    let path = |name| registry.root.path().join(name);
    std::fs::hard_link(path(crate::layout::upload(file)), path(crate::layout::blob(&digest, file)))
        .expect("named");
    (id, file, digest)
}

#[test]
fn a_session_that_names_its_file_again_while_the_old_name_is_removed_keeps_the_new_one() {
    let registry = Registry::new();
    let (id, file, digest) = session_with_a_named_file(&registry);
    let report = std::thread::scope(|scope| {
        let mut client = None;
        let report = registry.collect(|step| {
            if step == Step::StrayFound {
                assert!(registry.engine.shared().files_in_use.try_enter(file).is_none());
                client = Some(scope.spawn(|| {
                    registry.run(async |core| {
                        let upload = core.resume_upload(&name("a"), id).expect("there");
                        upload.finish(digest).await.expect("stored");
                    });
                }));
            }
        });
        client.expect("found").join().expect("no panic");
        report
    });
    assert_eq!(report.removed.strays.count, 1);
    assert_eq!(registry.read("a", digest), Some(content(1)));
    assert!(registry.files("uploads").is_empty());
}

#[test]
fn a_push_that_takes_long_keeps_what_it_has_pushed() {
    let registry = Registry::new();
    let blob = registry.push("a", &content(1));
    let upload = registry.run(async |core| core.start_upload(&name("a"), Algorithm::Sha256));
    registry.wait(HOUR_MS / 2);
    let options = CollectionOptions { blob_age: Duration::from_millis(10), ..at_once(Mode::Online) };
    let report = registry.engine.collect(&options, &()).expect("begins");
    assert_eq!((report.removed.links.count, report.kept.young_links), (0, 1));
    registry.run(async |core| {
        core.resume_upload(&name("a"), upload).expect("there").cancel().await.expect("cancelled");
    });
    registry.wait(3 * HOUR_MS);
    assert_eq!(registry.engine.collect(&options, &()).expect("begins").removed.links.count, 1);
    assert_eq!(registry.read("a", blob), None);
}

#[test]
fn sessions_without_progress_end_with_their_files() {
    let registry = Registry::new();
    registry.run(async |core| {
        let id = core.start_upload(&name("a"), Algorithm::Sha256);
        let upload = core.resume_upload(&name("a"), id).expect("there");
        send(upload, &content(1)).await.suspend().await.expect("saved");
    });
    registry.clock.0.fetch_add(2 * HOUR_MS, Ordering::Relaxed);
    let report = registry.collect(|_| {});
    assert_eq!(report.removed.uploads, Amount { count: 1, bytes: 100_000 });
    assert!(registry.files("uploads").is_empty());
}

#[test]
fn what_the_volume_has_lost_is_not_there() {
    let registry = Registry::new();
    let blob = registry.push("a", &content(1));
    let snapshot = registry.engine.metadata().snapshot().expect("open");
    let repository = snapshot.repository(&name("a")).expect("readable").expect("there");
    let record = snapshot.stored_blob(&blob).expect("readable").expect("there");
    assert!(matches!(record.location, BlobLocation::File(_)));
    registry.files("blobs").iter().for_each(|file| std::fs::remove_file(file).expect("removed"));
    let is_there = async |core: Core| core.open_blob(repository, &blob).await.expect("readable").is_some();
    assert!(!registry.run(is_there));
    // The file of a blob that is deleted by somebody else is gone already, and that is no error.
    registry.wait(3 * HOUR_MS);
    assert_eq!(registry.collect(|_| {}).removed.files.count, 1);
    assert!(!registry.run(is_there));
}

#[test]
fn there_is_one_collection_at_a_time_and_the_last_ones_are_remembered() {
    let registry = Registry::new();
    for _ in 0..22 {
        registry.collect(|step| {
            if step == Step::Left {
                assert!(registry.engine.is_collecting());
                let second = registry.engine.collect(&at_once(Mode::Online), &());
                assert!(matches!(second, Err(CollectionError::Running)));
            }
        });
        registry.clock.0.fetch_add(1, Ordering::Relaxed);
    }
    assert!(!registry.engine.is_collecting());
    let reports = registry.engine.collections().expect("readable");
    assert_eq!(reports.len(), 20);
    assert!(reports.is_sorted_by(|one, other| one.began_at_ms > other.began_at_ms));
    assert_eq!(reports[0].mode, Mode::Online);
}

#[test]
fn the_window_is_left_whatever_happens() {
    struct Paused(RefCell<Vec<&'static str>>, Option<Step>);
    impl CollectionHooks for Paused {
        fn enter_window(&self) -> Result<(), String> {
            self.0.borrow_mut().push("enter");
            self.1.is_some().then_some(()).ok_or_else(|| "somebody else holds it".to_owned())
        }
        fn leave_window(&self) {
            self.0.borrow_mut().push("leave");
        }
        fn at(&self, step: Step) -> ControlFlow<()> {
            if Some(step) == self.1 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }
    }
    let registry = Registry::new();
    let refused = Paused(RefCell::default(), None);
    let error = registry.engine.collect(&at_once(Mode::ReadOnly), &refused).expect_err("refused");
    assert!(error.to_string().contains("somebody else holds it"), "{error}");
    assert_eq!(*refused.0.borrow(), ["enter"]);
    for step in [Step::Entered, Step::Marked, Step::Left] {
        let stopped = Paused(RefCell::default(), Some(step));
        let report = registry.engine.collect(&at_once(Mode::ReadOnly), &stopped).expect("begins");
        assert!(report.failure.is_some_and(|failure| failure.contains("stopped")));
        assert_eq!(*stopped.0.borrow(), ["enter", "leave"], "{step:?}");
    }
    assert!(!registry.engine.is_collecting());
}

#[test]
fn the_start_makes_everything_count_as_leased() {
    let registry = Registry::new();
    let blob = registry.push("a", &content(1));
    registry.wait(3 * HOUR_MS);
    let Registry { engine, clock, root } = registry;
    drop(engine);
    let environment = Environment { clock: clock.clone(), ..Environment::system() };
    let engine = Engine::open(options(root.path()), environment).expect("opens");
    let registry = Registry { engine, clock, root };
    assert_eq!(registry.collect(|_| {}).kept.leased_links, 1);
    // On a root that nobody pushes to, there is nobody to wait for.
    registry.engine.set_lease(Duration::ZERO);
    assert_eq!(registry.collect(|_| {}).removed.links.count, 1);
    assert_eq!(registry.read("a", blob), None);
}

#[test]
fn a_session_in_memory_counts_as_a_push_and_its_file_as_named() {
    let registry = Registry::new();
    let upload = registry.run(async |core| {
        let id = core.start_upload(&name("a"), Algorithm::Sha256);
        let upload = core.resume_upload(&name("a"), id).expect("there");
        send(upload, &content(1)).await.suspend().await.expect("saved");
        id
    });
    assert_eq!(registry.collect(|_| {}).removed.strays.count, 0);
    let snapshot = registry.engine.metadata().snapshot().expect("open");
    let record = snapshot.upload(upload).expect("readable").expect("there");
    assert!(matches!(record.content, UploadContent::File(_)));
    assert_eq!(registry.files("uploads").len(), 1);
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory").map(|entry| entry.expect("readable")) {
        let to = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(std::fs::copy(entry.path(), to).expect("copied")),
        }
    }
}

#[test]
fn dying_at_any_step_leaves_what_the_next_collection_mends() {
    let registry = Registry::new();
    let kept = registry.push("a", &content(1));
    registry.tag("a", Some("v1"), &[kept]).expect("complete");
    let dead: Vec<Digest> = (2..6).map(|number| registry.push("b", &content(number))).collect();
    registry.tag("b", None, &dead).expect("complete");
    std::fs::write(registry.root.path().join(crate::layout::upload(FileId([7; 16]))), "x").expect("writes");
    registry.wait(3 * HOUR_MS);
    // What is on the disk at each step is what a process leaves that is killed there.
    let mut deaths = Vec::new();
    registry.collect(|step| {
        let root = tempfile::tempdir().expect("a directory");
        copy(registry.root.path(), root.path());
        deaths.push((step, root));
    });
    let steps: std::collections::BTreeSet<Step> = deaths.iter().map(|(step, _)| *step).collect();
    let all = [
        Step::Entered,
        Step::Marked,
        Step::Left,
        Step::Doomed,
        Step::Committed,
        Step::FileRemoved,
        Step::FilesRemoved,
        Step::StrayFound,
        Step::Done,
    ];
    assert_eq!(steps, all.into());
    for (step, root) in deaths {
        let environment = Environment { clock: registry.clock.clone(), ..Environment::system() };
        let engine = Engine::open(options(root.path()), environment).expect("opens");
        engine.set_lease(Duration::ZERO);
        let registry = Registry { engine, clock: registry.clock.clone(), root };
        registry.collect(|_| {});
        assert_eq!(registry.read("a", kept), Some(content(1)), "{step:?}");
        assert_eq!((registry.files("blobs").len(), registry.files("uploads").len()), (1, 0), "{step:?}");
        let statistics = registry.engine.metadata().snapshot().expect("open").statistics();
        assert_eq!((statistics.repositories, statistics.manifests, statistics.links), (1, 1, 1), "{step:?}");
        assert_eq!(statistics.blobs, 2, "{step:?}");
    }
}
