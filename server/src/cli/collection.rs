use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::time::Duration;

use clap::Args;
use engine::collection::{CollectionHooks, CollectionReport, Kept, Mode, Progress as EngineProgress, Step};

use super::answer::Answer;
use super::exit::{CommandError, Exit};
use super::follow::{Follow, stop};
use super::progress::{Progress, Unit};
use super::root::{Offline, Root};
use super::server::Server;
use super::text::{amount, bytes, microseconds, time};
use crate::administration::calls::{CollectionRequest, ListCollections, Report, Task, Work};
use crate::administration::{collection_options, collection_phase_name};
use crate::settings::{GcMode, Time};

/// The longest age that can be asked for: a year, in seconds.
const AGE_MAX: u64 = 365 * 24 * 3600;

/// `gc`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Gc {
    /// Change nothing: say what would be removed.
    #[arg(long)]
    dry_run: bool,
    /// Whether writing is paused while it marks: `read-only` or `online`. [default: setting gc.mode]
    #[arg(long, value_name = "MODE")]
    mode: Option<GcMode>,
    /// Age from which on manifests are removed that no tag leads to. [default: setting gc.untaggedAge]
    #[arg(long, value_name = "TIME")]
    untagged_age: Option<Time<0, AGE_MAX>>,
    /// Age from which on blobs are removed that no manifest needs. [default: setting gc.blobAge]
    #[arg(long, value_name = "TIME")]
    blob_age: Option<Time<0, AGE_MAX>>,
    /// End the collection that is running, at its next step.
    #[arg(long, conflicts_with_all = ["dry_run", "mode", "untagged_age", "blob_age", "join", "detach", "history", "offline"])]
    stop: bool,
    /// Print what the last collections have done.
    #[arg(long, conflicts_with_all = ["dry_run", "mode", "untagged_age", "blob_age", "join", "detach"])]
    history: bool,
    #[command(flatten)]
    follow: Follow,
    #[command(flatten)]
    answer: Answer,
    #[command(flatten)]
    offline: Offline,
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    root: Root,
}

impl Gc {
    pub(super) fn run(self) -> Result<Exit, CommandError> {
        match (self.history, self.stop, self.offline.offline) {
            (true, _, _) => self.print_history(),
            (_, true, _) => self.stop(),
            (_, _, true) => self.collect_offline(),
            _ => self.collect(),
        }
    }

    fn request(&self) -> CollectionRequest {
        CollectionRequest {
            mode: self.mode.map(Mode::from),
            dry_run: self.dry_run,
            untagged_age_seconds: self.untagged_age.map(|age| age.get().as_secs()),
            blob_age_seconds: self.blob_age.map(|age| age.get().as_secs()),
        }
    }

    fn collect(&self) -> Result<Exit, CommandError> {
        let mut progress = Progress::new("gc", Unit::Things);
        let work = Work::Collection(self.request());
        let report = self
            .server
            .with(&self.root, async |registry| self.follow.run(&registry, work, &mut progress).await);
        match report? {
            None => Ok(Exit::Done),
            Some(Report::Collection(report)) => self.print(&report),
            Some(_) => Err(CommandError::failed("the registry answered something else")),
        }
    }

    fn collect_offline(&self) -> Result<Exit, CommandError> {
        let (engine, settings) = self.root.open()?;
        let mut options = collection_options(&settings.gc, &self.request());
        // There is nobody to pause.
        options.mode = Mode::Online;
        options.stray_age = Duration::ZERO;
        let shown = Shown(std::cell::RefCell::new(Progress::new("gc", Unit::Things)));
        let report = engine.collect(&options, &shown).map_err(CommandError::failed)?;
        shown.0.borrow().end();
        self.print(&report)
    }

    fn print(&self, report: &CollectionReport) -> Result<Exit, CommandError> {
        self.answer.print(report, text)?;
        Ok(if report.failure.is_some() || report.errors > 0 { Exit::Failed } else { Exit::Done })
    }

    fn print_history(&self) -> Result<Exit, CommandError> {
        let reports = match self.offline.offline {
            true => self.root.open()?.0.collections().map_err(CommandError::failed)?,
            false => self
                .server
                .with(&self.root, async |registry| Ok(registry.call(&ListCollections {}).await?))?,
        };
        self.answer.print(&reports, |reports| reports.iter().map(text).collect::<Vec<_>>().join("\n"))?;
        Ok(Exit::Done)
    }

    fn stop(&self) -> Result<Exit, CommandError> {
        let is_running =
            self.server.with(&self.root, async |registry| stop(&registry, Task::Collection).await)?;
        eprintln!("gc: {}", if is_running { "ends at its next step" } else { "none is running" });
        Ok(Exit::Done)
    }
}

/// Shows how far a collection of this process is.
struct Shown(std::cell::RefCell<Progress>);

impl CollectionHooks for Shown {
    fn progress(&self, progress: EngineProgress) {
        self.0.borrow_mut().show(collection_phase_name(progress.phase), progress.done, progress.total);
    }

    fn at(&self, _: Step) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// A report for people.
fn text(report: &CollectionReport) -> String {
    let mut text = String::new();
    let (what, freed) = match report.dry_run {
        true => ("Dry run of a collection", "would be freed"),
        false => ("Collection", "freed"),
    };
    let mode = match report.mode {
        Mode::ReadOnly if !report.dry_run => {
            format!(", writing was paused for {}", microseconds(report.window_us))
        }
        _ => String::new(),
    };
    let took = microseconds(report.mark_us + report.sweep_us + report.files_us);
    let _ = writeln!(
        text,
        "{what} of {}: {} {freed}, in {took}{mode}",
        time(report.began_at_ms),
        bytes(report.bytes())
    );
    let removed = &report.removed;
    let rows = [
        ("tags", removed.tags),
        ("manifests", removed.manifests),
        ("links of blobs", removed.links),
        ("contents", removed.contents),
        ("upload sessions", removed.uploads),
        ("stray files", removed.strays),
        ("empty repositories", removed.repositories),
    ];
    let verb = if report.dry_run { "to be removed" } else { "removed" };
    for (name, count) in rows.iter().filter(|(_, count)| count.count > 0) {
        let _ = writeln!(text, "  {verb}: {} {name}", amount(*count));
    }
    let Kept { young_manifests, leased_manifests, young_links, leased_links, young_strays, used_again } =
        report.kept;
    for (count, name) in [
        (young_manifests, "manifests that nothing keeps, and that are too young"),
        (leased_manifests, "manifests that clients were told of a short while ago"),
        (young_links, "blobs that nothing needs, and that are too young"),
        (leased_links, "blobs that clients were told of a short while ago"),
        (young_strays, "files that nothing names, and that are too young"),
        (used_again, "things that came into use while it ran"),
    ] {
        if count > 0 {
            let _ = writeln!(text, "  kept: {count} {name}");
        }
    }
    for from in &report.repositories {
        let (manifests, links) = (amount(from.manifests), amount(from.links));
        let _ = writeln!(text, "  from {}: {manifests} manifests, {links} blobs", from.repository);
    }
    for error in &report.error_texts {
        let _ = writeln!(text, "  error: {error}");
    }
    if let Some(failure) = &report.failure {
        let _ = writeln!(text, "  it ended before its end: {failure}");
    }
    text
}
