//! What the store stands on: two things like files, that can be opened again after they have failed.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rustix::fs::{Advice, FallocateFlags};
use rustix::io::Errno;

/// The two files of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoragePart {
    /// The tables.
    Tables,
    /// The log of what was written to them since they were last made durable.
    Log,
}

/// Where the store lives. Both files are opened once at the start, and again after each failure of the storage, always
/// with those of the time before closed.
pub trait Storage: fmt::Debug + Send + Sync {
    /// Opens a file, and creates it empty where it does not exist.
    fn open(&self, part: StoragePart) -> io::Result<Box<dyn StorageFile>>;
}

/// The open file. Calls come from many threads; writes only from one at a time.
pub trait StorageFile: fmt::Debug + Send + Sync {
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether there is nothing in it.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Fills `out` with the bytes from `offset` on; an error where the file is too short.
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;

    /// Writes `data` at `offset`, below the length.
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Makes the file shorter, or longer with zeros.
    fn set_len(&self, length: u64) -> io::Result<()>;

    /// Returns when all that was written is durable.
    fn sync(&self) -> io::Result<()>;
}

/// Space is reserved in pieces of this many bytes. The store grows by doubling, so that reserving all of a growth
/// would take the space of the content that is stored beside it.
const RESERVATION_SIZE: u64 = 16 << 20;

/// The store in two files of a local volume.
///
/// Nothing is written to space that was not reserved before: a full disk shows as an error of the write that would
/// need the space, never later when the kernel writes back, and what has been reserved once can be overwritten on a
/// full disk too. The file is not locked; who opens it has to know that nobody else does.
#[derive(Debug)]
pub struct FileStorage {
    path: PathBuf,
}

impl FileStorage {
    /// The store with its tables in the file at `path`, and its log beside it, in the file of the same name whose
    /// extension is `log`. Nothing is opened yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }
}

impl Storage for FileStorage {
    fn open(&self, part: StoragePart) -> io::Result<Box<dyn StorageFile>> {
        let path = match part {
            StoragePart::Tables => self.path.clone(),
            StoragePart::Log => self.path.with_extension("log"),
        };
        let existed = path.exists();
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path)?;
        if !existed {
            let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            File::open(directory.unwrap_or(Path::new(".")))?.sync_all()?;
        }
        // Pages are read here and there; what the kernel would read around them is not needed. Advice only.
        let _ = rustix::fs::fadvise(&file, 0, None, Advice::Random);
        Ok(Box::new(ReservedFile { file, reserved: Mutex::default() }))
    }
}

/// A file that reserves space before it writes.
#[derive(Debug)]
struct ReservedFile {
    file: File,
    reserved: Mutex<Reserved>,
}

/// What is known to be reserved: a bit for each piece. Forgotten when the file is closed, as reserving again what is
/// reserved costs little.
#[derive(Debug, Default)]
struct Reserved {
    pieces: Vec<bool>,
    /// The file system cannot reserve; a full disk then shows wherever it shows.
    unsupported: bool,
}

impl ReservedFile {
    /// Reserves the pieces that `offset..offset + length` lies in.
    fn reserve(&self, offset: u64, length: u64) -> io::Result<()> {
        let mut reserved = self.reserved.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let pieces = offset / RESERVATION_SIZE..(offset + length).div_ceil(RESERVATION_SIZE);
        for piece in pieces {
            let index = usize::try_from(piece).map_err(|_| io::ErrorKind::FileTooLarge)?;
            if reserved.unsupported || reserved.pieces.get(index).copied().unwrap_or(false) {
                continue;
            }
            match self.reserve_piece(piece * RESERVATION_SIZE) {
                Ok(()) => {
                    let known = reserved.pieces.len().max(index + 1);
                    reserved.pieces.resize(known, false);
                    reserved.pieces[index] = true;
                }
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => reserved.unsupported = true,
                // The last of the space is taken as it is needed.
                Err(Errno::NOSPC | Errno::DQUOT) => {
                    let (start, end) = (piece * RESERVATION_SIZE, (piece + 1) * RESERVATION_SIZE);
                    self.allocate(offset.max(start), end.min(offset + length))?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Reserves from `start` on, as far as the file reaches.
    fn reserve_piece(&self, start: u64) -> Result<(), Errno> {
        let length = rustix::fs::fstat(&self.file)?.st_size as u64;
        self.allocate(start, (start + RESERVATION_SIZE).min(length))
    }

    fn allocate(&self, start: u64, end: u64) -> Result<(), Errno> {
        if start >= end {
            return Ok(());
        }
        loop {
            match rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, start, end - start) {
                Err(Errno::INTR) => {}
                result => return result,
            }
        }
    }
}

impl StorageFile for ReservedFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.reserve(offset, data.len() as u64)?;
        self.file.write_all_at(data, offset)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)?;
        // A piece that the old or the new end cut short is reserved anew when it is next written to.
        let mut reserved = self.reserved.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        reserved.pieces.clear();
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// A [`StorageFile`] as redb wants it. redb's locks stay unsupported, as its documentation allows for a single writer.
#[derive(Debug)]
pub(super) struct Backend(pub(super) Box<dyn StorageFile>);

impl redb::StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn space_is_reserved_by_the_piece_before_it_is_written() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("store");
        let file = FileStorage::new(&path).open(StoragePart::Tables).expect("opens");
        file.set_len(4 * RESERVATION_SIZE).expect("grows");
        assert_eq!(file.len().expect("length"), 4 * RESERVATION_SIZE);
        file.write(2 * RESERVATION_SIZE - 1, &[1, 2]).expect("writes");
        let reserved = std::fs::metadata(&path).expect("metadata").blocks() * 512;
        if reserved > 64 << 10 {
            assert!((2 * RESERVATION_SIZE..3 * RESERVATION_SIZE).contains(&reserved), "{reserved}");
        } // else the file system of the test cannot reserve
        let mut out = [9; 4];
        file.read(2 * RESERVATION_SIZE - 2, &mut out).expect("reads");
        assert_eq!(out, [0, 1, 2, 0]);
        file.set_len(10).expect("shrinks");
        assert!(file.read(8, &mut out).is_err());
    }
}
