use super::super::keys::{self, OfDigest, OfRepository};
use super::super::records::{EdgeKind, ManifestRecord, RepositoryId, Timestamp};
use super::super::rows::{EdgesRow, REPOSITORIES, ReferrerRow, Row as _, damaged};
use super::super::tables::{has, owned_row, scan_prefix};
use super::super::{ManifestRefusal, MetadataError};
use super::{BlobCommit, NewContent, TagCondition, Transaction, lower};
use crate::oci::{Digest, Manifest, RepositoryName, Tag};

/// A manifest that is to be stored.
#[derive(Clone, Debug)]
pub struct PutManifest<'a> {
    /// Its digest.
    pub digest: Digest,
    /// What it says.
    pub manifest: &'a Manifest,
    /// Its length in bytes.
    pub size: u64,
    /// Its bytes.
    pub content: NewContent,
    /// Tags that will point at it; may be none.
    pub tags: &'a [Tag],
    /// What the first of the tags must be; without tags, what the manifest itself must be.
    pub condition: &'a TagCondition,
    /// The time.
    pub now: Timestamp,
}

/// What the storing of a manifest has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestCommit {
    /// Whether the content was taken.
    pub content: BlobCommit,
    /// Number of the last change that was made.
    pub sequence: u64,
    /// Those of the tags that did not point at the manifest before.
    pub changed_tags: Vec<Tag>,
}

