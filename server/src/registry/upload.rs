//! Pushing blobs (OCI distribution specification, "Pushing blobs").

use std::time::Duration;

use engine::metadata::UploadId;
use engine::oci::{Algorithm, Digest, RepositoryName};
use engine::{ResumeError, UploadWriter, WriteStage, runtime};
use http::header::{CONTENT_RANGE, ETAG, LOCATION, RANGE};
use http::{HeaderName, StatusCode};

use super::conditional::entity_tag;
use super::error::{Code, Refusal};
use super::{CONTENT_DIGEST, Call, query, range, require_namespace};
use crate::access::Action;
use crate::http::{BodyError, Response};

const UPLOAD_ID: HeaderName = HeaderName::from_static("docker-upload-uuid");

/// How long the status of a session waits for the request that is writing to it: one whose client is gone ends as
/// soon as the server sees it, and until then the offset to go on from is not known.
const STATUS_WAIT: Duration = Duration::from_secs(1);

/// Repositories that are looked at for one that a blob can be mounted from, where the client names none.
const MOUNT_SOURCES_MAX: usize = 1000;

/// How a body came to its end.
enum Received {
    /// As promised.
    Whole,
    /// The client is gone, or too slow; what came is kept.
    Part,
    /// The store failed.
    Failed(Refusal),
    /// The registry became read-only; what came is kept.
    Held(Refusal),
}

impl Call<'_, '_> {
    /// POST of a session (end-4a), of a whole blob (end-4b), or of a mount (end-11).
    pub(super) async fn start_upload(mut self, name: RepositoryName) -> Result<Response, Refusal> {
        self.require(&name, Action::Push)?;
        self.require_storable(&name)?;
        let query = std::mem::take(&mut self.request.query);
        let algorithm = match query::parameter(&query, "digest-algorithm") {
            Some(algorithm) => Some(algorithm.parse::<Algorithm>()?),
            None => None,
        };
        if let Some(digest) = query::parameter(&query, "mount") {
            let digest: Digest = digest.parse()?;
            if let Some(mounted) = self.mount(&name, digest, query::parameter(&query, "from")).await? {
                return Ok(mounted);
            }
        } else if let Some(digest) = query::parameter(&query, "digest") {
            let digest: Digest = digest.parse()?;
            let upload = self.core.upload_at_once(&name, digest.algorithm());
            return self.receive_and_finish(upload, digest).await;
        }
        self.require_room(0)?;
        self.discard_body().await?;
        let id = self.core.start_upload(&name, algorithm.unwrap_or(Algorithm::Sha256));
        Ok(session(StatusCode::ACCEPTED, &name, id, 0))
    }

    /// A request that begins a session brings nothing; a little that some clients send all the same is not looked at.
    async fn discard_body(&mut self) -> Result<(), Refusal> {
        if self.request.body.remaining() != Some(0) {
            let (ended, _) = self.request.body.fill(self.core.buffers().take(1)).await;
            ended?;
        }
        Ok(())
    }

    /// Links a blob that the caller may read elsewhere; `None` where there is none, or it may not be told.
    async fn mount(
        &self,
        name: &RepositoryName,
        digest: Digest,
        from: Option<String>,
    ) -> Result<Option<Response>, Refusal> {
        let sources = match from {
            // A name that cannot be is a repository that does not exist.
            Some(from) => from.parse::<RepositoryName>().ok().into_iter().collect(),
            None => self.repositories_with(&digest)?,
        };
        let mut readable = sources
            .into_iter()
            .filter(|source| self.shared.policy.allows(&self.identity, source, Action::Pull));
        let Some(source) = readable.next() else { return Ok(None) };
        let snapshot = self.core.metadata().snapshot()?;
        let Some(from) = snapshot.repository(&source)? else { return Ok(None) };
        // Opened, as what the volume has lost cannot be used by anybody.
        let Some(blob) = self.core.open_blob(from, &digest).await? else { return Ok(None) };
        let size = blob.size;
        let (target, now, authority) = (name.clone(), self.core.now(), self.shared.authority.clone());
        let quota = self.core.quota(name);
        let is_mounted = self
            .core
            .metadata()
            .write(move |transaction| {
                if let Err(refusal) = require_namespace(&authority, &target, Action::Push) {
                    return Ok(Err(refusal));
                }
                if let Err(exceeded) = transaction.check_quota(&target, &digest, size, quota)? {
                    return Ok(Err(Refusal::from(&exceeded)));
                }
                transaction.mount_blob(&target, &digest, &source, now).map(Ok)
            })
            .await?;
        if !is_mounted? {
            return Ok(None);
        }
        self.audit("mount blob", name, None, Some(&digest));
        Ok(Some(created_blob(name, &digest)))
    }

    /// Repositories that have the blob, until one that the caller may read.
    fn repositories_with(&self, digest: &Digest) -> Result<Vec<RepositoryName>, Refusal> {
        let snapshot = self.core.metadata().snapshot()?;
        for repository in snapshot.blob_repositories(digest)?.take(MOUNT_SOURCES_MAX) {
            if let Some((name, _)) = snapshot.repository_name(repository?)?
                && self.shared.policy.allows(&self.identity, &name, Action::Pull)
            {
                return Ok(vec![name]);
            }
        }
        Ok(Vec::new())
    }

