use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use super::super::storage::{Storage, StorageFile, StoragePart};

/// What a power loss keeps or loses as one.
const SECTOR: usize = 512;

/// What is given to a file, or taken from it, as one.
const BLOCK: usize = 4096;

/// What a storage can be asked to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Open,
    Write,
    Sync,
    SetLen,
}

/// A storage in memory that can be made to fail, and to lose its power.
#[derive(Clone, Debug, Default)]
pub(crate) struct MemoryStorage(Arc<Mutex<Disk>>);

#[derive(Debug)]
struct MemoryFile {
    storage: MemoryStorage,
    part: StoragePart,
}

#[derive(Debug, Default)]
struct Disk {
    tables: Contents,
    log: Contents,
    faults: Vec<Fault>,
    /// How many changes are left until the power goes.
    power: Option<u64>,
    /// Blocks that all files together can have.
    blocks_max: Option<usize>,
    opened: u64,
}

/// A file, as it is seen, and as a power loss would leave it without what is not flushed.
#[derive(Debug, Default)]
struct Contents {
    bytes: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<(usize, Vec<u8>)>,
    /// The blocks that have been written to, and so take space.
    blocks: BTreeSet<usize>,
}

#[derive(Debug)]
struct Fault {
    call: Call,
    /// Any file, where there is none.
    part: Option<StoragePart>,
    /// How many calls of the kind are left until one fails.
    left: u64,
    error: io::ErrorKind,
}

impl Disk {
    fn contents(&mut self, part: StoragePart) -> &mut Contents {
        match part {
            StoragePart::Tables => &mut self.tables,
            StoragePart::Log => &mut self.log,
        }
    }

    fn blocks(&self) -> usize {
        self.tables.blocks.len() + self.log.blocks.len()
    }
}

impl Contents {
    fn sync(&mut self) {
        for (start, data) in self.pending.drain(..) {
            // What was cut off since need not be kept.
            let end = (start + data.len()).min(self.durable.len());
            if start < end {
                self.durable[start..end].copy_from_slice(&data[..end - start]);
            }
        }
    }

    /// What is left after a power loss that kept those sectors of what was not flushed which `keep` says.
    fn after_power_loss(&self, keep: &mut impl FnMut() -> bool) -> Self {
        let mut bytes = self.durable.clone();
        for (start, data) in &self.pending {
            for (index, sector) in data.chunks(SECTOR).enumerate() {
                let at = start + index * SECTOR;
                if keep() && at + sector.len() <= bytes.len() {
                    bytes[at..at + sector.len()].copy_from_slice(sector);
                }
            }
        }
        Self { durable: bytes.clone(), bytes, pending: Vec::new(), blocks: self.blocks.clone() }
    }
}

/// Cuts the bytes, or adds zeros: without going over each of them, which takes most of a test's time.
fn resize(bytes: &mut Vec<u8>, length: usize) {
    if length <= bytes.len() {
        return bytes.truncate(length);
    }
    let mut longer = vec![0; length];
    longer[..bytes.len()].copy_from_slice(bytes);
    *bytes = longer;
}

