use std::sync::atomic::{AtomicBool, Ordering};

/// How far the pieces are that speak to the cluster and to the registry.
///
/// This is for people and for diagnosis. The aggregated API must serve discovery whatever stands here: an API that is
/// taken out of service blocks the deletion of every namespace of the cluster.
#[derive(Debug, Default)]
pub struct Readiness {
    /// All of RBAC has been read once.
    pub rules: Flag,
    /// All namespaces have been read once.
    pub namespaces: Flag,
    /// The registry gives work: the last request for token reviews was answered.
    pub registry: Flag,
    /// The front proxy's configuration has been read from the cluster, or was given by flags.
    pub front_proxy: Flag,
    /// All pull secrets and service accounts have been read once, or pull secrets are not managed.
    pub pull_secrets: Flag,
}

impl Readiness {
    /// Each condition with its name, in a fixed order.
    pub fn conditions(&self) -> [(&'static str, bool); 5] {
        [
            ("front-proxy", self.front_proxy.is_set()),
            ("registry", self.registry.is_set()),
            ("rbac", self.rules.is_set()),
            ("namespaces", self.namespaces.is_set()),
            ("pull-secrets", self.pull_secrets.is_set()),
        ]
    }
}

/// Whether something holds.
#[derive(Debug, Default)]
pub struct Flag(AtomicBool);

impl Flag {
    /// Whether it holds.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// It holds from now on. Whether it did not until now.
    pub(crate) fn set(&self) -> bool {
        !self.0.swap(true, Ordering::Relaxed)
    }

    /// It does not hold any more. Whether it did until now.
    pub(crate) fn clear(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}
