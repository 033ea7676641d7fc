use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use engine::buffer::SIZES;
use engine::{Core, Write, WriteStage, runtime};
use http::{Method, StatusCode};
use interface::{
    AnswerReview, Call, DeleteAllTags, DeleteTag, GetTag, ListPrefixes, ListTags, NextReviews,
    PurgeNamespace, Reason, SetNamespaces, SetRules, WatchTags,
};
use serde::Serialize;
use tokio::sync::{Mutex, watch};

use super::refusal::Refusal;
use super::{authority, namespaces, tags};
use crate::access::Reviewer;
use crate::administration;
use crate::http::{Body, LocalFuture, Request, RequestId, Response, Service};
use crate::registry::Shared;

/// Bytes of a call that brings lists of what there is in a cluster.
const LARGE_BYTES_MAX: usize = 16 << 20;

/// Bytes of any other call.
const SMALL_BYTES_MAX: usize = 1 << 20;

const JSON: &str = "application/json";

/// What calls work on, of all connections.
pub(super) struct Context {
    pub(super) core: Core,
    pub(super) shared: Arc<Shared>,
    /// Ends the calls that wait.
    pub(super) stopping: watch::Receiver<()>,
    /// Ends the connections.
    pub(super) is_stopping: Cell<bool>,
    /// Held while rules are set.
    pub(super) setting_rules: Arc<Mutex<()>>,
    /// Names the next request.
    pub(super) next_id: Cell<u64>,
}

impl Context {
    /// Waits until a call need not wait any more: its caller has gone, or the program ends.
    pub(super) async fn called_off(&self, peer: &mut dyn Body) {
        let mut stopping = self.stopping.clone();
        runtime::select! {
            () = peer.interrupted() => {}
            _ = stopping.changed() => {}
        }
    }

    /// Begins a call that deletes; an error while the registry is read-only.
    pub(super) fn begin_write(&self) -> Result<Write, Refusal> {
        Ok(self.core.begin_write()?)
    }

    /// Before each further step of such a call.
    pub(super) fn check_write(&self) -> Result<(), Refusal> {
        Ok(self.core.check_write(WriteStage::Running)?)
    }
}

/// Answers the calls of a connection.
pub(super) struct Calls {
    context: Rc<Context>,
    /// Has what was taken over this connection; it goes back to others when the connection ends.
    reviewer: Reviewer,
}

impl Calls {
    pub(super) fn new(context: Rc<Context>) -> Self {
        let reviewer = context.shared.authority.reviewer();
        Self { context, reviewer }
    }

    async fn answer(&self, mut request: Request<'_>) -> Response {
        let started = std::time::Instant::now();
        let (id, path) = (request.id, std::mem::take(&mut request.path));
        let response = match self.dispatch(&path, request).await {
            Ok(answer) => Response::new(StatusCode::OK).with_body(JSON, answer),
            Err(refusal) => {
                if refusal.0.reason == Reason::Internal {
                    tracing::error!(request = %id, path, error = %refusal.0, "a private call failed");
                }
                refusal.into_response()
            }
        };
        tracing::debug!(
            request = %id, path, status = response.status.as_u16(), bytes = response.body.len(),
            microseconds = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX), "answered privately"
        );
        response
    }

    async fn dispatch(&self, path: &str, mut request: Request<'_>) -> Result<Vec<u8>, Refusal> {
        let context = &self.context;
        let (id, request) = (request.id, &mut request);
        match path.strip_prefix("/v1/").unwrap_or_default() {
            ListTags::PATH => tags::list(context, self.receive(request).await?).await,
            GetTag::PATH => encode(&tags::get(context, self.receive(request).await?).await?),
            DeleteTag::PATH => encode(&tags::delete(context, self.receive(request).await?, id).await?),
            DeleteAllTags::PATH => {
                encode(&tags::delete_all(context, self.receive(request).await?, id).await?)
            }
            WatchTags::PATH => {
                let call = self.receive(request).await?;
                encode(&tags::watch(context, request.body, call).await?)
            }
            ListPrefixes::PATH => encode(&namespaces::prefixes(context, &self.receive(request).await?)?),
            PurgeNamespace::PATH => {
                encode(&namespaces::purge(context, self.receive(request).await?, id).await?)
            }
            SetRules::PATH => encode(&authority::set_rules(context, self.receive(request).await?).await?),
            SetNamespaces::PATH => encode(&authority::set_namespaces(context, self.receive(request).await?)),
            NextReviews::PATH => {
                let call = self.receive(request).await?;
                encode(&authority::next_reviews(context, &self.reviewer, request.body, call).await)
            }
            AnswerReview::PATH => encode(&authority::answer_review(context, self.receive(request).await?)),
            path => self.administer(path, request).await,
        }
    }

    /// Answers a call of administration: whoever may open this interface may administer.
    async fn administer(&self, path: &str, request: &mut Request<'_>) -> Result<Vec<u8>, Refusal> {
        if request.method != Method::POST {
            return Err(Refusal::invalid("calls are made by POST"));
        }
        let administration = &self.context.shared.administration;
        let context = administration::Context {
            core: &self.context.core,
            administration,
            user: None,
            request: request.id,
        };
        administration::dispatch(&context, path, request.body).await
    }

    /// Receives and parses a call.
    async fn receive<C: Call>(&self, request: &mut Request<'_>) -> Result<C, Refusal> {
        if request.method != Method::POST {
            return Err(Refusal::invalid(format!("{} is called by POST", C::PATH)));
        }
        let most = match C::PATH {
            SetRules::PATH | SetNamespaces::PATH | DeleteAllTags::PATH => LARGE_BYTES_MAX,
            _ => SMALL_BYTES_MAX,
        };
        let too_large = || Refusal::invalid(format!("{} takes at most {most} bytes", C::PATH));
        if request.body.remaining().is_some_and(|remaining| remaining > most as u64) {
            return Err(too_large());
        }
        let mut body = Vec::new();
        loop {
            let buffer = self.context.core.buffers().take(SIZES[1]);
            let (result, buffer) = request.body.fill(buffer).await;
            body.extend_from_slice(&buffer);
            if body.len() > most {
                return Err(too_large());
            }
            match result {
                Ok(false) => {}
                Ok(true) => break,
                Err(error) => return Err(Refusal::invalid(error.to_string())),
            }
        }
        // The text is not repeated: there may be a token in it.
        serde_json::from_slice(&body).map_err(|error| {
            let place = format!("line {}, column {}", error.line(), error.column());
            Refusal::invalid(format!("the body is no call of {}: {place}", C::PATH))
        })
    }
}

/// An answer as JSON.
pub(crate) fn encode<A: Serialize>(answer: &A) -> Result<Vec<u8>, Refusal> {
    serde_json::to_vec(answer).map_err(|error| Refusal::new(Reason::Internal, error.to_string()))
}

impl Service for Calls {
    fn call<'a>(&'a self, request: Request<'a>) -> LocalFuture<'a, Response> {
        Box::pin(self.answer(request))
    }

    fn refuse(&self, id: RequestId, status: StatusCode, message: &str) -> Response {
        tracing::debug!(request = %id, status = status.as_u16(), message, "a private request that cannot be understood");
        let mut response = Refusal::invalid(message).into_response();
        response.status = status;
        response
    }

    fn next_id(&self) -> RequestId {
        let id = self.context.next_id.get();
        self.context.next_id.set(id.wrapping_add(1));
        RequestId(id)
    }

    fn is_stopping(&self) -> bool {
        self.context.is_stopping.get()
    }
}
