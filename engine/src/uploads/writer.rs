//! One request's hold on an upload session.

use std::sync::Arc;

use bytes::Bytes;

use super::file_sink::FileSink;
use super::in_use::InUse;
use super::sessions::{Busy, Taken};
use crate::buffer::{Buffer, SIZE_MAX, SIZES};
use crate::engine_core::Core;
use crate::error::EngineError;
use crate::layout;
use crate::metadata::{
    BlobCommit, FileId, INLINE_SIZE_MAX, NewContent, Timestamp, Transaction, UploadContent, UploadId,
    UploadRecord,
};
use crate::oci::{Algorithm, ContentHasher, Digest, HashState, RepositoryName};
use crate::read_only::{Hold, WriteStage};

/// A session that is being received is made durable, and its offset remembered, whenever this much has come: what
/// a client loses when the machine fails is at most that.
const CHECKPOINT_BYTES: u64 = 256 << 20;

/// Why content was not stored.
#[derive(Debug, thiserror::Error)]
pub enum FinishError {
    /// What came is not what the digest says. The session and what it held are gone.
    #[error("the content that was uploaded has the digest {actual}, not {expected}")]
    Digest {
        /// What the client said.
        expected: Digest,
        /// What the content has.
        actual: Digest,
    },
    /// The registry became read-only, and the time for writes that were running is over; the session has all that came.
    #[error("the registry is read-only")]
    Held(Arc<Hold>),
    /// The store failed; the session is as it was.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// A blob that is stored, durable and visible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Whether the registry had the content before.
    pub was_known: bool,
}

/// Writes to an upload session, for one request; the session belongs to it until [`UploadWriter::suspend`],
/// [`UploadWriter::finish`], [`UploadWriter::revert`] or [`UploadWriter::cancel`].
///
/// The way of a byte: [`UploadWriter::buffer`] gives a buffer, the connection receives into it, and
/// [`UploadWriter::write`] hashes it where it is and hands it to the disk.
pub struct UploadWriter {
    core: Core,
    id: UploadId,
    /// The session as the request found it.
    found: UploadRecord,
    /// Whether the metadata knows the session.
    is_saved: bool,
    /// The session is of this request alone, and ends with it whatever happens.
    is_one_shot: bool,
    busy: Busy,
    /// `None` where the state was saved by another version: then the content is hashed again at the end.
    hasher: Option<ContentHasher>,
    size: u64,
    sink: Sink,
    /// Buffers given so far: the first ones are small, so that a slow sender holds little memory.
    buffers_given: usize,
    checkpoint_at: u64,
    /// A row that may have become durable, although its commit failed, has what the file holds: it must not be cut.
    is_in_doubt: bool,
    /// Set when the session was given back or has ended.
    is_released: bool,
}

enum Sink {
    /// Little content, which is stored within the metadata.
    Memory(Vec<u8>),
    /// The file was not opened yet: some requests (status, an empty last one) have no need to.
    Closed(FileId),
    File(FileSink),
}

impl UploadWriter {
    pub(crate) fn new(core: Core, id: UploadId, taken: Taken, is_one_shot: bool) -> Self {
        let Taken { record: found, is_saved, busy } = taken;
        let sink = match &found.content {
            UploadContent::Inline(content) => Sink::Memory(content.to_vec()),
            UploadContent::File(file) => Sink::Closed(*file),
        };
        Self {
            core,
            id,
            is_saved,
            is_one_shot,
            busy,
            hasher: ContentHasher::restore(&found.hash),
            size: found.size,
            sink,
            buffers_given: 0,
            checkpoint_at: found.size + CHECKPOINT_BYTES,
            is_in_doubt: false,
            is_released: false,
            found,
        }
    }

    /// The session's id.
    pub fn id(&self) -> UploadId {
        self.id
    }

    /// Bytes that the session has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// When the session last made progress.
    pub fn touched_at(&self) -> Timestamp {
        self.found.touched_at
    }

