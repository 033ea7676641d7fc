use std::fmt;

use serde::{Deserialize, Serialize};

use crate::call;

/// Waits for something to do for the server: tokens to review, or rules and namespaces that it has not been given since
/// it started. While no such call waits, and none has for some seconds, logins with a token are answered with 503.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NextReviews {
    /// Seconds to wait where there is nothing; [`WAIT_SECONDS_MAX`](crate::WAIT_SECONDS_MAX) at most.
    pub wait_seconds: u64,
}

/// What the server waits for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PendingWork {
    /// Whether it has no rules yet.
    pub needs_rules: bool,
    /// Whether it does not know the namespaces yet.
    pub needs_namespaces: bool,
    /// Tokens to review, each given to one who asks, and to another one when no answer comes for some seconds.
    pub reviews: Vec<PendingReview>,
}

/// A token to review.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PendingReview {
    /// Names the review.
    pub id: u64,
    /// The token: a secret.
    pub token: String,
}

impl fmt::Debug for PendingReview {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingReview").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Answers a review.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AnswerReview {
    /// Which one.
    pub id: u64,
    /// What came out.
    pub verdict: Verdict,
}

/// What came out of a review.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// The token is good: whose it is.
    User {
        /// The user's name.
        name: String,
        /// The user's uid, where there is one.
        uid: Option<String>,
        /// The groups that the user is in.
        groups: Vec<String>,
        /// When the token ends, in seconds since the Unix epoch, where that is known: nothing that follows from it is good
        /// for longer.
        expires_at: Option<u64>,
    },
    /// The token is not good, or not for this registry: 401.
    Refused,
    /// Nobody could say: 503, and not a word on whether the token is good.
    Unavailable {
        /// Why, for people.
        message: String,
    },
}

call!(NextReviews, "reviews/next", PendingWork);
call!(AnswerReview, "reviews/answer", ());
