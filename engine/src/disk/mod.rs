//! What the engine asks of a disk, and the two ways in which a local volume gives it.
//!
//! Names are relative to the volume's root. An operation starts when it is called, not when it is first polled, so
//! several can be in flight; dropping what was returned does not stop it. The trait is the door for a simulated disk.

mod blocking;
mod once;
mod page_cache;
mod ring;
mod uring;

use std::future::Future;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, StatxFlags};

use crate::buffer::{ALIGNMENT, Buffer};
use crate::metadata::Timestamp;
use crate::runtime;

/// An operation on its way.
pub type Pending<T> = Pin<Box<dyn Future<Output = T>>>;

/// How a new file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writes {
    /// Past the page cache: offset, length and address are multiples of [`Disk::alignment`].
    Direct,
    /// Through the page cache, at any offset.
    Buffered,
}

/// A volume. Each data-plane thread has one of its own.
pub trait Disk {
    /// What offset, length and address of direct writes must be multiples of; `None` where the volume cannot
    /// write directly.
    fn alignment(&self) -> Option<usize>;

    /// Creates a file that must not exist yet; readable and writable.
    fn create(&self, name: String, writes: Writes) -> Pending<io::Result<Rc<dyn DiskFile>>>;

    /// Opens an existing file to go on writing it.
    fn open_to_write(&self, name: String, writes: Writes) -> Pending<io::Result<Rc<dyn DiskFile>>>;

    /// Opens an existing file to read it through the page cache.
    fn open(&self, name: String) -> Pending<io::Result<Rc<dyn DiskFile>>>;

    /// Gives a file a second name; where the filesystem knows no such thing, another name instead of its first. No
    /// error where the second name is there already, as no two files are ever meant to have the same.
    fn link(&self, from: String, to: String) -> Pending<io::Result<()>>;

    /// Removes a file.
    fn remove(&self, name: String) -> Pending<io::Result<()>>;

    /// Makes the names in a directory durable.
    fn sync_directory(&self, name: String) -> Pending<io::Result<()>>;

    /// Bytes that an ordinary process can still store.
    fn free_bytes(&self) -> io::Result<u64>;
}

/// An open file.
pub trait DiskFile {
    /// Reads into the free part of `buffer`, at most `limit` bytes, and appends them; 0 at the end of the file.
    fn read_at(&self, buffer: Buffer, limit: usize, offset: u64) -> Pending<(io::Result<usize>, Buffer)>;

    /// Writes all that `buffer` holds.
    fn write_at(&self, buffer: Buffer, offset: u64) -> Pending<(io::Result<()>, Buffer)>;

    /// Sets space aside for `len` bytes from `offset`, and makes the file at least that long. A full disk shows
    /// here, and direct writes into reserved space need no exclusive lock. Where the filesystem cannot do it,
    /// nothing happens.
    fn reserve(&self, offset: u64, len: u64) -> Pending<io::Result<()>>;

    /// Cuts the file, or fills it with zeros, to `len` bytes.
    fn set_len(&self, len: u64) -> Pending<io::Result<()>>;

    /// The file's size in bytes.
    fn size(&self) -> io::Result<u64>;

    /// Makes content and length durable.
    fn sync(&self) -> Pending<io::Result<()>>;

    /// The descriptor, for `sendfile(2)`; `None` where there is none.
    fn descriptor(&self) -> Option<BorrowedFd<'_>>;

    /// Whether `len` bytes from `offset` are in memory, so that sending them does not wait for the disk. Where the
    /// system does not tell exactly, a guess by the first and the last byte.
    fn is_cached(&self, offset: u64, len: u64) -> bool;
}

/// A volume below a directory of a local filesystem, shared by the threads.
#[derive(Clone, Debug)]
pub struct LocalVolume {
    root: Arc<OwnedFd>,
    alignment: Option<usize>,
}