    /// The repository that the session belongs to.
    pub fn repository(&self) -> &RepositoryName {
        &self.found.repository
    }

    /// Hashes by `algorithm`, where nothing was hashed yet. Known before the first byte, it saves reading the
    /// content again at the end.
    pub fn expect_algorithm(&mut self, algorithm: Algorithm) {
        if self.size == 0 && self.hasher.as_ref().is_none_or(|hasher| hasher.algorithm() != algorithm) {
            self.hasher = Some(ContentHasher::new(algorithm));
        }
    }

    /// A buffer to receive into. It may begin with bytes that the session has already; what is received goes
    /// behind them. `remaining`: how many bytes are still to come, where that is known.
    pub async fn buffer(&mut self, remaining: Option<u64>) -> Result<Buffer, EngineError> {
        let overlap = match &self.sink {
            Sink::Memory(_) => 0,
            _ => self.open_file(remaining).await?.overlap(),
        };
        let by_progress = SIZES.get(self.buffers_given + 1).copied().unwrap_or(SIZE_MAX);
        let remaining = remaining.and_then(|remaining| usize::try_from(remaining).ok()).unwrap_or(SIZE_MAX);
        self.buffers_given += 1;
        // Even the smallest buffer holds more than an overlap, which is less than a page.
        let buffer = self.core.buffers().take(remaining.saturating_add(overlap).min(by_progress));
        match &mut self.sink {
            Sink::File(file) => file.begin(buffer).await,
            _ => Ok(buffer),
        }
    }

    async fn open_file(&mut self, remaining: Option<u64>) -> Result<&mut FileSink, EngineError> {
        if let Sink::Closed(id) = self.sink {
            self.sink = Sink::File(FileSink::open(&self.core, id, self.size, remaining).await?);
        }
        match &mut self.sink {
            Sink::File(file) => Ok(file),
            _ => unreachable!("called for sessions with a file only"),
        }
    }

    /// Takes what was received into a buffer of [`UploadWriter::buffer`]. All buffers but the last one of a request
    /// are full. `remaining`: how many bytes are still to come, where that is known.
    pub async fn write(&mut self, buffer: Buffer, remaining: Option<u64>) -> Result<(), EngineError> {
        let overlap = match &self.sink {
            Sink::File(file) => file.overlap(),
            _ => 0,
        };
        let received = &buffer[overlap..];
        if received.is_empty() {
            return Ok(());
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(received);
        }
        let count = received.len() as u64;
        if let Sink::Memory(content) = &mut self.sink {
            let total = self.size + count + remaining.unwrap_or(0);
            if total <= INLINE_SIZE_MAX as u64 {
                content.extend_from_slice(received);
                return self.received(count).await;
            }
            let content = std::mem::take(content);
            let expected = remaining.map(|remaining| self.size + count + remaining);
            return self.move_to_file(content, buffer, expected, remaining).await;
        }
        self.open_file(remaining).await?.write(buffer, remaining).await?;
        self.received(count).await
    }

    /// The content has become too large for the metadata.
    async fn move_to_file(
        &mut self,
        content: Vec<u8>,
        received: Buffer,
        expected: Option<u64>,
        remaining: Option<u64>,
    ) -> Result<(), EngineError> {
        let count = received.len() as u64;
        let mut file = FileSink::create(&self.core, expected).await?;
        let written = if content.is_empty() {
            file.write(received, remaining).await
        } else {
            self.write_copies(&mut file, &content, &received, remaining).await
        };
        self.sink = Sink::File(file);
        written?;
        self.received(count).await
    }

