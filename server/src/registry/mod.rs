//! The OCI distribution specification over the engine: one answer for each request, whatever protocol it came by.

mod administer;
mod conditional;
mod delete;
mod error;
mod list;
mod login;
mod manifest;
mod memory;
mod pull;
mod query;
mod range;
mod referrers;
mod route;
mod upload;

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use engine::metadata::{RepositoryId, Snapshot};
use engine::oci::RepositoryName;
use engine::{Core, EngineError};
use http::header::{ALLOW, AUTHORIZATION};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use serde_json::json;

use crate::access::{AccessPolicy, Action, Authenticator, Authority, Decision, Identity, NamespaceState};
use crate::administration::Administration;
use crate::http::{LocalFuture, Request, RequestId, Response, Service};
use crate::operations::{Metrics, health};
use crate::settings::Retention;
use error::{Code, Refusal};
pub(crate) use route::ROUTE_LABELS;
use route::{Reference, Route};

/// Tells Docker clients that they speak to a registry.
const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// What the answers depend on besides the store.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Bytes of a manifest.
    pub manifest_size_max: u64,
    /// Whether anything can be deleted.
    pub allows_delete: bool,
    /// Whether names need a namespace and a path.
    pub needs_namespace: bool,
    /// Which tags are kept, and which cannot be moved.
    pub retention: Retention,
}

/// What all threads share.
pub struct Shared {
    /// What the answers depend on.
    pub rules: Rules,
    /// Finds out who callers are.
    pub authenticator: Authenticator,
    /// Says what they may do.
    pub policy: AccessPolicy,
    /// What the cluster says, where there is one.
    pub authority: Arc<Authority>,
    /// Collection, read-only mode, integrity.
    pub administration: Administration,
    /// Counts.
    pub metrics: Metrics,
    /// What is nobody else's business.
    pub internals: Internals,
    /// Connections of all threads.
    pub connections: AtomicUsize,
    /// Set when the program is about to end.
    pub is_stopping: AtomicBool,
}

/// The registry on one thread.
pub struct Registry {
    core: Core,
    shared: Arc<Shared>,
    next_id: Cell<u64>,
}

/// What is shared and nobody else's business.
#[derive(Default)]
pub struct Internals {
    memory: memory::Memory,
}

/// A request whose sender is known.
struct Call<'a, 'r> {
    core: &'a Core,
    shared: &'a Shared,
    identity: Identity,
    request: Request<'r>,
}

impl Registry {
    /// The registry on the thread of `core`. `first_id`: where the names of its requests begin; random, so that
    /// they differ between threads and processes.
    pub fn new(core: Core, shared: Arc<Shared>, first_id: u64) -> Self {
        Self { core, shared, next_id: Cell::new(first_id) }
    }

