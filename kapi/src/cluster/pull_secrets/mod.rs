//! Secrets for pulling images, filled with tokens of service accounts and kept good.
//!
//! Of all Secrets of the type only the metadata is watched; what is in one is read when it asks to be managed and
//! something about it has changed. Nothing is kept but when to look at it again.

mod decision;
mod docker_config;
mod lifetime;
mod pull_secret;
mod tend;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::Config;
use kube::{Api, Client};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use super::backoff::Backoff;
use super::follow::follow;
use super::readiness::Readiness;
use super::view::{Key, View};
pub use lifetime::{InvalidTokenLifetime, TokenLifetime};
use pull_secret::{SECRET_TYPE, named_account};
use tend::{TendError, Tended, Tender, now};

/// Pull secrets that are looked at at once.
const TENDED_MAX: usize = 8;

/// How long one is left alone after something was written to it, or failed: something else that writes it again and again
/// (a tool that keeps it as it is in a repository) makes no more tokens than that.
const PAUSE: Duration = Duration::from_secs(5);

/// How long one is left alone after it was looked at: the watch may be behind what was read, and catches up.
const PAUSE_UNCHANGED: Duration = Duration::from_millis(500);

/// How long nothing is looked at, at most. The clock may be set, and what is due is a matter of the clock.
const LOOK: Duration = Duration::from_secs(60);

/// How pull secrets are filled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullSecretSettings {
    /// Host, and port if there is one, that images are pulled from.
    pub registry_host: String,
    /// How long the tokens are good for.
    pub token_lifetime: TokenLifetime,
}

/// Keeps all pull secrets of the cluster, for ever. `audience` is the registry's own.
pub(super) async fn keep_pull_secrets(
    client: Client,
    audience: &str,
    settings: PullSecretSettings,
    readiness: &Readiness,
) {
    let secrets: Api<PartialObjectMeta<Secret>> = Api::all(client.clone());
    let of_the_type = Config::default().fields(&format!("type={SECRET_TYPE}"));
    let mut secrets = pin!(follow(secrets, "pull secrets", of_the_type));
    let accounts: Api<PartialObjectMeta<ServiceAccount>> = Api::all(client.clone());
    let mut accounts = pin!(follow(accounts, "service accounts", Config::default()));

    let mut garden = Garden::default();
    let tender = Arc::new(Tender::new(client, audience, settings));
    let mut running = JoinSet::new();
    let mut keys = HashMap::new();
    loop {
        let mut wake = Instant::now() + LOOK;
        if garden.is_complete() {
            if readiness.pull_secrets.set() {
                info!(pull_secrets = garden.secrets.iter().count(), "the pull secrets are known");
            }
            wake = garden.start(Instant::now(), now(), |key, account_uid, has_waited| {
                let (tender, of) = (Arc::clone(&tender), key.clone());
                let task =
                    running.spawn(async move { tender.tend(&of, account_uid.as_deref(), has_waited).await });
                keys.insert(task.id(), key);
            });
        }
        tokio::select! {
            Some(event) = secrets.next() => {
                garden.secrets.take(event, |secret| {
                    let account = named_account(&secret.metadata)?.to_owned();
                    Some(Managed { account, resource_version: secret.metadata.resource_version.clone() })
                });
            }
            Some(event) = accounts.next() => {
                garden.accounts.take(event, |account| account.metadata.uid.clone());
            }
            Some(ended) = running.join_next_with_id(), if !running.is_empty() => {
                let (task, result) = match ended {
                    Ok((task, result)) => (task, result),
                    Err(error) => (error.id(), Err(TendError::Mistake)),
                };
                if let Some(key) = keys.remove(&task) {
                    garden.end(key, result, Instant::now());
                }
            }
            () = sleep_until(wake) => {}
        }
    }
}

/// What is watched of a pull secret.
#[derive(Debug, PartialEq)]
struct Managed {
    account: String,
    resource_version: Option<String>,
}

/// All pull secrets, the service accounts, and how each was left.
#[derive(Default)]
struct Garden {
    secrets: View<Managed>,
    /// The uids.
    accounts: View<String>,
    running: BTreeSet<Key>,
    looks: BTreeMap<Key, Look>,
}

/// What came of looking at a pull secret.
struct Look {
    /// The version that was seen.
    resource_version: Option<String>,
    /// The service account's uid then.
    account_uid: Option<String>,
    /// Whether the service account was waited for.
    has_waited: bool,
    /// When to look again although nothing has changed: seconds since the Unix epoch.
    due: Option<u64>,
    /// Not looked at again before.
    not_before: Instant,
    /// After a failure.
    failed: Option<Failed>,
}

/// How looking at it went wrong, each time since it last went well.
struct Failed {
    backoff: Backoff,
    try_at: Instant,
}