    /// Little content that was kept in memory begins the file together with what came after it. These few bytes
    /// are copied, so that what follows them is aligned.
    async fn write_copies(
        &self,
        file: &mut FileSink,
        content: &[u8],
        received: &[u8],
        remaining: Option<u64>,
    ) -> Result<(), EngineError> {
        let (mut content, mut received) = (content, received);
        while !(content.is_empty() && received.is_empty()) {
            let mut joined = file.begin(self.core.buffers().take(content.len() + received.len())).await?;
            content = &content[joined.append(content)..];
            received = &received[joined.append(received)..];
            file.write(joined, remaining.map(|remaining| remaining + received.len() as u64)).await?;
        }
        Ok(())
    }

    async fn received(&mut self, count: u64) -> Result<(), EngineError> {
        self.size += count;
        self.busy.set_size(self.size);
        if self.size >= self.checkpoint_at {
            self.checkpoint_at = self.size + CHECKPOINT_BYTES;
            self.save().await?;
        }
        Ok(())
    }

    /// Makes durable what the session has, and remembers it.
    async fn save(&mut self) -> Result<(), EngineError> {
        let content = match &mut self.sink {
            Sink::Memory(content) => UploadContent::Inline(Bytes::copy_from_slice(content)),
            Sink::Closed(id) => UploadContent::File(*id),
            Sink::File(file) => {
                file.sync().await?;
                if !matches!(self.found.content, UploadContent::File(_)) {
                    let synced = self.core.disk().sync_directory(layout::UPLOADS.to_owned()).await;
                    synced.map_err(EngineError::disk("flushing the directory of uploads"))?;
                }
                UploadContent::File(file.id())
            }
        };
        let record = UploadRecord {
            repository: self.found.repository.clone(),
            started_at: self.found.started_at,
            touched_at: self.core.now(),
            size: self.size,
            hash: self.hasher.as_ref().map_or_else(|| self.found.hash.clone(), ContentHasher::save),
            content,
        };
        let id = self.id;
        let saved = record.clone();
        let in_use = self.in_use();
        let save =
            move |transaction: &mut Transaction<'_>| Ok((transaction.save_upload(id, &saved)?, in_use));
        let saved = self.core.metadata().write(save).await;
        self.is_in_doubt = saved.is_err();
        saved?;
        self.found = record;
        self.is_saved = true;
        Ok(())
    }

    /// Says that the session's file is in use. Goes with what is written to the metadata, and so lives until that is
    /// committed, also where nobody waits for it any more.
    fn in_use(&self) -> Option<Arc<InUse>> {
        match &self.sink {
            Sink::File(file) => Some(file.in_use()),
            Sink::Memory(_) | Sink::Closed(_) => None,
        }
    }

    /// Ends the request's hold; the session, with all that was received, can be taken up by another request,
    /// also after a restart. Durable when this returns. Returns the session's size.
    pub async fn suspend(mut self) -> Result<u64, EngineError> {
        if self.is_one_shot {
            return self.cancel().await.map(|()| 0);
        }
        if self.size == self.found.size {
            self.release();
            return Ok(self.size);
        }
        if let Sink::File(file) = &mut self.sink
            && let Err(error) = file.cut().await
        {
            self.revert().await?;
            return Err(error);
        }
        match self.save().await {
            Ok(()) => {
                self.release();
                Ok(self.size)
            }
            Err(error) => {
                self.revert().await?;
                Err(error)
            }
        }
    }

    /// Ends the request's hold; the session is as the request found it. Where it is not known whether what the file holds
    /// has become durable, it stays: what is behind the session's end is written again by whoever goes on.
    pub async fn revert(mut self) -> Result<(), EngineError> {
        if let Sink::File(file) = &mut self.sink
            && !self.is_in_doubt
        {
            let is_new = !matches!(self.found.content, UploadContent::File(_));
            if is_new {
                // What fails here was received by this request, which is being forgotten.
                let _ = file.drain().await;
                let file = file.id();
                self.forget_file(file);
            } else {
                file.cut_to(self.found.size).await?;
            }
        }
        self.release();
        Ok(())
    }

