//! What collection asks of the volume. It runs on a thread of its own, which may wait.

use std::io;

use super::FileStatus;
use crate::disk::LocalVolume;

/// Files below the root, by their names.
pub(crate) trait Files {
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// The names in a directory, in no order.
    fn names(&self, directory: &str) -> io::Result<Vec<String>>;

    /// What is known of a file.
    fn status(&self, name: &str) -> io::Result<FileStatus>;
}

impl Files for LocalVolume {
    fn remove(&self, name: &str) -> io::Result<()> {
        self.remove_now(name)
    }

    fn names(&self, directory: &str) -> io::Result<Vec<String>> {
        Self::names(self, directory)
    }

    fn status(&self, name: &str) -> io::Result<FileStatus> {
        let (size, changed_at) = Self::status(self, name)?;
        Ok(FileStatus { size, changed_at })
    }
}
