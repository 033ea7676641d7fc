//! A directory that lasts as long as a measurement.

use std::fs;
use std::path::{Path, PathBuf};

/// A directory. It is made by who puts something into it, and is removed when this is dropped.
pub struct Directory(PathBuf);

impl Directory {
    /// One below `parent` that no other run has.
    pub fn below(parent: &Path) -> Self {
        Self(parent.join(format!("registry-bench-{}", std::process::id())))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("registry-bench: cannot remove {}: {error}", self.0.display());
        }
    }
}
