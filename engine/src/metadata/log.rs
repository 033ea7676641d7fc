//! The log: what was written to the tables since redb was last made durable.
//!
//! # How a batch becomes durable
//!
//! Making redb durable takes two flushes, and writes the state of its page allocator, which grows with the store. So
//! a batch is committed to redb in memory alone (`Durability::None`), after its row writes have been appended to the
//! log and flushed: one flush, of the batch's own size. Now and then a **checkpoint** makes redb durable and starts the
//! log anew: when a batch does not fit into the rest of the log, after some idle time, and when the store is closed.
//! Opening takes redb as it was at the last checkpoint and writes the rows of the log again.
//!
//! # What is in the file
//!
//! The file has its full length from the beginning, and every block of it has been written once, so that a flush
//! writes blocks and nothing of the file system's own. It is used from its start in each **generation**, over what is
//! there of the generations before; a row of redb, written by each checkpoint, holds the number of the generation that
//! goes on from that checkpoint. Numbers are big-endian. A record takes whole blocks of 4096 bytes, each of them
//!
//! | bytes | |
//! |---|---|
//! | 8 | generation |
//! | 4 | number of the record in its generation, from 0 |
//! | 4 | number of the block in its record, from 0 |
//! | 4080 | the next part of the record; zeros after its end |
//!
//! and the parts together are
//!
//! | bytes | |
//! |---|---|
//! | 4 | length of the rows |
//! | 8 | checksum (XXH64) of the three fields around it and the rows; its seed is the checksum of the record before, or the generation for the first |
//! | 8, 8 | sequence number before and after the batch |
//! | | the rows: table (1), length of the key (2), length of the value (4; `0xFFFFFFFF`: removed), key, value |
//!
//! # Why a crash loses nothing and tears nothing
//!
//! Replaying is *blind and idempotent*: a row of the log says what is at a key after its batch, whatever was there.
//! Records are applied in their order, from the first to the last that is whole, in one durable transaction which also
//! begins the next generation. So:
//!
//! - *A crash within an append*: any subset of the record's blocks, or of their sectors, may have been written. The first
//!   block is of another record or has the length and the checksum, and the others tell where they belong; so it is
//!   replayed whole or not at all. Nobody was told that it is durable. Those before it lie in other blocks, which
//!   nothing writes to in the same generation.
//! - *A crash between a checkpoint and the first record after it*: redb names the new generation, and all that is in
//!   the file is of older ones, or of none.
//! - *A record over a longer one of an older generation*: what is left of that says so in each block. Content that a client
//!   chose is never at the start of a block, so that nobody can write what looks like a record.
//! - *A crash within a checkpoint*: redb's commit is atomic. Either it still names the old generation, whose
//!   records are all there, as nothing is appended before the commit has returned; or it names the new one, and has
//!   all that they say.
//! - *A crash within a replay, or the next crash right after it*: replay is such a checkpoint. It happens again from the
//!   start, or there is nothing to replay.
//! - *A record that was torn, with others written after it*: cannot be. The next one of the generation is appended after
//!   the flush of this one; and if it were, as by a damaged medium, its seed would be wrong.
//! - *A failed append or flush*: the record may be durable or not. Its batch is taken back, and nothing more is appended
//!   in this generation: the next that is made durable is a checkpoint. Until that has succeeded, a replay in
//!   this process stops before the record.
//! - *A store without its log, or a log without its store* (a backup was put in place, or the store is made anew): records
//!   are of another generation, or do not go on from the store's sequence number. A log that is ahead of its store makes the
//!   store go on with a generation after all that the log knows.
//! - *Acknowledged, but only seen in the page cache* (a process was killed and started again): opening flushes both
//!   files before anything is written, so that nothing rests on what the kernel alone knows.

//!
//! # When the disk is full
//!
//! Records go to space that the file has had from the beginning. What redb has in memory alone needs space at the
//! checkpoint, though: about as much as redb keeps of unwritten pages. The file is longer than its records need by
//! a spare of that size; once the disk is found full, the spare is given back for the checkpoint, and batches are
//! checkpoints until the spare could be taken again.

use std::hash::Hasher as _;
use std::io;

use twox_hash::XxHash64;

use super::MetadataError;
use super::rows::{LOG, damaged};
use super::storage::StorageFile;

const BLOCK: usize = 4096;
const BLOCK_HEADER: usize = 16;
const PART: usize = BLOCK - BLOCK_HEADER;
const RECORD_HEADER: usize = 28;

