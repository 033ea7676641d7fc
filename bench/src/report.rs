//! What a run has cost: time, the server's CPU and memory, and how long the single requests took.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::server::Server;

/// What the clients have done.
#[derive(Debug, Default)]
pub struct Outcome {
    /// How long each operation took.
    pub latencies: Vec<Duration>,
    /// Bytes of content moved.
    pub bytes: u64,
    /// Answers that were not what they should be.
    pub failures: Vec<String>,
}

impl Outcome {
    /// Adds another client's.
    pub fn merge(mut self, other: Self) -> Self {
        self.latencies.extend(other.latencies);
        self.bytes += other.bytes;
        self.failures.extend(other.failures);
        self
    }
}

/// A run being measured.
pub struct Run<'a> {
    server: &'a Server,
    cpu: Option<f64>,
    began: Instant,
}

impl<'a> Run<'a> {
    /// Begins.
    pub fn begin(server: &'a Server) -> Self {
        server.forget_peak();
        Self { server, cpu: server.cpu_seconds_settled(), began: Instant::now() }
    }

    /// Ends, and gives the figures.
    pub fn end(self, workload: &str, mut outcome: Outcome) -> Figures {
        let seconds = self.began.elapsed().as_secs_f64();
        outcome.latencies.sort_unstable();
        let cpu = self.server.cpu_seconds_settled();
        Figures {
            workload: workload.to_owned(),
            seconds,
            cpu_seconds: cpu.zip(self.cpu).map(|(after, before)| after - before),
            peak_mib: self.server.peak_mib(),
            outcome,
        }
    }
}

/// The figures of a run.
pub struct Figures {
    /// What was done, with its parameters: the same in each round.
    pub workload: String,
    seconds: f64,
    cpu_seconds: Option<f64>,
    /// The most memory that the server had resident, in MiB.
    pub peak_mib: Option<f64>,
    /// What the clients have done.
    pub outcome: Outcome,
}

impl Figures {
    /// Several runs as if they were one; nothing where there are none.
    pub fn pooled(runs: Vec<Self>) -> Option<Self> {
        let mut pooled = runs.into_iter().reduce(|one, other| Self {
            seconds: one.seconds + other.seconds,
            cpu_seconds: one.cpu_seconds.zip(other.cpu_seconds).map(|(one, other)| one + other),
            peak_mib: one.peak_mib.zip(other.peak_mib).map(|(one, other)| one.max(other)),
            outcome: one.outcome.merge(other.outcome),
            workload: one.workload,
        })?;
        pooled.outcome.latencies.sort_unstable();
        Some(pooled)
    }

    /// Milliseconds that so many percent of the operations took at most; nothing when none succeeded.
    pub fn percentile(&self, percent: usize) -> Option<f64> {
        let sorted = &self.outcome.latencies;
        let index = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
        sorted.get(index).map(|latency| latency.as_secs_f64() * 1e3)
    }

    /// Operations a second.
    pub fn rate(&self) -> f64 {
        self.outcome.latencies.len() as f64 / self.seconds
    }

    /// Megabytes (10⁶) of content a second; nothing where it is not content that is measured.
    pub fn megabytes_per_second(&self) -> Option<f64> {
        self.gib().map(|_| self.outcome.bytes as f64 / 1e6 / self.seconds)
    }

    /// CPU seconds of the server for each GiB (2³⁰) of content.
    pub fn cpu_per_gib(&self) -> Option<f64> {
        Some(self.cpu_seconds? / self.gib()?)
    }

    /// Microseconds of the server's CPU for each operation.
    pub fn cpu_per_operation(&self) -> Option<f64> {
        let count = self.outcome.latencies.len();
        (count > 0).then_some(self.cpu_seconds? * 1e6 / count as f64)
    }

    fn gib(&self) -> Option<f64> {
        let gib = self.outcome.bytes as f64 / (1_u64 << 30) as f64;
        (gib > 0.01).then_some(gib)
    }

    /// For programs.
    pub fn json(&self) -> Value {
        json!({
            "workload": self.workload,
            "operations": self.outcome.latencies.len(),
            "seconds": self.seconds,
            "operationsPerSecond": self.rate(),
            "megabytesPerSecond": self.megabytes_per_second(),
            "cpuSecondsPerGib": self.cpu_per_gib(),
            "cpuMicrosecondsPerOperation": self.cpu_per_operation(),
            "peakMib": self.peak_mib,
            "milliseconds": {
                "p50": self.percentile(50), "p90": self.percentile(90),
                "p99": self.percentile(99), "max": self.percentile(100),
            },
            "failures": self.outcome.failures.len(),
        })
    }

    /// For people: one line.
    pub fn line(&self) -> String {
        let mut line = format!("{:<44} {:>8.0}/s", self.workload, self.rate());
        if let Some(speed) = self.megabytes_per_second() {
            line += &format!("  {speed:>6.0} MB/s");
        }
        if let Some(cpu) = self.cpu_per_gib() {
            line += &format!("  {cpu:.3} CPU-s/GiB");
        } else if let Some(cpu) = self.cpu_per_operation() {
            line += &format!("  {cpu:.1} µs CPU each");
        }
        if let Some(peak) = self.peak_mib {
            line += &format!("  peak {peak:.0} MiB");
        }
        let millis = |percent| self.percentile(percent).unwrap_or(f64::NAN);
        line += &format!("  p50 {:.2} p90 {:.2} p99 {:.2} ms", millis(50), millis(90), millis(99));
        if let Some(first) = self.outcome.failures.first() {
            line += &format!("  {} FAILED, the first: {first}", self.outcome.failures.len());
        }
        line
    }
}
