use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::failure::Failure;
use super::rbac::{self, Attributes};
use super::resource::Resource;
use super::selector::Selector;
use super::store::Key;
use super::trouble::Trouble;
use super::user::User;
use super::watch::Watch;
use super::{Seen, State, discovery, metadata_only, patch};

pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Answers one request; an error ends the connection.
pub(super) async fn answer(state: Arc<State>, request: Request<Incoming>) -> io::Result<Response<Body>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    match route(&state, Request::from_parts(head, body)).await {
        Ok(Answered::Response(response)) => Ok(response),
        Ok(Answered::Nothing) => Err(io::ErrorKind::ConnectionReset.into()),
        Err(failure) => Ok(document(failure.code, &failure.status())),
    }
}

enum Answered {
    Response(Response<Body>),
    Nothing,
}

impl From<Value> for Answered {
    fn from(value: Value) -> Self {
        Self::Response(document(200, &value))
    }
}

async fn route(state: &Arc<State>, request: Request<Bytes>) -> Result<Answered, Failure> {
    let path = request.uri().path().to_owned();
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    if let ["healthz" | "livez" | "readyz"] = segments[..] {
        return Ok(Answered::Response(plain(200, "ok")));
    }
    let user = authenticate(state, request.headers())?;
    let target = match segments[..] {
        ["api", version, ref rest @ ..] if !rest.is_empty() => Target::parse("", version, rest),
        ["apis", group, version, ref rest @ ..] if !rest.is_empty() => Target::parse(group, version, rest),
        _ => return document_of_discovery(state, &user, &segments, request).await,
    };
    target.answer(state, &user, request).await
}

/// Who asks: by bearer token, and on whose behalf.
fn authenticate(state: &State, headers: &HeaderMap) -> Result<User, Failure> {
    let unauthorized = || Failure::new(401, "Unauthorized");
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let Some(authorization) = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()) else {
        return Ok(User {
            name: "system:anonymous".into(),
            groups: vec!["system:unauthenticated".into()],
            ..User::default()
        });
    };
    let token = authorization.strip_prefix("Bearer ").ok_or_else(unauthorized)?;
    let (user, _) = state.tokens.review(&state.store, token, &[]).map_err(|_| unauthorized())?;
    let Some(name) = text("impersonate-user") else { return Ok(user) };
    let attributes = Attributes { verb: "impersonate", group: "", resource: "users", namespace: None, name };
    if !rbac::is_allowed(&state.store, &user, &attributes) {
        return Err(Failure::new(403, format!("User \"{}\" cannot impersonate {name}", user.name)));
    }
    let groups = headers.get_all("impersonate-group").iter();
    let groups: Vec<&str> = groups.filter_map(|value| value.to_str().ok()).collect();
    Ok(User::new(name, &groups))
}

async fn document_of_discovery(
    state: &Arc<State>,
    user: &User,
    segments: &[&str],
    request: Request<Bytes>,
) -> Result<Answered, Failure> {
    let accept = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_aggregated = discovery::takes_aggregated(accept);
    let aggregated = |value: &Value| {
        let mut response = document(200, value);
        response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(discovery::AGGREGATED));
        Answered::Response(response)
    };
    match segments {
        ["version"] => Ok(json!({
            "major": "1", "minor": "33", "gitVersion": "v1.33.0", "gitCommit": "0", "gitTreeState": "clean",
            "buildDate": "2025-01-01T00:00:00Z", "goVersion": "go1.24", "compiler": "gc", "platform": "linux/amd64",
        })
        .into()),
        ["api"] if is_aggregated => Ok(aggregated(&discovery::aggregated(true))),
        ["api"] => Ok(json!({"kind": "APIVersions", "versions": ["v1"]}).into()),
        ["apis"] if is_aggregated => {
            let mut document = discovery::aggregated(false);
            let others = state.others_discovery().await;
            document["items"].as_array_mut().expect("a list").extend(others);
            Ok(aggregated(&document))
        }
        ["apis"] => {
            let mut groups = discovery::groups();
            let others = state.aggregated_versions();
            groups.extend(others.iter().map(|(group, version)| discovery::api_group(group, version)));
            Ok(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}).into())
        }
        ["api", version] => resources("", version),
        ["apis", group] => {
            let mut groups = discovery::groups();
            let others = state.aggregated_versions();
            groups.extend(others.iter().map(|(group, version)| discovery::api_group(group, version)));
            let mut found = groups.into_iter().find(|found| found["name"] == *group).ok_or_else(not_found)?;
            found["kind"] = "APIGroup".into();
            found["apiVersion"] = "v1".into();
            Ok(found.into())
        }
        ["apis", group, version] if state.is_aggregated(group, version) => {
            state.forward(group, version, user, request).await.map(Answered::Response)
        }
        ["apis", group, version] => resources(group, version),
        ["openapi", "v3"] => {
            let mut paths = serde_json::Map::new();
            for (group, version) in state.aggregated_versions() {
                if let Some(document) = state.ask(&group, &version, "/openapi/v3", "").await {
                    paths.extend(document["paths"].as_object().cloned().unwrap_or_default());
                }
            }
            Ok(json!({"paths": paths}).into())
        }
        ["openapi", "v3", "apis", group, version] if state.is_aggregated(group, version) => {
            state.forward(group, version, user, request).await.map(Answered::Response)
        }
        // Kubernetes merges the documents of all; here is one alone.
        ["openapi", "v2"] => match state.aggregated_versions().first() {
            Some((group, version)) => {
                let aggregator = User { name: "system:aggregator".into(), ..User::default() };
                state.forward(group, version, &aggregator, request).await.map(Answered::Response)
            }
            None => Err(not_found()),
        },
        _ => Err(not_found()),
    }
}

