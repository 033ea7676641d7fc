use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;

/// User name and password of an `Authorization` header (RFC 7617, "The 'Basic' Authentication Scheme").
pub(super) struct BasicCredentials {
    pub(super) user: String,
    pub(super) password: String,
}

/// Why an `Authorization` header was not understood. Holds nothing of the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedCredentials {
    /// Another scheme than `Basic`.
    #[error("the authorization scheme is not supported; use Basic with user name and password")]
    Scheme,
    /// Not base64, or without its padding.
    #[error("the credentials are not valid base64")]
    Base64,
    /// Not UTF-8.
    #[error("the credentials are not UTF-8")]
    Encoding,
    /// No colon between user name and password.
    #[error("the credentials have no colon between user name and password")]
    Colon,
    /// A control character in the user name or the password, most often the end of a line.
    #[error("the credentials hold a control character, such as the end of a line")]
    Control,
}

impl BasicCredentials {
    /// Reads the header. The user name ends at the first colon; the password may have more of them.
    pub(super) fn parse(header: &HeaderValue) -> Result<Self, MalformedCredentials> {
        let header = header.as_bytes();
        let scheme_len = header.iter().position(|b| *b == b' ').ok_or(MalformedCredentials::Scheme)?;
        let (scheme, encoded) = header.split_at(scheme_len);
        if !scheme.eq_ignore_ascii_case(b"basic") {
            return Err(MalformedCredentials::Scheme);
        }
        let decoded = STANDARD.decode(encoded.trim_ascii()).map_err(|_| MalformedCredentials::Base64)?;
        let mut user = String::from_utf8(decoded).map_err(|_| MalformedCredentials::Encoding)?;
        if user.chars().any(char::is_control) {
            return Err(MalformedCredentials::Control);
        }
        let colon = user.find(':').ok_or(MalformedCredentials::Colon)?;
        let password = user.split_off(colon + 1);
        user.truncate(colon);
        Ok(Self { user, password })
    }
}

impl fmt::Debug for BasicCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BasicCredentials(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(header: &str) -> Result<(String, String), MalformedCredentials> {
        let header = HeaderValue::from_str(header).expect("a header");
        BasicCredentials::parse(&header).map(|credentials| (credentials.user, credentials.password))
    }

    fn basic(plain: &[u8]) -> String {
        format!("Basic {}", STANDARD.encode(plain))
    }

    #[test]
    fn the_examples_of_the_rfc() {
        let aladdin = Ok(("Aladdin".to_owned(), "open sesame".to_owned()));
        assert_eq!(parse("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="), aladdin);
        assert_eq!(parse("basic   QWxhZGRpbjpvcGVuIHNlc2FtZQ=="), aladdin);
        assert_eq!(parse("Basic dGVzdDoxMjPCow=="), Ok(("test".into(), "123£".into())));
    }

    #[test]
    fn a_password_may_hold_colons_and_be_empty() {
        assert_eq!(parse(&basic(b"a:b:c::")), Ok(("a".into(), "b:c::".into())));
        assert_eq!(parse(&basic(b"a:")), Ok(("a".into(), String::new())));
        assert_eq!(parse(&basic(b":b")), Ok((String::new(), "b".into())));
    }

    #[test]
    fn other_headers_are_refused() {
        for header in ["", "Basic", "Bearer abc", "Digest username=\"a\"", "BasicQTpi", "Token a:b"] {
            assert_eq!(parse(header), Err(MalformedCredentials::Scheme), "{header:?}");
        }
        // No padding, another alphabet, bits that are left over, more than one token.
        for header in
            ["Basic YTpiYg", "Basic _-__", "Basic YTpiYh==", "Basic YTpi YTpi", "Basic !", "Basic YTpiYg==="]
        {
            assert_eq!(parse(header), Err(MalformedCredentials::Base64), "{header:?}");
        }
        assert_eq!(parse("Basic "), Err(MalformedCredentials::Colon));
        assert_eq!(parse(&basic(b"nocolon")), Err(MalformedCredentials::Colon));
        assert_eq!(parse(&basic(b"a:\xff")), Err(MalformedCredentials::Encoding));
        assert_eq!(parse(&basic(b"a:b\n")), Err(MalformedCredentials::Control));
        assert_eq!(parse(&basic(b"a\0:b")), Err(MalformedCredentials::Control));
    }

    #[test]
    fn debug_shows_nothing() {
        let header = HeaderValue::from_str(&basic(b"jane:secret")).expect("a header");
        let credentials = BasicCredentials::parse(&header).expect("valid");
        assert_eq!(format!("{credentials:?}"), "BasicCredentials(…)");
    }
}
