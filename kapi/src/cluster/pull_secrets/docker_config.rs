use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

/// The user name that goes with a token.
const USER: &str = "token";

const AUTHS: &str = "auths";

/// The `.dockerconfigjson` of a Secret: what may be logged in with where.
///
/// Whatever is in it beside the entry of the registry's host is left as it is.
#[derive(Clone, PartialEq)]
pub(super) struct DockerConfig {
    all: Map<String, Value>,
}

impl DockerConfig {
    /// Reads it; the error says what is wrong without a word of what is in it.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        let mut all: Map<String, Value> =
            serde_json::from_slice(bytes).map_err(|_| ".dockerconfigjson is no JSON object")?;
        match all.entry(AUTHS).or_insert(Value::Null) {
            Value::Object(_) => {}
            none @ Value::Null => *none = json!({}),
            _ => return Err("auths in .dockerconfigjson is no JSON object"),
        }
        Ok(Self { all })
    }

    /// The hash of the entry for a host; `None` where there is none.
    pub(super) fn hash(&self, host: &str) -> Option<String> {
        self.auths()?.get(host).map(hash)
    }

    /// The password of the entry for a host.
    pub(super) fn password(&self, host: &str) -> Option<&str> {
        self.auths()?.get(host)?.get("password")?.as_str()
    }

    /// Whether there is anything beside the entry for a host.
    pub(super) fn has_others(&self, host: &str) -> bool {
        self.all.keys().any(|key| key != AUTHS)
            || self.auths().is_some_and(|auths| auths.keys().any(|other| other != host))
    }

    /// Puts in the entry for a host, with a token, and gives its hash. An entry of any host with the hash `replaced` is
    /// taken out: the registry had another host's name when it was put in.
    pub(super) fn fill(&mut self, host: &str, token: &str, replaced: Option<&str>) -> String {
        let entry = json!({
            "auth": BASE64_STANDARD.encode(format!("{USER}:{token}")),
            "password": token,
            "username": USER,
        });
        let hash = hash(&entry);
        if let Some(auths) = self.auths_mut() {
            auths.retain(|_, entry| replaced.is_none_or(|replaced| self::hash(entry) != replaced));
            auths.insert(host.to_owned(), entry);
        }
        hash
    }

    /// Takes the entry for a host out.
    pub(super) fn clear(&mut self, host: &str) {
        if let Some(auths) = self.auths_mut() {
            auths.remove(host);
        }
    }

    /// The text, in base64 as the data of Secrets is.
    pub(super) fn to_base64(&self) -> String {
        BASE64_STANDARD.encode(Value::Object(self.all.clone()).to_string())
    }

    fn auths(&self) -> Option<&Map<String, Value>> {
        self.all.get(AUTHS)?.as_object()
    }

    fn auths_mut(&mut self) -> Option<&mut Map<String, Value>> {
        self.all.get_mut(AUTHS)?.as_object_mut()
    }
}

/// SHA-256, in lower-case hex, of an entry as JSON without blanks and with its keys in byte order.
fn hash(entry: &Value) -> String {
    hex::encode(Sha256::digest(entry.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "registry.example.com";

    fn parse(value: &Value) -> DockerConfig {
        DockerConfig::parse(value.to_string().as_bytes()).expect("a docker config")
    }

    fn value(config: &DockerConfig) -> Value {
        let bytes = BASE64_STANDARD.decode(config.to_base64()).expect("base64");
        serde_json::from_slice(&bytes).expect("JSON")
    }

    #[test]
    fn what_is_filled_in() {
        for empty in [json!({}), json!({"auths": null}), json!({"auths": {}})] {
            let mut config = parse(&empty);
            assert_eq!(config.hash(HOST), None);
            assert!(!config.has_others(HOST));
            let hash = config.fill(HOST, "secret", None);
            let entry = json!({"username": "token", "password": "secret", "auth": "dG9rZW46c2VjcmV0"});
            assert_eq!(value(&config), json!({"auths": {HOST: entry}}));
            assert_eq!(config.hash(HOST), Some(hash));
            assert_eq!(config.password(HOST), Some("secret"));
            assert!(!config.has_others(HOST));
        }
    }

    #[test]
    fn the_hash_is_the_documented_one() {
        let hash = parse(&json!({})).fill(HOST, "secret", None);
        let text = r#"{"auth":"dG9rZW46c2VjcmV0","password":"secret","username":"token"}"#;
        assert_eq!(hash, hex::encode(Sha256::digest(text)));
        let other_order = r#"{"auths":{"registry.example.com":{"username":"token","password":"secret","auth":"dG9rZW46c2VjcmV0"}}}"#;
        let config = DockerConfig::parse(other_order.as_bytes()).expect("a docker config");
        assert_eq!(config.hash(HOST), Some(hash));
    }

    #[test]
    fn what_belongs_to_others_stays() {
        let others = json!({
            "auths": {"docker.io": {"auth": "eDp5", "email": "a@b"}},
            "credHelpers": {"gcr.io": "gcloud"},
        });
        let mut config = parse(&others);
        assert!(config.has_others(HOST));
        config.fill(HOST, "secret", None);
        assert_eq!(value(&config)["auths"]["docker.io"], others["auths"]["docker.io"]);
        assert_eq!(value(&config)["credHelpers"], others["credHelpers"]);
        config.clear(HOST);
        assert_eq!(value(&config), others);
    }

    #[test]
    fn an_edit_changes_the_hash() {
        let mut config = parse(&json!({}));
        let hash = config.fill(HOST, "secret", None);
        for (key, edit) in [("password", json!("other")), ("auth", json!("eDp5")), ("email", json!("a@b"))] {
            let mut edited = value(&config);
            edited["auths"][HOST][key] = edit;
            assert_ne!(parse(&edited).hash(HOST), Some(hash.clone()), "{key}");
        }
    }

    #[test]
    fn an_entry_for_the_former_host_goes() {
        let mut config = parse(&json!({"auths": {"docker.io": {"auth": "eDp5"}}}));
        let hash = config.fill("old.example.com", "secret", None);
        config.fill(HOST, "secret-2", Some(&hash));
        let auths = value(&config)["auths"].clone();
        let hosts: Vec<&String> = auths.as_object().expect("an object").keys().collect();
        assert_eq!(hosts, ["docker.io", HOST]);
    }

    #[test]
    fn what_is_no_docker_config() {
        for text in ["", "[]", "null", "{", r#"{"auths":[]}"#, r#"{"auths":"x"}"#] {
            assert!(DockerConfig::parse(text.as_bytes()).is_err(), "{text:?}");
        }
    }
}
