//! Who has how much.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::collection::Amount;
use crate::engine::Engine;
use crate::metadata::{DigestRow, MetadataError, RepositoryId, Snapshot};
use crate::oci::Digest;
use crate::quotas::Quotas;

/// What one repository, or one namespace, has. Manifests and blobs; what is both counts once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Share {
    /// What nobody else has: what would be gained without it.
    pub own: Amount,
    /// What others have, too. Counts fully with each of them.
    pub shared: Amount,
}

impl Share {
    /// All that it has, each content once.
    pub fn total(&self) -> Amount {
        Amount { count: self.own.count + self.shared.count, bytes: self.own.bytes + self.shared.bytes }
    }
}

/// What something of this name has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Named {
    /// The name.
    pub name: String,
    /// What it has.
    pub share: Share,
    /// Of a namespace: bytes that it may have. `None`: as many as there is room for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota: Option<u64>,
}

/// Who has how much.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// All that is stored, each content once.
    pub stored: Amount,
    /// Those of it that are in the metadata.
    pub inline: Amount,
    /// Those of it that no repository has: the next collection takes them.
    pub unlinked: Amount,
    /// Contents that were found damaged and are not counted elsewhere.
    pub damaged: u64,
    /// The namespaces, which are the first segments of the names, in the order of their bytes.
    pub namespaces: Vec<Named>,
    /// The repositories, in the order of the bytes of their names.
    pub repositories: Vec<Named>,
}

impl Engine {
    /// Who has how much, at one moment. Goes over all that is known of digests once; takes memory for the repositories
    /// alone.
    pub fn usage(&self) -> Result<Usage, MetadataError> {
        let snapshot = self.metadata().snapshot()?;
        let mut count = Count::new(&snapshot, &self.shared().options.quotas)?;
        let mut content: Option<Content> = None;
        for row in snapshot.digest_rows()? {
            let (digest, row) = row?;
            if content.as_ref().is_none_or(|content| content.digest != digest) {
                count.add(content.take());
                content = Some(Content { digest, bytes: None, is_inline: false, holders: Vec::new() });
            }
            let Some(content) = &mut content else { continue };
            match row {
                DigestRow::Stored(record) => {
                    content.bytes = Some(record.size);
                    content.is_inline = record.location == crate::metadata::BlobLocation::Inline;
                }
                DigestRow::Linked(id) | DigestRow::Manifest(id) => content.holders.push(id),
                DigestRow::Unreadable => {}
            }
        }
        count.add(content);
        count.usage.damaged = snapshot.statistics().damaged;
        Ok(count.usage)
    }
}

/// One content, and who has it.
struct Content {
    digest: Digest,
    bytes: Option<u64>,
    is_inline: bool,
    holders: Vec<RepositoryId>,
}

struct Count {
    usage: Usage,
    /// Where in the lists a repository and its namespace are.
    places: HashMap<RepositoryId, (usize, usize)>,
}

impl Count {
    fn new(snapshot: &Snapshot, quotas: &Quotas) -> Result<Self, MetadataError> {
        let mut repositories = Vec::new();
        for repository in snapshot.repositories("", None)? {
            let repository = repository?;
            repositories.push((repository.name.to_string(), repository.id));
        }
        let namespace = |name: &str| name.split_once('/').map_or(name, |(first, _)| first).to_owned();
        let mut namespaces: Vec<String> = repositories.iter().map(|(name, _)| namespace(name)).collect();
        namespaces.sort_unstable();
        namespaces.dedup();
        let mut places = HashMap::with_capacity(repositories.len());
        for (place, (name, id)) in repositories.iter().enumerate() {
            if let Ok(of) = namespaces.binary_search(&namespace(name)) {
                places.insert(*id, (place, of));
            }
        }
        let named = |name, quota| Named { name, share: Share::default(), quota };
        let namespace = |name: String| {
            let quota = quotas.of(&name);
            named(name, quota)
        };
        let usage = Usage {
            namespaces: namespaces.into_iter().map(namespace).collect(),
            repositories: repositories.into_iter().map(|(name, _)| named(name, None)).collect(),
            ..Usage::default()
        };
        Ok(Self { usage, places })
    }

    fn add(&mut self, content: Option<Content>) {
        let Some(Content { bytes: Some(bytes), is_inline, holders, .. }) = content else { return };
        self.usage.stored.add(bytes);
        if is_inline {
            self.usage.inline.add(bytes);
        }
        let places = holders.iter().filter_map(|id| self.places.get(id));
        let (mut repositories, mut namespaces): (Vec<usize>, Vec<usize>) = places.copied().unzip();
        if repositories.is_empty() {
            self.usage.unlinked.add(bytes);
        }
        share(&mut self.usage.repositories, &mut repositories, bytes);
        share(&mut self.usage.namespaces, &mut namespaces, bytes);
    }
}

/// Counts content with those that have it.
fn share(of: &mut [Named], holders: &mut Vec<usize>, bytes: u64) {
    holders.sort_unstable();
    holders.dedup();
    for place in &*holders {
        let share = &mut of[*place].share;
        if holders.len() == 1 { &mut share.own } else { &mut share.shared }.add(bytes);
    }
}
