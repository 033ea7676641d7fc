//! Whether the rows of one state fit each other.
//!
//! Most rows come in pairs that say the same in two directions. One of each pair is looked up for each of the other; that
//! there are no more than these follows from their number. Only where the numbers differ, those that are too many are
//! looked for.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::ControlFlow;

use super::finding::{Finding, FindingKind, Repair};
use super::keys::{self, OfDigest, OfRepository};
use super::records::{
    BlobLocation, BlobRecord, DamageRecord, EdgeKind, LinkRecord, ManifestRecord, NamespaceId,
    NamespaceUsage, RepositoryId, Statistics, TagRecord, UploadRecord,
};
use super::rows::{
    CONTENTS, DAMAGED, DIGESTS, EdgesRow, NAMES, REPOSITORIES, ReferrerRow, Row as _, STATE, TAG_CHANGES,
    TagChangeRow, UPLOADS, UploadRow, damaged,
};
use super::snapshot::{digest_at, number, repository_id, text};
use super::tables::{ReadRange, has, owned_row, read_prefix};
use super::transaction::edges_of;
use super::{MetadataError, Snapshot};
use crate::oci::{ContentHasher, Digest, Manifest, Tag};

/// How many rows are looked at between two words about the progress.
const ROWS_PER_PROGRESS: u64 = 1 << 12;

/// Keys of unreadable rows that are remembered; what is beyond may be counted more than once.
const UNREADABLE_MAX: usize = 10_000;

/// Why the rows were not all looked at.
#[derive(Debug)]
pub(crate) enum Unchecked {
    /// Somebody has ended it.
    Stopped,
    /// They cannot be read.
    Metadata(MetadataError),
}

impl<E: Into<MetadataError>> From<E> for Unchecked {
    fn from(error: E) -> Self {
        Self::Metadata(error.into())
    }
}

type Checked = Result<(), Unchecked>;

impl Snapshot {
    /// Compares all rows, and counts them. `rows` is told how many were looked at, and whether that goes on.
    pub(crate) fn check(
        &self,
        found: &mut dyn FnMut(Finding),
        rows: &dyn Fn(u64) -> ControlFlow<()>,
    ) -> Result<Statistics, Unchecked> {
        let (counted, unreadable) = (Statistics::default(), HashSet::new());
        let namespaces = BTreeMap::new();
        let mut check = Check { snapshot: self, found, told: rows, rows: 0, counted, namespaces, unreadable };
        check.names()?;
        let reversed = check.repositories()?;
        check.digests(reversed)?;
        check.damaged()?;
        check.uploads()?;
        check.tag_changes()?;
        // What cannot be read cannot be counted.
        if check.unreadable.is_empty() {
            check.namespaces()?;
        }
        let (counted, said) = (check.counted, self.statistics());
        if counted != said && check.unreadable.is_empty() {
            let text = format!("the counters say {said:?}, and counting gives {counted:?}");
            found(Finding::new(FindingKind::Counters, text).with(Repair::Counters(said, counted)));
        }
        Ok(counted)
    }
}

struct Check<'c> {
    snapshot: &'c Snapshot,
    found: &'c mut dyn FnMut(Finding),
    told: &'c dyn Fn(u64) -> ControlFlow<()>,
    rows: u64,
    counted: Statistics,
    /// What was counted of the namespaces.
    namespaces: BTreeMap<NamespaceId, NamespaceUsage>,
    /// Keys of rows that cannot be read; they are met in more than one way.
    unreadable: HashSet<Vec<u8>>,
}

/// How many rows there are of each kind of which the other direction is in another place.
#[derive(Clone, Copy, Default)]
struct Reversed {
    links: u64,
    manifests: u64,
}

/// What was counted of one repository.
#[derive(Default)]
struct Of {
    name: String,
    /// What the manifests refer to and that knows of it, and all that seems to be referred to.
    references: u64,
    parents: u64,
    subjects: u64,
    referrers: u64,
    tags: u64,
    tags_of: u64,
}

