use std::cmp::Ordering;
use std::fmt;
use std::sync::LazyLock;

use data_encoding::{Encoding, Specification};
use serde::{Deserialize, Serialize};

/// RFC 4648 base32 in lower case without padding; decoding checks that the unused bits at the end are zero, so that
/// each tag has one name.
static BASE32: LazyLock<Encoding> = LazyLock::new(|| {
    let mut specification = Specification::new();
    specification.symbols.push_str("abcdefghijklmnopqrstuvwxyz234567");
    #[expect(clippy::expect_used, reason = "a constant that a test encodes with")]
    specification.encoding().expect("32 symbols")
});

/// The name of a tag within its namespace, for those who need one word for it: base32 of `<path>:<tag>`, where the path
/// is the repository's name without the namespace.
///
/// Names are ordered by their bytes, which is not the order of paths and tags.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ObjectName(String);

/// A text is not the name of any tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the name is not lower-case unpadded base32 of <path>:<tag>")]
pub struct InvalidObjectName;

impl ObjectName {
    /// The name of a tag.
    pub fn new(path: &str, tag: &str) -> Self {
        Self(BASE32.encode(format!("{path}:{tag}").as_bytes()))
    }

    /// Parses a name. Whether there can be such a path and such a tag is not asked here.
    pub fn parse(text: &str) -> Result<Self, InvalidObjectName> {
        split(text).map(|_| Self(text.to_owned()))
    }

    /// How the names of two tags compare, each given as `<path>:<tag>`: for those who look at many tags and make the names
    /// of few.
    pub fn compare_decoded(a: &str, b: &str) -> Ordering {
        let (a, b) = (a.as_bytes(), b.as_bytes());
        let same = a.iter().zip(b).take_while(|(a, b)| a == b).count();
        let byte = |text: &[u8], at: usize| text.get(at).copied().unwrap_or(0);
        // The digits are the same up to the one that has the first bit in which the texts differ. The rest of a text's
        // last digit is zeros.
        let differing = byte(a, same) ^ byte(b, same);
        let digit = (8 * same + differing.leading_zeros() as usize) / 5;
        let rank = |text: &[u8]| {
            let bit = 5 * digit;
            let word = u16::from_be_bytes([byte(text, bit / 8), byte(text, bit / 8 + 1)]);
            let value = word >> (11 - bit % 8) & 31;
            // `2` to `7`, which stand for 26 to 31, come before `a` to `z`; where a name ends, that comes first.
            (bit < 8 * text.len()).then_some((value + 6) % 32)
        };
        rank(a).cmp(&rank(b))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Path and tag.
    pub fn path_and_tag(&self) -> (String, String) {
        // Every name was made of the two, or parsed.
        split(&self.0).unwrap_or_default()
    }
}

/// Neither a path nor a tag has a colon; the last one splits them.
fn split(text: &str) -> Result<(String, String), InvalidObjectName> {
    let decoded = BASE32.decode(text.as_bytes()).map_err(|_| InvalidObjectName)?;
    let decoded = String::from_utf8(decoded).map_err(|_| InvalidObjectName)?;
    let (path, tag) = decoded.rsplit_once(':').ok_or(InvalidObjectName)?;
    if path.is_empty() || tag.is_empty() || path.contains(':') {
        return Err(InvalidObjectName);
    }
    Ok((path.to_owned(), tag.to_owned()))
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for ObjectName {
    type Error = InvalidObjectName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        split(&text).map(|_| Self(text))
    }
}

impl From<ObjectName> for String {
    fn from(name: ObjectName) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_samples_of_the_documentation() {
        for (path, tag, name) in [
            ("http-echo", "latest", "nb2hi4bnmvrwq3z2nrqxizltoq"),
            ("test/http-echo", "latest", "orsxg5bpnb2hi4bnmvrwq3z2nrqxizltoq"),
            ("test/http-echo2", "latest", "orsxg5bpnb2hi4bnmvrwq3zshjwgc5dfon2a"),
        ] {
            assert_eq!(ObjectName::new(path, tag).as_str(), name);
            let parsed = ObjectName::parse(name).expect("a name");
            assert_eq!(parsed.path_and_tag(), (path.to_owned(), tag.to_owned()));
        }
    }

    #[test]
    fn what_is_no_name() {
        let with_trailing_bits = "nb2hi4bnmvrwq3z2nrqxizltor";
        for text in [
            "",
            "a",
            "NB2HI4BNMVRWQ3Z2NRQXIZLTOQ",
            "nb2hi4bnmvrwq3z2nrqxizltoq======",
            with_trailing_bits,
            "1",
            "ab/c",
        ] {
            assert_eq!(ObjectName::parse(text), Err(InvalidObjectName), "{text:?}");
        }
        for decoded in ["", ":", "a:", ":a", "a", "a:b:c"] {
            let text = BASE32.encode(decoded.as_bytes());
            assert_eq!(ObjectName::parse(&text), Err(InvalidObjectName), "{decoded:?}");
        }
    }

    proptest! {
        #[test]
        fn names_come_back(path in "[a-z0-9]{1,20}(/[a-z0-9._-]{1,30}){0,8}", tag in "[A-Za-z0-9_][A-Za-z0-9._-]{0,127}") {
            let name = ObjectName::new(&path, &tag);
            prop_assert_eq!(ObjectName::parse(name.as_str()), Ok(name.clone()));
            prop_assert_eq!(name.path_and_tag(), (path, tag));
        }

        #[test]
        fn texts_compare_as_their_names(
            start in "[a-z0-9]{0,6}",
            a in "[a-z0-9/:._A-Z-]{0,6}",
            b in "[a-z0-9/:._A-Z-]{0,6}",
        ) {
            let encode = |text: &str| BASE32.encode(text.as_bytes());
            for (a, b) in [(start.clone() + &a, start.clone() + &b), (start.clone() + &a, start.clone())] {
                prop_assert_eq!(ObjectName::compare_decoded(&a, &b), encode(&a).cmp(&encode(&b)), "{} {}", a, b);
            }
        }

        #[test]
        fn nothing_else_decodes(text in "[a-zA-Z0-9=]{0,40}") {
            if let Ok(name) = ObjectName::parse(&text) {
                let (path, tag) = name.path_and_tag();
                let again = ObjectName::new(&path, &tag);
                prop_assert_eq!(again.as_str(), text);
            }
        }
    }
}
