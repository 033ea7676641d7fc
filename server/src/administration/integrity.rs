//! Reading all content again, comparing rows and files, and writing the metadata to one file.

use std::ops::ControlFlow;

use engine::Engine;
use engine::integrity::{CheckOptions, Phase, Progress, ScrubOptions};

use super::calls::{CheckRequest, Outcome, Report, ScrubRequest};
use super::tasks::Told;
use crate::operations::UpkeepMetrics;
use crate::settings::ScrubSettings;

/// What a request asks for, and, where it says nothing, the settings.
pub(crate) fn scrub_options(settings: &ScrubSettings, request: &ScrubRequest) -> ScrubOptions {
    let bytes_per_second = request.bytes_per_second.unwrap_or_else(|| settings.rate.bytes());
    ScrubOptions { bytes_per_second, afresh: request.afresh }
}

/// What a request asks for.
pub(crate) fn check_options(request: &CheckRequest) -> CheckOptions {
    CheckOptions { repair: request.repair, ..CheckOptions::default() }
}

/// The name of a phase.
pub(crate) fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Scrub => "reading",
        Phase::Rows => "checking rows",
        Phase::Files => "checking files",
        Phase::Repair => "repairing",
        Phase::Export => "writing",
        Phase::Restore => "restoring",
        Phase::Adopt => "hashing files",
    }
}

pub(super) fn scrub(
    engine: &Engine,
    options: &ScrubOptions,
    metrics: &UpkeepMetrics,
    told: &Told,
) -> Outcome {
    let before =
        engine.last_scrub().ok().flatten().filter(|last| last.ended_at_ms.is_none() && !options.afresh);
    let from = before.map_or(0, |last| last.checked.bytes);
    let scrubbed = std::cell::Cell::new(from);
    let progress = |progress: Progress| {
        metrics.scrubbed(progress.done.saturating_sub(scrubbed.replace(progress.done)));
        tell(told)(progress)
    };
    match engine.scrub(options, &progress) {
        Ok(report) => {
            metrics.scrubbed(report.checked.bytes.saturating_sub(scrubbed.get()));
            Outcome::Done(Box::new(Report::Scrub(report)))
        }
        Err(error) => Outcome::Failed(error.to_string()),
    }
}

pub(super) fn check(engine: &Engine, options: &CheckOptions, told: &Told) -> Outcome {
    match engine.check(options, &tell(told)) {
        Ok(report) => Outcome::Done(Box::new(Report::Check(report))),
        Err(error) => Outcome::Failed(error.to_string()),
    }
}

pub(super) fn export(engine: &Engine, bytes_per_second: u64, told: &Told) -> Outcome {
    match engine.export(bytes_per_second, &tell(told)) {
        Ok(report) => Outcome::Done(Box::new(Report::Export(report))),
        Err(error) => Outcome::Failed(error.to_string()),
    }
}

fn tell(told: &Told) -> impl Fn(Progress) -> ControlFlow<()> {
    |progress| {
        told.progress(phase_name(progress.phase), progress.done, progress.total);
        told.goes_on()
    }
}
