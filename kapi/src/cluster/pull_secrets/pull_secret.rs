use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::docker_config::DockerConfig;
use crate::cluster::claims::Claims;

/// The type of the Secrets that are looked at.
pub(super) const SECRET_TYPE: &str = "kubernetes.io/dockerconfigjson";

/// What is in a Secret of this type.
pub(super) const DATA_KEY: &str = ".dockerconfigjson";

/// Names the service account whose token is filled in, and by that says that the Secret is to be managed.
pub(super) const ACCOUNT_NAME: &str = "payload-registry.deckhouse.io/service-account.name";
/// The uid of the service account whose token was filled in.
pub(super) const ACCOUNT_UID: &str = "payload-registry.deckhouse.io/service-account.uid";
/// When the token that was filled in ends (RFC 3339).
pub(super) const EXPIRES_AT: &str = "payload-registry.deckhouse.io/expires-at";
/// The hash of the entry that was filled in.
pub(super) const HASH: &str = "payload-registry.deckhouse.io/hash";

/// A Secret that is to hold a token of a service account.
#[derive(Clone, PartialEq)]
pub(super) struct PullSecret {
    /// The name of the service account. Anything may stand here that somebody wrote.
    pub(super) account: String,
    /// What we filled in, if it stands as we did.
    pub(super) filled: Option<Filled>,
    /// The hash that we noted, whether or not it fits.
    pub(super) noted_hash: Option<String>,
    /// All that is in it.
    pub(super) config: DockerConfig,
}

/// What was filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Filled {
    /// The token's subject.
    pub(super) subject: String,
    /// The uid of its service account.
    pub(super) account_uid: String,
    /// When it was issued, in seconds since the Unix epoch.
    pub(super) issued_at: Option<u64>,
    /// When it ends, in seconds since the Unix epoch.
    pub(super) expires_at: u64,
}

/// The service account that a Secret names; `None` where it is not to be managed, or is being deleted.
pub(super) fn named_account(metadata: &ObjectMeta) -> Option<&str> {
    let name = metadata.annotations.as_ref()?.get(ACCOUNT_NAME)?;
    metadata.deletion_timestamp.is_none().then_some(name)
}

impl PullSecret {
    /// Reads a Secret; `None` where it is not to be managed. The error says why nothing can be filled in.
    pub(super) fn of(secret: &Secret, host: &str) -> Option<Result<Self, &'static str>> {
        let account = named_account(&secret.metadata)?;
        (secret.type_.as_deref() == Some(SECRET_TYPE)).then(|| Self::read(secret, account, host))
    }

    fn read(secret: &Secret, account: &str, host: &str) -> Result<Self, &'static str> {
        if !is_object_name(account) {
            return Err("the annotation service-account.name is not the name of a service account");
        }
        if secret.immutable == Some(true) {
            return Err("the Secret is immutable");
        }
        let data = secret.data.as_ref().and_then(|data| data.get(DATA_KEY));
        let config = DockerConfig::parse(&data.ok_or(".dockerconfigjson is missing")?.0)?;
        let annotation = |name| secret.metadata.annotations.as_ref().and_then(|all| all.get(name)).cloned();
        let noted_hash = annotation(HASH);
        let filled =
            filled(&config, host, noted_hash.as_deref(), annotation(ACCOUNT_UID), annotation(EXPIRES_AT));
        Ok(Self { account: account.to_owned(), filled, noted_hash, config })
    }
}

fn filled(
    config: &DockerConfig,
    host: &str,
    noted_hash: Option<&str>,
    account_uid: Option<String>,
    expires_at: Option<String>,
) -> Option<Filled> {
    if config.hash(host).as_deref() != Some(noted_hash?) {
        return None;
    }
    let claims = Claims::of(config.password(host)?)?;
    let noted: Timestamp = expires_at?.parse().ok()?;
    let noted = u64::try_from(noted.as_second()).ok()?;
    Some(Filled {
        subject: claims.subject()?.to_owned(),
        account_uid: account_uid?,
        issued_at: claims.issued_at(),
        expires_at: claims.expires_at().map_or(noted, |expires_at| expires_at.min(noted)),
    })
}