impl Check<'_> {
    fn row(&mut self) -> Checked {
        self.rows += 1;
        if self.rows.is_multiple_of(ROWS_PER_PROGRESS) && (self.told)(self.rows).is_break() {
            return Err(Unchecked::Stopped);
        }
        Ok(())
    }

    fn found(&mut self, kind: FindingKind, text: String, repair: Repair) {
        (self.found)(Finding::new(kind, text).with(repair));
    }

    /// What was read of a row; `None` where it cannot be read, which is found then.
    fn read<T>(&mut self, key: &[u8], read: Result<T, MetadataError>) -> Result<Option<T>, Unchecked> {
        match read {
            Ok(row) => Ok(Some(row)),
            Err(error) if error.is_of_one_row() => {
                let is_full = self.unreadable.len() == UNREADABLE_MAX;
                if is_full || self.unreadable.insert(key.to_vec()) {
                    let text = format!("{error} (key {})", hex::encode(key));
                    (self.found)(Finding::new(FindingKind::UnreadableRow, text));
                }
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn of_repository(&self, key: &[u8]) -> Result<bool, MetadataError> {
        has(self.snapshot.tables().repositories()?, key)
    }

    fn of_digest(&self, key: &[u8]) -> Result<bool, MetadataError> {
        has(self.snapshot.tables().digests()?, key)
    }

    fn names(&mut self) -> Checked {
        for row in read_prefix(self.snapshot.tables().names()?, &[], None)? {
            self.row()?;
            let (key, value) = row?;
            let read = text(key.value(), NAMES)
                .and_then(|name| Ok((name.to_owned(), repository_id(value.value())?)));
            let Some((name, id)) = self.read(key.value(), read)? else { continue };
            let identity = keys::of_repository(id, OfRepository::Identity);
            let repository = self.read(&identity, self.snapshot.repository_name(id))?;
            let Some(repository) = repository else { continue };
            if repository.is_none_or(|(found, _)| found.as_str() != name) {
                let text = format!("the name {name} leads to a repository that is not there");
                self.found(FindingKind::NameWithoutRepository, text, Repair::Name(name));
            }
        }
        Ok(())
    }

    /// Looks at the rows of all repositories.
    fn repositories(&mut self) -> Result<Reversed, Unchecked> {
        let mut reversed = Reversed::default();
        let mut next = RepositoryId(0);
        while let Some(id) = self.first_repository(next)? {
            let prefix = id.0.to_be_bytes();
            let identity = keys::of_repository(id, OfRepository::Identity);
            if self.of_repository(&identity)? {
                self.repository(id, &prefix, &mut reversed)?;
            } else {
                let text = format!("there are rows of repository {}, which is not there", id.0);
                self.found(FindingKind::RowsOfNoRepository, text, Repair::Orphans(id));
            }
            let Some(after) = id.0.checked_add(1) else { break };
            next = RepositoryId(after);
        }
        Ok(reversed)
    }

    /// The first repository from `from` on that has rows.
    fn first_repository(&mut self, from: RepositoryId) -> Result<Option<RepositoryId>, Unchecked> {
        let start = from.0.to_be_bytes();
        let table = self.snapshot.tables().repositories()?;
        for row in table.range::<&[u8]>(start.as_slice()..)? {
            let (key, _) = row?;
            let id =
                key.value().get(..8).ok_or_else(|| damaged(REPOSITORIES, "a key without its repository"));
            let id = id.and_then(|id| number(id, REPOSITORIES));
            if let Some(id) = self.read(key.value(), id)? {
                return Ok(Some(RepositoryId(id)));
            }
        }
        Ok(None)
    }

    fn repository(&mut self, id: RepositoryId, prefix: &[u8], reversed: &mut Reversed) -> Checked {
        self.counted.repositories += 1;
        self.namespaces.entry(id.namespace()).or_default().repositories += 1;
        let mut of = Of::default();
        if let Some(Some((name, _))) =
            self.read(&keys::of_repository(id, OfRepository::Identity), self.snapshot.repository_name(id))?
        {
            let found = self.read(name.as_str().as_bytes(), self.snapshot.repository(&name))?;
            if found.is_some_and(|found| found != Some(id)) {
                let text = format!("the name of the repository {name} does not lead to it");
                self.found(FindingKind::RepositoryWithoutName, text, Repair::Repository(id));
            }
            of.name = name.to_string();
        }
        for row in read_prefix(self.snapshot.tables().repositories()?, prefix, None)? {
            self.row()?;
            let (key, value) = row?;
            let (key, value) = (key.value(), value.value());
            let result = match key.get(8) {
                Some(b'e') => self.edges(id, key, value, &mut of),
                Some(b'g') => {
                    of.tags_of += 1;
                    Ok(())
                }
                Some(b'i') => Ok(()),
                Some(b'l') => self.link(id, key, value, &of, reversed),
                Some(b'm') => self.manifest(id, key, value, &mut of, reversed),
                Some(b'p') => {
                    of.parents += 1;
                    Ok(())
                }
                Some(b'r') => {
                    of.referrers += 1;
                    Ok(())
                }
                Some(b't') => self.tag(id, key, value, &mut of),
                _ => Err(damaged(REPOSITORIES, "a key of an unknown kind").into()),
            };
            match result {
                Err(Unchecked::Metadata(error)) => self.read(key, Err::<(), _>(error))?,
                result => Some(result?),
            };
        }
        if of.references != of.parents {
            self.surplus_parents(id, &of)?;
        }
        if of.subjects != of.referrers {
            self.surplus_referrers(id, &of)?;
        }
        if of.tags != of.tags_of {
            self.surplus_tags_of(id, &of)?;
        }
        Ok(())
    }

    fn edges(&mut self, id: RepositoryId, key: &[u8], value: &[u8], of: &mut Of) -> Checked {
        let (manifest, _) = digest_at(key, 9, REPOSITORIES)?;
        let edges = EdgesRow::decode(value)?;
        let in_repository = keys::of_repository_digest(id, OfRepository::Manifest, &manifest);
        if !self.of_repository(&in_repository)? {
            let text = format!("{} knows what {manifest} refers to, which is no manifest of it", of.name);
            self.found(FindingKind::ReferenceRows, text, Repair::Manifest(id, manifest));
            return Ok(());
        }
        let mut is_complete = true;
        for (kind, target) in &edges.0 {
            let is_known = self.of_repository(&keys::parent(id, target, &manifest, *kind))?;
            of.references += u64::from(is_known);
            is_complete &= is_known;
            let link = keys::of_repository_digest(id, OfRepository::Link, target);
            let child = keys::of_repository_digest(id, OfRepository::Manifest, target);
            let is_there = match kind {
                EdgeKind::Blob => self.of_repository(&link)?,
                EdgeKind::Child => self.of_repository(&child)? || self.of_repository(&link)?,
                EdgeKind::ForeignBlob | EdgeKind::Subject => true,
            };
            if !is_there {
                let text =
                    format!("the manifest {manifest} of {} needs {target}, which is not there", of.name);
                (self.found)(Finding::new(FindingKind::ReferenceMissing, text));
            }
        }
        if !is_complete {
            let text = format!("in {}, not all that {manifest} refers to knows that it does", of.name);
            self.found(FindingKind::ReferenceRows, text, Repair::Manifest(id, manifest));
        }
        Ok(())
    }

    fn link(
        &mut self,
        id: RepositoryId,
        key: &[u8],
        value: &[u8],
        of: &Of,
        reversed: &mut Reversed,
    ) -> Checked {
        let (digest, _) = digest_at(key, 9, REPOSITORIES)?;
        self.counted.links += 1;
        if self.of_digest(&keys::of_digest_in(&digest, OfDigest::LinkedIn, id))? {
            reversed.links += 1;
        } else {
            let text = format!("{digest} does not know that it is linked in {}", of.name);
            self.found(FindingKind::LinkRows, text, Repair::Link(id, digest));
        }
        self.content(&digest, of)?;
        LinkRecord::decode(value)?;
        Ok(())
    }

    /// Looks whether somebody knows where some content is.
    fn content(&mut self, digest: &Digest, of: &Of) -> Checked {
        let is_known = self.of_digest(&keys::of_digest(digest, OfDigest::Blob))?
            || has(self.snapshot.tables().damaged()?, digest.as_key())?;
        if !is_known {
            let text = format!("{} has {digest}, and nothing says where its content is", of.name);
            self.found(FindingKind::ContentUnknown, text, Repair::Content(*digest));
        }
        Ok(())
    }

    fn manifest(
        &mut self,
        id: RepositoryId,
        key: &[u8],
        value: &[u8],
        of: &mut Of,
        reversed: &mut Reversed,
    ) -> Checked {
        let (digest, _) = digest_at(key, 9, REPOSITORIES)?;
        self.counted.manifests += 1;
        if self.of_digest(&keys::of_digest_in(&digest, OfDigest::ManifestIn, id))? {
            reversed.manifests += 1;
        } else {
            let text = format!("{digest} does not know that it is a manifest of {}", of.name);
            self.found(FindingKind::ManifestRows, text, Repair::Manifest(id, digest));
        }
        self.content(&digest, of)?;
        let record = ManifestRecord::decode(value)?;
        let said = self.said_by(&digest, &record)?;
        let edges = self.read(
            &keys::of_repository_digest(id, OfRepository::Edges, &digest),
            self.snapshot.edges(id, &digest),
        )?;
        if let (Some((manifest, size)), Some(edges)) = (&said, edges)
            && (record != record_of(&record, manifest, *size) || edges_of(manifest).0 != edges)
        {
            let text = format!("what {} knows of the manifest {digest} is not what it says", of.name);
            self.found(FindingKind::ManifestDiffers, text, Repair::Manifest(id, digest));
        }
        let Some(subject) = record.subject else { return Ok(()) };
        let key = keys::referrer(id, &subject, &digest);
        let referrer = owned_row::<ReferrerRow>(self.snapshot.tables().repositories()?, &key);
        let Some(referrer) = self.read(&key, referrer)? else {
            of.subjects += 1;
            return Ok(());
        };
        of.subjects += u64::from(referrer.is_some());
        let fits = referrer.is_some_and(|row| {
            row.media_type == record.media_type
                && row.size == record.size
                && row.artifact_type == record.artifact_type
                && said.is_none_or(|(manifest, _)| row.annotations == manifest.annotations)
        });
        if !fits {
            let text = format!("in {}, {subject} does not know rightly that {digest} is about it", of.name);
            self.found(FindingKind::ReferrerRows, text, Repair::Manifest(id, digest));
        }
        Ok(())
    }

    /// What a manifest says, and its length, where it is to be had and is what it was.
    fn said_by(
        &mut self,
        digest: &Digest,
        record: &ManifestRecord,
    ) -> Result<Option<(Manifest, u64)>, Unchecked> {
        let Some(bytes) = self.snapshot.content(digest, record.size)? else { return Ok(None) };
        if ContentHasher::digest(digest.algorithm(), &bytes) != *digest {
            let text = format!("the manifest {digest} is not what its digest says");
            self.found(FindingKind::InlineContent, text, Repair::Content(*digest));
            return Ok(None);
        }
        // It could be read when it was pushed; where this version cannot, there is nothing to compare with.
        let manifest = Manifest::parse(Some(&record.media_type), &bytes).ok();
        Ok(manifest.map(|manifest| (manifest, bytes.len() as u64)))
    }

    fn tag(&mut self, id: RepositoryId, key: &[u8], value: &[u8], of: &mut Of) -> Checked {
        self.counted.tags += 1;
        let tag: Tag = text(key.get(9..).unwrap_or_default(), REPOSITORIES)?
            .parse()
            .map_err(|error| damaged(REPOSITORIES, error))?;
        let record = TagRecord::decode(value)?;
        let digest = record.digest;
        if !self.of_repository(&keys::of_repository_digest(id, OfRepository::Manifest, &digest))? {
            let text = format!("the tag {}:{tag} points at {digest}, which is not there", of.name);
            self.found(FindingKind::TagWithoutManifest, text, Repair::Tag(id, tag.clone()));
        }
        if self.of_repository(&keys::tag_of(id, &digest, &tag))? {
            of.tags += 1;
        } else {
            let text = format!("the manifest {digest} does not know of the tag {}:{tag}", of.name);
            self.found(FindingKind::TagRows, text, Repair::Tag(id, tag));
        }
        Ok(())
    }

    fn rows_of(&self, id: RepositoryId, kind: OfRepository) -> Result<ReadRange, MetadataError> {
        self.snapshot.of_repository(id, kind, None)
    }

    fn surplus_parents(&mut self, id: RepositoryId, of: &Of) -> Checked {
        for reference in self.snapshot.references(id)? {
            self.row()?;
            let Some(reference) = self.read(&id.0.to_be_bytes(), reference)? else { continue };
            let (child, parent, kind) = (reference.target, reference.parent, reference.kind);
            let in_repository = keys::of_repository_digest(id, OfRepository::Manifest, &parent);
            let key = keys::of_repository_digest(id, OfRepository::Edges, &parent);
            let Some(edges) = self.read(&key, self.snapshot.edges(id, &parent))? else { continue };
            if !self.of_repository(&in_repository)? || !edges.contains(&(kind, child)) {
                let text = format!("in {}, {child} seems to be needed by {parent}, and is not", of.name);
                self.found(FindingKind::ReferenceRows, text, Repair::Parent(id, child, parent, kind));
            }
        }
        Ok(())
    }

    fn surplus_referrers(&mut self, id: RepositoryId, of: &Of) -> Checked {
        for row in self.rows_of(id, OfRepository::Referrer)? {
            self.row()?;
            let (key, _) = row?;
            let digests = digest_at(key.value(), 9, REPOSITORIES)
                .and_then(|(subject, rest)| Ok((subject, digest_at(rest, 0, REPOSITORIES)?.0)));
            let Some((subject, digest)) = self.read(key.value(), digests)? else { continue };
            let key = keys::of_repository_digest(id, OfRepository::Manifest, &digest);
            let Some(record) = self.read(&key, self.snapshot.manifest(id, &digest))? else { continue };
            if record.is_none_or(|record| record.subject != Some(subject)) {
                let text = format!("in {}, {digest} seems to be about {subject}, and is not", of.name);
                self.found(FindingKind::ReferrerRows, text, Repair::Referrer(id, subject, digest));
            }
        }
        Ok(())
    }

    fn surplus_tags_of(&mut self, id: RepositoryId, of: &Of) -> Checked {
        for tag in self.snapshot.tags_by_digest(id)? {
            self.row()?;
            let Some((digest, tag)) = self.read(&id.0.to_be_bytes(), tag)? else { continue };
            let record = self.snapshot.tag(id, &tag);
            let Some(record) = self.read(&keys::tag(id, &tag), record)? else { continue };
            if record.is_none_or(|record| record.digest != digest) {
                let text = format!("{digest} seems to have the tag {}:{tag}, and has not", of.name);
                self.found(FindingKind::TagRows, text, Repair::TagOf(id, digest, tag));
            }
        }
        Ok(())
    }

    /// Looks at what is known of the digests, and at the contents, both of which are in the order of the digests.
    fn digests(&mut self, reversed: Reversed) -> Checked {
        let mut contents = Contents::new(self.snapshot)?;
        let (mut links, mut manifests) = (0, 0);
        let mut holders: Option<Holders> = None;
        for row in read_prefix(self.snapshot.tables().digests()?, &[], None)? {
            self.row()?;
            let (key, value) = row?;
            let read = digest_at(key.value(), 0, DIGESTS);
            let Some((digest, kind)) = self.read(key.value(), read)? else { continue };
            if holders.as_ref().is_none_or(|holders| holders.digest != digest) {
                self.count(holders.replace(Holders { digest, size: None, namespaces: Vec::new() }))?;
            }
            if let Some(holders) = &mut holders {
                holders.add(kind, value.value());
            }
            match kind.first() {
                Some(b'b') => {
                    let read = BlobRecord::decode(value.value());
                    if let Some(record) = self.read(key.value(), read)? {
                        self.stored(&digest, &record, &mut contents)?;
                    }
                }
                Some(b'l') => links += 1,
                Some(b'm') => manifests += 1,
                _ => drop(self.read::<()>(key.value(), Err(damaged(DIGESTS, "a key of an unknown kind")))?),
            }
        }
        self.count(holders)?;
        while let Some((digest, _)) = contents.take_before(None)? {
            self.surplus_content(digest);
        }
        for (key, error) in contents.0.into_iter().flat_map(|rows| rows.unreadable) {
            self.read::<()>(&key, Err(error))?;
        }
        if links != reversed.links || manifests != reversed.manifests {
            self.surplus_reverse()?;
        }
        Ok(())
    }

    /// Counts content with the namespaces that have it.
    fn count(&mut self, holders: Option<Holders>) -> Checked {
        let Some(Holders { digest, size, namespaces }) = holders else { return Ok(()) };
        let size = match size {
            Some(size) => size,
            None if namespaces.is_empty() => return Ok(()),
            None => {
                let damage = self.read(digest.as_key(), self.snapshot.damage(&digest))?.flatten();
                damage.map_or(0, |damage| damage.content.size)
            }
        };
        for id in namespaces {
            let usage = self.namespaces.entry(id).or_default();
            usage.contents += 1;
            usage.bytes += size;
        }
        Ok(())
    }

    fn namespaces(&mut self) -> Checked {
        let prefix = keys::NAMESPACES;
        let mut said = BTreeMap::new();
        for row in read_prefix(self.snapshot.tables().state()?, prefix, None)? {
            self.row()?;
            let (key, value) = row?;
            let id = key.value().get(prefix.len()..).and_then(|id| id.try_into().ok());
            let id = id.map(u32::from_be_bytes).ok_or_else(|| damaged(STATE, "a number of the wrong length"));
            let read = id.and_then(|id| Ok((NamespaceId(id), NamespaceUsage::decode(value.value())?)));
            said.extend(self.read(key.value(), read)?);
        }
        let counted = std::mem::take(&mut self.namespaces);
        let mut ids: Vec<NamespaceId> = said.keys().chain(counted.keys()).copied().collect();
        ids.sort_unstable();
        ids.dedup();
        for id in ids {
            let of = |usages: &BTreeMap<_, _>| usages.get(&id).copied().unwrap_or_default();
            let (said, counted): (NamespaceUsage, NamespaceUsage) = (of(&said), of(&counted));
            if said != counted {
                let text = format!(
                    "the counters of namespace {} say {said:?}, and counting gives {counted:?}",
                    id.0
                );
                self.found(FindingKind::Counters, text, Repair::Namespace(id, said, counted));
            }
        }
        Ok(())
    }

    fn stored(&mut self, digest: &Digest, record: &BlobRecord, contents: &mut Contents) -> Checked {
        self.counted.blobs += 1;
        self.counted.bytes += record.size;
        while let Some((surplus, _)) = contents.take_before(Some(digest))? {
            self.surplus_content(surplus);
        }
        let length = contents.take(digest)?;
        match (record.location, length) {
            (BlobLocation::Inline, Some(length)) if length == record.size => {}
            (BlobLocation::Inline, _) => {
                let text = match length {
                    Some(length) => format!("{digest} has {} bytes, and {length} are stored", record.size),
                    None => format!("the content of {digest} is missing in the metadata"),
                };
                self.found(FindingKind::InlineContent, text, Repair::Content(*digest));
            }
            (BlobLocation::File(_), Some(_)) => self.surplus_content(*digest),
            (BlobLocation::File(_), None) => {}
        }
        Ok(())
    }

    fn surplus_content(&mut self, digest: Digest) {
        let text = format!("there is content of {digest} in the metadata that nothing names");
        self.found(FindingKind::InlineContent, text, Repair::Content(digest));
    }

    fn surplus_reverse(&mut self) -> Checked {
        for row in read_prefix(self.snapshot.tables().digests()?, &[], None)? {
            self.row()?;
            let (key, _) = row?;
            let read =
                digest_at(key.value(), 0, DIGESTS).and_then(|(digest, rest)| match rest.split_first() {
                    Some((kind @ (b'l' | b'm'), id)) => {
                        Ok(Some((digest, *kind == b'l', RepositoryId(number(id, DIGESTS)?))))
                    }
                    _ => Ok(None),
                });
            let Some(Some((digest, is_link, id))) = self.read(key.value(), read)? else { continue };
            let kind = if is_link { OfRepository::Link } else { OfRepository::Manifest };
            if self.of_repository(&keys::of_repository_digest(id, kind, &digest))? {
                continue;
            }
            let text = format!("{digest} seems to be in repository {}, and is not", id.0);
            if is_link {
                self.found(FindingKind::LinkRows, text, Repair::Link(id, digest));
            } else {
                self.found(FindingKind::ManifestRows, text, Repair::Manifest(id, digest));
            }
        }
        Ok(())
    }

    fn damaged(&mut self) -> Checked {
        for row in read_prefix(self.snapshot.tables().damaged()?, &[], None)? {
            self.row()?;
            let (key, value) = row?;
            let read = digest_at(key.value(), 0, DAMAGED)
                .and_then(|(digest, _)| DamageRecord::decode(value.value()).map(|_| digest));
            self.counted.damaged += 1;
            let Some(digest) = self.read(key.value(), read)? else { continue };
            if self.of_digest(&keys::of_digest(&digest, OfDigest::Blob))? {
                let text = format!("{digest} counts as damaged and as whole");
                self.found(FindingKind::DamageRows, text, Repair::Content(digest));
            }
        }
        Ok(())
    }

    fn uploads(&mut self) -> Checked {
        for row in read_prefix(self.snapshot.tables().uploads()?, &[], None)? {
            self.row()?;
            let (key, value) = row?;
            self.counted.uploads += 1;
            let read = UploadRow::decode(value.value()).and_then(UploadRecord::try_from);
            let read = if key.value().len() == 16 {
                read
            } else {
                Err(damaged(UPLOADS, "an id of the wrong length"))
            };
            self.read(key.value(), read)?;
        }
        Ok(())
    }

    fn tag_changes(&mut self) -> Checked {
        let (trimmed, last) = (self.snapshot.tag_changes_kept_after(), self.snapshot.sequence());
        // What the tags point at by the changes so far.
        let mut tags = HashMap::new();
        let mut wrong = None;
        for row in read_prefix(self.snapshot.tables().tag_changes()?, &[], None)? {
            self.row()?;
            let (key, value) = row?;
            let read = number(key.value(), TAG_CHANGES)
                .and_then(|sequence| TagChangeRow::decode(value.value())?.with_sequence(sequence));
            let Some(change) = self.read(key.value(), read)? else {
                // What goes on from it seems not to.
                return Ok(());
            };
            let sequence = change.sequence;
            if sequence <= trimmed || sequence > last || change.created > sequence {
                wrong.get_or_insert(format!("change {sequence} of the tags is out of its order"));
            }
            let before = tags.insert((change.repository, change.tag), change.digest);
            if before.is_some_and(|before| before != change.previous) {
                wrong.get_or_insert(format!("change {sequence} of a tag does not go on from the one before"));
            }
        }
        for ((repository, tag), digest) in tags {
            let id = self.read(repository.as_str().as_bytes(), self.snapshot.repository(&repository))?;
            let Some(id) = id else { continue };
            let found = match id {
                Some(id) => self.read(&keys::tag(id, &tag), self.snapshot.tag(id, &tag))?,
                None => Some(None),
            };
            let Some(found) = found else { continue };
            if found.map(|record| record.digest) != digest {
                wrong.get_or_insert(format!("{repository}:{tag} is not what its last change says"));
            }
        }
        if let Some(text) = wrong {
            self.found(FindingKind::TagChanges, text, Repair::TagChanges);
        }
        Ok(())
    }
}

/// What a repository knows of a manifest, out of what it says.
fn record_of(known: &ManifestRecord, manifest: &Manifest, size: u64) -> ManifestRecord {
    ManifestRecord {
        media_type: manifest.media_type.clone(),
        size,
        pushed_at: known.pushed_at,
        artifact_type: manifest.artifact_type.clone(),
        subject: manifest.subject.as_ref().map(|subject| subject.digest),
        config: manifest.config.as_ref().map(|config| config.digest),
    }
}

/// Who has some content.
struct Holders {
    digest: Digest,
    size: Option<u64>,
    /// Each once.
    namespaces: Vec<NamespaceId>,
}

impl Holders {
    /// Takes a row of the digest; what cannot be read is found elsewhere.
    fn add(&mut self, kind: &[u8], value: &[u8]) {
        match kind.split_first() {
            Some((b'b', [])) => self.size = BlobRecord::decode(value).ok().map(|record| record.size),
            Some((b'l' | b'm', id)) => {
                if let Ok(id) = number(id, DIGESTS) {
                    let id = RepositoryId(id).namespace();
                    if !self.namespaces.contains(&id) {
                        self.namespaces.push(id);
                    }
                }
            }
            _ => {}
        }
    }
}

/// The lengths of the contents, in the order of the digests: of the small ones and the large ones, side by side.
struct Contents([ContentRows; 2]);

struct ContentRows {
    rows: ReadRange,
    /// What comes before the digest in the keys.
    prefix: &'static [u8],
    next: Option<(Digest, u64)>,
    /// Keys that are no digests.
    unreadable: Vec<(Vec<u8>, MetadataError)>,
}

impl Contents {
    fn new(snapshot: &Snapshot) -> Result<Self, MetadataError> {
        let table = snapshot.tables().contents()?;
        let small = ContentRows::new(table.range(..keys::LARGE)?, &[])?;
        let large = ContentRows::new(table.range(keys::LARGE..)?, keys::LARGE)?;
        Ok(Self([small, large]))
    }

    fn first(&mut self) -> &mut ContentRows {
        let [small, large] = &mut self.0;
        match (&small.next, &large.next) {
            (Some((small, _)), Some((large, _))) if large < small => {}
            (Some(_), _) => return small,
            (None, _) => {}
        }
        large
    }

    /// The next one, where it comes before this digest.
    fn take_before(&mut self, end: Option<&Digest>) -> Result<Option<(Digest, u64)>, MetadataError> {
        let first = self.first();
        match (&first.next, end) {
            (Some((digest, _)), Some(end)) if digest >= end => Ok(None),
            _ => first.advance(),
        }
    }

    /// The length of this one, where it is the next.
    fn take(&mut self, digest: &Digest) -> Result<Option<u64>, MetadataError> {
        let first = self.first();
        match &first.next {
            Some((next, _)) if next == digest => Ok(first.advance()?.map(|(_, length)| length)),
            _ => Ok(None),
        }
    }
}

impl ContentRows {
    fn new(rows: ReadRange, prefix: &'static [u8]) -> Result<Self, MetadataError> {
        let mut rows = Self { rows, prefix, next: None, unreadable: Vec::new() };
        rows.advance()?;
        Ok(rows)
    }

    fn advance(&mut self) -> Result<Option<(Digest, u64)>, MetadataError> {
        for row in self.rows.by_ref() {
            let (key, value) = row?;
            let digest = key.value().strip_prefix(self.prefix).unwrap_or_default();
            match digest_at(digest, 0, CONTENTS) {
                Ok((digest, _)) => return Ok(self.next.replace((digest, value.value().len() as u64))),
                Err(error) => self.unreadable.push((key.value().to_vec(), error)),
            }
        }
        Ok(self.next.take())
    }
}