impl Transaction<'_> {
    /// Stores a manifest in a repository, with all that it refers to, and sets tags on it.
    ///
    /// The blobs that it requires must be linked in the repository, and the children of an index must be manifests of
    /// the repository or blobs linked in it; its subject need not exist. A manifest that is stored already is refreshed;
    /// where it comes with another type this time, that type counts in this repository.
    pub fn put_manifest(
        &mut self,
        repository: &RepositoryName,
        put: PutManifest<'_>,
    ) -> Result<Result<ManifestCommit, ManifestRefusal>, MetadataError> {
        let PutManifest { digest, manifest, size, content, tags, condition, now } = put;
        let id = self.repository(repository)?;
        let current = match (id, tags.first()) {
            (None, _) => None,
            (Some(id), Some(tag)) => self.tag(id, tag)?.map(|record| record.digest),
            (Some(id), None) => self.has_whole_manifest(id, &digest)?.then_some(digest),
        };
        if let Err(refusal) = condition.check(current) {
            return Ok(Err(refusal.into()));
        }
        let blobs = self.missing(id, &manifest.blobs, Self::has_blob)?;
        let children = self.missing(id, &manifest.children, |this, id, child| {
            Ok(this.has_whole_manifest(id, child)? || this.has_blob(id, child)?)
        })?;
        if !(blobs.is_empty() && children.is_empty()) {
            return Ok(Err(ManifestRefusal::Missing { blobs, children }));
        }

        let id = self.ensure_repository(repository, now)?;
        let content = self.store(&digest, size, content, now)?;
        self.write_manifest(id, &digest, manifest, size, now)?;
        let mut changed_tags = Vec::new();
        for tag in tags {
            if self.set_tag(id, repository, tag, &digest, now)? {
                changed_tags.push(tag.clone());
            }
        }
        Ok(Ok(ManifestCommit { content, sequence: self.state.sequence, changed_tags }))
    }

    /// Deletes a manifest from a repository, with its tags, which are given in the order of their bytes; `None` where
    /// it is not there. The content stays stored.
    pub fn delete_manifest(
        &mut self,
        repository: &RepositoryName,
        digest: &Digest,
        now: Timestamp,
    ) -> Result<Option<Vec<Tag>>, MetadataError> {
        let Some(id) = self.repository(repository)? else { return Ok(None) };
        let key = keys::of_repository_digest(id, OfRepository::Manifest, digest);
        let Some(record) = owned_row::<ManifestRecord>(&*self.tables.repositories, &key)? else {
            return Ok(None);
        };
        let tags = self.tags_of(id, digest)?;

        self.drop_manifest(id, digest, &record)?;
        for tag in &tags {
            if let Some(record) = self.tag(id, tag)? {
                self.drop_tag(id, repository, tag, &record, now)?;
            }
        }
        Ok(Some(tags))
    }

    /// Deletes the rows of a manifest, but not its tags.
    pub(super) fn drop_manifest(
        &mut self,
        id: RepositoryId,
        digest: &Digest,
        record: &ManifestRecord,
    ) -> Result<(), MetadataError> {
        let edges = self.edges(id, digest)?;
        self.change();
        let key = keys::of_repository_digest(id, OfRepository::Manifest, digest);
        self.tables.repositories.remove(key.as_slice())?;
        self.remove_holder(id, OfDigest::ManifestIn, digest)?;
        lower(&mut self.state.statistics.manifests, 1);
        self.remove_edges(id, digest, &edges)?;
        if let Some(subject) = &record.subject {
            self.tables.repositories.remove(keys::referrer(id, subject, digest).as_slice())?;
        }
        Ok(())
    }

    /// Whether a manifest is in a repository.
    pub fn has_manifest(&self, repository: RepositoryId, digest: &Digest) -> Result<bool, MetadataError> {
        has(
            &*self.tables.repositories,
            &keys::of_repository_digest(repository, OfRepository::Manifest, digest),
        )
    }

    /// Whether a manifest is in a repository and its content can be had.
    fn has_whole_manifest(&self, repository: RepositoryId, digest: &Digest) -> Result<bool, MetadataError> {
        Ok(self.has_manifest(repository, digest)? && self.is_whole(digest)?)
    }

    /// Those of `digests` that are not in the repository by what `is_there` says.
    fn missing(
        &self,
        repository: Option<RepositoryId>,
        digests: &[Digest],
        is_there: impl Fn(&Self, RepositoryId, &Digest) -> Result<bool, MetadataError>,
    ) -> Result<Vec<Digest>, MetadataError> {
        let Some(repository) = repository else { return Ok(digests.to_vec()) };
        let mut missing = Vec::new();
        for digest in digests {
            if !is_there(self, repository, digest)? {
                missing.push(*digest);
            }
        }
        Ok(missing)
    }

    pub(super) fn edges(
        &self,
        repository: RepositoryId,
        manifest: &Digest,
    ) -> Result<EdgesRow, MetadataError> {
        let key = keys::of_repository_digest(repository, OfRepository::Edges, manifest);
        Ok(owned_row(&*self.tables.repositories, &key)?.unwrap_or_default())
    }

    fn tags_of(&self, repository: RepositoryId, digest: &Digest) -> Result<Vec<Tag>, MetadataError> {
        let prefix = keys::of_repository_digest(repository, OfRepository::TagOf, digest);
        let rows = scan_prefix(&*self.tables.repositories, &prefix)?;
        let tags = rows.map(|row| {
            let (key, _) = row?;
            let tag = std::str::from_utf8(&key.value()[prefix.len()..]).ok().and_then(|tag| tag.parse().ok());
            tag.ok_or_else(|| damaged(REPOSITORIES, "a key without its tag"))
        });
        tags.collect()
    }

    /// Writes the rows of a manifest in place of those it may have from before.
    pub(super) fn write_manifest(
        &mut self,
        id: RepositoryId,
        digest: &Digest,
        manifest: &Manifest,
        size: u64,
        now: Timestamp,
    ) -> Result<(), MetadataError> {
        let record = ManifestRecord {
            media_type: manifest.media_type.clone(),
            size,
            pushed_at: now,
            artifact_type: manifest.artifact_type.clone(),
            subject: manifest.subject.as_ref().map(|subject| subject.digest),
            config: manifest.config.as_ref().map(|config| config.digest),
        };
        let key = keys::of_repository_digest(id, OfRepository::Manifest, digest);
        let before = owned_row::<ManifestRecord>(&*self.tables.repositories, &key)?;
        let edges_before = self.edges(id, digest)?;
        let edges = edges_of(manifest);

        self.change();
        self.tables.repositories.insert(key.as_slice(), record.encode()?.as_slice())?;
        if before.is_none() {
            self.add_holder(id, OfDigest::ManifestIn, digest)?;
            self.state.statistics.manifests += 1;
        }
        if edges != edges_before {
            self.remove_edges(id, digest, &edges_before)?;
            self.insert_edges(id, digest, &edges)?;
        }
        // The same bytes name the same subject, unless they are read as another type.
        if let Some(subject) = before.and_then(|before| before.subject)
            && record.subject != Some(subject)
        {
            self.tables.repositories.remove(keys::referrer(id, &subject, digest).as_slice())?;
        }
        if let Some(subject) = record.subject {
            let row = ReferrerRow {
                media_type: record.media_type,
                size,
                artifact_type: record.artifact_type,
                annotations: manifest.annotations.clone(),
            };
            let key = keys::referrer(id, &subject, digest);
            self.tables.repositories.insert(key.as_slice(), row.encode()?.as_slice())?;
        }
        Ok(())
    }

    pub(super) fn insert_edges(
        &mut self,
        id: RepositoryId,
        digest: &Digest,
        edges: &EdgesRow,
    ) -> Result<(), MetadataError> {
        let key = keys::of_repository_digest(id, OfRepository::Edges, digest);
        self.tables.repositories.insert(key.as_slice(), edges.encode()?.as_slice())?;
        for (kind, target) in &edges.0 {
            let key = keys::parent(id, target, digest, *kind);
            self.tables.repositories.insert(key.as_slice(), &[][..])?;
        }
        Ok(())
    }

    pub(super) fn remove_edges(
        &mut self,
        id: RepositoryId,
        digest: &Digest,
        edges: &EdgesRow,
    ) -> Result<(), MetadataError> {
        let key = keys::of_repository_digest(id, OfRepository::Edges, digest);
        self.tables.repositories.remove(key.as_slice())?;
        for (kind, target) in &edges.0 {
            self.tables.repositories.remove(keys::parent(id, target, digest, *kind).as_slice())?;
        }
        Ok(())
    }
}

/// All that a manifest refers to.
pub(in super::super) fn edges_of(manifest: &Manifest) -> EdgesRow {
    let of_kind = |kind, digests: &[Digest]| digests.iter().map(|digest| (kind, *digest)).collect::<Vec<_>>();
    let mut edges = of_kind(EdgeKind::Blob, &manifest.blobs);
    edges.extend(of_kind(EdgeKind::ForeignBlob, &manifest.foreign_blobs));
    edges.extend(of_kind(EdgeKind::Child, &manifest.children));
    edges.extend(manifest.subject.iter().map(|subject| (EdgeKind::Subject, subject.digest)));
    EdgesRow(edges)
}