impl MemoryStorage {
    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().expect("no panic while it is held")
    }

    /// Makes the call of this kind fail, once, that comes after `calls` others of the kind.
    pub(crate) fn fail_once(&self, call: Call, calls: u64, error: io::ErrorKind) {
        self.disk().faults.push(Fault { call, part: None, left: calls, error });
    }

    /// The same, for one of the files.
    pub(crate) fn fail_once_in(&self, part: StoragePart, call: Call, calls: u64, error: io::ErrorKind) {
        self.disk().faults.push(Fault { call, part: Some(part), left: calls, error });
    }

    /// Whether a fault that was asked for has not come yet.
    pub(crate) fn fault_is_pending(&self) -> bool {
        !self.disk().faults.is_empty()
    }

    pub(crate) fn forget_faults(&self) {
        self.disk().faults.clear();
    }

    /// Makes every change fail after so many of them.
    pub(crate) fn cut_power_after(&self, changes: u64) {
        self.disk().power = Some(changes);
    }

    /// Another storage with what a power loss may leave of this one: all that was flushed, and of the rest what
    /// `keep` says, sector by sector.
    pub(crate) fn after_power_loss(&self, mut keep: impl FnMut() -> bool) -> Self {
        let disk = self.disk();
        let (tables, log) = (disk.tables.after_power_loss(&mut keep), disk.log.after_power_loss(&mut keep));
        Self(Arc::new(Mutex::new(Disk { tables, log, ..Disk::default() })))
    }

    /// Another storage with all that was written to this one: what is there after a process was killed.
    pub(crate) fn after_kill(&self) -> Self {
        self.after_power_loss(|| true)
    }

    /// Leaves room for so many blocks, or for any number.
    pub(crate) fn leave(&self, blocks: Option<usize>) {
        let mut disk = self.disk();
        disk.blocks_max = blocks.map(|blocks| disk.blocks() + blocks);
    }

    /// How often the tables were opened.
    pub(crate) fn opened(&self) -> u64 {
        self.disk().opened
    }

    /// Overwrites all that is there.
    pub(crate) fn overwrite(&self, part: StoragePart, byte: u8) {
        let mut disk = self.disk();
        let contents = disk.contents(part);
        contents.bytes.fill(byte);
        contents.durable.fill(byte);
    }

    /// Removes a file.
    pub(crate) fn remove(&self, part: StoragePart) {
        *self.disk().contents(part) = Contents::default();
    }

    fn call(&self, part: StoragePart, call: Call) -> io::Result<MutexGuard<'_, Disk>> {
        let mut disk = self.disk();
        match &mut disk.power {
            Some(0) => return Err(io::ErrorKind::Other.into()),
            Some(left) => *left -= 1,
            None => {}
        }
        let is_meant = |fault: &Fault| fault.call == call && fault.part.is_none_or(|meant| meant == part);
        if let Some(index) = disk.faults.iter().position(is_meant) {
            if disk.faults[index].left == 0 {
                return Err(disk.faults.remove(index).error.into());
            }
            disk.faults[index].left -= 1;
        }
        Ok(disk)
    }
}

impl Storage for MemoryStorage {
    fn open(&self, part: StoragePart) -> io::Result<Box<dyn StorageFile>> {
        let mut disk = self.call(part, Call::Open)?;
        disk.opened += u64::from(part == StoragePart::Tables);
        Ok(Box::new(MemoryFile { storage: self.clone(), part }))
    }
}

impl StorageFile for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.storage.disk().contents(self.part).bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let start = offset as usize;
        let mut disk = self.storage.disk();
        let bytes = &disk.contents(self.part).bytes;
        out.copy_from_slice(bytes.get(start..start + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let start = offset as usize;
        let mut disk = self.storage.call(self.part, Call::Write)?;
        let max = disk.blocks_max.map(|max| max.saturating_sub(disk.blocks()));
        let contents = disk.contents(self.part);
        let blocks = start / BLOCK..(start + data.len()).div_ceil(BLOCK);
        let new = blocks.clone().filter(|block| !contents.blocks.contains(block)).count();
        if max.is_some_and(|max| new > max) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        contents.blocks.extend(blocks);
        let target = contents.bytes.get_mut(start..start + data.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        target.copy_from_slice(data);
        contents.pending.push((start, data.to_vec()));
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let length = length as usize;
        let mut disk = self.storage.call(self.part, Call::SetLen)?;
        let contents = disk.contents(self.part);
        resize(&mut contents.bytes, length);
        resize(&mut contents.durable, length);
        contents.blocks.split_off(&length.div_ceil(BLOCK));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.storage.call(self.part, Call::Sync)?.contents(self.part).sync();
        Ok(())
    }
}
