//! Who asks, as the front proxy says.

use http::{HeaderMap, HeaderName};
use interface::Caller;
use percent_encoding::percent_decode_str;

use super::status::Refusal;
use crate::tls::{FrontProxy, IdentityHeaders, Peer};

/// Users that no rule holds: the namespace controller must see and delete everything of a namespace that goes, or it goes
/// and leaves tags behind, and the roles of such a namespace go in any order; the garbage collector must see everything,
/// or takes what it does not see for gone. The second is what they are called where the controllers have no accounts of
/// their own.
const UNRESTRICTED_USERS: [&str; 3] = [
    "system:serviceaccount:kube-system:namespace-controller",
    "system:kube-controller-manager",
    "system:serviceaccount:kube-system:generic-garbage-collector",
];

/// The group that no rule holds.
const UNRESTRICTED_GROUP: &str = "system:masters";

/// The attribute that names the credential somebody logged in with. It is no secret.
const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

/// An authenticated user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The name.
    pub name: String,
    /// The groups; there may be none.
    pub groups: Vec<String>,
    /// What names the credential, for the log.
    pub credential: Option<String>,
}

impl Identity {
    /// Who sent a request: nobody's headers count but the front proxy's.
    pub fn of(peer: &Peer, front_proxy: &FrontProxy, headers: &HeaderMap) -> Result<Self, Refusal> {
        let config = front_proxy.current().ok_or_else(|| {
            Refusal::unauthorized("Unauthorized: the configuration of the front proxy is not known yet")
        })?;
        peer.verify(&config)
            .map_err(|untrusted| Refusal::unauthorized(format!("Unauthorized: {untrusted}")))?;
        Self::from_headers(headers, config.headers())
            .ok_or_else(|| Refusal::unauthorized("Unauthorized: the front proxy names no user"))
    }

    /// Reads the front proxy's headers. `None` where no user is named, or where a name is no UTF-8: it could be taken for
    /// another's.
    fn from_headers(headers: &HeaderMap, names: &IdentityHeaders) -> Option<Self> {
        let user = names.username.iter().filter_map(|name| headers.get(name));
        let user = user.map(|value| value.as_bytes()).find(|value| !value.is_empty())?;
        let groups = names.groups.iter().flat_map(|name| headers.get_all(name));
        let groups = groups.map(|value| value.as_bytes()).filter(|value| !value.is_empty());
        let credential = headers
            .iter()
            .find(|(name, _)| extra_key(name, &names.extra_prefixes).as_deref() == Some(CREDENTIAL_ID));
        Some(Self {
            name: text(user)?,
            groups: groups.map(text).collect::<Option<_>>()?,
            credential: credential.and_then(|(_, value)| text(value.as_bytes())),
        })
    }

    /// On whose behalf the registry is asked.
    pub fn caller(&self) -> Caller {
        if self.is_unrestricted() {
            Caller::Unrestricted { name: self.name.clone() }
        } else {
            Caller::User { name: self.name.clone(), groups: self.groups.clone() }
        }
    }

    /// Whether no rule holds the user.
    pub fn is_unrestricted(&self) -> bool {
        UNRESTRICTED_USERS.contains(&self.name.as_str())
            || self.groups.iter().any(|group| group == UNRESTRICTED_GROUP)
    }
}

fn text(bytes: &[u8]) -> Option<String> {
    String::from_utf8(bytes.to_vec()).ok()
}

