//! Pulls at a steady pace, for as long as something else takes.

use std::io;
use std::net::SocketAddr;
use std::sync::Barrier;
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
    /// before counts that, too. The first of each client, which has to connect, does not count, and is over before the work
    /// begins: in a short work it would count for more than in a long one.
    pub fn beside<T>(&self, work: impl FnOnce() -> T) -> (T, Outcome) {
        let is_over = AtomicBool::new(false);
        let is_warm = Barrier::new(self.clients + 1);
        thread::scope(|scope| {
            let (is_over, is_warm) = (&is_over, &is_warm);
            let clients: Vec<_> = (0..self.clients)
                .map(|client| {
                    scope.spawn(move || {
                        let delay = self.period.mul_f64(client as f64 / self.clients as f64);
                        self.pull(delay, is_warm, is_over)
                    })
                })
                .collect();
            is_warm.wait();
            let done = work();
            is_over.store(true, Ordering::Relaxed);
            let outcomes = clients.into_iter().map(|client| client.join().expect("clients do not panic"));
            (done, outcomes.fold(Outcome::default(), Outcome::merge))
        })
    }

    /// One client, which begins `delay` after all are warm, so that not all pull at once.
    fn pull(&self, delay: Duration, is_warm: &Barrier, is_over: &AtomicBool) -> Outcome {
        let mut outcome = Outcome::default();
        let mut connection = None;
        outcome.failures.extend(self.pull_once(&mut connection).err().map(|error| error.to_string()));
        is_warm.wait();
        let mut due = Instant::now() + delay;
        loop {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if is_over.load(Ordering::Relaxed) {
                return outcome;
            }
            match self.pull_once(&mut connection) {
                Ok(bytes) => {
                    outcome.bytes += bytes;
                    outcome.latencies.push(due.elapsed());
                }
                Err(error) => outcome.failures.push(error.to_string()),
            }
            due += self.period;
        }
    }

    /// Pulls over the connection, which is there afterwards unless it has failed; how many bytes came.
    fn pull_once(&self, connection: &mut Option<Connection>) -> io::Result<u64> {
        let mut open = connection.take().map_or_else(|| Connection::open(self.address), Ok)?;
        let mut bytes = 0;
        for request in &self.requests {
            bytes += open.pull(request)?;
        }
        *connection = Some(open);
        Ok(bytes)
    }
}
