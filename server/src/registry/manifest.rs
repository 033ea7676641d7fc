//! Pushing manifests (OCI distribution specification, "Pushing manifests").

use bytes::{Bytes, BytesMut};
use engine::WriteStage;
use engine::buffer::SIZES;
use engine::collection::is_immutable;
use engine::metadata::{ManifestRefusal, NewContent, PreconditionFailed, PutManifest};
use engine::oci::{Algorithm, ContentHasher, Digest, Manifest, RepositoryName, Tag};
use http::header::{CONTENT_TYPE, ETAG, LOCATION};
use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::json;

use super::conditional::{entity_tag, tag_condition};
use super::error::{Code, Refusal};
use super::{CONTENT_DIGEST, Call, Reference, query, require_namespace};
use crate::access::Action;
use crate::http::Response;

const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const TAG: HeaderName = HeaderName::from_static("oci-tag");

/// Tags that one request may set.
const TAGS_MAX: usize = 100;

/// Missing digests that a refusal lists.
const MISSING_LISTED_MAX: usize = 100;

impl Call<'_, '_> {
    /// PUT of a manifest (end-7).
    pub(super) async fn put_manifest(
        mut self,
        name: RepositoryName,
        reference: Reference,
    ) -> Result<Response, Refusal> {
        self.require(&name, Action::Push)?;
        self.require_storable(&name)?;
        self.require_manifest_size()?;
        self.require_room(self.request.body.remaining().unwrap_or(0))?;
        let condition = tag_condition(&self.request.headers)?;
        let content_type = match self.request.headers.get(CONTENT_TYPE) {
            Some(value) => Some(value.to_str().map(str::to_owned).map_err(|_| {
                Refusal::bad_request(Code::ManifestInvalid, "the Content-Type is no media type")
            })?),
            None => None,
        };
        let tags = self.tags_to_set(&reference)?;
        let body = self.receive_manifest().await?;
        let manifest = Manifest::parse(content_type.as_deref(), &body)?;
        let digest = match &reference {
            Reference::Tag(_) => ContentHasher::digest(Algorithm::Sha256, &body),
            Reference::Digest(expected) => {
                let actual = ContentHasher::digest(expected.algorithm(), &body);
                if actual != *expected {
                    let message = format!("the manifest has the digest {actual}, not {expected}");
                    return Err(Refusal::bad_request(Code::DigestInvalid, message));
                }
                actual
            }
        };

        let subject = manifest.subject.as_ref().map(|subject| subject.digest);
        let (repository, set, now, size) = (name.clone(), tags.clone(), self.core.now(), body.len() as u64);
        let (authority, quota) = (self.shared.authority.clone(), self.core.quota(&name));
        let is_immutable = |tag: &&Tag| is_immutable(self.shared.rules.retention.rules(), &name, tag);
        let immutable: Vec<Tag> = tags.iter().filter(is_immutable).cloned().collect();
        self.core.check_write(WriteStage::Running)?;
        let stored = self
            .core
            .metadata()
            .write(move |transaction| {
                let content = NewContent::Inline(body);
                let (manifest, tags, condition) = (&manifest, &set, &condition);
                // Meanwhile the namespace may have begun to go; what is stored before it is gone is purged with it.
                if let Err(refusal) = require_namespace(&authority, &repository, Action::Push) {
                    return Ok(Err(refusal));
                }
                if let Some((tag, current)) = transaction.moved_tag(&repository, &immutable, &digest)? {
                    return Ok(Err(immutable_tag(&repository, &tag, &current)));
                }
                if let Err(exceeded) = transaction.check_quota(&repository, &digest, size, quota)? {
                    return Ok(Err(Refusal::from(&exceeded)));
                }
                let stored = transaction.put_manifest(
                    &repository,
                    PutManifest { digest, manifest, size, content, tags, condition, now },
                )?;
                Ok(stored.map_err(|refusal| refuse(&repository, refusal)))
            })
            .await?;
        stored?;

        self.shared.metrics.pushed(size);
        if tags.is_empty() {
            self.audit("push manifest", &name, None, Some(&digest));
        }
        let mut response = Response::new(StatusCode::CREATED)
            .with(LOCATION, format!("/v2/{name}/manifests/{digest}"))
            .with(CONTENT_DIGEST, digest.to_string())
            .with(ETAG, entity_tag(&digest));
        for tag in &tags {
            self.audit("push manifest", &name, Some(tag), Some(&digest));
            if matches!(reference, Reference::Digest(_))
                && let Ok(value) = HeaderValue::try_from(tag.as_str())
            {
                response.headers.append(TAG, value);
            }
        }
        if let Some(subject) = subject {
            response = response.with(SUBJECT, subject.to_string());
        }
        Ok(response)
    }

