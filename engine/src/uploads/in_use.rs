//! Which files somebody is about to name in the metadata.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::metadata::FileId;

/// The files that somebody writes to, or is giving their place, and that need not be in the metadata yet. Shared by the
/// threads, and locked for a look-up.
#[derive(Clone, Debug, Default)]
pub(crate) struct FilesInUse(Arc<Mutex<HashMap<FileId, usize>>>);

/// A file that is in use for as long as this lives: from before it is made or taken up until the row that names it is
/// committed, or will not be.
#[derive(Debug)]
pub(crate) struct InUse {
    files: FilesInUse,
    file: FileId,
}

impl FilesInUse {
    fn map(&self) -> MutexGuard<'_, HashMap<FileId, usize>> {
        // Every change is one call: a panic cannot leave half of one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that a file is in use.
    pub(crate) fn enter(&self, file: FileId) -> Arc<InUse> {
        *self.map().entry(file).or_default() += 1;
        Arc::new(InUse { files: self.clone(), file })
    }

    /// Whether a file is in use.
    pub(crate) fn has(&self, file: FileId) -> bool {
        self.map().contains_key(&file)
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        let mut map = self.files.map();
        if let Some(count) = map.get_mut(&self.file) {
            *count -= 1;
            if *count == 0 {
                map.remove(&self.file);
            }
        }
    }
}