fn resources(group: &str, version: &str) -> Result<Answered, Failure> {
    discovery::resource_list(group, version).map(Answered::from).ok_or_else(not_found)
}

fn not_found() -> Failure {
    Failure::new(404, "the server could not find the requested resource")
}

/// What a path is about.
struct Target<'a> {
    group: &'a str,
    version: &'a str,
    namespace: Option<&'a str>,
    plural: &'a str,
    name: Option<&'a str>,
    sub: Option<&'a str>,
}

impl<'a> Target<'a> {
    /// Reads what comes behind group and version.
    fn parse(group: &'a str, version: &'a str, rest: &[&'a str]) -> Self {
        let (namespace, rest) = match rest {
            ["namespaces", namespace, plural, rest @ ..] if !["status", "finalize"].contains(plural) => {
                (Some(*namespace), [&[*plural], rest].concat())
            }
            _ => (None, rest.to_vec()),
        };
        let at = |index: usize| rest.get(index).copied();
        Self { group, version, namespace, plural: rest[0], name: at(1), sub: at(2) }
    }

    async fn answer(
        &self,
        state: &Arc<State>,
        user: &User,
        request: Request<Bytes>,
    ) -> Result<Answered, Failure> {
        let query: BTreeMap<String, String> =
            form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes())
                .into_owned()
                .collect();
        let is_watch = query.get("watch").is_some_and(|value| value == "true" || value == "1");
        let verb = match (request.method(), self.name) {
            (&Method::GET, None) if is_watch => "watch",
            (&Method::GET, None) => "list",
            (&Method::GET, Some(_)) => "get",
            (&Method::POST, _) => "create",
            (&Method::PUT, Some(_)) => "update",
            (&Method::PATCH, Some(_)) => "patch",
            (&Method::DELETE, Some(_)) => "delete",
            (&Method::DELETE, None) => "deletecollection",
            _ => {
                return Err(Failure::new(
                    405,
                    "the server does not allow this method on the requested resource",
                ));
            }
        };
        state.see(Seen {
            verb: verb.into(),
            resource: self.resource_with_sub(),
            namespace: self.namespace.map(str::to_owned),
            name: self.name.map(str::to_owned),
            user: user.name.clone(),
        });
        match state.troubles.of(verb, self.plural) {
            Some(Trouble::Status(status)) => return Err(Failure::new(status, "trouble was asked for")),
            Some(Trouble::Reset) => return Ok(Answered::Nothing),
            Some(Trouble::Hang) => {
                // Whoever waits goes away before that, or the cluster does.
                std::future::pending::<()>().await;
            }
            None => {}
        }
        let fields = query.get("fieldSelector").map_or("", String::as_str);
        self.authorize(state, user, verb, fields)?;
        if state.is_aggregated(self.group, self.version) {
            return state.forward(self.group, self.version, user, request).await.map(Answered::Response);
        }
        let (head, body) = request.into_parts();
        let body = if body.is_empty() { Value::Null } else { parse(&body)? };
        if let Some(answer) = self.review(state, user, &body)? {
            return Ok(Answered::Response(document(201, &answer)));
        }
        let resource = Resource::find(self.group, self.version, self.plural).ok_or_else(not_found)?;
        let accept = head.headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let is_metadata_only =
            accept.split(',').next().is_some_and(|first| first.contains("as=PartialObjectMetadata"));
        let selected = |name: &str| query.get(name).map_or("", String::as_str);
        let selector = Selector::parse(selected("fieldSelector"), selected("labelSelector"))?;
        if verb == "watch" {
            let version = selected("resourceVersion");
            let sends_initial_end = selected("sendInitialEvents") == "true";
            let after =
                (!sends_initial_end && !["", "0"].contains(&version)).then(|| version.parse().unwrap_or(0));
            let watch = Watch {
                resource,
                namespace: self.namespace.map(str::to_owned),
                selector,
                after,
                sends_initial_end,
                wants_bookmarks: selected("allowWatchBookmarks") == "true",
                is_metadata_only,
                seconds: selected("timeoutSeconds").parse().unwrap_or(1800),
            };
            let stream = futures::StreamExt::map(watch.stream(Arc::clone(state))?, |frame| {
                frame.map_err(|never| match never {})
            });
            let response = Response::builder().header(CONTENT_TYPE, "application/json");
            let response = response.body(StreamBody::new(stream).boxed_unsync()).expect("a response");
            return Ok(Answered::Response(response));
        }
        let answer = match verb {
            "list" => self.list(state, resource, &selector, &query, is_metadata_only)?,
            "deletecollection" => {
                let list = self.list(state, resource, &selector, &BTreeMap::new(), false)?;
                for object in list["items"].as_array().into_iter().flatten() {
                    let text = |name: &str| object["metadata"][name].as_str().unwrap_or_default();
                    state.store.remove(Key::new(resource, text("namespace"), text("name")));
                }
                list
            }
            _ => {
                let object = self.change(state, resource, verb, &head.headers, body, &query)?;
                if is_metadata_only { metadata_only(&object) } else { object }
            }
        };
        let status = if verb == "create" { 201 } else { 200 };
        Ok(Answered::Response(document(status, &answer)))
    }

