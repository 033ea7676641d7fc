//! What namespaces hold. Counted where a repository comes to have content or has it no more.

use std::collections::BTreeSet;

use super::super::MetadataError;
use super::super::keys::{self, OfDigest};
use super::super::namespaces;
use super::super::quota::{QuotaExceeded, check_quota};
use super::super::records::{NamespaceId, NamespaceUsage, RepositoryId};
use super::super::rows::{DIGESTS, Row as _, STATE, damaged};
use super::super::snapshot::number;
use super::super::tables::{owned_row, scan_prefix};
use super::Transaction;
use crate::oci::{Digest, RepositoryName};

impl Transaction<'_> {
    /// [`Snapshot::check_quota`](super::super::Snapshot::check_quota), before content is stored, linked or mounted in the
    /// same transaction. Without a `quota` everything fits.
    pub fn check_quota(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        size: u64,
        quota: Option<u64>,
    ) -> Result<Result<(), QuotaExceeded>, MetadataError> {
        let Some(quota) = quota else { return Ok(Ok(())) };
        let namespace = self.namespace(repository.namespace())?;
        if let Some(id) = namespace
            && self.is_in_namespace(id, digest)?
        {
            return Ok(Ok(()));
        }
        let usage = namespace.map(|id| self.namespace_usage(id)).transpose()?.unwrap_or_default();
        Ok(check_quota(repository.namespace(), usage.bytes, size, quota))
    }

    /// The namespace of this name, where there is a repository in it.
    fn namespace(&self, name: &str) -> Result<Option<NamespaceId>, MetadataError> {
        namespaces::find(&*self.tables.names, name)
    }

    /// A new id for a repository that is about to be made.
    pub(super) fn new_repository_id(&mut self, name: &RepositoryName) -> Result<RepositoryId, MetadataError> {
        let next = |last: u32| last.checked_add(1).ok_or_else(|| damaged(STATE, "all ids are given out"));
        let repository = next(self.state.repository)?;
        let namespace = match self.namespace(name.namespace())? {
            Some(namespace) => namespace,
            None => NamespaceId(next(self.state.namespace)?),
        };
        self.state.repository = repository;
        self.state.namespace = self.state.namespace.max(namespace.0);
        Ok(RepositoryId::new(namespace, repository))
    }

    /// Says that a repository has the digest, in the way that `kind` says.
    pub(super) fn add_holder(
        &mut self,
        id: RepositoryId,
        kind: OfDigest,
        digest: &Digest,
    ) -> Result<(), MetadataError> {
        if !self.is_in_namespace(id.namespace(), digest)? {
            let size = self.size_of(digest)?;
            self.count(id.namespace(), |usage| {
                usage.contents += 1;
                usage.bytes += size;
            })?;
        }
        self.tables.digests.insert(keys::of_digest_in(digest, kind, id).as_slice(), &[]).map(drop)
    }

    /// Says that a repository has the digest no more in this way, if it did.
    pub(super) fn remove_holder(
        &mut self,
        id: RepositoryId,
        kind: OfDigest,
        digest: &Digest,
    ) -> Result<(), MetadataError> {
        let was_there = self.tables.digests.remove(keys::of_digest_in(digest, kind, id).as_slice())?;
        if was_there && !self.is_in_namespace(id.namespace(), digest)? {
            let size = self.size_of(digest)?;
            self.uncount(id.namespace(), size)?;
        }
        Ok(())
    }

    /// Says that nobody has the digest any more, where all who did are among `ids` ([`NOWHERE`](super::NOWHERE) may be, too). Asks nobody
    /// whether somebody else does, which is most of what [`Transaction::remove_holder`] costs.
    pub(super) fn remove_holders(
        &mut self,
        ids: &[RepositoryId],
        kind: OfDigest,
        digest: &Digest,
    ) -> Result<(), MetadataError> {
        let size = self.size_of(digest)?;
        let mut namespaces = BTreeSet::new();
        for id in ids {
            if self.tables.digests.remove(keys::of_digest_in(digest, kind, *id).as_slice())? {
                namespaces.insert(id.namespace());
            }
        }
        namespaces.into_iter().try_for_each(|namespace| self.uncount(namespace, size))
    }

    /// Counts content no more that a namespace had.
    fn uncount(&mut self, namespace: NamespaceId, size: u64) -> Result<(), MetadataError> {
        self.count(namespace, |usage| {
            // Where rows were lost, what was counted may be less.
            usage.contents = usage.contents.saturating_sub(1);
            usage.bytes = usage.bytes.saturating_sub(size);
        })
    }

    /// Counts anew what was known to have `before` bytes, and has another length now.
    pub(super) fn recount(&mut self, digest: &Digest, before: u64) -> Result<(), MetadataError> {
        let after = self.size_of(digest)?;
        if before == after {
            return Ok(());
        }
        let mut namespaces = Vec::new();
        for kind in [OfDigest::LinkedIn, OfDigest::ManifestIn] {
            let prefix = keys::of_digest(digest, kind);
            for row in scan_prefix(&*self.tables.digests, &prefix)? {
                let (key, _) = row?;
                let id = RepositoryId(number(key.value().get(prefix.len()..).unwrap_or_default(), DIGESTS)?);
                if !namespaces.contains(&id.namespace()) {
                    namespaces.push(id.namespace());
                }
            }
        }
        for namespace in namespaces {
            self.count(namespace, |usage| {
                usage.bytes = usage.bytes.saturating_add(after).saturating_sub(before);
            })?;
        }
        Ok(())
    }

    /// Length in bytes of content that is stored, or was until it was found damaged.
    pub(super) fn size_of(&self, digest: &Digest) -> Result<u64, MetadataError> {
        if let Some(record) = self.stored_blob(digest)? {
            return Ok(record.size);
        }
        Ok(self.damage(digest)?.map_or(0, |damage| damage.content.size))
    }

    /// Whether a repository of the namespace has the digest, as a blob or as a manifest.
    fn is_in_namespace(&self, namespace: NamespaceId, digest: &Digest) -> Result<bool, MetadataError> {
        namespaces::has(&*self.tables.digests, namespace, digest)
    }

    /// Changes what is known of a namespace; it is written when the transaction ends.
    pub(super) fn count(
        &mut self,
        id: NamespaceId,
        change: impl FnOnce(&mut NamespaceUsage),
    ) -> Result<(), MetadataError> {
        let mut usage = self.namespace_usage(id)?;
        change(&mut usage);
        self.namespaces.insert(id, usage);
        Ok(())
    }

    fn namespace_usage(&self, id: NamespaceId) -> Result<NamespaceUsage, MetadataError> {
        if let Some(usage) = self.namespaces.get(&id) {
            return Ok(*usage);
        }
        Ok(owned_row(&*self.tables.state, &keys::namespace(id))?.unwrap_or_default())
    }

    /// Writes what was counted.
    pub(super) fn write_namespaces(&mut self) -> Result<(), MetadataError> {
        for (id, usage) in std::mem::take(&mut self.namespaces) {
            let key = keys::namespace(id);
            match usage == NamespaceUsage::default() {
                true => self.tables.state.remove(&key)?,
                false => self.tables.state.insert(&key, usage.encode()?.as_slice())?,
            };
        }
        Ok(())
    }
}
