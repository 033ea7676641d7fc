use std::pin::pin;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::watcher::{Config, Event};
use kube::{Api, Client};
use tracing::{info, warn};

use super::follow::follow;
use super::readiness::Readiness;
use crate::tls::{FrontProxy, FrontProxyConfig};

const NAMESPACE: &str = "kube-system";
const NAME: &str = "extension-apiserver-authentication";

/// Follows what the cluster says of its front proxy, for ever. What cannot be used is left out: the last good one stays
/// in force.
pub(super) async fn keep_front_proxy(client: Client, front_proxy: &FrontProxy, readiness: &Readiness) {
    let api: Api<ConfigMap> = Api::namespaced(client, NAMESPACE);
    let this_one = Config::default().fields(&format!("metadata.name={NAME}"));
    let mut events = pin!(follow(api, "the front proxy's configuration", this_one));
    let mut is_there = false;
    let mut in_force = None;
    while let Some(event) = events.next().await {
        match event {
            Event::InitApply(config_map) | Event::Apply(config_map) => {
                is_there = true;
                let data = config_map.data.unwrap_or_default();
                if in_force.as_ref() == Some(&data) {
                    continue;
                }
                match FrontProxyConfig::from_config_map(&data) {
                    Ok(config) => {
                        front_proxy.set(config);
                        info!(
                            "the front proxy's configuration is in force, from ConfigMap {NAMESPACE}/{NAME}"
                        );
                        in_force = Some(data);
                        readiness.front_proxy.set();
                    }
                    Err(error) => {
                        warn!(%error, "ConfigMap {NAMESPACE}/{NAME} cannot be used; the last good one stays");
                    }
                }
            }
            Event::Init => is_there = false,
            Event::InitDone if is_there => {}
            Event::InitDone | Event::Delete(_) => {
                warn!("there is no ConfigMap {NAMESPACE}/{NAME}; the last good one stays in force");
            }
        }
    }
}
