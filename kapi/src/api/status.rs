//! Errors as Kubernetes says them: a `Status`, worded like the kube-apiserver's where that has words for it.

use http::StatusCode;
use interface::{Failure, Reason};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Status, StatusCause, StatusDetails};

use super::objects::{GROUP, RESOURCE};
use crate::registry::CallError;

/// Seconds after which clients may try again what is not possible now, as the kube-apiserver says it. Kubernetes' own
/// clients do so up to ten times before they show anybody why, so this is ten seconds of `kubectl` saying nothing, and of
/// a namespace that is being deleted without a word about what keeps it.
const RETRY_AFTER_SECONDS: u32 = 1;

/// An answer that says no, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal(Box<Status>);

/// What is wrong with one field or parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    reason: &'static str,
    field: &'static str,
    message: String,
}

impl FieldError {
    /// A value that may not stand there.
    pub fn forbidden(field: &'static str, detail: &str) -> Self {
        Self { reason: "FieldValueForbidden", field, message: format!("Forbidden: {detail}") }
    }

    /// A value that is none of those that are known.
    pub fn not_supported(field: &'static str, value: &str, supported: &[&str]) -> Self {
        let message = format!("Unsupported value: {value:?}: supported values: {}", quoted(supported));
        Self { reason: "FieldValueNotSupported", field, message }
    }

    /// A value that does not go with the others.
    pub fn invalid(field: &'static str, value: &str, detail: &str) -> Self {
        let message = format!("Invalid value: {value:?}: {detail}");
        Self { reason: "FieldValueInvalid", field, message }
    }
}

fn quoted(values: &[&str]) -> String {
    values.iter().map(|value| format!("{value:?}")).collect::<Vec<_>>().join(", ")
}

impl Refusal {
    fn new(code: StatusCode, reason: &str, message: impl Into<String>) -> Self {
        Self(Box::new(Status {
            code: Some(code.as_u16().into()),
            message: Some(message.into()),
            reason: Some(reason.to_owned()),
            status: Some("Failure".to_owned()),
            ..Status::default()
        }))
    }

    /// Says which object of a resource of ours it is about, or, where the name is empty, that it is about many; unless it
    /// says what it is about.
    pub fn of(mut self, resource: &str, name: &str) -> Self {
        let details = self.0.details.get_or_insert_default();
        if details.kind.is_none() {
            details.name = Some(name.to_owned()).filter(|name| !name.is_empty());
            details.group = Some(GROUP.to_owned());
            details.kind = Some(resource.to_owned());
        }
        self
    }

    /// Says which tag it is about.
    fn about(self, name: &str) -> Self {
        self.of(RESOURCE, name)
    }

    fn retry_after(mut self, seconds: u32) -> Self {
        let seconds = i32::try_from(seconds).unwrap_or(i32::MAX);
        self.0.details.get_or_insert_default().retry_after_seconds = Some(seconds);
        self
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    /// 401.
    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", message)
    }

