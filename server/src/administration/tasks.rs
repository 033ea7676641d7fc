//! Tasks: each kind has one thread at most, which goes on whether or not somebody looks, and a state that many look at.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use engine::Environment;
use engine::metadata::Timestamp;
use engine::runtime::{self, Instant};
use interface::Reason;
use tokio::sync::watch;

use super::calls::{Ended, Outcome, Progress, Running, Task, TaskState, Work};
use crate::private::Refusal;
use crate::timestamp::rfc3339;

/// How often those who look at a task are told how far it is, at most: a bar moves smoothly with that, and a collection has
/// better things to do than to wake its lookers. Its end is told at once.
const PROGRESS_PERIOD: Duration = Duration::from_millis(100);

/// The tasks of each kind.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    slots: [Slot; Task::ALL.len()],
    /// Whether none is begun any more.
    is_closed: AtomicBool,
}

/// The tasks of one kind.
#[derive(Debug, Default)]
struct Slot {
    state: watch::Sender<TaskState>,
    /// Of the task that is running, or ran last.
    thread: Mutex<Option<Thread>>,
}

#[derive(Debug)]
struct Thread {
    handle: JoinHandle<()>,
    is_stopping: Arc<AtomicBool>,
}

/// What a task tells, and is told, while it runs.
pub(super) struct Told {
    state: watch::Sender<TaskState>,
    is_stopping: Arc<AtomicBool>,
    /// When progress was last told.
    progressed_at: Mutex<Option<std::time::Instant>>,
}

impl Told {
    /// Says how far the task is. The first word about a phase and the last one are told in any case.
    pub(super) fn progress(&self, phase: &str, done: u64, total: u64) {
        let mut told_at = self.progressed_at.lock().unwrap_or_else(PoisonError::into_inner);
        let is_early = told_at.is_some_and(|at| at.elapsed() < PROGRESS_PERIOD) && done != total;
        self.state.send_if_modified(|state| {
            let Some(running) = &mut state.running else { return false };
            let is_known = |told: &Progress| {
                told.phase == phase && (is_early || (told.done, told.total) == (done, total))
            };
            if running.progress.as_ref().is_some_and(is_known) {
                return false;
            }
            running.progress = Some(Progress { phase: phase.to_owned(), done, total });
            state.version += 1;
            *told_at = Some(std::time::Instant::now());
            true
        });
    }

    /// Whether the task goes on.
    pub(super) fn goes_on(&self) -> ControlFlow<()> {
        if self.is_stopping() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Whether the task is to end.
    pub(super) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::SeqCst)
    }
}

impl Tasks {
    fn slot(&self, task: Task) -> &Slot {
        &self.slots[match task {
            Task::Collection => 0,
            Task::Scrub => 1,
            Task::Check => 2,
            Task::Export => 3,
        }]
    }

    /// Runs `run` on a thread; an error where a task of that kind is running.
    pub(super) fn begin(
        &self,
        work: Work,
        by: String,
        now: Timestamp,
        run: impl FnOnce(&Told) -> Outcome + Send + 'static,
    ) -> Result<Running, Refusal> {
        let task = work.task();
        let slot = self.slot(task);
        // One begins at a time, so that what is found here still holds below.
        let mut thread = slot.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_closed.load(Ordering::SeqCst) {
            return Err(Refusal::unavailable("the registry is about to stop"));
        }
        if let Some(running) = &slot.state.borrow().running {
            return Err(conflict(task, running));
        }
        let id = hex::encode(Environment::system().entropy.random());
        let running = Running { id, by, began_at_ms: now.0, work, progress: None };
        let is_stopping = Arc::new(AtomicBool::new(false));
        let told = Told {
            state: slot.state.clone(),
            is_stopping: is_stopping.clone(),
            progressed_at: Mutex::default(),
        };
        let ending = {
            let (id, by) = (running.id.clone(), running.by.clone());
            move |outcome| Ended { id, by, outcome }
        };
        slot.state.send_modify(|state| {
            state.version += 1;
            state.running = Some(running.clone());
        });
        let handle = thread::Builder::new().name(task.name().to_owned()).spawn(move || {
            // A panic is a mistake of ours; it ends the task, whose state is not looked at again, and nothing else.
            let outcome = catch_unwind(AssertUnwindSafe(|| run(&told)))
                .unwrap_or_else(|_| Outcome::Failed(format!("the {} ended by a panic", task.name())));
            end(&told.state, ending(outcome));
        });
        match handle {
            Ok(handle) => {
                *thread = Some(Thread { handle, is_stopping });
                Ok(running)
            }
            Err(error) => {
                slot.state.send_modify(|state| {
                    state.version += 1;
                    state.running = None;
                });
                Err(Refusal::unavailable(format!("cannot start a thread for the {}: {error}", task.name())))
            }
        }
    }

    /// What a kind of task is doing, as soon as that is something else than `after`, or `wait` is over.
    pub(super) async fn watch(
        &self,
        task: Task,
        after: u64,
        wait: Duration,
        mut stopping: watch::Receiver<()>,
    ) -> TaskState {
        let deadline = Instant::now() + wait;
        let mut state = self.slot(task).state.subscribe();
        loop {
            let now = state.borrow_and_update().clone();
            let left = deadline.saturating_duration_since(Instant::now());
            if now.version != after || left.is_zero() {
                return now;
            }
            runtime::select! {
                _ = state.changed() => {}
                _ = runtime::sleep(left) => {}
                _ = stopping.changed() => return now,
            }
        }
    }

