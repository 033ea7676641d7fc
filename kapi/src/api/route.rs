//! What is at which path.

use percent_encoding::percent_decode_str;

use super::objects::{ACCESS_RESOURCE, GROUP, RESOURCE, VERSION};

/// What a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `/healthz`, `/livez`: whether the process works.
    Live,
    /// `/readyz`: whether it is of use.
    Ready,
    /// `/metrics`.
    Metrics,
    /// `/version`.
    Version,
    /// `/openapi/v2`.
    OpenApiV2,
    /// `/openapi/v3`.
    OpenApiV3Index,
    /// `/openapi/v3/apis/<group>/<version>`.
    OpenApiV3,
    /// `/apis`.
    Groups,
    /// `/apis/<group>`.
    Group,
    /// `/apis/<group>/<version>`.
    Resources,
    /// The tags of all namespaces.
    AllTags,
    /// The tags of a namespace.
    Tags {
        /// The namespace.
        namespace: String,
    },
    /// A tag.
    Tag {
        /// The namespace.
        namespace: String,
        /// The object's name, as it was sent.
        name: String,
    },
    /// All objects, or those of a namespace, of the resource that has none.
    Accesses,
    /// One of them.
    Access {
        /// The name, as it was sent.
        name: String,
    },
    /// Nothing.
    Nothing,
}

impl Target {
    /// What a path, without the query, names. A slash at the end makes no difference.
    pub fn of(path: &str) -> Self {
        let path = path.strip_prefix('/').unwrap_or(path);
        let path = path.strip_suffix('/').unwrap_or(path);
        let segments: Option<Vec<String>> = path.split('/').map(decode).collect();
        let Some(segments) = segments else { return Self::Nothing };
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        match segments.as_slice() {
            ["healthz" | "livez"] => Self::Live,
            ["readyz"] => Self::Ready,
            ["metrics"] => Self::Metrics,
            ["version"] => Self::Version,
            ["openapi", "v2"] => Self::OpenApiV2,
            ["openapi", "v3"] => Self::OpenApiV3Index,
            ["openapi", "v3", "apis", GROUP, VERSION] => Self::OpenApiV3,
            ["apis"] => Self::Groups,
            ["apis", GROUP] => Self::Group,
            ["apis", GROUP, VERSION, rest @ ..] => Self::of_resource(rest),
            _ => Self::Nothing,
        }
    }

    fn of_resource(segments: &[&str]) -> Self {
        match segments {
            [] => Self::Resources,
            [RESOURCE] => Self::AllTags,
            ["namespaces", namespace, RESOURCE] => Self::Tags { namespace: (*namespace).to_owned() },
            ["namespaces", namespace, RESOURCE, name] => {
                Self::Tag { namespace: (*namespace).to_owned(), name: (*name).to_owned() }
            }
            [ACCESS_RESOURCE] | ["namespaces", _, ACCESS_RESOURCE] => Self::Accesses,
            ["namespaces", _, ACCESS_RESOURCE, name] => Self::Access { name: (*name).to_owned() },
            _ => Self::Nothing,
        }
    }

    /// The name that metrics have for it.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Live | Self::Ready => "health",
            Self::Metrics => "metrics",
            Self::Version => "version",
            Self::OpenApiV2 | Self::OpenApiV3Index | Self::OpenApiV3 => "openapi",
            Self::Groups | Self::Group | Self::Resources => "discovery",
            Self::AllTags | Self::Tags { .. } | Self::Tag { .. } => RESOURCE,
            Self::Accesses | Self::Access { .. } => ACCESS_RESOURCE,
            Self::Nothing => "none",
        }
    }
}

/// Decodes a segment. One that is empty, or that holds a slash, names nothing.
fn decode(segment: &str) -> Option<String> {
    let decoded = percent_decode_str(segment).decode_utf8().ok()?;
    (!decoded.is_empty() && !decoded.contains('/')).then(|| decoded.into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ROOT: &str = "/apis/payload-registry.deckhouse.io/v1alpha1";

    fn tags(namespace: &str) -> Target {
        Target::Tags { namespace: namespace.to_owned() }
    }

    #[test]
    fn paths() {
        for (path, target) in [
            ("/healthz", Target::Live),
            ("/livez", Target::Live),
            ("/readyz", Target::Ready),
            ("/apis", Target::Groups),
            ("/apis/", Target::Groups),
            ("/apis/payload-registry.deckhouse.io", Target::Group),
            (ROOT, Target::Resources),
            ("/openapi/v3/apis/payload-registry.deckhouse.io/v1alpha1", Target::OpenApiV3),
            ("/", Target::Nothing),
            ("", Target::Nothing),
            ("/api", Target::Nothing),
            ("/apis/apps", Target::Nothing),
            ("/apis/payload-registry.deckhouse.io/v1", Target::Nothing),
            ("//apis", Target::Nothing),
            ("/readyz/etcd", Target::Nothing),
        ] {
            assert_eq!(Target::of(path), target, "{path}");
        }
        for (path, target) in [
            ("/payloadrepositorytags", Target::AllTags),
            ("/payloadrepositorytags/x", Target::Nothing),
            ("/namespaces/a/payloadrepositorytags", tags("a")),
            ("/namespaces/a/payloadrepositorytags/", tags("a")),
            ("/namespaces/a%2Db/payloadrepositorytags", tags("a-b")),
            ("/namespaces/a%2Fb/payloadrepositorytags", Target::Nothing),
            ("/namespaces//payloadrepositorytags", Target::Nothing),
            ("/namespaces/a/payloadrepositorytags/x/status", Target::Nothing),
            ("/watch/payloadrepositorytags", Target::Nothing),
            ("/namespaces/a", Target::Nothing),
            ("/payloadrepositoryaccesses", Target::Accesses),
            ("/namespaces/a/payloadrepositoryaccesses", Target::Accesses),
            ("/namespaces/a/payloadrepositoryaccesses/x", Target::Access { name: "x".to_owned() }),
        ] {
            assert_eq!(Target::of(&format!("{ROOT}{path}")), target, "{path}");
        }
        let target = Target::Tag { namespace: "a".to_owned(), name: "x".to_owned() };
        assert_eq!(Target::of(&format!("{ROOT}/namespaces/a/payloadrepositorytags/x")), target);
    }

    proptest! {
        #[test]
        fn no_path_panics(path in "[ -~]{0,80}") {
            let _ = Target::of(&path);
            let _ = Target::of(&format!("{ROOT}/namespaces/{path}"));
        }
    }
}
