//! The store as simple maps, the operations on both, and what can be read of each.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::oci::{ContentHasher, Descriptor};

pub(super) const REPOSITORIES: [&str; 3] = ["a", "a/b", "b"];
const TAGS: [&str; 3] = ["1", "1.0", "latest"];
const BLOBS: u32 = 5;
const MANIFESTS: u32 = 6;
const MANIFEST_AT: u32 = 100;

/// What can be done. The numbers choose among few repositories, blobs, manifests and tags, so that histories meet
/// themselves.
#[derive(Clone, Debug)]
pub(super) enum Operation {
    CommitBlob { repository: usize, blob: u32, file: Option<u8>, upload: Option<u8> },
    Mount { repository: usize, blob: u32, from: usize },
    Unlink { repository: usize, blob: u32 },
    PutManifest { repository: usize, manifest: u32, tags: Vec<usize>, condition: u8, docker: bool },
    DeleteTag { repository: usize, tag: usize, condition: u8 },
    DeleteManifest { repository: usize, manifest: u32 },
    RemoveContent { content: u32 },
    Condemn { content: u32 },
    RemoveRepository { repository: usize },
    Purge { repository: usize },
    SaveUpload { upload: u8, bytes: u8 },
    RemoveUpload { upload: u8 },
    Reopen,
}

pub(super) fn operation() -> impl Strategy<Value = Operation> {
    use Operation::*;
    let repository = 0..REPOSITORIES.len();
    let (blob, manifest, tag) = (0..BLOBS, 0..MANIFESTS, 0..TAGS.len());
    prop_oneof![
        6 => (repository.clone(), blob.clone(), proptest::option::of(any::<u8>()), proptest::option::of(0..3u8))
            .prop_map(|(repository, blob, file, upload)| CommitBlob { repository, blob, file, upload }),
        2 => (repository.clone(), blob.clone(), repository.clone())
            .prop_map(|(repository, blob, from)| Mount { repository, blob, from }),
        1 => (repository.clone(), blob).prop_map(|(repository, blob)| Unlink { repository, blob }),
        8 => (repository.clone(), manifest.clone(), proptest::collection::vec(tag.clone(), 0..3), 0..8u8, any::<bool>())
            .prop_map(|(repository, manifest, tags, condition, docker)| {
                PutManifest { repository, manifest, tags, condition, docker }
            }),
        2 => (repository.clone(), tag, 0..8u8)
            .prop_map(|(repository, tag, condition)| DeleteTag { repository, tag, condition }),
        2 => (repository.clone(), manifest).prop_map(|(repository, manifest)| DeleteManifest { repository, manifest }),
        2 => (0..BLOBS + MANIFESTS).prop_map(|content| RemoveContent { content }),
        1 => (0..BLOBS + MANIFESTS).prop_map(|content| Condemn { content }),
        1 => repository.clone().prop_map(|repository| RemoveRepository { repository }),
        1 => repository.prop_map(|repository| Purge { repository }),
        2 => (0..3u8, any::<u8>()).prop_map(|(upload, bytes)| SaveUpload { upload, bytes }),
        1 => (0..3u8).prop_map(|upload| RemoveUpload { upload }),
        1 => Just(Reopen),
    ]
}

fn manifest_digest(number: u32) -> Digest {
    digest(MANIFEST_AT + number)
}

