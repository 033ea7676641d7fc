//! What the API has, for those who look: Kubernetes' own controllers above all.
//!
//! Discovery that fails, or that promises too much, harms whole clusters: the deletion of every namespace waits for it, and
//! controllers watch whatever it says can be watched. So it is made once, and asks nobody.

use http::{HeaderMap, Response};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    APIGroup, APIGroupList, APIResource, APIResourceList, GroupVersionForDiscovery,
};
use serde::Serialize;
use serde_json::{Value, json};

use super::body::Body;
use super::document::Document;
use super::negotiation::{DiscoveryForm, discovery};
use super::objects::{ACCESS_KIND, ACCESS_RESOURCE, GROUP, GROUP_VERSION, KIND, RESOURCE, VERSION};
use super::status::Refusal;

/// A resource that discovery lists.
struct Resource {
    name: &'static str,
    singular: &'static str,
    kind: &'static str,
    verbs: &'static [&'static str],
}

const RESOURCES: [Resource; 2] = [
    Resource {
        name: RESOURCE,
        singular: "payloadrepositorytag",
        kind: KIND,
        verbs: &["delete", "deletecollection", "get", "list", "watch"],
    },
    // It is here for rules of RBAC to name it: `kubectl create role` asks discovery. There are no objects of it, which is what
    // `get` always answers. With `delete` or `list` among its verbs, controllers would try them.
    Resource {
        name: ACCESS_RESOURCE,
        singular: "payloadrepositoryaccess",
        kind: ACCESS_KIND,
        verbs: &["get"],
    },
];

/// The documents.
#[derive(Debug)]
pub struct Discovery {
    groups: Document,
    groups_v2: Document,
    groups_v2beta1: Document,
    group: Document,
    resources: Document,
}

impl Discovery {
    /// Makes them.
    pub fn new() -> Self {
        let version =
            GroupVersionForDiscovery { group_version: GROUP_VERSION.to_owned(), version: VERSION.to_owned() };
        let group = APIGroup {
            name: GROUP.to_owned(),
            preferred_version: Some(version.clone()),
            versions: vec![version],
            ..APIGroup::default()
        };
        let resources = RESOURCES.iter().map(|resource| APIResource {
            name: resource.name.to_owned(),
            singular_name: resource.singular.to_owned(),
            namespaced: true,
            group: Some(GROUP.to_owned()),
            version: Some(VERSION.to_owned()),
            kind: resource.kind.to_owned(),
            verbs: strings(resource.verbs),
            ..APIResource::default()
        });
        let resources =
            APIResourceList { group_version: GROUP_VERSION.to_owned(), resources: resources.collect() };
        Self {
            groups: legacy(&APIGroupList { groups: vec![group.clone()] }),
            groups_v2: Document::new(
                "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
                &aggregated("apidiscovery.k8s.io/v2"),
            ),
            groups_v2beta1: Document::new(
                "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
                &aggregated("apidiscovery.k8s.io/v2beta1"),
            ),
            group: legacy(&group),
            resources: legacy(&resources),
        }
    }

    /// `/apis`.
    pub fn groups(&self, headers: &HeaderMap) -> Result<Response<Body>, Refusal> {
        let document = match discovery(headers)? {
            DiscoveryForm::Legacy => &self.groups,
            DiscoveryForm::V2 => &self.groups_v2,
            DiscoveryForm::V2beta1 => &self.groups_v2beta1,
        };
        Ok(document.answer(headers, false))
    }

    /// `/apis/<group>`.
    pub fn group(&self, headers: &HeaderMap) -> Response<Body> {
        self.group.answer(headers, false)
    }

    /// `/apis/<group>/<version>`.
    pub fn resources(&self, headers: &HeaderMap) -> Response<Body> {
        self.resources.answer(headers, false)
    }
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn legacy(object: &impl Serialize) -> Document {
    // These are structures of strings, which JSON has a place for.
    Document::new("application/json", &serde_json::to_value(object).unwrap_or_default())
}

fn aggregated(api_version: &str) -> Value {
    let resources = RESOURCES.iter().map(|resource| {
        json!({
            "resource": resource.name,
            "responseKind": {"group": GROUP, "version": VERSION, "kind": resource.kind},
            "scope": "Namespaced",
            "singularResource": resource.singular,
            "verbs": resource.verbs,
        })
    });
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": api_version,
        "metadata": {},
        "items": [{
            "metadata": {"name": GROUP, "creationTimestamp": null},
            "versions": [{
                "version": VERSION,
                "freshness": "Current",
                "resources": resources.collect::<Vec<_>>(),
            }],
        }],
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::{ACCEPT, CONTENT_TYPE, ETAG};
    use http_body_util::BodyExt as _;

    use super::*;

    async fn value(response: Response<Body>) -> Value {
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        serde_json::from_slice(&body).expect("JSON")
    }

    #[tokio::test]
    async fn what_controllers_find() {
        let discovery = Discovery::new();
        let resources = value(discovery.resources(&HeaderMap::new())).await;
        assert_eq!(resources["kind"], "APIResourceList");
        assert_eq!(resources["apiVersion"], "v1");
        assert_eq!(resources["groupVersion"], GROUP_VERSION);
        assert_eq!(resources["resources"][0]["singularName"], "payloadrepositorytag");
        // Those that would be tried by the namespace controller, the garbage collector or the quota controller.
        let virtual_verbs = resources["resources"][1]["verbs"].as_array().expect("verbs");
        for verb in ["delete", "deletecollection", "list", "watch", "create"] {
            assert!(!virtual_verbs.contains(&json!(verb)), "{verb}");
        }
    }

    #[tokio::test]
    async fn the_aggregated_form() {
        let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
        let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))]);
        let response = Discovery::new().groups(&headers).expect("an answer");
        let content_type = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
        assert_eq!(response.headers()[CONTENT_TYPE], content_type);
        assert!(response.headers().contains_key(ETAG));
        let groups = value(response).await;
        assert_eq!(groups["apiVersion"], "apidiscovery.k8s.io/v2");
        let version = &groups["items"][0]["versions"][0];
        assert_eq!((&version["version"], &version["freshness"]), (&json!(VERSION), &json!("Current")));
        assert_eq!(version["resources"][0]["responseKind"]["kind"], KIND);
    }

    #[tokio::test]
    async fn the_form_of_older_clients() {
        let groups = Discovery::new().groups(&HeaderMap::new()).expect("an answer");
        let groups = value(groups).await;
        assert_eq!(groups["kind"], "APIGroupList");
        assert_eq!(groups["groups"][0]["preferredVersion"]["groupVersion"], GROUP_VERSION);
    }
}