impl LocalVolume {
    /// The volume below the directory `root`. `direct`: whether to write directly where the filesystem can.
    ///
    /// The filesystem is asked by a file `probe` that is made for it; an error says that the root is not writable.
    pub fn open(root: OwnedFd, probe: &str, direct: bool) -> io::Result<Self> {
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&root, probe, flags, FILE_MODE)?;
        let alignment = if direct { direct_alignment(&file) } else { None };
        drop(file);
        rustix::fs::unlinkat(&root, probe, AtFlags::empty())?;
        Ok(Self { root: Arc::new(root), alignment })
    }

    /// The volume as the calling thread uses it: through io_uring, or by blocking calls where that is not allowed.
    pub fn on_this_thread(&self) -> io::Result<Rc<dyn Disk>> {
        if runtime::has_io_uring() {
            Ok(Rc::new(uring::UringDisk::new(self.clone())?))
        } else {
            Ok(Rc::new(blocking::BlockingDisk::new(self.clone())))
        }
    }

    /// Removes a file. Waits for the disk.
    pub(crate) fn remove_now(&self, name: &str) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&*self.root, name, AtFlags::empty())?)
    }

    /// The names of the files in a directory. Waits for the disk.
    pub(crate) fn names(&self, directory: &str) -> io::Result<Vec<String>> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(&*self.root, directory, flags, Mode::empty())?;
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::new(directory)? {
            let entry = entry?;
            let is_file = !matches!(entry.file_type(), FileType::Directory);
            names.extend(entry.file_name().to_str().ok().filter(|_| is_file).map(str::to_owned));
        }
        Ok(names)
    }

    /// The length of a file in bytes, and when anything about it was last changed. Waits for the disk.
    pub(crate) fn status(&self, name: &str) -> io::Result<(u64, Timestamp)> {
        let flags = StatxFlags::SIZE | StatxFlags::MTIME | StatxFlags::CTIME;
        let status = rustix::fs::statx(&*self.root, name, AtFlags::SYMLINK_NOFOLLOW, flags)?;
        let ms = |at: rustix::fs::StatxTimestamp| {
            u64::try_from(at.tv_sec).unwrap_or(0).saturating_mul(1000) + u64::from(at.tv_nsec) / 1_000_000
        };
        Ok((status.stx_size, Timestamp(ms(status.stx_mtime).max(ms(status.stx_ctime)))))
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let statistics = rustix::fs::fstatvfs(&*self.root)?;
        Ok(statistics.f_bavail.saturating_mul(statistics.f_frsize))
    }
}

const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR).union(Mode::RGRP);

/// What direct writes to `file` must be aligned to, where buffers can be. tmpfs accepts the flag without meaning it,
/// and reports no alignment.
fn direct_alignment(file: &OwnedFd) -> Option<usize> {
    let status = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN).ok()?;
    if !StatxFlags::from_bits_retain(status.stx_mask).contains(StatxFlags::DIOALIGN) {
        return None;
    }
    let (memory, offset) = (status.stx_dio_mem_align as usize, status.stx_dio_offset_align as usize);
    let fits = |alignment: usize| alignment != 0 && ALIGNMENT.is_multiple_of(alignment);
    // Whole pages always, though 512 bytes are often enough: a filesystem block is never written in parts.
    (fits(memory) && fits(offset)).then_some(ALIGNMENT)
}

fn open_flags(writes: Option<Writes>) -> OFlags {
    match writes {
        None => OFlags::RDONLY | OFlags::CLOEXEC,
        Some(Writes::Buffered) => OFlags::RDWR | OFlags::CLOEXEC,
        Some(Writes::Direct) => OFlags::RDWR | OFlags::CLOEXEC | OFlags::DIRECT,
    }
}

/// What the answer to a link means; `None`: the filesystem has no links.
fn linked(answer: io::Result<()>) -> Option<io::Result<()>> {
    match answer {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Some(Ok(())),
        Err(error) if is_unsupported(&error) || error.kind() == io::ErrorKind::PermissionDenied => None,
        answer => Some(answer),
    }
}

