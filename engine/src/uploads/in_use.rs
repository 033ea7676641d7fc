//! Which files somebody is about to name in the metadata, and which somebody is about to remove: never both.
//!
//! A session's file may get its name among the blobs a second time, when the process died or a commit failed after the
//! first. In between, that name is one that nothing refers to. So whoever removes such a file claims it first, and only
//! then looks into a snapshot whether nothing names it; whoever goes on with the session waits for the end of the claim.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::metadata::FileId;

/// The files that somebody writes to, or is giving their place, and that need not be in the metadata yet; and those
/// that are being removed. Shared by the threads, and locked for a look-up.
#[derive(Clone, Debug, Default)]
pub(crate) struct FilesInUse(Arc<Files>);

#[derive(Debug, Default)]
struct Files {
    uses: Mutex<HashMap<FileId, Use>>,
    /// Told when a claim has ended.
    claim_ended: Notify,
}

#[derive(Debug)]
enum Use {
    /// By so many.
    Named(usize),
    Claimed,
}

/// A file that is in use for as long as this lives: from before it is made or taken up until the row that names it is
/// committed, or will not be, and what is not needed of it is removed.
#[derive(Debug)]
pub(crate) struct InUse {
    files: FilesInUse,
    file: FileId,
}

/// A file that nobody can begin to use for as long as this lives. One that no row names then can be removed.
#[derive(Debug)]
pub(crate) struct Claim {
    files: FilesInUse,
    file: FileId,
}

impl FilesInUse {
    fn uses(&self) -> MutexGuard<'_, HashMap<FileId, Use>> {
        // Every change is one call: a panic cannot leave half of one.
        self.0.uses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that a file is in use. Waits while somebody is removing it.
    pub(crate) async fn enter(&self, file: FileId) -> Arc<InUse> {
        loop {
            // Made before looking: the end of the claim cannot come in between.
            let claim_ended = self.0.claim_ended.notified();
            if let Some(in_use) = self.try_enter(file) {
                return in_use;
            }
            claim_ended.await;
        }
    }

    /// Says that a file is in use; `None` while somebody is removing it.
    pub(crate) fn try_enter(&self, file: FileId) -> Option<Arc<InUse>> {
        match self.uses().entry(file).or_insert(Use::Named(0)) {
            Use::Named(count) => *count += 1,
            Use::Claimed => return None,
        }
        Some(Arc::new(InUse { files: self.clone(), file }))
    }

    /// Claims a file in order to remove it; `None` where it is in use. Whether a row names it is to be seen in a snapshot
    /// that is taken afterwards.
    pub(crate) fn claim(&self, file: FileId) -> Option<Claim> {
        match self.uses().entry(file) {
            Entry::Occupied(_) => None,
            Entry::Vacant(entry) => {
                entry.insert(Use::Claimed);
                Some(Claim { files: self.clone(), file })
            }
        }
    }

    /// Whether no file is in use.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.uses().is_empty()
    }

    /// Whether a file is in use.
    pub(crate) fn has(&self, file: FileId) -> bool {
        matches!(self.uses().get(&file), Some(Use::Named(_)))
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        let mut uses = self.files.uses();
        if let Some(Use::Named(count)) = uses.get_mut(&self.file) {
            *count -= 1;
            if *count == 0 {
                uses.remove(&self.file);
            }
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.files.uses().remove(&self.file);
        self.files.0.claim_ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use super::*;

    const FILE: FileId = FileId([1; 16]);

    #[test]
    fn what_is_in_use_is_not_claimed_and_what_is_claimed_is_waited_for() {
        let files = FilesInUse::default();
        let (one, other) = (files.try_enter(FILE).expect("free"), files.try_enter(FILE).expect("shared"));
        drop(one);
        assert!(files.has(FILE) && files.claim(FILE).is_none());
        drop(other);
        let claim = files.claim(FILE).expect("nobody uses it");
        assert!(files.claim(FILE).is_none() && files.try_enter(FILE).is_none() && !files.has(FILE));
        assert!(files.try_enter(FileId([2; 16])).is_some());

        let mut entering = std::pin::pin!(files.enter(FILE));
        let mut context = Context::from_waker(Waker::noop());
        assert!(entering.as_mut().poll(&mut context).is_pending());
        drop(claim);
        assert!(entering.as_mut().poll(&mut context).is_ready());
        assert!(files.is_empty());
    }
}
