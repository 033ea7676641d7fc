//! Random histories with collections in them, against a model of what must be alive.
//!
//! The model is as simple as can be: maps of what was pushed and when. While a collection runs, the history goes on in
//! its hooks: between marking and each batch, between dooming and committing, between a commit and its files. Now and then
//! the process dies at such a point, or the power goes within a commit. After each step whatever has gone from the
//! store must have been dead by the model; in the end, when all ages have passed, whatever is dead must have gone.
//!
//! A failure prints its seed; `PAYLOAD_REGISTRY_TEST_SEED` runs that one alone, and `PAYLOAD_REGISTRY_TEST_ROUNDS` sets how
//! many there are.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use super::memory_files::MemoryFiles;
use super::process::{EXPIRY, LOG_SIZE, Process, TestClock};
use super::random::Random;
use super::*;
use crate::layout;
use crate::metadata::tests::memory::MemoryStorage;
use crate::metadata::{BlobCommit, BlobLocation, FileId, Statistics, UploadContent, UploadId, UploadRecord};
use crate::oci::Descriptor;
use crate::uploads::fresh_hash;

const ROUNDS: u64 = 2_000;
const REPOSITORIES: [&str; 3] = ["a", "a/b", "b"];
const TAGS: [&str; 3] = ["1", "2", "keep"];
const BLOBS: usize = 6;
const MANIFESTS: usize = 13;

fn blob(number: usize) -> Digest {
    static DIGESTS: LazyLock<[Digest; BLOBS]> = LazyLock::new(|| {
        std::array::from_fn(|number| {
            let algorithm = Algorithm::ALL[usize::from(number % 4 == 3)];
            ContentHasher::digest(algorithm, format!("blob {number}").as_bytes())
        })
    });
    DIGESTS[number]
}

fn manifest_digest(number: usize) -> Digest {
    static DIGESTS: LazyLock<[Digest; MANIFESTS]> = LazyLock::new(|| {
        std::array::from_fn(|number| {
            let algorithm = Algorithm::ALL[usize::from(number % 5 == 4)];
            ContentHasher::digest(algorithm, format!("manifest {number}").as_bytes())
        })
    });
    DIGESTS[number]
}

/// What a manifest refers to.
#[derive(Default)]
struct Shape {
    blobs: Vec<Digest>,
    foreign: Vec<Digest>,
    children: Vec<Digest>,
    subject: Option<Digest>,
}

/// Images, indexes of images and of indexes, of blobs, referrers of all of these, and circles.
fn shape(number: usize) -> Shape {
    let (b, m) = (blob, manifest_digest);
    let of = |blobs: &[usize], children: &[usize], subject: Option<usize>| Shape {
        blobs: blobs.iter().map(|number| b(*number)).collect(),
        children: children.iter().map(|number| m(*number)).collect(),
        subject: subject.map(m),
        ..Shape::default()
    };
    match number {
        0 => of(&[0, 1], &[], None),
        1 => of(&[1, 2], &[], None),
        2 => of(&[3], &[], Some(0)),
        3 => of(&[], &[0, 1], None),
        4 => Shape { children: vec![m(3), b(4)], ..Shape::default() },
        5 => of(&[2], &[], Some(3)),
        // About its own child: each keeps the other.
        6 => of(&[], &[5], Some(5)),
        7 => Shape { foreign: vec![b(5)], ..of(&[0], &[], None) },
        // Its subject is often not there.
        8 => of(&[0], &[], Some(9)),
        9 => of(&[5], &[], None),
        // A circle of three: this keeps 11, that keeps 2's referrer 12, and that is what this is about.
        10 => of(&[], &[11], Some(12)),
        11 => of(&[], &[12], None),
        _ => Shape { subject: Some(b(0)), ..of(&[4], &[], None) },
    }
}

fn manifest(number: usize) -> Manifest {
    let Shape { blobs, foreign, children, subject } = shape(number);
    let subject = subject.map(|digest| Descriptor {
        media_type: media_type::OCI_MANIFEST.into(),
        digest,
        size: 1,
        artifact_type: None,
        annotations: None,
        urls: None,
    });
    Manifest { foreign_blobs: foreign, children, subject, ..image(&blobs) }
}