/// Whether an error only says that the filesystem knows no such operation.
fn is_unsupported(error: &io::Error) -> bool {
    let codes = [rustix::io::Errno::OPNOTSUPP, rustix::io::Errno::NOSYS, rustix::io::Errno::INVAL];
    codes.iter().any(|code| error.raw_os_error() == Some(code.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::BufferPool;

    /// Every disk passes the same tests.
    fn every_disk(test: impl AsyncFn(Rc<dyn Disk>)) {
        let directory = tempfile::tempdir().expect("a directory");
        for ring in [true, false] {
            let root = rustix::fs::open(directory.path(), OFlags::DIRECTORY, Mode::empty()).expect("open");
            let volume = LocalVolume::open(root, "probe", true).expect("writable");
            runtime::run(async {
                let disk: Rc<dyn Disk> = if ring {
                    Rc::new(uring::UringDisk::new(volume).expect("io_uring"))
                } else {
                    Rc::new(blocking::BlockingDisk::new(volume))
                };
                test(disk).await;
            })
            .expect("a runtime");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        every_disk(async |disk| {
            let pool = BufferPool::new(16 << 20);
            let writes = if disk.alignment().is_some() { Writes::Direct } else { Writes::Buffered };
            let file = disk.create("a".into(), writes).await.expect("created");
            file.reserve(0, 3 << 20).await.expect("reserved");
            let mut in_flight = Vec::new();
            for part in 0..3u8 {
                let mut buffer = pool.take(1 << 20);
                buffer.append(&vec![part + 1; 1 << 20]);
                in_flight.push(file.write_at(buffer, u64::from(part) << 20));
            }
            for write in in_flight {
                write.await.0.expect("written");
            }
            file.set_len((3 << 20) - 100).await.expect("cut");
            file.sync().await.expect("durable");
            for _ in 0..2 {
                disk.link("a".into(), "b".into()).await.expect("linked");
            }
            disk.remove("a".into()).await.expect("removed");
            disk.sync_directory(".".into()).await.expect("durable");

            let file = disk.open("b".into()).await.expect("opened");
            let mut offset = 0;
            loop {
                let (count, buffer) = file.read_at(pool.take(1 << 18), usize::MAX, offset).await;
                if count.expect("read") == 0 {
                    break;
                }
                assert!(buffer.iter().enumerate().all(|(i, b)| *b == ((offset + i as u64) >> 20) as u8 + 1));
                offset += buffer.len() as u64;
            }
            assert_eq!(offset, (3 << 20) - 100);
            let (count, buffer) = file.read_at(pool.take(1 << 18), 10, 5).await;
            assert_eq!((count.expect("read"), buffer.len()), (10, 10));
            disk.remove("b".into()).await.expect("removed");
            let missing = disk.open("b".into()).await.err().expect("gone");
            assert_eq!(missing.kind(), io::ErrorKind::NotFound);
            assert!(disk.free_bytes().expect("free") > 0);
        });
    }

    #[test]
    fn more_answers_than_the_queue_has_room_for_all_come() {
        every_disk(async |disk| {
            drop(disk.create("e".into(), Writes::Buffered).await.expect("created"));
            let opening: Vec<_> = (0..3000).map(|_| disk.open("e".into())).collect();
            for opened in opening {
                opened.await.expect("opened");
            }
            disk.remove("e".into()).await.expect("removed");
        });
    }

    #[test]
    fn an_operation_that_nobody_waits_for_keeps_its_buffer() {
        every_disk(async |disk| {
            let pool = BufferPool::new(16 << 20);
            let file = disk.create("c".into(), Writes::Buffered).await.expect("created");
            let mut buffer = pool.take(1 << 20);
            buffer.append(&vec![7; 1 << 20]);
            drop(file.write_at(buffer, 0));
            file.sync().await.expect("durable");
            while pool.used() > 0 {
                runtime::sleep(std::time::Duration::from_millis(1)).await;
            }
            disk.remove("c".into()).await.expect("removed");
        });
    }
}
