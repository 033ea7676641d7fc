use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use super::failure::Failure;
use super::resource::Resource;
use super::store::{Key, Store};
use super::user::User;
use super::{base64_url, now};

/// The audience of tokens that are for the API itself.
pub const API_AUDIENCE: &str = "https://kubernetes.default.svc";

/// The tokens that are good.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    tokens: HashMap<String, Token>,
    issued: u64,
    /// Seconds that a token of a service account is good for at most.
    seconds_max: Option<u64>,
}

#[derive(Clone, Debug)]
struct Token {
    user: User,
    audiences: Vec<String>,
    expires_at: u64,
    /// Objects that it is good for as long as, with their uid.
    bound_to: Vec<(Key, String)>,
}

impl Tokens {
    pub fn limit_lifetime(&self, seconds: Option<u64>) {
        self.lock().seconds_max = seconds;
    }

    pub fn add(&self, user: User, audiences: Vec<String>, seconds: u64) -> String {
        self.issue(Token { user, audiences, expires_at: now() + seconds, bound_to: Vec::new() }, json!({}))
    }

    pub fn revoke(&self, token: &str) {
        self.lock().tokens.remove(token);
    }

    /// Whose a token is, and for which of the audiences; a sentence where it is not good.
    pub fn review(
        &self,
        store: &Store,
        token: &str,
        audiences: &[String],
    ) -> Result<(User, Vec<String>), String> {
        let found = self.lock().tokens.get(token).cloned();
        let token = found.ok_or("[invalid bearer token, unknown]")?;
        if token.expires_at <= now() {
            return Err("[invalid bearer token, service account token has expired]".into());
        }
        let is_bound_to = |(key, uid): &(Key, String)| {
            store.get(key).is_ok_and(|object| object["metadata"]["uid"] == uid.as_str())
        };
        if !token.bound_to.iter().all(is_bound_to) {
            return Err("[invalid bearer token, what it is bound to is gone]".into());
        }
        let wanted = if audiences.is_empty() { vec![API_AUDIENCE.to_owned()] } else { audiences.to_vec() };
        let common: Vec<String> =
            wanted.iter().filter(|audience| token.audiences.contains(audience)).cloned().collect();
        if common.is_empty() {
            return Err(format!(
                "[invalid bearer token, token audiences {:?} is invalid for the target audiences {wanted:?}]",
                token.audiences
            ));
        }
        Ok((token.user, common))
    }

    /// Answers a `TokenReview`.
    pub fn answer_review(&self, store: &Store, mut review: Value) -> Value {
        let audiences: Vec<String> =
            serde_json::from_value(review["spec"]["audiences"].clone()).unwrap_or_default();
        let token = review["spec"]["token"].as_str().unwrap_or_default().to_owned();
        review["status"] = match self.review(store, &token, &audiences) {
            Ok((user, audiences)) => {
                let mut status = json!({
                    "authenticated": true, "audiences": audiences,
                    "user": {"username": user.name, "groups": user.groups, "extra": user.extra},
                });
                if let Some(uid) = user.uid {
                    status["user"]["uid"] = uid.into();
                }
                status
            }
            Err(error) => json!({"user": {}, "error": error}),
        };
        review
    }

    /// Answers a `TokenRequest`: issues a token of a service account.
    pub fn answer_request(
        &self,
        store: &Store,
        namespace: &str,
        account: &str,
        mut request: Value,
    ) -> Result<Value, Failure> {
        let key = |plural: &str, name: &str| {
            Resource::find("", "v1", plural)
                .map(|resource| Key::new(resource, namespace, name))
                .ok_or_else(|| Failure::new(422, format!("a token cannot be bound to one of the {plural}")))
        };
        let account_key = key("serviceaccounts", account)?;
        let account_uid = uid(&store.get(&account_key)?);
        let mut bound_to = vec![(account_key, account_uid.clone())];
        let spec = &request["spec"];
        let mut claims =
            json!({"serviceaccount": {"name": account, "uid": account_uid}, "namespace": namespace});
        if let Some(bound) = spec["boundObjectRef"].as_object() {
            let (kind, name) = (&bound["kind"], bound["name"].as_str().unwrap_or_default());
            if kind != "Secret" || bound.get("apiVersion").is_some_and(|version| version != "v1") {
                return Err(Failure::new(422, format!("a token cannot be bound to a {kind}")));
            }
            let bound_key = key("secrets", name)?;
            let bound_uid = uid(&store.get(&bound_key)?);
            if bound.get("uid").is_some_and(|uid| uid != bound_uid.as_str()) {
                return Err(Failure::new(409, format!("the uid of the secret {name} is another one")));
            }
            claims["secret"] = json!({"name": name, "uid": bound_uid});
            bound_to.push((bound_key, bound_uid));
        }
        let mut audiences: Vec<String> =
            serde_json::from_value(spec["audiences"].clone()).unwrap_or_default();
        if audiences.is_empty() {
            audiences.push(API_AUDIENCE.into());
        }
        let asked = spec["expirationSeconds"].as_u64().unwrap_or(3600);
        if asked < 600 {
            return Err(Failure::new(422, "may not specify a duration less than 10 minutes"));
        }
        let seconds = asked.min(self.lock().seconds_max.unwrap_or(u64::MAX));
        let mut user = User::service_account(namespace, account);
        user.uid = Some(account_uid);
        let expires_at = now() + seconds;
        let token = self.issue(
            Token { user, audiences: audiences.clone(), expires_at, bound_to },
            json!({"kubernetes.io": claims}),
        );
        request["spec"]["audiences"] = audiences.into();
        request["spec"]["expirationSeconds"] = seconds.into();
        let expires =
            jiff::Timestamp::from_second(i64::try_from(expires_at).unwrap_or(0)).unwrap_or_default();
        request["status"] = json!({"token": token, "expirationTimestamp": expires.to_string()});
        Ok(request)
    }

    /// Writes a token down as a JWT, with a signature that nobody is meant to check.
    fn issue(&self, mut token: Token, mut claims: Value) -> String {
        let mut state = self.lock();
        state.issued += 1;
        let id = format!("00000000-0000-4000-9000-{:012x}", state.issued);
        claims["iss"] = API_AUDIENCE.into();
        claims["sub"] = token.user.name.clone().into();
        claims["aud"] = token.audiences.clone().into();
        claims["iat"] = now().into();
        claims["nbf"] = now().into();
        claims["exp"] = token.expires_at.into();
        claims["jti"] = id.clone().into();
        let header = json!({"alg": "RS256", "kid": "double"}).to_string();
        let text = [header.as_bytes(), claims.to_string().as_bytes(), b"signature"].map(base64_url).join(".");
        let credential = "authentication.kubernetes.io/credential-id".to_owned();
        token.user.extra.insert(credential, vec![format!("JTI={id}")]);
        state.tokens.insert(text.clone(), token);
        text
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn uid(object: &Value) -> String {
    object["metadata"]["uid"].as_str().unwrap_or_default().to_owned()
}
