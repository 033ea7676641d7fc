//! Putting right what was found wrong. What is to be done follows from what is there now, not from what was found.

use super::super::MetadataError;
use super::super::finding::Repair;
use super::super::keys::{self, OfDigest, OfRepository};
use super::super::records::{
    BlobLocation, BlobRecord, Damage, EdgeKind, ManifestRecord, NamespaceId, NamespaceUsage, RepositoryId,
    Statistics, Timestamp, UploadId, UploadRecord,
};
use super::super::rows::{NAMES, REPOSITORIES, ReferrerRow, RepositoryRow, Row as _, UploadRow, damaged};
use super::super::snapshot::{digest_at, repository_id};
use super::super::tables::{content, has, owned_row, row, scan_prefix};
use super::{Transaction, lower};
use crate::oci::{ContentHasher, Digest, Manifest, RepositoryName, Tag};

impl Transaction<'_> {
    /// Puts something right; whether it still was wrong.
    pub(crate) fn repair(&mut self, repair: &Repair, now: Timestamp) -> Result<bool, MetadataError> {
        let changes = self.changes;
        match repair {
            Repair::Name(name) => self.repair_name(name, now)?,
            Repair::Repository(id) => self.repair_repository(*id)?,
            Repair::Orphans(id) => self.remove_orphans(*id)?,
            Repair::Link(id, digest) => self.repair_link(*id, digest)?,
            Repair::Manifest(id, digest) => self.repair_manifest(*id, digest)?,
            Repair::Parent(id, child, parent, kind) => self.repair_parent(*id, child, parent, *kind)?,
            Repair::Referrer(id, subject, digest) => self.repair_referrer(*id, subject, digest)?,
            Repair::Tag(id, tag) => self.repair_tag(*id, tag, now)?,
            Repair::TagOf(id, digest, tag) => self.repair_tag_of(*id, digest, tag)?,
            Repair::Content(digest) => self.repair_content(digest, now)?,
            Repair::File(digest, record, damage) => drop(self.condemn(digest, record, *damage, now)?),
            Repair::Upload(id, record) => self.repair_upload(*id, record)?,
            Repair::Counters(said, counted) => self.repair_counters(said, counted),
            Repair::Namespace(id, said, counted) => self.repair_namespace(*id, said, counted)?,
            Repair::TagChanges => self.forget_tag_changes()?,
        }
        Ok(self.changes != changes)
    }

    fn repair_name(&mut self, name: &str, now: Timestamp) -> Result<(), MetadataError> {
        let Some(id) = row(&*self.tables.names, name.as_bytes(), repository_id)? else { return Ok(()) };
        match self.identity(id)? {
            Some(found) if found == name => {}
            // The repository knows what it is called, and has a name of its own or gets one.
            Some(_) => {
                self.change();
                self.tables.names.remove(name.as_bytes())?;
            }
            None => {
                let identity = RepositoryRow { name, created_at: now }.encode()?;
                self.change();
                let key = keys::of_repository(id, OfRepository::Identity);
                self.tables.repositories.insert(key.as_slice(), identity.as_slice())?;
                self.state.statistics.repositories += 1;
                self.count(id.namespace(), |usage| usage.repositories += 1)?;
                self.state.repository = self.state.repository.max(id.number());
                self.state.namespace = self.state.namespace.max(id.namespace().0);
            }
        }
        Ok(())
    }

    fn identity(&self, id: RepositoryId) -> Result<Option<String>, MetadataError> {
        let key = keys::of_repository(id, OfRepository::Identity);
        row(&*self.tables.repositories, &key, |value| Ok(RepositoryRow::decode(value)?.name.to_owned()))
    }

    fn repair_repository(&mut self, id: RepositoryId) -> Result<(), MetadataError> {
        let Some(name) = self.identity(id)? else { return Ok(()) };
        match row(&*self.tables.names, name.as_bytes(), repository_id)? {
            Some(found) if found == id => Ok(()),
            // Another one has the name, and is the one that clients have been seeing.
            Some(other) if self.identity(other)?.as_deref() == Some(&name) => {
                self.change();
                self.tables
                    .repositories
                    .remove(keys::of_repository(id, OfRepository::Identity).as_slice())?;
                lower(&mut self.state.statistics.repositories, 1);
                self.count(id.namespace(), |usage| {
                    usage.repositories = usage.repositories.saturating_sub(1);
                })?;
                let counted = self.remove_orphans_counted(id)?;
                let counters = &mut self.state.statistics;
                lower(&mut counters.links, counted.links);
                lower(&mut counters.manifests, counted.manifests);
                lower(&mut counters.tags, counted.tags);
                Ok(())
            }
            _ => {
                self.change();
                self.tables.names.insert(name.as_bytes(), id.0.to_be_bytes().as_slice())?;
                Ok(())
            }
        }
    }

    /// Removes the rows of a repository that is not there. They do not count.
    fn remove_orphans(&mut self, id: RepositoryId) -> Result<(), MetadataError> {
        if self.identity(id)?.is_none() {
            self.remove_orphans_counted(id)?;
        }
        Ok(())
    }

    fn remove_orphans_counted(&mut self, id: RepositoryId) -> Result<Statistics, MetadataError> {
        let mut counted = Statistics::default();
        let mut keys = Vec::new();
        for row in scan_prefix(&*self.tables.repositories, &id.0.to_be_bytes())? {
            keys.push(row?.0.value().to_vec());
        }
        for key in keys {
            self.change();
            self.tables.repositories.remove(&key)?;
            let reverse = match key.get(8) {
                Some(b'l') => OfDigest::LinkedIn,
                Some(b'm') => OfDigest::ManifestIn,
                Some(b't') => {
                    counted.tags += 1;
                    continue;
                }
                _ => continue,
            };
            match reverse {
                OfDigest::LinkedIn => counted.links += 1,
                _ => counted.manifests += 1,
            }
            if let Ok((digest, _)) = digest_at(&key, 9, REPOSITORIES) {
                self.remove_holder(id, reverse, &digest)?;
            }
        }
        Ok(counted)
    }

    fn repair_link(&mut self, id: RepositoryId, digest: &Digest) -> Result<(), MetadataError> {
        let is_linked = self.is_linked(id, digest)?;
        self.set_holder(id, OfDigest::LinkedIn, digest, is_linked)
    }

    fn set_holder(
        &mut self,
        id: RepositoryId,
        kind: OfDigest,
        digest: &Digest,
        wanted: bool,
    ) -> Result<(), MetadataError> {
        if has(&*self.tables.digests, &keys::of_digest_in(digest, kind, id))? != wanted {
            self.change();
            match wanted {
                true => self.add_holder(id, kind, digest)?,
                false => self.remove_holder(id, kind, digest)?,
            }
        }
        Ok(())
    }

    fn repair_manifest(&mut self, id: RepositoryId, digest: &Digest) -> Result<(), MetadataError> {
        let key = keys::of_repository_digest(id, OfRepository::Manifest, digest);
        let record = owned_row::<ManifestRecord>(&*self.tables.repositories, &key)?;
        self.set_holder(id, OfDigest::ManifestIn, digest, record.is_some())?;
        let edges = self.edges(id, digest)?;
        self.change();
        // What is written below is written again as a whole.
        self.remove_edges(id, digest, &edges)?;
        let Some(record) = record else { return Ok(()) };
        if let Some((manifest, size)) = self.said_by(digest, &record)? {
            return self.write_manifest(id, digest, &manifest, size, record.pushed_at);
        }
        if !edges.0.is_empty() {
            self.insert_edges(id, digest, &edges)?;
        }
        if let Some(subject) = record.subject {
            let key = keys::referrer(id, &subject, digest);
            let known = owned_row::<ReferrerRow>(&*self.tables.repositories, &key)?;
            let row = ReferrerRow {
                media_type: record.media_type,
                size: record.size,
                artifact_type: record.artifact_type,
                annotations: known.and_then(|known| known.annotations),
            };
            self.tables.repositories.insert(key.as_slice(), row.encode()?.as_slice())?;
        }
        Ok(())
    }

    /// What a manifest says, and its length, where it is to be had and is what it was.
    fn said_by(
        &self,
        digest: &Digest,
        record: &ManifestRecord,
    ) -> Result<Option<(Manifest, u64)>, MetadataError> {
        let said = content(&*self.tables.contents, digest, record.size, |bytes| {
            if ContentHasher::digest(digest.algorithm(), bytes) != *digest {
                return None;
            }
            let manifest = Manifest::parse(Some(&record.media_type), bytes).ok()?;
            Some((manifest, bytes.len() as u64))
        });
        said.map(Option::flatten)
    }

    fn repair_parent(
        &mut self,
        id: RepositoryId,
        child: &Digest,
        parent: &Digest,
        kind: EdgeKind,
    ) -> Result<(), MetadataError> {
        if !self.has_manifest(id, parent)? || !self.edges(id, parent)?.0.contains(&(kind, *child)) {
            self.change();
            self.tables.repositories.remove(keys::parent(id, child, parent, kind).as_slice())?;
        }
        Ok(())
    }

    fn repair_referrer(
        &mut self,
        id: RepositoryId,
        subject: &Digest,
        digest: &Digest,
    ) -> Result<(), MetadataError> {
        let key = keys::of_repository_digest(id, OfRepository::Manifest, digest);
        let record = owned_row::<ManifestRecord>(&*self.tables.repositories, &key)?;
        if record.is_none_or(|record| record.subject != Some(*subject)) {
            self.change();
            self.tables.repositories.remove(keys::referrer(id, subject, digest).as_slice())?;
        }
        Ok(())
    }

    fn repair_tag(&mut self, id: RepositoryId, tag: &Tag, now: Timestamp) -> Result<(), MetadataError> {
        let Some(record) = self.tag(id, tag)? else { return Ok(()) };
        if self.has_manifest(id, &record.digest)? {
            self.change();
            self.tables.repositories.insert(keys::tag_of(id, &record.digest, tag).as_slice(), &[])?;
            return Ok(());
        }
        let Some(name) = self.identity(id)? else { return Ok(()) };
        let name: RepositoryName = name.parse().map_err(|error| damaged(NAMES, error))?;
        self.drop_tag(id, &name, tag, &record, now)
    }

    fn repair_tag_of(&mut self, id: RepositoryId, digest: &Digest, tag: &Tag) -> Result<(), MetadataError> {
        if self.tag(id, tag)?.is_none_or(|record| record.digest != *digest) {
            self.change();
            self.tables.repositories.remove(keys::tag_of(id, digest, tag).as_slice())?;
        }
        Ok(())
    }

    fn repair_content(&mut self, digest: &Digest, now: Timestamp) -> Result<(), MetadataError> {
        let stored = self.stored_blob(digest)?;
        let size = stored.map_or(0, |stored| stored.size);
        self.keep_one_content(digest, size)?;
        let inline = content(&*self.tables.contents, digest, size, |bytes| {
            let is_whole = ContentHasher::digest(digest.algorithm(), bytes) == *digest;
            (bytes.len() as u64, is_whole)
        })?;
        match (stored, inline) {
            (Some(BlobRecord { location: BlobLocation::Inline, size, .. }), Some((length, true)))
                if length == size =>
            {
                self.heal_if_damaged(digest)
            }
            (Some(record @ BlobRecord { location: BlobLocation::Inline, .. }), inline) => {
                let damage = match inline {
                    None => Damage::Missing,
                    Some((length, _)) if length != record.size => Damage::Length,
                    Some(_) => Damage::Content,
                };
                self.condemn(digest, &record, damage, now).map(drop)
            }
            (Some(_), Some(_)) => {
                self.change();
                self.tables.contents.remove_content(digest, size)?;
                self.heal_if_damaged(digest)
            }
            (Some(_), None) => self.heal_if_damaged(digest),
            (None, Some((size, true))) => {
                let row = BlobRecord { size, location: BlobLocation::Inline, stored_at: now }.encode()?;
                self.change();
                let is_damaged = self.damage(digest)?.is_some();
                self.tables.digests.insert(&keys::of_digest(digest, OfDigest::Blob), row.as_slice())?;
                match is_damaged {
                    true => self.heal(digest)?,
                    false => self.recount(digest, 0)?,
                }
                self.state.statistics.blobs += 1;
                self.state.statistics.bytes += size;
                Ok(())
            }
            (None, inline) => {
                if inline.is_some() {
                    self.change();
                    self.tables.contents.remove_content(digest, size)?;
                }
                self.condemn_unknown(digest, now).map(drop)
            }
        }
    }

    /// Removes one of two rows with the same inline content: the one that is wrong, or else the one that is not where the
    /// size has it.
    fn keep_one_content(&mut self, digest: &Digest, size: u64) -> Result<(), MetadataError> {
        let is_large = keys::is_large(size);
        let rows = [is_large, !is_large].map(|is_large| keys::content(digest, is_large));
        let is_whole = |key: &[u8]| {
            let is_whole = |bytes: &[u8]| ContentHasher::digest(digest.algorithm(), bytes) == *digest;
            row(&*self.tables.contents, key, |bytes| Ok(is_whole(bytes)))
        };
        if let (Some(is_whole), Some(_)) = (is_whole(&rows[0])?, is_whole(&rows[1])?) {
            self.change();
            self.tables.contents.remove(&rows[usize::from(is_whole)])?;
        }
        Ok(())
    }

    fn heal_if_damaged(&mut self, digest: &Digest) -> Result<(), MetadataError> {
        if has(&*self.tables.damaged, digest.as_key())? {
            self.change();
            self.heal(digest)?;
        }
        Ok(())
    }

    fn repair_upload(&mut self, id: UploadId, found: &UploadRecord) -> Result<(), MetadataError> {
        let known =
            row(&*self.tables.uploads, &id.0, |value| UploadRecord::try_from(UploadRow::decode(value)?))?;
        if known.as_ref() == Some(found) {
            self.remove_upload(id)?;
        }
        Ok(())
    }

    /// Both were of one state, and what was counted since was counted rightly: so the difference is what is wrong.
    fn repair_counters(&mut self, said: &Statistics, counted: &Statistics) {
        self.change();
        let now = &mut self.state.statistics;
        let fields = |of: &Statistics| {
            [of.repositories, of.tags, of.manifests, of.links, of.blobs, of.bytes, of.uploads, of.damaged]
        };
        let kept = [
            &mut now.repositories,
            &mut now.tags,
            &mut now.manifests,
            &mut now.links,
            &mut now.blobs,
            &mut now.bytes,
            &mut now.uploads,
            &mut now.damaged,
        ];
        for ((kept, said), counted) in kept.into_iter().zip(fields(said)).zip(fields(counted)) {
            *kept = kept.wrapping_add(counted.wrapping_sub(said));
        }
    }

    /// The difference, as for the counters of all.
    fn repair_namespace(
        &mut self,
        id: NamespaceId,
        said: &NamespaceUsage,
        counted: &NamespaceUsage,
    ) -> Result<(), MetadataError> {
        self.change();
        let mend = |now: &mut u64, said: u64, counted| *now = now.wrapping_add(counted).wrapping_sub(said);
        self.count(id, |usage| {
            mend(&mut usage.repositories, said.repositories, counted.repositories);
            mend(&mut usage.contents, said.contents, counted.contents);
            mend(&mut usage.bytes, said.bytes, counted.bytes);
        })
    }

    /// Whoever goes by the changes has to list the tags again.
    fn forget_tag_changes(&mut self) -> Result<(), MetadataError> {
        self.state.changes_trimmed = self.change();
        while self.tables.tag_changes.pop_first()?.is_some() {}
        Ok(())
    }

    /// Puts a row in place, or removes it, behind the store's back.
    #[cfg(test)]
    pub(crate) fn tamper(
        &mut self,
        table: &str,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<(), MetadataError> {
        self.change();
        let table = match table {
            super::super::rows::DIGESTS => &mut self.tables.digests,
            super::super::rows::NAMES => &mut self.tables.names,
            super::super::rows::CONTENTS => &mut self.tables.contents,
            super::super::rows::TAG_CHANGES => &mut self.tables.tag_changes,
            super::super::rows::UPLOADS => &mut self.tables.uploads,
            super::super::rows::STATE => &mut self.tables.state,
            super::super::rows::COLLECTIONS => &mut self.tables.collections,
            super::super::rows::DAMAGED => &mut self.tables.damaged,
            _ => &mut self.tables.repositories,
        };
        match value {
            Some(value) => table.insert(key, value)?,
            None => table.remove(key)?,
        };
        Ok(())
    }
}