/// What must be there of a repository: times by digest.
#[derive(Clone, Debug, Default)]
struct Held {
    links: BTreeMap<Digest, u64>,
    manifests: BTreeMap<usize, u64>,
    tags: BTreeMap<&'static str, (usize, u64)>,
    /// When a client was last told that it is there.
    leases: BTreeMap<Digest, u64>,
}

impl Held {
    fn is_empty(&self) -> bool {
        self.links.is_empty() && self.manifests.is_empty() && self.tags.is_empty()
    }

    fn has_manifest(&self, digest: &Digest) -> bool {
        self.manifests.keys().any(|number| manifest_digest(*number) == *digest)
    }

    fn has(&self, digest: &Digest) -> bool {
        self.links.contains_key(digest) || self.has_manifest(digest)
    }
}

/// What is needed, by nothing but the rules.
struct Alive {
    manifests: BTreeSet<usize>,
    links: BTreeSet<Digest>,
}

fn alive(held: &Held, is_root: impl Fn(usize) -> bool, is_kept: impl Fn(&Digest, u64) -> bool) -> Alive {
    let mut manifests: BTreeSet<usize> =
        held.manifests.keys().copied().filter(|number| is_root(*number)).collect();
    loop {
        let before = manifests.len();
        for number in held.manifests.keys().copied() {
            let is_child =
                manifests.iter().any(|parent| shape(*parent).children.contains(&manifest_digest(number)));
            let is_about = |subject| manifests.iter().any(|living| manifest_digest(*living) == subject);
            if is_child || shape(number).subject.is_some_and(is_about) {
                manifests.insert(number);
            }
        }
        if manifests.len() == before {
            break;
        }
    }
    let needed = |digest: &Digest| {
        manifests.iter().map(|number| shape(*number)).any(|shape| {
            [&shape.blobs, &shape.foreign, &shape.children].iter().any(|list| list.contains(digest))
        })
    };
    let links = held.links.iter().filter(|(digest, at)| needed(digest) || is_kept(digest, **at));
    Alive { links: links.map(|(digest, _)| *digest).collect(), manifests }
}

/// A push that was begun: what was asked for is there, and the manifest will follow.
#[derive(Debug)]
struct Promise {
    repository: usize,
    manifest: usize,
    at: u64,
}

struct World {
    seed: u64,
    random: Random,
    options: CollectionOptions,
    lease: u64,
    storage: Arc<MemoryStorage>,
    model: [Held; REPOSITORIES.len()],
    promises: Vec<Promise>,
    /// Files that have their names, and are about to be committed.
    named: Vec<(usize, usize, FileId, Arc<dyn std::any::Any>)>,
    uploads: BTreeMap<UploadId, (usize, u64)>,
    all_leased_until: u64,
    last_file: u128,
    history: Vec<String>,
    /// Of the collection that is running: when it began, and, once it has marked, which pushes it knows of and which
    /// tags it may delete.
    collection: Option<Marked>,
    died: Option<Arc<MemoryStorage>>,
    power_is_cut: bool,
}

#[derive(Default)]
struct Marked {
    began: u64,
    pushes: BTreeMap<usize, u64>,
    tags: Vec<(usize, &'static str, (usize, u64))>,
}

struct Test<'t> {
    world: RefCell<World>,
    process: &'t Process,
    files: &'t MemoryFiles,
    clock: &'t TestClock,
}

impl World {
    fn say(&mut self, what: String) {
        self.history.push(what);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for line in &self.history {
                println!("  {line}");
            }
            println!("PAYLOAD_REGISTRY_TEST_SEED={} runs this one again", self.seed);
        }
    }
}

