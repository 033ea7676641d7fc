//! Who may do what: RBAC, as far as it speaks of `payloadrepositoryaccesses`, made into the registry's rules.

mod binding;
mod budget;
mod objects;
mod permission;

use std::collections::BTreeSet;
use std::time::Duration;

use futures::stream::{StreamExt as _, select_all};
use interface::SetRules;
use kube::runtime::watcher::Config;
use kube::{Api, Client};
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

use super::follow::follow;
use super::publication::Publication;
use super::readiness::Readiness;
use budget::within_budget;
use objects::{Change, Objects};

/// How long changes are gathered after the first of them: `kubectl apply` of a role and its binding is one change, and a
/// controller that writes hundreds is few.
const GATHERING: Duration = Duration::from_millis(75);

/// Follows RBAC for ever, and publishes the rules that come of it.
pub(super) async fn keep_rules(client: Client, rules: &Publication<SetRules>, readiness: &Readiness) {
    let config = Config::default;
    let mut changes = select_all([
        follow(Api::all(client.clone()), "roles", config()).map(Change::Role).boxed(),
        follow(Api::all(client.clone()), "clusterroles", config()).map(Change::ClusterRole).boxed(),
        follow(Api::all(client.clone()), "rolebindings", config()).map(Change::RoleBinding).boxed(),
        follow(Api::all(client), "clusterrolebindings", config()).map(Change::ClusterRoleBinding).boxed(),
    ]);
    let mut objects = Objects::default();
    let mut curtailed = BTreeSet::new();
    while let Some(change) = changes.next().await {
        if !objects.take(change) {
            continue;
        }
        let end = Instant::now() + GATHERING;
        while let Ok(Some(change)) = timeout_at(end, changes.next()).await {
            objects.take(change);
        }
        if let Some(compiled) = objects.rules() {
            let kept = within_budget(compiled.iter());
            for scope in kept.curtailed.difference(&curtailed) {
                warn!(
                    namespace = scope.as_deref().unwrap_or("(all: ClusterRoleBindings)"),
                    "the roles that are bound here are too large for the registry: some of what they allow is denied; \
                     shorten their resourceNames, or bind fewer subjects"
                );
            }
            curtailed = kept.curtailed;
            if readiness.rules.set() {
                info!(rules = kept.rules.len(), "RBAC is known");
            }
            rules.publish(SetRules { rules: kept.rules });
        }
    }
}