/// Whether a text can be the name of an object (a DNS subdomain), and so stand in a path.
fn is_object_name(text: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

#[cfg(test)]
pub(super) mod tests {
    use k8s_openapi::ByteString;
    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::claims::tests::token;

    pub(in super::super) const HOST: &str = "registry.example.com";

    /// A token of the service account `team/bot`, issued at 1000 and good until 11000.
    pub(in super::super) fn bots_token() -> String {
        token(&json!({"sub": "system:serviceaccount:team:bot", "iat": 1000, "exp": 11000}))
    }

    /// A Secret with annotations (all of them ours) and a docker config.
    pub(in super::super) fn secret(annotations: &[(&str, &str)], config: &Value) -> Secret {
        let mut secret = Secret { type_: Some(SECRET_TYPE.to_owned()), ..Secret::default() };
        secret.metadata.annotations =
            Some(annotations.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect());
        secret.data = Some([(DATA_KEY.to_owned(), ByteString(config.to_string().into_bytes()))].into());
        secret
    }

    /// A docker config with the token filled in, and the hash of that.
    pub(in super::super) fn filled_config(token: &str) -> (Value, String) {
        let mut config = DockerConfig::parse(b"{}").expect("a docker config");
        let hash = config.fill(HOST, token, None);
        let auth = config.to_base64();
        let bytes = base64::Engine::decode(&base64::prelude::BASE64_STANDARD, auth).expect("base64");
        (serde_json::from_slice(&bytes).expect("JSON"), hash)
    }

    fn read(secret: &Secret) -> PullSecret {
        PullSecret::of(secret, HOST).expect("it is to be managed").expect("it can be")
    }

    #[test]
    fn which_secrets_are_managed() {
        let config = json!({"auths": {}});
        assert!(PullSecret::of(&secret(&[], &config), HOST).is_none());
        assert!(PullSecret::of(&secret(&[(HASH, "x")], &config), HOST).is_none());
        assert!(PullSecret::of(&secret(&[(ACCOUNT_NAME, "bot")], &config), HOST).is_some());
        let mut opaque = secret(&[(ACCOUNT_NAME, "bot")], &config);
        opaque.type_ = Some("Opaque".to_owned());
        assert!(PullSecret::of(&opaque, HOST).is_none());
    }

    #[test]
    fn what_cannot_be_filled_is_said() {
        let config = json!({"auths": {}});
        for name in
            ["", "a/b", "../../../kube-system/serviceaccounts/admin", "..", "a..b", "Bot", "bot?x", "a%2fb"]
        {
            let result = PullSecret::of(&secret(&[(ACCOUNT_NAME, name)], &config), HOST);
            assert!(matches!(result, Some(Err(why)) if why.contains("service-account.name")), "{name:?}");
        }
        let good = secret(&[(ACCOUNT_NAME, "bot-1.a")], &config);
        assert!(matches!(PullSecret::of(&good, HOST), Some(Ok(_))));
        let immutable = Secret { immutable: Some(true), ..good.clone() };
        assert!(matches!(PullSecret::of(&immutable, HOST), Some(Err("the Secret is immutable"))));
        let empty = Secret { data: None, ..good };
        assert!(matches!(PullSecret::of(&empty, HOST), Some(Err(".dockerconfigjson is missing"))));
        let malformed = secret(&[(ACCOUNT_NAME, "bot")], &json!({"auths": "x"}));
        assert!(matches!(PullSecret::of(&malformed, HOST), Some(Err(_))));
    }

    #[test]
    fn what_we_filled_in_is_known_again() {
        let (config, hash) = filled_config(&bots_token());
        let annotations = [
            (ACCOUNT_NAME, "bot"),
            (ACCOUNT_UID, "4f2c"),
            (EXPIRES_AT, "1970-01-01T03:03:20Z"),
            (HASH, hash.as_str()),
        ];
        let filled = Filled {
            subject: "system:serviceaccount:team:bot".to_owned(),
            account_uid: "4f2c".to_owned(),
            issued_at: Some(1000),
            expires_at: 11000,
        };
        assert_eq!(read(&secret(&annotations, &config)).filled, Some(filled.clone()));

        // Each annotation is needed, and none can make the token live longer.
        for missing in [ACCOUNT_UID, EXPIRES_AT, HASH] {
            let rest: Vec<_> = annotations.iter().copied().filter(|(key, _)| *key != missing).collect();
            assert_eq!(read(&secret(&rest, &config)).filled, None, "{missing}");
        }
        let with = |key: &str, value| {
            let changed =
                annotations.map(|(each, was)| if each == key { (each, value) } else { (each, was) });
            read(&secret(&changed, &config)).filled
        };
        assert_eq!(with(EXPIRES_AT, "tomorrow"), None);
        assert_eq!(with(EXPIRES_AT, "2100-01-01T00:00:00Z"), Some(filled.clone()));
        assert_eq!(with(EXPIRES_AT, "1970-01-01T00:33:20Z"), Some(Filled { expires_at: 2000, ..filled }));
        assert_eq!(with(HASH, "0000"), None);

        // Nor is it ours any more when somebody edited it.
        let mut edited = config.clone();
        edited["auths"][HOST]["email"] = json!("a@b");
        assert_eq!(read(&secret(&annotations, &edited)).filled, None);
        let mut reset = config;
        reset["auths"] = json!({});
        assert_eq!(read(&secret(&annotations, &reset)).filled, None);
    }
}
