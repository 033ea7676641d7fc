//! Lists of tags (OCI distribution specification, "Listing tags", end-8) and of repositories (as Docker's
//! distribution has it).

use engine::oci::RepositoryName;
use http::StatusCode;
use http::header::LINK;
use serde_json::json;

use super::error::{Code, Refusal};
use super::query::{Page, next_link, page};
use super::{Call, unknown_rules};
use crate::access::{Action, Decision};
use crate::http::Response;

/// Repositories that a page of the catalog has where the client does not say.
const CATALOG_PAGE: usize = 1000;

/// Most repositories that a page of the catalog has: each is checked against the caller's rights.
const CATALOG_PAGE_MAX: usize = 10_000;

/// Repositories that are looked at for a page, the caller's and others.
const CATALOG_LOOKED_AT_MAX: usize = 50_000;

impl Call<'_, '_> {
    /// GET of a repository's tags.
    pub(super) fn tags(&self, name: &RepositoryName) -> Result<Response, Refusal> {
        self.require(name, Action::Pull)?;
        let (snapshot, repository) = self.repository(name, Code::NameUnknown)?;
        let Page { most, last } = page(&self.request.query)?;
        let most = most.unwrap_or(usize::MAX);
        let mut tags = Vec::new();
        let mut has_more = false;
        for tag in snapshot.tags(repository, last.as_deref())? {
            let (tag, _) = tag?;
            if tags.len() == most {
                has_more = true;
                break;
            }
            tags.push(tag);
        }
        let link = tags.last().filter(|_| has_more).map(|last| {
            let path = format!("/v2/{name}/tags/list");
            next_link(&path, &[("n", &most.to_string()), ("last", last.as_str())])
        });
        let names: Vec<&str> = tags.iter().map(|tag| tag.as_str()).collect();
        Ok(listed(json!({"name": name.as_str(), "tags": names}), link))
    }

    /// GET of the repositories that the caller may see.
    pub(super) fn catalog(&self) -> Result<Response, Refusal> {
        if !self.shared.policy.may_see_catalog(&self.identity) {
            return Err(self.shared.unauthorized(&self.request.headers, None, "log in to list repositories"));
        }
        let Page { most, last } = page(&self.request.query)?;
        let most = most.unwrap_or(CATALOG_PAGE).min(CATALOG_PAGE_MAX);
        let rules = self.shared.policy.rules();
        let caller = self.shared.policy.caller(&self.identity, rules.as_deref());
        let snapshot = self.core.metadata().snapshot()?;
        let mut names: Vec<RepositoryName> = Vec::new();
        let mut looked_at: Option<RepositoryName> = None;
        let mut has_more = false;
        for (count, repository) in snapshot.repositories("", last.as_deref())?.enumerate() {
            if names.len() == most || count == CATALOG_LOOKED_AT_MAX {
                has_more = true;
                break;
            }
            let name = repository?.name;
            match caller.decide_to_see(&name) {
                Decision::Allowed => names.push(name.clone()),
                Decision::Denied => {}
                Decision::Unknown => return Err(unknown_rules()),
            }
            looked_at = Some(name);
        }
        let link = looked_at
            .filter(|_| has_more)
            .map(|last| next_link("/v2/_catalog", &[("n", &most.to_string()), ("last", last.as_str())]));
        let names: Vec<&str> = names.iter().map(RepositoryName::as_str).collect();
        Ok(listed(json!({ "repositories": names }), link))
    }
}

fn listed(list: serde_json::Value, link: Option<String>) -> Response {
    let response = Response::new(StatusCode::OK).with_body("application/json", list.to_string());
    match link {
        Some(link) => response.with(LINK, link),
        None => response,
    }
}
