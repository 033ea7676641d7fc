//! A local volume by blocking calls, for where io_uring is not allowed (default seccomp profiles of container
//! runtimes). Reads and writes are made in place: handing a page-cache copy to another thread costs more than the
//! copy. Flushes and reservations, which take milliseconds, are made by threads that may block.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;

use monoio::buf::IoBufMut;
use rustix::fs::{AtFlags, FallocateFlags, Mode, OFlags};

use super::{
    Disk, DiskFile, FILE_MODE, LocalVolume, Pending, Writes, is_unsupported, linked, open_flags, page_cache,
};
use crate::buffer::Buffer;
use crate::runtime;

pub(super) struct BlockingDisk {
    volume: LocalVolume,
}

impl BlockingDisk {
    pub(super) fn new(volume: LocalVolume) -> Self {
        Self { volume }
    }

    fn open_file(&self, name: &str, flags: OFlags) -> Pending<io::Result<Rc<dyn DiskFile>>> {
        ready(
            rustix::fs::openat(&*self.volume.root, name, flags, FILE_MODE)
                .map(|file| Rc::new(BlockingFile(Arc::new(file))) as Rc<dyn DiskFile>)
                .map_err(io::Error::from),
        )
    }
}

fn ready<T: 'static>(value: T) -> Pending<T> {
    Box::pin(std::future::ready(value))
}

impl Disk for BlockingDisk {
    fn alignment(&self) -> Option<usize> {
        self.volume.alignment
    }

    fn create(&self, name: String, writes: Writes) -> Pending<io::Result<Rc<dyn DiskFile>>> {
        self.open_file(&name, open_flags(Some(writes)) | OFlags::CREATE | OFlags::EXCL)
    }

    fn open_to_write(&self, name: String, writes: Writes) -> Pending<io::Result<Rc<dyn DiskFile>>> {
        self.open_file(&name, open_flags(Some(writes)))
    }

    fn open(&self, name: String) -> Pending<io::Result<Rc<dyn DiskFile>>> {
        self.open_file(&name, open_flags(None))
    }

    fn link(&self, from: String, to: String) -> Pending<io::Result<()>> {
        let root = &*self.volume.root;
        let answer = rustix::fs::linkat(root, &from, root, &to, AtFlags::empty()).map_err(io::Error::from);
        ready(linked(answer).unwrap_or_else(|| Ok(rustix::fs::renameat(root, &from, root, &to)?)))
    }

    fn remove(&self, name: String) -> Pending<io::Result<()>> {
        let root = self.volume.root.clone();
        Box::pin(async move {
            // Removing a large file gives back all its extents: that takes a while.
            runtime::blocking(move || rustix::fs::unlinkat(&*root, &name, AtFlags::empty()))
                .await?
                .map_err(io::Error::from)
        })
    }

    fn sync_directory(&self, name: String) -> Pending<io::Result<()>> {
        let root = self.volume.root.clone();
        Box::pin(async move {
            runtime::blocking(move || {
                let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
                let directory = rustix::fs::openat(&*root, &name, flags, Mode::empty())?;
                rustix::fs::fsync(directory)
            })
            .await?
            .map_err(io::Error::from)
        })
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.volume.free_bytes()
    }
}

struct BlockingFile(Arc<OwnedFd>);

impl BlockingFile {
    fn elsewhere(
        &self,
        work: impl FnOnce(&OwnedFd) -> io::Result<()> + Send + 'static,
    ) -> Pending<io::Result<()>> {
        let file = self.0.clone();
        Box::pin(async move { runtime::blocking(move || work(&file)).await? })
    }
}

/// Reads into the free part of `buffer`, at most `limit` bytes, and appends them; waits for the disk.
pub(super) fn read_at(
    file: BorrowedFd<'_>,
    buffer: Buffer,
    limit: usize,
    offset: u64,
) -> (io::Result<usize>, Buffer) {
    let mut tail = buffer.tail(limit);
    // SAFETY: the tail is ours alone, and its memory is initialised (mappings start as zeros).
    let free = unsafe { std::slice::from_raw_parts_mut(tail.write_ptr(), tail.bytes_total()) };
    let answer = rustix::io::pread(file, free, offset);
    // SAFETY: the kernel has written that many bytes from the start of the tail.
    unsafe { tail.set_init(answer.unwrap_or(0)) };
    (answer.map_err(io::Error::from), tail.into_buffer())
}

impl DiskFile for BlockingFile {
    fn read_at(&self, buffer: Buffer, limit: usize, offset: u64) -> Pending<(io::Result<usize>, Buffer)> {
        ready(read_at(self.0.as_fd(), buffer, limit, offset))
    }

    fn write_at(&self, buffer: Buffer, offset: u64) -> Pending<(io::Result<()>, Buffer)> {
        let mut written = 0;
        while written < buffer.len() {
            match rustix::io::pwrite(&*self.0, &buffer[written..], offset + written as u64) {
                Ok(0) => return ready((Err(io::ErrorKind::WriteZero.into()), buffer)),
                Ok(count) => written += count,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return ready((Err(error.into()), buffer)),
            }
        }
        ready((Ok(()), buffer))
    }

    fn reserve(&self, offset: u64, len: u64) -> Pending<io::Result<()>> {
        self.elsewhere(move |file| {
            match rustix::fs::fallocate(file, FallocateFlags::empty(), offset, len).map_err(io::Error::from) {
                Err(error) if is_unsupported(&error) => Ok(()),
                answer => answer,
            }
        })
    }

    fn set_len(&self, len: u64) -> Pending<io::Result<()>> {
        self.elsewhere(move |file| Ok(rustix::fs::ftruncate(file, len)?))
    }

    fn size(&self) -> io::Result<u64> {
        // The inode of an open file is in memory.
        Ok(u64::try_from(rustix::fs::fstat(&*self.0)?.st_size).unwrap_or_default())
    }

    fn sync(&self) -> Pending<io::Result<()>> {
        self.elsewhere(|file| Ok(rustix::fs::fdatasync(file)?))
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }

    fn is_cached(&self, offset: u64, len: u64) -> bool {
        page_cache::holds(self.0.as_fd(), offset, len)
    }
}