    /// GET of a session (end-13).
    pub(super) async fn upload_status(
        &self,
        name: &RepositoryName,
        id: Option<UploadId>,
    ) -> Result<Response, Refusal> {
        self.require(name, Action::Push)?;
        let id = id.ok_or_else(unknown_session)?;
        let mut size = self.core.upload_size(name, id);
        if let Err(ResumeError::Busy(busy)) = &size {
            // The wait's end is what counts, not how it came.
            let _ = runtime::timeout(STATUS_WAIT, busy.released()).await;
            size = self.core.upload_size(name, id);
        }
        let size = match size {
            Err(ResumeError::Busy(busy)) => busy.size(),
            other => other.map_err(resume_refusal)?,
        };
        Ok(session(StatusCode::NO_CONTENT, name, id, size))
    }

    /// DELETE of a session (end-14).
    pub(super) async fn cancel_upload(
        &self,
        name: &RepositoryName,
        id: Option<UploadId>,
    ) -> Result<Response, Refusal> {
        self.require(name, Action::Push)?;
        self.take(name, id.ok_or_else(unknown_session)?)?.cancel().await?;
        Ok(Response::new(StatusCode::NO_CONTENT))
    }

    /// PATCH of a session (end-5).
    pub(super) async fn append(
        mut self,
        name: &RepositoryName,
        id: Option<UploadId>,
    ) -> Result<Response, Refusal> {
        self.require(name, Action::Push)?;
        self.require_storable(name)?;
        let id = id.ok_or_else(unknown_session)?;
        let upload = self.take(name, id)?;
        let upload = self.receive_whole(upload, None).await?;
        let size = upload.suspend().await?;
        Ok(session(StatusCode::ACCEPTED, name, id, size))
    }

    /// PUT of a session: its end, with the last chunk or without (end-6).
    pub(super) async fn finish_upload(
        self,
        name: &RepositoryName,
        id: Option<UploadId>,
    ) -> Result<Response, Refusal> {
        self.require(name, Action::Push)?;
        self.require_storable(name)?;
        let upload = self.take(name, id.ok_or_else(unknown_session)?)?;
        let digest = query::parameter(&self.request.query, "digest");
        let Some(digest) = digest else {
            upload.suspend().await?;
            return Err(Refusal::bad_request(
                Code::DigestInvalid,
                "the end of an upload needs ?digest=<digest of the whole blob>",
            ));
        };
        let digest: Digest = match digest.parse() {
            Ok(digest) => digest,
            Err(error) => {
                upload.suspend().await?;
                return Err(Refusal::from(error));
            }
        };
        self.receive_and_finish(upload, digest).await
    }

    async fn receive_and_finish(
        mut self,
        mut upload: UploadWriter,
        digest: Digest,
    ) -> Result<Response, Refusal> {
        upload.expect_algorithm(digest.algorithm());
        let upload = self.receive_whole(upload, Some(&digest)).await?;
        let name = upload.repository().clone();
        // While the body came, the namespace may have begun to go.
        if let Err(refusal) = self.require_storable(&name) {
            match refusal.is_failure() {
                true => drop(upload.suspend().await?),
                false => upload.cancel().await?,
            }
            return Err(refusal);
        }
        let committed = upload.finish(digest).await?;
        self.shared.metrics.pushed(committed.size);
        self.audit("push blob", &name, None, Some(&digest));
        Ok(created_blob(&name, &digest))
    }

    /// Receives the request's body into the session, which will end with `digest` where that is known. Where not all of it
    /// comes, the session is given back with what did.
    async fn receive_whole(
        &mut self,
        mut upload: UploadWriter,
        digest: Option<&Digest>,
    ) -> Result<UploadWriter, Refusal> {
        let received = match self.expected_length(&upload, digest) {
            Ok(expected) => self.receive(&mut upload, expected).await,
            Err(refusal) => Received::Failed(refusal),
        };
        match received {
            Received::Whole => Ok(upload),
            Received::Part => {
                let size = upload.suspend().await?;
                let message =
                    format!("the body ended before its promised length; the upload has {size} bytes");
                Err(Refusal::bad_request(Code::SizeInvalid, message))
            }
            Received::Failed(refusal) => {
                upload.revert().await?;
                Err(refusal)
            }
            Received::Held(refusal) => {
                upload.suspend().await?;
                Err(refusal)
            }
        }
    }

    /// Takes a session for this request.
    fn take(&self, name: &RepositoryName, id: UploadId) -> Result<UploadWriter, Refusal> {
        self.core.resume_upload(name, id).map_err(resume_refusal)
    }