    fn resource_with_sub(&self) -> String {
        match self.sub {
            Some(sub) => format!("{}/{sub}", self.plural),
            None => self.plural.to_owned(),
        }
    }

    fn authorize(&self, state: &State, user: &User, verb: &str, fields: &str) -> Result<(), Failure> {
        // Everybody may ask about themselves, as `system:basic-user` says.
        if self.plural.starts_with("selfsubject") {
            return Ok(());
        }
        let resource = self.resource_with_sub();
        let namespace = self.namespace.or(if self.plural == "namespaces" { self.name } else { None });
        // Whoever lists one name alone needs the right to that one.
        let selected = fields.split(',').find_map(|field| field.strip_prefix("metadata.name="));
        let attributes = Attributes {
            verb,
            group: self.group,
            resource: &resource,
            namespace,
            name: self.name.or(selected).unwrap_or_default(),
        };
        if rbac::is_allowed(&state.store, user, &attributes) {
            return Ok(());
        }
        Err(Failure::new(
            403,
            format!(
                "{resource}.{} is forbidden: User \"{}\" cannot {verb} resource \"{resource}\" in API group \"{}\" in \
                 the namespace {namespace:?}",
                self.group, user.name, self.group
            ),
        ))
    }

    /// Answers what is no object but a question.
    fn review(&self, state: &State, user: &User, body: &Value) -> Result<Option<Value>, Failure> {
        let answer = match (self.plural, self.sub) {
            ("tokenreviews", None) => state.tokens.answer_review(&state.store, body.clone()),
            ("serviceaccounts", Some("token")) => {
                let (namespace, name) = (self.namespace.unwrap_or_default(), self.name.unwrap_or_default());
                state.tokens.answer_request(&state.store, namespace, name, body.clone())?
            }
            ("selfsubjectaccessreviews", None) => {
                let asked = &body["spec"]["resourceAttributes"];
                let text = |name: &str| asked[name].as_str().unwrap_or_default();
                let attributes = Attributes {
                    verb: text("verb"),
                    group: text("group"),
                    resource: text("resource"),
                    namespace: asked["namespace"].as_str(),
                    name: text("name"),
                };
                let mut answer = body.clone();
                answer["status"] = json!({"allowed": rbac::is_allowed(&state.store, user, &attributes)});
                answer
            }
            _ => return Ok(None),
        };
        Ok(Some(answer))
    }