    async fn answer(&self, request: Request<'_>) -> Response {
        let started = std::time::Instant::now();
        let (id, method, path) = (request.id, request.method.clone(), request.path.clone());
        let route = Route::parse(&path);
        let label = Route::label(route.as_ref().ok());
        let answered = self.dispatch(route, request).await;
        let mut response = match answered.and_then(|response| self.shared.internals.memory.bound(response)) {
            Ok(response) => response,
            Err(refusal) => {
                if refusal.is_alarming() {
                    tracing::error!(request = %id, %method, path, error = refusal.message(), "a request failed");
                }
                refusal.into_response()
            }
        };
        response.headers.insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
        let elapsed = started.elapsed();
        self.shared.metrics.answered(label, response.status, elapsed);
        tracing::debug!(
            request = %id, %method, path, status = response.status.as_u16(), bytes = response.body.len(),
            microseconds = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX), "answered"
        );
        response
    }

    async fn dispatch(
        &self,
        route: Result<Route, Refusal>,
        request: Request<'_>,
    ) -> Result<Response, Refusal> {
        // These must be answered whatever happens to logins.
        match &route {
            Ok(Route::Health) => return only_get(&request.method, health::alive),
            Ok(Route::Ready) => return only_get(&request.method, || health::ready(&self.core, &self.shared)),
            Ok(Route::Metrics) => {
                let render = || self.shared.metrics.render(&self.core, &self.shared.authority);
                return only_get(&request.method, render);
            }
            Ok(Route::Administration(call)) => return Ok(self.administer(call, request).await),
            _ => {}
        }
        if request.path == login::TOKEN_PATH && self.shared.authenticator.has_logins() {
            return self.token(request).await;
        }
        let identity = self.authenticate(&request).await?;
        let call = Call { core: &self.core, shared: &self.shared, identity, request };
        let route = route?;
        let method = call.request.method.clone();
        let _write = match method {
            Method::GET | Method::HEAD => None,
            _ => Some(self.core.begin_write()?),
        };
        match (route, &method) {
            (Route::Base, &Method::GET | &Method::HEAD) => call.base(),
            (Route::Catalog, &Method::GET | &Method::HEAD) => call.catalog(),
            (Route::Tags(name), &Method::GET | &Method::HEAD) => call.tags(&name),
            (Route::Manifest(name, reference), &Method::GET | &Method::HEAD) => {
                call.pull_manifest(&name, &reference).await
            }
            (Route::Manifest(name, reference), &Method::PUT) => call.put_manifest(name, reference).await,
            (Route::Manifest(name, reference), &Method::DELETE) => {
                call.delete_manifest(name, reference).await
            }
            (Route::Blob(name, digest), &Method::GET | &Method::HEAD) => call.pull_blob(&name, &digest).await,
            (Route::Blob(name, digest), &Method::DELETE) => call.delete_blob(name, digest).await,
            (Route::Uploads(name), &Method::POST) => call.start_upload(name).await,
            (Route::Upload(name, id), &Method::GET | &Method::HEAD) => call.upload_status(&name, id).await,
            (Route::Upload(name, id), &Method::PATCH) => call.append(&name, id).await,
            (Route::Upload(name, id), &Method::PUT) => call.finish_upload(&name, id).await,
            (Route::Upload(name, id), &Method::DELETE) => call.cancel_upload(&name, id).await,
            (Route::Referrers(name, digest), &Method::GET | &Method::HEAD) => {
                call.referrers(&name, &digest).await
            }
            (route, _) => {
                if !call.shared.policy.may_see_catalog(&call.identity) {
                    call.base()?;
                }
                Err(wrong_method(&method, allowed_methods(&route)))
            }
        }
    }
}

impl Service for Registry {
    fn call<'a>(&'a self, request: Request<'a>) -> LocalFuture<'a, Response> {
        Box::pin(self.answer(request))
    }

    fn refuse(&self, id: RequestId, status: StatusCode, message: &str) -> Response {
        tracing::debug!(request = %id, status = status.as_u16(), message, "a request that cannot be understood");
        self.shared.metrics.answered(Route::label(None), status, std::time::Duration::ZERO);
        let code = if status.is_server_error() { Code::Unavailable } else { Code::Unsupported };
        Refusal::new(status, code, message).into_response()
    }

    fn next_id(&self) -> RequestId {
        let id = self.next_id.get();
        self.next_id.set(id.wrapping_add(1));
        RequestId(id)
    }

    fn is_stopping(&self) -> bool {
        self.shared.is_stopping.load(Ordering::Relaxed)
    }
}

/// An error where the cluster has no namespace for `action`: to delete takes one that exists, and to push one that is not
/// being deleted.
fn require_namespace(
    authority: &Authority,
    repository: &RepositoryName,
    action: Action,
) -> Result<(), Refusal> {
    if !authority.is_enabled() || action == Action::Pull {
        return Ok(());
    }
    let namespace = repository.namespace();
    let detail = json!({"name": repository.as_str(), "namespace": namespace});
    match authority.namespace(namespace) {
        NamespaceState::Active => Ok(()),
        NamespaceState::Terminating if action == Action::Delete => Ok(()),
        NamespaceState::Terminating => {
            let message = format!("the namespace {namespace} is being deleted, and takes nothing new");
            Err(Refusal::new(StatusCode::FORBIDDEN, Code::Denied, message).about(detail))
        }
        NamespaceState::Missing => {
            let hint = if action == Action::Push { "; create it first" } else { "" };
            let message = format!("there is no namespace {namespace} in the cluster{hint}");
            Err(Refusal::not_found(Code::NameUnknown, message).about(detail))
        }
        NamespaceState::Unknown => Err(Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            Code::Unavailable,
            "it is not known yet which namespaces the cluster has; try again in a few seconds",
        )),
    }
}

