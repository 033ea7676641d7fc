use std::cmp::Ordering;
use std::collections::BinaryHeap;

use engine::metadata::{MetadataError, Snapshot, TagRecord, TagRow};
use engine::oci::RepositoryName;
use interface::{ListTags, ObjectName, TagPage};

use super::TagFacts;
use crate::private::refusal::Refusal;
use crate::private::service::{Context, encode};
use crate::private::sight::{Sight, View};

/// A page of the tags that the caller sees, as JSON. Made on a thread that may be busy with it for a while.
pub(in crate::private) async fn list(context: &Context, call: ListTags) -> Result<Vec<u8>, Refusal> {
    let sight = Sight::of(&context.shared, &call.caller)?;
    if call.limit == Some(0) {
        return Err(Refusal::invalid("a limit is at least 1; leave it out for all tags"));
    }
    let snapshot = context.core.metadata().snapshot()?;
    engine::runtime::blocking(move || encode(&page(&snapshot, &sight.view(), &call)?)).await?
}

fn page(snapshot: &Snapshot, view: &View<'_>, call: &ListTags) -> Result<TagPage, MetadataError> {
    let limit = call.limit.map_or(usize::MAX, |limit| limit as usize);
    let after = call.after.as_ref();
    let namespaces = match &call.namespace {
        Some(namespace) => [namespace.clone()].into(),
        None => snapshot.namespaces(after.map_or("", |after| &after.namespace))?,
    };
    let mut namespaces =
        namespaces.into_iter().filter(|name| after.is_none_or(|after| *name >= after.namespace));
    let mut tags = Vec::new();
    // Those behind the page, of the namespaces that were looked at.
    let mut behind = 0;
    // One more than wanted, to see whether there is one.
    while behind == 0
        && let Some(namespace) = namespaces.next()
    {
        let after = after.filter(|after| after.namespace == namespace);
        let mut chosen = Chosen::new(after.map(|after| &after.name), limit - tags.len());
        choose(snapshot, view, &namespace, &mut chosen)?;
        behind = chosen.dropped;
        tags.extend(chosen.into_tags());
    }
    Ok(TagPage {
        sequence: snapshot.sequence(),
        oldest: snapshot.tag_changes_kept_after(),
        tags,
        has_more: behind > 0,
        remaining: namespaces.next().is_none().then_some(behind),
    })
}

/// Looks at all tags of a namespace that can be seen.
fn choose(
    snapshot: &Snapshot,
    view: &View<'_>,
    namespace: &str,
    chosen: &mut Chosen,
) -> Result<(), MetadataError> {
    for repository in snapshot.repositories(&format!("{namespace}/"), None)? {
        let repository = repository?;
        // A namespace with a slash in it is none.
        if repository.name.namespace() != namespace || !view.sees(namespace, repository.name.path()) {
            continue;
        }
        let mut name = format!("{}:", repository.name.path());
        let path_len = name.len();
        snapshot.each_tag(repository.id, |row| {
            name.truncate(path_len);
            name.push_str(row.tag);
            chosen.offer(&name, &repository.name, row)
        })?;
    }
    Ok(())
}

/// The first tags behind a name, in the order of their names. The store has them in another order, and so all of them
/// are looked at; but only those that are chosen take memory and are sorted.
struct Chosen {
    /// Decoded, as are all names here: they are compared without being made.
    after: Option<String>,
    limit: usize,
    /// The last one on top.
    tags: BinaryHeap<Candidate>,
    /// Those that are behind the name and were not chosen.
    dropped: u64,
}

struct Candidate {
    name: Box<str>,
    repository: RepositoryName,
    record: TagRecord,
}

impl Candidate {
    fn tag(&self) -> &str {
        &self.name[self.repository.path().len() + 1..]
    }
}

impl Chosen {
    fn new(after: Option<&ObjectName>, limit: usize) -> Self {
        let decoded = |name: &ObjectName| {
            let (path, tag) = name.path_and_tag();
            format!("{path}:{tag}")
        };
        Self { after: after.map(decoded), limit, tags: BinaryHeap::new(), dropped: 0 }
    }

    fn offer(
        &mut self,
        name: &str,
        repository: &RepositoryName,
        row: TagRow<'_>,
    ) -> Result<(), MetadataError> {
        let is_behind = |other: &str| ObjectName::compare_decoded(name, other) == Ordering::Greater;
        if self.after.as_ref().is_some_and(|after| !is_behind(after)) {
            return Ok(());
        }
        let candidate = || {
            let (name, repository, record) = (name.into(), repository.clone(), row.record()?);
            Ok::<_, MetadataError>(Candidate { name, repository, record })
        };
        if self.tags.len() < self.limit {
            self.tags.push(candidate()?);
            return Ok(());
        }
        self.dropped += 1;
        if let Some(mut last) = self.tags.peek_mut()
            && !is_behind(&last.name)
        {
            *last = candidate()?;
        }
        Ok(())
    }

    fn into_tags(self) -> impl Iterator<Item = interface::Tag> {
        let tags = self.tags.into_sorted_vec().into_iter();
        tags.map(|one| TagFacts::new(&one.repository, one.tag(), &one.record).into_tag())
    }
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Candidate {}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        ObjectName::compare_decoded(&self.name, &other.name)
    }
}