impl Test<'_> {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Transaction<'_>) -> Result<T, MetadataError> + Send + 'static,
    ) -> T {
        self.process.metadata.write_blocking(work).expect("writes")
    }

    /// Goes on with the history.
    fn act(&self) {
        let world = &mut *self.world.borrow_mut();
        let random = &mut world.random;
        let step = random.below(12) as u64;
        let now = self.clock.0.fetch_add(step + 1, Ordering::Relaxed) + step + 1;
        let (at, number) = (random.below(REPOSITORIES.len()), random.below(BLOBS));
        match random.below(24) {
            0..=2 => self.push_blob(world, at, blob(number), now),
            3..=8 => {
                let manifest = random.below(MANIFESTS);
                self.begin_push(world, at, manifest, now);
            }
            9..=11 if !world.promises.is_empty() => {
                let index = random.below(world.promises.len());
                let promise = world.promises.swap_remove(index);
                self.end_push(world, promise, now);
            }
            12 | 13 => {
                let tag = random.choose(&TAGS);
                world.say(format!("{now}: delete tag {tag} of {at}"));
                let was = world.model[at].tags.remove(tag).map(|(number, _)| manifest_digest(number));
                let deleted = self.write(move |transaction| {
                    let tag = tag.parse().expect("a tag");
                    transaction.delete_tag(&name(REPOSITORIES[at]), &tag, &TagCondition::Any, Timestamp(now))
                });
                assert_eq!(deleted, Ok(was));
            }
            14 => {
                let manifest = random.below(MANIFESTS);
                world.say(format!("{now}: delete manifest {manifest} of {at}"));
                let held = &mut world.model[at];
                let was = held.manifests.remove(&manifest).is_some();
                held.tags.retain(|_, (number, _)| *number != manifest);
                // Whoever was about to refer to it will not find it.
                world.promises.retain(|promise| promise.repository != at);
                let deleted = self.write(move |transaction| {
                    let digest = manifest_digest(manifest);
                    transaction.delete_manifest(&name(REPOSITORIES[at]), &digest, Timestamp(now))
                });
                assert_eq!(deleted.is_some(), was);
            }
            15 => {
                world.say(format!("{now}: unlink blob {number} of {at}"));
                let was = world.model[at].links.remove(&blob(number)).is_some();
                world.promises.retain(|promise| promise.repository != at);
                let unlinked = self.write(move |transaction| {
                    transaction.unlink_blob(&name(REPOSITORIES[at]), &blob(number))
                });
                assert_eq!(unlinked, was);
            }
            16 | 17 => {
                let from = random.below(REPOSITORIES.len());
                let was = world.model[from].links.contains_key(&blob(number));
                world.say(format!("{now}: mount blob {number} of {from} in {at}: {was}"));
                if was {
                    world.model[at].links.insert(blob(number), now);
                }
                let mounted = self.write(move |transaction| {
                    let (at, from) = (name(REPOSITORIES[at]), name(REPOSITORIES[from]));
                    transaction.mount_blob(&at, &blob(number), &from, Timestamp(now))
                });
                assert_eq!(mounted, was);
            }
            18 => {
                let manifest = random.below(MANIFESTS);
                let digest = if random.one_in(2) { blob(number) } else { manifest_digest(manifest) };
                self.head(world, at, digest, now);
            }
            19 => {
                world.last_file += 1;
                let file = FileId(world.last_file.to_be_bytes());
                world.say(format!("{now}: blob {number} for {at} gets a file {file}"));
                let in_use = self.process.files_in_use.try_enter(file).expect("a new file");
                self.files.put(layout::blob(&blob(number), file), Timestamp(now));
                world.named.push((at, number, file, in_use));
            }
            20 if !world.named.is_empty() => {
                let (at, number, file, in_use) = world.named.swap_remove(0);
                world.say(format!("{now}: commit file {file} of blob {number} in {at}"));
                self.commit(world, at, blob(number), NewContent::File(file), now);
                drop(in_use);
            }
            21 => {
                world.last_file += 1;
                let id = UploadId(world.last_file.to_be_bytes());
                world.say(format!("{now}: upload session {id} in {at}"));
                world.uploads.insert(id, (at, now));
                let mut record = UploadRecord {
                    repository: name(REPOSITORIES[at]),
                    started_at: Timestamp(now),
                    touched_at: Timestamp(now),
                    size: 1,
                    hash: fresh_hash(Algorithm::Sha256),
                    content: UploadContent::Inline("x".into()),
                };
                if number.is_multiple_of(2) {
                    let file = FileId(id.0);
                    self.files.put(layout::upload(file), Timestamp(now));
                    record.content = UploadContent::File(file);
                }
                self.write(move |transaction| transaction.save_upload(id, &record));
            }
            22 => {
                if let Some((id, _)) = world.uploads.pop_first() {
                    world.say(format!("{now}: end of upload session {id}"));
                    assert!(self.write(move |transaction| transaction.remove_upload(id)));
                    // Its file is left behind.
                }
            }
            _ => {
                let jump = random.choose(&[50, 150, 400]);
                self.clock.0.fetch_add(jump, Ordering::Relaxed);
            }
        }
    }

    fn push_blob(&self, world: &mut World, at: usize, digest: Digest, now: u64) {
        world.say(format!("{now}: push blob {} to {at}", short(&digest)));
        let content = if digest.value()[0].is_multiple_of(2) {
            NewContent::Inline("content".into())
        } else {
            world.last_file += 1;
            let file = FileId(world.last_file.to_be_bytes());
            self.files.put(layout::blob(&digest, file), Timestamp(now));
            NewContent::File(file)
        };
        self.commit(world, at, digest, content, now);
    }

    fn commit(&self, world: &mut World, at: usize, digest: Digest, content: NewContent, now: u64) {
        world.model[at].links.insert(digest, now);
        let new = content.clone();
        let commit = self.write(move |transaction| {
            transaction.commit_blob(&name(REPOSITORIES[at]), &digest, 1, new, None, Timestamp(now))
        });
        if let (BlobCommit::AlreadyStored, NewContent::File(file)) = (commit, content) {
            self.files.remove(&layout::blob(&digest, file)).expect("there");
        }
    }

    /// Asks whether content is there, as a client does that may use it later. `None`: the answer has to wait for a batch.
    fn head(&self, world: &mut World, at: usize, digest: Digest, now: u64) -> Option<bool> {
        let snapshot = self.process.metadata.snapshot().expect("open");
        let Some(id) = snapshot.repository(&name(REPOSITORIES[at])).expect("readable") else {
            return Some(false);
        };
        if !self.process.leases.try_lease(LeaseKey::new(id, &digest)) {
            world.say(format!("{now}: HEAD of {} in {at} waits", short(&digest)));
            return None;
        }
        let snapshot = self.process.metadata.snapshot().expect("open");
        let blob = snapshot.blob(id, &digest).expect("readable");
        let is_there = blob.is_some() || snapshot.manifest(id, &digest).expect("readable").is_some();
        world.say(format!("{now}: HEAD of {} in {at}: {is_there}", short(&digest)));
        assert_eq!(is_there, world.model[at].has(&digest), "{}", short(&digest));
        world.model[at].leases.insert(digest, now);
        Some(is_there)
    }

    /// Does all of a push but the manifest: what is there already is not pushed again.
    fn begin_push(&self, world: &mut World, repository: usize, manifest: usize, now: u64) {
        let shape = shape(manifest);
        for digest in &shape.blobs {
            match self.head(world, repository, *digest, now) {
                Some(true) => {}
                Some(false) => self.push_blob(world, repository, *digest, now),
                None => return,
            }
        }
        for digest in &shape.children {
            match self.head(world, repository, *digest, now) {
                Some(true) => {}
                Some(false) if (0..BLOBS).any(|number| blob(number) == *digest) => {
                    self.push_blob(world, repository, *digest, now);
                }
                // Pushed by itself, or not at all.
                _ => return,
            }
        }
        world.say(format!("{now}: manifest {manifest} will follow in {repository}"));
        world.promises.push(Promise { repository, manifest, at: now });
    }

    fn end_push(&self, world: &mut World, promise: Promise, now: u64) {
        let Promise { repository, manifest: number, at } = promise;
        let tag = if world.random.one_in(3) { None } else { Some(world.random.choose(&TAGS)) };
        let shape = shape(number);
        let held = &mut world.model[repository];
        let is_complete = shape.blobs.iter().all(|blob| held.links.contains_key(blob))
            && shape.children.iter().all(|child| held.has(child));
        // Blobs that were pushed for it are as safe as their age, the others as their lease.
        let age = to_ms(world.options.blob_age).min(to_ms(world.options.untagged_age));
        if now - at < world.lease.min(age) {
            assert!(is_complete, "manifest {number} cannot be pushed to {repository} at {now}");
        }
        world
            .history
            .push(format!("{now}: push manifest {number} to {repository} as {tag:?}: {is_complete}"));
        if is_complete {
            held.manifests.insert(number, now);
            if let Some(tag) = tag {
                held.tags.insert(tag, (number, now));
            }
        }
        let stored = self.write(move |transaction| {
            let tags: Vec<Tag> = tag.iter().map(|tag| tag.parse().expect("a tag")).collect();
            let put = PutManifest {
                digest: manifest_digest(number),
                manifest: &manifest(number),
                size: 1,
                content: NewContent::Inline("manifest".into()),
                tags: &tags,
                condition: &TagCondition::Any,
                now: Timestamp(now),
            };
            transaction.put_manifest(&name(REPOSITORIES[repository]), put)
        });
        assert_eq!(stored.is_ok(), is_complete, "{stored:?}");
    }

    /// Compares what is there with the model. What has gone must have been dead; the model forgets it.
    fn check(&self) {
        let world = &mut *self.world.borrow_mut();
        let now = self.now().0;
        let snapshot = self.process.metadata.snapshot().expect("open");
        for (at, repository) in REPOSITORIES.iter().enumerate() {
            let found = read(&snapshot, repository);
            let gone_tags: Vec<_> = world.model[at]
                .tags
                .iter()
                .filter(|(tag, _)| !found.tags.contains_key(**tag))
                .map(|(tag, to)| (at, *tag, *to))
                .collect();
            for gone in gone_tags {
                let marked = world.collection.as_ref().expect("a collection is running");
                assert!(marked.tags.contains(&gone), "tag {} of {at} had to be kept", gone.1);
                world.model[at].tags.remove(gone.1);
            }
            let held = &world.model[at];
            assert_eq!(
                found.tags,
                held.tags
                    .iter()
                    .map(|(tag, (number, _))| ((*tag).to_owned(), manifest_digest(*number)))
                    .collect()
            );
            let marked = world.collection.as_ref();
            let began = marked.map_or(now, |marked| marked.began) as i64;
            let since = marked
                .and_then(|marked| marked.pushes.get(&at))
                .map_or(began, |since| (*since as i64).min(began));
            let is_leased = |digest: &Digest| {
                world.lease > 0
                    && (now < world.all_leased_until
                        || held.leases.get(digest).is_some_and(|at| now - at < world.lease))
            };
            let (untagged_age, blob_age) =
                (to_ms(world.options.untagged_age) as i64, to_ms(world.options.blob_age) as i64);
            let is_root = |number: usize| {
                held.tags.values().any(|(tagged, _)| *tagged == number)
                    || held.manifests[&number] as i64 > began - untagged_age
                    || is_leased(&manifest_digest(number))
            };
            let is_kept =
                |digest: &Digest, linked_at: u64| linked_at as i64 > since - blob_age || is_leased(digest);
            let alive = alive(held, is_root, is_kept);
            for number in held.manifests.keys() {
                let is_there = found.manifests.contains(&manifest_digest(*number));
                assert!(
                    is_there || !alive.manifests.contains(number),
                    "manifest {number} of {at} had to be kept"
                );
            }
            for link in held.links.keys() {
                let is_there = found.links.contains(link);
                assert!(
                    is_there || !alive.links.contains(link),
                    "blob {} of {at} had to be kept",
                    short(link)
                );
            }
            let held = &mut world.model[at];
            held.manifests.retain(|number, _| found.manifests.contains(&manifest_digest(*number)));
            held.links.retain(|link, _| found.links.contains(link));
            assert_eq!(found.manifests.len(), held.manifests.len());
            assert_eq!(found.links.len(), held.links.len());
            if !found.exists {
                assert!(held.is_empty());
                // Another one of this name is another repository.
                held.leases.clear();
            }
        }
        self.check_contents(world, &snapshot);
        let uploads: BTreeSet<UploadId> =
            snapshot.uploads().expect("readable").map(|upload| upload.expect("readable").0).collect();
        world.uploads.retain(|id, (_, touched_at)| {
            assert!(
                uploads.contains(id) || *touched_at + EXPIRY < now,
                "upload session {id} had not expired"
            );
            uploads.contains(id)
        });
        assert_eq!(uploads.len(), world.uploads.len());
        for (_, number, file, _) in &world.named {
            assert!(
                self.files.has(&layout::blob(&blob(*number), *file)),
                "a file was removed before its commit"
            );
        }
    }

    /// Whatever is visible is stored, and whatever is in a file has that.
    fn check_contents(&self, world: &World, snapshot: &crate::metadata::Snapshot) {
        let mut stored = BTreeSet::new();
        for content in snapshot.stored_blobs(None).expect("readable") {
            let (digest, record) = content.expect("readable");
            match record.location {
                BlobLocation::File(file) => {
                    assert!(
                        self.files.has(&layout::blob(&digest, file)),
                        "the file of {} is gone",
                        short(&digest)
                    );
                }
                BlobLocation::Inline => {
                    assert!(snapshot.content(&digest, record.size).expect("readable").is_some())
                }
            }
            stored.insert(digest);
        }
        let held = |count: fn(&Held) -> usize| world.model.iter().map(|held| count(held) as u64).sum::<u64>();
        for repository in &world.model {
            assert!(repository.links.keys().all(|digest| stored.contains(digest)), "content is gone");
            assert!(repository.manifests.keys().all(|number| stored.contains(&manifest_digest(*number))));
        }
        let Statistics { tags, manifests, links, blobs, .. } = snapshot.statistics();
        assert_eq!((tags, manifests), (held(|held| held.tags.len()), held(|held| held.manifests.len())));
        assert_eq!((links, blobs), (held(|held| held.links.len()), stored.len() as u64));
    }

    /// What the collection that is running may know of by now: it has just marked.
    fn mark(&self) {
        let world = &mut *self.world.borrow_mut();
        let mut marked =
            Marked { began: world.collection.as_ref().map_or(0, |marked| marked.began), ..Marked::default() };
        for (at, touched_at) in world.uploads.values() {
            let since = marked.pushes.entry(*at).or_insert(*touched_at);
            *since = (*since).min(*touched_at);
        }
        for (at, held) in world.model.iter().enumerate() {
            if world.options.retention.is_empty() || at == 0 {
                continue;
            }
            let mut tags: Vec<_> = held.tags.iter().filter(|(tag, _)| **tag != "keep").collect();
            tags.sort_by_key(|(_, (_, at))| std::cmp::Reverse(*at));
            marked.tags.extend(tags.into_iter().skip(1).map(|(tag, to)| (at, *tag, *to)));
        }
        world.collection = Some(marked);
    }

    fn collect(&self, interleaved: bool, dry_run: bool) -> CollectionReport {
        let (options, is_small) = {
            let world = &mut *self.world.borrow_mut();
            let mode = world.random.choose(&[Mode::ReadOnly, Mode::Online]);
            let began = self.now().0;
            world.say(format!("{began}: collection"));
            world.collection = Some(Marked { began, ..Marked::default() });
            (CollectionOptions { mode, dry_run, ..world.options.clone() }, world.random.one_in(3))
        };
        let hooks = Hooks { test: self, interleaved, is_paused: RefCell::new(false) };
        let report =
            self.process.store(self.files, self.clock, is_small).collect(&options, &hooks).expect("begins");
        assert!(!*hooks.is_paused.borrow());
        report
    }
}