/// Images, an image that is about another, an index that lists a blob as well, and one of a foreign layer.
fn manifest(number: u32, docker: bool) -> Manifest {
    let about = |digest| Descriptor {
        media_type: media_type::OCI_MANIFEST.into(),
        digest,
        size: 1,
        artifact_type: None,
        annotations: None,
        urls: None,
    };
    let mut manifest = match number {
        0 => image(&[digest(0), digest(1)]),
        1 => image(&[digest(1), digest(2), digest(3)]),
        2 => Manifest { subject: Some(about(manifest_digest(0))), ..image(&[digest(4)]) },
        3 => Manifest {
            children: vec![manifest_digest(0), manifest_digest(1), digest(2)],
            annotations: Some([("k".to_owned(), "v".to_owned())].into()),
            ..image(&[])
        },
        4 => Manifest {
            subject: Some(about(manifest_digest(4))),
            foreign_blobs: vec![digest(3)],
            ..image(&[])
        },
        _ => Manifest {
            children: vec![manifest_digest(3)],
            subject: Some(about(manifest_digest(0))),
            ..image(&[])
        },
    };
    if docker {
        manifest.media_type = media_type::DOCKER_MANIFEST.into();
        manifest.subject = None;
    }
    manifest
}

fn condition(number: u8) -> TagCondition {
    match number {
        0 => TagCondition::Absent,
        1 => TagCondition::Exists,
        2 => TagCondition::OneOf(vec![manifest_digest(0), manifest_digest(3)]),
        3 => TagCondition::NoneOf(vec![manifest_digest(0), manifest_digest(3)]),
        _ => TagCondition::Any,
    }
}

fn upload_id(number: u8) -> UploadId {
    UploadId([number; 16])
}

fn content(digest: &Digest) -> Vec<u8> {
    // Large enough for the store to grow in a short history.
    digest.as_key().repeat(60)
}

fn new_content(digest: &Digest, file: Option<u8>) -> NewContent {
    match file {
        Some(number) => NewContent::File(FileId([number; 16])),
        None => NewContent::Inline(content(digest).into()),
    }
}

/// All that can be read of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    stored: BTreeMap<Digest, Stored>,
    damaged: BTreeMap<Digest, DamageRecord>,
    repositories: BTreeMap<String, Repository>,
    uploads: BTreeMap<UploadId, UploadRecord>,
    /// With 0 for the sequence numbers, which the model does not know.
    changes: Vec<TagChange>,
    statistics: Statistics,
}

