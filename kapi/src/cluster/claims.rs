use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

/// What a token says of itself, if it is a JWT. Nobody has verified a word of it.
pub(super) struct Claims(Map<String, Value>);

impl Claims {
    /// Reads the claims of a token; `None` where it is no JWT.
    pub(super) fn of(token: &str) -> Option<Self> {
        let mut parts = token.split('.');
        let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let payload = BASE64_URL_SAFE_NO_PAD.decode(payload).ok()?;
        serde_json::from_slice(&payload).ok().map(Self)
    }

    /// Whether it says that it is for this audience (`aud`).
    pub(super) fn is_for(&self, audience: &str) -> bool {
        match self.0.get("aud") {
            Some(Value::String(only)) => only == audience,
            Some(Value::Array(all)) => all.iter().any(|one| one == audience),
            _ => false,
        }
    }

    /// Its subject (`sub`).
    pub(super) fn subject(&self) -> Option<&str> {
        self.0.get("sub")?.as_str()
    }

    /// When it was issued (`iat`), in seconds since the Unix epoch.
    pub(super) fn issued_at(&self) -> Option<u64> {
        seconds(self.0.get("iat")?)
    }

    /// When it ends (`exp`), in seconds since the Unix epoch.
    pub(super) fn expires_at(&self) -> Option<u64> {
        seconds(self.0.get("exp")?)
    }

    /// The uid of the service account that it is of, where Kubernetes issued it.
    pub(super) fn service_account_uid(&self) -> Option<&str> {
        self.0.get("kubernetes.io")?.get("serviceaccount")?.get("uid")?.as_str()
    }
}

/// A NumericDate may have a fraction (RFC 7519, section 2).
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a saturating cast, which is right for what is out of range"
)]
fn seconds(date: &Value) -> Option<u64> {
    date.as_u64().or_else(|| date.as_f64().filter(|seconds| *seconds >= 0.0).map(|seconds| seconds as u64))
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    /// A token with these claims, signed by nobody.
    pub(in crate::cluster) fn token(claims: &Value) -> String {
        let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}.c2lnbmF0dXJl", part(&json!({"alg": "RS256"})), part(claims))
    }

    #[test]
    fn what_a_service_accounts_token_says() {
        let token = token(&json!({
            "aud": ["https://kubernetes.default.svc", "payload-registry"], "iat": 1000, "exp": 4600.9,
            "sub": "system:serviceaccount:team:bot",
            "kubernetes.io": {"namespace": "team", "serviceaccount": {"name": "bot", "uid": "4f2c"}},
        }));
        let claims = Claims::of(&token).expect("a JWT");
        assert!(claims.is_for("payload-registry"));
        assert!(!claims.is_for("payload"));
        assert_eq!(claims.issued_at(), Some(1000));
        assert_eq!(claims.expires_at(), Some(4600));
        assert_eq!(claims.subject(), Some("system:serviceaccount:team:bot"));
        assert_eq!(claims.service_account_uid(), Some("4f2c"));
    }

    #[test]
    fn claims_of_other_kinds_are_not_there() {
        for claims in [
            json!({}),
            json!({"aud": 1, "exp": "soon", "iat": null, "sub": [], "kubernetes.io": "x"}),
            json!({"aud": [1, null], "exp": -5, "iat": -0.5, "kubernetes.io": {"serviceaccount": []}}),
        ] {
            let claims = Claims::of(&token(&claims)).expect("a JWT");
            assert!(!claims.is_for("payload-registry"));
            assert_eq!((claims.issued_at(), claims.expires_at()), (None, None));
            assert_eq!((claims.subject(), claims.service_account_uid()), (None, None));
        }
    }

    #[test]
    fn what_is_no_jwt() {
        let whole = token(&json!({"aud": "a"}));
        for text in ["", "opaque", "a.b", "a.b.c", "a.!.c", &format!("{whole}.d"), "e30.W10.e30"] {
            assert!(Claims::of(text).is_none(), "{text:?}");
        }
    }
}