fn short(digest: &Digest) -> String {
    let of = |name, count, digest_of: fn(usize) -> Digest| {
        (0..count).find(|number| digest_of(*number) == *digest).map(|number| format!("{name} {number}"))
    };
    of("blob", BLOBS, blob).or_else(|| of("manifest", MANIFESTS, manifest_digest)).expect("one of them")
}

struct Found {
    exists: bool,
    links: BTreeSet<Digest>,
    manifests: BTreeSet<Digest>,
    tags: BTreeMap<String, Digest>,
}

fn read(snapshot: &crate::metadata::Snapshot, repository: &str) -> Found {
    let mut found =
        Found { exists: false, links: BTreeSet::new(), manifests: BTreeSet::new(), tags: BTreeMap::new() };
    let Some(id) = snapshot.repository(&name(repository)).expect("readable") else { return found };
    found.exists = true;
    found.links.extend(snapshot.blobs(id, None).expect("readable").map(|link| link.expect("readable").0));
    found
        .manifests
        .extend(snapshot.manifests(id, None).expect("readable").map(|row| row.expect("readable").0));
    for tag in snapshot.tags(id, None).expect("readable") {
        let (tag, record) = tag.expect("readable");
        found.tags.insert(tag.to_string(), record.digest);
    }
    found
}