type Stored = (BlobRecord, Option<Vec<u8>>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Repository {
    created_at: Timestamp,
    links: BTreeMap<Digest, Timestamp>,
    manifests: BTreeMap<Digest, (ManifestRecord, Vec<(EdgeKind, Digest)>)>,
    parents: BTreeMap<Digest, BTreeSet<(Digest, EdgeKind)>>,
    referrers: BTreeMap<Digest, BTreeMap<Digest, Referrer>>,
    tags: BTreeMap<String, (Digest, Timestamp, Timestamp)>,
    tags_of: BTreeMap<Digest, BTreeSet<String>>,
}

/// Reads everything that can be read, in every way it can be.
pub(super) fn read(snapshot: &Snapshot) -> Result<State, MetadataError> {
    let digests: Vec<Digest> = (0..BLOBS).map(digest).chain((0..MANIFESTS).map(manifest_digest)).collect();
    let mut state = State { statistics: snapshot.statistics(), ..State::default() };
    for row in snapshot.stored_blobs(None)? {
        let (digest, record) = row?;
        assert_eq!(snapshot.stored_blob(&digest)?, Some(record));
        let bytes = snapshot.content(&digest, 0)?.map(|bytes| bytes.to_vec());
        state.stored.insert(digest, (record, bytes));
    }
    for row in snapshot.damaged(None)? {
        let (digest, record) = row?;
        assert_eq!(snapshot.damage(&digest)?, Some(record));
        assert!(!snapshot.is_whole(&digest)?);
        state.damaged.insert(digest, record);
    }
    for row in snapshot.repositories("", None)? {
        let RepositoryRecord { id, name } = row?;
        assert_eq!(snapshot.repository(&name)?, Some(id));
        let (same_name, created_at) = snapshot.repository_name(id)?.expect("a listed repository");
        assert_eq!(same_name, name);
        let mut repository = Repository { created_at, ..Repository::default() };
        for row in snapshot.blobs(id, None)? {
            let (digest, link) = row?;
            repository.links.insert(digest, link.linked_at);
            assert!(snapshot.blob_repositories(&digest)?.any(|found| found.expect("readable") == id));
        }
        for row in snapshot.manifests(id, None)? {
            let (digest, record) = row?;
            assert_eq!(snapshot.manifest(id, &digest)?.as_ref(), Some(&record));
            assert!(snapshot.manifest_repositories(&digest)?.any(|found| found.expect("readable") == id));
            repository.manifests.insert(digest, (record, snapshot.edges(id, &digest)?));
        }
        for row in snapshot.tags(id, None)? {
            let (tag, record) = row?;
            assert_eq!(snapshot.tag(id, &tag)?, Some(record));
            repository.tags.insert(tag.to_string(), (record.digest, record.created_at, record.updated_at));
        }
        for digest in &digests {
            let is_there = repository.links.contains_key(digest) && state.stored.contains_key(digest);
            assert_eq!(snapshot.blob(id, digest)?.is_some(), is_there);
            assert_eq!(snapshot.link(id, digest)?.is_some(), repository.links.contains_key(digest));
            let parents = snapshot.parents(id, digest)?.collect::<Result<BTreeSet<_>, _>>()?;
            if !parents.is_empty() {
                repository.parents.insert(*digest, parents);
            }
            let referrers = snapshot.referrers(id, digest, None)?;
            let referrers =
                referrers.map(|r| r.map(|r| (r.digest, r))).collect::<Result<BTreeMap<_, _>, _>>()?;
            if !referrers.is_empty() {
                repository.referrers.insert(*digest, referrers);
            }
            let tags = snapshot.tags_of(id, digest)?.map(|t| t.map(|t| t.to_string()));
            let tags = tags.collect::<Result<BTreeSet<_>, _>>()?;
            if !tags.is_empty() {
                repository.tags_of.insert(*digest, tags);
            }
        }
        let usage = snapshot.usage(id)?;
        assert_eq!(usage.blobs, repository.links.len() as u64);
        assert_eq!(usage.manifests, repository.manifests.len() as u64);
        state.repositories.insert(name.to_string(), repository);
    }
    for digest in &digests {
        // Nothing is left of repositories that are gone or do not hold the digest.
        let names = |ids: Vec<RepositoryId>| -> Result<Vec<String>, MetadataError> {
            let names =
                ids.into_iter().map(|id| Ok(snapshot.repository_name(id)?.expect("exists").0.to_string()));
            names.collect()
        };
        for name in names(snapshot.blob_repositories(digest)?.collect::<Result<_, _>>()?)? {
            assert!(state.repositories[&name].links.contains_key(digest));
        }
        for name in names(snapshot.manifest_repositories(digest)?.collect::<Result<_, _>>()?)? {
            assert!(state.repositories[&name].manifests.contains_key(digest));
        }
    }
    for row in snapshot.uploads()? {
        let (id, record) = row?;
        assert_eq!(snapshot.upload(id)?.as_ref(), Some(&record));
        state.uploads.insert(id, record);
    }
    let mut sequence = 0;
    let mut created = BTreeMap::new();
    for change in snapshot.tag_changes_since(0, usize::MAX).expect("none is trimmed") {
        assert!(change.sequence > sequence && change.sequence <= snapshot.sequence());
        sequence = change.sequence;
        let key = (change.repository.to_string(), change.tag.to_string());
        if change.previous.is_none() {
            created.insert(key.clone(), change.sequence);
        }
        assert_eq!(created.get(&key), Some(&change.created), "{key:?}");
        state.changes.push(TagChange { sequence: 0, created: 0, ..change });
    }
    for name in state.repositories.keys() {
        let id = snapshot.repository(&name.parse().expect("a name"))?.expect("a listed repository");
        for row in snapshot.tags(id, None)? {
            let (tag, record) = row?;
            assert_eq!(created.get(&(name.clone(), tag.to_string())), Some(&record.created), "{name}:{tag}");
        }
    }
    Ok(state)
}

/// What an operation answers, as far as it can be told without the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Done,
    Was(bool),
    Blob(BlobCommit),
    Manifest(Result<(BlobCommit, Vec<Tag>), ManifestRefusal>),
    Tag(Result<Option<Digest>, PreconditionFailed>),
    Tags(Option<Vec<Tag>>),
    Content(Option<BlobLocation>),
}

