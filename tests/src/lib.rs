//! The harness of the end-to-end tests: it starts the real program as a process and talks to it over sockets.
//!
//! * [`server`] runs the program: start, stop, kill, restart on the same root;
//! * [`http`] is an HTTP/1.1 client that says exactly what a test wants said, right or wrong;
//! * [`client`] is a registry client on top of it;
//! * [`content`] makes blobs, digests and manifests;
//! * [`layout`] writes an image as a directory that other clients can read;
//! * [`tools`] finds, or installs, what others wrote;
//! * [`volume`] is a small file system of its own, to be filled up or mounted read-only.

pub mod client;
pub mod content;
pub mod http;
pub mod layout;
pub mod server;
pub mod tools;
pub mod volume;

use std::time::{Duration, Instant};

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