/// What is written to the file, or read from it, at once.
const WINDOW: usize = 1 << 20;

/// Memory that is kept for the next record.
const BUFFER_KEPT: usize = 256 << 10;

/// The length of a value that says that the row was removed.
const REMOVED: u32 = u32::MAX;

/// The table, the key, and the value unless the row was removed.
type RowWrite<'a> = (u8, &'a [u8], Option<&'a [u8]>);

/// Writes of rows, one after the other, as the log has them.
#[derive(Debug, Default)]
pub(super) struct Rows(Vec<u8>);

impl Rows {
    /// Adds the row at `key`, or its removal.
    pub(super) fn push(&mut self, table: u8, key: &[u8], value: Option<&[u8]>) {
        // Keys are names and digests; values are bounded by redb (3 GiB).
        self.0.push(table);
        self.0.extend_from_slice(&(key.len() as u16).to_be_bytes());
        self.0.extend_from_slice(&value.map_or(REMOVED, |value| value.len() as u32).to_be_bytes());
        self.0.extend_from_slice(key);
        self.0.extend_from_slice(value.unwrap_or_default());
    }

    /// All that was added.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Adds all of `rows`.
    pub(super) fn append(&mut self, rows: Self) {
        if self.0.is_empty() {
            *self = rows;
        } else {
            self.0.extend_from_slice(&rows.0);
        }
    }

    /// The writes in `bytes`.
    pub(super) fn read(mut bytes: &[u8]) -> impl Iterator<Item = Result<RowWrite<'_>, MetadataError>> {
        std::iter::from_fn(move || {
            if bytes.is_empty() {
                return None;
            }
            let row = read_row(&mut bytes).ok_or_else(|| damaged(LOG, "a row that is cut off"));
            if row.is_err() {
                bytes = &[];
            }
            Some(row)
        })
    }
}

fn read_row<'a>(bytes: &mut &'a [u8]) -> Option<RowWrite<'a>> {
    let [table] = take(bytes)?;
    let key_length = u16::from_be_bytes(take(bytes)?);
    let value_length = u32::from_be_bytes(take(bytes)?);
    let key = bytes.split_off(..usize::from(key_length))?;
    let value = match value_length {
        REMOVED => None,
        length => Some(bytes.split_off(..usize::try_from(length).ok()?)?),
    };
    Some((table, key, value))
}

/// The next bytes of a slice.
fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*taken)
}

/// Where a log ends that is known to be durable.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    generation: u64,
    position: u64,
    in_doubt: bool,
}

/// The log's file, and how far it is written.
#[derive(Debug)]
pub(super) struct Log {
    file: Box<dyn StorageFile>,
    /// Records are appended up to this length.
    size: u64,
    /// What the file is longer than that, see the module.
    spare: u64,
    /// Length of the file.
    length: u64,
    generation: u64,
    /// Where the next record begins.
    position: u64,
    /// Number of the next record.
    number: u32,
    /// Seed of the next checksum.
    seed: u64,
    /// An append has failed; its record may be durable or not.
    in_doubt: bool,
    buffer: Vec<u8>,
}

impl Log {
    /// The log in `file`, with room for `size` bytes of records, and a spare of so many bytes. Neither reads nor grows
    /// it.
    pub(super) fn open(file: Box<dyn StorageFile>, size: usize, spare: usize) -> io::Result<Self> {
        let length = file.len()?;
        // What another process has left in the page cache is made durable before anything rests on it.
        file.sync()?;
        Ok(Self {
            file,
            size: size.next_multiple_of(BLOCK) as u64,
            spare: spare as u64,
            length,
            generation: 0,
            position: 0,
            number: 0,
            seed: 0,
            in_doubt: false,
            buffer: Vec::new(),
        })
    }

