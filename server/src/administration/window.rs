use std::io;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use engine::{Core, Engine, EngineError, HeldByOther, Hold, runtime};

/// Whose holds on writes are a collection's. Nobody else may have this name.
pub(super) const OWNER: &str = "gc";

/// How often is looked, while running writes end, whether the collection is to stop.
const LOOK_PERIOD: Duration = Duration::from_millis(100);

/// Why writing is paused.
const REASON: &str = "garbage is being collected";

/// How writing is paused.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    /// When it goes on in any case, the draining counted in.
    pub(super) lease: Duration,
    /// How long running writes may take to end.
    pub(super) drain: Duration,
}

/// The window of a collection: writing is paused while it is open. Dropped, it is closed; where the process dies, the hold's
/// own end lets writing go on, or the next start.
///
/// The hold is had by a thread of its own, whose runtime is there before the window opens and goes after it has closed: so it
/// costs none of the window's time.
pub(super) struct Window {
    /// Dropped, it ends the thread, and with that the window.
    commands: Option<tokio::sync::mpsc::UnboundedSender<Command>>,
    answers: mpsc::Receiver<Answer>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread is asked to do.
enum Command {
    Open,
    Close,
}

/// What came of it.
enum Answer {
    Opened,
    /// Somebody else keeps the registry read-only already, who will also let it go on.
    HeldByOther,
    Closed,
    Failed(String),
}

impl Window {
    /// A window that is closed.
    pub(super) fn new(engine: &Engine, terms: Terms) -> io::Result<Self> {
        let engine = engine.clone();
        let (commands, asked) = tokio::sync::mpsc::unbounded_channel();
        let (answer, answers) = mpsc::channel();
        let run = move || {
            let failed = answer.clone();
            let served = runtime::run(async { serve(&engine.core()?, terms, asked, answer).await });
            if let Err(error) = served.flatten() {
                let _ = failed.send(Answer::Failed(error.to_string()));
            }
        };
        let thread = thread::Builder::new().name("window".into()).spawn(run)?;
        Ok(Self { commands: Some(commands), answers, thread: Some(thread) })
    }

