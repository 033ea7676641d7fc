//! A Kubernetes API server's double: a small real HTTPS server that keeps objects in memory and does what the component
//! asks of a cluster, trouble included, and what `kubectl` asks beside it.
//!
//! It checks tokens and RBAC as the real one does, so that the manifests' own roles are what the component runs with, and
//! forwards aggregated APIs by their `APIService` ([`FrontProxy`]). It has no controllers: tests play those.

mod discovery;
mod failure;
mod patch;
mod rbac;
mod resource;
mod selector;
mod serve;
mod store;
mod tokens;
mod trouble;
mod user;
mod watch;

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt as _;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch as tokio_watch;
use tokio_rustls::TlsAcceptor;

use crate::authority::{Authority, Certificate};
use crate::front_proxy::{FrontProxy, Settings};
use crate::runtime;

use failure::Failure;
use resource::Resource;
use store::{Key, Store};
pub use tokens::API_AUDIENCE;
use tokens::Tokens;
pub use trouble::Trouble;
use trouble::Troubles;
pub use user::User;

/// The common name of the front proxy's client certificate.
pub const FRONT_PROXY_NAME: &str = "front-proxy-client";

/// Seconds that the tokens of tests are good for.
const TOKEN_SECONDS: u64 = 3600;

/// A running cluster. Dropping it ends it.
#[derive(Debug)]
pub struct Cluster {
    state: Arc<State>,
    /// The authority of the API server's own certificate.
    authority: Authority,
    front_proxy_authority: Mutex<Authority>,
    address: SocketAddr,
    /// Whether it takes connections; gone when it ends.
    is_there: tokio_watch::Sender<bool>,
    dir: TempDir,
}

/// A request that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What it does, as rules name it.
    pub verb: String,
    /// The resource, with its sub-resource: `serviceaccounts/token`.
    pub resource: String,
    /// The namespace in its path.
    pub namespace: Option<String>,
    /// The object's name in its path.
    pub name: Option<String>,
    /// Who asked.
    pub user: String,
}

/// What all connections share.
#[derive(Debug)]
struct State {
    store: Store,
    tokens: Tokens,
    troubles: Troubles,
    /// Changes when all watches are to end.
    watch_epoch: tokio_watch::Sender<u64>,
    seen: Mutex<Vec<Seen>>,
    aggregation: Mutex<Aggregation>,
}

/// Where aggregated APIs are.
#[derive(Debug)]
struct Aggregation {
    /// By `namespace/service`.
    addresses: HashMap<String, SocketAddr>,
    certificate: Certificate,
    is_http2: bool,
    /// By group and version, with what they were made of.
    proxies: HashMap<(String, String), (String, Arc<FrontProxy>)>,
}

