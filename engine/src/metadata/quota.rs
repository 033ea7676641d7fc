//! Quotas: how many bytes of content a namespace may have.

use super::records::NamespaceUsage;
use super::tables::owned_row;
use super::{MetadataError, Snapshot, keys, namespaces};
use crate::oci::{Digest, RepositoryName};

/// Content does not fit into a namespace. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the namespace {namespace} may have {quota} bytes of content; it has {used}, and {size} more do not fit: delete what is not needed and collect garbage, or have the quota raised"
)]
pub struct QuotaExceeded {
    /// The namespace.
    pub namespace: String,
    /// Bytes of content that it may have.
    pub quota: u64,
    /// Bytes of content that it has, each content counted once.
    pub used: u64,
    /// Bytes that it does not have yet and was about to get.
    pub size: u64,
}

/// Whether `size` bytes more fit.
pub(super) fn check_quota(namespace: &str, used: u64, size: u64, quota: u64) -> Result<(), QuotaExceeded> {
    match used.checked_add(size) {
        Some(sum) if sum <= quota => Ok(()),
        _ => Err(QuotaExceeded { namespace: namespace.to_owned(), quota, used, size }),
    }
}

impl Snapshot {
    /// Whether a repository may get `size` bytes of content: they must fit into its namespace's `quota`, in bytes, unless the
    /// namespace has them already, which is known where `digest` is. Blobs and manifests count, each once.
    pub fn check_quota(
        &self,
        repository: &RepositoryName,
        digest: Option<&Digest>,
        size: u64,
        quota: u64,
    ) -> Result<Result<(), QuotaExceeded>, MetadataError> {
        let namespace = repository.namespace();
        if let (Some(id), Some(digest)) = (namespaces::find(self.tables().names()?, namespace)?, digest)
            && namespaces::has(self.tables().digests()?, id, digest)?
        {
            return Ok(Ok(()));
        }
        Ok(check_quota(namespace, self.namespace_usage(namespace)?.bytes, size, quota))
    }

    /// What a namespace holds. Costs some look-ups.
    pub fn namespace_usage(&self, namespace: &str) -> Result<NamespaceUsage, MetadataError> {
        let Some(id) = namespaces::find(self.tables().names()?, namespace)? else {
            return Ok(NamespaceUsage::default());
        };
        Ok(owned_row(self.tables().state()?, &keys::namespace(id))?.unwrap_or_default())
    }
}
