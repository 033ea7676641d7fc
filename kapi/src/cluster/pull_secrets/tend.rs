use std::fmt::Display;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use k8s_openapi::api::authentication::v1::{
    BoundObjectReference, TokenRequest, TokenRequestSpec, TokenRequestStatus,
};
use k8s_openapi::api::core::v1::{ObjectReference, Secret, ServiceAccount};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::{PartialObjectMeta, Request};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Api, Client};
use serde_json::{Value, json};
use tracing::{debug, info, warn};

use super::PullSecretSettings;
use super::decision::{Decision, decide};
use super::pull_secret::{ACCOUNT_UID, DATA_KEY, EXPIRES_AT, HASH, PullSecret};
use crate::cluster::api_error::{describe, says_not_found};
use crate::cluster::claims::Claims;
use crate::cluster::confidential::{self, ConfidentialError};
use crate::cluster::view::Key;

/// The name under which changes and events appear.
const MANAGER: &str = "payload-registry";

/// Looks at one pull secret at a time and does what is due.
pub(super) struct Tender {
    client: Client,
    audience: String,
    settings: PullSecretSettings,
    events: Recorder,
}

/// How long a service account may come after its pull secret without a word: they are often made together. Seconds.
const WAIT_QUIETLY: u64 = 5;

/// How a pull secret was left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tended {
    /// The version that it had then; `None` where it is gone.
    pub(super) resource_version: Option<String>,
    /// When to look at it again although nothing has changed: seconds since the Unix epoch.
    pub(super) due: Option<u64>,
    /// Whether it was changed.
    pub(super) has_written: bool,
    /// Whether its service account is waited for, and nobody was told yet.
    pub(super) waits: bool,
}

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
pub(super) enum TendError {
    /// The API server refused, or cannot be reached.
    #[error("{}", describe(.0))]
    Api(#[from] kube::Error),
    /// The same, where secrets are spoken of.
    #[error(transparent)]
    Confidential(#[from] ConfidentialError),
    /// A request that cannot be made.
    #[error("a request cannot be made: {0}")]
    Request(String),
    /// The service account exists again, or still.
    #[error("the service account exists, although the watch did not tell of it")]
    AccountExists,
    /// It ended without an answer.
    #[error("a mistake of this program")]
    Mistake,
}

impl TendError {
    /// Whether somebody else was faster: nothing is wrong, and another look shows how it is now.
    pub(super) fn is_conflict(&self) -> bool {
        match self {
            Self::Api(kube::Error::Api(status)) => status.is_conflict(),
            Self::Confidential(ConfidentialError::Request(kube::Error::Api(status))) => status.is_conflict(),
            Self::AccountExists => true,
            _ => false,
        }
    }
}

impl Tender {
    /// `audience` is the registry's own.
    pub(super) fn new(client: Client, audience: &str, settings: PullSecretSettings) -> Self {
        let reporter = Reporter { controller: MANAGER.to_owned(), instance: None };
        let events = Recorder::new(client.clone(), reporter);
        Self { client, audience: audience.to_owned(), settings, events }
    }

    /// Reads a Secret and does what is due. `account_uid` is the uid of its service account, if that exists; `has_waited`
    /// says that it was waited for already.
    pub(super) async fn tend(
        &self,
        key: &Key,
        account_uid: Option<&str>,
        has_waited: bool,
    ) -> Result<Tended, TendError> {
        let Some(secret) = self.read(key).await? else { return Ok(Tended::default()) };
        let resource_version = secret.metadata.resource_version.clone();
        let uid = secret.metadata.uid.clone().unwrap_or_default();
        let unchanged = |due| Tended { resource_version: resource_version.clone(), due, ..Tended::default() };
        let pull_secret = match PullSecret::of(&secret, &self.settings.registry_host) {
            None => return Ok(unchanged(None)),
            Some(Err(why)) => {
                self.tell(key, &uid, "InvalidPullSecret", format!("No token is filled in: {why}.")).await;
                return Ok(unchanged(None));
            }
            Some(Ok(pull_secret)) => pull_secret,
        };
        match decide(&pull_secret, &key.namespace, &uid, account_uid, now()) {
            Decision::Keep { until } => Ok(unchanged(Some(until))),
            Decision::Fill => self.fill(key, &secret, pull_secret, account_uid.unwrap_or_default()).await,
            Decision::Withdraw => self.withdraw(key, &secret, pull_secret).await,
            Decision::Wait if !has_waited => {
                Ok(Tended { waits: true, ..unchanged(Some(now() + WAIT_QUIETLY)) })
            }
            Decision::Wait => {
                let note = format!(
                    "Service account {:?} does not exist in this namespace; its token is filled in once it does.",
                    pull_secret.account
                );
                self.tell(key, &uid, "ServiceAccountMissing", note).await;
                Ok(unchanged(None))
            }
        }
    }

    async fn read(&self, key: &Key) -> Result<Option<Secret>, TendError> {
        let request = Request::new(format!("/api/v1/namespaces/{}/secrets", key.namespace))
            .get(&key.name, &kube::api::GetParams::default())
            .map_err(unsent)?;
        match confidential::send(&self.client, request).await {
            Ok(secret) => Ok(Some(secret)),
            Err(ConfidentialError::Request(error)) if says_not_found(&error, "secrets", &key.name) => {
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn fill(
        &self,
        key: &Key,
        secret: &Secret,
        mut pull_secret: PullSecret,
        account_uid: &str,
    ) -> Result<Tended, TendError> {
        let TokenRequestStatus { token, expiration_timestamp } =
            self.request_token(key, secret, &pull_secret.account).await?;
        let claims = Claims::of(&token);
        // The account may have been made again a moment ago: what the token says is what it is good for.
        let account_uid = claims.as_ref().and_then(Claims::service_account_uid).unwrap_or(account_uid);
        let hash =
            pull_secret.config.fill(&self.settings.registry_host, &token, pull_secret.noted_hash.as_deref());
        let expires_at = expiration_timestamp.0.to_string();
        let annotations = json!({ACCOUNT_UID: account_uid, EXPIRES_AT: expires_at, HASH: hash});
        let resource_version = self.patch(key, secret, &pull_secret, annotations).await?;
        info!(secret = %key, account = pull_secret.account, expires_at, "a pull secret is filled");
        // What is due next is decided when it is looked at again, which its change brings about.
        Ok(Tended { resource_version, due: Some(now()), has_written: true, waits: false })
    }

    async fn request_token(
        &self,
        key: &Key,
        secret: &Secret,
        account: &str,
    ) -> Result<TokenRequestStatus, TendError> {
        let spec = TokenRequestSpec {
            audiences: vec![self.audience.clone()],
            expiration_seconds: Some(self.settings.token_lifetime.seconds()),
            // The token dies with the Secret.
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Secret".to_owned()),
                name: Some(key.name.clone()),
                uid: secret.metadata.uid.clone(),
            }),
        };
        let body = TokenRequest { spec, ..TokenRequest::default() };
        let body = serde_json::to_vec(&body).map_err(unsent)?;
        let request = Request::new(format!("/api/v1/namespaces/{}/serviceaccounts", key.namespace))
            .create_subresource("token", account, &PostParams::default(), body)
            .map_err(unsent)?;
        let answer: TokenRequest = confidential::send(&self.client, request).await?;
        answer.status.ok_or_else(|| unsent("the answer holds no token"))
    }

    async fn withdraw(
        &self,
        key: &Key,
        secret: &Secret,
        mut pull_secret: PullSecret,
    ) -> Result<Tended, TendError> {
        let account = &pull_secret.account;
        let accounts: Api<PartialObjectMeta<ServiceAccount>> =
            Api::namespaced(self.client.clone(), &key.namespace);
        match accounts.get(account).await {
            Ok(_) => return Err(TendError::AccountExists),
            Err(error) if says_not_found(&error, "serviceaccounts", account) => {}
            Err(error) => return Err(error.into()),
        }
        if pull_secret.config.has_others(&self.settings.registry_host) {
            pull_secret.config.clear(&self.settings.registry_host);
            let annotations = json!({ACCOUNT_UID: null, EXPIRES_AT: null, HASH: null});
            let resource_version = self.patch(key, secret, &pull_secret, annotations).await?;
            info!(secret = %key, account, "the service account is gone: its token is taken out of the pull secret");
            return Ok(Tended { resource_version, has_written: true, ..Tended::default() });
        }
        let exactly_this = Preconditions {
            resource_version: secret.metadata.resource_version.clone(),
            uid: secret.metadata.uid.clone(),
        };
        let params = DeleteParams { preconditions: Some(exactly_this), ..DeleteParams::default() };
        match self.secrets(key).delete(&key.name, &params).await {
            Ok(_) => info!(secret = %key, account, "the service account is gone: its pull secret is deleted"),
            Err(error) if says_not_found(&error, "secrets", &key.name) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(Tended::default())
    }

    /// Writes what is in a pull secret and annotations, if nobody has changed the Secret since it was read. Gives the
    /// version that it has then. Only the metadata comes back.
    async fn patch(
        &self,
        key: &Key,
        secret: &Secret,
        pull_secret: &PullSecret,
        annotations: Value,
    ) -> Result<Option<String>, TendError> {
        let patch = json!({
            "metadata": {"resourceVersion": secret.metadata.resource_version, "annotations": annotations},
            "data": {DATA_KEY: pull_secret.config.to_base64()},
        });
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let written = self.secrets(key).patch_metadata(&key.name, &params, &Patch::Merge(patch)).await?;
        Ok(written.metadata.resource_version)
    }

    fn secrets(&self, key: &Key) -> Api<PartialObjectMeta<Secret>> {
        Api::namespaced(self.client.clone(), &key.namespace)
    }

    /// Tells those who look at the Secret why nothing was done, and those who look after the program.
    async fn tell(&self, key: &Key, uid: &str, reason: &str, note: String) {
        warn!(secret = %key, note, "a pull secret is not filled");
        let event = Event {
            type_: EventType::Warning,
            reason: reason.to_owned(),
            note: Some(note),
            action: "FillPullSecret".to_owned(),
            secondary: None,
        };
        let secret = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Secret".to_owned()),
            namespace: Some(key.namespace.clone()),
            name: Some(key.name.clone()),
            uid: Some(uid.to_owned()),
            ..ObjectReference::default()
        };
        if let Err(error) = self.events.publish(&event, &secret).await {
            debug!(secret = %key, error = describe(&error), "no event can be written");
        }
    }
}

/// Seconds since the Unix epoch.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

fn unsent(error: impl Display) -> TendError {
    TendError::Request(error.to_string())
}
