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
        let mut rest = value.to_str().map_err(|_| malformed())?.trim_start();
        if rest.trim_end() == "*" {
            return Ok(Some(EntityTags::Any));
        }
        // A comma may stand within a tag, and elements may be empty (RFC 9110, sections 5.6.1 and 8.8.3).
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix(',') {
                rest = after.trim_start();
                continue;
            }
            let (is_weak, opaque) = rest.strip_prefix("W/").map_or((false, rest), |opaque| (true, opaque));
            let (quoted, after) =
                opaque.strip_prefix('"').and_then(|opaque| opaque.split_once('"')).ok_or_else(malformed)?;
            // If-Match compares strongly: a weak tag matches nothing (RFC 9110, section 13.1.1).
            if !(is_weak && name == IF_MATCH) {
                listed.extend(quoted.parse::<Digest>().ok());
            }
            rest = after.trim_start();
            if !(rest.is_empty() || rest.starts_with(',')) {
                return Err(malformed());
            }
        }
    }
    Ok(has_field.then_some(EntityTags::Listed(listed)))
}

/// Whether `If-None-Match` says that the client has the content already. One that is malformed says nothing: the
/// content is sent, which is what any client understands.
pub(super) fn is_known(headers: &HeaderMap, digest: &Digest) -> bool {
    match entity_tags(headers, IF_NONE_MATCH) {
        Ok(None) | Err(_) => false,
        Ok(Some(EntityTags::Any)) => true,
        Ok(Some(EntityTags::Listed(digests))) => digests.contains(digest),
    }
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

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn condition(name: HeaderName, value: &str) -> Result<TagCondition, Refusal> {
        tag_condition(&HeaderMap::from_iter([(name, HeaderValue::try_from(value).expect("a value"))]))
    }

    #[test]
    fn lists_of_entity_tags_are_read_as_the_standard_has_them() {
        let digest: Digest = DIGEST.parse().expect("valid");
        for value in [
            format!("\"{DIGEST}\""),
            format!(" , \"a,b\",, \"{DIGEST}\" ,"),
            format!("W/\"x\", \"{DIGEST}\""),
        ] {
            assert_eq!(
                condition(IF_MATCH, &value).expect("valid"),
                TagCondition::OneOf(vec![digest]),
                "{value}"
            );
            assert_eq!(
                condition(IF_NONE_MATCH, &value).expect("valid"),
                TagCondition::NoneOf(vec![digest]),
                "{value}"
            );
        }
        let weak = format!("W/\"{DIGEST}\"");
        assert_eq!(condition(IF_MATCH, &weak).expect("valid"), TagCondition::OneOf(Vec::new()));
        assert_eq!(condition(IF_NONE_MATCH, &weak).expect("valid"), TagCondition::NoneOf(vec![digest]));
        assert_eq!(condition(IF_NONE_MATCH, " * ").expect("valid"), TagCondition::Absent);
        assert_eq!(condition(IF_MATCH, "*").expect("valid"), TagCondition::Exists);
        for value in ["x", "\"x", "\"x\" \"y\"", DIGEST] {
            assert!(condition(IF_MATCH, value).is_err(), "{value}");
        }
    }
}
