//! Requests as the front proxy sends them, answered with a registry behind.

mod connections;
mod deletions;
mod fake_registry;
mod lists;
mod requests;
mod watches;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use serde_json::Value;

use super::body::Body;
use super::{Api, Lifecycle};
use crate::cluster::Readiness;
use crate::tls::front_proxy::tests::{Authority, config};
use crate::tls::{FrontProxy, Peer};
use fake_registry::FakeRegistry;

const ROOT: &str = "/apis/payload-registry.deckhouse.io/v1alpha1";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
const METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";

/// The API, the front proxy in front of it, and the registry behind.
struct Stage {
    api: Api,
    proxy: Peer,
    registry: FakeRegistry,
    lifecycle: Lifecycle,
}

/// An answer that has been read to its end.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Stage {
    fn new() -> Self {
        let authority = Authority::new("front-proxy-ca");
        let front_proxy = FrontProxy::new();
        front_proxy.set(config(&authority));
        let registry = FakeRegistry::start();
        let lifecycle = Lifecycle::new();
        let api = Api::new(
            registry.client(),
            "registry.example.com".to_owned(),
            front_proxy,
            Arc::new(Readiness::default()),
            lifecycle.clone(),
        );
        Self { api, proxy: Peer::new(authority.client("front-proxy-client")), registry, lifecycle }
    }

    async fn start(&self, request: Request<Full<Bytes>>) -> Response<Body> {
        self.api.respond(&self.proxy, request).await
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        let (parts, body) = self.start(request).await.into_parts();
        let body = body.collect().await.expect("a whole body").to_bytes();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(request("GET", path, "", "jane")).await
    }

    async fn get_as(&self, path: &str, accept: &str) -> Answer {
        let mut request = request("GET", path, "", "jane");
        request.headers_mut().insert("accept", accept.parse().expect("a header"));
        self.send(request).await
    }

    async fn delete(&self, path: &str, options: &str) -> Answer {
        self.send(request("DELETE", path, options, "jane")).await
    }
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// What is at a place in the document.
    fn at(&self, pointer: &str) -> Value {
        self.json().pointer(pointer).cloned().unwrap_or_default()
    }

    /// The words of a Status.
    fn message(&self) -> String {
        self.at("/message").as_str().unwrap_or_default().to_owned()
    }
}

/// A request in somebody's name; the path is within the version of the group.
fn request(method: &str, path: &str, body: &str, user: &str) -> Request<Full<Bytes>> {
    Request::builder()
        .method(method)
        .uri(format!("{ROOT}{path}"))
        .header("x-remote-user", user)
        .header("x-remote-group", "system:authenticated")
        .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
        .expect("a request")
}

/// The names in a list.
fn tags_of(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().expect("items").iter();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    items
        .map(|item| format!("{}/{}", text(&item["metadata"]["namespace"]), text(&item["spec"]["tag"])))
        .collect()
}
