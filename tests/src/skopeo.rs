//! Runs skopeo, a client that others wrote, which speaks as Podman and CRI-O do.

use std::path::Path;
use std::process::{Command, Output};

use crate::server::Server;
use crate::tools::tool;

/// Runs skopeo in `dir`, and gives what it writes to standard output; fails the test where skopeo fails.
#[track_caller]
pub fn skopeo(dir: &Path, args: &[&str]) -> String {
    let output = run(dir, args);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "skopeo {args:?}: {error}");
    String::from_utf8(output.stdout).expect("text")
}

/// Runs skopeo in `dir`, however it ends.
#[track_caller]
pub fn run(dir: &Path, args: &[&str]) -> Output {
    Command::new(tool("skopeo", "skopeo"))
        .args(["--insecure-policy", "--tmpdir"])
        .arg(dir)
        .args(args)
        .current_dir(dir)
        .env("XDG_RUNTIME_DIR", dir)
        .env("HOME", dir)
        .output()
        .expect("skopeo runs")
}

/// An image of a server, as skopeo's command line has it.
pub fn image(server: &Server, reference: &str) -> String {
    format!("docker://{}/{reference}", server.address())
}