    fn release(&mut self) {
        if self.is_saved || self.is_one_shot {
            self.core.sessions().remove(self.id);
        } else {
            self.core.sessions().release_fresh(self.id, self.found.clone());
        }
        self.is_released = true;
    }

    /// Removes the session's file. It is closed first, so that what frees its space is the removal, which nobody waits
    /// for, and not the closing of it.
    fn forget_file(&mut self, file: FileId) {
        self.sink = Sink::Memory(Vec::new());
        self.core.remove_later(file, layout::upload(file));
    }

    /// Ends the session: the content, if it has the digest, becomes a blob of the repository.
    ///
    /// The steps, and why in this order: the file gets a second name that says what it is; content and name become
    /// durable, both at once; then one transaction makes the blob visible, links it, and removes the session; then the
    /// first name goes. Dying in between leaves the session as it was, and a name that nothing refers to, which
    /// collection removes.
    pub async fn finish(mut self, digest: Digest) -> Result<Committed, FinishError> {
        match self.try_finish(digest).await {
            Ok(committed) => {
                self.core.sessions().remove(self.id);
                self.is_released = true;
                Ok(committed)
            }
            Err(error @ FinishError::Digest { .. }) => {
                self.cancel().await?;
                Err(error)
            }
            Err(error @ FinishError::Held(_)) => {
                self.suspend().await?;
                Err(error)
            }
            Err(error) => {
                self.revert().await?;
                Err(error)
            }
        }
    }

    async fn try_finish(&mut self, digest: Digest) -> Result<Committed, FinishError> {
        let actual = self.digest(digest.algorithm()).await?;
        if actual != digest {
            return Err(FinishError::Digest { expected: digest, actual });
        }
        if let Sink::Closed(_) = self.sink {
            self.open_file(Some(0)).await?;
        }
        self.core.check_quota(&self.found.repository, Some(&digest), self.size)?;
        self.core.check_write(WriteStage::Running).map_err(FinishError::Held)?;
        let (content, file) = match &mut self.sink {
            Sink::Memory(content) => (NewContent::Inline(Bytes::from(std::mem::take(content))), None),
            Sink::Closed(_) => unreachable!("opened above"),
            Sink::File(file) => {
                name_file(&self.core, file, &digest).await?;
                // That may have taken long.
                if let Err(hold) = self.core.check_write(WriteStage::Running) {
                    take_name(&self.core, file.id(), &digest).await;
                    return Err(FinishError::Held(hold));
                }
                (NewContent::File(file.id()), Some(file.id()))
            }
        };
        let (repository, size, id) = (self.found.repository.clone(), self.size, self.id);
        let (now, in_use, quota) = (self.core.now(), self.in_use(), self.core.quota(&repository));
        // Where this fails, it may have become durable all the same (`MetadataError`), so name and content stay.
        let committed = self
            .core
            .metadata()
            .write(move |transaction| {
                if let Err(refusal) = transaction.check_quota(&repository, &digest, size, quota)? {
                    return Ok((Err(refusal), in_use));
                }
                let commit = transaction.commit_blob(&repository, &digest, size, content, Some(id), now)?;
                Ok((Ok(commit), in_use))
            })
            .await;
        self.is_in_doubt = committed.is_err();
        let (commit, _in_use) = committed.map_err(EngineError::from)?;
        let commit = match commit {
            Ok(commit) => commit,
            Err(refusal) => {
                if let Some(file) = file {
                    take_name(&self.core, file, &digest).await;
                }
                return Err(EngineError::from(refusal).into());
            }
        };
        let was_known = commit == BlobCommit::AlreadyStored;
        if let Some(file) = file {
            // Where healing fails, it may have become durable all the same, too.
            self.is_in_doubt = true;
            let is_used = !was_known || self.core.heal_blob(&digest, size, file).await?;
            self.forget_file(file);
            if !is_used {
                self.core.remove_later(file, layout::blob(&digest, file));
            }
        }
        Ok(Committed { digest, size, was_known })
    }

