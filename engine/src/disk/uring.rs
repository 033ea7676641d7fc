//! A local volume through io_uring: no call of the data plane waits for the disk.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::rc::Rc;

use io_uring::{opcode, squeue, types};
use monoio::buf::{IoBuf, IoBufMut};
use rustix::fs::{Mode, OFlags};

use super::ring::{Ring, Started, WeakRing};
use super::{
    Disk, DiskFile, FILE_MODE, LocalVolume, Pending, Writes, is_unsupported, linked, open_flags, page_cache,
};
use crate::buffer::Buffer;
use crate::runtime;

pub(super) struct UringDisk {
    volume: LocalVolume,
    ring: Ring,
    /// Whether the kernel cuts files by io_uring (6.9); if not, a thread that may block does it.
    has_truncate: bool,
}

impl UringDisk {
    /// Must be called within the runtime of the thread that uses the disk.
    pub(super) fn new(volume: LocalVolume) -> io::Result<Self> {
        let ring = Ring::new()?;
        let has_truncate = ring.supports(opcode::Ftruncate::CODE);
        runtime::spawn(reap(ring.duplicate_descriptor()?, ring.downgrade()));
        Ok(Self { volume, ring, has_truncate })
    }

    fn open_file(&self, name: String, flags: OFlags) -> Pending<io::Result<Rc<dyn DiskFile>>> {
        let Ok(name) = CString::new(name) else { return invalid_name() };
        let (ring, has_truncate) = (self.ring.clone(), self.has_truncate);
        let memory = (name, self.volume.root.clone());
        // SAFETY: the path and the directory's descriptor are owned by the operation's memory; a string's bytes
        // stay where they are while the string moves.
        let started = unsafe {
            self.ring.start(memory, |(name, root)| {
                opcode::OpenAt::new(types::Fd(root.as_raw_fd()), name.as_ptr())
                    .flags(flags.bits() as i32)
                    .mode(FILE_MODE.bits())
                    .build()
            })
        };
        Box::pin(async move {
            let descriptor = started.await.0?;
            // SAFETY: the kernel has just opened this descriptor for us, and nobody else knows it.
            let file = unsafe { OwnedFd::from_raw_fd(descriptor as i32) };
            Ok(Rc::new(UringFile { file: Rc::new(file), ring, has_truncate }) as Rc<dyn DiskFile>)
        })
    }
}

/// Takes the ring's answers whenever its descriptor says that there are some, until the ring is gone.
async fn reap(descriptor: OwnedFd, ring: WeakRing) {
    // The runtime waits for sockets only: the ring's descriptor is waited for in a socket's clothes.
    let socket = std::net::TcpStream::from(descriptor);
    let waiting = match runtime::TcpStream::from_std(socket) {
        Ok(waiting) => waiting,
        Err(error) => unreachable!("io_uring's runtime registers no descriptors: {error}"),
    };
    while let Ok(()) = waiting.readable(false).await {
        let Some(ring) = ring.upgrade() else { return };
        ring.reap();
    }
}

fn invalid_name<T: 'static>() -> Pending<io::Result<T>> {
    Box::pin(async { Err(io::Error::new(io::ErrorKind::InvalidInput, "a file's name has a zero byte")) })
}

impl Disk for UringDisk {
    fn alignment(&self) -> Option<usize> {
        self.volume.alignment
    }

    fn create(&self, name: String, writes: Writes) -> Pending<io::Result<Rc<dyn DiskFile>>> {
        self.open_file(name, open_flags(Some(writes)) | OFlags::CREATE | OFlags::EXCL)
    }

    fn open_to_write(&self, name: String, writes: Writes) -> Pending<io::Result<Rc<dyn DiskFile>>> {
        self.open_file(name, open_flags(Some(writes)))
    }

    fn open(&self, name: String) -> Pending<io::Result<Rc<dyn DiskFile>>> {
        self.open_file(name, open_flags(None))
    }

    fn link(&self, from: String, to: String) -> Pending<io::Result<()>> {
        let (Ok(from), Ok(to)) = (CString::new(from), CString::new(to)) else { return invalid_name() };
        let ring = self.ring.clone();
        let memory = (from, to, self.volume.root.clone());
        // SAFETY: as in `open_file`.
        let started = unsafe {
            ring.start(memory, |(from, to, root)| {
                let root = types::Fd(root.as_raw_fd());
                opcode::LinkAt::new(root, from.as_ptr(), root, to.as_ptr()).build()
            })
        };
        Box::pin(async move {
            let (answer, memory) = started.await;
            if let Some(answer) = linked(answer.map(drop)) {
                return answer;
            }
            // SAFETY: as in `open_file`.
            let started = unsafe {
                ring.start(memory, |(from, to, root)| {
                    let root = types::Fd(root.as_raw_fd());
                    opcode::RenameAt::new(root, from.as_ptr(), root, to.as_ptr()).build()
                })
            };
            started.await.0.map(drop)
        })
    }

