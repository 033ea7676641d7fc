//! Files that are read once, from one end to the other, and leave the page cache as it was. For threads that may wait.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::{Mode, OFlags};

use super::{LocalVolume, blocking, open_flags, page_cache};
use crate::buffer::{ALIGNMENT, Buffer, SIZE_MAX};

/// What is taken out of the page cache at once, where the volume cannot be read past it.
const PART: u64 = SIZE_MAX as u64;

/// A file that is read once.
pub(crate) struct ReadOnce {
    file: OwnedFd,
    size: u64,
    /// Which parts were not in the page cache before the first read, and are taken out again; none, where it is read past
    /// the cache. (What is asked for later may be there because the kernel has read ahead.)
    uncached: Vec<bool>,
}

impl LocalVolume {
    /// Opens a file to read it once: past the page cache, where the filesystem can do that.
    pub(crate) fn open_once(&self, name: &str) -> io::Result<ReadOnce> {
        let direct = if self.alignment.is_some() { OFlags::DIRECT } else { OFlags::empty() };
        let file = rustix::fs::openat(&*self.root, name, open_flags(None) | direct, Mode::empty())?;
        let size = u64::try_from(rustix::fs::fstat(&file)?.st_size).unwrap_or_default();
        let parts = if direct.is_empty() { 0..size } else { 0..0 };
        let is_uncached = |start| page_cache::holds_none(file.as_fd(), start, (size - start).min(PART));
        let uncached = parts.step_by(SIZE_MAX).map(is_uncached).collect();
        Ok(ReadOnce { file, size, uncached })
    }
}

impl ReadOnce {
    /// The file's size in bytes, when it was opened.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Fills `buffer`, which is empty, from `offset` on, a multiple of [`ALIGNMENT`]. It stays empty at the end of the file.
    pub(crate) fn read(&self, buffer: Buffer, offset: u64) -> io::Result<Buffer> {
        debug_assert!(offset.is_multiple_of(ALIGNMENT as u64), "direct reads are of whole blocks");
        let (answer, buffer) = blocking::read_at(self.file.as_fd(), buffer, usize::MAX, offset);
        let end = offset + answer? as u64;
        let place = |at: u64| usize::try_from(at / PART).unwrap_or(usize::MAX);
        for part in place(offset)..=place(end) {
            if self.uncached.get(part) == Some(&true) {
                page_cache::forget(self.file.as_fd(), part as u64 * PART, PART);
            }
        }
        Ok(buffer)
    }
}