/// The history goes on while a collection runs.
struct Hooks<'h, 't> {
    test: &'h Test<'t>,
    interleaved: bool,
    is_paused: RefCell<bool>,
}

impl CollectionHooks for Hooks<'_, '_> {
    fn enter_window(&self) -> Result<(), String> {
        assert!(!self.is_paused.replace(true));
        Ok(())
    }

    fn leave_window(&self) {
        assert!(self.is_paused.replace(false));
    }

    fn at(&self, step: Step) -> ControlFlow<()> {
        let test = self.test;
        if step == Step::Marked {
            test.mark();
        }
        if !self.interleaved {
            return ControlFlow::Continue(());
        }
        test.world.borrow_mut().say(format!("{}: {step:?}", test.now().0));
        if test.world.borrow().power_is_cut {
            return ControlFlow::Break(());
        }
        test.check();
        let actions = test.world.borrow_mut().random.below(4);
        if !*self.is_paused.borrow() {
            (0..actions).for_each(|_| test.act());
        }
        let world = &mut *test.world.borrow_mut();
        if world.random.one_in(40) {
            world.say("the process dies".into());
            world.died = Some(Arc::new(world.storage.after_kill()));
            return ControlFlow::Break(());
        }
        if step == Step::Doomed && world.random.one_in(30) {
            world.say("the power is going".into());
            let changes = world.random.below(6) as u64;
            world.storage.cut_power_after(changes);
            world.power_is_cut = true;
        }
        ControlFlow::Continue(())
    }
}

