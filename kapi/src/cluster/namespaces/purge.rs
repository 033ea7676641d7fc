use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::{Either, select};
use interface::{ListPrefixes, PurgeNamespace, Reason, SetNamespaces};
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client};
use tokio::time::sleep;
use tracing::{debug, info, warn};

use crate::cluster::api_error::{describe, says_not_found};
use crate::cluster::backoff::Backoff;
use crate::cluster::publication::Publication;
use crate::cluster::seldom::Seldom;
use crate::registry::{CallError, Registry};

/// How often it is looked for what nobody told of.
const EACH: Duration = Duration::from_secs(300);

/// A namespace that every cluster has. A list without it is none of a cluster that works.
const ALWAYS_THERE: &str = "kube-system";

/// Removes from the registry what is stored under names of namespaces that do not exist.
///
/// The cluster's namespace controller deletes the tags of a namespace before it lets the namespace go, by the aggregated
/// API. This is for what it does not see (repositories without tags, upload sessions) and for what went while this
/// program was away. As nothing brings an image back, a namespace counts as gone only when it is not in the list, the
/// API server says of this very name that it does not exist, and the registry has been told all namespaces that are known.
pub(crate) struct Purge<'a> {
    client: Client,
    registry: &'a Registry,
    namespaces: &'a Publication<SetNamespaces>,
}

/// Why a round did not do all that it should.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    /// The registry does not say what is stored.
    #[error("the registry does not list what it stores: {0}")]
    List(CallError),
    /// The list of namespaces cannot be right.
    #[error("there is no namespace {ALWAYS_THERE} in the list; no list without it is believed")]
    Unlikely,
    /// Some namespaces could not be looked at or purged; each was logged.
    #[error("{0} namespaces are left")]
    Left(usize),
}

impl<'a> Purge<'a> {
    pub(crate) fn new(
        client: Client,
        registry: &'a Registry,
        namespaces: &'a Publication<SetNamespaces>,
    ) -> Self {
        Self { client, registry, namespaces }
    }

    /// Looks after it for ever: at the start, when a namespace disappears, and each five minutes.
    pub(crate) async fn keep_purging(&self) {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        let warnings = Seldom::default();
        loop {
            let seen = self.namespaces.latest().await;
            let wait = match self.round().await {
                Ok(()) => {
                    backoff.reset();
                    warnings.reset();
                    EACH
                }
                Err(error) => {
                    if warnings.is_time() {
                        warn!(%error, "what is left of deleted namespaces cannot be removed now; it is tried again");
                    }
                    backoff.delay()
                }
            };
            let vanished = std::pin::pin!(self.until_one_vanishes(seen));
            if let Either::Left(_) = select(vanished, std::pin::pin!(sleep(wait))).await {
                backoff.reset();
            }
        }
    }

    /// Waits until a namespace that was there when `seen` was published is not any more.
    async fn until_one_vanishes(&self, mut seen: std::sync::Arc<SetNamespaces>) {
        loop {
            let next = self.namespaces.next(&seen).await;
            if has_vanished(&seen, &next) {
                return;
            }
            seen = next;
        }
    }

    async fn round(&self) -> Result<(), RoundError> {
        let known = self.namespaces.delivered().await;
        let prefixes = self.registry.call(&ListPrefixes {}).await.map_err(RoundError::List)?.prefixes;
        let orphans = orphans(&prefixes, &known);
        if orphans.is_empty() {
            return Ok(());
        }
        if !names(&known).contains(ALWAYS_THERE) {
            return Err(RoundError::Unlikely);
        }
        let mut left = 0;
        for namespace in orphans {
            if !self.purge(namespace).await {
                left += 1;
            }
        }
        if left > 0 { Err(RoundError::Left(left)) } else { Ok(()) }
    }

    /// Purges one namespace, if it is gone. Whether there is nothing left to do.
    async fn purge(&self, namespace: &str) -> bool {
        let api: Api<Namespace> = Api::all(self.client.clone());
        match api.get_metadata(namespace).await {
            Ok(_) => {
                // The watch will tell of it in a moment.
                debug!(namespace, "the namespace is not in the list, and yet it exists");
                return true;
            }
            Err(error) if says_not_found(&error, "namespaces", namespace) => {}
            Err(error) => {
                debug!(namespace, error = describe(&error), "it is not certain that the namespace is gone");
                return false;
            }
        }
        let known = self.namespaces.delivered().await;
        if names(&known).contains(namespace) {
            return true;
        }
        match self.registry.call(&PurgeNamespace { namespace: namespace.to_owned() }).await {
            Ok(purged) => {
                info!(
                    namespace,
                    repositories = purged.repositories,
                    tags = purged.tags,
                    manifests = purged.manifests,
                    uploads = purged.uploads,
                    "the namespace does not exist: what was stored under it is removed"
                );
                true
            }
            Err(error) if error.reason() == Some(Reason::Conflict) => {
                debug!(namespace, %error, "the registry knows the namespace");
                true
            }
            Err(error) => {
                debug!(namespace, %error, "the namespace cannot be purged");
                false
            }
        }
    }
}

fn names(namespaces: &SetNamespaces) -> BTreeSet<&str> {
    namespaces.namespaces.iter().map(|namespace| namespace.name.as_str()).collect()
}

/// First segments that are the name of no namespace.
fn orphans<'p>(prefixes: &'p [String], namespaces: &SetNamespaces) -> Vec<&'p str> {
    let names = names(namespaces);
    prefixes.iter().map(String::as_str).filter(|prefix| !names.contains(prefix)).collect()
}

fn has_vanished(before: &SetNamespaces, now: &SetNamespaces) -> bool {
    !names(before).is_subset(&names(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespaces(list: &[(&str, bool)]) -> SetNamespaces {
        let namespaces = list
            .iter()
            .map(|(name, is_terminating)| interface::Namespace {
                name: (*name).to_owned(),
                is_terminating: *is_terminating,
            })
            .collect();
        SetNamespaces { namespaces }
    }

    #[test]
    fn what_belongs_to_no_namespace() {
        let there = namespaces(&[("a", false), ("b", true), ("c-d", false)]);
        let prefixes = ["a", "aa", "b", "c", "c-d", "z"].map(str::to_owned);
        assert_eq!(orphans(&prefixes, &there), ["aa", "c", "z"], "one that is being deleted still exists");
        assert_eq!(orphans(&[], &there), [""; 0]);
    }

    #[test]
    fn when_a_namespace_has_vanished() {
        let before = namespaces(&[("a", false), ("b", false)]);
        assert!(!has_vanished(&before, &before));
        assert!(!has_vanished(&before, &namespaces(&[("a", false), ("b", true), ("c", false)])));
        assert!(has_vanished(&before, &namespaces(&[("a", false), ("c", false)])));
        assert!(has_vanished(&before, &namespaces(&[])));
    }
}