    fn remove(&self, name: String) -> Pending<io::Result<()>> {
        let Ok(name) = CString::new(name) else { return invalid_name() };
        // SAFETY: as in `open_file`.
        let started = unsafe {
            self.ring.start((name, self.volume.root.clone()), |(name, root)| {
                opcode::UnlinkAt::new(types::Fd(root.as_raw_fd()), name.as_ptr()).build()
            })
        };
        Box::pin(async move { started.await.0.map(drop) })
    }

    fn sync_directory(&self, name: String) -> Pending<io::Result<()>> {
        let Ok(name) = CString::new(name) else { return invalid_name() };
        let root = self.volume.root.clone();
        let ring = self.ring.clone();
        Box::pin(async move {
            // Opening a directory whose entry is cached, as ours are, does not wait.
            let directory =
                rustix::fs::openat(&*root, &name, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
            // SAFETY: the descriptor is owned by the operation's memory.
            let started = unsafe {
                ring.start(directory, |file| opcode::Fsync::new(types::Fd(file.as_raw_fd())).build())
            };
            started.await.0.map(drop)
        })
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.volume.free_bytes()
    }
}

struct UringFile {
    file: Rc<OwnedFd>,
    ring: Ring,
    has_truncate: bool,
}

impl UringFile {
    /// Starts an operation that needs no memory but the open file.
    fn start(&self, entry: impl FnOnce(types::Fd) -> squeue::Entry) -> Started<Rc<OwnedFd>> {
        // SAFETY: the descriptor is owned by the operation's memory; the entries made here name nothing else.
        unsafe { self.ring.start(self.file.clone(), |file| entry(types::Fd(file.as_raw_fd()))) }
    }
}

impl DiskFile for UringFile {
    fn read_at(&self, buffer: Buffer, limit: usize, offset: u64) -> Pending<(io::Result<usize>, Buffer)> {
        let memory = (buffer.tail(limit), self.file.clone());
        // SAFETY: buffer and descriptor are owned by the operation's memory; the buffer's bytes are a mapping of
        // their own that stays where it is.
        let started = unsafe {
            self.ring.start(memory, |(tail, file)| {
                let len = u32::try_from(tail.bytes_total()).unwrap_or(u32::MAX);
                opcode::Read::new(types::Fd(file.as_raw_fd()), tail.write_ptr(), len).offset(offset).build()
            })
        };
        Box::pin(async move {
            let (answer, (mut tail, _)) = started.await;
            let answer = answer.map(|count| count as usize);
            // SAFETY: the kernel has written that many bytes from the start of the tail.
            unsafe { tail.set_init(*answer.as_ref().unwrap_or(&0)) };
            (answer, tail.into_buffer())
        })
    }

    fn write_at(&self, buffer: Buffer, offset: u64) -> Pending<(io::Result<()>, Buffer)> {
        let (ring, file) = (self.ring.clone(), self.file.clone());
        let write = move |buffer: Buffer, written: usize| {
            // SAFETY: as in `read_at`; `written` is at most the buffer's length.
            unsafe {
                ring.start((buffer, file.clone()), |(buffer, file)| {
                    let len = u32::try_from(buffer.len() - written).unwrap_or(u32::MAX);
                    opcode::Write::new(types::Fd(file.as_raw_fd()), buffer.read_ptr().add(written), len)
                        .offset(offset + written as u64)
                        .build()
                })
            }
        };
        let mut started = write(buffer, 0);
        let mut written = 0;
        Box::pin(async move {
            loop {
                let (count, (buffer, _)) = started.await;
                match count {
                    Ok(0) if !buffer.is_empty() => return (Err(io::ErrorKind::WriteZero.into()), buffer),
                    Ok(count) => written += count as usize,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return (Err(error), buffer),
                }
                if written >= buffer.len() {
                    return (Ok(()), buffer);
                }
                started = write(buffer, written);
            }
        })
    }

    fn reserve(&self, offset: u64, len: u64) -> Pending<io::Result<()>> {
        let started = self.start(|file| opcode::Fallocate::new(file, len).offset(offset).mode(0).build());
        Box::pin(async move {
            match started.await.0 {
                Err(error) if is_unsupported(&error) => Ok(()),
                answer => answer.map(drop),
            }
        })
    }

    fn set_len(&self, len: u64) -> Pending<io::Result<()>> {
        if self.has_truncate {
            let started = self.start(|file| opcode::Ftruncate::new(file, len).build());
            return Box::pin(async move { started.await.0.map(drop) });
        }
        let file = self.file.try_clone();
        Box::pin(async move {
            let file = file?;
            runtime::blocking(move || rustix::fs::ftruncate(&file, len)).await?.map_err(io::Error::from)
        })
    }

    fn size(&self) -> io::Result<u64> {
        // The inode of an open file is in memory.
        Ok(u64::try_from(rustix::fs::fstat(&*self.file)?.st_size).unwrap_or_default())
    }

    fn sync(&self) -> Pending<io::Result<()>> {
        let started = self.start(|file| opcode::Fsync::new(file).flags(types::FsyncFlags::DATASYNC).build());
        Box::pin(async move { started.await.0.map(drop) })
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.file.as_fd())
    }

    fn is_cached(&self, offset: u64, len: u64) -> bool {
        page_cache::holds(self.file.as_fd(), offset, len)
    }
}