/// 503: the caller is held to rules that nobody has brought yet.
fn unknown_rules() -> Refusal {
    Refusal::new(
        StatusCode::SERVICE_UNAVAILABLE,
        Code::Unavailable,
        "the access rules of the cluster are not known yet; try again in a few seconds",
    )
}

fn allowed_methods(route: &Route) -> &'static str {
    match route {
        Route::Manifest(..) => "GET, HEAD, PUT, DELETE",
        Route::Blob(..) => "GET, HEAD, DELETE",
        Route::Uploads(_) => "POST",
        Route::Upload(..) => "GET, HEAD, PATCH, PUT, DELETE",
        _ => "GET, HEAD",
    }
}

fn wrong_method(method: &Method, allowed: &'static str) -> Refusal {
    let message = format!("{method} means nothing here; what works is {allowed}");
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, Code::Unsupported, message).with(ALLOW, allowed)
}

fn only_get(method: &Method, answer: impl FnOnce() -> Response) -> Result<Response, Refusal> {
    match *method {
        Method::GET | Method::HEAD => Ok(answer()),
        _ => Err(wrong_method(method, "GET, HEAD")),
    }
}

impl Call<'_, '_> {
    /// GET /v2/ (end-1).
    fn base(&self) -> Result<Response, Refusal> {
        // Clients decide by this answer how to log in, if they are to at all. One that has a token has been asked.
        let is_asked = self.shared.has_both_kinds() && !self.request.headers.contains_key(AUTHORIZATION);
        if is_asked || !self.shared.policy.may_see_catalog(&self.identity) {
            return Err(self.shared.unauthorized(
                &self.request.headers,
                None,
                "log in, or get a token without",
            ));
        }
        Ok(Response::new(StatusCode::OK).with_body("application/json", "{}"))
    }

    /// An error unless the caller may do `action` to the repository.
    fn require(&self, repository: &RepositoryName, action: Action) -> Result<(), Refusal> {
        let verb = match action {
            Action::Pull => "pull from",
            Action::Push => "push to",
            Action::Delete => "delete from",
        };
        match self.shared.policy.decide(&self.identity, repository, action) {
            Decision::Allowed => Ok(()),
            Decision::Unknown => Err(unknown_rules()),
            Decision::Denied if self.identity.is_authenticated() => {
                let message =
                    format!("{} may not {verb} {repository}; ask whoever runs this registry", self.identity);
                let detail = json!({"name": repository.as_str(), "action": verb});
                Err(Refusal::new(StatusCode::FORBIDDEN, Code::Denied, message).about(detail))
            }
            Decision::Denied => {
                let message = format!("log in to {verb} {repository}");
                Err(self.shared.unauthorized(&self.request.headers, Some((repository, action)), &message))
            }
        }
    }

    /// An error unless a repository of this name may be pushed to, by whomever.
    fn require_storable(&self, repository: &RepositoryName) -> Result<(), Refusal> {
        if self.shared.rules.needs_namespace && repository.path().is_empty() {
            let message = format!(
                "{repository} has no namespace: push to <namespace>/<image>, for example library/{repository}"
            );
            return Err(Refusal::bad_request(Code::NameInvalid, message));
        }
        require_namespace(&self.shared.authority, repository, Action::Push)
    }

    /// An error where the volume has no room for `expected` more bytes.
    fn require_room(&self, expected: u64) -> Result<(), Refusal> {
        if self.core.has_room(expected)? { Ok(()) } else { Err(EngineError::Full.into()) }
    }

    /// The repository and a view of it; an error where there is none.
    fn repository(&self, name: &RepositoryName, code: Code) -> Result<(Snapshot, RepositoryId), Refusal> {
        let snapshot = self.core.metadata().snapshot()?;
        match snapshot.repository(name)? {
            Some(repository) => Ok((snapshot, repository)),
            None => {
                let message = format!("there is no repository {name}");
                Err(Refusal::not_found(code, message).about(json!({"name": name.as_str()})))
            }
        }
    }

    fn is_head(&self) -> bool {
        self.request.method == Method::HEAD
    }
}