    /// 403, for what is no tag.
    pub fn forbidden_path(user: &str, path: &str) -> Self {
        let message = format!("forbidden: User {user:?} cannot get path {path:?}");
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message)
    }

    /// 404, for a path that nothing is at.
    pub fn no_such_path() -> Self {
        let message = "the server could not find the requested resource";
        Self::new(StatusCode::NOT_FOUND, "NotFound", message)
    }

    /// 404, for an object of a resource of ours.
    pub fn not_found(resource: &str, name: &str) -> Self {
        let message = format!("{resource}.{GROUP} {name:?} not found");
        Self::new(StatusCode::NOT_FOUND, "NotFound", message).of(resource, name)
    }

    /// 405.
    pub fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message)
    }

    /// 406.
    pub fn not_acceptable() -> Self {
        let message = "only the following media types are accepted: application/json";
        Self::new(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", message)
    }

    /// 409, for a precondition that does not hold.
    pub fn conflict(name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {RESOURCE}.{GROUP} {name:?}: {why}");
        Self::new(StatusCode::CONFLICT, "Conflict", message).about(name)
    }

    /// 410, for changes that are no longer kept.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GONE, "Expired", message)
    }

    /// 410, for a watch after a version whose successors are no longer kept: those after `oldest` are.
    pub fn too_old_version(asked: u64, oldest: u64) -> Self {
        Self::expired(format!("too old resource version: {asked} ({oldest})"))
    }

    /// 413.
    pub fn body_too_large(bytes_max: usize) -> Self {
        let message = format!("the request's body has more than the {bytes_max} bytes that are read");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", message)
    }

    /// 415.
    pub fn unsupported_media_type() -> Self {
        let message = "the body of the request was in an unknown format - accepted media types include: application/json";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message)
    }

    /// 422, for options of `kind` (`ListOptions`, `DeleteOptions`) that contradict each other or mean nothing.
    pub fn invalid(kind: &str, errors: Vec<FieldError>) -> Self {
        let texts: Vec<_> =
            errors.iter().map(|error| format!("{}: {}", error.field, error.message)).collect();
        let text = match texts.as_slice() {
            [text] => text.clone(),
            texts => format!("[{}]", texts.join(", ")),
        };
        let message = format!("{kind}.meta.k8s.io \"\" is invalid: {text}");
        let causes = errors.into_iter().map(|error| StatusCause {
            field: Some(error.field.to_owned()),
            message: Some(error.message),
            reason: Some(error.reason.to_owned()),
        });
        let mut refusal = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message);
        refusal.0.details = Some(StatusDetails {
            causes: Some(causes.collect()),
            group: Some("meta.k8s.io".to_owned()),
            kind: Some(kind.to_owned()),
            ..StatusDetails::default()
        });
        refusal
    }

    /// 429.
    pub fn too_many(message: impl Into<String>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", message).retry_after(RETRY_AFTER_SECONDS)
    }

    /// 500.
    pub fn internal(message: &str) -> Self {
        let message = format!("Internal error occurred: {message}");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message)
    }

    /// 503.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", message)
            .retry_after(RETRY_AFTER_SECONDS)
    }

    /// 504, for a resourceVersion that is not reached yet.
    pub fn version_too_large(asked: u64, current: u64) -> Self {
        let message = format!("Too large resource version: {asked}, current: {current}");
        let timeout = format!("Timeout: {message}");
        let mut refusal =
            Self::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", timeout).retry_after(RETRY_AFTER_SECONDS);
        refusal.0.details.get_or_insert_default().causes = Some(vec![StatusCause {
            field: None,
            message: Some("Too large resource version".to_owned()),
            reason: Some("ResourceVersionTooLarge".to_owned()),
        }]);
        refusal
    }

    /// What a call that the registry did not do is for the client, where it was about the tag called `name`, or, where that
    /// is empty, about many.
    pub fn of_call(error: CallError, name: &str) -> Self {
        match error {
            CallError::Failed(failure) => Self::of_failure(failure, name),
            error @ (CallError::Unreachable(_) | CallError::Token(_)) => {
                tracing::warn!(%error, "the registry cannot be asked");
                Self::unavailable("the registry does not answer at the moment").about(name)
            }
        }
    }

    fn of_failure(failure: Failure, name: &str) -> Self {
        // When to come back is said in the way of Kubernetes.
        let Failure { reason, message, retry_after_seconds: _ } = failure;
        match reason {
            Reason::Invalid => Self::bad_request(message),
            Reason::Denied => {
                let object = if name.is_empty() { String::new() } else { format!(" {name:?}") };
                let message = format!("{RESOURCE}.{GROUP}{object} is forbidden: {message}");
                Self::new(StatusCode::FORBIDDEN, "Forbidden", message).about(name)
            }
            Reason::NotFound => Self::not_found(RESOURCE, name),
            Reason::Conflict => Self::conflict(name, &message),
            Reason::Expired => Self::expired(message),
            Reason::ReadOnly | Reason::Unavailable => Self::unavailable(message).about(name),
            // Sequence numbers come from the registry: it has lost changes, so that everything is to be asked for again.
            Reason::Future => Self::expired(message),
            Reason::Internal => {
                tracing::error!(%message, "the registry failed");
                Self::internal(&message)
            }
        }
    }

    /// The status of the HTTP answer.
    pub fn code(&self) -> StatusCode {
        let code = self.0.code.and_then(|code| u16::try_from(code).ok());
        code.and_then(|code| StatusCode::from_u16(code).ok()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// What clients are asked to wait, in seconds.
    pub fn retry_after_seconds(&self) -> Option<i32> {
        self.0.details.as_ref().and_then(|details| details.retry_after_seconds)
    }

    /// The object.
    pub fn status(&self) -> &Status {
        &self.0
    }
}

/// What a deletion that was done answers.
pub fn deleted(name: &str, uid: &str) -> Status {
    Status {
        status: Some("Success".to_owned()),
        details: Some(StatusDetails {
            name: Some(name.to_owned()),
            group: Some(GROUP.to_owned()),
            kind: Some(RESOURCE.to_owned()),
            uid: Some(uid.to_owned()),
            ..StatusDetails::default()
        }),
        ..Status::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn json_of(refusal: &Refusal) -> serde_json::Value {
        serde_json::to_value(refusal.status()).expect("JSON")
    }

    #[test]
    fn worded_like_the_kube_apiserver() {
        assert_eq!(
            json_of(&Refusal::not_found(RESOURCE, "x")),
            json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": "payloadrepositorytags.payload-registry.deckhouse.io \"x\" not found",
                "reason": "NotFound", "code": 404,
                "details": {"name": "x", "group": "payload-registry.deckhouse.io", "kind": "payloadrepositorytags"},
            })
        );
        let denied = Failure::new(Reason::Denied, "User \"jane\" may not delete in team-a/app");
        assert_eq!(
            json_of(&Refusal::of_call(denied.into(), "x"))["message"],
            "payloadrepositorytags.payload-registry.deckhouse.io \"x\" is forbidden: \
             User \"jane\" may not delete in team-a/app"
        );
        let invalid = Refusal::invalid(
            "ListOptions",
            vec![
                FieldError::forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"),
                FieldError::not_supported("resourceVersionMatch", "x", &["Exact", "NotOlderThan", ""]),
            ],
        );
        assert_eq!(
            json_of(&invalid)["message"],
            "ListOptions.meta.k8s.io \"\" is invalid: [sendInitialEvents: Forbidden: sendInitialEvents is forbidden for \
             list, resourceVersionMatch: Unsupported value: \"x\": supported values: \"Exact\", \"NotOlderThan\", \"\"]"
        );
        assert_eq!(json_of(&invalid)["details"]["causes"][0]["reason"], "FieldValueForbidden");
        assert_eq!(json_of(&Refusal::version_too_large(9, 3))["details"]["retryAfterSeconds"], 1);
    }

    #[test]
    fn every_failure_of_the_registry_has_its_status() {
        for (reason, code, retry) in [
            (Reason::Invalid, 400, None),
            (Reason::Denied, 403, None),
            (Reason::NotFound, 404, None),
            (Reason::Conflict, 409, None),
            (Reason::Expired, 410, None),
            (Reason::Future, 410, None),
            (Reason::ReadOnly, 503, Some(1)),
            (Reason::Unavailable, 503, Some(1)),
            (Reason::Internal, 500, None),
        ] {
            let refusal = Refusal::of_call(Failure::new(reason, "a sentence").into(), "x");
            assert_eq!(refusal.code().as_u16(), code, "{reason:?}");
            assert_eq!(refusal.retry_after_seconds(), retry, "{reason:?}");
        }
        let later = Refusal::of_call(Failure::new(Reason::ReadOnly, "").retry_after(30).into(), "");
        assert_eq!(later.retry_after_seconds(), Some(1));
    }
}
