//! The aggregated API: discovery, OpenAPI, and tags as objects.
//!
//! [`Api`] answers requests, [`serve()`] has the sockets. Only the front proxy's word on users counts (`identity`); what they
//! may see and delete is the registry's decision. Whatever does not need the registry (discovery, OpenAPI, probes) is
//! answered from memory: an API that does not answer blocks the deletion of every namespace of the cluster.

mod body;
mod connection;
mod continue_token;
mod delete_options;
mod discovery;
mod document;
mod handshakes;
mod health;
mod identity;
mod lifecycle;
mod metrics;
mod negotiation;
mod objects;
mod openapi;
mod pages;
mod query;
mod route;
mod selectors;
mod serve;
mod status;
mod table;
mod tags;
#[cfg(test)]
mod tests;
mod watch;
mod watch_places;

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use k8s_openapi::apimachinery::pkg::version::Info;

use crate::cluster::Readiness;
use crate::registry::Registry;
use crate::tls::{FrontProxy, Peer};
use body::Body;
use delete_options::Deletion;
use discovery::Discovery;
use identity::Identity;
pub use lifecycle::{Lifecycle, Phase};
use metrics::Metrics;
use objects::{ACCESS_RESOURCE, RESOURCE};
use openapi::OpenApi;
use query::{ListQuery, Parameters};
use route::Target;
pub use serve::{Limits, serve};
use status::Refusal;
use tags::Tags;
use watch::{Source, Watches};

/// Answers requests.
pub struct Api {
    registry: Registry,
    host: String,
    front_proxy: FrontProxy,
    readiness: Arc<Readiness>,
    lifecycle: Lifecycle,
    discovery: Discovery,
    openapi: OpenApi,
    metrics: Metrics,
    watches: Watches,
}

impl Api {
    /// An API about the tags of a registry that clients know as `host` (with a port where it needs one).
    pub fn new(
        registry: Registry,
        host: String,
        front_proxy: FrontProxy,
        readiness: Arc<Readiness>,
        lifecycle: Lifecycle,
    ) -> Self {
        Self {
            registry,
            host,
            front_proxy,
            readiness,
            lifecycle,
            discovery: Discovery::new(),
            openapi: OpenApi::new(),
            metrics: Metrics::new(),
            watches: Watches::default(),
        }
    }

    /// Whether a peer is the front proxy, by the configuration of now.
    fn trusts(&self, peer: &Peer) -> bool {
        self.front_proxy.current().is_some_and(|config| peer.verify(&config).is_ok())
    }

    /// Answers a request.
    pub async fn respond<B>(&self, peer: &Peer, request: Request<B>) -> Response<Body>
    where
        B: hyper::body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
    {
        let start = Instant::now();
        let (parts, body) = request.into_parts();
        let target = Target::of(parts.uri.path());
        let response = match self.answer(peer, &target, &parts, body).await {
            Ok(response) => response,
            Err(refusal) => body::refusal(&about(&target, refusal)),
        };
        self.metrics.answered(target.label(), verb_label(&parts.method), response.status());
        tracing::debug!(
            method = %parts.method,
            path = parts.uri.path(),
            status = response.status().as_u16(),
            time = ?start.elapsed(),
            "answered"
        );
        response
    }

    async fn answer<B>(
        &self,
        peer: &Peer,
        target: &Target,
        parts: &Parts,
        body: B,
    ) -> Result<Response<Body>, Refusal>
    where
        B: hyper::body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
    {
        let parameters = Parameters::parse(parts.uri.query().unwrap_or_default());
        if let Target::Live | Target::Ready = target {
            return self.probe(target, parts, &parameters);
        }
        let identity = Identity::of(peer, &self.front_proxy, &parts.headers)?;
        match target {
            Target::AllTags | Target::Tags { .. } | Target::Tag { .. } => {
                self.tags(&identity, target, parts, &parameters, body).await
            }
            // What is not there is so for every method.
            _ if parts.method != Method::GET && *target != Target::Nothing => {
                Err(Refusal::method_not_allowed())
            }
            _ => self.get(&identity, target, parts, &parameters),
        }
    }

    fn probe(
        &self,
        target: &Target,
        parts: &Parts,
        parameters: &Parameters,
    ) -> Result<Response<Body>, Refusal> {
        if ![Method::GET, Method::HEAD].contains(&parts.method) {
            return Err(Refusal::method_not_allowed());
        }
        Ok(match target {
            Target::Ready => {
                let is_verbose = parameters.first("verbose").is_some();
                health::ready(&self.lifecycle, &self.front_proxy, &self.readiness, is_verbose)
            }
            _ => health::live(),
        })
    }

