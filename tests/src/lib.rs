//! The harness of the end-to-end tests: it starts the real program as a process and talks to it over sockets.
//!
//! * [`server`] runs the program: start, stop, kill, restart on the same root;
//! * [`http`] is an HTTP/1.1 client that says exactly what a test wants said, right or wrong;
//! * [`client`] is a registry client on top of it;
//! * [`cluster`] is the double of a Kubernetes API server, [`front_proxy`] its way to aggregated APIs, [`authority`] the
//!   certificates of both;
//! * [`component`] plays the Kubernetes component towards the server;
//! * [`administer`] runs the commands of administrators;
//! * [`content`] makes blobs, digests and manifests;
//! * [`kapi`] runs the Kubernetes component, [`installation`] all of it together;
//! * [`kubectl`] runs the real one;
//! * [`layout`] writes an image as a directory that other clients can read;
//! * [`manifests`] are those below `deploy/`;
//! * [`private`] calls the server's private interface, [`private_tls`] has what that takes over TLS;
//! * [`skopeo`] runs a client that others wrote;
//! * [`tls_proxy`] ends TLS in front of a server;
//! * [`tools`] finds, or installs, what others wrote;
//! * [`volume`] is a small file system of its own, to be filled up or mounted read-only.

pub mod administer;
pub mod authority;
pub mod client;
pub mod cluster;
pub mod component;
pub mod content;
pub mod front_proxy;
pub mod http;
pub mod installation;
pub mod kapi;
pub mod kubectl;
pub mod layout;
pub mod manifests;
pub mod private;
pub mod private_tls;
mod process;
pub mod server;
pub mod skopeo;
pub mod tls_proxy;
pub mod tools;
pub mod volume;

use std::io::Write as _;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

/// How long anything may take before it counts as hanging: far more than a loaded machine needs.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `condition` gives a value; fails the test, naming `what`, if it doesn't within [`PATIENCE`].
#[track_caller]
pub fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "in vain waited for this: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Says that something is not tested here, and why, so that it is seen: the harness hides what passing tests print.
pub fn skipped(what: &str) {
    let _ = writeln!(std::io::stderr(), "!! SKIPPED: {what}");
}

/// What servers and clients of the tests' own run on that do not fit into one thread.
fn runtime() -> &'static Runtime {
    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(2).enable_all().build().expect("a runtime")
    });
    &RUNTIME
}