    /// The tags that a PUT sets: the one of the path, or those of the query where the path has a digest.
    fn tags_to_set(&self, reference: &Reference) -> Result<Vec<Tag>, Refusal> {
        let mut tags = match reference {
            Reference::Tag(tag) => vec![tag.clone()],
            Reference::Digest(_) => Vec::new(),
        };
        for tag in query::parameters(&self.request.query, "tag") {
            let tag: Tag = tag.parse()?;
            if !tags.contains(&tag) {
                tags.push(tag);
            }
            if tags.len() > TAGS_MAX {
                let message = format!("one request sets at most {TAGS_MAX} tags");
                return Err(Refusal::new(StatusCode::URI_TOO_LONG, Code::ManifestInvalid, message));
            }
        }
        Ok(tags)
    }

    /// An error where the request says beforehand that the manifest is too large.
    fn require_manifest_size(&self) -> Result<(), Refusal> {
        let most = self.shared.rules.manifest_size_max;
        match self.request.body.remaining() {
            Some(remaining) if remaining > most => Err(too_large(most)),
            _ => Ok(()),
        }
    }

    async fn receive_manifest(&mut self) -> Result<Bytes, Refusal> {
        let most = self.shared.rules.manifest_size_max;
        let _held = self.shared.internals.memory.hold(self.request.body.remaining().unwrap_or(most))?;
        let mut manifest = BytesMut::new();
        loop {
            let (result, buffer) = self.request.body.fill(self.core.buffers().take(SIZES[1])).await;
            manifest.extend_from_slice(&buffer);
            if manifest.len() as u64 > most {
                return Err(too_large(most));
            }
            if result? {
                return Ok(manifest.freeze());
            }
        }
    }
}

fn too_large(most: u64) -> Refusal {
    let message = format!("a manifest has at most {most} bytes here");
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, Code::SizeInvalid, message)
}

/// The answer to a push that would move a tag which settings keep where it is.
fn immutable_tag(name: &RepositoryName, tag: &Tag, current: &Digest) -> Refusal {
    let message = format!(
        "the tag {tag} of {name} is immutable, and points at {current}; push under another tag (setting gc.retention)"
    );
    Refusal::new(StatusCode::CONFLICT, Code::Denied, message).about(json!({"current": current}))
}

/// The answer to a failed compare-and-set.
pub(super) fn precondition_failed(failed: &PreconditionFailed) -> Refusal {
    let message = match failed.current {
        Some(digest) => {
            format!("the tag points at {digest} now, which is not what the request is conditional on")
        }
        None => "the tag does not exist, and the request is conditional on it".to_owned(),
    };
    let refusal = Refusal::new(StatusCode::PRECONDITION_FAILED, Code::Denied, message);
    match failed.current {
        Some(digest) => refusal.about(json!({"current": digest})).with(ETAG, entity_tag(&digest)),
        None => refusal,
    }
}

fn refuse(name: &RepositoryName, refusal: ManifestRefusal) -> Refusal {
    match refusal {
        ManifestRefusal::Precondition(failed) => precondition_failed(&failed),
        ManifestRefusal::Missing { blobs, children } => {
            let error = |what: &str, digest| {
                let message =
                    format!("{name} has no {what} {digest}; push it before the manifest that refers to it");
                (Code::ManifestBlobUnknown, message, Some(json!({"digest": digest})))
            };
            let blobs = blobs.iter().map(|digest| error("blob", digest));
            let children = children.iter().map(|digest| error("manifest", digest));
            Refusal::missing(blobs.chain(children).take(MISSING_LISTED_MAX).collect())
        }
    }
}
