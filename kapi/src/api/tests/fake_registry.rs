//! A registry of tags in memory, at the other end of a real socket.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use interface::{
    Call, Caller, Change, ChangeKind, Changes, DeleteAllTags, DeleteTag, DeletedTags, Failure, GetTag,
    ListTags, Position, Reason, Tag, TagDetails, TagPage, WatchTags,
};
use serde::de::DeserializeOwned;
use tempfile::TempDir;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

use crate::api::objects::tests::tag;
use crate::registry::{Address, Registry};

/// Somebody who sees everything and may delete nothing.
pub(super) const READER: &str = "reader";
/// Somebody who may do nothing.
pub(super) const NOBODY: &str = "nobody";

pub(super) const MANIFEST: &str = r#"{"schemaVersion":2,"size":1.50}"#;

/// The registry, and the socket that it is at.
pub(super) struct FakeRegistry {
    shared: Arc<Shared>,
    folder: TempDir,
}

struct Shared {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
pub(super) struct State {
    tags: BTreeMap<Position, Tag>,
    changes: Vec<Change>,
    pub(super) sequence: u64,
    /// Changes up to this one are forgotten.
    pub(super) oldest: u64,
    pub(super) is_read_only: bool,
    /// The largest page that was asked for.
    pub(super) largest_page: Option<u32>,
    /// Tags in all pages together.
    pub(super) listed_tags: usize,
}

impl FakeRegistry {
    pub(super) fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let listener = UnixListener::bind(folder.path().join("socket")).expect("a socket");
        let state = State { sequence: 10, oldest: 5, ..State::default() };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: watch::Sender::new(10) });
        let served = shared.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(connection(served.clone(), stream));
            }
        });
        Self { shared, folder }
    }

    pub(super) fn client(&self) -> Registry {
        Registry::new(Address::Unix(self.folder.path().join("socket")))
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }

    /// Pushes a tag, and says which it is.
    pub(super) fn push(&self, namespace: &str, path: &str, name: &str) -> Tag {
        let tag = self.state().push(namespace, path, name);
        self.shared.changed.send_replace(tag.sequence);
        tag
    }

    /// Removes a tag.
    pub(super) fn remove(&self, tag: &Tag) {
        let sequence = self.state().remove(&position(tag));
        self.shared.changed.send_replace(sequence);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("not poisoned")
    }
}

fn position(tag: &Tag) -> Position {
    Position { namespace: tag.namespace.clone(), name: tag.object_name() }
}

impl State {
    fn push(&mut self, namespace: &str, path: &str, name: &str) -> Tag {
        self.sequence += 1;
        let mut tag = tag(namespace, path, name, self.sequence);
        let position = position(&tag);
        let former = self.tags.get(&position);
        let kind = if former.is_some() { ChangeKind::Modified } else { ChangeKind::Added };
        if let Some(former) = former {
            tag.uid.clone_from(&former.uid);
        }
        self.tags.insert(position, tag.clone());
        self.changes.push(Change { kind, tag: tag.clone() });
        tag
    }

    fn remove(&mut self, position: &Position) -> u64 {
        if let Some(mut tag) = self.tags.remove(position) {
            self.sequence += 1;
            tag.sequence = self.sequence;
            self.changes.push(Change { kind: ChangeKind::Deleted, tag });
        }
        self.sequence
    }

    fn list(&mut self, call: ListTags) -> Result<TagPage, Failure> {
        self.largest_page = self.largest_page.max(call.limit);
        let seen = self.tags.iter().filter(|(position, _)| {
            call.namespace.as_ref().is_none_or(|namespace| *namespace == position.namespace)
                && call.after.as_ref().is_none_or(|after| after < *position)
        });
        let all: Vec<Tag> = match name_of(&call.caller) {
            Some(NOBODY) => Vec::new(),
            _ => seen.map(|(_, tag)| tag.clone()).collect(),
        };
        let limit = call.limit.map_or(usize::MAX, |limit| limit as usize);
        self.listed_tags += all.len().min(limit);
        Ok(TagPage {
            sequence: self.sequence,
            oldest: self.oldest,
            has_more: all.len() > limit,
            remaining: Some(all.len().saturating_sub(limit) as u64),
            tags: all.into_iter().take(limit).collect(),
        })
    }

