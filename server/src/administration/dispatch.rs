use std::time::Duration;

use engine::buffer::SIZES;
use engine::oci::Digest;
use engine::{Core, runtime};
use interface::{Call, ClearReadOnly, GetReadOnly, Reason, SetReadOnly, WAIT_SECONDS_MAX};

use super::calls::{
    AskWhy, CancelUpload, GetScrub, GetUsage, ListCollections, ListUploads, Running, StartTask, StopTask,
    TaskState, WatchTask,
};
use super::{Administration, read_only, uploads};
use crate::http::{Body, RequestId};
use crate::private::{Refusal, encode};

/// Bytes of a call.
const BYTES_MAX: usize = 64 << 10;

/// What a call works on, and who makes it.
pub(crate) struct Context<'a> {
    /// The engine on this thread.
    pub(crate) core: &'a Core,
    /// What is administered.
    pub(crate) administration: &'a Administration,
    /// Whom the caller has proved to be; `None`: somebody who may open the private interface.
    pub(crate) user: Option<&'a str>,
    /// The request.
    pub(crate) request: RequestId,
}

impl Context<'_> {
    /// A line of the audit log: something was done.
    pub(super) fn audit(&self, action: &str, what: &str) {
        let user = self.user.unwrap_or("private interface");
        tracing::info!(target: "audit", request = %self.request, user, action, what);
    }
}

/// Answers a call of that path, which is what stands behind `/v1/`, with JSON.
pub(crate) async fn dispatch(
    context: &Context<'_>,
    path: &str,
    body: &mut dyn Body,
) -> Result<Vec<u8>, Refusal> {
    let core = context.core;
    match path {
        SetReadOnly::PATH => encode(&read_only::set(context, receive(core, body).await?).await?),
        ClearReadOnly::PATH => encode(&read_only::clear(context, receive(core, body).await?).await?),
        GetReadOnly::PATH => {
            let GetReadOnly {} = receive(core, body).await?;
            encode(&read_only::get(core))
        }
        StartTask::PATH => encode(&start(context, receive(core, body).await?)?),
        WatchTask::PATH => encode(&watch(context, receive(core, body).await?).await),
        StopTask::PATH => encode(&stop(context, &receive(core, body).await?).await),
        ListCollections::PATH => {
            let ListCollections {} = receive(core, body).await?;
            encode(&core.engine().collections()?)
        }
        GetScrub::PATH => {
            let GetScrub {} = receive(core, body).await?;
            encode(&core.engine().last_scrub()?)
        }
        AskWhy::PATH => encode(&why(core, &receive(core, body).await?).await?),
        GetUsage::PATH => {
            let GetUsage {} = receive(core, body).await?;
            let engine = core.engine();
            encode(&runtime::blocking(move || engine.usage()).await??)
        }
        ListUploads::PATH => {
            let ListUploads {} = receive(core, body).await?;
            encode(&uploads::list(core)?)
        }
        CancelUpload::PATH => encode(&uploads::cancel(context, receive(core, body).await?).await?),
        _ => Err(Refusal::new(Reason::NotFound, format!("there is no call {path}"))),
    }
}

fn start(context: &Context<'_>, call: StartTask) -> Result<Running, Refusal> {
    let StartTask { by, work } = call;
    // What somebody says of themselves stands beside what is known.
    let by = match context.user {
        Some(user) if by.is_empty() => user.to_owned(),
        Some(user) => format!("{user} ({by})"),
        None => by,
    };
    let task = work.task().name();
    let running = context.administration.start(work, by, context.core.now())?;
    context.audit(&format!("start {task}"), &running.by);
    Ok(running)
}

async fn watch(context: &Context<'_>, call: WatchTask) -> TaskState {
    let WatchTask { task, after, wait_seconds } = call;
    let wait = Duration::from_secs(wait_seconds.min(WAIT_SECONDS_MAX));
    context.administration.watch(task, after, wait).await
}

async fn stop(context: &Context<'_>, call: &StopTask) -> TaskState {
    let administration = context.administration;
    let state = administration.watch(call.task, 0, Duration::ZERO).await;
    if let Some(running) = &state.running {
        administration.tasks.stop(call.task);
        context.audit(&format!("stop {}", call.task.name()), &running.by);
    }
    state
}

async fn why(core: &Core, call: &AskWhy) -> Result<engine::integrity::Why, Refusal> {
    let digest: Digest = call.digest.parse().map_err(|error| Refusal::invalid(format!("{error}")))?;
    let engine = core.engine();
    Ok(runtime::blocking(move || engine.why(&digest)).await??)
}

/// Receives and parses a call.
async fn receive<C: Call>(core: &Core, body: &mut dyn Body) -> Result<C, Refusal> {
    let too_large = || Refusal::invalid(format!("{} takes at most {BYTES_MAX} bytes", C::PATH));
    if body.remaining().is_some_and(|remaining| remaining > BYTES_MAX as u64) {
        return Err(too_large());
    }
    let mut text = Vec::new();
    loop {
        let (ended, buffer) = body.fill(core.buffers().take(SIZES[0])).await;
        text.extend_from_slice(&buffer);
        if text.len() > BYTES_MAX {
            return Err(too_large());
        }
        if ended.map_err(|error| Refusal::invalid(error.to_string()))? {
            break;
        }
    }
    serde_json::from_slice(&text)
        .map_err(|error| Refusal::invalid(format!("the body is no call of {}: {error}", C::PATH)))
}
