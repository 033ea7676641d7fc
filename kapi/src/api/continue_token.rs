//! Where the next page of a list begins.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use interface::Position;
use serde::{Deserialize, Serialize};

use super::status::Refusal;

/// What the parameter `continue` carries, as base64 of JSON; nothing for clients to read.
///
/// It is no secret and proves nothing: whoever makes one up sees what a list from that place on would show anyway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContinueToken {
    /// The resourceVersion of the first page, which is that of all pages: a watch from there on tells what changed
    /// between them.
    pub version: u64,
    /// The last tag of the page before.
    pub after: Position,
}

impl ContinueToken {
    /// Writes the token.
    pub fn encode(&self) -> String {
        // A number and strings, which JSON has a place for.
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    /// Reads a token of a list of `namespace`, or of all.
    pub fn decode(text: &str, namespace: Option<&str>) -> Result<Self, Refusal> {
        let invalid = |why: &str| Refusal::bad_request(format!("continue key is not valid: {why}"));
        let json = URL_SAFE_NO_PAD.decode(text).map_err(|_| invalid("it is none of this server's"))?;
        let token: Self =
            serde_json::from_slice(&json).map_err(|_| invalid("it is none of this server's"))?;
        if namespace.is_some_and(|namespace| namespace != token.after.namespace) {
            return Err(invalid("it is of a list of another namespace"));
        }
        Ok(token)
    }
}

#[cfg(test)]
mod tests {
    use interface::ObjectName;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn tokens_come_back(version: u64, namespace in "[a-z0-9-]{1,63}", path in "[a-z0-9/]{1,60}", tag in "[a-z]{1,9}") {
            let name = ObjectName::new(&path, &tag);
            let token = ContinueToken { version, after: Position { namespace: namespace.clone(), name } };
            let text = token.encode();
            prop_assert_eq!(ContinueToken::decode(&text, None).expect("a token"), token.clone());
            prop_assert_eq!(ContinueToken::decode(&text, Some(&namespace)).expect("a token"), token);
            prop_assert!(ContinueToken::decode(&text, Some("Other")).is_err());
        }

        #[test]
        fn nothing_else_is_a_token(text in "[ -~]{0,80}") {
            prop_assert!(ContinueToken::decode(&text, None).is_err());
        }

        #[test]
        fn no_json_is_taken_for_one(json in "\\{[ -~]{0,80}\\}") {
            if let Ok(token) = ContinueToken::decode(&URL_SAFE_NO_PAD.encode(json), None) {
                prop_assert!(!token.encode().is_empty());
            }
        }
    }
}
