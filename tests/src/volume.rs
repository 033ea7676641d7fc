//! A small file system in a file, mounted for one test: to be filled up without harm to others.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::tools::tool;

/// A mounted file system; unmounted when dropped. Mounting takes root.
#[derive(Debug)]
pub struct Volume {
    path: PathBuf,
    _dir: TempDir,
}

impl Volume {
    /// An ext4 file system of that size, of which nothing is reserved for root.
    #[track_caller]
    pub fn ext4(size_mib: u64) -> Self {
        let dir = TempDir::with_prefix("payload-registry-volume-").expect("a directory for the volume");
        let image = dir.path().join("image");
        let file = std::fs::File::create(&image).expect("a file for the volume");
        file.set_len(size_mib << 20).expect("room for the volume");
        must_run(Command::new(tool("mkfs.ext4", "e2fsprogs")).args(["-q", "-m", "0"]).arg(&image));
        Self::mount(dir, |path| {
            let mut mount = Command::new("mount");
            mount.args(["-o", "loop"]).arg(&image).arg(path);
            mount
        })
    }

    /// A file system in memory.
    #[track_caller]
    pub fn tmpfs() -> Self {
        Self::mount_tmpfs("size=300m")
    }

    /// A file system that nobody can write to.
    #[track_caller]
    pub fn read_only() -> Self {
        Self::mount_tmpfs("ro")
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    #[track_caller]
    fn mount_tmpfs(options: &str) -> Self {
        let dir = TempDir::with_prefix("payload-registry-volume-").expect("a directory for the volume");
        Self::mount(dir, |path| {
            let mut mount = Command::new("mount");
            mount.args(["-t", "tmpfs", "-o", options, "none"]).arg(path);
            mount
        })
    }

    #[track_caller]
    fn mount(dir: TempDir, command: impl Fn(&Path) -> Command) -> Self {
        let path = dir.path().join("mounted");
        std::fs::create_dir(&path).expect("a place to mount the volume");
        must_run(&mut command(&path));
        Self { path, _dir: dir }
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("--lazy").arg(&self.path).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("{} stays mounted", self.path.display());
        }
    }
}

#[track_caller]
fn must_run(command: &mut Command) {
    let output = command.output();
    let message = match &output {
        Ok(output) if output.status.success() => return,
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(e) => e.to_string(),
    };
    panic!("this test needs root and the right to mount: {command:?}: {message}");
}