    fn list(
        &self,
        state: &State,
        resource: &'static Resource,
        selector: &Selector,
        query: &BTreeMap<String, String>,
        is_metadata_only: bool,
    ) -> Result<Value, Failure> {
        let (objects, version) = state.store.list(resource, self.namespace);
        let mut objects: Vec<Value> = objects.into_iter().filter(|object| selector.matches(object)).collect();
        // The token of the next page is how many came before; what changes meanwhile is not this double's business.
        let before: usize = query.get("continue").and_then(|token| token.parse().ok()).unwrap_or(0);
        let limit: usize = query.get("limit").and_then(|limit| limit.parse().ok()).unwrap_or(0);
        objects.drain(..before.min(objects.len()));
        let mut metadata = json!({"resourceVersion": version.to_string()});
        if limit > 0 && objects.len() > limit {
            objects.truncate(limit);
            metadata["continue"] = (before + limit).to_string().into();
        }
        let (api_version, kind) = match is_metadata_only {
            true => ("meta.k8s.io/v1".to_owned(), "PartialObjectMetadataList".to_owned()),
            false => (resource.api_version(), format!("{}List", resource.kind)),
        };
        if is_metadata_only {
            objects = objects.iter().map(metadata_only).collect();
        }
        Ok(json!({"apiVersion": api_version, "kind": kind, "metadata": metadata, "items": objects}))
    }

    /// Everything that is about one object.
    fn change(
        &self,
        state: &State,
        resource: &'static Resource,
        verb: &str,
        headers: &HeaderMap,
        body: Value,
        query: &BTreeMap<String, String>,
    ) -> Result<Value, Failure> {
        let dry_run = query.get("dryRun").is_some_and(|value| value == "All");
        let namespace = self.namespace.unwrap_or_default();
        let name = self.name.map_or_else(|| named(&body), |name| Ok(name.to_owned()))?;
        let key = Key::new(resource, namespace, &name);
        match verb {
            "get" => state.store.get(&key),
            "create" => {
                let mut body = body;
                body["apiVersion"] = resource.api_version().into();
                body["kind"] = resource.kind.into();
                state.store.create(key, body, dry_run)
            }
            "update" => {
                let with_kind = |mut body: Value| {
                    body["apiVersion"] = resource.api_version().into();
                    body["kind"] = resource.kind.into();
                    body
                };
                state.store.update(key, dry_run, |_| Ok(with_kind(body)))
            }
            "patch" => {
                let kind =
                    headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
                if kind == "application/apply-patch+yaml" {
                    let created = state.store.create(key.clone(), body.clone(), dry_run);
                    if created.as_ref().err().is_none_or(|failure| failure.code != 409) {
                        return created;
                    }
                }
                state.store.update(key, dry_run, |object| patch::apply(kind, object, &body))
            }
            "delete" => {
                let dry_run = dry_run || body["dryRun"].as_array().is_some_and(|values| !values.is_empty());
                let object = state.store.delete(key, &body["preconditions"], dry_run)?;
                Ok(match resource.plural {
                    "namespaces" => object,
                    _ => json!({
                        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
                        "details": {"name": name, "kind": resource.plural, "uid": object["metadata"]["uid"]},
                    }),
                })
            }
            _ => Err(Failure::new(405, "the server does not allow this method on the requested resource")),
        }
    }
}

/// The name of an object to be created.
fn named(body: &Value) -> Result<String, Failure> {
    static GENERATED: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let metadata = &body["metadata"];
    match (metadata["name"].as_str(), metadata["generateName"].as_str()) {
        (Some(name), _) => Ok(name.to_owned()),
        (None, Some(prefix)) => {
            let number = GENERATED.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Ok(format!("{prefix}{number:05}"))
        }
        (None, None) => Err(Failure::new(422, "metadata.name: Required value")),
    }
}

fn parse(body: &Bytes) -> Result<Value, Failure> {
    if body.starts_with(b"k8s\0") {
        return Err(Failure::new(415, "the double reads no protobuf"));
    }
    let json = serde_json::from_slice(body);
    // An apply's body may be YAML.
    json.or_else(|_| serde_saphyr::from_slice(body)).map_err(|e| Failure::new(400, format!("the body: {e}")))
}

pub(super) fn document(status: u16, value: &Value) -> Response<Body> {
    let mut response = plain(status, &value.to_string());
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}

pub(super) fn plain(status: u16, text: &str) -> Response<Body> {
    let body = Full::new(Bytes::from(text.to_owned())).map_err(|never| match never {});
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
}