/// Does an operation in the store.
pub(super) fn run(
    metadata: &Metadata,
    operation: &Operation,
    now: Timestamp,
) -> Result<Answer, MetadataError> {
    let repository = |index: &usize| name(REPOSITORIES[*index]);
    let operation = operation.clone();
    metadata.write_blocking(move |transaction| {
        Ok(match &operation {
            Operation::CommitBlob { repository: at, blob, file, upload } => {
                let digest = digest(*blob);
                let content = new_content(&digest, *file);
                let upload = upload.map(upload_id);
                Answer::Blob(transaction.commit_blob(&repository(at), &digest, 10, content, upload, now)?)
            }
            Operation::Mount { repository: at, blob, from } => Answer::Was(transaction.mount_blob(
                &repository(at),
                &digest(*blob),
                &repository(from),
                now,
            )?),
            Operation::Unlink { repository: at, blob } => {
                Answer::Was(transaction.unlink_blob(&repository(at), &digest(*blob))?)
            }
            Operation::PutManifest { repository: at, manifest: number, tags, condition: when, docker } => {
                let tags: Vec<Tag> = tags.iter().map(|index| tag(TAGS[*index])).collect();
                let digest = manifest_digest(*number);
                let put = PutManifest {
                    digest,
                    manifest: &manifest(*number, *docker),
                    size: 20,
                    content: new_content(&digest, None),
                    tags: &tags,
                    condition: &condition(*when),
                    now,
                };
                let commit = transaction.put_manifest(&repository(at), put)?;
                Answer::Manifest(commit.map(|commit| (commit.content, commit.changed_tags)))
            }
            Operation::DeleteTag { repository: at, tag: index, condition: when } => Answer::Tag(
                transaction.delete_tag(&repository(at), &tag(TAGS[*index]), &condition(*when), now)?,
            ),
            Operation::DeleteManifest { repository: at, manifest } => Answer::Tags(
                transaction.delete_manifest(&repository(at), &manifest_digest(*manifest), now)?,
            ),
            Operation::RemoveContent { content } => {
                let removed = transaction.remove_unused_content(&any_digest(*content))?;
                Answer::Content(removed.map(|record| record.location))
            }
            Operation::Condemn { content } => {
                let digest = any_digest(*content);
                Answer::Was(match transaction.stored_blob(&digest)? {
                    Some(stored) => transaction.condemn(&digest, &stored, Damage::Content, now)?,
                    None => false,
                })
            }
            Operation::RemoveRepository { repository: at } => {
                Answer::Was(transaction.remove_repository_if_empty(&repository(at))?)
            }
            Operation::Purge { repository: at } => {
                let mut steps = 0;
                while !transaction.purge_repository(&repository(at), 2, now)?.is_gone {
                    steps += 1;
                    assert!(steps < 100, "each step removes something");
                }
                Answer::Done
            }
            Operation::SaveUpload { upload, bytes } => {
                transaction.save_upload(upload_id(*upload), &upload_record(*upload, *bytes, now))?;
                Answer::Done
            }
            Operation::RemoveUpload { upload } => Answer::Was(transaction.remove_upload(upload_id(*upload))?),
            Operation::Reopen => Answer::Done,
        })
    })
}

fn any_digest(number: u32) -> Digest {
    if number < BLOBS { digest(number) } else { manifest_digest(number - BLOBS) }
}

