use super::super::keys;
use super::super::records::{RepositoryId, TagRecord, Timestamp};
use super::super::rows::{Row as _, TagChangeRow};
use super::super::tables::owned_row;
use super::super::{MetadataError, PreconditionFailed};
use super::{Transaction, lower};
use crate::oci::{Digest, RepositoryName, Tag};

/// What a tag must be for a request to be done (RFC 9110, section 13.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TagCondition {
    /// Whatever it is.
    #[default]
    Any,
    /// It does not exist: `If-None-Match: *`.
    Absent,
    /// It exists: `If-Match: *`.
    Exists,
    /// It points at one of these: `If-Match`.
    OneOf(Vec<Digest>),
    /// It does not exist, or points at none of these: `If-None-Match`.
    NoneOf(Vec<Digest>),
}

impl TagCondition {
    pub(super) fn check(&self, current: Option<Digest>) -> Result<(), PreconditionFailed> {
        let holds = match self {
            Self::Any => true,
            Self::Absent => current.is_none(),
            Self::Exists => current.is_some(),
            Self::OneOf(digests) => current.is_some_and(|current| digests.contains(&current)),
            Self::NoneOf(digests) => current.is_none_or(|current| !digests.contains(&current)),
        };
        if holds { Ok(()) } else { Err(PreconditionFailed { current }) }
    }
}

impl Transaction<'_> {
    /// A tag.
    pub fn tag(&self, repository: RepositoryId, tag: &Tag) -> Result<Option<TagRecord>, MetadataError> {
        owned_row(&*self.tables.repositories, &keys::tag(repository, tag))
    }

    /// Deletes a tag, and gives what it pointed at; `None` where it does not exist, and the condition allows that.
    /// The manifest stays.
    pub fn delete_tag(
        &mut self,
        repository: &RepositoryName,
        tag: &Tag,
        condition: &TagCondition,
        now: Timestamp,
    ) -> Result<Result<Option<Digest>, PreconditionFailed>, MetadataError> {
        let id = self.repository(repository)?;
        let record = id.map(|id| self.tag(id, tag)).transpose()?.flatten();
        if let Err(refusal) = condition.check(record.map(|record| record.digest)) {
            return Ok(Err(refusal));
        }
        let (Some(id), Some(record)) = (id, record) else { return Ok(Ok(None)) };
        self.drop_tag(id, repository, tag, &record, now)?;
        Ok(Ok(Some(record.digest)))
    }

    /// The first of `tags` that points at another manifest than `digest` now, and that manifest.
    pub fn moved_tag(
        &self,
        repository: &RepositoryName,
        tags: &[Tag],
        digest: &Digest,
    ) -> Result<Option<(Tag, Digest)>, MetadataError> {
        let Some(id) = self.repository(repository)? else { return Ok(None) };
        for tag in tags {
            if let Some(record) = self.tag(id, tag)?.filter(|record| record.digest != *digest) {
                return Ok(Some((tag.clone(), record.digest)));
            }
        }
        Ok(None)
    }

    /// Deletes a tag, which is as `record` says.
    pub(super) fn drop_tag(
        &mut self,
        id: RepositoryId,
        repository: &RepositoryName,
        tag: &Tag,
        record: &TagRecord,
        now: Timestamp,
    ) -> Result<(), MetadataError> {
        let sequence = self.change();
        self.tables.repositories.remove(keys::tag(id, tag).as_slice())?;
        self.tables.repositories.remove(keys::tag_of(id, &record.digest, tag).as_slice())?;
        lower(&mut self.state.statistics.tags, 1);
        self.record_tag_change(
            sequence,
            &TagChangeRow {
                repository: repository.as_str(),
                tag: tag.as_str(),
                digest: None,
                previous: Some(record.digest),
                at: now,
                created: (record.created, record.created_at),
            },
        )
    }

    /// Makes a tag point at `digest`; whether it did not before.
    pub(super) fn set_tag(
        &mut self,
        id: RepositoryId,
        repository: &RepositoryName,
        tag: &Tag,
        digest: &Digest,
        now: Timestamp,
    ) -> Result<bool, MetadataError> {
        let before = self.tag(id, tag)?;
        let sequence = self.change();
        let record = match before {
            // Pushed again: newer for whoever keeps the newest tags, and no change for whoever watches them.
            Some(before) if before.digest == *digest => TagRecord { updated_at: now, ..before },
            Some(before) => TagRecord { digest: *digest, updated_at: now, sequence, ..before },
            None => {
                TagRecord { digest: *digest, created_at: now, updated_at: now, sequence, created: sequence }
            }
        };
        self.tables.repositories.insert(keys::tag(id, tag).as_slice(), record.encode()?.as_slice())?;
        let previous = before.map(|before| before.digest);
        if previous == Some(*digest) {
            return Ok(false);
        }
        match previous {
            Some(previous) => {
                self.tables.repositories.remove(keys::tag_of(id, &previous, tag).as_slice())?;
            }
            None => self.state.statistics.tags += 1,
        }
        self.tables.repositories.insert(keys::tag_of(id, digest, tag).as_slice(), &[][..])?;
        self.record_tag_change(
            sequence,
            &TagChangeRow {
                repository: repository.as_str(),
                tag: tag.as_str(),
                digest: Some(*digest),
                previous,
                at: now,
                created: (record.created, record.created_at),
            },
        )?;
        Ok(true)
    }
}
