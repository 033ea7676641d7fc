//! Pulls at a steady pace, for as long as something else takes.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::crowd::Request;
use crate::http::Connection;
use crate::report::Outcome;

/// Clients that each pull an image in each period.
#[derive(Clone, Debug)]
pub struct Pulls {
    /// Where from.
    pub address: SocketAddr,
    /// How many pull.
    pub clients: usize,
    /// How often each of them does.
    pub period: Duration,
    /// The requests of a pull.
    pub requests: Vec<Request>,
}

impl Pulls {
    /// Pulls while `work` is being done. A pull takes from the moment at which it was due: one that has to wait for the one
    /// before counts that, too.
    pub fn beside<T>(&self, work: impl FnOnce() -> T) -> (T, Outcome) {
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            let is_over = &is_over;
            let clients: Vec<_> = (0..self.clients)
                .map(|client| {
                    scope.spawn(move || {
                        self.pull(self.period.mul_f64(client as f64 / self.clients as f64), is_over)
                    })
                })
                .collect();
            let done = work();
            is_over.store(true, Ordering::Relaxed);
            let outcomes = clients.into_iter().map(|client| client.join().expect("clients do not panic"));
            (done, outcomes.fold(Outcome::default(), Outcome::merge))
        })
    }

    /// One client, which begins after `delay`, so that not all pull at once.
    fn pull(&self, delay: Duration, is_over: &AtomicBool) -> Outcome {
        let mut outcome = Outcome::default();
        let mut connection = None;
        let mut due = Instant::now() + delay;
        loop {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if is_over.load(Ordering::Relaxed) {
                return outcome;
            }
            let open = connection.take().map_or_else(|| Connection::open(self.address), Ok);
            let pulled = open.and_then(|mut open| {
                for request in &self.requests {
                    outcome.bytes += open.pull(request)?;
                }
                connection = Some(open);
                Ok(())
            });
            match pulled {
                Ok(()) => outcome.latencies.push(due.elapsed()),
                Err(error) => outcome.failures.push(error.to_string()),
            }
            due += self.period;
        }
    }
}