fn upload_record(upload: u8, bytes: u8, now: Timestamp) -> UploadRecord {
    let mut hasher = ContentHasher::new(Algorithm::ALL[usize::from(upload % 2)]);
    hasher.update(&vec![upload; bytes.into()]);
    UploadRecord {
        repository: name(REPOSITORIES[usize::from(upload)]),
        started_at: Timestamp(u64::from(upload)),
        touched_at: now,
        size: bytes.into(),
        hash: hasher.save(),
        content: match bytes % 3 {
            0 => UploadContent::File(FileId([bytes; 16])),
            _ => UploadContent::Inline(vec![upload; bytes.into()].into()),
        },
    }
}

impl State {
    /// Does an operation in the model.
    pub(super) fn run(&mut self, operation: &Operation, now: Timestamp) -> Answer {
        let answer = match operation {
            Operation::CommitBlob { repository, blob, file, upload } => {
                let digest = digest(*blob);
                self.repository(*repository, now).links.insert(digest, now);
                if let Some(upload) = upload {
                    self.uploads.remove(&upload_id(*upload));
                }
                Answer::Blob(self.store(digest, 10, new_content(&digest, *file), now))
            }
            Operation::Mount { repository, blob, from } => {
                let digest = digest(*blob);
                let linked = self.stored.contains_key(&digest)
                    && self
                        .repositories
                        .get(REPOSITORIES[*from])
                        .is_some_and(|r| r.links.contains_key(&digest));
                if linked {
                    self.repository(*repository, now).links.insert(digest, now);
                }
                Answer::Was(linked)
            }
            Operation::Unlink { repository, blob } => {
                let repository = self.repositories.get_mut(REPOSITORIES[*repository]);
                Answer::Was(repository.is_some_and(|r| r.links.remove(&digest(*blob)).is_some()))
            }
            Operation::PutManifest { repository, manifest: number, tags, condition: when, docker } => {
                let tags: Vec<&str> = tags.iter().map(|index| TAGS[*index]).collect();
                let put = manifest(*number, *docker);
                Answer::Manifest(self.put_manifest(
                    *repository,
                    manifest_digest(*number),
                    &put,
                    &tags,
                    *when,
                    now,
                ))
            }
            Operation::DeleteTag { repository, tag, condition: when } => {
                let (at, tag) = (REPOSITORIES[*repository], TAGS[*tag]);
                let current = self.repositories.get(at).and_then(|r| r.tags.get(tag)).map(|tag| tag.0);
                Answer::Tag(holds(&condition(*when), current).map(|()| {
                    if current.is_some() {
                        self.set_tag(*repository, tag, None, now);
                    }
                    current
                }))
            }
            Operation::DeleteManifest { repository, manifest } => {
                let digest = manifest_digest(*manifest);
                let held = self.repositories.get_mut(REPOSITORIES[*repository]);
                let removed = held.filter(|r| r.manifests.contains_key(&digest)).map(|held| {
                    held.remove_manifest(&digest);
                    held.tags_of.get(&digest).cloned().unwrap_or_default()
                });
                for tag in removed.iter().flatten() {
                    self.set_tag(*repository, tag, None, now);
                }
                Answer::Tags(removed.map(|tags| tags.iter().map(|text| tag(text)).collect()))
            }
            Operation::RemoveContent { content } => {
                let digest = any_digest(*content);
                let used = self
                    .repositories
                    .values()
                    .any(|r| r.links.contains_key(&digest) || r.manifests.contains_key(&digest));
                if !used {
                    self.damaged.remove(&digest);
                }
                let removed = if used { None } else { self.stored.remove(&digest) };
                Answer::Content(removed.map(|(record, _)| record.location))
            }
            Operation::Condemn { content } => {
                let digest = any_digest(*content);
                let stored = self.stored.remove(&digest);
                if let Some((content, _)) = stored {
                    let damage = Damage::Content;
                    self.damaged.insert(digest, DamageRecord { content, damage, found_at: now });
                }
                Answer::Was(self.damaged.get(&digest).is_some_and(|record| record.found_at == now))
            }
            Operation::RemoveRepository { repository } => {
                let at = REPOSITORIES[*repository];
                let empty =
                    |r: &Repository| r.links.is_empty() && r.manifests.is_empty() && r.tags.is_empty();
                Answer::Was(
                    self.repositories.get(at).is_some_and(empty) && self.repositories.remove(at).is_some(),
                )
            }
            Operation::Purge { repository } => {
                let at = REPOSITORIES[*repository];
                let tags =
                    self.repositories.get(at).map(|held| held.tags.keys().cloned().collect::<Vec<_>>());
                for tag in tags.iter().flatten() {
                    self.set_tag(*repository, tag, None, now);
                }
                self.repositories.remove(at);
                Answer::Done
            }
            Operation::SaveUpload { upload, bytes } => {
                self.uploads.insert(upload_id(*upload), upload_record(*upload, *bytes, now));
                Answer::Done
            }
            Operation::RemoveUpload { upload } => {
                Answer::Was(self.uploads.remove(&upload_id(*upload)).is_some())
            }
            Operation::Reopen => Answer::Done,
        };
        self.count();
        answer
    }

