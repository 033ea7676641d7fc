//! What the registry has to know of the cluster, and what it does there.
//!
//! [`run`] keeps the registry informed of the rules that RBAC makes and of the namespaces, says whose tokens are, removes
//! what deleted namespaces leave behind, keeps pull secrets filled, and follows the front proxy's configuration. Each
//! piece goes on for ever, with whatever it knew last, while the API server or the registry is away.

mod api_error;
mod backoff;
mod claims;
mod confidential;
mod follow;
mod front_proxy;
mod namespaces;
mod publication;
mod pull_secrets;
mod rbac;
mod readiness;
mod reviews;
mod seldom;
mod view;

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use interface::{SetNamespaces, SetRules};
use kube::{Client, Config};
use tokio::task::JoinSet;

use crate::registry::Registry;
use crate::tls::FrontProxy;
use follow::WATCH_TIME;
use namespaces::Purge;
use publication::Publication;
pub use pull_secrets::{InvalidTokenLifetime, PullSecretSettings, TokenLifetime};
pub use readiness::{Flag, Readiness};
use reviews::Reviews;

/// The audience of tokens that are for the registry alone, unless it is set.
pub const DEFAULT_AUDIENCE: &str = "payload-registry";

/// How long a silent connection to the API server is taken for a living one: its watches say something more often.
const SILENCE_MAX: Duration = WATCH_TIME.saturating_add(Duration::from_secs(15));

/// What can be set.
#[derive(Clone, Debug)]
pub struct ClusterSettings {
    /// The audience of tokens that are for the registry alone. The API server must not have it among its own.
    pub audience: String,
    /// Whether what is stored under a name that is no namespace's is removed.
    pub purges_vanished_namespaces: bool,
    /// How pull secrets are filled; `None`: they are not.
    pub pull_secrets: Option<PullSecretSettings>,
}

/// Why the pieces stopped.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The configuration for the API server cannot be used.
    #[error("the configuration for the Kubernetes API server cannot be used: {0}")]
    Config(kube::Error),
    /// A piece that goes on for ever ended: a mistake of this program.
    #[error("a piece of the program has ended: {0}")]
    Ended(String),
}

/// Does all of it, until the future is dropped.
///
/// `front_proxy` is where the front proxy's configuration goes; `None` where flags say it all. Only a mistake of this
/// program, or a configuration that cannot be used, makes this return.
pub async fn run(
    mut config: Config,
    registry: Registry,
    settings: ClusterSettings,
    front_proxy: Option<FrontProxy>,
    readiness: Arc<Readiness>,
) -> Result<Infallible, ClusterError> {
    // Each piece has its own way to try again, which is far shorter than the client's.
    config.default_retry = false;
    config.read_timeout = Some(SILENCE_MAX);
    config.reset_reader_on_write = true;
    let client = Client::try_from(config).map_err(ClusterError::Config)?;
    let rules = Arc::new(Publication::<SetRules>::new("rules"));
    let namespaces = Arc::new(Publication::<SetNamespaces>::new("namespaces"));

    let mut pieces = Pieces(JoinSet::new());
    let context = Context { client, registry, rules, namespaces, readiness };
    pieces.add(&context, |own| async move { own.rules.keep_sending(&own.registry).await });
    pieces.add(&context, |own| async move { own.namespaces.keep_sending(&own.registry).await });
    pieces.add(&context, |own| async move { rbac::keep_rules(own.client, &own.rules, &own.readiness).await });
    pieces.add(&context, |own| async move {
        namespaces::keep_namespaces(own.client, &own.namespaces, &own.readiness).await;
    });
    if settings.purges_vanished_namespaces {
        pieces.add(&context, |own| async move {
            Purge::new(own.client, &own.registry, &own.namespaces).keep_purging().await;
        });
    }
    let audience = settings.audience.clone();
    pieces.add(&context, |own| async move {
        let Context { client, registry, rules, namespaces, readiness } = &own;
        Reviews { registry, rules, namespaces, readiness }.keep_reviewing(client.clone(), &audience).await;
    });
    let audience = settings.audience;
    match settings.pull_secrets {
        Some(settings) => pieces.add(&context, |own| async move {
            pull_secrets::keep_pull_secrets(own.client, &audience, settings, &own.readiness).await;
        }),
        None => drop(context.readiness.pull_secrets.set()),
    }
    match front_proxy {
        Some(front_proxy) => pieces.add(&context, |own| async move {
            front_proxy::keep_front_proxy(own.client, &front_proxy, &own.readiness).await;
        }),
        None => drop(context.readiness.front_proxy.set()),
    }
    match pieces.0.join_next().await {
        Some(Err(error)) => Err(ClusterError::Ended(error.to_string())),
        Some(Ok(())) | None => Err(ClusterError::Ended("it had nothing more to do".to_owned())),
    }
}

/// What the pieces share.
#[derive(Clone)]
struct Context {
    client: Client,
    registry: Registry,
    rules: Arc<Publication<SetRules>>,
    namespaces: Arc<Publication<SetNamespaces>>,
    readiness: Arc<Readiness>,
}

/// What runs, and ends when this is dropped.
struct Pieces(JoinSet<()>);

impl Pieces {
    fn add<F: Future<Output = ()> + Send + 'static>(
        &mut self,
        context: &Context,
        piece: impl FnOnce(Context) -> F,
    ) {
        self.0.spawn(piece(context.clone()));
    }
}
