//! Reading content back, past the page cache, to see whether it is what its digest says.
//!
//! Not by mapping the files: a page of a mapping that cannot be read, because the file was cut or the disk is bad, ends the
//! process with SIGBUS, and that is just what is looked for here. A read gives an error or a length.

use std::io;
use std::ops::ControlFlow;
use std::rc::Rc;

use super::pace::Pace;
use crate::buffer::{ALIGNMENT, BufferPool, SIZE_MAX};
use crate::disk::{Disk, DiskFile};
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
pub(super) struct Reader {
    disk: Rc<dyn Disk>,
    buffers: BufferPool,
}

impl Reader {
    /// Within the runtime of the thread.
    pub(super) fn new(disk: Rc<dyn Disk>) -> Self {
        // One buffer that is hashed, and one that is read into.
        Self { disk, buffers: BufferPool::new(4 * SIZE_MAX) }
    }

    /// Reads and hashes the file `name`, which should have `size` bytes and the digest. `read` is told how many bytes
    /// were read, and whether it goes on.
    pub(super) async fn verify(
        &self,
        name: String,
        digest: &Digest,
        size: u64,
        pace: &mut Pace,
        read: &dyn Fn(u64) -> ControlFlow<()>,
    ) -> Result<Verdict, Unread> {
        match self.hash(name, digest, size, pace, read).await {
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
    async fn hash(
        &self,
        name: String,
        digest: &Digest,
        size: u64,
        pace: &mut Pace,
        read: &dyn Fn(u64) -> ControlFlow<()>,
    ) -> Result<Option<Digest>, Unread> {
        let file = self.disk.open_past_cache(name).await.map_err(Unread::Failed)?;
        if file.size().map_err(Unread::Failed)? != size {
            return Ok(None);
        }
        let mut leave = match self.disk.alignment() {
            Some(_) => CacheLeft::Direct,
            None => CacheLeft::as_found(&*file, size),
        };
        let mut hasher = ContentHasher::new(digest.algorithm());
        let mut hashed = 0;
        let mut reading = (size > 0).then(|| self.read(&*file, 0));
        while let Some(started) = reading {
            let (answer, buffer) = started.await;
            answer.map_err(Unread::Failed)?;
            // Reads begin at whole blocks: what was read already is read again where one ended within a block.
            let begin = (hashed % ALIGNMENT as u64) as usize;
            let wanted = usize::try_from(size - hashed).unwrap_or(usize::MAX);
            let bytes = buffer.get(begin..).unwrap_or_default();
            let bytes = &bytes[..bytes.len().min(wanted)];
            if bytes.is_empty() {
                // Cut since it was opened.
                return Ok(None);
            }
            let start = hashed;
            hashed += bytes.len() as u64;
            // The next part is read while this one is hashed.
            reading = (hashed < size).then(|| self.read(&*file, hashed));
            hasher.update(bytes);
            leave.restore(&*file, start, hashed);
            let count = bytes.len() as u64;
            if pace.keep(count, &|| read(0)).is_break() || read(count).is_break() {
                return Err(Unread::Stopped);
            }
        }
        Ok(Some(hasher.finish()))
    }

    fn read(
        &self,
        file: &dyn DiskFile,
        hashed: u64,
    ) -> crate::disk::Pending<(io::Result<usize>, crate::buffer::Buffer)> {
        let start = hashed - hashed % ALIGNMENT as u64;
        file.read_at(self.buffers.take(SIZE_MAX), usize::MAX, start)
    }
}

/// How the page cache is left as it was found.
enum CacheLeft {
    /// It is not touched.
    Direct,
    /// Which parts of [`SIZE_MAX`] bytes were not in it before the first read: these are taken out again. (What is asked for
    /// later may be there because the kernel has read ahead.)
    Uncached(Vec<bool>),
}

impl CacheLeft {
    fn as_found(file: &dyn DiskFile, size: u64) -> Self {
        let parts = (0..size).step_by(SIZE_MAX);
        Self::Uncached(
            parts.map(|start| file.is_uncached(start, (size - start).min(SIZE_MAX as u64))).collect(),
        )
    }

    /// Takes the parts out again of which the last bytes are between `start` and `end`.
    fn restore(&mut self, file: &dyn DiskFile, start: u64, end: u64) {
        let Self::Uncached(parts) = self else { return };
        let part = |at: u64| usize::try_from(at / SIZE_MAX as u64).unwrap_or(usize::MAX);
        for index in part(start)..=part(end) {
            if parts.get(index) == Some(&true) {
                file.forget(index as u64 * SIZE_MAX as u64, SIZE_MAX as u64);
            }
        }
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
