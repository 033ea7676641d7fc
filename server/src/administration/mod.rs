//! Administration: collection of garbage, read-only mode, integrity, and looking into the store.
//!
//! The calls are those of [`calls`], and of the crate `interface` for read-only mode. They come by the private interface, from
//! those who may open it, and by the public listener below `/admin/v1/`, from those whom the cluster's rules let administer;
//! [`dispatch()`] knows of neither.
//!
//! What takes long is a task ([`tasks`]): it runs on a thread of its own, one of a kind at a time, and goes on whether or
//! not somebody looks.

pub mod calls;
mod collection;
mod dispatch;
mod integrity;
mod read_only;
mod schedule;
mod tasks;
mod uploads;
mod window;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use engine::metadata::Timestamp;
use engine::{Core, Engine, EngineError};
use tokio::sync::watch;

use crate::operations::UpkeepMetrics;
use crate::private::Refusal;
use crate::settings::{GcSettings, ScrubSettings};
use calls::{Running, Task, TaskState, Work};
pub(crate) use collection::{options as collection_options, phase_name as collection_phase_name};
pub(crate) use dispatch::{Context, dispatch};
pub(crate) use integrity::{check_options, phase_name as integrity_phase_name};
use schedule::Schedule;
use tasks::Tasks;

/// Who begins tasks whose time has come.
const SCHEDULE: &str = "schedule";

/// What administration has in memory, for the whole process.
pub struct Administration {
    engine: Engine,
    gc: GcSettings,
    scrub: ScrubSettings,
    metrics: UpkeepMetrics,
    tasks: Tasks,
    schedule: Mutex<Schedule>,
    is_stopping: AtomicBool,
    /// Ends the calls that wait.
    stop: watch::Sender<()>,
}

impl Administration {
    /// Administration of an engine. Looks up when collections and scrubs took place last.
    pub fn new(
        engine: Engine,
        gc: GcSettings,
        scrub: ScrubSettings,
        metrics: UpkeepMetrics,
    ) -> Result<Self, EngineError> {
        engine.set_lease(gc.told_age.get());
        let collections = engine.collections()?;
        let last = collections.iter().find(|report| !report.dry_run);
        if let Some(last) = last {
            metrics.remember(last);
        }
        let schedule = Schedule::new(
            (gc.interval.get(), last.map(|report| report.began_at_ms)),
            (scrub.interval.get(), engine.last_scrub()?.as_ref()),
        );
        Ok(Self {
            engine,
            gc,
            scrub,
            metrics,
            tasks: Tasks::default(),
            schedule: Mutex::new(schedule),
            is_stopping: AtomicBool::new(false),
            stop: watch::Sender::new(()),
        })
    }

    /// Ends the hold that a collection of this registry has left behind that died while it had one. To be called before
    /// anything is served.
    pub async fn end_dead_window(&self, core: &Core) -> Result<(), EngineError> {
        if core.hold().is_none_or(|hold| hold.owner != window::OWNER) {
            return Ok(());
        }
        if core.release_writes(Some(window::OWNER.to_owned())).await?.is_ok() {
            tracing::warn!("a collection has died while it paused writing: the registry takes writes again");
        }
        Ok(())
    }

    /// Begins what is due by the schedule. To be called about once a second.
    pub fn begin_due(&self, now: Timestamp) {
        let mut schedule = self.schedule.lock().unwrap_or_else(PoisonError::into_inner);
        for work in schedule.due(now) {
            let task = work.task();
            match self.start(work, SCHEDULE.to_owned(), now) {
                Ok(_) => tracing::info!(task = task.name(), "begun by the schedule"),
                // Somebody else has begun one: that will do.
                Err(refusal) => {
                    tracing::debug!(task = task.name(), reason = %refusal.0, "not begun by the schedule")
                }
            }
        }
    }

    /// Begins a task; an error where one of that kind is running.
    fn start(&self, work: Work, by: String, now: Timestamp) -> Result<Running, Refusal> {
        let (engine, metrics) = (self.engine.clone(), self.metrics.clone());
        match &work {
            Work::Collection(request) => {
                let collection = collection::Collection::new(engine, &self.gc, request, metrics);
                self.tasks.begin(work, by, now, move |told| collection.run(told))
            }
            Work::Scrub(request) => {
                let options = integrity::scrub_options(&self.scrub, request);
                self.tasks
                    .begin(work, by, now, move |told| integrity::scrub(&engine, &options, &metrics, told))
            }
            Work::Check(request) => {
                let options = integrity::check_options(request);
                self.tasks.begin(work, by, now, move |told| integrity::check(&engine, &options, told))
            }
            Work::Export(request) => {
                let rate = request.bytes_per_second.unwrap_or(engine::integrity::EXPORT_RATE_DEFAULT);
                self.tasks.begin(work, by, now, move |told| integrity::export(&engine, rate, told))
            }
        }
    }

    /// What a task is doing, as soon as that is something else than `after`, or `wait` is over.
    async fn watch(&self, task: Task, after: u64, wait: Duration) -> TaskState {
        // In this order: who subscribes before the end begins is told of it.
        let stopping = self.stop.subscribe();
        let wait = if self.is_stopping.load(Ordering::SeqCst) { Duration::ZERO } else { wait };
        self.tasks.watch(task, after, wait, stopping).await
    }

    /// Ends what is running at its next step, and the calls that wait; nothing is begun any more.
    pub fn begin_stop(&self) {
        self.is_stopping.store(true, Ordering::SeqCst);
        self.tasks.close();
        self.stop.send_replace(());
    }

    /// Waits for the end of what was running. After [`Administration::begin_stop`].
    pub fn wait_for_end(&self) {
        self.tasks.wait_for_end();
    }
}