    /// How many bytes the request brings, where it says so; an error where it contradicts itself or the session.
    fn expected_length(
        &self,
        upload: &UploadWriter,
        digest: Option<&Digest>,
    ) -> Result<Option<u64>, Refusal> {
        let length = self.request.body.remaining();
        let Some(value) = self.request.headers.get(CONTENT_RANGE) else {
            self.require_room_for(upload, digest, length.unwrap_or(0))?;
            return Ok(length);
        };
        let (first, len) = range::chunk(value).ok_or_else(|| {
            let message = "the chunk's Content-Range is malformed; it is <first>-<last>, both counted from 0";
            Refusal::bad_request(Code::BlobUploadInvalid, message)
        })?;
        if first != upload.size() {
            let message =
                format!("the chunk begins at byte {first}, and the upload has {} bytes", upload.size());
            return Err(Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, Code::BlobUploadInvalid, message)
                .with(LOCATION, location(upload.repository(), upload.id()))
                .with(RANGE, range_of(upload.size())));
        }
        if length.is_some_and(|length| length != len) {
            let message =
                format!("Content-Range says {len} bytes, and Content-Length says {}", length.unwrap_or(0));
            return Err(Refusal::bad_request(Code::SizeInvalid, message));
        }
        self.require_room_for(upload, digest, len)?;
        Ok(Some(len))
    }

    /// An error where the volume or the namespace has no room for `more` bytes of an upload.
    fn require_room_for(
        &self,
        upload: &UploadWriter,
        digest: Option<&Digest>,
        more: u64,
    ) -> Result<(), Refusal> {
        self.require_room(more)?;
        let size = upload.size().saturating_add(more);
        Ok(self.core.check_quota(upload.repository(), digest, size)?)
    }

    /// Receives the body into the session: from the socket into a buffer, hashed there, and from there to the disk.
    async fn receive(&mut self, upload: &mut UploadWriter, expected: Option<u64>) -> Received {
        let before = upload.size();
        let left =
            |upload: &UploadWriter| expected.map(|expected| expected.saturating_sub(upload.size() - before));
        let _running = self.shared.metrics.upload();
        if self.request.body.remaining() == Some(0) {
            return Received::Whole;
        }
        loop {
            let buffer = match upload.buffer(left(upload)).await {
                Ok(buffer) => buffer,
                Err(error) => return Received::Failed(error.into()),
            };
            let begins = buffer.len() as u64;
            let (result, buffer) = self.request.body.fill(buffer).await;
            let received = buffer.len() as u64 - begins;
            let remaining = left(upload).map(|left| left.checked_sub(received));
            if remaining == Some(None) {
                let message = "the chunk is longer than its Content-Range says";
                return Received::Failed(Refusal::bad_request(Code::SizeInvalid, message));
            }
            let remaining = remaining.flatten();
            // After an error nothing follows: what was received need not be the start of something larger.
            let follows = if result.is_ok() { remaining } else { Some(0) };
            if let Err(error) = upload.write(buffer, follows).await {
                return Received::Failed(error.into());
            }
            if let Err(hold) = self.core.check_write(WriteStage::Running) {
                return Received::Held(hold.into());
            }
            match result {
                Ok(false) => {}
                Ok(true) if remaining.is_none_or(|remaining| remaining == 0) => return Received::Whole,
                Ok(true) => {
                    let message = "the chunk is shorter than its Content-Range says";
                    return Received::Failed(Refusal::bad_request(Code::SizeInvalid, message));
                }
                Err(BodyError::Truncated) => return Received::Part,
                Err(error @ BodyError::Malformed) => return Received::Failed(error.into()),
            }
        }
    }
}

fn unknown_session() -> Refusal {
    Refusal::not_found(
        Code::BlobUploadUnknown,
        "there is no such upload session: it was finished, cancelled, or has expired; begin a new one",
    )
}

fn resume_refusal(error: ResumeError) -> Refusal {
    match error {
        ResumeError::Unknown => unknown_session(),
        ResumeError::Busy(_) => Refusal::new(
            StatusCode::CONFLICT,
            Code::BlobUploadInvalid,
            "another request is writing to this upload; ask for its status when that has ended",
        ),
        ResumeError::Engine(error) => error.into(),
    }
}

fn location(name: &RepositoryName, id: UploadId) -> String {
    format!("/v2/{name}/blobs/uploads/{id}")
}

/// The bytes that a session has. An empty one has the same range as one of a single byte: so clients expect it.
fn range_of(size: u64) -> String {
    format!("0-{}", size.saturating_sub(1))
}

/// The answer to requests that leave a session open.
fn session(status: StatusCode, name: &RepositoryName, id: UploadId, size: u64) -> Response {
    Response::new(status)
        .with(LOCATION, location(name, id))
        .with(RANGE, range_of(size))
        .with(UPLOAD_ID, id.to_string())
}

fn created_blob(name: &RepositoryName, digest: &Digest) -> Response {
    Response::new(StatusCode::CREATED)
        .with(LOCATION, format!("/v2/{name}/blobs/{digest}"))
        .with(CONTENT_DIGEST, digest.to_string())
        .with(ETAG, entity_tag(digest))
}
