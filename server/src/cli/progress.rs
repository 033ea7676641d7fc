use std::io::{self, IsTerminal as _};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often a line says how far something is, where nobody looks at a bar.
const LINE_PERIOD: Duration = Duration::from_secs(10);

/// Shows on standard error how far something is: a bar on a terminal, and otherwise a line for each phase and every few
/// seconds.
pub(super) struct Progress {
    /// What is done: a word or two.
    what: &'static str,
    /// What is counted.
    unit: Unit,
    bar: Option<ProgressBar>,
    phase: String,
    said_at: Option<Instant>,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Things,
    Bytes,
}

impl Progress {
    pub(super) fn new(what: &'static str, unit: Unit) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let template = match unit {
                Unit::Things => "{msg:24} [{bar:40}] {human_pos} of {human_len}  {elapsed}",
                Unit::Bytes => "{msg:24} [{bar:40}] {binary_bytes} of {binary_total_bytes}  {binary_bytes_per_sec}  {eta}",
            };
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
            // The templates are ours; one that is wrong shows as the usual bar.
            bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        Self { what, unit, bar, phase: String::new(), said_at: None }
    }

    /// Something is so far.
    pub(super) fn show(&mut self, phase: &str, done: u64, total: u64) {
        let is_new = self.phase != phase;
        if is_new {
            phase.clone_into(&mut self.phase);
        }
        match &self.bar {
            Some(bar) => {
                if is_new {
                    bar.reset();
                    bar.set_message(phase.to_owned());
                }
                bar.set_length(total);
                bar.set_position(done);
            }
            None if is_new || self.said_at.is_none_or(|at| at.elapsed() >= LINE_PERIOD) => {
                self.said_at = Some(Instant::now());
                let (done, total) = match self.unit {
                    Unit::Things => (done.to_string(), total.to_string()),
                    Unit::Bytes => (super::text::bytes(done), super::text::bytes(total)),
                };
                eprintln!("{}: {phase}, {done} of {total}", self.what);
            }
            None => {}
        }
    }

    /// Says something beside that.
    pub(super) fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{}: {line}", self.what)),
            None => eprintln!("{}: {line}", self.what),
        }
    }

    /// Takes the bar away.
    pub(super) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
