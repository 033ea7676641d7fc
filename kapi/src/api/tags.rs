//! Lists, gets and deletions of tags.

use bytes::Bytes;
use futures::StreamExt as _;
use http::{HeaderMap, Response, StatusCode};
use interface::{DeleteAllTags, DeleteTag, DeletedTags, GetTag, ObjectName, Tag};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta;

use super::body::{Body, CutOff, json, json_or_internal, object, pieces, unwritten};
use super::delete_options::Deletion;
use super::identity::Identity;
use super::negotiation::{Form, Shape, form};
use super::objects::{LIST_END, RESOURCE, View, list_meta};
use super::pages::{PAGE_TAGS, Pages};
use super::query::{ListQuery, Parameters, Version};
use super::status::{Refusal, deleted};
use super::table::IncludeObject;
use crate::registry::Registry;

/// What answers requests about tags.
#[derive(Clone, Copy, Debug)]
pub struct Tags<'a> {
    /// The registry.
    pub registry: &'a Registry,
    /// Its host, as clients know it.
    pub host: &'a str,
    /// Who asks.
    pub identity: &'a Identity,
}

impl Tags<'_> {
    /// `GET` of many: of a page, where there is a limit, else of everything.
    pub async fn list(
        &self,
        headers: &HeaderMap,
        namespace: Option<&str>,
        query: &ListQuery,
    ) -> Result<Response<Body>, Refusal> {
        let form = form(headers, Shape::List)?;
        let view = View { host: self.host, form, include: query.include };
        let query = ListQuery { limit: query.limit.map(|limit| limit.min(PAGE_TAGS)), ..query.clone() };
        let mut pages = Pages::new(self.registry, self.identity.caller(), namespace, &query)?;
        let mut first = pages.first().await?;
        // A page is filled as far as it was asked for; what is not limited is written while it is read.
        while query.limit.is_some()
            && let Some(more) = pages.next().await?
        {
            first.tags.extend(more);
        }
        let next = pages.next_token(first.version);
        let meta = ListMeta {
            remaining_item_count: first
                .remaining
                .filter(|_| next.is_some())
                .and_then(|it| i64::try_from(it).ok()),
            continue_: next,
            ..list_meta(first.version)
        };
        if pages.is_done() {
            return json_or_internal(view.list(&first.tags, &meta));
        }
        let mut head = view.list_head(&meta).map_err(|error| unwritten(&error))?;
        view.list_items(&first.tags, &mut head).map_err(|error| unwritten(&error))?;
        let has_items = !first.tags.is_empty();
        let rest = Rest { pages, host: self.host.to_owned(), form, include: query.include, has_items };
        let head = futures::stream::once(std::future::ready(Ok(Bytes::from(head))));
        let rest = futures::stream::try_unfold(Some(rest), Rest::next);
        Ok(json(StatusCode::OK, pieces(head.chain(rest))))
    }

    /// `GET` of one.
    pub async fn get(
        &self,
        headers: &HeaderMap,
        namespace: &str,
        name: &str,
        parameters: &Parameters,
    ) -> Result<Response<Body>, Refusal> {
        let form = form(headers, Shape::Object)?;
        let view = View { host: self.host, form, include: parameters.include_object()? };
        let version = parameters.version()?;
        let call = GetTag {
            caller: self.identity.caller(),
            namespace: namespace.to_owned(),
            name: object_name(name)?,
        };
        let details = self.registry.call(&call).await.map_err(|error| Refusal::of_call(error, name))?;
        version.check(details.sequence)?;
        json_or_internal(view.object(&details.tag, Some(&details), true))
    }

    /// `DELETE` of one.
    pub async fn delete(
        &self,
        headers: &HeaderMap,
        namespace: &str,
        name: &str,
        deletion: Deletion,
    ) -> Result<Response<Body>, Refusal> {
        // The answer is a Status in whatever form, but nothing is deleted for those who cannot read that.
        form(headers, Shape::Object)?;
        let Deletion { dry_run, preconditions } = deletion;
        let call = DeleteTag {
            caller: self.identity.caller(),
            namespace: namespace.to_owned(),
            name: object_name(name)?,
            preconditions,
            dry_run,
        };
        let tag = self.registry.call(&call).await.map_err(|error| Refusal::of_call(error, name))?;
        if !dry_run {
            self.log_deletion(&tag);
        }
        object(&deleted(name, &tag.uid))
    }

    /// `DELETE` of many. When it answers, none of them is listed any more.
    pub async fn delete_collection(
        &self,
        headers: &HeaderMap,
        namespace: &str,
        query: &ListQuery,
        deletion: Deletion,
    ) -> Result<Response<Body>, Refusal> {
        let form = form(headers, Shape::List)?;
        let Deletion { dry_run, preconditions } = deletion;
        if preconditions.uid.is_some() || preconditions.sequence.is_some() {
            return Err(Refusal::bad_request("preconditions are for the deletion of one object"));
        }
        let call = DeleteAllTags {
            caller: self.identity.caller(),
            namespace: namespace.to_owned(),
            names: self.narrowed(namespace, query).await?,
            dry_run,
        };
        let DeletedTags { sequence, tags } =
            self.registry.call(&call).await.map_err(|error| Refusal::of_call(error, ""))?;
        if !dry_run {
            tags.iter().for_each(|tag| self.log_deletion(tag));
        }
        let view = View { host: self.host, form, include: IncludeObject::default() };
        json_or_internal(view.list(&tags, &list_meta(sequence)))
    }

    /// The names that a query selects, where it does not select everything: what that is, is decided where it is deleted.
    async fn narrowed(&self, namespace: &str, query: &ListQuery) -> Result<Option<Vec<ObjectName>>, Refusal> {
        let is_narrow = query.has_selectors()
            || query.limit.is_some()
            || query.continue_token.is_some()
            || query.version != Version::Latest;
        if !is_narrow {
            return Ok(None);
        }
        let mut pages = Pages::new(self.registry, self.identity.caller(), Some(namespace), query)?;
        let mut names: Vec<_> = pages.first().await?.tags.iter().map(Tag::object_name).collect();
        while let Some(tags) = pages.next().await? {
            names.extend(tags.iter().map(Tag::object_name));
        }
        Ok(Some(names))
    }

    fn log_deletion(&self, tag: &Tag) {
        tracing::info!(
            user = self.identity.name,
            credential = self.identity.credential,
            namespace = tag.namespace,
            repository = tag.path,
            tag = tag.tag,
            digest = tag.digest,
            "tag deleted by the Kubernetes API"
        );
    }
}

/// Writes a list behind its first page.
struct Rest {
    pages: Pages,
    host: String,
    form: Form,
    include: IncludeObject,
    has_items: bool,
}

impl Rest {
    async fn next(this: Option<Self>) -> Result<Option<(Bytes, Option<Self>)>, CutOff> {
        let Some(mut this) = this else { return Ok(None) };
        let cut_off = |refusal: Refusal| CutOff(refusal.status().message.clone().unwrap_or_default());
        let Some(tags) = this.pages.next().await.map_err(cut_off)? else {
            return Ok(Some((Bytes::from_static(LIST_END), None)));
        };
        let mut items = Vec::new();
        if this.has_items && !tags.is_empty() {
            items.push(b',');
        }
        this.has_items |= !tags.is_empty();
        let view = View { host: &this.host, form: this.form, include: this.include };
        view.list_items(&tags, &mut items).map_err(|error| cut_off(unwritten(&error)))?;
        Ok(Some((items.into(), Some(this))))
    }
}

/// A name that is none is the name of no tag.
fn object_name(name: &str) -> Result<ObjectName, Refusal> {
    ObjectName::parse(name).map_err(|_| Refusal::not_found(RESOURCE, name))
}