    /// Writes zeros to what the file lacks of its length; whether there was room for that.
    pub(super) fn ensure_length(&mut self) -> io::Result<bool> {
        let wanted = self.size + self.spare;
        if self.length >= wanted {
            return Ok(true);
        }
        match self.grow(wanted) {
            Ok(()) => {
                self.length = wanted;
                Ok(true)
            }
            Err(error) if super::error::is_full(&error) => {
                self.file.set_len(self.length)?;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn grow(&mut self, wanted: u64) -> io::Result<()> {
        self.file.set_len(wanted)?;
        // Block by block: the kernel then keeps the file in pages of that size, and a flush writes no more than is new.
        let zeros = [0; BLOCK];
        let mut position = self.length;
        while position < wanted {
            let count = (wanted - position).min(zeros.len() as u64);
            self.file.write(position, &zeros[..count as usize])?;
            position += count;
        }
        self.file.sync()
    }

    /// Gives the spare back to the file system.
    pub(super) fn release_spare(&mut self) -> io::Result<()> {
        let kept = self.size.max(self.position);
        if self.length > kept {
            self.file.set_len(kept)?;
            self.length = kept;
        }
        Ok(())
    }

    /// Whether a record of these rows can be appended.
    pub(super) fn takes(&self, rows: &Rows) -> bool {
        let blocks = (RECORD_HEADER + rows.0.len()).div_ceil(PART) as u64;
        let fits = self.position + blocks * BLOCK as u64 <= self.size.min(self.length);
        fits && !self.in_doubt && u32::try_from(rows.0.len()).is_ok()
    }

    /// Whether there is nothing in it that redb does not have.
    pub(super) fn is_empty(&self) -> bool {
        self.position == 0 && !self.in_doubt
    }

    /// Whether an append has failed since the generation began.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.in_doubt
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// What is known to be durable.
    pub(super) fn end(&self) -> End {
        End { generation: self.generation, position: self.position, in_doubt: self.in_doubt }
    }

    /// Begins a generation. redb names it already, and is durable.
    pub(super) fn start(&mut self, generation: u64) {
        self.generation = generation;
        self.position = 0;
        self.number = 0;
        self.seed = generation;
        self.in_doubt = false;
    }

    /// Appends the record of a batch, and returns when it is durable. After an error nothing is appended until
    /// another generation begins.
    pub(super) fn append(&mut self, before: u64, after: u64, rows: &Rows) -> io::Result<()> {
        let mut record = Vec::with_capacity(RECORD_HEADER);
        let length = rows.0.len() as u32;
        let checksum = checksum(self.seed, before, after, &rows.0);
        record.extend_from_slice(&length.to_be_bytes());
        for field in [checksum, before, after] {
            record.extend_from_slice(&field.to_be_bytes());
        }
        let (first, rest) = rows.0.split_at(rows.0.len().min(PART - RECORD_HEADER));
        self.buffer.clear();
        self.push_block(0, &[&record, first]);
        for (index, part) in (1..).zip(rest.chunks(PART)) {
            self.push_block(index, &[part]);
        }
        self.in_doubt = true;
        self.file.write(self.position, &self.buffer)?;
        self.file.sync()?;
        self.in_doubt = false;
        self.position += self.buffer.len() as u64;
        self.number += 1;
        self.seed = checksum;
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_KEPT);
        Ok(())
    }

    fn push_block(&mut self, index: u32, parts: &[&[u8]]) {
        let end = self.buffer.len() + BLOCK;
        self.buffer.extend_from_slice(&block_header(self.generation, self.number, index));
        for part in parts {
            self.buffer.extend_from_slice(part);
        }
        self.buffer.resize(end, 0);
    }
}

/// Reading what a crash has left.
impl Log {
    /// The generation of what was last written at the start of the file.
    pub(super) fn newest_generation(&self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        if self.length >= bytes.len() as u64 {
            self.file.read(0, &mut bytes)?;
        }
        Ok(u64::from_be_bytes(bytes))
    }

    /// Gives `apply` the rows of each record of `generation` that goes on from the sequence number `sequence`, from the
    /// start to the last that is whole, and not beyond `known`, where that is of this generation. Appending goes on
    /// after it. Whether there was any.
    pub(super) fn replay(
        &mut self,
        generation: u64,
        mut sequence: u64,
        known: Option<End>,
        mut apply: impl FnMut(&[u8]) -> Result<(), MetadataError>,
    ) -> Result<bool, MetadataError> {
        self.start(generation);
        let known = known.filter(|known| known.generation == generation);
        let mut reader = Reader::new(&*self.file, known.map_or(self.length, |known| known.position));
        let mut any = false;
        while let Some(record) = reader.record(generation, self.number, self.position, self.seed)? {
            if record.after > sequence {
                if record.before != sequence {
                    return Err(damaged(
                        LOG,
                        format_args!(
                            "a record goes on from change {}, but the store is at {sequence}",
                            record.before
                        ),
                    ));
                }
                apply(&record.rows)?;
                sequence = record.after;
                any = true;
            }
            self.position += record.size;
            self.number += 1;
            self.seed = record.checksum;
        }
        self.in_doubt = known.is_some_and(|known| known.in_doubt);
        Ok(any)
    }

    /// Makes what was replayed durable where it is, for a store that cannot make a checkpoint now. Written again, as
    /// after a failed flush the kernel may hold as clean what is not on the disk.
    /// After an error nothing is appended until another generation begins.
    pub(super) fn rewrite(&mut self) -> io::Result<()> {
        let was_in_doubt = std::mem::replace(&mut self.in_doubt, true);
        let mut window = vec![0; WINDOW];
        let mut position = 0;
        while position < self.position {
            let count = (self.position - position).min(window.len() as u64);
            let part = &mut window[..count as usize];
            self.file.read(position, part)?;
            self.file.write(position, part)?;
            position += count;
        }
        self.file.sync()?;
        self.in_doubt = was_in_doubt;
        Ok(())
    }
}

struct Record {
    before: u64,
    after: u64,
    checksum: u64,
    rows: Vec<u8>,
    /// Bytes that it takes in the file.
    size: u64,
}

/// Reads a file ahead, up to `end`.
struct Reader<'f> {
    file: &'f dyn StorageFile,
    end: u64,
    start: u64,
    window: Vec<u8>,
}

impl<'f> Reader<'f> {
    fn new(file: &'f dyn StorageFile, end: u64) -> Self {
        Self { file, end, start: 0, window: Vec::new() }
    }