fn run(seed: u64) {
    let mut random = Random::new(seed);
    let ms = Duration::from_millis;
    let lease = random.choose(&[0, 200, 200, 600]);
    let rule = RetentionRule {
        repositories: "**b".parse().expect("a pattern"),
        keep_last: Some(1),
        keep_younger: None,
        protected: vec!["keep*".parse().expect("a pattern")],
        immutable: Vec::new(),
    };
    let options = CollectionOptions {
        untagged_age: ms(random.choose(&[0, 100, 300])),
        blob_age: ms(random.choose(&[0, 100, 300])),
        stray_age: ms(random.choose(&[0, 100])),
        retention: if random.one_in(2) { vec![rule] } else { Vec::new() },
        ..CollectionOptions::default()
    };
    let (clock, files) = (TestClock::default(), MemoryFiles::default());
    clock.0.store(10_000, Ordering::Relaxed);
    let mut world = World {
        seed,
        random,
        options,
        lease,
        storage: Arc::new(MemoryStorage::default()),
        model: Default::default(),
        promises: Vec::new(),
        named: Vec::new(),
        uploads: BTreeMap::new(),
        all_leased_until: 10_000 + lease,
        last_file: 0,
        history: vec![format!("lease {lease}")],
        collection: None,
        died: None,
        power_is_cut: false,
    };
    world.say(format!("{:?}", world.options));
    let mut left = 3;
    while left > 0 {
        let process = Process::start(&world.storage, lease, LOG_SIZE, clock.now());
        let test = Test { world: RefCell::new(world), process: &process, files: &files, clock: &clock };
        // A batch that nobody was told of may have been committed, by what the process before this one knew.
        test.check();
        {
            let world = &mut *test.world.borrow_mut();
            world.collection = None;
            world.all_leased_until = clock.now().0 + lease;
        }
        while left > 0 && test.world.borrow().died.is_none() && !test.world.borrow().power_is_cut {
            let count = 5 + test.world.borrow_mut().random.below(25);
            (0..count).for_each(|_| test.act());
            test.check();
            let report = test.collect(true, false);
            if test.world.borrow().died.is_none() && !test.world.borrow().power_is_cut {
                assert_eq!((report.failure, report.errors), (None, 0));
                test.check();
                test.world.borrow_mut().collection = None;
            }
            left -= 1;
        }
        if test.world.borrow().died.is_none() && !test.world.borrow().power_is_cut {
            settle(&test);
            return;
        }
        // The next process finds what this one has left.
        world = test.world.into_inner();
        drop(process);
        let storage = match world.died.take() {
            Some(storage) => storage,
            None => {
                let kept_of_four = world.random.below(5);
                let random = &mut world.random;
                Arc::new(world.storage.after_power_loss(|| random.below(4) < kept_of_four))
            }
        };
        world.storage = storage;
        world.power_is_cut = false;
        world.named.clear();
        left = left.max(1);
    }
}

