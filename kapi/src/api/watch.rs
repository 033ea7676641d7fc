//! Watches: an answer that goes on, a line for each event.
//!
//! A watch pulls: what comes next is asked for when the client has taken what came before, so that a slow client holds no
//! more here than its place and what was asked for last: a page of the state that the watch begins with
//! ([`PAGE_TAGS`](super::pages::PAGE_TAGS)), or [`EVENTS_AT_ONCE`] changes. The place in the state is a tag; the place among
//! changes is a number, the registry's sequence, which is also its `resourceVersion`. A client that comes back with a number
//! whose successors are forgotten is told so (410), and lists again.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::CACHE_CONTROL;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use interface::{
    Caller, Change, ChangeKind, Changes, ListTags, Reason, Tag, TagPage, WAIT_SECONDS_MAX, WatchTags,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta;
use tokio::time::Instant;

use super::body::{Body, json, pieces, unwritten};
use super::lifecycle::Lifecycle;
use super::metrics::{Metrics, RunningWatch};
use super::negotiation::{Form, Shape, form};
use super::objects::{LIST_END, View};
use super::pages::Pages;
use super::query::{ListQuery, Version, WatchQuery};
use super::status::Refusal;
use super::watch_places::{WatchPlace, WatchPlaces};
use crate::registry::Registry;

/// How often a client is told how far the watch is.
const BOOKMARK_PERIOD: Duration = Duration::from_secs(60);

/// How long a watch lasts where the client does not say: this, and up to as much again, so that clients that came together
/// do not come back together.
const DEFAULT_TIME: Duration = Duration::from_secs(30 * 60);

/// How long a watch lasts at most: a day.
const TIME_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Events that are written at once.
const EVENTS_AT_ONCE: u32 = 100;

/// Says that the state that a watch began with has been sent.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// What the list is that a client makes of the initial events, before there are items in it; for those who list by watching.
const INITIAL_EVENTS_LIST_BLUEPRINT: &str = "kubernetes.io/initial-events-list-blueprint";

/// Begins watches.
#[derive(Debug, Default)]
pub struct Watches {
    places: WatchPlaces,
}

/// What is watched, and for whom.
#[derive(Clone, Debug)]
pub struct Source {
    /// The registry.
    pub registry: Registry,
    /// Its host, as clients know it.
    pub host: String,
    /// Who asks.
    pub caller: Caller,
    /// The namespace; `None`: all.
    pub namespace: Option<String>,
    /// Says when to end.
    pub lifecycle: Lifecycle,
}

impl Watches {
    /// Begins a watch. What goes wrong before the first event is an answer of its own.
    pub async fn start(
        &self,
        source: Source,
        metrics: &Metrics,
        headers: &HeaderMap,
        query: ListQuery,
        asked: WatchQuery,
    ) -> Result<Response<Body>, Refusal> {
        let form = form(headers, Shape::Object)?;
        let place = self.places.take(&source.caller)?;
        let start = Start::find(&source, &query, asked).await?;
        let now = Instant::now();
        let watch = Watch {
            writer: EventWriter { host: source.host.clone(), form, query, has_columns: false },
            initial: start.initial,
            is_end_marked: asked.send_initial_events == Some(true),
            changes: start.changes.into(),
            after: start.after,
            next_bookmark: asked.allow_bookmarks.then(|| now + BOOKMARK_PERIOD),
            end: now + asked.timeout.unwrap_or_else(default_time).min(TIME_MAX),
            is_over: false,
            source,
            _place: place,
            _running: metrics.watch(),
        };
        let events = futures::stream::unfold(watch, |mut watch| async {
            let events = watch.next().await?;
            Some((Ok(events), watch))
        });
        let mut response = json(StatusCode::OK, pieces(events));
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
        Ok(response)
    }
}

/// Where a watch begins.
struct Start {
    /// What there is, which is sent first.
    initial: Option<Initial>,
    /// The first changes.
    changes: Vec<Change>,
    /// The number to go on after.
    after: u64,
}

/// What there was when the watch began.
struct Initial {
    /// What was read and not sent: a page at most.
    tags: VecDeque<Tag>,
    /// Where to go on reading when that has been sent. What comes then is from a later state than the first page; the
    /// changes between follow, as they do for all that happens after the first page.
    rest: Pages,
}

