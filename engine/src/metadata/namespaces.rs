//! Namespaces: the first segments of names. They have no rows of their own; the order of the names has them together.

use std::collections::BTreeSet;

use super::keys::OfRepository;
use super::records::{RepositoryId, TagRecord};
use super::rows::{NAMES, REPOSITORIES, Row as _};
use super::snapshot::text;
use super::{MetadataError, Snapshot};

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
