use std::ops::ControlFlow;
use std::time::Duration;

use engine::Engine;
use engine::collection::{CollectionHooks, CollectionOptions, CollectionReport, Mode, Phase, Progress, Step};

use super::calls::{CollectionRequest, Outcome, Report};
use super::tasks::Told;
use super::window::{Terms, Window};
use crate::operations::UpkeepMetrics;
use crate::settings::GcSettings;

/// Hundredths of the time that a batch of deletions took for which the disk and the metadata are left to others after it.
const REST_PERCENT: u32 = 50;

/// A collection that is about to run.
pub(super) struct Collection {
    engine: Engine,
    options: CollectionOptions,
    terms: Terms,
    metrics: UpkeepMetrics,
}

impl Collection {
    pub(super) fn new(
        engine: Engine,
        settings: &GcSettings,
        request: &CollectionRequest,
        metrics: UpkeepMetrics,
    ) -> Self {
        let options = CollectionOptions { rest_percent: REST_PERCENT, ..options(settings, request) };
        let terms = Terms { lease: settings.lease.get(), drain: settings.drain.get() };
        Self { engine, options, terms, metrics }
    }

    /// Runs it. Takes the calling thread until the end.
    pub(super) fn run(self, told: &Told) -> Outcome {
        let Self { engine, options, terms, metrics } = self;
        // What changes nothing needs no pause.
        let window = match options.mode {
            Mode::ReadOnly if !options.dry_run => match Window::new(&engine, terms) {
                Ok(window) => Some(window),
                Err(error) => return Outcome::Failed(format!("writing cannot be paused: {error}")),
            },
            _ => None,
        };
        match engine.collect(&options, &Hooks { told, window }) {
            Ok(report) => {
                metrics.collected(&report);
                log(&report);
                Outcome::Done(Box::new(Report::Collection(report)))
            }
            Err(error) => {
                metrics.collection_failed();
                tracing::warn!(%error, "no collection");
                Outcome::Failed(error.to_string())
            }
        }
    }
}

/// What a request asks for, and, where it says nothing, the settings.
pub(crate) fn options(settings: &GcSettings, request: &CollectionRequest) -> CollectionOptions {
    let age = |asked: Option<u64>, set: Duration| asked.map_or(set, Duration::from_secs);
    CollectionOptions {
        mode: request.mode.unwrap_or_else(|| settings.mode.into()),
        dry_run: request.dry_run,
        untagged_age: age(request.untagged_age_seconds, settings.untagged_age.get()),
        blob_age: age(request.blob_age_seconds, settings.blob_age.get()),
        retention: settings.retention.rules().to_vec(),
        ..CollectionOptions::default()
    }
}

/// The name of a phase.
pub(crate) fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Mark => "marking",
        Phase::Sweep => "sweeping",
        Phase::Strays => "looking for stray files",
    }
}

fn log(report: &CollectionReport) {
    let removed = &report.removed;
    tracing::info!(
        dry_run = report.dry_run,
        mode = ?report.mode,
        window_us = report.window_us,
        mark_us = report.mark_us,
        sweep_us = report.sweep_us,
        files_us = report.files_us,
        tags = removed.tags.count,
        manifests = removed.manifests.count,
        contents = removed.contents.count,
        uploads = removed.uploads.count,
        strays = removed.strays.count,
        bytes = report.bytes(),
        errors = report.errors,
        failure = report.failure,
        "collected"
    );
}

/// The collection's surroundings.
struct Hooks<'h> {
    told: &'h Told,
    window: Option<Window>,
}

impl CollectionHooks for Hooks<'_> {
    fn enter_window(&self) -> Result<(), String> {
        self.window.as_ref().map_or(Ok(()), |window| window.open(|| self.told.is_stopping()))
    }

    fn leave_window(&self) {
        if let Some(window) = &self.window {
            window.close();
        }
    }

    fn progress(&self, progress: Progress) {
        self.told.progress(phase_name(progress.phase), progress.done, progress.total);
    }

    fn at(&self, step: Step) -> ControlFlow<()> {
        tracing::trace!(?step, "collecting");
        self.told.goes_on()
    }
}