impl Garden {
    fn is_complete(&self) -> bool {
        self.secrets.is_complete() && self.accounts.is_complete()
    }

    /// Starts what is due, as far as there is room, and says when to look again. `now` is in seconds since the Unix epoch.
    /// `start` is given the key, the uid of the service account, and whether that was waited for already.
    fn start(&mut self, at: Instant, now: u64, mut start: impl FnMut(Key, Option<String>, bool)) -> Instant {
        let mut wake = at + LOOK;
        let secrets = &self.secrets;
        self.looks.retain(|key, _| secrets.get(key).is_some());
        for (key, managed) in secrets.iter() {
            if self.running.contains(key) {
                continue;
            }
            let account_uid = self.accounts.get(&Key::new(&key.namespace, &managed.account));
            let look = self.looks.get(key);
            let has_changed = look.is_none_or(|look| look.has_changed(managed, account_uid));
            let due = look.map_or(at, |look| look.due(has_changed, at, now));
            if due > at {
                wake = wake.min(due);
                continue;
            }
            // There is room when one ends, and that wakes.
            if self.running.len() == TENDED_MAX {
                break;
            }
            let has_waited = !has_changed && look.is_some_and(|look| look.has_waited);
            let look = self.looks.entry(key.clone()).or_insert_with(|| Look::new(at));
            look.resource_version.clone_from(&managed.resource_version);
            look.account_uid = account_uid.cloned();
            self.running.insert(key.clone());
            start(key.clone(), account_uid.cloned(), has_waited);
        }
        wake
    }

    /// Takes what came of it.
    fn end(&mut self, key: Key, result: Result<Tended, TendError>, at: Instant) {
        self.running.remove(&key);
        let look = self.looks.entry(key.clone()).or_insert_with(|| Look::new(at));
        match result {
            Ok(Tended { resource_version, due, has_written, waits }) => {
                look.resource_version = resource_version;
                look.due = due;
                look.has_waited = waits;
                look.not_before = at + if has_written { PAUSE } else { PAUSE_UNCHANGED };
                look.failed = None;
            }
            Err(error) => {
                if error.is_conflict() {
                    debug!(secret = %key, %error, "a pull secret was changed meanwhile");
                } else {
                    warn!(secret = %key, %error, "a pull secret cannot be kept; it is tried again");
                }
                let mut backoff = match look.failed.take() {
                    Some(failed) => failed.backoff,
                    None => Backoff::new(PAUSE, Duration::from_secs(300)),
                };
                look.not_before = at + PAUSE_UNCHANGED;
                look.failed = Some(Failed { try_at: at + backoff.delay(), backoff });
            }
        }
    }
}

impl Look {
    fn new(at: Instant) -> Self {
        Self {
            resource_version: None,
            account_uid: None,
            has_waited: false,
            due: None,
            not_before: at,
            failed: None,
        }
    }

    fn has_changed(&self, managed: &Managed, account_uid: Option<&String>) -> bool {
        managed.resource_version != self.resource_version || account_uid != self.account_uid.as_ref()
    }

    /// When to look again.
    fn due(&self, has_changed: bool, at: Instant, now: u64) -> Instant {
        let due = match (&self.failed, self.due) {
            _ if has_changed => at,
            (Some(failed), _) => failed.try_at,
            (None, Some(due)) => at + LOOK.min(Duration::from_secs(due.saturating_sub(now))),
            (None, None) => at + LOOK,
        };
        due.max(self.not_before)
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
    use kube::core::PartialObjectMetaExt as _;
    use kube::runtime::watcher::Event;

    use super::*;

    /// A garden and its clocks.
    struct Day {
        garden: Garden,
        at: Instant,
        now: u64,
    }

    impl Day {
        /// With the service account `team/bot` and these secrets of it, all in version 1.
        fn new(secrets: &[&str]) -> Self {
            let mut day = Self { garden: Garden::default(), at: Instant::now(), now: 1000 };
            day.account(Some("4f2c"));
            for secret in secrets {
                day.secret(secret, "1");
            }
            day
        }

        fn secret(&mut self, name: &str, version: &str) {
            let metadata = ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some("team".to_owned()),
                resource_version: Some(version.to_owned()),
                ..ObjectMeta::default()
            };
            let secret: PartialObjectMeta<Secret> = metadata.into_response_partial();
            self.garden.secrets.take(Event::Apply(secret), |secret| {
                let resource_version = secret.metadata.resource_version.clone();
                Some(Managed { account: "bot".to_owned(), resource_version })
            });
        }

        fn account(&mut self, uid: Option<&str>) {
            let metadata = ObjectMeta {
                name: Some("bot".to_owned()),
                namespace: Some("team".to_owned()),
                ..ObjectMeta::default()
            };
            let account: PartialObjectMeta<ServiceAccount> = metadata.into_response_partial();
            self.garden.accounts.take(Event::Apply(account), |_| uid.map(str::to_owned));
        }

        fn pass(&mut self, time: Duration) {
            self.at += time;
            self.now += time.as_secs();
        }

        /// The names of what is started, and whether their accounts were waited for.
        fn started(&mut self) -> Vec<(String, bool)> {
            let mut started = Vec::new();
            self.garden.start(self.at, self.now, |key, _, has_waited| started.push((key.name, has_waited)));
            started
        }

        fn end(&mut self, name: &str, result: Result<Tended, TendError>) {
            self.garden.end(Key::new("team", name), result, self.at);
        }
    }

