//! The engine as one data-plane thread uses it.

use std::rc::Rc;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::blob::{Blob, Content};
use crate::buffer::{BufferPool, SIZES};
use crate::collection::LeaseKey;
use crate::disk::Disk;
use crate::engine::{Engine, Shared};
use crate::error::EngineError;
use crate::layout;
use crate::metadata::{
    BlobLocation, BlobRecord, FileId, ManifestRecord, Metadata, MetadataError, RepositoryId, Snapshot,
    Timestamp, UploadContent, UploadId, UploadRecord,
};
use crate::oci::{Algorithm, Digest, RepositoryName};
use crate::runtime;
use crate::uploads::{FilesInUse, ResumeError, Sessions, UploadWriter, fresh_hash};

/// A thread's own disk and buffers, and what all threads share. Cheap to clone within the thread.
#[derive(Clone)]
pub struct Core(Rc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    disk: Rc<dyn Disk>,
    buffers: BufferPool,
}

impl Core {
    pub(crate) fn new(shared: Arc<Shared>, disk: Rc<dyn Disk>, buffers: BufferPool) -> Self {
        Self(Rc::new(Inner { shared, disk, buffers }))
    }

    /// The metadata.
    pub fn metadata(&self) -> &Metadata {
        &self.0.shared.metadata
    }

    /// The thread's buffers.
    pub fn buffers(&self) -> &BufferPool {
        &self.0.buffers
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        self.0.shared.environment.clock.now()
    }

    /// What a thread that has had nothing to do gives back: memory.
    pub fn tidy(&self) {
        self.0.buffers.trim();
    }

    /// The engine of all threads.
    pub fn engine(&self) -> Engine {
        Engine::of(self.0.shared.clone())
    }

    /// Opens a blob of a repository, and takes a lease of it ([`Core::lease`]); `None` where the repository has no
    /// link to it.
    pub async fn open_blob(
        &self,
        repository: RepositoryId,
        digest: &Digest,
    ) -> Result<Option<Blob>, EngineError> {
        let is_there = |snapshot: &Snapshot| Ok(snapshot.blob(repository, digest)?.is_some());
        if !self.lease(repository, digest, is_there).await? {
            return Ok(None);
        }
        loop {
            let snapshot = self.metadata().snapshot()?;
            let Some(record) = snapshot.blob(repository, digest)? else { return Ok(None) };
            match self.open(&snapshot, digest, record).await {
                // Deleted, or healed by another file, since the snapshot was taken.
                Err(EngineError::Missing(_)) if self.has_changed(digest, record)? => {}
                // Who is told so may push it again, which heals it.
                Err(error @ EngineError::Missing(_)) => {
                    tracing::error!(%error, "the volume has lost a blob");
                    return Ok(None);
                }
                opened => return opened.map(Some),
            }
        }
    }

    /// Takes a lease of a blob or a manifest: for as long as [`Engine::set_lease`] says, collection leaves it alone in
    /// this repository, with all that it refers to. To be called before a client is told that something is there, by
    /// HEAD or GET, by tag or digest, and before the snapshot is taken that says so: the client may then leave out
    /// pushing it, and name it in a manifest later.
    ///
    /// `false`, and no lease, where it is not there: leases of what is asked for in vain would have no bound.
    ///
    /// Costs a look-up in a table in memory, under a lock that is rarely contended, and `is_there` where the lease is new.
    /// Only where a batch of deletions that is being committed has the same content in it, this waits for the end of that
    /// batch, some milliseconds.
    async fn lease(
        &self,
        repository: RepositoryId,
        digest: &Digest,
        is_there: impl FnOnce(&Snapshot) -> Result<bool, MetadataError>,
    ) -> Result<bool, EngineError> {
        let (leases, key) = (&self.0.shared.leases, LeaseKey::new(repository, digest));
        if !leases.is_fresh(key) && !is_there(&self.metadata().snapshot()?)? {
            return Ok(false);
        }
        leases.lease(key).await;
        Ok(true)
    }

