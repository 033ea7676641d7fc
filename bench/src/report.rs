//! What a run has cost: time, the server's CPU and memory, and how long the single requests took.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// The processes of the server that is measured.
#[derive(Clone, Debug, Default)]
pub struct Server(Vec<u32>);

impl Server {
    /// The processes of these numbers with all their children; none: no figures of the server.
    pub fn new(pids: &[u32]) -> Self {
        let mut all = pids.to_vec();
        let mut next = 0;
        while let Some(pid) = all.get(next).copied() {
            let children =
                std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            all.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
            next += 1;
        }
        all.sort_unstable();
        all.dedup();
        Self(all)
    }

    /// CPU seconds so far, user and system, of all threads.
    fn cpu_seconds(&self) -> f64 {
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        let of = |pid: &u32| -> Option<f64> {
            let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let fields: Vec<&str> = status.rsplit_once(')')?.1.split_whitespace().collect();
            let number = |index: usize| fields.get(index)?.parse::<f64>().ok();
            Some((number(11)? + number(12)?) / ticks)
        };
        self.0.iter().filter_map(of).sum()
    }

    /// The most memory that was ever resident, in MiB, added up over the processes.
    fn peak_mib(&self) -> f64 {
        let of = |pid: &u32| -> Option<f64> {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
            line.split_whitespace().nth(1)?.parse::<f64>().ok()
        };
        self.0.iter().filter_map(of).sum::<f64>() / 1024.0
    }
}

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
    cpu: f64,
    began: Instant,
}

impl<'a> Run<'a> {
    /// Begins.
    pub fn begin(server: &'a Server) -> Self {
        Self { server, cpu: server.cpu_seconds(), began: Instant::now() }
    }

    /// Ends, and gives the figures.
    pub fn end(self, workload: &str, mut outcome: Outcome) -> Figures {
        let seconds = self.began.elapsed().as_secs_f64();
        outcome.latencies.sort_unstable();
        Figures {
            workload: workload.to_owned(),
            seconds,
            cpu_seconds: (!self.server.0.is_empty()).then(|| self.server.cpu_seconds() - self.cpu),
            peak_mib: (!self.server.0.is_empty()).then(|| self.server.peak_mib()),
            outcome,
        }
    }
}

/// The figures of a run.
pub struct Figures {
    workload: String,
    seconds: f64,
    cpu_seconds: Option<f64>,
    peak_mib: Option<f64>,
    /// What the clients have done.
    pub outcome: Outcome,
}

impl Figures {
    fn percentile(&self, percent: usize) -> f64 {
        let sorted = &self.outcome.latencies;
        let index = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
        sorted.get(index).map_or(0.0, |latency| latency.as_secs_f64() * 1e3)
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let count = self.outcome.latencies.len() as f64;
        let gib = self.outcome.bytes as f64 / (1_u64 << 30) as f64;
        json!({
            "workload": self.workload,
            "operations": count,
            "seconds": self.seconds,
            "operationsPerSecond": count / self.seconds,
            "megabytesPerSecond": self.outcome.bytes as f64 / 1e6 / self.seconds,
            "cpuSecondsPerGib": self.cpu_seconds.filter(|_| gib > 0.01).map(|cpu| cpu / gib),
            "cpuMicrosecondsPerOperation": self.cpu_seconds.map(|cpu| cpu * 1e6 / count),
            "peakMib": self.peak_mib,
            "milliseconds": {"p50": self.percentile(50), "p90": self.percentile(90), "p99": self.percentile(99), "max": self.percentile(100)},
            "failures": self.outcome.failures.len(),
        })
    }

    /// For people: one line.
    pub fn line(&self) -> String {
        let count = self.outcome.latencies.len() as f64;
        let gib = self.outcome.bytes as f64 / (1_u64 << 30) as f64;
        let mut line = format!("{:<34} {:>9.0}/s", self.workload, count / self.seconds);
        if gib > 0.01 {
            line += &format!("  {:>6.0} MB/s", self.outcome.bytes as f64 / 1e6 / self.seconds);
        }
        if let Some(cpu) = self.cpu_seconds {
            if gib > 0.01 {
                line += &format!("  {:.2} CPU-s/GiB", cpu / gib);
            } else {
                line += &format!("  {:.1} µs CPU each", cpu * 1e6 / count);
            }
        }
        if let Some(peak) = self.peak_mib {
            line += &format!("  peak {peak:.0} MiB");
        }
        line += &format!("  p50 {:.2} ms, p99 {:.2} ms", self.percentile(50), self.percentile(99));
        if let Some(first) = self.outcome.failures.first() {
            line += &format!("  {} FAILED, the first: {first}", self.outcome.failures.len());
        }
        line
    }
}
