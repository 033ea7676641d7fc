use serde::{Deserialize, Serialize};

/// Why a call did not do what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What kind of failure.
    pub reason: Reason,
    /// What happened, to what, and what to do: a sentence for people. It names no secret.
    pub message: String,
    /// Seconds after which it makes sense to try again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u32>,
}

/// Kinds of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Reason {
    /// The request is malformed: 400.
    Invalid,
    /// The caller may not do that: 403.
    Denied,
    /// What it is about does not exist: 404.
    NotFound,
    /// A precondition does not hold: 409.
    Conflict,
    /// The changes that were asked for are no longer kept: 410.
    Expired,
    /// A sequence number that has not been reached: 422.
    Future,
    /// The registry is read-only: 503.
    ReadOnly,
    /// Not now: rules are not known yet, or the store does not answer: 503.
    Unavailable,
    /// A mistake of the server, or of its volume: 500.
    Internal,
}

impl Reason {
    /// The status of the HTTP answer.
    pub const fn status(self) -> u16 {
        match self {
            Self::Invalid => 400,
            Self::Denied => 403,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::Expired => 410,
            Self::Future => 422,
            Self::ReadOnly | Self::Unavailable => 503,
            Self::Internal => 500,
        }
    }
}

impl Failure {
    /// A failure with a message.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), retry_after_seconds: None }
    }

    /// A failure that may be gone after some seconds.
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_seconds = Some(seconds);
        self
    }
}
