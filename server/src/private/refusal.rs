use std::io;
use std::sync::Arc;

use engine::metadata::{ChangesError, MetadataError};
use engine::{EngineError, Hold};
use http::StatusCode;
use http::header::RETRY_AFTER;
use interface::{Failure, Reason};

use crate::http::Response;
use crate::timestamp::rfc3339;

/// Why a call does not do what it was asked for: what the caller is told.
#[derive(Debug)]
pub(crate) struct Refusal(pub(crate) Failure);

/// Seconds after which a caller who was told to come back may do so.
const RETRY_SECONDS: u32 = 2;

/// The same where the registry is read-only, which it is for longer.
const READ_ONLY_RETRY_SECONDS: u32 = 10;

impl Refusal {
    pub(crate) fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self(Failure::new(reason, message))
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Reason::Invalid, message)
    }

    /// Not now.
    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self(Failure::new(Reason::Unavailable, message).retry_after(RETRY_SECONDS))
    }
}

impl Refusal {
    /// The answer that says so.
    pub(crate) fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.0.reason.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = Response::new(status);
        if let Some(seconds) = self.0.retry_after_seconds {
            response = response.with(RETRY_AFTER, seconds);
        }
        // Text and numbers have no way to fail.
        response.with_body("application/json", serde_json::to_vec(&self.0).unwrap_or_default())
    }
}

impl From<EngineError> for Refusal {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Metadata(_) | EngineError::Full => Self::unavailable(error.to_string()),
            _ => Self::new(Reason::Internal, error.to_string()),
        }
    }
}

impl From<Arc<Hold>> for Refusal {
    fn from(hold: Arc<Hold>) -> Self {
        let until = rfc3339(hold.until);
        let Hold { owner, reason, .. } = &*hold;
        let message =
            format!("the registry is read-only: {reason} (by {owner}, until {until} at the latest)");
        Self(Failure::new(Reason::ReadOnly, message).retry_after(READ_ONLY_RETRY_SECONDS))
    }
}

impl From<MetadataError> for Refusal {
    fn from(error: MetadataError) -> Self {
        EngineError::from(error).into()
    }
}

impl From<ChangesError> for Refusal {
    fn from(error: ChangesError) -> Self {
        match error {
            ChangesError::Expired { .. } => {
                Self::new(Reason::Expired, format!("{error}; list again, and go on from there"))
            }
            ChangesError::Metadata(error) => error.into(),
        }
    }
}

/// A thread that ended before its work.
impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::new(Reason::Internal, error.to_string())
    }
}
