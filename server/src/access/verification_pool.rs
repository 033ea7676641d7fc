use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

type Job = Box<dyn FnOnce() + Send>;

/// A few threads for work that takes long and only needs the CPU, with a bounded queue in front of them.
///
/// Belongs to no runtime: the threads that serve connections only put jobs in. The threads of the pool end when it is
/// dropped and the queue is empty.
pub(super) struct VerificationPool {
    queue: SyncSender<Job>,
}

/// The queue is full; the job was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct QueueFull;

impl VerificationPool {
    /// Starts `threads` threads; at most `queue_max` jobs wait for them.
    pub(super) fn start(threads: usize, queue_max: usize) -> io::Result<Self> {
        let (queue, jobs) = sync_channel(queue_max);
        let jobs = Arc::new(Mutex::new(jobs));
        for n in 0..threads {
            let jobs = jobs.clone();
            thread::Builder::new().name(format!("verify-{n}")).spawn(move || run(&jobs))?;
        }
        Ok(Self { queue })
    }

    /// Puts `job` into the queue; never blocks.
    pub(super) fn submit(&self, job: impl FnOnce() + Send + 'static) -> Result<(), QueueFull> {
        self.queue.try_send(Box::new(job)).map_err(|_| QueueFull)
    }
}

fn run(jobs: &Mutex<Receiver<Job>>) {
    loop {
        // One thread waits in the channel and the others for the lock; the lock is free again while a job runs.
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        // A job that panics must not take the thread with it: without threads, nobody could log in any more.
        let _ = panic::catch_unwind(AssertUnwindSafe(job));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn jobs_run_and_the_queue_is_bounded() {
        let pool = VerificationPool::start(1, 2).expect("threads");
        let (started, is_started) = channel();
        let (release, released) = channel::<()>();
        let (done, is_done) = channel();
        let first_done = done.clone();
        pool.submit(move || {
            started.send(()).expect("test waits");
            released.recv().expect("test releases");
            first_done.send(1).expect("test waits");
        })
        .expect("empty queue");
        is_started.recv().expect("job runs");
        let second_done = done.clone();
        pool.submit(move || second_done.send(2).expect("test waits")).expect("room");
        pool.submit(move || done.send(3).expect("test waits")).expect("room");
        assert_eq!(pool.submit(|| unreachable!()), Err(QueueFull));
        release.send(()).expect("job waits");
        assert_eq!(is_done.iter().collect::<Vec<_>>(), [1, 2, 3]);
    }

    #[test]
    fn a_job_that_panics_does_not_end_its_thread() {
        let pool = VerificationPool::start(1, 2).expect("threads");
        let (done, is_done) = channel();
        pool.submit(|| panic!("on purpose")).expect("empty queue");
        pool.submit(move || done.send(()).expect("test waits")).expect("room");
        assert!(is_done.recv().is_ok());
    }

    #[test]
    fn the_threads_end_with_the_pool() {
        let pool = VerificationPool::start(2, 1).expect("threads");
        let alive = Arc::new(());
        let held = alive.clone();
        pool.submit(move || drop(held)).expect("room");
        drop(pool);
        while Arc::strong_count(&alive) > 1 {
            thread::yield_now();
        }
    }
}
