//! The `Date` field, formatted once a second on each thread.

use std::cell::RefCell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderValue;

thread_local! {
    static LAST: RefCell<(u64, HeaderValue)> =
        const { RefCell::new((0, HeaderValue::from_static(""))) };
}

/// The time now, as `Date` says it (RFC 9110, section 6.6.1).
pub(super) fn date() -> HeaderValue {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    LAST.with_borrow_mut(|(second, value)| {
        if *second != seconds {
            let text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds));
            *value = HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""));
            *second = seconds;
        }
        value.clone()
    })
}
