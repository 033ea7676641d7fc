//! What the API server's errors say.

use kube::Error;
use kube::runtime::watcher;

/// An error as a sentence for logs. Unlike the error's own words, it never quotes an answer of the API server that could
/// not be read: that may hold a secret.
pub(super) fn describe(error: &Error) -> String {
    match error {
        Error::Api(status) => format!("the API server says {}: {}", status.code, status.message),
        Error::SerdeError(error) => unreadable(error),
        error => {
            // The innermost says what happened: "Connection refused".
            let mut cause: &dyn std::error::Error = error;
            while let Some(inner) = cause.source() {
                cause = inner;
            }
            format!("the API server does not answer: {cause}")
        }
    }
}

/// The same for the errors of a watch.
pub(super) fn describe_watch(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => describe(error),
        watcher::Error::WatchError(status) => {
            format!("the API server says {}: {}", status.code, status.message)
        }
        watcher::Error::NoResourceVersion => "the API server's list has no resourceVersion".to_owned(),
    }
}

/// Whether a watch cannot go on where it was.
pub(super) fn is_gone(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::WatchStartFailed(Error::Api(status))
        | watcher::Error::WatchFailed(Error::Api(status)) => status.code == 410,
        _ => false,
    }
}

/// Whether the API server itself says that this very object does not exist. A 404 of anything that stands between, or
/// about anything else, is no such word.
pub(super) fn says_not_found(error: &Error, resource: &str, name: &str) -> bool {
    let Error::Api(status) = error else { return false };
    let details = status.details.as_ref();
    status.code == 404
        && status.reason == "NotFound"
        && details.is_some_and(|details| details.kind == resource && details.name == name)
}

/// An answer that cannot be read, without a word of it.
pub(super) fn unreadable(error: &serde_json::Error) -> String {
    format!("the API server's answer cannot be read (line {}, column {})", error.line(), error.column())
}

#[cfg(test)]
mod tests {
    use kube::core::Status;
    use kube::core::response::StatusDetails;

    use super::*;

    fn not_found(kind: &str, name: &str) -> Status {
        let details = StatusDetails {
            kind: kind.to_owned(),
            name: name.to_owned(),
            group: String::new(),
            uid: String::new(),
            causes: Vec::new(),
            retry_after_seconds: 0,
        };
        Status::failure("not found", "NotFound").with_code(404).with_details(details)
    }

    #[test]
    fn only_the_api_servers_word_on_this_object_counts() {
        let says = |status: Status| says_not_found(&Error::Api(status.boxed()), "namespaces", "a");
        assert!(says(not_found("namespaces", "a")));
        assert!(!says(not_found("namespaces", "b")));
        assert!(!says(not_found("secrets", "a")));
        assert!(!says(Status::failure("404 page not found", "NotFound").with_code(404)));
        assert!(!says(Status {
            reason: "Failed to parse error data".to_owned(),
            ..not_found("namespaces", "a")
        }));
        assert!(!says(not_found("namespaces", "a").with_code(403)));
        assert!(!says(not_found("namespaces", "a").with_code(410)));
    }

    #[test]
    fn an_unreadable_answer_is_not_quoted() {
        let error = serde_json::from_str::<Vec<u64>>(r#"["secret"]"#).expect_err("no number");
        assert!(error.to_string().contains("secret"));
        assert!(!describe(&Error::SerdeError(error)).contains("secret"));
    }
}
