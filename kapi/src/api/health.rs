//! Probes.

use http::{Response, StatusCode};

use super::body::{Body, text};
use super::lifecycle::{Lifecycle, Phase};
use crate::cluster::Readiness;
use crate::tls::FrontProxy;

/// The process works, as it answers.
pub fn live() -> Response<Body> {
    text(StatusCode::OK, "ok")
}

/// Whether requests should come here: users can be told apart, and the end has not begun.
///
/// It does not matter whether the registry answers, or whether RBAC is known: taken out of service, this API would block the
/// deletion of every namespace of the cluster. `is_verbose` tells these things to people.
pub fn ready(
    lifecycle: &Lifecycle,
    front_proxy: &FrontProxy,
    readiness: &Readiness,
    is_verbose: bool,
) -> Response<Body> {
    let is_serving = lifecycle.phase() == Phase::Serving;
    let knows_front_proxy = front_proxy.current().is_some();
    let status =
        if is_serving && knows_front_proxy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    if status == StatusCode::OK && !is_verbose {
        return text(status, "ok");
    }
    let needed = [("not-stopping", is_serving), ("front-proxy", knows_front_proxy)];
    let mut lines = String::new();
    for (name, holds) in needed {
        lines += &format!("[{}]{name}\n", sign(holds));
    }
    let others = readiness.conditions().into_iter().filter(|(name, _)| *name != "front-proxy");
    for (name, holds) in others {
        lines += &format!("[{}]{name}: of no consequence for readiness\n", sign(holds));
    }
    text(status, lines)
}

fn sign(holds: bool) -> char {
    if holds { '+' } else { '-' }
}