/// The name of a further attribute: what stands behind the prefix, percent-decoded. A name that cannot be decoded is taken
/// as it is. Names of headers are in lower case here, whatever the version of HTTP.
fn extra_key(header: &HeaderName, prefixes: &[String]) -> Option<String> {
    let key = prefixes.iter().find_map(|prefix| header.as_str().strip_prefix(prefix.as_str()))?;
    Some(percent_decode_str(key).decode_utf8().map_or_else(|_| key.to_owned(), Into::into))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn names() -> IdentityHeaders {
        IdentityHeaders {
            username: vec![HeaderName::from_static("x-remote-user"), HeaderName::from_static("x-other-user")],
            groups: vec![HeaderName::from_static("x-remote-group")],
            extra_prefixes: vec!["x-remote-extra-".to_owned()],
        }
    }

    fn read(headers: &[(&str, &[u8])]) -> Option<Identity> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
            map.append(name, HeaderValue::from_bytes(value).expect("a value"));
        }
        Identity::from_headers(&map, &names())
    }

    #[test]
    fn users_groups_and_credentials() {
        let identity = read(&[
            ("X-Remote-User", b"kubernetes-admin"),
            ("X-Remote-Group", b"system:masters"),
            ("X-Remote-Group", b""),
            ("X-Remote-Group", b"system:authenticated"),
            ("X-Remote-Extra-Authentication.kubernetes.io%2fcredential-Id", b"JTI=1"),
            ("X-Remote-Extra-Scopes", b"all"),
        ]);
        assert_eq!(
            identity,
            Some(Identity {
                name: "kubernetes-admin".to_owned(),
                groups: vec!["system:masters".to_owned(), "system:authenticated".to_owned()],
                credential: Some("JTI=1".to_owned()),
            })
        );
        let identity =
            read(&[("x-remote-user", b""), ("x-other-user", "jürgen".as_bytes())]).expect("a user");
        assert_eq!((identity.name.as_str(), identity.groups.len()), ("jürgen", 0));
    }

    #[test]
    fn nobody() {
        assert_eq!(read(&[]), None);
        assert_eq!(read(&[("x-remote-user", b"")]), None);
        assert_eq!(read(&[("x-remote-group", b"system:masters")]), None);
        assert_eq!(read(&[("x-remote-user", b"\xff")]), None);
        assert_eq!(read(&[("x-remote-user", b"jane"), ("x-remote-group", b"\xff")]), None);
    }

    #[test]
    fn whom_no_rule_holds() {
        let caller = |name: &str, groups: &[&str]| {
            let groups = groups.iter().map(|group| (*group).to_owned()).collect();
            Identity { name: name.to_owned(), groups, credential: None }.caller()
        };
        for (name, groups) in [
            ("system:serviceaccount:kube-system:namespace-controller", &["system:authenticated"][..]),
            ("system:kube-controller-manager", &["system:authenticated"]),
            ("system:serviceaccount:kube-system:generic-garbage-collector", &[]),
            ("jane", &["dev", "system:masters"]),
        ] {
            assert_eq!(caller(name, groups), Caller::Unrestricted { name: name.to_owned() }, "{name}");
        }
        for (name, groups) in [
            ("system:masters", &["system:authenticated"][..]),
            ("system:serviceaccount:default:namespace-controller", &[]),
            ("system:aggregator", &[]),
            ("jane", &["system:kube-controller-manager"]),
        ] {
            assert!(matches!(caller(name, groups), Caller::User { .. }), "{name}");
        }
    }

    proptest! {
        #[test]
        fn extra_keys_come_back(key in "[a-z0-9./_äß% -]{1,40}") {
            let encoded = percent_encoding::utf8_percent_encode(&key, percent_encoding::NON_ALPHANUMERIC);
            let header = HeaderName::try_from(format!("X-Remote-Extra-{encoded}")).expect("a name");
            prop_assert_eq!(extra_key(&header, &names().extra_prefixes), Some(key));
        }

        #[test]
        fn no_header_panics(key in "[!#$%&'*+.^_`|~0-9a-z-]{0,40}", value: Vec<u8>) {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                let name = HeaderName::try_from(format!("x-remote-extra-{key}")).expect("a name");
                let user = (HeaderName::from_static("x-remote-user"), value.clone());
                let _ = Identity::from_headers(&HeaderMap::from_iter([user, (name, value)]), &names());
            }
        }
    }
}
