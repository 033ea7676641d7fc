//! Documents that never change while the program runs: discovery and OpenAPI.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use sha2::{Digest as _, Sha256};

use super::body::{Body, empty, full};

/// Content, its type, and its hash as an `ETag`.
#[derive(Debug)]
pub struct Document {
    content: Bytes,
    content_type: &'static str,
    hash: String,
}

impl Document {
    /// A document of JSON.
    pub fn new(content_type: &'static str, json: &serde_json::Value) -> Self {
        let content = json.to_string();
        let hash = hex::encode_upper(Sha256::digest(content.as_bytes()));
        Self { content: content.into(), content_type, hash }
    }

    /// The hash, in hexadecimal digits.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// Answers with the document, or, where the client has it already, with 304. `is_pinned`: the request names the hash, so
    /// that the answer is good for ever.
    pub fn answer(&self, headers: &HeaderMap, is_pinned: bool) -> Response<Body> {
        let mut response = if self.is_known(headers) {
            let mut response = Response::new(empty());
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response
        } else {
            let mut response = Response::new(full(self.content.clone()));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
            response
        };
        let headers = response.headers_mut();
        if let Ok(tag) = HeaderValue::try_from(format!("\"{}\"", self.hash)) {
            headers.insert(ETAG, tag);
        }
        headers.insert(VARY, HeaderValue::from_static("Accept"));
        let cache = if is_pinned { "public, immutable" } else { "no-cache, private" };
        headers.insert(CACHE_CONTROL, HeaderValue::from_static(cache));
        response
    }

    fn is_known(&self, headers: &HeaderMap) -> bool {
        let values = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|tag| {
            let tag = tag.trim();
            tag == "*" || tag.strip_prefix("W/").unwrap_or(tag).trim_matches('"') == self.hash
        })
    }
}

#[cfg(test)]
mod tests {
    use http::header::HeaderName;
    use serde_json::json;

    use super::*;

    #[test]
    fn who_has_it_gets_304() {
        let document = Document::new("application/json", &json!({"a": 1}));
        let status = |value: String| {
            let headers: HeaderMap<_> =
                [(HeaderName::from_static("if-none-match"), HeaderValue::try_from(value).expect("a value"))]
                    .into_iter()
                    .collect();
            document.answer(&headers, false).status().as_u16()
        };
        assert_eq!(document.answer(&HeaderMap::new(), false).status(), 200);
        assert_eq!(status(format!("\"{}\"", document.hash())), 304);
        assert_eq!(status(format!("\"other\", W/\"{}\"", document.hash())), 304);
        assert_eq!(status(document.hash().to_owned()), 304);
        assert_eq!(status("\"other\"".to_owned()), 200);
    }
}
