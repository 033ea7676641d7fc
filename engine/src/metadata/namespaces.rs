//! Namespaces: the first segments of names. The order of the names has them together, and so does that of the
//! repositories' ids, which begin with the number of the namespace.

use std::collections::BTreeSet;

use redb::ReadableTable;

use super::keys::{self, OfDigest, OfRepository};
use super::records::{NamespaceId, RepositoryId, TagRecord};
use super::rows::{NAMES, REPOSITORIES, Row as _};
use super::snapshot::{repository_id, text};
use super::tables::{row, scan_prefix};
use super::{MetadataError, Snapshot};
use crate::oci::Digest;

type Key = &'static [u8];

/// The namespace of this name, by the table `names`: that of any repository in it.
pub(super) fn find(
    names: &impl ReadableTable<Key, Key>,
    namespace: &str,
) -> Result<Option<NamespaceId>, MetadataError> {
    let first = match row(names, namespace.as_bytes(), repository_id)? {
        Some(id) => Some(id),
        None => match scan_prefix(names, format!("{namespace}/").as_bytes())?.next() {
            Some(row) => Some(repository_id(row?.1.value())?),
            None => None,
        },
    };
    Ok(first.map(RepositoryId::namespace))
}

/// Whether a repository of the namespace has the digest, as a blob or as a manifest, by the table `digests`.
pub(super) fn has(
    digests: &impl ReadableTable<Key, Key>,
    namespace: NamespaceId,
    digest: &Digest,
) -> Result<bool, MetadataError> {
    for kind in [OfDigest::LinkedIn, OfDigest::ManifestIn] {
        let prefix = keys::of_digest_in_namespace(digest, kind, namespace);
        if scan_prefix(digests, &prefix)?.next().is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A tag where it lies in the store, for those who look at many tags and want few.
#[derive(Clone, Copy, Debug)]
pub struct TagRow<'a> {
    /// The tag.
    pub tag: &'a str,
    value: &'a [u8],
}

impl TagRow<'_> {
    /// What there is to know of it.
    pub fn record(&self) -> Result<TagRecord, MetadataError> {
        TagRecord::decode(self.value)
    }
}

impl Snapshot {
    /// The first segments of the names of all repositories, `from` and those behind it, in the order of their bytes.
    /// Costs a look-up for each.
    pub fn namespaces(&self, from: &str) -> Result<BTreeSet<String>, MetadataError> {
        let names = self.tables().names()?;
        let mut found = BTreeSet::new();
        // `a-b/c` comes before `a/c`, so the names are not in the order of their first segments; but no name of `from`
        // or a segment behind it comes before the text `from`.
        let mut next = from.as_bytes().to_vec();
        while let Some(row) = names.range::<&[u8]>(next.as_slice()..)?.next() {
            let (key, _) = row?;
            let name = text(key.value(), NAMES)?;
            let (namespace, after) = match name.split_once('/') {
                // The byte after the slash: behind all names of this namespace.
                Some((namespace, _)) => (namespace, b'/' + 1),
                None => (name, 0),
            };
            next = [namespace.as_bytes(), &[after]].concat();
            if namespace >= from {
                found.insert(namespace.to_owned());
            }
        }
        Ok(found)
    }

    /// Looks at each tag of a repository, in the order of their bytes.
    pub fn each_tag(
        &self,
        repository: RepositoryId,
        mut look: impl FnMut(TagRow<'_>) -> Result<(), MetadataError>,
    ) -> Result<(), MetadataError> {
        for row in self.of_repository(repository, OfRepository::Tag, None)? {
            let (key, value) = row?;
            let tag = text(key.value().get(9..).unwrap_or_default(), REPOSITORIES)?;
            look(TagRow { tag, value: value.value() })?;
        }
        Ok(())
    }
}
