//! Content of an upload session on its way to a file.

use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use super::in_use::InUse;
use crate::buffer::{ALIGNMENT, Buffer, BufferPool};
use crate::disk::{Disk, DiskFile, Pending, Writes};
use crate::engine_core::Core;
use crate::error::EngineError;
use crate::layout;
use crate::metadata::FileId;

/// Content of a known length below this is written through the page cache: for little of it, the detour costs less
/// than direct writes' waiting, and what was pushed is in the cache for the pull that follows.
const DIRECT_SIZE_MIN: u64 = 1 << 20;

/// Writes that may be in flight while the next buffer is received and hashed.
const WRITES_IN_FLIGHT_MAX: usize = 2;

/// Space that is set aside at a time, where the length is not known or large.
const RESERVE_STEP: u64 = 64 << 20;
const RESERVE_MAX: u64 = 1 << 30;

/// A file that content is appended to in large pieces.
pub(super) struct FileSink {
    disk: Rc<dyn Disk>,
    file: Rc<dyn DiskFile>,
    id: FileId,
    in_use: Arc<InUse>,
    /// What buffers and offsets of writes are multiples of; 1 through the page cache.
    alignment: u64,
    /// Bytes of content that were handed over.
    size: u64,
    /// Up to where the file has space set aside; its length, once that is beyond the content.
    reserved: u64,
    /// Space to leave free on the volume.
    keep_free: u64,
    in_flight: VecDeque<Pending<(io::Result<()>, Buffer)>>,
}

impl FileSink {
    /// A new file for `expected` bytes (`None`: not known).
    pub(super) async fn create(core: &Core, expected: Option<u64>) -> Result<Self, EngineError> {
        let id = core.new_file_id();
        let in_use = core.files_in_use().enter(id).await;
        let writes = Self::writes(core.disk(), expected);
        let file = core.disk().create(layout::upload(id), writes).await;
        let file = file.map_err(EngineError::disk("making a file for an upload"))?;
        Ok(Self::new(core, file, in_use, id, writes, 0))
    }

    /// The file of a session that has `size` bytes and gets `expected` more.
    pub(super) async fn open(
        core: &Core,
        id: FileId,
        size: u64,
        expected: Option<u64>,
    ) -> Result<Self, EngineError> {
        let in_use = core.files_in_use().enter(id).await;
        let writes = Self::writes(core.disk(), expected);
        let file = core.disk().open_to_write(layout::upload(id), writes).await;
        let file = file.map_err(EngineError::disk("opening the file of an upload session"))?;
        // What is missing would be read as zeros, and the hash, which goes on from where it was, would not notice.
        let found =
            file.size().map_err(EngineError::disk("asking for the length of an upload session's file"))?;
        if found < size {
            return Err(EngineError::disk("reading the end of an upload session's file")(
                io::ErrorKind::UnexpectedEof.into(),
            ));
        }
        Ok(Self::new(core, file, in_use, id, writes, size))
    }

    fn new(
        core: &Core,
        file: Rc<dyn DiskFile>,
        in_use: Arc<InUse>,
        id: FileId,
        writes: Writes,
        size: u64,
    ) -> Self {
        let alignment = match writes {
            Writes::Direct => core.disk().alignment().unwrap_or(1) as u64,
            Writes::Buffered => 1,
        };
        let disk = core.disk().clone();
        let (keep_free, in_flight) = (core.reserve_bytes(), VecDeque::new());
        Self { disk, file, id, in_use, alignment, size, reserved: size, keep_free, in_flight }
    }

    fn writes(disk: &Rc<dyn Disk>, expected: Option<u64>) -> Writes {
        let is_large = expected.is_none_or(|expected| expected >= DIRECT_SIZE_MIN);
        if is_large && disk.alignment().is_some() { Writes::Direct } else { Writes::Buffered }
    }

    pub(super) fn id(&self) -> FileId {
        self.id
    }