    fn repository(&mut self, index: usize, now: Timestamp) -> &mut Repository {
        let fresh = || Repository { created_at: now, ..Repository::default() };
        self.repositories.entry(REPOSITORIES[index].to_owned()).or_insert_with(fresh)
    }

    fn store(&mut self, digest: Digest, size: u64, new: NewContent, now: Timestamp) -> BlobCommit {
        if self.stored.contains_key(&digest) {
            return BlobCommit::AlreadyStored;
        }
        let (location, bytes) = match new {
            NewContent::Inline(bytes) => (BlobLocation::Inline, Some(bytes.to_vec())),
            NewContent::File(file) => (BlobLocation::File(file), None),
        };
        self.damaged.remove(&digest);
        self.stored.insert(digest, (BlobRecord { size, location, stored_at: now }, bytes));
        BlobCommit::Stored
    }

    fn put_manifest(
        &mut self,
        at: usize,
        digest: Digest,
        manifest: &Manifest,
        tags: &[&str],
        when: u8,
        now: Timestamp,
    ) -> Result<(BlobCommit, Vec<Tag>), ManifestRefusal> {
        let none = Repository::default();
        let held = self.repositories.get(REPOSITORIES[at]).unwrap_or(&none);
        let current = match tags.first() {
            Some(tag) => held.tags.get(*tag).map(|tag| tag.0),
            None => {
                let is_there = held.manifests.contains_key(&digest) && self.stored.contains_key(&digest);
                is_there.then_some(digest)
            }
        };
        holds(&condition(when), current)?;
        let blobs: Vec<Digest> = manifest
            .blobs
            .iter()
            .filter(|b| !(held.links.contains_key(b) && self.stored.contains_key(b)))
            .copied()
            .collect();
        let is_missing = |c: &&Digest| {
            !self.stored.contains_key(c) || !held.links.contains_key(c) && !held.manifests.contains_key(c)
        };
        let children: Vec<Digest> = manifest.children.iter().filter(is_missing).copied().collect();
        if !blobs.is_empty() || !children.is_empty() {
            return Err(ManifestRefusal::Missing { blobs, children });
        }
        let commit = self.store(digest, 20, new_content(&digest, None), now);
        self.repository(at, now).insert_manifest(digest, manifest, now);
        let changed = tags
            .iter()
            .filter(|tag| self.set_tag(at, tag, Some(digest), now))
            .map(|text| tag(text))
            .collect();
        Ok((commit, changed))
    }