    /// The bytes at `position`; `None` beyond the end.
    fn bytes(&mut self, position: u64, count: usize) -> io::Result<Option<&[u8]>> {
        let Some(left) = self.end.checked_sub(position).filter(|left| *left >= count as u64) else {
            return Ok(None);
        };
        let within = position.checked_sub(self.start).and_then(|offset| usize::try_from(offset).ok());
        if within.is_none_or(|offset| offset + count > self.window.len()) {
            let ahead = left.min(count.max(WINDOW) as u64) as usize;
            self.window.resize(ahead, 0);
            self.start = position;
            self.file.read(position, &mut self.window)?;
        }
        let offset = (position - self.start) as usize;
        Ok(self.window.get(offset..offset + count))
    }

    /// The record at `position`; `None` where there is none that is whole and the next of its generation.
    fn record(
        &mut self,
        generation: u64,
        number: u32,
        position: u64,
        seed: u64,
    ) -> io::Result<Option<Record>> {
        let Some(block) = self.bytes(position, BLOCK)? else { return Ok(None) };
        let Some(mut header) = block.strip_prefix(&block_header(generation, number, 0)) else {
            return Ok(None);
        };
        let fields = (take(&mut header), take(&mut header), take(&mut header), take(&mut header));
        let (Some(length), Some(sum), Some(before), Some(after)) = fields else { return Ok(None) };
        let (length, sum) = (u32::from_be_bytes(length) as usize, u64::from_be_bytes(sum));
        let (before, after) = (u64::from_be_bytes(before), u64::from_be_bytes(after));
        let blocks = (RECORD_HEADER + length).div_ceil(PART);
        let size = blocks * BLOCK;
        let Some(bytes) = self.bytes(position, size)? else { return Ok(None) };
        let mut rows = Vec::with_capacity(blocks * PART);
        for (index, block) in (0..).zip(bytes.chunks_exact(BLOCK)) {
            let Some(part) = block.strip_prefix(&block_header(generation, number, index)) else {
                return Ok(None);
            };
            rows.extend_from_slice(part);
        }
        rows.drain(..RECORD_HEADER);
        rows.truncate(length);
        let whole = checksum(seed, before, after, &rows) == sum;
        Ok(whole.then_some(Record { before, after, checksum: sum, rows, size: size as u64 }))
    }
}

fn block_header(generation: u64, number: u32, index: u32) -> [u8; BLOCK_HEADER] {
    let mut header = [0; BLOCK_HEADER];
    header[..8].copy_from_slice(&generation.to_be_bytes());
    header[8..12].copy_from_slice(&number.to_be_bytes());
    header[12..].copy_from_slice(&index.to_be_bytes());
    header
}

fn checksum(seed: u64, before: u64, after: u64, rows: &[u8]) -> u64 {
    let mut hasher = XxHash64::with_seed(seed);
    hasher.write(&(rows.len() as u64).to_be_bytes());
    hasher.write(&before.to_be_bytes());
    hasher.write(&after.to_be_bytes());
    hasher.write(rows);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::super::tests::memory::MemoryStorage;
    use super::super::{Storage as _, StoragePart};
    use super::*;

    const SIZE: usize = 32 * BLOCK;

    fn rows(length: usize) -> Rows {
        let mut rows = Rows::default();
        rows.push(3, b"key", Some(&vec![length as u8; length]));
        rows.push(1, b"removed", None);
        rows
    }

    fn open(storage: &MemoryStorage) -> Log {
        let mut log = Log::open(storage.open(StoragePart::Log).expect("opens"), SIZE, 0).expect("opens");
        log.ensure_length().expect("grows");
        log
    }

    /// Lengths of the first rows of all records.
    fn replay(log: &mut Log, generation: u64) -> Vec<usize> {
        let mut found = Vec::new();
        let replayed = log.replay(generation, 0, None, |rows| {
            let rows = Rows::read(rows).collect::<Result<Vec<_>, _>>()?;
            assert_eq!(rows[1], (1, &b"removed"[..], None));
            found.push(rows[0].2.expect("a value").len());
            Ok(())
        });
        assert_eq!(replayed.expect("reads"), !found.is_empty());
        found
    }

    #[test]
    fn records_come_back_in_their_order_and_appending_goes_on_after_them() {
        let storage = MemoryStorage::default();
        let mut log = open(&storage);
        log.start(7);
        // Around the ends of blocks.
        let lengths = [0, 1, 4016, 4017, 4018, 4019, 4020, 4021, 8120, 20_000];
        for (index, length) in (0..).zip(lengths) {
            log.append(index, index + 1, &rows(length)).expect("appends");
            let mut log = open(&storage);
            assert_eq!(replay(&mut log, 7), lengths[..=index as usize]);
        }
        let mut log = open(&storage);
        assert_eq!(replay(&mut log, 7).len(), lengths.len());
        log.append(10, 11, &rows(5)).expect("appends");
        log.rewrite().expect("writes");
        assert_eq!(replay(&mut open(&storage), 7).len(), lengths.len() + 1);
        assert!(!log.takes(&rows(SIZE)));
    }

    #[test]
    fn older_generations_are_ignored() {
        let storage = MemoryStorage::default();
        let mut log = open(&storage);
        log.start(1);
        for index in 0..5 {
            log.append(index, index + 1, &rows(9_000)).expect("appends");
        }
        assert!(replay(&mut open(&storage), 2).is_empty());
        log.start(2);
        log.append(0, 1, &rows(100)).expect("appends");
        assert_eq!(replay(&mut open(&storage), 2), [100]);
        assert_eq!(open(&storage).newest_generation().expect("reads"), 2);
        // The first of them has gone.
        assert!(replay(&mut open(&storage), 1).is_empty());
    }

    #[test]
    fn a_record_that_was_torn_ends_the_log() {
        for torn in 0..40 {
            let storage = MemoryStorage::default();
            let mut log = open(&storage);
            log.start(1);
            log.append(0, 1, &rows(100)).expect("appends");
            log.start(2);
            log.append(0, 1, &rows(200)).expect("appends");
            // Nothing of the last one is flushed; all but one sector of it gets to the disk.
            storage.fail_once(super::super::tests::memory::Call::Sync, 0, io::ErrorKind::Other);
            // Full to the last byte: a lost sector is a difference.
            log.append(1, 2, &rows(5 * PART - RECORD_HEADER - 24)).expect_err("fails");
            assert!(!log.takes(&rows(1)));
            let mut sector = 0;
            let lost = storage.after_power_loss(|| {
                sector += 1;
                sector - 1 != torn
            });
            assert_eq!(replay(&mut open(&lost), 2), [200], "{torn}");
        }
    }

    #[test]
    fn a_record_of_another_state_is_an_error() {
        let storage = MemoryStorage::default();
        let mut log = open(&storage);
        log.start(1);
        log.append(5, 6, &rows(1)).expect("appends");
        assert!(open(&storage).replay(1, 4, None, |_| Ok(())).is_err());
        // The store has it already.
        assert!(!open(&storage).replay(1, 6, None, |_| Ok(())).expect("reads"));
    }

    #[test]
    fn rows_that_are_cut_off_are_an_error() {
        let rows = rows(10);
        assert_eq!(Rows::read(&rows.0).filter(Result::is_ok).count(), 2);
        assert!(Rows::read(&rows.0[..rows.0.len() - 1]).any(|row| row.is_err()));
    }
}
