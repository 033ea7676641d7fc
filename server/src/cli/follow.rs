//! Tasks of a running registry: begun, joined and followed to their end.

use std::time::Duration;

use clap::Args;
use interface::Reason;
use interface::client::{CallError, Registry};
use tokio::time::{Instant, sleep};

use super::exit::{CommandError, Exit};
use super::progress::Progress;
use crate::administration::calls::{
    Ended, Outcome, Report, Running, StartTask, StopTask, Task, TaskState, WatchTask, Work,
};

/// Seconds that one look at a task waits for something new.
const WAIT_SECONDS: u64 = 20;

/// How often is looked at most where nothing is new: a registry that is about to stop does not wait for something.
const LOOK_PERIOD: Duration = Duration::from_millis(100);

/// How long a registry that does not answer any more is tried again: one that is restarted is back by then.
const RETRY_TIME: Duration = Duration::from_secs(60);

/// How often.
const RETRY_PERIOD: Duration = Duration::from_secs(1);

/// Whether a task is waited for.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Follow {
    /// Where one is running already, wait for that and print what comes of it, instead of ending with 3.
    #[arg(long)]
    join: bool,
    /// Begin it, and do not wait for its end.
    #[arg(long, conflicts_with = "join")]
    detach: bool,
}

impl Follow {
    /// Has the registry do some work. The report; `None` where nobody waits for it.
    pub(super) async fn run(
        &self,
        registry: &Registry,
        work: Work,
        progress: &mut Progress,
    ) -> Result<Option<Report>, CommandError> {
        let running = self.start(registry, work, progress).await?;
        if self.detach {
            progress.say("begun");
            return Ok(None);
        }
        let ended = follow(registry, running, progress).await;
        progress.end();
        match ended?.outcome {
            Outcome::Done(report) => Ok(Some(*report)),
            Outcome::Failed(message) => Err(CommandError::failed(message)),
        }
    }

    /// Begins it, or finds one like it that is running.
    async fn start(
        &self,
        registry: &Registry,
        work: Work,
        progress: &Progress,
    ) -> Result<Running, CommandError> {
        loop {
            match registry.call(&StartTask { by: caller(), work: work.clone() }).await {
                Err(CallError::Failed(failure)) if self.join && failure.reason == Reason::Conflict => {
                    match look(registry, work.task(), 0, 0).await?.running {
                        Some(running) if is_alike(&running.work, &work) => {
                            progress.say(&format!("waiting for the one that {} has begun", running.by));
                            return Ok(running);
                        }
                        Some(_) => return Err(CallError::Failed(failure).into()),
                        // It has ended in the meantime.
                        None => {}
                    }
                }
                started => return Ok(started?),
            }
        }
    }
}

/// Whether somebody who wants one of them is served by the other.
fn is_alike(one: &Work, other: &Work) -> bool {
    match (one, other) {
        (Work::Collection(one), Work::Collection(other)) => one.dry_run == other.dry_run,
        (Work::Check(one), Work::Check(other)) => one.repair == other.repair,
        (one, other) => one.task() == other.task(),
    }
}

/// Asks the task that is running to end; whether there is one.
pub(super) async fn stop(registry: &Registry, task: Task) -> Result<bool, CommandError> {
    Ok(registry.call(&StopTask { task }).await?.running.is_some())
}

async fn follow(
    registry: &Registry,
    running: Running,
    progress: &mut Progress,
) -> Result<Ended, CommandError> {
    let task = running.work.task();
    let (id, mut version) = (running.id, 0);
    loop {
        let state = look(registry, task, version, WAIT_SECONDS).await?;
        let is_new = std::mem::replace(&mut version, state.version) != state.version;
        if let Some(ended) = state.last.filter(|ended| ended.id == id) {
            return Ok(ended);
        }
        match state.running.filter(|running| running.id == id) {
            Some(running) => {
                if let Some(so_far) = running.progress {
                    progress.show(&so_far.phase, so_far.done, so_far.total);
                }
            }
            None => {
                let message = format!(
                    "the registry knows nothing of this {} any more: it was restarted, and the {0} ended with it; begin another one",
                    task.name()
                );
                return Err(CommandError::new(Exit::Failed, message));
            }
        }
        if !is_new {
            sleep(LOOK_PERIOD).await;
        }
    }
}

/// Looks at a task; again, where the registry does not answer for a while.
async fn look(
    registry: &Registry,
    task: Task,
    after: u64,
    wait_seconds: u64,
) -> Result<TaskState, CommandError> {
    let give_up_at = Instant::now() + RETRY_TIME;
    loop {
        match registry.call(&WatchTask { task, after, wait_seconds }).await {
            Err(error) if is_passing(&error) && Instant::now() < give_up_at => sleep(RETRY_PERIOD).await,
            answer => return Ok(answer?),
        }
    }
}

fn is_passing(error: &CallError) -> bool {
    match error {
        CallError::Unreachable(_) => true,
        CallError::Failed(failure) => failure.reason == Reason::Unavailable,
        CallError::Token(_) => false,
    }
}

/// Who calls, for people: the host's name, which is a pod's name in a cluster.
fn caller() -> String {
    let host = rustix::system::uname();
    format!("payload-registry on {}", host.nodename().to_string_lossy())
}