    fn get(&mut self, call: GetTag) -> Result<TagDetails, Failure> {
        if name_of(&call.caller) == Some(NOBODY) {
            return Err(Failure::new(Reason::Denied, "User \"nobody\" may not get it"));
        }
        let position = Position { namespace: call.namespace, name: call.name };
        let tag = self.tags.get(&position).ok_or_else(|| Failure::new(Reason::NotFound, "no such tag"))?;
        let is_image = tag.tag != "artifact";
        Ok(TagDetails {
            sequence: self.sequence,
            tag: tag.clone(),
            media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
            manifest: MANIFEST.to_owned(),
            config: is_image.then(|| r#"{"os":"linux"}"#.to_owned()),
        })
    }

    fn check_deletion(&self, caller: &Caller) -> Result<(), Failure> {
        if self.is_read_only {
            return Err(Failure::new(Reason::ReadOnly, "the registry is read-only").retry_after(7));
        }
        match name_of(caller) {
            Some(name @ (READER | NOBODY)) => {
                Err(Failure::new(Reason::Denied, format!("User {name:?} may not delete it")))
            }
            _ => Ok(()),
        }
    }

    fn delete(&mut self, call: DeleteTag) -> Result<Tag, Failure> {
        self.check_deletion(&call.caller)?;
        let position = Position { namespace: call.namespace, name: call.name };
        let tag = self.tags.get(&position).cloned();
        let tag = tag.ok_or_else(|| Failure::new(Reason::NotFound, "no such tag"))?;
        if call.preconditions.uid.is_some_and(|uid| uid != tag.uid)
            || call.preconditions.sequence.is_some_and(|sequence| sequence != tag.sequence)
        {
            return Err(Failure::new(Reason::Conflict, "a precondition does not hold"));
        }
        if !call.dry_run {
            self.remove(&position);
        }
        Ok(tag)
    }

    fn delete_all(&mut self, call: DeleteAllTags) -> Result<DeletedTags, Failure> {
        self.check_deletion(&call.caller)?;
        let chosen = self.tags.iter().filter(|(position, _)| {
            position.namespace == call.namespace
                && call.names.as_ref().is_none_or(|names| names.contains(&position.name))
        });
        let chosen: Vec<_> = chosen.map(|(position, tag)| (position.clone(), tag.clone())).collect();
        for (position, _) in chosen.iter().filter(|_| !call.dry_run) {
            self.remove(position);
        }
        Ok(DeletedTags { sequence: self.sequence, tags: chosen.into_iter().map(|(_, tag)| tag).collect() })
    }

    fn changes(&self, call: &WatchTags) -> Result<Changes, Failure> {
        if call.after < self.oldest {
            return Err(Failure::new(Reason::Expired, "the changes are no longer kept"));
        }
        if call.after > self.sequence {
            return Err(Failure::new(Reason::Future, "that is still to come"));
        }
        let wanted = self.changes.iter().filter(|change| {
            change.tag.sequence > call.after
                && call.namespace.as_ref().is_none_or(|namespace| *namespace == change.tag.namespace)
        });
        let changes: Vec<_> = wanted.take(call.limit as usize).cloned().collect();
        let is_full = changes.len() == call.limit as usize;
        let last = changes.last().filter(|_| is_full).map(|change| change.tag.sequence);
        Ok(Changes { sequence: last.unwrap_or(self.sequence), changes })
    }
}

fn name_of(caller: &Caller) -> Option<&str> {
    match caller {
        Caller::User { name, .. } => Some(name),
        Caller::Unrestricted { .. } => None,
    }
}

async fn connection(shared: Arc<Shared>, stream: UnixStream) {
    let service = service_fn(|request: Request<Incoming>| {
        let shared = shared.clone();
        async move { Ok::<_, Infallible>(answer(&shared, request).await) }
    });
    // A client that goes is no matter.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(shared: &Shared, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let path = request.uri().path().strip_prefix("/v1/").expect("a call").to_owned();
    let body = request.into_body().collect().await.expect("a body").to_bytes();
    match path.as_str() {
        ListTags::PATH => respond::<ListTags>(shared.state().list(parse(&body))),
        GetTag::PATH => respond::<GetTag>(shared.state().get(parse(&body))),
        DeleteTag::PATH => respond::<DeleteTag>(shared.state().delete(parse(&body))),
        DeleteAllTags::PATH => respond::<DeleteAllTags>(shared.state().delete_all(parse(&body))),
        WatchTags::PATH => respond::<WatchTags>(wait(shared, &parse(&body)).await),
        other => panic!("{other} is not called here"),
    }
}

async fn wait(shared: &Shared, call: &WatchTags) -> Result<Changes, Failure> {
    let mut changed = shared.changed.subscribe();
    let found = shared.state().changes(call)?;
    if found.changes.is_empty() {
        let _ = tokio::time::timeout(Duration::from_secs(call.wait_seconds), changed.changed()).await;
    }
    shared.state().changes(call)
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> T {
    serde_json::from_slice(body).expect("a call")
}

fn respond<C: Call>(answer: Result<C::Answer, Failure>) -> Response<Full<Bytes>> {
    let (status, body) = match answer {
        Ok(answer) => (200, serde_json::to_vec(&answer)),
        Err(failure) => (failure.reason.status(), serde_json::to_vec(&failure)),
    };
    let body = Full::new(body.expect("JSON").into());
    Response::builder().status(status).body(body).expect("an answer")
}