/// Everybody has finished, and all ages have passed: now what is dead goes, and nothing else.
fn settle(test: &Test<'_>) {
    {
        let world = &mut *test.world.borrow_mut();
        world.promises.clear();
        world.named.clear();
        world.say("all is quiet".into());
    }
    for _ in 0..2 {
        test.clock.0.fetch_add(2_000, Ordering::Relaxed);
        let store = test.process.store(test.files, test.clock, false);
        store.expire_uploads(Timestamp(test.now().0 - EXPIRY), false).expect("ends");
        test.check();
        store.rotate_leases(test.now()).expect("rotates");
    }
    let dry = test.collect(false, true);
    test.check();
    let report = test.collect(false, false);
    assert_eq!(report.failure, None);
    assert_eq!(dry.removed, report.removed, "the dry run has counted something else");
    // What was swept is not looked at as a file any more.
    assert_eq!(Examined { files: 0, ..dry.examined }, Examined { files: 0, ..report.examined });
    assert_eq!(dry.repositories, report.repositories);
    assert_eq!(report.kept, Kept::default());
    test.check();
    let world = test.world.borrow();
    let mut stored = BTreeSet::new();
    for (at, held) in world.model.iter().enumerate() {
        let is_tagged = |number: usize| held.tags.values().any(|(tagged, _)| *tagged == number);
        let alive = alive(held, is_tagged, |_, _| false);
        assert_eq!(held.manifests.keys().copied().collect::<BTreeSet<_>>(), alive.manifests, "in {at}");
        assert_eq!(held.links.keys().copied().collect::<BTreeSet<_>>(), alive.links, "in {at}");
        stored.extend(
            held.links.keys().copied().chain(held.manifests.keys().map(|number| manifest_digest(*number))),
        );
    }
    let snapshot = test.process.metadata.snapshot().expect("open");
    let statistics = snapshot.statistics();
    assert_eq!(statistics.blobs, stored.len() as u64, "content is left that nothing needs");
    assert_eq!(statistics.repositories, world.model.iter().filter(|held| !held.is_empty()).count() as u64);
    assert_eq!(statistics.uploads, 0);
    let in_files = snapshot.stored_blobs(None).expect("readable").map(|row| row.expect("readable").1);
    let in_files = in_files.filter(|record| record.location != BlobLocation::Inline).count();
    assert_eq!(test.files.all().len(), in_files, "a file is left that nothing names");
    drop(world);
    let again = test.collect(false, false);
    assert_eq!(again.removed, Removed::default());
}

#[test]
fn nothing_alive_is_lost_and_nothing_dead_stays() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = number("PAYLOAD_REGISTRY_TEST_SEED") {
        return run(seed);
    }
    let rounds = number("PAYLOAD_REGISTRY_TEST_ROUNDS").unwrap_or(ROUNDS);
    let next = AtomicU64::new(1);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed > rounds {
                        break;
                    }
                    run(seed);
                }
            });
        }
    });
}
