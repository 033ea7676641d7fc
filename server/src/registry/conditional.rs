//! Conditional requests (RFC 9110, section 13). Entity tags are digests in quotes.

use engine::metadata::TagCondition;
use engine::oci::Digest;
use http::header::{IF_MATCH, IF_NONE_MATCH, IF_RANGE};
use http::{HeaderMap, HeaderName};

use super::error::{Code, Refusal};

/// What a field with entity tags lists.
enum EntityTags {
    Any,
    /// The digests among them; others match nothing that we have.
    Listed(Vec<Digest>),
}

/// The entity tag of content.
pub(super) fn entity_tag(digest: &Digest) -> String {
    format!("\"{digest}\"")
}

fn entity_tags(headers: &HeaderMap, name: HeaderName) -> Result<Option<EntityTags>, Refusal> {
    let mut listed = Vec::new();
    let mut has_field = false;
    for value in headers.get_all(&name) {
        has_field = true;
        let malformed = || {
            let example = "a digest in quotes, such as \"sha256:…\", or *";
            Refusal::bad_request(
                Code::Unsupported,
                format!("the field {name} is malformed: it takes {example}"),
            )
        };
        let value = value.to_str().map_err(|_| malformed())?;
        for tag in value.split(',').map(str::trim) {
            if tag == "*" {
                return Ok(Some(EntityTags::Any));
            }
            let (is_weak, opaque) = tag.strip_prefix("W/").map_or((false, tag), |opaque| (true, opaque));
            let quoted =
                opaque.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).ok_or_else(malformed)?;
            // If-Match compares strongly: a weak tag matches nothing (RFC 9110, section 13.1.1).
            if !(is_weak && name == IF_MATCH) {
                listed.extend(quoted.parse::<Digest>().ok());
            }
        }
    }
    Ok(has_field.then_some(EntityTags::Listed(listed)))
}

/// Whether `If-None-Match` says that the client has the content already.
pub(super) fn is_known(headers: &HeaderMap, digest: &Digest) -> Result<bool, Refusal> {
    Ok(match entity_tags(headers, IF_NONE_MATCH)? {
        None => false,
        Some(EntityTags::Any) => true,
        Some(EntityTags::Listed(digests)) => digests.contains(digest),
    })
}

/// Whether a `Range` field counts: no `If-Range`, or one that names this content.
pub(super) fn range_counts(headers: &HeaderMap, digest: &Digest) -> bool {
    headers.get(IF_RANGE).is_none_or(|value| value.as_bytes() == entity_tag(digest).as_bytes())
}

/// The condition on a tag that `If-Match` and `If-None-Match` make of a change: compare and set.
pub(super) fn tag_condition(headers: &HeaderMap) -> Result<TagCondition, Refusal> {
    match (entity_tags(headers, IF_MATCH)?, entity_tags(headers, IF_NONE_MATCH)?) {
        (None, None) => Ok(TagCondition::Any),
        (Some(EntityTags::Any), None) => Ok(TagCondition::Exists),
        (Some(EntityTags::Listed(digests)), None) => Ok(TagCondition::OneOf(digests)),
        (None, Some(EntityTags::Any)) => Ok(TagCondition::Absent),
        (None, Some(EntityTags::Listed(digests))) => Ok(TagCondition::NoneOf(digests)),
        (Some(_), Some(_)) => Err(Refusal::bad_request(
            Code::Unsupported,
            "a request has either If-Match or If-None-Match, not both",
        )),
    }
}