    /// A manifest of a repository, and the snapshot that has it, with a lease of it ([`Core::lease`]); `None` where
    /// it is not there: one that a tag was found to point at a moment before may have gone since.
    pub async fn manifest(
        &self,
        repository: RepositoryId,
        digest: &Digest,
    ) -> Result<Option<(Snapshot, ManifestRecord)>, EngineError> {
        let is_there = |snapshot: &Snapshot| Ok(snapshot.manifest(repository, digest)?.is_some());
        if !self.lease(repository, digest, is_there).await? {
            return Ok(None);
        }
        let snapshot = self.metadata().snapshot()?;
        let manifest = snapshot.manifest(repository, digest)?;
        // One that was found damaged is not there, for those who would push it again.
        let is_whole = manifest.is_some() && snapshot.is_whole(digest)?;
        Ok(manifest.filter(|_| is_whole).map(|manifest| (snapshot, manifest)))
    }

    /// Whether the content that `record` was about is stored elsewhere now, or not at all.
    fn has_changed(&self, digest: &Digest, record: BlobRecord) -> Result<bool, EngineError> {
        Ok(self.metadata().snapshot()?.stored_blob(digest)? != Some(record))
    }

    /// Opens the content of a manifest, which the caller knows to be in `snapshot`.
    pub async fn open_manifest(&self, snapshot: &Snapshot, digest: &Digest) -> Result<Blob, EngineError> {
        let mut snapshot = snapshot.clone();
        loop {
            let record = snapshot.stored_blob(digest)?.ok_or(EngineError::Missing(*digest))?;
            match self.open(&snapshot, digest, record).await {
                Err(EngineError::Missing(_)) if self.has_changed(digest, record)? => {
                    snapshot = self.metadata().snapshot()?;
                }
                opened => return opened,
            }
        }
    }

    /// Reads the content of a manifest, which the caller knows to be in `snapshot`, into memory.
    pub async fn read_manifest(&self, snapshot: &Snapshot, digest: &Digest) -> Result<Bytes, EngineError> {
        self.read(self.open_manifest(snapshot, digest).await?).await
    }

    /// Reads a blob into memory, which the caller knows to have room for it.
    pub async fn read(&self, blob: Blob) -> Result<Bytes, EngineError> {
        let file = match blob.content {
            Content::Inline(bytes) => return Ok(bytes),
            Content::File(file) => file,
        };
        let mut content = BytesMut::new();
        loop {
            let (count, buffer) =
                file.read_at(self.buffers().take(SIZES[1]), usize::MAX, content.len() as u64).await;
            if count.map_err(EngineError::disk("reading a blob"))? == 0 {
                return Ok(content.freeze());
            }
            content.extend_from_slice(&buffer);
        }
    }

    async fn open(
        &self,
        snapshot: &Snapshot,
        digest: &Digest,
        record: BlobRecord,
    ) -> Result<Blob, EngineError> {
        let content = match record.location {
            BlobLocation::Inline => {
                let bytes = snapshot.content(digest, record.size)?;
                Content::Inline(bytes.ok_or(EngineError::Missing(*digest))?)
            }
            BlobLocation::File(file) => {
                let opened = self.0.disk.open(layout::blob(digest, file)).await;
                Content::File(opened.map_err(|error| match error.kind() {
                    std::io::ErrorKind::NotFound => EngineError::Missing(*digest),
                    _ => EngineError::disk("opening a blob")(error),
                })?)
            }
        };
        Ok(Blob { digest: *digest, size: record.size, content })
    }

    /// Whether the volume has room for `expected` more bytes beside what it must keep free.
    pub fn has_room(&self, expected: u64) -> Result<bool, EngineError> {
        Ok(self.free_bytes()? >= expected.saturating_add(self.reserve_bytes()))
    }

    /// Bytes that the volume has room for.
    pub fn free_bytes(&self) -> Result<u64, EngineError> {
        self.0.disk.free_bytes().map_err(EngineError::disk("asking for the volume's free space"))
    }

    /// Bytes of content that the namespace of a repository may have; `None`: as many as there is room for.
    pub fn quota(&self, repository: &RepositoryName) -> Option<u64> {
        self.0.shared.options.quotas.of(repository.namespace())
    }