impl Start {
    async fn find(source: &Source, query: &ListQuery, asked: WatchQuery) -> Result<Self, Refusal> {
        let is_from_now = matches!(query.version, Version::Latest | Version::Any);
        if asked.send_initial_events.unwrap_or(is_from_now) {
            return Self::with_state(source, query).await;
        }
        let after = if is_from_now { source.state().await?.sequence } else { query.version.least() };
        let Changes { sequence, changes } = source.changes(after, 0).await?;
        Ok(Self { initial: None, changes, after: sequence })
    }

    async fn with_state(source: &Source, query: &ListQuery) -> Result<Self, Refusal> {
        let mut rest = source.pages(query)?;
        let first = rest.first().await?;
        let initial = Initial { tags: first.tags.into(), rest };
        Ok(Self { initial: Some(initial), changes: Vec::new(), after: first.version })
    }
}

impl Source {
    fn pages(&self, query: &ListQuery) -> Result<Pages, Refusal> {
        let everything = ListQuery { limit: None, continue_token: None, ..query.clone() };
        Pages::new(&self.registry, self.caller.clone(), self.namespace.as_deref(), &everything)
    }

    /// The state of now, and as little of it as there can be.
    async fn state(&self) -> Result<TagPage, Refusal> {
        let call = ListTags {
            caller: self.caller.clone(),
            namespace: self.namespace.clone(),
            after: None,
            limit: Some(1),
        };
        self.registry.call(&call).await.map_err(|error| Refusal::of_call(error, ""))
    }

    /// The next changes. Where they are no longer kept, or where the registry has lost what it once said: 410.
    async fn changes(&self, after: u64, wait_seconds: u64) -> Result<Changes, Refusal> {
        let call = WatchTags {
            caller: self.caller.clone(),
            namespace: self.namespace.clone(),
            after,
            limit: EVENTS_AT_ONCE,
            wait_seconds,
        };
        match self.registry.call(&call).await {
            Ok(changes) => Ok(changes),
            Err(error) if matches!(error.reason(), Some(Reason::Expired | Reason::Future)) => {
                Err(Refusal::too_old_version(after, self.state().await?.oldest))
            }
            Err(error) => Err(Refusal::of_call(error, "")),
        }
    }
}

/// A watch that runs.
struct Watch {
    source: Source,
    writer: EventWriter,
    initial: Option<Initial>,
    /// Whether a bookmark marks the end of what there was at the beginning.
    is_end_marked: bool,
    /// Changes that were read and not sent.
    changes: VecDeque<Change>,
    /// The number of the last change that was read, or that did not matter.
    after: u64,
    /// When the client is told how far it is; `None`: it does not want to be.
    next_bookmark: Option<Instant>,
    end: Instant,
    is_over: bool,
    _place: Option<WatchPlace>,
    _running: RunningWatch,
}

impl Watch {
    /// The next lines; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        let lifecycle = self.source.lifecycle.clone();
        let end = self.end;
        tokio::select! {
            biased;
            () = lifecycle.ending() => None,
            () = tokio::time::sleep_until(end) => None,
            lines = self.lines() => lines,
        }
    }

    async fn lines(&mut self) -> Option<Bytes> {
        while !self.is_over {
            let lines = match self.initial.take() {
                Some(initial) => self.initial_lines(initial).await,
                None => self.change_lines().await,
            };
            match lines {
                Ok(lines) if lines.is_empty() => {}
                Ok(lines) => return Some(lines.into()),
                Err(Interruption::Told(refusal)) => {
                    self.is_over = true;
                    return self.writer.error(&refusal).ok().map(Bytes::from);
                }
                Err(Interruption::Silent) => return None,
            }
        }
        None
    }

    /// Lines of what there was at the beginning, and, behind them, of the mark.
    async fn initial_lines(&mut self, mut initial: Initial) -> Result<Vec<u8>, Interruption> {
        if initial.tags.is_empty() {
            match initial.rest.next().await? {
                Some(tags) => initial.tags = tags.into(),
                None if self.is_end_marked => return Ok(self.writer.end_of_initial_events(self.after)?),
                None => return Ok(Vec::new()),
            }
        }
        let mut lines = Vec::new();
        let count = initial.tags.len().min(EVENTS_AT_ONCE as usize);
        for tag in initial.tags.drain(..count) {
            self.writer.event(&mut lines, ChangeKind::Added, &tag)?;
        }
        self.initial = Some(initial);
        Ok(lines)
    }

    /// Lines of changes, or a bookmark; nothing where nothing happened for as long as the registry waits.
    async fn change_lines(&mut self) -> Result<Vec<u8>, Interruption> {
        let mut lines = Vec::new();
        for Change { kind, tag } in self.changes.drain(..) {
            if self.writer.query.selects(&tag) {
                self.writer.event(&mut lines, kind, &tag)?;
            }
        }
        let now = Instant::now();
        if self.next_bookmark.is_some_and(|at| at <= now) {
            self.next_bookmark = Some(now + BOOKMARK_PERIOD);
            self.writer.bookmark(&mut lines, self.after)?;
        }
        if lines.is_empty() {
            let until_bookmark =
                self.next_bookmark.map_or(Duration::MAX, |at| at.saturating_duration_since(now));
            let wait_seconds = until_bookmark.as_secs().saturating_add(1).min(WAIT_SECONDS_MAX);
            let Changes { sequence, changes } = self.source.changes(self.after, wait_seconds).await?;
            self.after = sequence;
            self.changes = changes.into();
        }
        Ok(lines)
    }
}