    /// Asks a task to end at its next step.
    pub(super) fn stop(&self, task: Task) {
        let thread = self.slot(task).thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = &*thread {
            thread.is_stopping.store(true, Ordering::SeqCst);
        }
    }

    /// Asks all of them, and begins none any more.
    pub(super) fn close(&self) {
        // First: whoever begins one from here on finds this, and the others are found below.
        self.is_closed.store(true, Ordering::SeqCst);
        Task::ALL.into_iter().for_each(|task| self.stop(task));
    }

    /// Waits until none is running.
    pub(super) fn wait_for_end(&self) {
        for slot in &self.slots {
            let thread = slot.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(thread) = thread
                && thread.handle.join().is_err()
            {
                tracing::error!("the thread of a task ended by a panic");
            }
        }
    }
}

fn end(state: &watch::Sender<TaskState>, ended: Ended) {
    state.send_modify(|state| {
        state.version += 1;
        state.running = None;
        state.last = Some(ended);
    });
}

fn conflict(task: Task, running: &Running) -> Refusal {
    let since = rfc3339(Timestamp(running.began_at_ms));
    let message = format!("a {} is running already: begun by {}, {since}", task.name(), running.by);
    Refusal::new(Reason::Conflict, message)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::administration::calls::{CheckRequest, ScrubRequest};

    fn check(
        by: &str,
        tasks: &Tasks,
        run: impl FnOnce(&Told) -> Outcome + Send + 'static,
    ) -> Result<Running, Refusal> {
        tasks.begin(Work::Check(CheckRequest::default()), by.to_owned(), Timestamp(0), run)
    }

    async fn state_after(tasks: &Tasks, after: u64) -> TaskState {
        let never = watch::Sender::new(());
        tasks.watch(Task::Check, after, Duration::from_secs(60), never.subscribe()).await
    }

    #[test]
    fn progress_is_told_now_and_then_and_at_the_end_of_a_phase() {
        runtime::run(async {
            let tasks = Tasks::default();
            let (told_all, has_told_all) = mpsc::channel::<Duration>();
            let (end, ending) = mpsc::channel::<()>();
            check("jane", &tasks, move |told| {
                let since = std::time::Instant::now();
                for phase in ["counting", "comparing"] {
                    (1..=20_000).for_each(|done: u64| told.progress(phase, done.min(10_000), 10_000));
                }
                let _ = told_all.send(since.elapsed());
                let _ = ending.recv();
                Outcome::Failed("done".into())
            })
            .expect("nothing runs");
            let took = has_told_all.recv().expect("it goes on");
            let state = state_after(&tasks, 0).await;
            let progress = state.running.and_then(|running| running.progress);
            assert_eq!(progress, Some(Progress { phase: "comparing".into(), done: 10_000, total: 10_000 }));
            // The beginning, and the first and the last word of each phase.
            let periods = took.as_millis() / PROGRESS_PERIOD.as_millis();
            assert!(u128::from(state.version) <= 5 + periods, "{} after {took:?}", state.version);
            drop(end);
            tasks.wait_for_end();
        })
        .expect("a runtime");
    }

    #[test]
    fn one_of_a_kind_runs_and_many_look() {
        runtime::run(async {
            let tasks = Tasks::default();
            let (go_on, waiting) = mpsc::channel::<()>();
            let first = check("jane", &tasks, move |told| {
                told.progress("counting", 1, 2);
                let _ = waiting.recv();
                Outcome::Failed(format!("stopped: {}", told.is_stopping()))
            })
            .expect("nothing runs");
            let refused = check("john", &tasks, |_| unreachable!("one runs")).expect_err("one runs");
            assert_eq!(refused.0.reason, Reason::Conflict);
            assert!(refused.0.message.contains("begun by jane"), "{}", refused.0.message);
            tasks
                .begin(Work::Scrub(ScrubRequest::default()), "john".into(), Timestamp(0), |_| {
                    Outcome::Failed("another kind".into())
                })
                .expect("another kind");

            let mut state = state_after(&tasks, 0).await;
            while state.running.as_ref().is_some_and(|running| running.progress.is_none()) {
                state = state_after(&tasks, state.version).await;
            }
            let progress = Progress { phase: "counting".into(), done: 1, total: 2 };
            assert_eq!(state.running, Some(Running { progress: Some(progress), ..first.clone() }));
            tasks.stop(Task::Check);
            drop(go_on);
            let state = state_after(&tasks, state.version).await;
            assert_eq!(state.running, None);
            let outcome = Outcome::Failed("stopped: true".into());
            assert_eq!(state.last, Some(Ended { id: first.id.clone(), by: "jane".into(), outcome }));
            let second = check("jane", &tasks, |_| panic!("a test")).expect("nothing runs");
            assert_ne!(second.id, first.id);
            tasks.close();
            check("jane", &tasks, |_| unreachable!("closed")).expect_err("closed");
            tasks.wait_for_end();
            let last = state_after(&tasks, 0).await.last.expect("it has ended");
            assert!(matches!(last.outcome, Outcome::Failed(text) if text.contains("panic")));
        })
        .expect("a runtime");
    }
}
