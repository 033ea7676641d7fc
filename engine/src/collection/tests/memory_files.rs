use std::collections::BTreeMap;
use std::io;
use std::sync::Mutex;

use super::*;

/// Files by their names, each with when it was changed.
#[derive(Debug, Default)]
pub(super) struct MemoryFiles(Mutex<BTreeMap<String, u64>>);

impl MemoryFiles {
    pub(super) fn put(&self, name: String, now: Timestamp) {
        self.0.lock().expect("no panic").insert(name, now.0);
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.lock().expect("no panic").contains_key(name)
    }

    /// All of them.
    pub(super) fn all(&self) -> BTreeMap<String, u64> {
        self.0.lock().expect("no panic").clone()
    }
}

impl From<BTreeMap<String, u64>> for MemoryFiles {
    fn from(files: BTreeMap<String, u64>) -> Self {
        Self(Mutex::new(files))
    }
}

impl Files for MemoryFiles {
    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.lock().expect("no panic").remove(name).map(drop).ok_or(io::ErrorKind::NotFound.into())
    }

    fn names(&self, directory: &str) -> io::Result<Vec<String>> {
        let prefix = format!("{directory}/");
        let files = self.0.lock().expect("no panic");
        Ok(files.keys().filter_map(|name| name.strip_prefix(&prefix)).map(str::to_owned).collect())
    }

    fn status(&self, name: &str) -> io::Result<FileStatus> {
        let changed_at =
            self.0.lock().expect("no panic").get(name).copied().ok_or(io::ErrorKind::NotFound)?;
        Ok(FileStatus { size: 1, changed_at: Timestamp(changed_at) })
    }
}
