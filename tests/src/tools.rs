//! Programs of others that tests need: found, or installed where that is possible, or the test fails and says how.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// Debian's installer takes one at a time.
static INSTALLING: Mutex<()> = Mutex::new(());

/// The path of `program`, which Debian has in `package`. Installs it where this is Debian and the test runs as root;
/// fails the test where it cannot be had.
#[track_caller]
pub fn tool(program: &str, package: &str) -> PathBuf {
    let _one_at_a_time = INSTALLING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(path) = find(program) {
        return path;
    }
    if rustix::process::geteuid().is_root() && find("apt-get").is_some() {
        for arguments in
            [&["update", "-qq"][..], &["install", "-y", "-qq", "--no-install-recommends", package][..]]
        {
            let installed =
                Command::new("apt-get").args(arguments).env("DEBIAN_FRONTEND", "noninteractive").output();
            if let Ok(output) = installed
                && !output.status.success()
            {
                eprintln!("apt-get {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
            }
        }
    }
    find(program).unwrap_or_else(|| panic!("this test needs {program}; on Debian: apt-get install {package}"))
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // What is for root is not always in the path.
    let directories = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    directories.map(|directory| directory.join(program)).find(|path| Path::is_file(path))
}