impl Cluster {
    /// Starts a cluster that has what every cluster has: its namespaces, and where to read whom a front proxy is signed by.
    pub fn start() -> Self {
        let authority = Authority::new("kubernetes-ca");
        let front_proxy_authority = Authority::new("front-proxy-ca");
        let state = Arc::new(State {
            store: Store::new(),
            tokens: Tokens::default(),
            troubles: Troubles::default(),
            watch_epoch: tokio_watch::Sender::new(0),
            seen: Mutex::default(),
            aggregation: Mutex::new(Aggregation {
                addresses: HashMap::new(),
                certificate: front_proxy_authority.issue_client(FRONT_PROXY_NAME),
                is_http2: true,
                proxies: HashMap::new(),
            }),
        });
        let (is_there, control) = tokio_watch::channel(true);
        let certificate = authority.issue_server(&["localhost", "127.0.0.1", "kubernetes.default.svc"]);
        let address = runtime().block_on(listen(Arc::clone(&state), certificate, control));
        let dir = TempDir::with_prefix("payload-registry-cluster-").expect("a directory for the cluster");
        let front_proxy_authority = Mutex::new(front_proxy_authority);
        let cluster = Self { state, authority, front_proxy_authority, address, is_there, dir };
        for namespace in ["default", "kube-system", "kube-public"] {
            cluster.create_namespace(namespace);
        }
        cluster.apply(json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": {"name": "extension-apiserver-authentication-reader", "namespace": "kube-system"},
            "rules": [{
                "apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch"],
                "resourceNames": ["extension-apiserver-authentication"],
            }],
        }));
        let front_proxy = cluster.front_proxy_authority().pem();
        cluster.trust_front_proxies(&front_proxy, &[FRONT_PROXY_NAME]);
        cluster
    }

    /// The authority that the API server's own certificate is from, in PEM.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// A directory that lasts as long as the cluster.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Writes a kubeconfig for somebody, with a token.
    pub fn kubeconfig(&self, user: &User) -> PathBuf {
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "double",
            "contexts": [{"name": "double", "context": {"cluster": "double", "user": "user", "namespace": "default"}}],
            "clusters": [{"name": "double", "cluster": {
                "server": format!("https://localhost:{}", self.address.port()),
                "certificate-authority-data": base64(&self.authority.pem()),
            }}],
            "users": [{"name": "user", "user": {"token": self.token(user)}}],
        });
        let name: String =
            user.name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let path = self.dir().join(format!("{name}.kubeconfig"));
        crate::authority::replace_file(&path, &config.to_string());
        path
    }

    /// A token for the API.
    pub fn token(&self, user: &User) -> String {
        self.token_for(user, &[API_AUDIENCE], TOKEN_SECONDS)
    }

    /// A token for those audiences, good for so many seconds.
    pub fn token_for(&self, user: &User, audiences: &[&str], seconds: u64) -> String {
        let audiences = audiences.iter().map(|&audience| audience.to_owned()).collect();
        self.state.tokens.add(user.clone(), audiences, seconds)
    }

    /// Makes a token worthless.
    pub fn revoke(&self, token: &str) {
        self.state.tokens.revoke(token);
    }

    /// Reviews a token as the API does: who it is of, where it is good for one of the audiences.
    pub fn review(&self, token: &str, audiences: &[&str]) -> Option<User> {
        let audiences: Vec<String> = audiences.iter().map(|&audience| audience.to_owned()).collect();
        self.state.tokens.review(&self.state.store, token, &audiences).ok().map(|(user, _)| user)
    }

    /// Lets tokens of service accounts live for so many seconds at most, whatever is asked for.
    pub fn limit_token_lifetime(&self, seconds: Option<u64>) {
        self.state.tokens.limit_lifetime(seconds);
    }

    /// Creates an object, or puts it in place of the one that is there, and gives what became of it.
    #[track_caller]
    pub fn apply(&self, object: Value) -> Value {
        let key = key_of(&object);
        let replaced = self.state.store.update(key.clone(), false, |_| Ok(object.clone()));
        let applied = replaced.or_else(|_| self.state.store.create(key.clone(), object, false));
        match applied {
            Ok(object) => object,
            Err(failure) => panic!("{key:?}: {failure:?}"),
        }
    }

    /// An object.
    pub fn get(&self, api_version: &str, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        let key = key_of(&json!({
            "apiVersion": api_version, "kind": kind, "metadata": {"name": name, "namespace": namespace},
        }));
        self.state.store.get(&key).ok()
    }

    /// Removes an object at once, whatever it is.
    pub fn remove(&self, api_version: &str, kind: &str, namespace: &str, name: &str) {
        let object = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "namespace": namespace}});
        self.state.store.remove(key_of(&object));
    }

    /// Creates a namespace.
    pub fn create_namespace(&self, name: &str) {
        self.apply(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}));
    }

    /// Marks a namespace as one that is being deleted.
    pub fn terminate_namespace(&self, name: &str) {
        let key = key_of(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}));
        self.state.store.delete(key, &Value::Null, false).map(drop).expect("a namespace to delete");
    }

    /// Removes a namespace with all that the cluster itself has in it.
    pub fn remove_namespace(&self, name: &str) {
        self.state.store.remove_content(name);
        self.remove("v1", "Namespace", "", name);
    }

    /// Lets subjects do something with repositories in a namespace, by a role and a binding of that name.
    pub fn grant(&self, namespace: &str, name: &str, subject: &User, verbs: &[&str], patterns: &[&str]) {
        self.apply(json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": {"name": name, "namespace": namespace},
            "rules": [{
                "apiGroups": ["payload-registry.deckhouse.io"], "resources": ["payloadrepositoryaccesses"],
                "verbs": verbs, "resourceNames": patterns,
            }],
        }));
        self.apply(json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": name, "namespace": namespace},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": subject.name}],
        }));
    }

    /// Says where the pods of a service are.
    pub fn route(&self, namespace: &str, service: &str, address: SocketAddr) {
        self.aggregation().addresses.insert(format!("{namespace}/{service}"), address);
    }

    /// Whether aggregated APIs are spoken to by HTTP/2, which is the default, or HTTP/1.1.
    pub fn forward_by_http2(&self, is_http2: bool) {
        let mut aggregation = self.aggregation();
        aggregation.is_http2 = is_http2;
        aggregation.proxies.clear();
    }

    /// The front proxy's certificate.
    pub fn front_proxy_certificate(&self) -> Certificate {
        self.aggregation().certificate.clone()
    }

    /// The authority that the front proxy's certificate is from.
    pub fn front_proxy_authority(&self) -> MutexGuard<'_, Authority> {
        self.front_proxy_authority.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the front proxy a certificate of another authority. Who trusts it is another matter.
    pub fn replace_front_proxy(&self, authority: Authority) {
        let mut aggregation = self.aggregation();
        aggregation.certificate = authority.issue_client(FRONT_PROXY_NAME);
        aggregation.proxies.clear();
        *self.front_proxy_authority() = authority;
    }

    /// Publishes which authorities (PEM) and which names front proxies have, where aggregated APIs look for it.
    pub fn trust_front_proxies(&self, authorities: &str, names: &[&str]) {
        self.apply(json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "extension-apiserver-authentication", "namespace": "kube-system"},
            "data": {
                "client-ca-file": self.authority.pem(),
                "requestheader-client-ca-file": authorities,
                "requestheader-allowed-names": json!(names).to_string(),
                "requestheader-username-headers": r#"["X-Remote-User"]"#,
                "requestheader-group-headers": r#"["X-Remote-Group"]"#,
                "requestheader-extra-headers-prefix": r#"["X-Remote-Extra-"]"#,
            },
        }));
    }

    /// Lets requests run into trouble, until [`Self::heal`]: `*` all of them, `<resource>` those for one, `<verb> <resource>`
    /// some of those.
    pub fn disturb(&self, requests: &str, trouble: Trouble) {
        self.state.troubles.set(requests, Some(trouble));
    }

    /// Ends that.
    pub fn heal(&self, requests: &str) {
        self.state.troubles.set(requests, None);
    }

    /// Ends all connections and refuses new ones, until [`Self::come_back`].
    pub fn go_away(&self) {
        self.is_there.send_replace(false);
    }

    /// Takes connections again.
    pub fn come_back(&self) {
        self.is_there.send_replace(true);
    }

    /// Ends all watches, as happens now and then.
    pub fn end_watches(&self) {
        self.state.watch_epoch.send_modify(|epoch| *epoch += 1);
    }

    /// Forgets which changes there were: watches from before get 410.
    pub fn forget_history(&self) {
        self.state.store.forget();
    }

    /// The requests that came so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many requests came for a resource.
    pub fn count(&self, verb: &str, resource: &str) -> usize {
        self.seen().iter().filter(|seen| seen.verb == verb && seen.resource == resource).count()
    }

    fn aggregation(&self) -> MutexGuard<'_, Aggregation> {
        self.state.aggregation.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn see(&self, seen: Seen) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
    }

    /// The groups and versions that others serve.
    fn aggregated_versions(&self) -> Vec<(String, String)> {
        let services = self.api_services();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        services
            .iter()
            .map(|service| (text(&service["spec"]["group"]), text(&service["spec"]["version"])))
            .collect()
    }

    fn api_services(&self) -> Vec<Value> {
        let Some(resource) = Resource::find("apiregistration.k8s.io", "v1", "apiservices") else {
            return Vec::new();
        };
        let (services, _) = self.store.list(resource, None);
        services.into_iter().filter(|service| service["spec"]["service"].is_object()).collect()
    }

    fn is_aggregated(&self, group: &str, version: &str) -> bool {
        self.aggregated_versions().iter().any(|served| served.0 == group && served.1 == version)
    }

    /// The way to whom serves a group and version.
    fn proxy(&self, group: &str, version: &str) -> Result<Arc<FrontProxy>, Failure> {
        let unavailable = || Failure::new(503, "the server is currently unable to handle the request");
        let services = self.api_services();
        let spec = services.iter().map(|service| &service["spec"]);
        let spec = spec.into_iter().find(|spec| spec["group"] == group && spec["version"] == version);
        let spec = spec.ok_or_else(unavailable)?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (namespace, name) = (text(&spec["service"]["namespace"]), text(&spec["service"]["name"]));
        let trust = unbase64(&text(&spec["caBundle"])).and_then(|pem| String::from_utf8(pem).ok());
        let trust = trust.unwrap_or_default();
        let mut aggregation = self.aggregation.lock().unwrap_or_else(PoisonError::into_inner);
        let address = *aggregation.addresses.get(&format!("{namespace}/{name}")).ok_or_else(unavailable)?;
        let settings = Settings {
            address,
            server_name: format!("{name}.{namespace}.svc"),
            trust,
            certificate: Some(aggregation.certificate.clone()),
            is_http2: aggregation.is_http2,
        };
        let made_of = format!("{settings:?}");
        let key = (group.to_owned(), version.to_owned());
        if let Some((before, proxy)) = aggregation.proxies.get(&key)
            && *before == made_of
        {
            return Ok(Arc::clone(proxy));
        }
        let proxy = Arc::new(FrontProxy::new(settings));
        aggregation.proxies.insert(key, (made_of, Arc::clone(&proxy)));
        Ok(proxy)
    }

    async fn forward(
        &self,
        group: &str,
        version: &str,
        user: &User,
        request: Request<Bytes>,
    ) -> Result<http::Response<serve::Body>, Failure> {
        let answer = self.proxy(group, version)?.forward_as(user, request).await;
        let answer =
            answer.map_err(|error| Failure::new(503, format!("error trying to reach service: {error}")))?;
        Ok(answer.map(|body| body.map_err(io::Error::other).boxed_unsync()))
    }

    /// Asks whom serves a group and version for a document, as the aggregator itself.
    async fn ask(&self, group: &str, version: &str, path: &str, accept: &str) -> Option<Value> {
        let request = Request::get(path).header("Accept", accept).body(Bytes::new()).ok()?;
        let aggregator = User::new("system:kube-aggregator", &["system:masters"]);
        let answer = self.forward(group, version, &aggregator, request).await.ok()?;
        let is_ok = answer.status() == http::StatusCode::OK;
        let body = answer.into_body().collect().await.ok()?.to_bytes();
        is_ok.then(|| serde_json::from_slice(&body).ok())?
    }

    /// The entries of aggregated discovery that others serve.
    async fn others_discovery(&self) -> Vec<Value> {
        let mut items = Vec::new();
        for (group, version) in self.aggregated_versions() {
            let document = self.ask(&group, &version, "/apis", discovery::AGGREGATED).await;
            match document.as_ref().and_then(|document| document["items"].as_array()) {
                Some(found) => items.extend(found.iter().cloned()),
                None => items.push(json!({
                    "metadata": {"name": group}, "versions": [{"version": version, "freshness": "Stale"}],
                })),
            }
        }
        items
    }
}

