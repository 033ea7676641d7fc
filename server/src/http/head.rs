//! The head of a request (RFC 9112, sections 2 to 6), and what it says of the body and of the connection.

use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};

/// A head that can be answered.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) version: Version,
    pub(super) headers: HeaderMap,
    pub(super) framing: Framing,
    /// The client waits for a word before it sends the body.
    pub(super) expects_continue: bool,
    /// The client lets the connection stay open after the answer.
    pub(super) keep_alive: bool,
}

/// How the end of a body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Length(u64),
    Chunked,
}

/// A head that is refused; the connection ends with the answer, as what follows cannot be told apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadHead {
    pub(super) status: StatusCode,
    pub(super) message: &'static str,
}

const fn bad(message: &'static str) -> BadHead {
    BadHead { status: StatusCode::BAD_REQUEST, message }
}

/// Parses what has come of a head; `None` while it is incomplete. Returns the head's length too.
pub(super) fn parse(bytes: &[u8], headers_max: usize) -> Result<Option<(Head, usize)>, BadHead> {
    let mut fields = vec![httparse::EMPTY_HEADER; headers_max];
    let mut request = httparse::Request::new(&mut fields);
    let len = match request.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(BadHead {
                status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                message: "the request has too many header fields",
            });
        }
        Err(httparse::Error::Version) if names_a_version(bytes) => {
            return Err(BadHead {
                status: StatusCode::HTTP_VERSION_NOT_SUPPORTED,
                message: "only HTTP/1.1 and HTTP/1.0 are spoken here",
            });
        }
        Err(_) => return Err(bad("the request's head is malformed")),
    };
    // The parser takes lines that end without a carriage return; other readers of the same bytes may not, and where
    // two readers disagree about the end of a line, a request can be smuggled.
    let bare_line_feed = |(at, byte): (usize, &u8)| *byte == b'\n' && (at == 0 || bytes[at - 1] != b'\r');
    let start = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    if bytes[..len].iter().enumerate().skip(start).any(bare_line_feed) {
        return Err(bad("the lines of a request's head end with carriage return and line feed"));
    }

    let (Some(method), Some(target)) = (request.method, request.path) else {
        return Err(bad("the request has no method or no target"));
    };
    let method =
        Method::from_bytes(method.as_bytes()).map_err(|_| bad("the request's method is malformed"))?;
    let (path, query) = split_target(target)?;
    let version = if request.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
    let mut headers = HeaderMap::with_capacity(request.headers.len());
    for field in request.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes())
            .map_err(|_| bad("a header field's name is malformed"))?;
        let value =
            HeaderValue::from_bytes(field.value).map_err(|_| bad("a header field's value is malformed"))?;
        headers.append(name, value);
    }

    let hosts = headers.get_all(HOST).iter().count();
    if hosts > 1 || (hosts == 0 && version == Version::HTTP_11) {
        return Err(bad("a request has exactly one Host field"));
    }
    let framing = framing(&headers, version)?;
    let expects_continue = match headers.get(EXPECT) {
        None => false,
        Some(value) if value.as_bytes().eq_ignore_ascii_case(b"100-continue") => version == Version::HTTP_11,
        Some(_) => {
            return Err(BadHead {
                status: StatusCode::EXPECTATION_FAILED,
                message: "the only expectation that can be met is 100-continue",
            });
        }
    };
    let keep_alive = match version {
        Version::HTTP_10 => has_option(&headers, "keep-alive"),
        _ => !has_option(&headers, "close"),
    };
    let head = Head { method, path, query, version, headers, framing, expects_continue, keep_alive };
    Ok(Some((head, len)))
}

/// Whether the first line ends with a version, though not with one that is spoken here.
fn names_a_version(bytes: &[u8]) -> bool {
    let line = bytes
        .split(|byte| *byte == b'\r' || *byte == b'\n')
        .find(|line| !line.is_empty())
        .unwrap_or_default();
    let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    matches!(words[..], [_, _, [b'H', b'T', b'T', b'P', b'/', major, rest @ ..]]
        if major.is_ascii_digit() && matches!(rest, [] | [b'.', _]))
}

