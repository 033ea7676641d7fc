//! Refusals, as the specification words them (OCI distribution specification, "Error codes").

use std::sync::Arc;

use engine::metadata::{MetadataError, QuotaExceeded};
use engine::oci::{DigestError, ManifestError, NameError, TagError};
use engine::{EngineError, FinishError, Hold};
use http::header::RETRY_AFTER;
use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::{Value, json};

use crate::http::{BodyError, Response};
use crate::timestamp::rfc3339;

/// The codes of the specification, one for a quota, and two for what is not the client's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    BlobUnknown,
    BlobUploadInvalid,
    BlobUploadUnknown,
    DigestInvalid,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    SizeInvalid,
    Unauthorized,
    Denied,
    Unsupported,
    /// The namespace has no room.
    QuotaExceeded,
    /// The registry cannot do it now, and may later.
    Unavailable,
    /// The registry failed.
    Unknown,
}

impl Code {
    fn as_str(self) -> &'static str {
        match self {
            Self::BlobUnknown => "BLOB_UNKNOWN",
            Self::BlobUploadInvalid => "BLOB_UPLOAD_INVALID",
            Self::BlobUploadUnknown => "BLOB_UPLOAD_UNKNOWN",
            Self::DigestInvalid => "DIGEST_INVALID",
            Self::ManifestBlobUnknown => "MANIFEST_BLOB_UNKNOWN",
            Self::ManifestInvalid => "MANIFEST_INVALID",
            Self::ManifestUnknown => "MANIFEST_UNKNOWN",
            Self::NameInvalid => "NAME_INVALID",
            Self::NameUnknown => "NAME_UNKNOWN",
            Self::SizeInvalid => "SIZE_INVALID",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::Denied => "DENIED",
            Self::Unsupported => "UNSUPPORTED",
            Self::QuotaExceeded => "QUOTA_EXCEEDED",
            Self::Unavailable => "UNAVAILABLE",
            Self::Unknown => "UNKNOWN",
        }
    }
}

/// Seconds after which a client that was sent away may try again.
const RETRY_SECONDS: u64 = 5;

/// A refusal: status, code and a sentence that says what to do.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    /// Code, sentence, and what it is about. More than one where several things are missing.
    errors: Vec<(Code, String, Option<Value>)>,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Somebody wanted it so: nothing to alarm anybody with.
    is_wanted: bool,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, code: Code, message: impl Into<String>) -> Self {
        Self { status, errors: vec![(code, message.into(), None)], headers: Vec::new(), is_wanted: false }
    }

    /// 400.
    pub(crate) fn bad_request(code: Code, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// 404.
    pub(crate) fn not_found(code: Code, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message)
    }

    /// 404 with one error for each thing that is missing.
    pub(crate) fn missing(errors: Vec<(Code, String, Option<Value>)>) -> Self {
        Self { status: StatusCode::NOT_FOUND, errors, headers: Vec::new(), is_wanted: false }
    }

    /// With what the first error is about.
    pub(crate) fn about(mut self, detail: Value) -> Self {
        if let Some((_, _, about)) = self.errors.first_mut() {
            *about = Some(detail);
        }
        self
    }

    /// With a header field.
    pub(crate) fn with(mut self, name: HeaderName, value: impl TryInto<HeaderValue>) -> Self {
        if let Ok(value) = value.try_into() {
            self.headers.push((name, value));
        }
        self
    }

    /// Whether the registry, and not the client, is at fault.
    pub(crate) fn is_failure(&self) -> bool {
        self.status.is_server_error()
    }

    /// Whether whoever runs the registry should hear of it.
    pub(crate) fn is_alarming(&self) -> bool {
        self.is_failure() && !self.is_wanted
    }

    pub(crate) fn message(&self) -> &str {
        self.errors.first().map_or("", |(_, message, _)| message)
    }

    pub(crate) fn into_response(self) -> Response {
        let errors: Vec<Value> = self
            .errors
            .into_iter()
            .map(|(code, message, detail)| json!({"code": code.as_str(), "message": message, "detail": detail}))
            .collect();
        let mut response =
            Response::new(self.status).with_body("application/json", json!({ "errors": errors }).to_string());
        for (name, value) in self.headers {
            response.headers.insert(name, value);
        }
        let retries = [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE];
        if retries.contains(&self.status) && !response.headers.contains_key(RETRY_AFTER) {
            response.headers.insert(RETRY_AFTER, HeaderValue::from(RETRY_SECONDS));
        }
        response
    }
}

impl From<EngineError> for Refusal {
    fn from(error: EngineError) -> Self {
        let (status, code) = match &error {
            EngineError::Quota(exceeded) => return exceeded.into(),
            EngineError::Full => (StatusCode::INSUFFICIENT_STORAGE, Code::Unavailable),
            EngineError::Metadata(_) => (StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable),
            EngineError::Disk { .. } | EngineError::Missing(_) => {
                (StatusCode::INTERNAL_SERVER_ERROR, Code::Unknown)
            }
        };
        Self::new(status, code, error.to_string())
    }
}

/// 413: the namespace has no room.
impl From<&QuotaExceeded> for Refusal {
    fn from(exceeded: &QuotaExceeded) -> Self {
        let QuotaExceeded { namespace, quota, used, size } = exceeded;
        let detail = json!({"namespace": namespace, "quota": quota, "used": used, "size": size});
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, Code::QuotaExceeded, exceeded.to_string()).about(detail)
    }
}

/// 503: read-only mode, with who, why and until when.
impl From<Arc<Hold>> for Refusal {
    fn from(hold: Arc<Hold>) -> Self {
        let until = rfc3339(hold.until);
        let message = format!(
            "the registry is read-only: {} (by {}, until {until} at the latest); try again in a while",
            hold.reason, hold.owner
        );
        let detail = json!({"owner": hold.owner, "reason": hold.reason, "until": until});
        let refusal = Self::new(StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, message).about(detail);
        Self { is_wanted: true, ..refusal }
    }
}

impl From<MetadataError> for Refusal {
    fn from(error: MetadataError) -> Self {
        EngineError::from(error).into()
    }
}

impl From<FinishError> for Refusal {
    fn from(error: FinishError) -> Self {
        match error {
            FinishError::Digest { .. } => Self::bad_request(Code::DigestInvalid, error.to_string()),
            FinishError::Held(hold) => hold.into(),
            FinishError::Engine(error) => error.into(),
        }
    }
}

impl From<NameError> for Refusal {
    fn from(error: NameError) -> Self {
        Self::bad_request(Code::NameInvalid, error.to_string())
    }
}

impl From<DigestError> for Refusal {
    fn from(error: DigestError) -> Self {
        Self::bad_request(Code::DigestInvalid, error.to_string())
    }
}

impl From<TagError> for Refusal {
    fn from(error: TagError) -> Self {
        Self::bad_request(Code::ManifestInvalid, error.to_string())
    }
}

impl From<ManifestError> for Refusal {
    fn from(error: ManifestError) -> Self {
        Self::bad_request(Code::ManifestInvalid, error.to_string())
    }
}

impl From<BodyError> for Refusal {
    fn from(error: BodyError) -> Self {
        Self::bad_request(Code::SizeInvalid, error.to_string())
    }
}