    /// Says that the file is in use, for as long as that lives.
    pub(super) fn in_use(&self) -> Arc<InUse> {
        self.in_use.clone()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Bytes behind the last aligned offset: direct writes must begin with them again.
    pub(super) fn overlap(&self) -> usize {
        (self.size % self.alignment) as usize
    }

    /// Begins a buffer with the bytes of the overlap.
    pub(super) async fn begin(&mut self, mut buffer: Buffer) -> Result<Buffer, EngineError> {
        let overlap = self.overlap();
        if overlap > 0 {
            self.drain().await?;
        }
        while buffer.len() < overlap {
            let offset = self.size - overlap as u64 + buffer.len() as u64;
            let missing = overlap - buffer.len();
            // Direct reads are of whole blocks; what comes after the content is cut off below.
            let (count, filled) =
                self.file.read_at(buffer, missing.next_multiple_of(ALIGNMENT), offset).await;
            buffer = filled;
            if count.map_err(EngineError::disk("reading the end of an upload session's file"))? == 0 {
                return Err(EngineError::disk("reading the end of an upload session's file")(
                    io::ErrorKind::UnexpectedEof.into(),
                ));
            }
        }
        buffer.truncate(overlap);
        Ok(buffer)
    }

    /// Writes a buffer that begins with the overlap. One that ends unaligned costs a read before the next one.
    /// `remaining`: what is known to follow it.
    pub(super) async fn write(
        &mut self,
        mut buffer: Buffer,
        remaining: Option<u64>,
    ) -> Result<(), EngineError> {
        let offset = self.size - self.overlap() as u64;
        self.size = offset + buffer.len() as u64;
        buffer.pad(self.alignment as usize);
        let end = offset + buffer.len() as u64;
        if end > self.reserved {
            self.reserve(end, remaining).await?;
        }
        while self.in_flight.len() >= WRITES_IN_FLIGHT_MAX {
            self.wait_for_one().await?;
        }
        self.in_flight.push_back(self.file.write_at(buffer, offset));
        Ok(())
    }

    async fn reserve(&mut self, end: u64, remaining: Option<u64>) -> Result<(), EngineError> {
        // Unknown length: more at a time the larger it has become.
        let ahead = remaining.unwrap_or_else(|| self.size.max(RESERVE_STEP)).min(RESERVE_MAX);
        let free = self.disk.free_bytes().map_err(EngineError::disk("asking for the volume's free space"))?;
        let usable = free.saturating_sub(self.keep_free);
        let wanted = (end + ahead).next_multiple_of(self.alignment);
        let to = if wanted - self.reserved <= usable { wanted } else { end };
        if to - self.reserved > usable {
            return Err(EngineError::Full);
        }
        let reserved = self.file.reserve(self.reserved, to - self.reserved).await;
        reserved.map_err(EngineError::disk("setting space aside for an upload"))?;
        self.reserved = to;
        Ok(())
    }

    async fn wait_for_one(&mut self) -> Result<(), EngineError> {
        let Some(write) = self.in_flight.front_mut() else { return Ok(()) };
        let (answer, _buffer) = write.await;
        self.in_flight.pop_front();
        answer.map_err(EngineError::disk("writing an upload"))
    }

    /// Waits for all writes, also when one of them fails.
    pub(super) async fn drain(&mut self) -> Result<(), EngineError> {
        let mut result = Ok(());
        while !self.in_flight.is_empty() {
            result = result.and(self.wait_for_one().await);
        }
        result
    }

    /// Makes durable what was written so far.
    pub(super) async fn sync(&mut self) -> Result<(), EngineError> {
        self.drain().await?;
        self.file.sync().await.map_err(EngineError::disk("flushing an upload"))
    }

    /// Ends the file where the content ends: no padding, no space set aside in vain.
    pub(super) async fn cut(&mut self) -> Result<(), EngineError> {
        self.cut_to(self.size).await
    }

    /// Ends the file after `size` bytes.
    pub(super) async fn cut_to(&mut self, size: u64) -> Result<(), EngineError> {
        self.drain().await?;
        let cut = self.file.set_len(size).await;
        cut.map_err(EngineError::disk("cutting an upload's file to its length"))?;
        self.size = size;
        self.reserved = size;
        Ok(())
    }

    /// Hands all content, in order, to `take`; used to hash it by another algorithm.
    pub(super) async fn read(
        &mut self,
        buffers: &BufferPool,
        mut take: impl FnMut(&[u8]),
    ) -> Result<(), EngineError> {
        self.drain().await?;
        let mut offset = 0;
        while offset < self.size {
            let (count, buffer) =
                self.file.read_at(buffers.take(crate::buffer::SIZE_MAX), usize::MAX, offset).await;
            if count.map_err(EngineError::disk("reading an upload again"))? == 0 {
                return Err(EngineError::disk("reading an upload again")(
                    io::ErrorKind::UnexpectedEof.into(),
                ));
            }
            let content = buffer.len().min(usize::try_from(self.size - offset).unwrap_or(usize::MAX));
            take(&buffer[..content]);
            offset += content as u64;
        }
        Ok(())
    }
}
