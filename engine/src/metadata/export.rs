//! All rows of one state, as one stream of bytes, and back.
//!
//! Numbers are big-endian.
//!
//! | header | |
//! |---|---|
//! | 8 bytes | `PRexport` |
//! | 4 bytes | version of all that follows: 1 |
//! | 8 bytes | sequence number of the state |
//! | 8 bytes | when it was made: milliseconds since the Unix epoch |
//! | 8 bytes | XXH64 of the above |
//!
//! | each part | |
//! |---|---|
//! | 4 bytes | length of the rows; 0: this is the end |
//! | 8 bytes | number of all rows up to here, these among them |
//! | 8 bytes | XXH64 of the fields above and the rows; its seed is the checksum before |
//! | rows | as in the log: table (1), length of the key (2), length of the value (4), key, value |
//!
//! What the log's generation is belongs to a file and not to the state, and is left out.

use std::hash::Hasher as _;
use std::io::{self, Read, Write};

use twox_hash::XxHash64;

use super::log::Rows;
use super::records::Timestamp;
use super::rows::STATE;
use super::tables::BY_NUMBER;
use super::{MetadataError, Snapshot, keys};

const MAGIC: &[u8; 8] = b"PRexport";

/// Version of the format.
const VERSION: u32 = 1;

/// How long the rows of a part are, about; one that is longer is a part by itself.
const PART: usize = 256 << 10;

/// The longest part there may be. A manifest has 64 MiB at most, by the largest limit that can be set, and nothing else that
/// is in the metadata is longer; a part has others before it.
const PART_MAX: u32 = 128 << 20;

/// What the header of an export says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ExportHeader {
    /// Sequence number of the state.
    pub(crate) sequence: u64,
    /// When it was made.
    pub(crate) made_at: Timestamp,
}

/// Why an export cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The file cannot be read.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It is none.
    #[error("it is no export")]
    NoExport,
    /// It was made by a later version.
    #[error(
        "it has version {0}, and this registry reads version {VERSION}; use the version that has made it"
    )]
    Version(u32),
    /// It does not end.
    #[error("it is cut off after {0} rows; take an older one")]
    Cut(u64),
    /// It was changed since it was made.
    #[error("it is damaged after {0} rows; take an older one")]
    Damaged(u64),
}

/// Why an export was not written as a whole.
#[derive(Debug)]
pub(crate) enum Unwritten {
    /// Whoever was told of the progress has ended it.
    Stopped,
    Metadata(MetadataError),
    Io(io::Error),
}

impl From<io::Error> for Unwritten {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Snapshot {
    /// Writes all rows to `to`, in parts; `written` is told how many rows and bytes each part had. Gives the number of rows.
    pub(crate) fn export(
        &self,
        made_at: Timestamp,
        to: &mut dyn Write,
        written: &mut dyn FnMut(u64, u64) -> std::ops::ControlFlow<()>,
    ) -> Result<u64, Unwritten> {
        let mut sum = write_header(ExportHeader { sequence: self.sequence(), made_at }, to)?;
        let (mut rows, mut total, mut told) = (Rows::default(), 0, 0);
        for (number, name) in BY_NUMBER.into_iter().enumerate() {
            let table = self.tables().by_name(name).map_err(Unwritten::Metadata)?;
            for row in table.range::<&[u8]>(..).map_err(|error| Unwritten::Metadata(error.into()))? {
                let (key, value) = row.map_err(|error| Unwritten::Metadata(error.into()))?;
                if name == STATE && key.value() == keys::LOG_GENERATION {
                    continue;
                }
                rows.push(number as u8, key.value(), Some(value.value()));
                total += 1;
                if rows.bytes().len() >= PART {
                    sum = write_part(sum, rows.bytes(), total, to)?;
                    if written(total - told, rows.bytes().len() as u64).is_break() {
                        return Err(Unwritten::Stopped);
                    }
                    (rows, told) = (Rows::default(), total);
                }
            }
        }
        if !rows.bytes().is_empty() {
            sum = write_part(sum, rows.bytes(), total, to)?;
        }
        write_part(sum, &[], total, to)?;
        Ok(total)
    }
}

/// Table, key and value.
#[cfg(test)]
pub(crate) type AnyRow = (&'static str, Vec<u8>, Vec<u8>);

#[cfg(test)]
impl Snapshot {
    /// All rows.
    pub(crate) fn all_rows(&self) -> Result<Vec<AnyRow>, MetadataError> {
        let mut rows = Vec::new();
        for name in BY_NUMBER {
            let table = self.tables().by_name(name)?;
            for row in table.range::<&[u8]>(..)? {
                let (key, value) = row?;
                rows.push((name, key.value().to_vec(), value.value().to_vec()));
            }
        }
        Ok(rows)
    }
}

fn write_header(header: ExportHeader, to: &mut dyn Write) -> io::Result<u64> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&VERSION.to_be_bytes());
    bytes.extend_from_slice(&header.sequence.to_be_bytes());
    bytes.extend_from_slice(&header.made_at.0.to_be_bytes());
    let sum = checksum(0, &[&bytes]);
    to.write_all(&bytes)?;
    to.write_all(&sum.to_be_bytes())?;
    Ok(sum)
}