/// Path and query of a target in origin form or absolute form (RFC 9112, section 3.2).
fn split_target(target: &str) -> Result<(String, String), BadHead> {
    let is_http = |scheme: &str| scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    let origin = match target.split_once("://").filter(|(scheme, _)| is_http(scheme)) {
        Some((_, absolute)) => absolute.find('/').map_or("/", |at| &absolute[at..]),
        None => target,
    };
    if !origin.starts_with('/') {
        return Err(bad("the request's target is no path"));
    }
    let origin = origin.split('#').next().unwrap_or_default();
    let (path, query) = origin.split_once('?').unwrap_or((origin, ""));
    Ok((path.to_owned(), query.to_owned()))
}

/// RFC 9112, section 6: anything ambiguous is refused, as somebody in between may have read it the other way.
fn framing(headers: &HeaderMap, version: Version) -> Result<Framing, BadHead> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let length = match (lengths.next(), lengths.next()) {
        (None, _) => None,
        (Some(length), None) => Some(length),
        (Some(_), Some(_)) => return Err(bad("the request has more than one Content-Length")),
    };
    match (codings.next(), codings.next()) {
        (None, _) => {}
        (Some(_), _) if version == Version::HTTP_10 => return Err(bad("HTTP/1.0 has no transfer codings")),
        (Some(_), _) if length.is_some() => {
            return Err(bad("the request has both Content-Length and Transfer-Encoding"));
        }
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => {
            return Ok(Framing::Chunked);
        }
        _ => {
            return Err(BadHead {
                status: StatusCode::NOT_IMPLEMENTED,
                message: "the only transfer coding that is understood is chunked",
            });
        }
    }
    let Some(length) = length else { return Ok(Framing::Length(0)) };
    let digits = length.as_bytes();
    let length = std::str::from_utf8(digits).ok().filter(|_| digits.iter().all(u8::is_ascii_digit));
    match length.and_then(|digits| digits.parse().ok()) {
        Some(length) => Ok(Framing::Length(length)),
        None => Err(bad("the request's Content-Length is no number of bytes")),
    }
}

fn has_option(headers: &HeaderMap, option: &str) -> bool {
    headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|value| value.trim().eq_ignore_ascii_case(option))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse_one(text: &str) -> Result<Head, BadHead> {
        parse(text.as_bytes(), 10).map(|parsed| parsed.expect("complete").0)
    }

    #[test]
    fn a_head_is_understood() {
        let head = parse_one(
            "PUT /v2/a?digest=x HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-Continue\r\n\r\n",
        );
        let head = head.expect("well-formed");
        assert_eq!((head.path.as_str(), head.query.as_str()), ("/v2/a", "digest=x"));
        assert_eq!(head.framing, Framing::Length(5));
        assert!(head.expects_continue && head.keep_alive);
        let head = parse_one("GET http://h/v2/ HTTP/1.0\r\n\r\n").expect("well-formed");
        assert_eq!((head.path.as_str(), head.keep_alive), ("/v2/", false));
        assert!(parse(b"GET / HTTP/1.1\r\nHost: h\r\n", 10).expect("no error").is_none());
    }

    #[test]
    fn ambiguous_framing_is_refused() {
        for fields in [
            "Content-Length: 1\r\nContent-Length: 1",
            "Content-Length: 1\r\nTransfer-Encoding: chunked",
            "Content-Length: +1",
            "Content-Length: 1, 1",
            "Content-Length: -1",
            "Content-Length: 99999999999999999999",
            "Content-Length:",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: xchunked",
            "Host: other",
            "Content-Length : 1",
            "X: a\r\n b",
            "X: a\nY: b",
            "Expect: the unexpected",
        ] {
            let text = format!("PUT / HTTP/1.1\r\nHost: h\r\n{fields}\r\n\r\n");
            assert!(parse_one(&text).is_err(), "{fields}");
        }
        assert!(parse_one("GET / HTTP/1.1\r\n\r\n").is_err(), "no Host");
        assert!(parse_one("GET / HTTP/1.1\nHost: h\r\n\r\n").is_err(), "bare line feed");
        assert!(parse_one("CONNECT h:1 HTTP/1.1\r\nHost: h\r\n\r\n").is_err());
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(11));
        assert_eq!(
            parse_one(&many).expect_err("too many").status,
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes, 10);
        }
    }
}