/// Why a watch ends early.
enum Interruption {
    /// The client has to begin anew, and is told why.
    Told(Refusal),
    /// The registry is away: the client comes back to where it was.
    Silent,
}

impl From<Refusal> for Interruption {
    fn from(refusal: Refusal) -> Self {
        match refusal.code() {
            StatusCode::SERVICE_UNAVAILABLE => Self::Silent,
            _ => Self::Told(refusal),
        }
    }
}

impl From<serde_json::Error> for Interruption {
    fn from(error: serde_json::Error) -> Self {
        Self::Told(unwritten(&error))
    }
}

/// Writes events in the form that the client asked for.
struct EventWriter {
    host: String,
    form: Form,
    query: ListQuery,
    /// Whether a table with definitions of columns was sent.
    has_columns: bool,
}

impl EventWriter {
    fn event(&mut self, lines: &mut Vec<u8>, kind: ChangeKind, tag: &Tag) -> serde_json::Result<()> {
        let kind = match kind {
            ChangeKind::Added => "ADDED",
            ChangeKind::Modified => "MODIFIED",
            ChangeKind::Deleted => "DELETED",
        };
        let object = self.view().object(tag, None, !self.has_columns)?;
        self.line(lines, kind, &object);
        Ok(())
    }

    fn bookmark(&mut self, lines: &mut Vec<u8>, sequence: u64) -> serde_json::Result<()> {
        let object = self.view().bookmark(sequence, None, !self.has_columns)?;
        self.line(lines, "BOOKMARK", &object);
        Ok(())
    }

    fn end_of_initial_events(&mut self, sequence: u64) -> serde_json::Result<Vec<u8>> {
        let mut blueprint = self.view().list_head(&ListMeta::default())?;
        blueprint.extend_from_slice(LIST_END);
        blueprint.push(b'\n');
        let annotations = BTreeMap::from([
            (INITIAL_EVENTS_END.to_owned(), "true".to_owned()),
            (INITIAL_EVENTS_LIST_BLUEPRINT.to_owned(), STANDARD.encode(blueprint)),
        ]);
        let object = self.view().bookmark(sequence, Some(annotations), !self.has_columns)?;
        let mut lines = Vec::new();
        self.line(&mut lines, "BOOKMARK", &object);
        Ok(lines)
    }

    fn error(&mut self, refusal: &Refusal) -> serde_json::Result<Vec<u8>> {
        let object = serde_json::to_vec(refusal.status())?;
        let mut lines = Vec::new();
        self.line(&mut lines, "ERROR", &object);
        Ok(lines)
    }

    fn line(&mut self, lines: &mut Vec<u8>, kind: &str, object: &[u8]) {
        lines.extend_from_slice(b"{\"type\":\"");
        lines.extend_from_slice(kind.as_bytes());
        lines.extend_from_slice(b"\",\"object\":");
        lines.extend_from_slice(object);
        lines.extend_from_slice(b"}\n");
        self.has_columns = true;
    }

    fn view(&self) -> View<'_> {
        View { host: &self.host, form: self.form, include: self.query.include }
    }
}

fn default_time() -> Duration {
    // Each of these hashers begins at random.
    let random = RandomState::new().hash_one(()) % DEFAULT_TIME.as_secs();
    DEFAULT_TIME + Duration::from_secs(random)
}
