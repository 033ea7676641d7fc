//! Damaged files, kept aside for those who want to know what has happened to them. They are not kept for ever.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::layout;
use crate::metadata::{BlobLocation, Timestamp};
use crate::oci::Digest;

/// Files that are kept in quarantine at most; the oldest go first.
pub const QUARANTINE_FILES_MAX: usize = 32;

/// Bytes that are kept in quarantine at most, 8 GiB; the oldest files go first.
pub const QUARANTINE_BYTES_MAX: u64 = 8 << 30;

/// How long a file is kept in quarantine at most: 30 days.
pub const QUARANTINE_AGE_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The directory for damaged files.
pub(super) struct Quarantine<'q> {
    root: &'q Path,
}

/// A file in quarantine.
struct Kept {
    path: PathBuf,
    size: u64,
    since: Timestamp,
}

impl<'q> Quarantine<'q> {
    pub(super) fn new(root: &'q Path) -> Self {
        Self { root }
    }

    /// Moves the file of damaged content here, where it is there; whether it was.
    pub(super) fn take(&self, digest: &Digest, location: BlobLocation) -> io::Result<bool> {
        let BlobLocation::File(file) = location else { return Ok(false) };
        let from = self.root.join(layout::blob(digest, file));
        match std::fs::rename(from, self.place(digest, location)?) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            moved => moved.map(|()| true),
        }
    }

    /// Keeps the bytes of damaged content that has no file.
    pub(super) fn keep(&self, digest: &Digest, bytes: &[u8]) -> io::Result<()> {
        std::fs::write(self.place(digest, BlobLocation::Inline)?, bytes)
    }

    fn place(&self, digest: &Digest, location: BlobLocation) -> io::Result<PathBuf> {
        let name = layout::quarantine(digest, location);
        let directory = self.root.join(layout::QUARANTINE);
        std::fs::create_dir_all(directory)?;
        Ok(self.root.join(name))
    }

    /// Removes what is too old or too much.
    pub(super) fn tidy(&self, now: Timestamp) -> io::Result<()> {
        let mut kept = self.files()?;
        kept.sort_unstable_by_key(|file| std::cmp::Reverse(file.since));
        let age_max = u64::try_from(QUARANTINE_AGE_MAX.as_millis()).unwrap_or(u64::MAX);
        let mut bytes = 0_u64;
        for (index, file) in kept.iter().enumerate() {
            bytes = bytes.saturating_add(file.size);
            let is_old = now.0.saturating_sub(file.since.0) > age_max;
            if is_old || index >= QUARANTINE_FILES_MAX || bytes > QUARANTINE_BYTES_MAX {
                tracing::info!(file = %file.path.display(), bytes = file.size, "removed a damaged file that was kept aside");
                std::fs::remove_file(&file.path)?;
            }
        }
        Ok(())
    }

    fn files(&self) -> io::Result<Vec<Kept>> {
        let entries = match std::fs::read_dir(self.root.join(layout::QUARANTINE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut kept = Vec::new();
        for entry in entries {
            let entry = entry?;
            let status = entry.metadata()?;
            if status.is_file() {
                kept.push(Kept { path: entry.path(), size: status.len(), since: changed_at(&status) });
            }
        }
        Ok(kept)
    }
}

/// When a file was put where it is: renaming it changes its status.
fn changed_at(status: &std::fs::Metadata) -> Timestamp {
    use std::os::unix::fs::MetadataExt as _;
    let ms = status.ctime().saturating_mul(1000).saturating_add(status.ctime_nsec() / 1_000_000);
    Timestamp(u64::try_from(ms).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::FileId;
    use crate::oci::{Algorithm, ContentHasher};

    #[test]
    fn the_oldest_go_when_there_are_too_many() {
        let root = tempfile::tempdir().expect("a directory");
        let quarantine = Quarantine::new(root.path());
        quarantine.tidy(Timestamp(0)).expect("nothing is there");
        let digest = ContentHasher::digest(Algorithm::Sha256, b"x");
        assert!(!quarantine.take(&digest, BlobLocation::File(FileId([1; 16]))).expect("nothing is there"));
        for number in 0..QUARANTINE_FILES_MAX + 3 {
            let digest = ContentHasher::digest(Algorithm::Sha256, &[number as u8]);
            quarantine.keep(&digest, b"damaged").expect("kept");
        }
        quarantine.tidy(Timestamp(0)).expect("tidied");
        assert_eq!(quarantine.files().expect("readable").len(), QUARANTINE_FILES_MAX);
        quarantine.tidy(Timestamp(u64::MAX)).expect("tidied");
        assert!(quarantine.files().expect("readable").is_empty());
    }
}
