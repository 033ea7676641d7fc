//! Going through the tags that a query selects.

use interface::{Caller, ListTags, Position, Tag, TagPage};

use super::continue_token::ContinueToken;
use super::query::{ListQuery, Version};
use super::status::Refusal;
use crate::registry::Registry;

/// Tags that are asked for at once: what an answer holds in memory at most, however much there is and however slow the
/// client. That is 0.3 MiB as tags and up to 0.7 MiB as JSON, so that a hundred slow answers are tens of MiB. The registry
/// looks at all tags of a namespace for each page (25 ms for 100,000 of them), so that smaller pages would be dear. A list
/// that is longer is not from one moment; a watch from its resourceVersion on tells what changed while it was read.
pub const PAGE_TAGS: u32 = 1000;

/// Tags that are asked for at once where one name is sought: few of them are selected, and no others are held.
const SEARCH_TAGS: u32 = 10_000;

/// Goes through what a query selects, a page at a time, up to its limit.
pub struct Pages {
    registry: Registry,
    caller: Caller,
    namespace: Option<String>,
    query: ListQuery,
    token: Option<ContinueToken>,
    after: Option<Position>,
    /// How many more tags are wanted.
    room: usize,
    is_done: bool,
}

/// The first page, and what it says of the others.
#[derive(Debug)]
pub struct FirstPage {
    /// The tags.
    pub tags: Vec<Tag>,
    /// The version of the whole list.
    pub version: u64,
    /// How many more tags there are behind this page, where that is known.
    pub remaining: Option<u64>,
}

impl Pages {
    /// Begins where the query's continue token says, if there is one.
    pub fn new(
        registry: &Registry,
        caller: Caller,
        namespace: Option<&str>,
        query: &ListQuery,
    ) -> Result<Self, Refusal> {
        let token = query.continue_token.as_deref();
        let token = token.map(|token| ContinueToken::decode(token, namespace)).transpose()?;
        Ok(Self {
            registry: registry.clone(),
            caller,
            namespace: namespace.or(query.fields.namespace()).map(str::to_owned),
            query: query.clone(),
            after: token.as_ref().map(|token| token.after.clone()),
            token,
            room: query.limit.map_or(usize::MAX, |limit| limit as usize),
            is_done: false,
        })
    }

    /// The first page; it may select nothing of what it goes through.
    pub async fn first(&mut self) -> Result<FirstPage, Refusal> {
        let page = self.ask().await?;
        let version = list_version(self.query.version, self.token.as_ref(), &page)?;
        let remaining = page.remaining.filter(|_| !self.query.has_selectors());
        Ok(FirstPage { tags: self.take(page), version, remaining })
    }

    /// The next page; `None` where there is none, or where there were as many as are wanted.
    pub async fn next(&mut self) -> Result<Option<Vec<Tag>>, Refusal> {
        if self.is_done {
            return Ok(None);
        }
        let page = self.ask().await?;
        Ok(Some(self.take(page)))
    }

    /// Whether there are no more pages that are wanted.
    pub fn is_done(&self) -> bool {
        self.is_done
    }

    /// The token with which the list goes on, where there is more than was wanted.
    pub fn next_token(&self, version: u64) -> Option<String> {
        let after = self.after.clone().filter(|_| self.is_done)?;
        Some(ContinueToken { version, after }.encode())
    }

    async fn ask(&self) -> Result<TagPage, Refusal> {
        let limit = match (self.query.labels.matches_no_labels(), self.query.fields.is_everything()) {
            // Nothing is selected, but the answer has a version.
            (false, _) => 1,
            (true, true) => u32::try_from(self.room).unwrap_or(u32::MAX).min(PAGE_TAGS),
            (true, false) if self.query.fields.is_one_name() => SEARCH_TAGS,
            (true, false) => PAGE_TAGS,
        };
        let call = ListTags {
            caller: self.caller.clone(),
            namespace: self.namespace.clone(),
            after: self.after.clone(),
            limit: Some(limit),
        };
        self.registry.call(&call).await.map_err(|error| Refusal::of_call(error, ""))
    }

    /// Selects from a page, and remembers where it ends.
    fn take(&mut self, page: TagPage) -> Vec<Tag> {
        let TagPage { mut tags, has_more, .. } = page;
        let examined = self.examined(&tags);
        let has_more = has_more || examined < tags.len();
        tags.truncate(examined);
        let last =
            tags.last().map(|tag| Position { namespace: tag.namespace.clone(), name: tag.object_name() });
        self.after = last.filter(|_| has_more && self.query.labels.matches_no_labels());
        tags.retain(|tag| self.query.selects(tag));
        tags.shrink_to_fit();
        self.room = self.room.saturating_sub(tags.len());
        self.is_done = self.after.is_none() || self.room == 0;
        tags
    }

    /// How many tags, from the first on, are looked at until as many are selected as are wanted.
    fn examined(&self, tags: &[Tag]) -> usize {
        let selected = tags.iter().enumerate().filter(|(_, tag)| self.query.selects(tag));
        match self.room.checked_sub(1).and_then(|last| selected.map(|(at, _)| at).nth(last)) {
            Some(last) => last + 1,
            None => tags.len(),
        }
    }
}

/// The version of a list that begins with `page`: of the state that the page is from, or, where it is not the first, that
/// of the first one, for as long as the changes since then can be watched.
fn list_version(asked: Version, token: Option<&ContinueToken>, page: &TagPage) -> Result<u64, Refusal> {
    if let Some(token) = token {
        if (page.oldest..=page.sequence).contains(&token.version) {
            return Ok(token.version);
        }
        return Err(Refusal::expired(
            "The provided continue parameter is too old to display a consistent list result. \
             You can start a new list without the continue parameter.",
        ));
    }
    asked.check(page.sequence)?;
    match asked {
        Version::Exactly(version) if version != page.sequence => {
            Err(Refusal::expired("The resourceVersion for the provided list is too old."))
        }
        _ => Ok(page.sequence),
    }
}