    /// Whether the namespace of a repository has room for `size` bytes more, or has the content already where `digest` says
    /// which it is. What may be pushed at the same time is not looked at: that is decided when it is committed.
    pub fn check_quota(
        &self,
        repository: &RepositoryName,
        digest: Option<&Digest>,
        size: u64,
    ) -> Result<(), EngineError> {
        let Some(quota) = self.quota(repository) else { return Ok(()) };
        Ok(self.metadata().snapshot()?.check_quota(repository, digest, size, quota)??)
    }

    /// Begins an upload session whose content will be hashed by `algorithm`.
    pub fn start_upload(&self, repository: &RepositoryName, algorithm: Algorithm) -> UploadId {
        let id = self.new_upload_id();
        self.sessions().add_fresh(id, self.new_upload(repository, algorithm));
        id
    }

    /// Begins an upload that is done by one request: nobody else can take it up, and it ends with the request.
    pub fn upload_at_once(&self, repository: &RepositoryName, algorithm: Algorithm) -> UploadWriter {
        let id = self.new_upload_id();
        let taken = self.sessions().add_taken(id, self.new_upload(repository, algorithm));
        UploadWriter::new(self.clone(), id, taken, true)
    }

    fn new_upload_id(&self) -> UploadId {
        UploadId(self.0.shared.environment.entropy.random())
    }

    pub(crate) fn new_upload(&self, repository: &RepositoryName, algorithm: Algorithm) -> UploadRecord {
        let now = self.now();
        UploadRecord {
            repository: repository.clone(),
            started_at: now,
            touched_at: now,
            size: 0,
            hash: fresh_hash(algorithm),
            content: UploadContent::Inline(Bytes::new()),
        }
    }

    /// Whether `file`, which has the content of `digest`, has become the blob's file because the one that the metadata
    /// names is missing or not whole: a push heals what the volume has lost.
    pub(crate) async fn heal_blob(
        &self,
        digest: &Digest,
        size: u64,
        file: FileId,
    ) -> Result<bool, EngineError> {
        let Some(record) = self.metadata().snapshot()?.stored_blob(digest)? else { return Ok(false) };
        let BlobLocation::File(old) = record.location else { return Ok(false) };
        let name = layout::blob(digest, old);
        if let Ok(opened) = self.0.disk.open(name.clone()).await
            && opened.size().is_ok_and(|found| found == size)
        {
            return Ok(false);
        }
        let digest_of = *digest;
        let healed =
            self.metadata().write(move |transaction| transaction.replace_file(&digest_of, old, file)).await?;
        if healed {
            tracing::warn!(%digest, "the file of a blob was missing or not whole; a push has healed it");
            self.remove_later(old, name);
        }
        Ok(healed)
    }

    /// Takes an upload session, to write to it.
    pub fn resume_upload(
        &self,
        repository: &RepositoryName,
        id: UploadId,
    ) -> Result<UploadWriter, ResumeError> {
        let taken = self.sessions().take(self.metadata(), repository, id)?;
        Ok(UploadWriter::new(self.clone(), id, taken, false))
    }

    /// The size of an upload session in bytes; an error also where a request is writing to it now.
    pub fn upload_size(&self, repository: &RepositoryName, id: UploadId) -> Result<u64, ResumeError> {
        self.sessions().look(self.metadata(), repository, id).map(|record| record.size)
    }

    pub(crate) fn sessions(&self) -> &Sessions {
        &self.0.shared.sessions
    }

    pub(crate) fn disk(&self) -> &Rc<dyn Disk> {
        &self.0.disk
    }

    pub(crate) fn new_file_id(&self) -> FileId {
        FileId(self.0.shared.environment.entropy.random())
    }

    pub(crate) fn files_in_use(&self) -> &FilesInUse {
        &self.0.shared.files_in_use
    }

    pub(crate) fn reserve_bytes(&self) -> u64 {
        self.0.shared.options.reserve_bytes
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.0.shared
    }

    /// Removes a name of a file that nothing refers to any more. One that cannot be removed is left to the integrity
    /// check, which sees that this one is not.
    pub(crate) fn remove_later(&self, file: FileId, name: String) {
        let in_use = self.files_in_use().try_enter(file);
        let removed = self.0.disk.remove(name.clone());
        runtime::spawn(async move {
            let _in_use = in_use;
            if let Err(error) = removed.await
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(file = name, %error, "cannot remove a file that nothing refers to");
            }
        });
    }
}
