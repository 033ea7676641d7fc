use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use interface::PendingReview;

use super::namespaces::Namespaces;
use super::reviews::{ReviewerId, Reviews};
use super::{ClusterUser, NamespaceState, ReviewCounts, ReviewError, RuleSet};

/// Bad patterns that the log names at a time, and namespaces whose patterns stand for too much.
const LOGGED_MAX: usize = 10;

/// What the cluster says: whose a token is, which rules there are, which namespaces exist.
///
/// The registry asks nobody. Somebody who knows brings rules and namespaces, takes tokens to review and answers them;
/// from then on all that requests need is in memory.
#[derive(Debug)]
pub struct Authority {
    is_enabled: bool,
    rules: ArcSwapOption<RuleSet>,
    namespaces: ArcSwapOption<Namespaces>,
    reviews: Reviews,
}

impl Authority {
    /// An authority that knows nothing yet. Where it is not enabled, nobody logs in by it, and pushes do not ask it. Fails
    /// where the system gives no random bytes.
    pub fn new(is_enabled: bool) -> io::Result<Self> {
        Ok(Self {
            is_enabled,
            rules: ArcSwapOption::empty(),
            namespaces: ArcSwapOption::empty(),
            reviews: Reviews::new()?,
        })
    }

    /// Whether logins and pushes are held to it.
    pub fn is_enabled(&self) -> bool {
        self.is_enabled
    }

    /// Sets the rules in place of those there are. It compiles them, and so is for a thread that may be busy with that for a
    /// while.
    pub fn set_rules(&self, rules: Vec<interface::Rule>) {
        let rules = Arc::new(RuleSet::new(rules));
        let before = self.rules.swap(Some(rules.clone()));
        let is_new =
            |pattern: &&String| !before.as_ref().is_some_and(|rules| rules.bad_patterns().contains(*pattern));
        for pattern in rules.bad_patterns().iter().filter(is_new).take(LOGGED_MAX) {
            let pattern: String = pattern.chars().take(super::PathGlob::LEN_MAX).collect();
            let error = super::PathGlob::parse(&pattern).err().map(|error| error.to_string());
            tracing::warn!(pattern, error, "a rule's pattern is none, and matches nothing");
        }
        let is_new = |(namespace, _): &(&String, &usize)| {
            !before.as_ref().is_some_and(|rules| rules.left_out().contains_key(*namespace))
        };
        for (namespace, patterns) in rules.left_out().iter().filter(is_new).take(LOGGED_MAX) {
            tracing::warn!(
                namespace,
                patterns,
                "the patterns of the namespace's rules stand for too much; so many of them match nothing"
            );
        }
        tracing::debug!(
            rules = rules.len(),
            bad_patterns = rules.bad_patterns().len(),
            namespaces_with_too_much = rules.left_out().len(),
            "rules"
        );
    }

    /// Sets the namespaces in place of those there are.
    pub fn set_namespaces(&self, namespaces: Vec<interface::Namespace>) {
        tracing::debug!(namespaces = namespaces.len(), "namespaces");
        self.namespaces.store(Some(Arc::new(Namespaces::new(namespaces))));
    }

    /// Whether nobody has brought rules since the start.
    pub fn needs_rules(&self) -> bool {
        self.rules.load().is_none()
    }

    /// Whether nobody has said which namespaces there are since the start.
    pub fn needs_namespaces(&self) -> bool {
        self.namespaces.load().is_none()
    }

    /// The rules; `None` where they are not known yet.
    pub fn rules(&self) -> Option<Arc<RuleSet>> {
        self.rules.load_full()
    }

    /// What is known of a namespace.
    pub fn namespace(&self, name: &str) -> NamespaceState {
        self.namespaces.load().as_ref().map_or(NamespaceState::Unknown, |known| known.state(name))
    }

    /// Somebody who is going to review tokens.
    pub fn reviewer(self: &Arc<Self>) -> Reviewer {
        Reviewer { id: self.reviews.enter(), authority: self.clone() }
    }

    /// Answers a review. One that was answered, or given up, is not looked at.
    pub fn answer_review(&self, id: u64, verdict: interface::Verdict) {
        self.reviews.answer(id, verdict);
    }

    /// Whose token this is: from memory, or by a review, for which it waits some seconds.
    pub async fn review(&self, token: &str) -> Result<Arc<ClusterUser>, ReviewError> {
        self.reviews.review(token).await
    }

    /// What became of tokens since the start.
    pub fn review_counts(&self) -> ReviewCounts {
        self.reviews.counts()
    }
}

/// Somebody who reviews tokens. What it has taken and not answered when it is dropped is given to others.
#[derive(Debug)]
pub struct Reviewer {
    id: ReviewerId,
    authority: Arc<Authority>,
}

impl Reviewer {
    /// Waits for tokens to review, `wait` at most; each is given to one who asks. Where rules or namespaces are not known,
    /// the first call of all returns at once, and later ones wait as usual. Dropped before its end, it has taken nothing.
    pub async fn next(&self, wait: Duration) -> Vec<PendingReview> {
        let authority = &self.authority;
        let has_needs = || authority.needs_rules() || authority.needs_namespaces();
        authority.reviews.next(self.id, wait, has_needs).await
    }
}

impl Drop for Reviewer {
    fn drop(&mut self) {
        self.authority.reviews.leave(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_brought_is_not_known() {
        let authority = Authority::new(true).expect("random bytes");
        assert!(authority.needs_rules() && authority.needs_namespaces() && authority.rules().is_none());
        assert_eq!(authority.namespace("a"), NamespaceState::Unknown);

        authority.set_rules(Vec::new());
        authority.set_namespaces(Vec::new());
        assert!(!authority.needs_rules() && !authority.needs_namespaces());
        assert!(authority.rules().is_some_and(|rules| rules.is_empty()));
        assert_eq!(authority.namespace("a"), NamespaceState::Missing);

        let namespace =
            |name: &str, is_terminating| interface::Namespace { name: name.to_owned(), is_terminating };
        authority.set_namespaces(vec![namespace("a", false), namespace("b", true)]);
        let states = ["a", "b", "c"].map(|name| authority.namespace(name));
        assert_eq!(states, [NamespaceState::Active, NamespaceState::Terminating, NamespaceState::Missing]);
    }
}
