use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use std::{fmt, io};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use super::{Action, ClusterUser, Identity, UserName};

/// Who issues the tokens, and who they are for: this registry.
pub const SERVICE: &str = "payload-registry";

/// How long a token is good for, in seconds. Clients get a new one by themselves.
const LIFETIME_SECONDS: u64 = 300;

/// Issues registry tokens and checks them (Docker registry token authentication).
///
/// A token says who its bearer is, and carries what was granted for those who read it; what the bearer may do is asked of
/// the policy with each request. Tokens are signed by a key that lives as long as the process. The token of somebody who
/// logged in with one of the cluster's ends with that one at the latest.
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
    /// Says that `sub` is a user of the cluster, and not one of the settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cluster: Option<ClusterClaims>,
}

/// What rules ask of a user of the cluster beside the name.
#[derive(Serialize, Deserialize)]
struct ClusterClaims {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uid: Option<String>,
    groups: Vec<String>,
}

/// The one claim that is read of tokens that may be anybody's.
#[derive(Deserialize)]
struct Issuer {
    iss: String,
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
        // One clock issues and checks, and nothing is to outlive the token it was issued for.
        validation.leeway = 0;
        Ok(Self {
            signing: EncodingKey::from_secret(&key),
            checking: DecodingKey::from_secret(&key),
            validation,
        })
    }

    /// A token for `identity`; `None` where it cannot be made.
    pub fn issue(&self, identity: &Identity, access: Vec<Grant>) -> Option<IssuedToken> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.issue_at(now, identity, access)
    }

    fn issue_at(&self, now: u64, identity: &Identity, access: Vec<Grant>) -> Option<IssuedToken> {
        let mut jti = [0; 16];
        getrandom::fill(&mut jti).ok()?;
        let (sub, cluster, left) = match identity {
            Identity::Anonymous => ("", None, None),
            Identity::StaticUser(name) => (name.as_str(), None, None),
            Identity::ClusterUser(user) => {
                let claims = ClusterClaims {
                    uid: user.uid.as_deref().map(str::to_owned),
                    groups: user.groups.to_vec(),
                };
                (&*user.name, Some(claims), user.time_left(now))
            }
        };
        let expires_in = left.map_or(LIFETIME_SECONDS, |left| left.as_secs().min(LIFETIME_SECONDS));
        let claims = Claims {
            iss: SERVICE.to_owned(),
            aud: SERVICE.to_owned(),
            sub: sub.to_owned(),
            nbf: now,
            iat: now,
            exp: now + expires_in,
            jti: hex::encode(jti),
            access,
            cluster,
        };
        let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.signing).ok()?;
        Some(IssuedToken { token, expires_in, issued_at: now })
    }

    /// Whose token this is; `None` where it is not ours, or no longer good.
    pub fn check(&self, token: &str) -> Option<Identity> {
        let claims = jsonwebtoken::decode::<Claims>(token, &self.checking, &self.validation).ok()?.claims;
        if let Some(ClusterClaims { uid, groups }) = claims.cluster {
            return Some(Identity::ClusterUser(Arc::new(ClusterUser {
                name: claims.sub.into(),
                uid: uid.map(Into::into),
                groups: groups.into(),
                expires_at: Some(claims.exp),
            })));
        }
        match claims.sub.as_str() {
            "" => Some(Identity::Anonymous),
            name => name.parse::<UserName>().ok().map(Identity::StaticUser),
        }
    }

    /// Whether a token says that it is one of ours. It may lie, or have expired; [`TokenIssuer::check`] tells.
    pub fn claims_to_be_ours(token: &str) -> bool {
        let claims = token.split('.').nth(1).and_then(|claims| BASE64_URL_SAFE_NO_PAD.decode(claims).ok());
        let issuer = claims.and_then(|claims| serde_json::from_slice::<Issuer>(&claims).ok());
        issuer.is_some_and(|issuer| issuer.iss == SERVICE)
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
            // A bit of each byte of the signature in turn: the text itself would not do, as a text that differs in
            // its last character may stand for the same bytes.
            let (signed, signature) = issued.token.rsplit_once('.').expect("a signature");
            let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).expect("base64");
            for at in 0..signature.len() {
                let mut forged = signature.clone();
                forged[at] ^= 1;
                let forged = format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(forged));
                assert_eq!(issuer.check(&forged), None, "byte {at}");
            }
        }
        for nonsense in ["", "a", "a.b.c", "eyJhbGciOiJub25lIn0.e30."] {
            assert_eq!(issuer.check(nonsense), None, "{nonsense}");
        }
    }

    fn now() -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
    }

    fn cluster_user(name: &str, expires_at: Option<u64>) -> Identity {
        let groups = vec!["system:authenticated".to_owned(), "devs".to_owned()];
        Identity::ClusterUser(Arc::new(ClusterUser::new(name, Some("1-2-3"), groups, expires_at)))
    }

    #[test]
    fn a_user_of_the_cluster_is_no_user_of_the_settings() {
        let issuer = TokenIssuer::new().expect("random bytes");
        // Names that mean something among the users of the settings mean nothing here.
        for name in ["jane", "", "anonymous", "token", "system:serviceaccount:team-a:ci"] {
            let issued = issuer.issue(&cluster_user(name, None), Vec::new()).expect("a token");
            let Some(Identity::ClusterUser(user)) = issuer.check(&issued.token) else { panic!("{name}") };
            assert_eq!((&*user.name, user.uid.as_deref()), (name, Some("1-2-3")));
            assert_eq!(*user.groups, ["system:authenticated", "devs"]);
            assert_eq!(user.expires_at, Some(issued.issued_at + issued.expires_in));
        }
    }

    #[test]
    fn a_token_ends_with_the_one_it_was_issued_for() {
        let issuer = TokenIssuer::new().expect("random bytes");
        let start = now();
        for (left, expires_in) in [(None, 300), (Some(3600), 300), (Some(300), 300), (Some(100), 100)] {
            let identity = cluster_user("jane", left.map(|left| start + left));
            let issued = issuer.issue_at(start, &identity, Vec::new()).expect("a token");
            assert_eq!(issued.expires_in, expires_in, "{left:?}");
            assert!(issuer.check(&issued.token).is_some(), "{left:?}");
        }
        // A second after its end it is none any more.
        let identity = Identity::StaticUser("jane".parse().expect("valid"));
        let issued = issuer.issue_at(start - LIFETIME_SECONDS - 1, &identity, Vec::new()).expect("a token");
        assert_eq!(issuer.check(&issued.token), None);
    }

    #[test]
    fn tokens_say_whose_they_are() {
        let issuer = TokenIssuer::new().expect("random bytes");
        let issued = issuer.issue(&cluster_user("jane", None), Vec::new()).expect("a token");
        assert!(TokenIssuer::claims_to_be_ours(&issued.token));
        let encoded = |claims: &str| format!("e30.{}.x", BASE64_URL_SAFE_NO_PAD.encode(claims));
        assert!(TokenIssuer::claims_to_be_ours(&encoded(r#"{"iss":"payload-registry"}"#)));
        for claims in [
            "",
            "{}",
            "[]",
            r#"{"iss":"https://kubernetes.default.svc.cluster.local"}"#,
            r#"{"iss":["payload-registry"]}"#,
            r#"{"iss":"payload-registry "}"#,
        ] {
            assert!(!TokenIssuer::claims_to_be_ours(&encoded(claims)), "{claims}");
        }
        for token in ["", "opaque", "a.b.c", "..", "\u{e4}.\u{e4}"] {
            assert!(!TokenIssuer::claims_to_be_ours(token), "{token}");
        }
    }
}
