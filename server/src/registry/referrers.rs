//! Referrers (OCI distribution specification, "Listing referrers", end-12).

use std::collections::HashSet;

use engine::metadata::{Referrer, RepositoryId, Snapshot};
use engine::oci::{Digest, RepositoryName, media_type};
use http::HeaderName;
use http::StatusCode;
use http::header::LINK;
use serde_json::{Map, Value, json};

use super::Call;
use super::error::Refusal;
use super::query::{next_link, parameter};
use crate::access::Action;
use crate::http::Response;

const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

/// Bytes of descriptors in a page. Clients that limit what they read of an index stop at 4 MiB.
const PAGE_BYTES_MAX: usize = 3 << 20;

/// What a referrer counts by itself: a page looks at 50,000 of them at most.
const LOOKED_AT_BYTES: usize = 64;

/// Descriptors that a list kept by clients in a tag may have, to be looked at.
const FALLBACK_DESCRIPTORS_MAX: usize = 10_000;

impl Call<'_, '_> {
    /// GET of the manifests that are about another one.
    pub(super) async fn referrers(
        &self,
        name: &RepositoryName,
        subject: &Digest,
    ) -> Result<Response, Refusal> {
        self.require(name, Action::Pull)?;
        let query = &self.request.query;
        let filter = parameter(query, "artifactType").filter(|filter| !filter.is_empty());
        let after = match parameter(query, "last").filter(|last| !last.is_empty()) {
            Some(last) => Some(last.parse::<Digest>()?),
            None => None,
        };
        let snapshot = self.core.metadata().snapshot()?;
        let mut page = ReferrersPage::default();
        // A subject that is not there, in a repository that is not there, has no referrers: an empty list.
        if let Some(repository) = snapshot.repository(name)? {
            // What clients listed in a tag, before they knew that this registry lists referrers, comes first.
            if after.is_none() {
                for descriptor in self.listed_in_tag(&snapshot, repository, subject).await? {
                    page.add(descriptor, filter.as_deref());
                }
            }
            page.collect(&snapshot, repository, subject, after.as_ref(), filter.as_deref())?;
        }
        let index = json!({
            "schemaVersion": 2,
            "mediaType": media_type::OCI_INDEX,
            "manifests": page.descriptors,
        });
        let mut response = Response::new(StatusCode::OK).with_body(media_type::OCI_INDEX, index.to_string());
        if filter.is_some() {
            response = response.with(FILTERS_APPLIED, "artifactType");
        }
        if let Some(last) = page.goes_on_after {
            let last = last.to_string();
            let mut parameters = vec![("last", last.as_str())];
            parameters.extend(filter.as_deref().map(|filter| ("artifactType", filter)));
            response =
                response.with(LINK, next_link(&format!("/v2/{name}/referrers/{subject}"), &parameters));
        }
        Ok(response)
    }

    /// The descriptors of the index that a tag `<algorithm>-<digest>` points at (OCI distribution specification,
    /// "Referrers tag schema"), but for those that the registry lists by itself.
    async fn listed_in_tag(
        &self,
        snapshot: &Snapshot,
        repository: RepositoryId,
        subject: &Digest,
    ) -> Result<Vec<Value>, Refusal> {
        let tag = format!("{}-{}", subject.algorithm().name(), subject.hex());
        // A tag has 128 bytes at most, so the digits of a SHA-512 are cut.
        let Ok(tag) = tag[..tag.len().min(engine::oci::Tag::LEN_MAX)].parse() else { return Ok(Vec::new()) };
        let Some(record) = snapshot.tag(repository, &tag)? else { return Ok(Vec::new()) };
        let bytes = self.core.read_manifest(snapshot, &record.digest).await?;
        // It was a valid manifest when it was pushed, though maybe no index.
        let index: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let listed = index.get("manifests").and_then(Value::as_array).cloned().unwrap_or_default();
        let mut known = HashSet::new();
        let mut descriptors = Vec::new();
        for descriptor in listed.into_iter().take(FALLBACK_DESCRIPTORS_MAX) {
            let Some(Ok(digest)) = descriptor.get("digest").and_then(Value::as_str).map(str::parse::<Digest>)
            else {
                continue;
            };
            let Some(manifest) = snapshot.manifest(repository, &digest)? else { continue };
            if manifest.subject != Some(*subject) && known.insert(digest) {
                descriptors.push(descriptor);
            }
        }
        Ok(descriptors)
    }
}

#[derive(Default)]
struct ReferrersPage {
    descriptors: Vec<Value>,
    bytes: usize,
    goes_on_after: Option<Digest>,
}

impl ReferrersPage {
    fn collect(
        &mut self,
        snapshot: &Snapshot,
        repository: RepositoryId,
        subject: &Digest,
        after: Option<&Digest>,
        filter: Option<&str>,
    ) -> Result<(), Refusal> {
        let mut last = None;
        for referrer in snapshot.referrers(repository, subject, after)? {
            let referrer = referrer?;
            // After one referrer at least, so that each page brings the list further.
            if self.bytes > PAGE_BYTES_MAX && last.is_some() {
                self.goes_on_after = last;
                return Ok(());
            }
            last = Some(referrer.digest);
            // One that is filtered out costs time to look at, too.
            self.bytes += LOOKED_AT_BYTES;
            self.add(descriptor(referrer), filter);
        }
        Ok(())
    }

    fn add(&mut self, descriptor: Value, filter: Option<&str>) {
        let artifact_type = descriptor.get("artifactType").and_then(Value::as_str);
        if filter.is_none() || artifact_type == filter {
            self.bytes += descriptor.to_string().len();
            self.descriptors.push(descriptor);
        }
    }
}

fn descriptor(referrer: Referrer) -> Value {
    let mut descriptor = Map::new();
    descriptor.insert("mediaType".to_owned(), referrer.media_type.into());
    descriptor.insert("digest".to_owned(), referrer.digest.to_string().into());
    descriptor.insert("size".to_owned(), referrer.size.into());
    if let Some(artifact_type) = referrer.artifact_type {
        descriptor.insert("artifactType".to_owned(), artifact_type.into());
    }
    if let Some(annotations) = referrer.annotations.filter(|annotations| !annotations.is_empty()) {
        descriptor.insert("annotations".to_owned(), json!(annotations));
    }
    Value::Object(descriptor)
}
