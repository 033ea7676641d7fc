//! The namespaces that there are, and the removal of what is left of those that are gone.

mod purge;

use std::pin::pin;
use std::time::Duration;

use futures::StreamExt as _;
use interface::SetNamespaces;
use k8s_openapi::api::core::v1::Namespace;
use kube::runtime::watcher::Config;
use kube::{Api, Client};
use tokio::time::{Instant, timeout_at};
use tracing::info;

use super::follow::follow;
use super::publication::Publication;
use super::readiness::Readiness;
use super::view::View;

pub(super) use purge::Purge;

/// How long changes are gathered after the first of them.
const GATHERING: Duration = Duration::from_millis(75);

/// Follows the namespaces for ever, and publishes them.
pub(super) async fn keep_namespaces(
    client: Client,
    namespaces: &Publication<SetNamespaces>,
    readiness: &Readiness,
) {
    let api: Api<Namespace> = Api::all(client);
    let mut events = pin!(follow(api, "namespaces", Config::default()));
    let mut view: View<IsTerminating> = View::default();
    while let Some(event) = events.next().await {
        if !view.take(event, is_terminating) {
            continue;
        }
        let end = Instant::now() + GATHERING;
        while let Ok(Some(event)) = timeout_at(end, events.next()).await {
            view.take(event, is_terminating);
        }
        let all = view.iter().map(|(key, is_terminating)| interface::Namespace {
            name: key.name.clone(),
            is_terminating: *is_terminating,
        });
        let call = SetNamespaces { namespaces: all.collect() };
        if readiness.namespaces.set() {
            info!(namespaces = call.namespaces.len(), "the namespaces are known");
        }
        namespaces.publish(call);
    }
}

/// What is kept of a namespace: whether it is being deleted.
type IsTerminating = bool;

/// The phase follows the timestamp, and is the only sign of a namespace that something else than a deletion ends.
#[expect(clippy::unnecessary_wraps, reason = "a view keeps what it is given")]
fn is_terminating(namespace: &Namespace) -> Option<IsTerminating> {
    let phase = namespace.status.as_ref().and_then(|status| status.phase.as_deref());
    Some(namespace.metadata.deletion_timestamp.is_some() || phase == Some("Terminating"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn which_namespaces_are_terminating() {
        let of = |object: Value| is_terminating(&serde_json::from_value(object).expect("a namespace"));
        assert_eq!(of(json!({"metadata": {"name": "a"}})), Some(false));
        assert_eq!(of(json!({"metadata": {"name": "a"}, "status": {"phase": "Active"}})), Some(false));
        assert_eq!(of(json!({"metadata": {"name": "a"}, "status": {"phase": "Terminating"}})), Some(true));
        let deleted = json!({"name": "a", "deletionTimestamp": "2026-01-01T00:00:00Z"});
        assert_eq!(of(json!({"metadata": deleted, "status": {"phase": "Active"}})), Some(true));
    }
}
