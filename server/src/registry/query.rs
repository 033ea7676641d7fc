//! What the queries of list and upload requests say.

use super::error::{Code, Refusal};

/// The value of a query's parameter; the first where there are several.
pub(super) fn parameter(query: &str, name: &str) -> Option<String> {
    parameters(query, name).next()
}

/// All values of a query's parameter.
pub(super) fn parameters<'a>(query: &'a str, name: &'a str) -> impl Iterator<Item = String> + 'a {
    form_urlencoded::parse(query.as_bytes())
        .filter(move |(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
}

/// A page of a list (OCI distribution specification, "Listing tags"): at most so many entries, and those behind a name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Page {
    /// Entries at most; `None`: all.
    pub(super) most: Option<usize>,
    /// The name that the page comes after; it need not exist.
    pub(super) last: Option<String>,
}

/// Reads `n` and `last`.
pub(super) fn page(query: &str) -> Result<Page, Refusal> {
    let most = match parameter(query, "n").filter(|n| !n.is_empty()) {
        None => None,
        Some(n) => {
            let wrong = || Refusal::bad_request(Code::Unsupported, format!("n={n} is no number of entries"));
            if !n.bytes().all(|b| b.is_ascii_digit()) {
                return Err(wrong());
            }
            // A number that is too large is as good as none.
            n.parse().ok()
        }
    };
    Ok(Page { most, last: parameter(query, "last").filter(|last| !last.is_empty()) })
}

/// A `Link` to the next page (RFC 8288).
pub(super) fn next_link(path: &str, parameters: &[(&str, &str)]) -> String {
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
    format!("<{path}?{query}>; rel=\"next\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages() {
        let page = |query| page(query).expect("valid");
        assert_eq!(page(""), Page { most: None, last: None });
        assert_eq!(page("n=0"), Page { most: Some(0), last: None });
        assert_eq!(page("n=10&last=a%2Bb"), Page { most: Some(10), last: Some("a+b".into()) });
        assert_eq!(page("n=99999999999999999999"), Page { most: None, last: None });
        for query in ["n=-1", "n=x", "n=1.5"] {
            assert!(super::page(query).is_err(), "{query}");
        }
    }

    #[test]
    fn links_are_encoded() {
        assert_eq!(
            next_link("/v2/a/tags/list", &[("n", "1"), ("last", "a b&c")]),
            "</v2/a/tags/list?n=1&last=a+b%26c>; rel=\"next\""
        );
    }
}
