//! Plays the Kubernetes component towards the server: brings rules and namespaces, and reviews tokens.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use interface::{
    AnswerReview, Namespace, NextReviews, PendingReview, PendingWork, Rule, SetNamespaces, SetRules, Subject,
    Verb, Verdict,
};

use crate::http::Connection;
use crate::private::{Private, Stream, request};
use crate::server::Server;

/// The settings of a server that serves a cluster.
pub const KUBERNETES: &str = "kubernetes: {enabled: true}\n";

/// The component. It reviews tokens for as long as it lives, once it was told how.
#[derive(Debug)]
pub struct Component {
    private: Private,
    reviewed: Arc<Mutex<Vec<String>>>,
    is_leaving: Arc<AtomicBool>,
    reviewers: Vec<JoinHandle<()>>,
}

impl Component {
    /// A component that has said nothing yet.
    pub fn of(server: &Server) -> Self {
        Self {
            private: Private::unix(server.root().join("private.sock")),
            reviewed: Arc::default(),
            is_leaving: Arc::default(),
            reviewers: Vec::new(),
        }
    }

    /// Sets the rules.
    #[track_caller]
    pub fn set_rules(&self, rules: Vec<Rule>) {
        self.private.must(&SetRules { rules });
    }

    /// Sets the namespaces: those that exist, and those that are being deleted.
    #[track_caller]
    pub fn set_namespaces(&self, active: &[&str], terminating: &[&str]) {
        let namespaces = active.iter().map(|name| (*name, false));
        let namespaces = namespaces.chain(terminating.iter().map(|name| (*name, true)));
        let namespaces =
            namespaces.map(|(name, is_terminating)| Namespace { name: name.to_owned(), is_terminating });
        self.private.must(&SetNamespaces { namespaces: namespaces.collect() });
    }

    /// Reviews tokens from here on, on a thread of its own; those for which `verdict` has none are never answered.
    #[track_caller]
    pub fn review(&mut self, verdict: impl Fn(&str) -> Option<Verdict> + Send + 'static) {
        // What it takes is its own for as long as this connection lasts.
        let mut connection = self.private.connect().expect("connects");
        // When this has been answered, the server knows that somebody is there.
        let first = next(&mut connection, 0);
        let (private, reviewed, is_leaving) =
            (self.private.clone(), self.reviewed.clone(), self.is_leaving.clone());
        self.reviewers.push(thread::spawn(move || {
            let mut reviews = first;
            loop {
                for PendingReview { id, token } in std::mem::take(&mut reviews) {
                    reviewed.lock().unwrap_or_else(PoisonError::into_inner).push(token.clone());
                    if let Some(verdict) = verdict(&token) {
                        private.must(&AnswerReview { id, verdict });
                    }
                }
                if is_leaving.load(Ordering::Relaxed) {
                    return;
                }
                reviews = next(&mut connection, 1);
            }
        }));
    }

    /// The tokens that were taken to be reviewed, in their order.
    pub fn reviewed(&self) -> Vec<String> {
        self.reviewed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reviews no more.
    pub fn leave(&mut self) {
        self.is_leaving.store(true, Ordering::Relaxed);
        for reviewer in self.reviewers.drain(..) {
            if reviewer.join().is_err() {
                // Its own message has been printed.
                eprintln!("the component's thread panicked");
            }
        }
        self.is_leaving.store(false, Ordering::Relaxed);
    }
}

impl Drop for Component {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Waits for reviews, and takes them. They are others' again when the connection ends.
#[track_caller]
pub fn next(connection: &mut Connection<Box<dyn Stream>>, wait_seconds: u64) -> Vec<PendingReview> {
    connection.send(&request(&NextReviews { wait_seconds }));
    receive_next(connection)
}

/// Waits for the answer to a call for reviews that was sent before.
#[track_caller]
pub fn receive_next(connection: &mut Connection<Box<dyn Stream>>) -> Vec<PendingReview> {
    let answer = connection.receive("POST").expect("an answer").expect(200);
    serde_json::from_slice::<PendingWork>(&answer.body).expect("an answer as it should be").reviews
}

/// A verdict: the token is this user's.
pub fn user(name: &str, groups: &[&str]) -> Verdict {
    let groups = groups.iter().map(|group| (*group).to_owned()).collect();
    Verdict::User { name: name.to_owned(), uid: Some(format!("uid-of-{name}")), groups, expires_at: None }
}

/// A rule for a user in a namespace.
pub fn rule(name: &str, namespace: &str, verbs: &[Verb], patterns: &[&str]) -> Rule {
    Rule {
        subjects: vec![Subject::User(name.to_owned())],
        namespace: Some(namespace.to_owned()),
        verbs: verbs.to_vec(),
        patterns: patterns.iter().map(|pattern| (*pattern).to_owned()).collect(),
    }
}

/// The same for a group.
pub fn group_rule(name: &str, namespace: &str, verbs: &[Verb], patterns: &[&str]) -> Rule {
    Rule { subjects: vec![Subject::Group(name.to_owned())], ..rule(name, namespace, verbs, patterns) }
}

/// All that can be allowed.
pub const EVERYTHING: [Verb; 4] = [Verb::Get, Verb::List, Verb::Create, Verb::Delete];
