use std::collections::BTreeSet;

use engine::ResumeError;
use engine::oci::RepositoryName;
use interface::{ListPrefixes, Prefixes, PurgeNamespace, Purged, Reason};

use super::refusal::Refusal;
use super::service::Context;
use crate::access::NamespaceState;
use crate::http::RequestId;

/// Tags, manifests and links that one transaction removes: a few milliseconds.
const STEP: usize = 64;

/// The first segments of all names there are.
pub(super) fn prefixes(context: &Context, _: &ListPrefixes) -> Result<Prefixes, Refusal> {
    let mut prefixes = context.core.metadata().snapshot()?.namespaces("")?;
    let uploads = context.core.uploads()?;
    prefixes.extend(uploads.values().map(|repository| repository.namespace().to_owned()));
    Ok(Prefixes { prefixes: prefixes.into_iter().collect() })
}

/// Removes all that is stored under a namespace that does not exist. A session that a request is writing to stays until
/// that has ended, and for the next call.
pub(super) async fn purge(
    context: &Context,
    call: PurgeNamespace,
    request: RequestId,
) -> Result<Purged, Refusal> {
    let PurgeNamespace { namespace } = call;
    require_gone(context, &namespace)?;
    let _write = context.begin_write()?;
    let mut purged = Purged::default();
    // First what could bring links back.
    for (id, repository) in context.core.uploads()? {
        if repository.namespace() != namespace {
            continue;
        }
        require_gone(context, &namespace)?;
        match context.core.resume_upload(&repository, id) {
            Ok(upload) => {
                upload.cancel().await?;
                purged.uploads += 1;
            }
            Err(ResumeError::Unknown | ResumeError::Busy(_)) => {}
            Err(ResumeError::Engine(error)) => return Err(error.into()),
        }
    }
    for repository in repositories(context, &namespace)? {
        let removed = purge_repository(context, &namespace, &repository).await?;
        tracing::info!(
            target: "audit",
            request = %request,
            user = "unrestricted",
            action = "purge repository",
            repository = repository.as_str(),
            tags = removed.tags,
            manifests = removed.manifests,
        );
        purged.repositories += removed.repositories;
        purged.tags += removed.tags;
        purged.manifests += removed.manifests;
    }
    Ok(purged)
}

/// The repositories of a namespace, the one that is called like it among them.
fn repositories(context: &Context, namespace: &str) -> Result<BTreeSet<RepositoryName>, Refusal> {
    let snapshot = context.core.metadata().snapshot()?;
    let mut found = BTreeSet::new();
    if let Ok(name) = namespace.parse::<RepositoryName>()
        && snapshot.repository(&name)?.is_some()
    {
        found.insert(name);
    }
    for repository in snapshot.repositories(&format!("{namespace}/"), None)? {
        found.insert(repository?.name);
    }
    // A namespace with a slash in it is none.
    found.retain(|name| name.namespace() == namespace);
    Ok(found)
}

async fn purge_repository(
    context: &Context,
    namespace: &str,
    repository: &RepositoryName,
) -> Result<Purged, Refusal> {
    let mut removed = Purged::default();
    loop {
        // Nothing comes between this and the queueing of the transaction: this thread alone is told of namespaces.
        require_gone(context, namespace)?;
        context.check_write()?;
        let (name, now) = (repository.clone(), context.core.now());
        let step =
            context.core.metadata().write(move |transaction| transaction.purge_repository(&name, STEP, now));
        let step = step.await?;
        removed.tags += step.tags;
        removed.manifests += step.manifests;
        if step.is_gone {
            removed.repositories = 1;
            return Ok(removed);
        }
    }
}

/// An error unless it is known that there is no such namespace. A registry that serves no cluster has none of a cluster's
/// namespaces: what is stored there is not the cluster's to remove.
fn require_gone(context: &Context, namespace: &str) -> Result<(), Refusal> {
    let authority = &context.shared.authority;
    if !authority.is_enabled() {
        let message = format!(
            "this registry serves no Kubernetes cluster, so what is in {namespace} is not purged; if it is to serve one, \
             set kubernetes.enabled, and otherwise connect no Kubernetes component to it"
        );
        return Err(Refusal::new(Reason::Conflict, message));
    }
    match authority.namespace(namespace) {
        NamespaceState::Missing => Ok(()),
        NamespaceState::Unknown => {
            Err(Refusal::unavailable("nobody has said yet which namespaces there are; try again in a moment"))
        }
        NamespaceState::Active | NamespaceState::Terminating => {
            let message = format!("the namespace {namespace} exists; what is in it is not purged");
            Err(Refusal::new(Reason::Conflict, message))
        }
    }
}
