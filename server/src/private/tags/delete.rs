use engine::metadata::{MetadataError, Snapshot, TagCondition, TagRecord};
use engine::oci::{RepositoryName, Tag};
use interface::{Caller, DeleteAllTags, DeleteTag, DeletedTags, ObjectName, Preconditions, Reason};

use super::{TagFacts, denied, repository_and_tag, unknown};
use crate::http::RequestId;
use crate::private::refusal::Refusal;
use crate::private::service::Context;
use crate::private::sight::{Sight, View, caller_name};

/// Tags that one transaction deletes: a few milliseconds.
const BATCH: usize = 64;

/// How often is looked again for tags that were pushed meanwhile, before the caller is told to come back.
const ROUNDS_MAX: usize = 100;

/// Deletes one tag.
pub(in crate::private) async fn delete(
    context: &Context,
    call: DeleteTag,
    request: RequestId,
) -> Result<interface::Tag, Refusal> {
    let DeleteTag { caller, namespace, name, preconditions, dry_run } = call;
    let (repository, tag) =
        repository_and_tag(&namespace, &name).ok_or_else(|| unknown(&namespace, &name))?;
    let sight = Sight::of(&context.shared, &caller)?;
    if !sight.view().may_delete(&namespace, repository.path()) {
        return Err(denied(&namespace, repository.path(), caller_name(&caller), "delete"));
    }
    let told = |record: &TagRecord| TagFacts::new(&repository, tag.as_str(), record).into_tag();
    let missing = || unknown(&namespace, &name);
    // What is not there is said not to be there also while nothing can be written.
    let record = current(&context.core.metadata().snapshot()?, &repository, &tag)?.ok_or_else(missing)?;
    let _write = context.begin_write()?;
    if dry_run {
        check(&preconditions, &repository, &tag, &record)?;
        return Ok(told(&record));
    }
    let now = context.core.now();
    let work = {
        let (repository, tag) = (repository.clone(), tag.clone());
        move |transaction: &mut engine::metadata::Transaction<'_>| {
            let Some(id) = transaction.repository(&repository)? else { return Ok(Ok(None)) };
            let Some(record) = transaction.tag(id, &tag)? else { return Ok(Ok(None)) };
            if let Err(refusal) = check(&preconditions, &repository, &tag, &record) {
                return Ok(Err(refusal));
            }
            let deleted = transaction.delete_tag(&repository, &tag, &TagCondition::Any, now)?;
            Ok(Ok(deleted.is_ok().then_some(record)))
        }
    };
    let deleted = told(&context.core.metadata().write(work).await??.ok_or_else(missing)?);
    audit(request, &caller, &deleted);
    Ok(deleted)
}

/// A tag as it is now; `None` where there is none.
fn current(
    snapshot: &Snapshot,
    repository: &RepositoryName,
    tag: &Tag,
) -> Result<Option<TagRecord>, MetadataError> {
    match snapshot.repository(repository)? {
        Some(id) => snapshot.tag(id, tag),
        None => Ok(None),
    }
}

/// Whether a tag is the one that is meant.
fn check(
    preconditions: &Preconditions,
    repository: &RepositoryName,
    tag: &Tag,
    record: &TagRecord,
) -> Result<(), Refusal> {
    let facts = TagFacts::new(repository, tag.as_str(), record);
    let Preconditions { uid, sequence } = preconditions;
    let conflict = |message: String| Err(Refusal::new(Reason::Conflict, message));
    match (uid, sequence) {
        (Some(uid), _) if *uid != facts.uid() => conflict(format!(
            "the tag {repository}:{tag} has the uid {}, and not {uid}: it was deleted and pushed again",
            facts.uid()
        )),
        (_, Some(sequence)) if *sequence != record.sequence => conflict(format!(
            "the tag {repository}:{tag} was changed: its number is {}, and not {sequence}",
            record.sequence
        )),
        _ => Ok(()),
    }
}

