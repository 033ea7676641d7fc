//! The processes of the server that is measured: their CPU time and their memory.

use std::fs;
use std::thread;
use std::time::Duration;

/// How long the CPU time has to stand still before it is taken.
const SETTLING: Duration = Duration::from_millis(20);

/// How often that is tried: a server that always does something is measured anyhow.
const SETTLING_TRIES: usize = 25;

/// CPU seconds in one [`SETTLING`] that count as standing still.
const STILL: f64 = 0.000_5;

/// The processes of the server that is measured.
#[derive(Clone, Debug, Default)]
pub struct Server(Vec<u32>);

impl Server {
    /// The processes of these numbers with all their children; none: no figures of the server.
    pub fn new(pids: &[u32]) -> Self {
        let mut all = pids.to_vec();
        let mut next = 0;
        while let Some(pid) = all.get(next).copied() {
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            all.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
            next += 1;
        }
        all.sort_unstable();
        all.dedup();
        Self(all)
    }

    /// CPU seconds so far, user and system, of all threads, the kernel's workers for it among them; taken when what the
    /// server still had to do is done.
    pub fn cpu_seconds_settled(&self) -> Option<f64> {
        if self.0.is_empty() {
            return None;
        }
        let mut before = self.cpu_seconds();
        for _ in 0..SETTLING_TRIES {
            thread::sleep(SETTLING);
            let now = self.cpu_seconds();
            if now - before < STILL {
                return Some(now);
            }
            before = now;
        }
        Some(before)
    }

    fn cpu_seconds(&self) -> f64 {
        self.0.iter().map(|&pid| own_cpu_seconds(pid).unwrap_or(0.0) + ended_children_seconds(pid)).sum()
    }

    /// Makes [`Server::peak_mib`] begin anew, where that is allowed.
    pub fn forget_peak(&self) {
        for pid in &self.0 {
            // Of another user's process, it stays what it was since that started.
            let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
        }
    }

    /// The most memory that was ever resident, in MiB, added up over the processes.
    pub fn peak_mib(&self) -> Option<f64> {
        let of = |pid: &u32| -> Option<f64> {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
            line.split_whitespace().nth(1)?.parse::<f64>().ok()
        };
        let kib: f64 = self.0.iter().filter_map(of).sum();
        (!self.0.is_empty()).then_some(kib / 1024.0)
    }
}

/// By the process's own clock: to the nanosecond, where `/proc` counts in hundredths of a second.
fn own_cpu_seconds(pid: u32) -> Option<f64> {
    let mut clock = 0;
    // SAFETY: the call writes one `clockid_t` to where the pointer points, and that is one.
    let refused = unsafe { libc::clock_getcpuclockid(libc::pid_t::try_from(pid).ok()?, &mut clock) };
    if refused != 0 {
        return None;
    }
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes one `timespec` to where the pointer points, and that is one.
    let refused = unsafe { libc::clock_gettime(clock, &mut time) };
    (refused == 0).then_some(time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9)
}

/// CPU seconds of children that have ended and were waited for.
fn ended_children_seconds(pid: u32) -> f64 {
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    let read = || -> Option<f64> {
        let status = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let mut fields = status.rsplit_once(')')?.1.split_whitespace().skip(13);
        let user: f64 = fields.next()?.parse().ok()?;
        let system: f64 = fields.next()?.parse().ok()?;
        Some((user + system) / ticks)
    };
    read().unwrap_or(0.0)
}
