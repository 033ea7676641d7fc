use std::fmt;
use std::str::FromStr;

/// A registered digest algorithm (OCI image specification, "Digest", "Registered algorithms").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Algorithm {
    /// SHA-256: 32 bytes, written as 64 lower-case hexadecimal digits.
    Sha256 = 1,
    /// SHA-512: 64 bytes, written as 128 lower-case hexadecimal digits.
    Sha512 = 2,
}

impl Algorithm {
    /// Every algorithm that the registry accepts.
    pub const ALL: [Self; 2] = [Self::Sha256, Self::Sha512];

    /// The name used in front of the colon.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// Length of the binary digest in bytes.
    pub const fn size(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }
}

impl FromStr for Algorithm {
    type Err = DigestError;

    fn from_str(name: &str) -> Result<Self, DigestError> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name).ok_or(DigestError::Algorithm)
    }
}

/// Why a text is no digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// No colon, or not the right number of lower-case hexadecimal digits behind it.
    #[error(
        "a digest is an algorithm, a colon and lower-case hexadecimal digits: sha256:<64 digits> or sha512:<128 digits>"
    )]
    Format,
    /// A well-formed digest of an algorithm that the registry does not know.
    #[error("the digest's algorithm is not supported; use sha256 or sha512")]
    Algorithm,
}

/// The digest of some content: algorithm and value (OCI image specification, "Digest").
///
/// Ordered by algorithm, then by value: the order of the keys in the metadata.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    /// The algorithm's number, then its value, then zeros: the first `1 + size` bytes are the key in the metadata.
    bytes: [u8; 65],
}

impl Digest {
    /// Builds a digest from the binary `value`; `None` where its length is not the algorithm's.
    pub fn new(algorithm: Algorithm, value: &[u8]) -> Option<Self> {
        if value.len() != algorithm.size() {
            return None;
        }
        let mut bytes = [0; 65];
        bytes[0] = algorithm as u8;
        bytes[1..=value.len()].copy_from_slice(value);
        Some(Self { bytes })
    }

    /// Reads a digest back from what [`Digest::as_key`] gave.
    pub fn from_key(key: &[u8]) -> Option<Self> {
        let (&number, value) = key.split_first()?;
        let algorithm = Algorithm::ALL.into_iter().find(|algorithm| *algorithm as u8 == number)?;
        Self::new(algorithm, value)
    }

    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        if self.bytes[0] == Algorithm::Sha512 as u8 { Algorithm::Sha512 } else { Algorithm::Sha256 }
    }

    /// The binary value: 32 or 64 bytes.
    pub fn value(&self) -> &[u8] {
        &self.bytes[1..=self.algorithm().size()]
    }

    /// The bytes by which the digest is stored: the algorithm's number, then the value.
    pub fn as_key(&self) -> &[u8] {
        &self.bytes[..=self.algorithm().size()]
    }

    /// The value as lower-case hexadecimal digits, without the algorithm.
    pub fn hex(&self) -> String {
        hex::encode(self.value())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; 128];
        let text = &mut text[..2 * self.algorithm().size()];
        hex::encode_to_slice(self.value(), text).map_err(|_| fmt::Error)?;
        write!(f, "{}:{}", self.algorithm().name(), std::str::from_utf8(text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let (algorithm, digits) = text.split_once(':').ok_or(DigestError::Format)?;
        let is_component = |part: &str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        };
        if !algorithm.split(['+', '.', '_', '-']).all(is_component) || digits.is_empty() {
            return Err(DigestError::Format);
        }
        let algorithm: Algorithm = algorithm.parse()?;
        let lower_hex = digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if digits.len() != 2 * algorithm.size() || !lower_hex {
            return Err(DigestError::Format);
        }
        let mut value = [0; 64];
        let value = &mut value[..algorithm.size()];
        hex::decode_to_slice(digits, value).map_err(|_| DigestError::Format)?;
        Self::new(algorithm, value).ok_or(DigestError::Format)
    }
}

impl serde::Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            serializer.serialize_bytes(self.as_key())
        }
    }
}

impl<'de> serde::Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Digest;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a digest such as sha256:<64 hexadecimal digits>")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Digest, E> {
                text.parse().map_err(|error| E::custom(format_args!("{text:?}: {error}")))
            }
            fn visit_bytes<E: serde::de::Error>(self, key: &[u8]) -> Result<Digest, E> {
                Digest::from_key(key).ok_or_else(|| E::custom("not a stored digest"))
            }
        }
        if deserializer.is_human_readable() {
            deserializer.deserialize_str(Visitor)
        } else {
            deserializer.deserialize_bytes(Visitor)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_key_round_trip() {
        for text in [format!("sha256:{}", "0f".repeat(32)), format!("sha512:{}", "a1".repeat(64))] {
            let digest: Digest = text.parse().expect("valid");
            assert_eq!(digest.to_string(), text);
            assert_eq!(Digest::from_key(digest.as_key()), Some(digest));
            let json = serde_json::to_string(&digest).expect("json");
            assert_eq!(serde_json::from_str::<Digest>(&json).expect("json"), digest);
            let stored = postcard::to_stdvec(&digest).expect("postcard");
            assert_eq!(postcard::from_bytes::<Digest>(&stored).expect("postcard"), digest);
        }
    }

    #[test]
    fn malformed_digests_are_refused() {
        let hex64 = "0f".repeat(32);
        for text in [
            "",
            "sha256",
            "sha256:",
            ":00",
            &format!("sha256:{}", &hex64[1..]),
            &format!("sha256:{hex64}0"),
            &format!("sha256:{}", hex64.to_uppercase()),
            &format!("sha512:{hex64}"),
            &format!("sha256: {}", &hex64[1..]),
            "sha+:00",
        ] {
            assert_eq!(text.parse::<Digest>(), Err(DigestError::Format), "{text}");
        }
        assert_eq!("blake3:00".parse::<Digest>(), Err(DigestError::Algorithm));
    }
}
