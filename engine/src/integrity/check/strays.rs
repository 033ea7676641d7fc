//! Files that no row names, and their removal.

use std::io;

use super::report::CheckReport;
use crate::engine::Shared;
use crate::layout;
use crate::metadata::{BlobLocation, BlobRecord, FileId, MetadataError, Snapshot, readable};
use crate::oci::Digest;

/// A file that no row names.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stray {
    /// Among the blobs.
    Blob(Digest, FileId),
    /// Among the files of the upload sessions.
    Upload(FileId),
}

impl Stray {
    /// Its name from the root.
    pub(super) fn name(self) -> String {
        match self {
            Self::Blob(digest, file) => layout::blob(&digest, file),
            Self::Upload(file) => layout::upload(file),
        }
    }

    pub(super) fn file(self) -> FileId {
        match self {
            Self::Blob(_, file) | Self::Upload(file) => file,
        }
    }
}

/// Whether a row names the file of a blob, or one that cannot be read may do so.
pub(super) fn is_named(snapshot: &Snapshot, digest: &Digest, file: FileId) -> Result<bool, MetadataError> {
    let names_it = |record: BlobRecord| record.location == BlobLocation::File(file);
    let (stored, damage) = (readable(snapshot.stored_blob(digest))?, readable(snapshot.damage(digest))?);
    let (Some(stored), Some(damage)) = (stored, damage) else { return Ok(true) };
    // A file of damaged content may have been put back, for the next scrub to find it whole.
    Ok(stored.is_some_and(names_it) || damage.is_some_and(|damage| names_it(damage.content)))
}

/// Removes files that still nothing names: each is claimed before the snapshot is taken that says so, so that no session
/// that goes on can name it until it has gone.
pub(super) fn remove(
    shared: &Shared,
    strays: Vec<Stray>,
    report: &mut CheckReport,
) -> Result<(), MetadataError> {
    let claim = |stray: Stray| Some((stray, shared.files_in_use.claim(stray.file())?));
    let claimed: Vec<_> = strays.into_iter().filter_map(claim).collect();
    if claimed.is_empty() {
        return Ok(());
    }
    let snapshot = shared.metadata.snapshot()?;
    let is_upload = claimed.iter().any(|(stray, _)| matches!(stray, Stray::Upload(_)));
    let of_uploads = if is_upload { snapshot.files_of_uploads()? } else { None };
    for (stray, _claim) in claimed {
        let is_named = match stray {
            Stray::Blob(digest, file) => is_named(&snapshot, &digest, file)?,
            Stray::Upload(file) => of_uploads.as_ref().is_none_or(|files| files.contains(&file)),
        };
        if is_named {
            continue;
        }
        let name = stray.name();
        match shared.volume.remove_now(&name) {
            Ok(()) => {
                tracing::info!(file = name, "removed a file that nothing names");
                report.repaired += 1;
            }
            // Whoever had it has removed it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => report.error(format!("cannot remove {name}: {error}")),
        }
    }
    Ok(())
}
