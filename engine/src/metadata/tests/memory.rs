use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use super::super::storage::{Storage, StorageFile};

/// What a storage can be asked to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Open,
    Write,
    Sync,
    SetLen,
}

/// A storage in memory that can be made to fail.
#[derive(Clone, Debug, Default)]
pub(super) struct MemoryStorage(Arc<Mutex<Disk>>);

#[derive(Debug, Default)]
struct Disk {
    bytes: Vec<u8>,
    /// How many calls of a kind are left until one fails.
    faults: Vec<(Call, u64, io::ErrorKind)>,
    /// The file cannot grow beyond this length.
    length_max: Option<usize>,
    opened: u64,
}

impl MemoryStorage {
    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().expect("no panic while it is held")
    }

    /// Makes the call of this kind fail, once, that comes after `calls` others of the kind.
    pub(super) fn fail_once(&self, call: Call, calls: u64, error: io::ErrorKind) {
        self.disk().faults.push((call, calls, error));
    }

    /// Whether a fault that was asked for has not come yet.
    pub(super) fn fault_is_pending(&self) -> bool {
        !self.disk().faults.is_empty()
    }

    pub(super) fn forget_faults(&self) {
        self.disk().faults.clear();
    }

    /// Lets the file grow no more, or grow again.
    pub(super) fn set_full(&self, full: bool) {
        let mut disk = self.disk();
        disk.length_max = full.then_some(disk.bytes.len());
    }

    /// How often it was opened.
    pub(super) fn opened(&self) -> u64 {
        self.disk().opened
    }

    /// Overwrites all that is there.
    pub(super) fn overwrite(&self, byte: u8) {
        self.disk().bytes.fill(byte);
    }

    fn call(&self, call: Call) -> io::Result<MutexGuard<'_, Disk>> {
        let mut disk = self.disk();
        let Some(index) = disk.faults.iter().position(|(kind, ..)| *kind == call) else { return Ok(disk) };
        match &mut disk.faults[index] {
            (_, 0, _) => Err(disk.faults.remove(index).2.into()),
            (_, left, _) => {
                *left -= 1;
                Ok(disk)
            }
        }
    }
}

impl Storage for MemoryStorage {
    fn open(&self) -> io::Result<Box<dyn StorageFile>> {
        self.call(Call::Open)?.opened += 1;
        Ok(Box::new(self.clone()))
    }
}

impl StorageFile for MemoryStorage {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let start = offset as usize;
        let disk = self.disk();
        out.copy_from_slice(disk.bytes.get(start..start + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let start = offset as usize;
        let mut disk = self.call(Call::Write)?;
        let target = disk.bytes.get_mut(start..start + data.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        target.copy_from_slice(data);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let length = length as usize;
        let mut disk = self.call(Call::SetLen)?;
        if disk.length_max.is_some_and(|max| length > max) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        disk.bytes.resize(length, 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.call(Call::Sync).map(drop)
    }
}
