//! Whose a token is: the registry asks, the API server knows.

mod review;

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use interface::{AnswerReview, NextReviews, PendingReview, PendingWork, SetNamespaces, SetRules};
use kube::Client;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::backoff::Backoff;
use super::publication::Publication;
use super::readiness::Readiness;
use super::seldom::Seldom;
use crate::registry::{CallError, Registry};
use review::Reviewer;

/// Requests for work that wait at the registry at once, so that one is there while another is on its way.
const WAITING: usize = 3;

/// How long one of them waits.
const WAIT_SECONDS: u64 = 25;

/// Reviews in flight at once; the registry keeps those that are beyond it. A review takes milliseconds, so this is
/// thousands a second, and more would be a burden to the API server.
const REVIEWS_MAX: usize = 32;

/// How long to wait before asking again where the registry only said that it has no rules yet: until they have come and
/// been sent, it will say so each time.
const PAUSE: Duration = Duration::from_millis(250);

/// How often an answer is tried that the registry does not take.
const ANSWER_ATTEMPTS: u32 = 3;

/// Takes work from the registry.
pub(super) struct Reviews<'a> {
    /// The registry.
    pub(super) registry: &'a Registry,
    /// All rules: what the registry may say that it needs.
    pub(super) rules: &'a Publication<SetRules>,
    /// All namespaces: the same.
    pub(super) namespaces: &'a Publication<SetNamespaces>,
    /// How far everything is.
    pub(super) readiness: &'a Readiness,
}

impl Reviews<'_> {
    /// Takes work and does it, for ever. `audience` is the registry's own.
    pub(super) async fn keep_reviewing(&self, client: Client, audience: &str) {
        let reviewer = Arc::new(Reviewer::new(client, audience));
        let slots = Arc::new(Semaphore::new(REVIEWS_MAX));
        let warnings = Seldom::default();
        join_all((0..WAITING).map(|_| self.keep_taking(&reviewer, &slots, &warnings))).await;
    }

    async fn keep_taking(&self, reviewer: &Arc<Reviewer>, slots: &Arc<Semaphore>, warnings: &Seldom) {
        let mut backoff = Backoff::registry();
        let mut running = JoinSet::new();
        // At first, and after trouble, an answer at once shows that all is well.
        let mut wait_seconds = 0;
        loop {
            let work = match self.registry.call(&NextReviews { wait_seconds }).await {
                Ok(work) => work,
                Err(error) => {
                    wait_seconds = 0;
                    self.readiness.registry.clear();
                    if warnings.is_time() {
                        warn!(%error, "the registry gives no work; nobody can log in with a token");
                    }
                    sleep(backoff.delay()).await;
                    continue;
                }
            };
            if self.readiness.registry.set() {
                info!("the registry gives work");
                warnings.reset();
            }
            backoff.reset();
            wait_seconds = WAIT_SECONDS;
            let PendingWork { needs_rules, needs_namespaces, reviews } = work;
            if needs_rules {
                self.rules.repeat();
            }
            if needs_namespaces {
                self.namespaces.repeat();
            }
            if reviews.is_empty() && (needs_rules || needs_namespaces) {
                sleep(PAUSE).await;
            }
            while running.try_join_next().is_some() {}
            for PendingReview { id, token } in reviews {
                // Nobody closes it.
                let Ok(slot) = Arc::clone(slots).acquire_owned().await else { return };
                let (reviewer, registry) = (Arc::clone(reviewer), self.registry.clone());
                running.spawn(async move {
                    let verdict = reviewer.review(&token).await;
                    answer(&registry, &AnswerReview { id, verdict }).await;
                    drop(slot);
                });
            }
        }
    }
}

/// Brings an answer to the registry. One that does not arrive is no harm: whoever waits for it is told to come again.
async fn answer(registry: &Registry, answer: &AnswerReview) {
    let mut backoff = Backoff::registry();
    for _ in 0..ANSWER_ATTEMPTS {
        match registry.call(answer).await {
            Ok(()) => return,
            Err(CallError::Failed(failure)) => {
                // The registry has given up waiting, or is another one than the one that asked.
                debug!(id = answer.id, %failure, "nobody waits for the answer to a review");
                return;
            }
            Err(error) => {
                debug!(id = answer.id, %error, "an answer to a review does not arrive");
                sleep(backoff.delay()).await;
            }
        }
    }
}
