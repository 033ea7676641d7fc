//! Whether the process lives, and whether it can do its work.

use std::sync::atomic::Ordering;

use engine::Core;
use http::StatusCode;
use serde_json::json;

use crate::http::Response;
use crate::registry::Shared;
use crate::timestamp::rfc3339;

/// The process answers: nothing more is promised, so that a full disk does not get it restarted.
pub fn alive() -> Response {
    Response::new(StatusCode::OK).with_body("text/plain", "ok\n")
}

/// Whether requests should come here: the store can be read, and the process is not about to end. A volume that is
/// full is told and no reason to stay away, as pulls and deletes go on.
pub fn ready(core: &Core, shared: &Shared) -> Response {
    let store =
        core.metadata().snapshot().map(|snapshot| snapshot.sequence()).map_err(|error| error.to_string());
    let hold = core.hold();
    let has_room = core.has_room(0).unwrap_or(false);
    let is_stopping = shared.is_stopping.load(Ordering::Relaxed);
    let status = if store.is_ok() && !is_stopping { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({
        "ready": status == StatusCode::OK,
        "store": store.as_ref().map_or_else(|error| json!({"error": error}), |sequence| json!({"sequence": sequence})),
        "acceptsPushes": has_room && hold.is_none() && status == StatusCode::OK,
        "readOnly": hold.map(|hold| json!({"owner": hold.owner, "reason": hold.reason, "until": rfc3339(hold.until)})),
        "stopping": is_stopping,
    });
    Response::new(status).with_body("application/json", format!("{body}\n"))
}