    /// What is answered from memory.
    fn get(
        &self,
        identity: &Identity,
        target: &Target,
        parts: &Parts,
        parameters: &Parameters,
    ) -> Result<Response<Body>, Refusal> {
        let headers = &parts.headers;
        match target {
            Target::Groups => self.discovery.groups(headers),
            Target::Group => Ok(self.discovery.group(headers)),
            Target::Resources => Ok(self.discovery.resources(headers)),
            Target::OpenApiV2 => self.openapi.v2(headers),
            Target::OpenApiV3Index => Ok(self.openapi.v3_index(headers)),
            Target::OpenApiV3 => self.openapi.v3(headers, parameters),
            Target::Version => body::object(&version()),
            Target::Metrics if identity.is_unrestricted() => self.metrics(),
            Target::Metrics => Err(Refusal::forbidden_path(&identity.name, parts.uri.path())),
            Target::Access { name } => Err(Refusal::not_found(ACCESS_RESOURCE, name)),
            Target::Accesses => Err(Refusal::method_not_allowed()),
            _ => Err(Refusal::no_such_path()),
        }
    }

    fn metrics(&self) -> Result<Response<Body>, Refusal> {
        let text = self.metrics.write(&self.readiness);
        let text = text.map_err(|_| Refusal::internal("the metrics cannot be written"))?;
        let mut response = body::text(StatusCode::OK, text);
        let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        response
            .headers_mut()
            .insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(content_type));
        Ok(response)
    }

    async fn tags<B>(
        &self,
        identity: &Identity,
        target: &Target,
        parts: &Parts,
        parameters: &Parameters,
        body: B,
    ) -> Result<Response<Body>, Refusal>
    where
        B: hyper::body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
    {
        let headers = &parts.headers;
        let tags = Tags { registry: &self.registry, host: &self.host, identity };
        let namespace = match target {
            Target::Tags { namespace } | Target::Tag { namespace, .. } => Some(namespace.as_str()),
            _ => None,
        };
        match (&parts.method, target, namespace) {
            (&Method::GET, Target::Tag { name, namespace }, _) => {
                tags.get(headers, namespace, name, parameters).await
            }
            (&Method::GET, _, namespace) => {
                let query = ListQuery::parse(parameters)?;
                let Some(watch) = query.watch else {
                    return tags.list(headers, namespace, &query).await;
                };
                let source = Source {
                    registry: self.registry.clone(),
                    host: self.host.clone(),
                    caller: identity.caller(),
                    namespace: namespace.or(query.fields.namespace()).map(str::to_owned),
                    lifecycle: self.lifecycle.clone(),
                };
                self.watches.start(source, &self.metrics, headers, query, watch).await
            }
            (&Method::DELETE, Target::Tag { name, namespace }, _) => {
                let deletion = Deletion::read(headers, &body::read(body).await?, parameters)?;
                tags.delete(headers, namespace, name, deletion).await
            }
            (&Method::DELETE, Target::Tags { namespace }, _) => {
                let deletion = Deletion::read(headers, &body::read(body).await?, parameters)?;
                let query = ListQuery::parse(parameters)?;
                tags.delete_collection(headers, namespace, &query, deletion).await
            }
            _ => Err(Refusal::method_not_allowed()),
        }
    }
}

/// Says which objects a refusal is about, where the path names some.
fn about(target: &Target, refusal: Refusal) -> Refusal {
    match target {
        Target::AllTags | Target::Tags { .. } => refusal.of(RESOURCE, ""),
        Target::Tag { name, .. } => refusal.of(RESOURCE, name),
        Target::Accesses => refusal.of(ACCESS_RESOURCE, ""),
        Target::Access { name } => refusal.of(ACCESS_RESOURCE, name),
        _ => refusal,
    }
}

/// The verb, for counting: names that clients make up are one.
fn verb_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::DELETE => "DELETE",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        _ => "other",
    }
}

/// What `/version` answers.
fn version() -> Info {
    Info {
        major: env!("CARGO_PKG_VERSION_MAJOR").to_owned(),
        minor: env!("CARGO_PKG_VERSION_MINOR").to_owned(),
        git_version: concat!("v", env!("CARGO_PKG_VERSION")).to_owned(),
        platform: format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
        ..Info::default()
    }
}
