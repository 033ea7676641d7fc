//! Pulling (OCI distribution specification, "Pulling blobs", "Pulling manifests").

use engine::metadata::{ManifestRecord, Snapshot};
use engine::oci::{Digest, RepositoryName};
use http::StatusCode;
use http::header::{ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, RANGE};
use serde_json::json;

use super::conditional::{entity_tag, is_known, range_counts};
use super::error::{Code, Refusal};
use super::range::{Wanted, wanted};
use super::{CONTENT_DIGEST, Call, Reference};
use crate::access::Action;
use crate::http::{Response, ResponseBody};

/// Content under its digest never changes: caches may keep it for a year, which is as long as they may be told.
const IMMUTABLE: &str = "max-age=31536000, immutable";

impl Call<'_, '_> {
    /// GET and HEAD of a blob (end-2, end-10).
    pub(super) async fn pull_blob(
        &self,
        name: &RepositoryName,
        digest: &Digest,
    ) -> Result<Response, Refusal> {
        self.require(name, Action::Pull)?;
        let (_, repository) = self.repository(name, Code::NameUnknown)?;
        let unknown = || {
            let message = format!("{name} has no blob {digest}");
            Refusal::not_found(Code::BlobUnknown, message).about(json!({"digest": digest}))
        };
        let headers = &self.request.headers;
        let response = |status| {
            Response::new(status)
                .with(CONTENT_DIGEST, digest.to_string())
                .with(ETAG, entity_tag(digest))
                .with(CACHE_CONTROL, IMMUTABLE)
        };
        // Opened for HEAD, too: a client that is told that a blob is there does not push it, which would heal it.
        let blob = self.core.open_blob(repository, digest).await?.ok_or_else(unknown)?;
        if is_known(headers, digest) {
            return Ok(response(StatusCode::NOT_MODIFIED));
        }
        if self.is_head() {
            return Ok(response(StatusCode::OK)
                .with(ACCEPT_RANGES, "bytes")
                .with(CONTENT_TYPE, "application/octet-stream")
                .with(CONTENT_LENGTH, blob.size));
        }
        let range = headers.get(RANGE).filter(|_| range_counts(headers, digest));
        let (mut response, start, len) = match wanted(range, blob.size) {
            Wanted::Whole => (response(StatusCode::OK), 0, blob.size),
            Wanted::Part { start, len } => {
                let range = format!("bytes {start}-{}/{}", start + len - 1, blob.size);
                (response(StatusCode::PARTIAL_CONTENT).with(CONTENT_RANGE, range), start, len)
            }
            Wanted::Unsatisfiable => {
                let message = format!("the blob has {} bytes; the range begins behind them", blob.size);
                return Err(Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, Code::SizeInvalid, message)
                    .with(CONTENT_RANGE, format!("bytes */{}", blob.size)));
            }
        };
        response = response.with(ACCEPT_RANGES, "bytes").with(CONTENT_TYPE, "application/octet-stream");
        response.body = ResponseBody::Content { content: blob.content, start, len };
        self.shared.metrics.pulled(len);
        Ok(response)
    }

    /// GET and HEAD of a manifest (end-3).
    pub(super) async fn pull_manifest(
        &self,
        name: &RepositoryName,
        reference: &Reference,
    ) -> Result<Response, Refusal> {
        self.require(name, Action::Pull)?;
        let (digest, snapshot, manifest) = self.find_manifest(name, reference).await?;
        let mut response = Response::new(StatusCode::OK)
            .with(CONTENT_DIGEST, digest.to_string())
            .with(ETAG, entity_tag(&digest))
            .with(
                CACHE_CONTROL,
                match reference {
                    Reference::Digest(_) => IMMUTABLE,
                    Reference::Tag(_) => "no-cache",
                },
            );
        if is_known(&self.request.headers, &digest) {
            response.status = StatusCode::NOT_MODIFIED;
            return Ok(response);
        }
        response = response.with(CONTENT_TYPE, manifest.media_type);
        if self.is_head() {
            return Ok(response.with(CONTENT_LENGTH, manifest.size));
        }
        let manifest = self.core.open_manifest(&snapshot, &digest).await?;
        response.body = ResponseBody::Content { content: manifest.content, start: 0, len: manifest.size };
        Ok(response)
    }

    /// The manifest that a reference names, and a state of the store that has it. Collection leaves it alone for a while.
    async fn find_manifest(
        &self,
        name: &RepositoryName,
        reference: &Reference,
    ) -> Result<(Digest, Snapshot, ManifestRecord), Refusal> {
        let mut gone = None;
        loop {
            let (snapshot, repository) = self.repository(name, Code::NameUnknown)?;
            let digest = match reference {
                Reference::Digest(digest) => Some(*digest),
                Reference::Tag(tag) => snapshot.tag(repository, tag)?.map(|tag| tag.digest),
            };
            let Some(digest) = digest else { return Err(unknown_manifest(name, reference)) };
            match self.core.manifest(repository, &digest).await? {
                Some((snapshot, manifest)) => return Ok((digest, snapshot, manifest)),
                // A tag that was moved in between names another one by now.
                None if matches!(reference, Reference::Tag(_)) && gone != Some(digest) => gone = Some(digest),
                None => return Err(unknown_manifest(name, reference)),
            }
        }
    }
}

pub(super) fn unknown_manifest(name: &RepositoryName, reference: &Reference) -> Refusal {
    let message = format!("{name} has no manifest {reference}");
    Refusal::not_found(Code::ManifestUnknown, message)
        .about(json!({"name": name.as_str(), "reference": reference.to_string()}))
}