fn write_part(seed: u64, rows: &[u8], total: u64, to: &mut dyn Write) -> io::Result<u64> {
    let length = u32::try_from(rows.len()).ok().filter(|length| *length <= PART_MAX);
    let too_long =
        || io::Error::other(format!("a row is longer than an export can have it ({PART_MAX} bytes)"));
    let length = length.ok_or_else(too_long)?.to_be_bytes();
    let total = total.to_be_bytes();
    let sum = checksum(seed, &[&length, &total, rows]);
    for bytes in [&length[..], &total, &sum.to_be_bytes(), rows] {
        to.write_all(bytes)?;
    }
    Ok(sum)
}

fn checksum(seed: u64, parts: &[&[u8]]) -> u64 {
    let mut hasher = XxHash64::with_seed(seed);
    parts.iter().for_each(|part| hasher.write(part));
    hasher.finish()
}

/// An export that is read part by part. What a part has is known to be right, and that it is all there only once
/// [`ExportReader::next`] has given `None`.
pub(crate) struct ExportReader<R> {
    from: R,
    header: ExportHeader,
    sum: u64,
    total: u64,
}

impl<R: Read> ExportReader<R> {
    pub(crate) fn new(mut from: R) -> Result<Self, ExportError> {
        let mut bytes = [0; 28];
        let mut sum = [0; 8];
        match from.read_exact(&mut bytes).and_then(|()| from.read_exact(&mut sum)) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(ExportError::NoExport),
            read => read?,
        }
        let sum = u64::from_be_bytes(sum);
        let (magic, rest) = bytes.split_at(8);
        if magic != MAGIC {
            return Err(ExportError::NoExport);
        }
        let version = u32::from_be_bytes(part(rest, 0));
        if version != VERSION {
            return Err(ExportError::Version(version));
        }
        if checksum(0, &[&bytes]) != sum {
            return Err(ExportError::Damaged(0));
        }
        let sequence = u64::from_be_bytes(part(rest, 4));
        let made_at = Timestamp(u64::from_be_bytes(part(rest, 12)));
        Ok(Self { from, header: ExportHeader { sequence, made_at }, sum, total: 0 })
    }

    pub(crate) fn header(&self) -> ExportHeader {
        self.header
    }

    /// Rows that were read.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// The rows of the next part, for [`Transaction::restore`](super::Transaction::restore); `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Vec<u8>>, ExportError> {
        let mut header = [0; 20];
        self.fill(&mut header)?;
        let length = u32::from_be_bytes(part(&header, 0));
        let total = u64::from_be_bytes(part(&header, 4));
        let sum = u64::from_be_bytes(part(&header, 12));
        if length > PART_MAX {
            return Err(ExportError::Damaged(self.total));
        }
        let mut rows = vec![0; length as usize];
        self.fill(&mut rows)?;
        if checksum(self.sum, &[&header[..12], &rows]) != sum {
            return Err(ExportError::Damaged(self.total));
        }
        (self.sum, self.total) = (sum, total);
        Ok((length > 0).then_some(rows))
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), ExportError> {
        match self.from.read_exact(bytes) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(ExportError::Cut(self.total)),
            read => Ok(read?),
        }
    }
}

/// `N` bytes from `start` on.
fn part<const N: usize>(bytes: &[u8], start: usize) -> [u8; N] {
    let mut part = [0; N];
    part.copy_from_slice(&bytes[start..start + N]);
    part
}