#[track_caller]
fn key_of(object: &Value) -> Key {
    let Some(resource) = Resource::of(object) else { panic!("the double keeps no such objects: {object}") };
    let text = |name: &str| object["metadata"][name].as_str().unwrap_or_default();
    Key::new(resource, text("namespace"), text("name"))
}

/// Listens on a free port of the loopback device, for as long as `control` lasts.
async fn listen(
    state: Arc<State>,
    certificate: Certificate,
    mut control: tokio_watch::Receiver<bool>,
) -> SocketAddr {
    let (chain, key) = certificate.der();
    let config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key);
    let mut config = config.expect("a certificate with its key");
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let mut listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    if let Ok((stream, _)) = accepted {
                        let (state, acceptor) = (Arc::clone(&state), acceptor.clone());
                        tokio::spawn(connection(state, acceptor, stream, control.clone()));
                    }
                    continue;
                }
                changed = control.changed() => if changed.is_err() { return },
            }
            if *control.borrow_and_update() {
                continue;
            }
            drop(listener);
            if control.wait_for(|is_there| *is_there).await.is_err() {
                return;
            }
            listener = TcpListener::bind(address).await.expect("the port that it had");
        }
    });
    address
}

async fn connection(
    state: Arc<State>,
    acceptor: TlsAcceptor,
    stream: TcpStream,
    mut control: tokio_watch::Receiver<bool>,
) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| serve::answer(Arc::clone(&state), request));
    let serving = async {
        if let Ok(stream) = acceptor.accept(stream).await {
            let server = auto::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        }
    };
    tokio::select! {
        () = serving => {}
        _ = control.wait_for(|is_there| !*is_there) => {}
    }
}

/// An object without anything but its metadata.
fn metadata_only(object: &Value) -> Value {
    json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": object["metadata"]})
}

/// Seconds since the Unix epoch.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

fn base64(text: &str) -> String {
    BASE64_STANDARD.encode(text)
}

fn unbase64(text: &str) -> Option<Vec<u8>> {
    BASE64_STANDARD.decode(text).ok()
}

fn base64_url(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}