/// Deletes the tags of a namespace that the caller sees: all, or those that are named.
///
/// Where there are none it succeeds also while the registry is read-only: the cluster asks for this in each namespace that
/// is deleted, and lets none go before it has succeeded.
pub(in crate::private) async fn delete_all(
    context: &Context,
    call: DeleteAllTags,
    request: RequestId,
) -> Result<DeletedTags, Refusal> {
    let DeleteAllTags { caller, namespace, names, dry_run } = call;
    let mut write = None;
    let mut deleted = Vec::new();
    for _ in 0..ROUNDS_MAX {
        let sight = Sight::of(&context.shared, &caller)?;
        let snapshot = context.core.metadata().snapshot()?;
        let sequence = snapshot.sequence();
        let (namespace, names, user) = (namespace.clone(), names.clone(), caller_name(&caller).to_owned());
        let doomed = engine::runtime::blocking(move || {
            let doomed = Doomed::find(&snapshot, &sight.view(), &namespace, names.as_deref())?;
            match doomed.protected {
                Some(path) => Err(denied(&namespace, &path, &user, "delete")),
                None => Ok(doomed.tags),
            }
        });
        let doomed = doomed.await??;
        if doomed.is_empty() {
            return Ok(DeletedTags { sequence, tags: deleted });
        }
        if write.is_none() {
            // What is deleted is what is there from here on.
            write = Some(context.begin_write()?);
            continue;
        }
        if dry_run {
            let tags = doomed
                .iter()
                .map(|(repository, tag, record)| TagFacts::new(repository, tag.as_str(), record).into_tag());
            return Ok(DeletedTags { sequence, tags: tags.collect() });
        }
        for batch in doomed.chunks(BATCH) {
            context.check_write()?;
            let tags = delete_batch(context, batch.to_vec()).await?;
            tags.iter().for_each(|tag| audit(request, &caller, tag));
            deleted.extend(tags);
        }
    }
    let message =
        format!("tags are pushed to {namespace} faster than they are deleted; stop that, and try again");
    Err(Refusal::unavailable(message))
}

/// The tags that are to be deleted.
#[derive(Default)]
struct Doomed {
    tags: Vec<(RepositoryName, Tag, TagRecord)>,
    /// The path of a repository whose tags the caller sees and may not delete.
    protected: Option<String>,
}

impl Doomed {
    fn find(
        snapshot: &Snapshot,
        view: &View<'_>,
        namespace: &str,
        names: Option<&[ObjectName]>,
    ) -> Result<Self, Refusal> {
        let mut doomed = Self::default();
        match names {
            Some(names) => {
                let wanted = names.iter().filter_map(|name| repository_and_tag(namespace, name));
                for (repository, tag) in wanted {
                    if view.sees(namespace, repository.path())
                        && let Some(record) = current(snapshot, &repository, &tag)?
                    {
                        doomed.add(view, &repository, tag, record);
                    }
                }
            }
            None => {
                for repository in snapshot.repositories(&format!("{namespace}/"), None)? {
                    let repository = repository?;
                    let name = repository.name;
                    // A namespace with a slash in it is none.
                    if name.namespace() != namespace || !view.sees(namespace, name.path()) {
                        continue;
                    }
                    for tag in snapshot.tags(repository.id, None)? {
                        let (tag, record) = tag?;
                        doomed.add(view, &name, tag, record);
                    }
                }
            }
        }
        Ok(doomed)
    }

    fn add(&mut self, view: &View<'_>, repository: &RepositoryName, tag: Tag, record: TagRecord) {
        let is_last = self.tags.last().is_some_and(|(last, ..)| last == repository);
        if !is_last && !view.may_delete(repository.namespace(), repository.path()) {
            self.protected = Some(repository.path().to_owned());
        }
        self.tags.push((repository.clone(), tag, record));
    }
}

/// Deletes those of the tags that are still there, whatever they point at by now, and gives them as they were.
async fn delete_batch(
    context: &Context,
    batch: Vec<(RepositoryName, Tag, TagRecord)>,
) -> Result<Vec<interface::Tag>, Refusal> {
    let now = context.core.now();
    let deleted = context.core.metadata().write(move |transaction| {
        let mut deleted = Vec::with_capacity(batch.len());
        for (repository, tag, _) in batch {
            let Some(id) = transaction.repository(&repository)? else { continue };
            let Some(record) = transaction.tag(id, &tag)? else { continue };
            if transaction.delete_tag(&repository, &tag, &TagCondition::Any, now)?.is_ok() {
                deleted.push(TagFacts::new(&repository, tag.as_str(), &record).into_tag());
            }
        }
        Ok(deleted)
    });
    Ok(deleted.await?)
}

/// The line of the audit log, as deletions through the protocol have it.
fn audit(request: RequestId, caller: &Caller, tag: &interface::Tag) {
    let repository = format!("{}/{}", tag.namespace, tag.path);
    tracing::info!(
        target: "audit",
        request = %request,
        user = caller_name(caller),
        action = "delete tag",
        repository,
        tag = tag.tag,
        digest = tag.digest,
    );
}
