use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use engine::{Core, Engine, runtime};
use tokio::sync::oneshot;

/// Whose holds on writes are a collection's. Nobody else may have this name.
pub(super) const OWNER: &str = "gc";

/// How often is looked, while running writes end, whether the collection is to stop.
const LOOK_PERIOD: Duration = Duration::from_millis(100);

/// Why writing is paused.
const REASON: &str = "garbage is being collected";

/// That writing is paused, while a collection marks. Dropped, it goes on; where the process dies, the hold's own end lets it go
/// on, or the next start.
pub(super) struct Window {
    /// Dropped, it lets writing go on.
    close: Option<oneshot::Sender<()>>,
    /// Told when it does.
    closed: mpsc::Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

/// How writing is paused.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    /// When it goes on in any case, the draining counted in.
    pub(super) lease: Duration,
    /// How long running writes may take to end.
    pub(super) drain: Duration,
}

/// How it was tried to pause writing.
enum Opening {
    Opened,
    /// Somebody else has done so, who will also let it go on.
    HeldByOther,
    Failed(String),
}

impl Window {
    /// Pauses writing, and waits until no write is running. `None`: somebody else keeps the registry read-only already, which
    /// does as well. An error where `is_stopping` says so meanwhile.
    ///
    /// The hold is had by a thread of its own, which has a runtime for as long as that lasts: so what begins and ends the
    /// window costs none of its time.
    pub(super) fn open(
        engine: &Engine,
        terms: Terms,
        is_stopping: impl Fn() -> bool,
    ) -> Result<Option<Self>, String> {
        let engine = engine.clone();
        let (opened, opening) = mpsc::channel();
        let (close, closing) = oneshot::channel();
        let (closing_is_done, closed) = mpsc::channel();
        let run = move || {
            let failed = opened.clone();
            let held = runtime::run(hold(engine, terms, opened, closing, closing_is_done));
            if let Err(error) = held {
                let _ = failed.send(Opening::Failed(error.to_string()));
            }
        };
        let thread = thread::Builder::new().name("window".into()).spawn(run);
        let thread = Some(thread.map_err(|error| error.to_string())?);
        let window = Self { close: Some(close), closed, thread };
        loop {
            match opening.recv_timeout(LOOK_PERIOD) {
                Ok(Opening::Opened) => return Ok(Some(window)),
                Ok(Opening::HeldByOther) => return Ok(None),
                Ok(Opening::Failed(error)) => return Err(error),
                // Writing goes on as the window is dropped.
                Err(RecvTimeoutError::Timeout) if is_stopping() => return Err("it was stopped".to_owned()),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err("its thread ended".to_owned()),
            }
        }
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        drop(self.close.take());
        // The thread still has its runtime to end, which nobody needs to wait for.
        let _ = self.closed.recv();
        drop(self.thread.take());
    }
}

async fn hold(
    engine: Engine,
    terms: Terms,
    opened: mpsc::Sender<Opening>,
    mut closing: oneshot::Receiver<()>,
    closed: mpsc::Sender<()>,
) {
    let core = match engine.core() {
        Ok(core) => core,
        Err(error) => return drop(opened.send(Opening::Failed(error.to_string()))),
    };
    let held = runtime::select! {
        held = core.hold_writes(OWNER.into(), REASON.into(), terms.lease, terms.drain) => held,
        _ = &mut closing => {
            release(&core, terms).await;
            return drop(closed.send(()));
        }
    };
    let opening = match &held {
        Ok(Ok(_)) => Opening::Opened,
        Ok(Err(other)) => {
            tracing::info!(
                owner = other.0.owner,
                "collecting while somebody else keeps the registry read-only"
            );
            Opening::HeldByOther
        }
        Err(error) => Opening::Failed(error.to_string()),
    };
    let is_open = matches!(opening, Opening::Opened);
    // Where nobody waits any more, the window closes at once: then its other end is gone.
    let _ = opened.send(opening);
    if !is_open {
        return;
    }
    let _ = closing.await;
    release(&core, terms).await;
    let _ = closed.send(());
}

async fn release(core: &Core, terms: Terms) {
    match core.release_writes(Some(OWNER.into())).await {
        Ok(Ok(Some(_))) => {}
        Ok(Ok(None)) => tracing::warn!(
            limit = ?terms.lease,
            "marking took longer than writing may be paused: it went on before (setting gc.lease)"
        ),
        Ok(Err(other)) => {
            tracing::warn!(owner = other.0.owner, "somebody else keeps the registry read-only by now");
        }
        Err(error) => {
            tracing::error!(%error, "writing cannot be let go on; it does after the time of the setting gc.lease")
        }
    }
}

#[cfg(test)]
mod tests {
    use engine::{EngineOptions, Environment};

    use super::*;

    const TERMS: Terms = Terms { lease: Duration::from_secs(600), drain: Duration::from_secs(600) };

    fn with_core(test: impl AsyncFnOnce(Engine, Core)) {
        let root = tempfile::tempdir().expect("a directory");
        let options = EngineOptions {
            root: root.path().to_path_buf(),
            direct_writes: false,
            reserve_bytes: 0,
            cache_bytes: 1 << 20,
            buffer_bytes: 1 << 20,
            upload_expiry: Duration::from_secs(3600),
        };
        let engine = Engine::open(options, Environment::system()).expect("opens");
        runtime::run(async { test(engine.clone(), engine.core().expect("a ring")).await })
            .expect("a runtime");
    }

    #[test]
    fn writing_goes_on_when_it_is_dropped() {
        with_core(async |engine, core| {
            let window = Window::open(&engine, TERMS, || false).expect("opens").expect("nobody else has it");
            assert!(core.begin_write().is_err_and(|hold| hold.owner == OWNER));
            drop(window);
            assert!(core.begin_write().is_ok());
        });
    }

    #[test]
    fn a_collection_that_is_stopped_waits_for_no_write() {
        with_core(async |engine, core| {
            let write = core.begin_write().expect("open");
            assert!(Window::open(&engine, TERMS, || true).is_err());
            assert_eq!(core.hold(), None);
            drop(write);
        });
    }

    #[test]
    fn somebody_elses_hold_is_left_alone() {
        with_core(async |engine, core| {
            let held = core.hold_writes("jane".into(), "a test".into(), TERMS.lease, Duration::ZERO).await;
            held.expect("the store works").expect("free");
            assert!(Window::open(&engine, TERMS, || false).expect("opens").is_none());
            assert!(core.hold().is_some_and(|hold| hold.owner == "jane"));
        });
    }
}
