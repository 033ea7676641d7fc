//! Deleting (OCI distribution specification, "Content management"), and the line in the log that says who did what.

use engine::oci::{Digest, RepositoryName, Tag};
use http::StatusCode;
use http::header::ALLOW;
use serde_json::json;

use super::conditional::tag_condition;
use super::error::{Code, Refusal};
use super::manifest::precondition_failed;
use super::pull::unknown_manifest;
use super::{Call, Reference, require_namespace};
use crate::access::Action;
use crate::http::Response;

impl Call<'_, '_> {
    /// DELETE of a manifest with all its tags, or of a tag alone (end-9).
    pub(super) async fn delete_manifest(
        &self,
        name: RepositoryName,
        reference: Reference,
    ) -> Result<Response, Refusal> {
        self.require_delete(&name)?;
        let (repository, now) = (name.clone(), self.core.now());
        let unknown = || unknown_manifest(&name, &reference);
        match &reference {
            Reference::Tag(tag) => {
                let (tag, condition) = (tag.clone(), tag_condition(&self.request.headers)?);
                let deleted = {
                    let tag = tag.clone();
                    self.core
                        .metadata()
                        .write(move |transaction| transaction.delete_tag(&repository, &tag, &condition, now))
                        .await?
                };
                let digest = deleted.map_err(|failed| precondition_failed(&failed))?.ok_or_else(unknown)?;
                self.audit("delete tag", &name, Some(&tag), Some(&digest));
            }
            Reference::Digest(digest) => {
                let digest = *digest;
                let deleted = self
                    .core
                    .metadata()
                    .write(move |transaction| transaction.delete_manifest(&repository, &digest, now))
                    .await?;
                for tag in deleted.ok_or_else(unknown)? {
                    self.audit("delete tag", &name, Some(&tag), Some(&digest));
                }
                self.audit("delete manifest", &name, None, Some(&digest));
            }
        }
        Ok(Response::new(StatusCode::ACCEPTED))
    }

    /// DELETE of a blob's link in a repository (end-10).
    pub(super) async fn delete_blob(
        &self,
        name: RepositoryName,
        digest: Digest,
    ) -> Result<Response, Refusal> {
        self.require_delete(&name)?;
        let repository = name.clone();
        let deleted = self
            .core
            .metadata()
            .write(move |transaction| transaction.unlink_blob(&repository, &digest))
            .await?;
        if !deleted {
            let message = format!("{name} has no blob {digest}");
            return Err(Refusal::not_found(Code::BlobUnknown, message).about(json!({"digest": digest})));
        }
        self.audit("delete blob", &name, None, Some(&digest));
        Ok(Response::new(StatusCode::ACCEPTED))
    }

    fn require_delete(&self, name: &RepositoryName) -> Result<(), Refusal> {
        self.require(name, Action::Delete)?;
        require_namespace(&self.shared.authority, name, Action::Delete)?;
        if self.shared.rules.allows_delete {
            return Ok(());
        }
        let message = "deleting is switched off in this registry (setting delete.enabled)";
        Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, Code::Unsupported, message)
            .with(ALLOW, "GET, HEAD, PUT"))
    }

    /// The audit log: a line for each push and each delete that was done.
    pub(super) fn audit(
        &self,
        action: &str,
        name: &RepositoryName,
        tag: Option<&Tag>,
        digest: Option<&Digest>,
    ) {
        tracing::info!(
            target: "audit",
            request = %self.request.id,
            user = self.identity.name(),
            login = self.identity.kind(),
            action,
            repository = name.as_str(),
            tag = tag.map(Tag::as_str),
            digest = digest.map(tracing::field::display),
        );
    }
}