    fn set_tag(&mut self, at: usize, text: &str, digest: Option<Digest>, now: Timestamp) -> bool {
        let held = self.repository(at, now);
        let created_at = held.tags.get(text).map_or(now, |tag| tag.1);
        let previous = match digest {
            None => held.tags.remove(text),
            Some(digest) => held.tags.insert(text.to_owned(), (digest, created_at, now)),
        };
        let previous = previous.map(|tag| tag.0);
        held.tags_of = BTreeMap::new();
        for (tag, (digest, ..)) in &held.tags {
            held.tags_of.entry(*digest).or_default().insert(tag.clone());
        }
        if previous != digest {
            let (repository, tag) = (name(REPOSITORIES[at]), tag(text));
            let (sequence, created) = (0, 0);
            let change =
                TagChange { sequence, repository, tag, digest, previous, at: now, created, created_at };
            self.changes.push(change);
        }
        previous != digest
    }

    fn count(&mut self) {
        let sum = |count: fn(&Repository) -> usize| self.repositories.values().map(|r| count(r) as u64).sum();
        self.statistics = Statistics {
            repositories: self.repositories.len() as u64,
            tags: sum(|r| r.tags.len()),
            manifests: sum(|r| r.manifests.len()),
            links: sum(|r| r.links.len()),
            blobs: self.stored.len() as u64,
            bytes: self.stored.values().map(|(record, _)| record.size).sum(),
            uploads: self.uploads.len() as u64,
            damaged: self.damaged.len() as u64,
        };
    }
}

impl Repository {
    fn insert_manifest(&mut self, digest: Digest, manifest: &Manifest, now: Timestamp) {
        self.remove_manifest(&digest);
        let subject = manifest.subject.as_ref().map(|subject| subject.digest);
        let mut edges: Vec<(EdgeKind, Digest)> =
            manifest.blobs.iter().map(|b| (EdgeKind::Blob, *b)).collect();
        edges.extend(manifest.foreign_blobs.iter().map(|b| (EdgeKind::ForeignBlob, *b)));
        edges.extend(manifest.children.iter().map(|c| (EdgeKind::Child, *c)));
        edges.extend(subject.map(|subject| (EdgeKind::Subject, subject)));
        for (kind, target) in &edges {
            self.parents.entry(*target).or_default().insert((digest, *kind));
        }
        if let Some(subject) = subject {
            let referrer = Referrer {
                digest,
                media_type: manifest.media_type.clone(),
                size: 20,
                artifact_type: manifest.artifact_type.clone(),
                annotations: manifest.annotations.clone(),
            };
            self.referrers.entry(subject).or_default().insert(digest, referrer);
        }
        let record = ManifestRecord {
            media_type: manifest.media_type.clone(),
            size: 20,
            pushed_at: now,
            artifact_type: manifest.artifact_type.clone(),
            subject,
            config: manifest.config.as_ref().map(|config| config.digest),
        };
        self.manifests.insert(digest, (record, edges));
    }

    fn remove_manifest(&mut self, digest: &Digest) {
        self.manifests.remove(digest);
        for parents in self.parents.values_mut() {
            parents.retain(|(parent, _)| parent != digest);
        }
        self.parents.retain(|_, parents| !parents.is_empty());
        for referrers in self.referrers.values_mut() {
            referrers.remove(digest);
        }
        self.referrers.retain(|_, referrers| !referrers.is_empty());
    }
}

fn holds(condition: &TagCondition, current: Option<Digest>) -> Result<(), PreconditionFailed> {
    let holds = match (condition, current) {
        (TagCondition::Any, _) => true,
        (TagCondition::Absent, current) => current.is_none(),
        (TagCondition::Exists, current) => current.is_some(),
        (TagCondition::OneOf(digests), Some(current)) => digests.contains(&current),
        (TagCondition::OneOf(_), None) => false,
        (TagCondition::NoneOf(digests), Some(current)) => !digests.contains(&current),
        (TagCondition::NoneOf(_), None) => true,
    };
    holds.then_some(()).ok_or(PreconditionFailed { current })
}
