use std::time::{SystemTime, UNIX_EPOCH};
use std::{fmt, io};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use super::{Action, Identity, UserName};

/// Who issues the tokens, and who they are for: this registry.
pub const SERVICE: &str = "payload-registry";

/// How long a token is good for, in seconds. Clients get a new one by themselves.
const LIFETIME_SECONDS: u64 = 300;

/// Issues registry tokens and checks them (Docker registry token authentication).
///
/// A token says who its bearer is, and carries what was granted for those who read it; what the bearer may do is asked of
/// the policy with each request. Tokens are signed by a key that lives as long as the process.
pub struct TokenIssuer {
    signing: EncodingKey,
    checking: DecodingKey,
    validation: Validation,
}

/// A token that was issued.
#[derive(Clone, Debug)]
pub struct IssuedToken {
    /// The token.
    pub token: String,
    /// Seconds that it is good for.
    pub expires_in: u64,
    /// When it was issued, in seconds since the Unix epoch.
    pub issued_at: u64,
}

/// What was granted of one scope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// What it is about: `repository` or `registry`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The repository's name, or `catalog`.
    pub name: String,
    /// What may be done.
    pub actions: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    /// A user's name; empty for nobody in particular, which no user is called.
    sub: String,
    nbf: u64,
    iat: u64,
    exp: u64,
    jti: String,
    access: Vec<Grant>,
}

impl TokenIssuer {
    /// An issuer with a new key. Fails where the system gives no random bytes.
    pub fn new() -> io::Result<Self> {
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(io::Error::other)?;
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_audience(&[SERVICE]);
        validation.set_issuer(&[SERVICE]);
        validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
        Ok(Self {
            signing: EncodingKey::from_secret(&key),
            checking: DecodingKey::from_secret(&key),
            validation,
        })
    }

    /// A token for `identity`; `None` where it cannot be made.
    pub fn issue(&self, identity: &Identity, access: Vec<Grant>) -> Option<IssuedToken> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut jti = [0; 16];
        getrandom::fill(&mut jti).ok()?;
        let claims = Claims {
            iss: SERVICE.to_owned(),
            aud: SERVICE.to_owned(),
            sub: match identity {
                Identity::Anonymous => String::new(),
                Identity::StaticUser(name) => name.as_str().to_owned(),
            },
            nbf: now,
            iat: now,
            exp: now + LIFETIME_SECONDS,
            jti: hex::encode(jti),
            access,
        };
        let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.signing).ok()?;
        Some(IssuedToken { token, expires_in: LIFETIME_SECONDS, issued_at: now })
    }

    /// Whose token this is; `None` where it is not ours, or no longer good.
    pub fn check(&self, token: &str) -> Option<Identity> {
        let claims = jsonwebtoken::decode::<Claims>(token, &self.checking, &self.validation).ok()?.claims;
        match claims.sub.as_str() {
            "" => Some(Identity::Anonymous),
            name => name.parse::<UserName>().ok().map(Identity::StaticUser),
        }
    }
}

impl fmt::Debug for TokenIssuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenIssuer").finish_non_exhaustive()
    }
}

impl Action {
    /// The word for it in a token's scope.
    pub const fn scope_name(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Delete => "delete",
        }
    }

    /// Every action.
    pub const ALL: [Self; 3] = [Self::Pull, Self::Push, Self::Delete];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_tells_whose_it_is_to_its_issuer_alone() {
        let issuer = TokenIssuer::new().expect("random bytes");
        for identity in [Identity::Anonymous, Identity::StaticUser("jane".parse().expect("valid"))] {
            let issued = issuer.issue(&identity, Vec::new()).expect("a token");
            assert_eq!(issuer.check(&issued.token), Some(identity));
            assert_eq!(TokenIssuer::new().expect("random bytes").check(&issued.token), None);
            let (head, rest) = issued.token.split_at(issued.token.len() - 3);
            assert_eq!(
                issuer.check(&format!("{head}{}", rest.to_lowercase().replace(char::is_numeric, "x"))),
                None
            );
        }
        for nonsense in ["", "a", "a.b.c", "eyJhbGciOiJub25lIn0.e30."] {
            assert_eq!(issuer.check(nonsense), None, "{nonsense}");
        }
    }
}
