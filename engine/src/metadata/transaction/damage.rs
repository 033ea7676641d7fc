//! Content that was found damaged: it counts as not there, until it is pushed again.
//!
//! The row of the content gives way to one of its damage, so that whoever looks for the content finds nothing, and storing
//! it again is storing it for the first time. Links, manifests and what they refer to stay as they are. That a digest is
//! linked and has no content is looked at only while there is any damage, so that it costs nothing otherwise.

use super::super::MetadataError;
use super::super::keys::{self, OfDigest};
use super::super::records::{BlobLocation, BlobRecord, Damage, DamageRecord, Timestamp};
use super::super::rows::{Row as _, ScrubRow};
use super::super::tables::{has, owned_row};
use super::{Transaction, lower};
use crate::oci::Digest;

impl Transaction<'_> {
    /// Takes content out of use that is damaged, and still is what it was when that was found; whether it was. Its file
    /// is the caller's to move away, once this is committed.
    pub(crate) fn condemn(
        &mut self,
        digest: &Digest,
        found: &BlobRecord,
        damage: Damage,
        now: Timestamp,
    ) -> Result<bool, MetadataError> {
        if self.stored_blob(digest)?.as_ref() != Some(found) {
            return Ok(false);
        }
        let row = DamageRecord { content: *found, damage, found_at: now }.encode()?;
        self.change();
        self.tables.digests.remove(keys::of_digest(digest, OfDigest::Blob).as_slice())?;
        if found.location == BlobLocation::Inline {
            self.tables.contents.remove_content(digest, found.size)?;
        }
        lower(&mut self.state.statistics.blobs, 1);
        lower(&mut self.state.statistics.bytes, found.size);
        if !self.tables.damaged.insert(digest.as_key(), row.as_slice())? {
            self.state.statistics.damaged += 1;
        }
        Ok(true)
    }

    /// Says that content is missing of which nothing is known but that it is needed; whether it was so.
    pub(crate) fn condemn_unknown(&mut self, digest: &Digest, now: Timestamp) -> Result<bool, MetadataError> {
        if self.stored_blob(digest)?.is_some() || self.damage(digest)?.is_some() || !self.is_used(digest)? {
            return Ok(false);
        }
        let content = BlobRecord { size: 0, location: BlobLocation::Inline, stored_at: now };
        let row = DamageRecord { content, damage: Damage::Missing, found_at: now }.encode()?;
        self.change();
        self.tables.damaged.insert(digest.as_key(), row.as_slice())?;
        self.state.statistics.damaged += 1;
        Ok(true)
    }

    /// Takes a file into use again that was found damaged and is whole now; whether nothing has changed since.
    pub(crate) fn reinstate(&mut self, digest: &Digest, found: &DamageRecord) -> Result<bool, MetadataError> {
        let is_file = matches!(found.content.location, BlobLocation::File(_));
        if !is_file || self.damage(digest)?.as_ref() != Some(found) || self.stored_blob(digest)?.is_some() {
            return Ok(false);
        }
        let row = found.content.encode()?;
        self.change();
        self.tables.digests.insert(keys::of_digest(digest, OfDigest::Blob).as_slice(), row.as_slice())?;
        self.heal(digest)?;
        self.state.statistics.blobs += 1;
        self.state.statistics.bytes += found.content.size;
        Ok(true)
    }

    /// Forgets the damage of content that no repository has any more; whether there was any.
    pub(crate) fn forget_unused_damage(&mut self, digest: &Digest) -> Result<bool, MetadataError> {
        if self.damage(digest)?.is_none() || self.is_used(digest)? {
            return Ok(false);
        }
        self.change();
        self.heal(digest)?;
        Ok(true)
    }

    /// Changes inline content behind the store's back, as a bad disk would; or removes it.
    #[cfg(test)]
    pub(crate) fn spoil_content(
        &mut self,
        digest: &Digest,
        bytes: Option<&[u8]>,
    ) -> Result<(), MetadataError> {
        self.change();
        self.tables.contents.remove_content(digest, 0)?;
        bytes.map_or(Ok(()), |bytes| self.tables.contents.insert_content(digest, bytes))
    }

    /// What a scrub leaves behind of itself.
    pub(crate) fn set_scrub(&mut self, report: &str) -> Result<(), MetadataError> {
        let row = ScrubRow { report }.encode()?;
        self.change();
        self.tables.state.insert(keys::SCRUB, row.as_slice())?;
        Ok(())
    }

    /// What was found of a content's damage.
    pub(super) fn damage(&self, digest: &Digest) -> Result<Option<DamageRecord>, MetadataError> {
        if self.state.statistics.damaged == 0 {
            return Ok(None);
        }
        owned_row(&*self.tables.damaged, digest.as_key())
    }

    /// Whether the content is there of something that is linked.
    pub(super) fn is_whole(&self, digest: &Digest) -> Result<bool, MetadataError> {
        Ok(self.state.statistics.damaged == 0
            || has(&*self.tables.digests, &keys::of_digest(digest, OfDigest::Blob))?)
    }

    /// Content is there again, or not needed any more.
    pub(super) fn heal(&mut self, digest: &Digest) -> Result<(), MetadataError> {
        if let Some(damage) = self.damage(digest)? {
            self.tables.damaged.remove(digest.as_key())?;
            lower(&mut self.state.statistics.damaged, 1);
            self.recount(digest, damage.content.size)?;
        }
        Ok(())
    }
}
