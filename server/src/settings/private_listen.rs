use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use super::InvalidValue;

/// Where the private interface listens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PrivateListen {
    /// On the Unix socket `private.sock` in the root.
    #[default]
    Root,
    /// On a Unix socket elsewhere.
    Unix(PathBuf),
    /// On an address, over TLS.
    Tls(SocketAddr),
    /// Nowhere.
    None,
}

impl FromStr for PrivateListen {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let invalid = || {
            InvalidValue::new(
                "write unix, unix:<path>, an IP address and a port such as 0.0.0.0:5443 (for TLS), or none",
            )
        };
        match text {
            "none" => Ok(Self::None),
            "unix" => Ok(Self::Root),
            _ => match text.strip_prefix("unix:") {
                Some(path) if path.is_empty() || path.contains('\0') => Err(invalid()),
                Some(path) => Ok(Self::Unix(path.into())),
                None => text.parse().map(Self::Tls).map_err(|_| invalid()),
            },
        }
    }
}

impl fmt::Display for PrivateListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => f.write_str("unix"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tls(address) => address.fmt(f),
            Self::None => f.write_str("none"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_to_listen() {
        for (text, expected) in [
            ("unix", PrivateListen::Root),
            ("unix:/run/registry.sock", PrivateListen::Unix("/run/registry.sock".into())),
            ("[::]:5443", PrivateListen::Tls("[::]:5443".parse().expect("an address"))),
            ("none", PrivateListen::None),
        ] {
            assert_eq!(text.parse(), Ok(expected), "{text}");
            assert_eq!(text.parse::<PrivateListen>().expect(text).to_string(), text);
        }
        for text in ["", "unix:", "/run/registry.sock", "localhost:5443", "5443", "0.0.0.0", "off"] {
            assert!(text.parse::<PrivateListen>().is_err(), "{text:?}");
        }
    }
}