    /// The content's digest by `algorithm`.
    async fn digest(&mut self, algorithm: Algorithm) -> Result<Digest, EngineError> {
        if let Some(hasher) = self.hasher.as_ref().filter(|hasher| hasher.algorithm() == algorithm) {
            return Ok(hasher.clone().finish());
        }
        let mut hasher = ContentHasher::new(algorithm);
        if let Sink::Closed(_) = self.sink {
            self.open_file(Some(0)).await?;
        }
        let buffers = self.core.buffers().clone();
        match &mut self.sink {
            Sink::Memory(content) => hasher.update(content),
            Sink::File(file) => file.read(&buffers, |content| hasher.update(content)).await?,
            Sink::Closed(_) => unreachable!("opened above"),
        }
        Ok(hasher.finish())
    }

    /// Ends the session and forgets what it held.
    pub async fn cancel(mut self) -> Result<(), EngineError> {
        let file = match &mut self.sink {
            Sink::Memory(_) => None,
            Sink::Closed(id) => Some(*id),
            Sink::File(file) => {
                // Its content is unwanted, whether it was written or not.
                let _ = file.drain().await;
                Some(file.id())
            }
        };
        if !self.is_one_shot {
            // Also where it was not saved when it was taken: that may have happened in the meantime.
            let id = self.id;
            self.core.metadata().write(move |transaction| transaction.remove_upload(id)).await?;
        }
        if let Some(file) = file {
            self.forget_file(file);
        }
        self.core.sessions().remove(self.id);
        self.is_released = true;
        Ok(())
    }
}

/// Gives a file that is complete its second name, and makes both durable.
async fn name_file(core: &Core, file: &mut FileSink, digest: &Digest) -> Result<(), EngineError> {
    file.cut().await?;
    let name = layout::blob(digest, file.id());
    let linked = core.disk().link(layout::upload(file.id()), name).await;
    linked.map_err(EngineError::disk("giving a blob's file its name"))?;
    // The directory's flush is started with the file's: on most filesystems both are one.
    let directory = core.disk().sync_directory(layout::blob_directory(digest));
    let flushed = file.sync().await;
    let named = directory.await.map_err(EngineError::disk("flushing a directory of blobs"));
    if flushed.is_err() || named.is_err() {
        take_name(core, file.id(), digest).await;
    }
    flushed.and(named)
}

/// Takes back the second name of a file. Waited for: whoever goes on with the session gives it the same name again.
async fn take_name(core: &Core, file: FileId, digest: &Digest) {
    let name = layout::blob(digest, file);
    // Where a file has one name at a time, it gets its first one back; elsewhere it has that. A name that cannot be
    // removed is one that nothing refers to.
    let _ = core.disk().link(name.clone(), layout::upload(file)).await;
    let _ = core.disk().remove(name).await;
}

impl Drop for UploadWriter {
    /// A request that ended without a word (it panicked, or the thread is being stopped) leaves the session as it
    /// found it; where a write is still on its way, nobody may write to the same file before the next start.
    fn drop(&mut self) {
        if self.is_released {
            return;
        }
        let is_idle = match &self.sink {
            Sink::File(file) => file.is_idle(),
            _ => true,
        };
        if self.is_one_shot {
            // Its file, if there is one, is removed by collection, or at the next start.
            self.core.sessions().remove(self.id);
        } else if !is_idle {
            tracing::warn!(upload = %self.id, "an upload was dropped while it was written; it can be resumed after a restart");
        } else if self.is_saved {
            self.core.sessions().remove(self.id);
        } else {
            self.core.sessions().release_fresh(self.id, self.found.clone());
        }
    }
}

/// The hash state of a session that has seen nothing.
pub(crate) fn fresh_hash(algorithm: Algorithm) -> HashState {
    ContentHasher::new(algorithm).save()
}