    /// Pauses writing, and waits until no write is running; an error where that fails, or `is_stopping` says so meanwhile.
    /// Where somebody else keeps the registry read-only already, that does as well.
    pub(super) fn open(&self, is_stopping: impl Fn() -> bool) -> Result<(), String> {
        self.ask(Command::Open);
        loop {
            match self.answers.recv_timeout(LOOK_PERIOD) {
                Ok(Answer::Failed(error)) => {
                    // Writing may be paused all the same.
                    self.close();
                    return Err(error);
                }
                Ok(Answer::Opened | Answer::HeldByOther | Answer::Closed) => return Ok(()),
                Err(RecvTimeoutError::Timeout) if is_stopping() => {
                    self.close();
                    return Err("it was stopped".to_owned());
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err("its thread ended".to_owned()),
            }
        }
    }

    /// Lets writing go on.
    pub(super) fn close(&self) {
        self.ask(Command::Close);
        // The thread's end closes it, too.
        while let Ok(answer) = self.answers.recv() {
            if matches!(answer, Answer::Closed) {
                return;
            }
        }
    }

    fn ask(&self, command: Command) {
        if let Some(commands) = &self.commands {
            // A thread that has ended says so by its answers' end.
            let _ = commands.send(command);
        }
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        drop(self.commands.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread of a collection's window ended by a panic");
        }
    }
}

/// What the thread does, until nobody can ask it any more.
async fn serve(
    core: &Core,
    terms: Terms,
    mut asked: tokio::sync::mpsc::UnboundedReceiver<Command>,
    answer: mpsc::Sender<Answer>,
) -> io::Result<()> {
    let mut is_open = false;
    let mut next = asked.recv().await;
    while let Some(command) = next.take() {
        let told = match command {
            Command::Open => {
                let held = runtime::select! {
                    held = core.hold_writes(OWNER.into(), REASON.into(), terms.lease, terms.drain) => Some(held),
                    // It is closed, or nobody waits any more, before it was open.
                    early = asked.recv() => {
                        next = early;
                        None
                    }
                };
                let told = opened(held);
                // What has failed, or nobody has waited for, may have paused writing.
                is_open = !matches!(told, Some(Answer::HeldByOther));
                told
            }
            Command::Close => {
                if std::mem::take(&mut is_open) {
                    release(core, terms).await;
                }
                Some(Answer::Closed)
            }
        };
        // Whoever does not listen any more has dropped the window, which ends this.
        told.into_iter().for_each(|told| drop(answer.send(told)));
        if next.is_none() {
            next = asked.recv().await;
        }
    }
    if is_open {
        release(core, terms).await;
    }
    Ok(())
}

/// What came of a hold; `None`: nobody has waited for it.
fn opened(held: Option<Result<Result<Hold, HeldByOther>, EngineError>>) -> Option<Answer> {
    Some(match held? {
        Ok(Ok(_)) => Answer::Opened,
        Ok(Err(other)) => {
            tracing::info!(
                owner = other.0.owner,
                "collecting while somebody else keeps the registry read-only"
            );
            Answer::HeldByOther
        }
        Err(error) => Answer::Failed(error.to_string()),
    })
}

/// Ends the hold.
async fn release(core: &Core, terms: Terms) {
    match core.release_writes(Some(OWNER.into())).await {
        Ok(Ok(Some(_))) => {}
        Ok(Ok(None)) => tracing::warn!(
            limit = ?terms.lease,
            "marking took longer than writing may be paused, or pausing it failed: it went on before (setting gc.lease)"
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
            quotas: engine::Quotas::default(),
        };
        let engine = Engine::open(options, Environment::system()).expect("opens");
        runtime::run(async { test(engine.clone(), engine.core().expect("a ring")).await })
            .expect("a runtime");
    }

    #[test]
    fn writing_goes_on_when_it_is_closed_or_dropped() {
        with_core(async |engine, core| {
            let window = Window::new(&engine, TERMS).expect("a thread");
            assert!(core.begin_write().is_ok());
            for _ in 0..2 {
                window.open(|| false).expect("opens");
                assert!(core.begin_write().is_err_and(|hold| hold.owner == OWNER));
                window.close();
                assert!(core.begin_write().is_ok());
            }
            window.open(|| false).expect("opens");
            drop(window);
            assert!(core.begin_write().is_ok());
        });
    }

    #[test]
    fn a_collection_that_is_stopped_waits_for_no_write() {
        with_core(async |engine, core| {
            let write = core.begin_write().expect("open");
            let window = Window::new(&engine, TERMS).expect("a thread");
            window.open(|| true).expect_err("stopped");
            assert_eq!(core.hold(), None);
            drop(write);
        });
    }

    #[test]
    fn writing_goes_on_where_pausing_it_failed() {
        with_core(async |engine, core| {
            let is_failing = || {
                let window = Window::new(&engine, TERMS).expect("a thread");
                let write = core.begin_write().expect("open");
                let opening = thread::spawn(move || {
                    let opened = window.open(|| false);
                    (window, opened)
                });
                while core.hold().is_none() {
                    thread::yield_now();
                }
                // What is committed together with what comes last of pausing fails with it.
                let (go, wait) = mpsc::channel::<()>();
                let (begin, begun) = mpsc::channel();
                drop(core.metadata().write(move |_| {
                    let _ = begin.send(());
                    Ok(wait.recv().is_ok())
                }));
                begun.recv().expect("it runs");
                drop(core.metadata().write(|_| -> Result<(), _> { panic!("one that this test wants") }));
                drop(write);
                for _ in 0..1000 {
                    thread::yield_now();
                }
                go.send(()).expect("it waits");
                let (window, opened) = opening.join().expect("no panic");
                assert!(
                    opened.is_ok() || core.begin_write().is_ok(),
                    "nobody collects, and writing is paused"
                );
                window.close();
                opened.is_err()
            };
            // Where the window's thread came too late to fail, it is tried again.
            while !is_failing() {}
        });
    }

    #[test]
    fn somebody_elses_hold_is_left_alone() {
        with_core(async |engine, core| {
            let held = core.hold_writes("jane".into(), "a test".into(), TERMS.lease, Duration::ZERO).await;
            held.expect("the store works").expect("free");
            let window = Window::new(&engine, TERMS).expect("a thread");
            window.open(|| false).expect("opens");
            window.close();
            assert!(core.hold().is_some_and(|hold| hold.owner == "jane"));
        });
    }
}
