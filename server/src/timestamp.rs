use engine::metadata::Timestamp;

/// A point in time as people and Kubernetes write it (RFC 3339, UTC, whole seconds).
pub(crate) fn rfc3339(timestamp: Timestamp) -> String {
    let ms = i64::try_from(timestamp.0).unwrap_or(i64::MAX);
    format!("{:.0}", jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX))
}