    fn left(version: &str, due: Option<u64>) -> Result<Tended, TendError> {
        Ok(Tended { resource_version: Some(version.to_owned()), due, ..Tended::default() })
    }

    fn names(names: &[&str]) -> Vec<(String, bool)> {
        names.iter().map(|name| ((*name).to_owned(), false)).collect()
    }

    #[test]
    fn each_is_looked_at_once_and_again_when_something_changes() {
        let mut day = Day::new(&["a", "b"]);
        assert_eq!(day.started(), names(&["a", "b"]));
        assert_eq!(day.started(), names(&[]), "they are being looked at");
        day.end("a", left("1", None));
        day.end("b", left("1", None));
        day.pass(LOOK * 10);
        assert_eq!(day.started(), names(&[]));
        day.secret("a", "2");
        assert_eq!(day.started(), names(&["a"]));
        day.end("a", left("2", None));
        day.pass(PAUSE_UNCHANGED);
        day.account(None);
        assert_eq!(day.started(), names(&["a", "b"]), "the service account is gone");
    }

    #[test]
    fn one_is_looked_at_when_it_is_due_by_the_clock() {
        let mut day = Day::new(&["a"]);
        day.started();
        day.end("a", left("1", Some(5000)));
        day.pass(Duration::from_secs(3999));
        assert_eq!(day.started(), names(&[]));
        let wake = day.garden.start(day.at, day.now, |_, _, _| ());
        assert_eq!(wake, day.at + Duration::from_secs(1));
        day.pass(Duration::from_secs(1));
        assert_eq!(day.started(), names(&["a"]));
    }

    #[test]
    fn what_was_written_is_left_alone_for_a_while() {
        let mut day = Day::new(&["a"]);
        day.started();
        day.end("a", Ok(Tended { has_written: true, ..left("2", Some(1000)).expect("it is") }));
        assert_eq!(day.started(), names(&[]), "the watch is behind");
        day.secret("a", "3");
        assert_eq!(day.started(), names(&[]), "somebody fights over it");
        day.pass(PAUSE);
        assert_eq!(day.started(), names(&["a"]));
    }

    #[test]
    fn failures_wait_longer_each_time_unless_something_changes() {
        let mut day = Day::new(&["a"]);
        for factor in [1, 2, 4] {
            assert_eq!(day.started(), names(&["a"]));
            day.end("a", Err(TendError::Mistake));
            day.pass(PAUSE * factor - Duration::from_millis(1));
            assert_eq!(day.started(), names(&[]));
            day.pass(Duration::from_millis(1));
        }
        assert_eq!(day.started(), names(&["a"]));
        day.end("a", Err(TendError::Mistake));
        day.secret("a", "2");
        day.pass(PAUSE_UNCHANGED);
        assert_eq!(day.started(), names(&["a"]));
    }

    #[test]
    fn waiting_is_told_at_the_second_look() {
        let waits = |due| Ok(Tended { waits: true, ..left("1", due).expect("it is") });
        let mut day = Day::new(&["a"]);
        day.account(None);
        assert_eq!(day.started(), names(&["a"]));
        day.end("a", waits(Some(1005)));
        day.pass(Duration::from_secs(5));
        assert_eq!(day.started(), [("a".to_owned(), true)]);
        day.end("a", left("1", None));
        day.account(Some("4f2c"));
        day.pass(PAUSE_UNCHANGED);
        assert_eq!(day.started(), names(&["a"]), "it has come");
    }

    #[test]
    fn few_are_looked_at_at_once() {
        let all: Vec<String> = (0..20).map(|number| format!("s{number:02}")).collect();
        let mut day = Day::new(&all.iter().map(String::as_str).collect::<Vec<&str>>());
        assert_eq!(day.started().len(), TENDED_MAX);
        day.end("s00", left("1", None));
        day.end("s01", left("1", None));
        assert_eq!(day.started().len(), 2);
    }
}
