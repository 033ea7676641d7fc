//! Reading content back, past the page cache, to see whether it is what its digest says.
//!
//! Not by mapping the files: a page of a mapping that cannot be read, because the file was cut or the disk is bad, ends the
//! process with SIGBUS, and that is just what is looked for here. A read gives an error or a length.

use std::io;
use std::ops::ControlFlow;

use super::pace::Pace;
use crate::buffer::{ALIGNMENT, BufferPool, SIZE_MAX};
use crate::disk::LocalVolume;
use crate::metadata::Damage;
use crate::oci::{ContentHasher, Digest};

/// What reading some content has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is what it should be.
    Whole,
    /// It is not.
    Damaged(Damage),
}

/// Why nothing can be said of some content.
#[derive(Debug)]
pub(super) enum Unread {
    /// Somebody has ended it.
    Stopped,
    /// It is not the content's fault.
    Failed(io::Error),
}

/// Reads files of a volume.
pub(super) struct Reader<'r> {
    volume: &'r LocalVolume,
    buffers: BufferPool,
}

impl<'r> Reader<'r> {
    pub(super) fn new(volume: &'r LocalVolume) -> Self {
        // The pool gives the largest size as long as half of the budget is free.
        Self { volume, buffers: BufferPool::new(4 * SIZE_MAX) }
    }

    /// Reads and hashes the file `name`, which should have `size` bytes and the digest. `read` is told how many bytes
    /// were read, and whether it goes on.
    pub(super) fn verify(
        &self,
        name: &str,
        digest: &Digest,
        size: u64,
        pace: &mut Pace,
        read: &dyn Fn(u64) -> ControlFlow<()>,
    ) -> Result<Verdict, Unread> {
        match self.hash(name, digest, size, pace, read) {
            Ok(Some(found)) if found == *digest => Ok(Verdict::Whole),
            Ok(Some(_)) => Ok(Verdict::Damaged(Damage::Content)),
            Ok(None) => Ok(Verdict::Damaged(Damage::Length)),
            Err(Unread::Failed(error)) => {
                damage_of(&error).map(Verdict::Damaged).ok_or(Unread::Failed(error))
            }
            Err(stopped) => Err(stopped),
        }
    }

    /// The digest of what the file has; `None` where it has another length.
    fn hash(
        &self,
        name: &str,
        digest: &Digest,
        size: u64,
        pace: &mut Pace,
        read: &dyn Fn(u64) -> ControlFlow<()>,
    ) -> Result<Option<Digest>, Unread> {
        let file = self.volume.open_once(name).map_err(Unread::Failed)?;
        if file.size() != size {
            return Ok(None);
        }
        let mut hasher = ContentHasher::new(digest.algorithm());
        let mut hashed = 0;
        while hashed < size {
            // Reads begin at whole blocks: where one has ended within a block, that is read again.
            let again = hashed % ALIGNMENT as u64;
            let buffer = self.buffers.take(SIZE_MAX);
            let buffer = file.read(buffer, hashed - again).map_err(Unread::Failed)?;
            let bytes = buffer.get(again as usize..).unwrap_or_default();
            let left = usize::try_from(size - hashed).unwrap_or(usize::MAX);
            let bytes = &bytes[..bytes.len().min(left)];
            if bytes.is_empty() {
                // Cut since it was opened.
                return Ok(None);
            }
            hasher.update(bytes);
            let count = bytes.len() as u64;
            hashed += count;
            if pace.keep(count, &|| read(0)).is_break() || read(count).is_break() {
                return Err(Unread::Stopped);
            }
        }
        Ok(Some(hasher.finish()))
    }
}

/// What an error of the system says about the content, if it is about that.
fn damage_of(error: &io::Error) -> Option<Damage> {
    if error.kind() == io::ErrorKind::NotFound {
        return Some(Damage::Missing);
    }
    // What block devices and filesystems answer where they cannot read, or know what they read to be wrong.
    let unreadable = [libc::EIO, libc::EUCLEAN, libc::EBADMSG, libc::ENODATA, libc::EILSEQ, libc::EREMOTEIO];
    let is_unreadable = unreadable.iter().any(|code| error.raw_os_error() == Some(*code));
    is_unreadable.then_some(Damage::Unreadable)
}
