use std::cell::RefCell;
use std::fmt::Write as _;
use std::ops::ControlFlow;

use clap::Args;
use engine::Environment;
use engine::integrity::{RebuildError, RebuildOptions, RebuildReport, rebuild};

use super::answer::Answer;
use super::exit::{CommandError, Exit};
use super::progress::{Progress, Unit};
use super::root::Root;
use super::text::{amount, time};
use crate::administration::integrity_phase_name;

/// `rebuild`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Rebuild {
    /// Do it although there is metadata, which is kept under another name.
    #[arg(long)]
    replace: bool,
    /// Do it although there is no export. Repositories, manifests and tags are lost then; contents are there for those who push
    /// them again.
    #[arg(long)]
    without_export: bool,
    #[command(flatten)]
    answer: Answer,
    #[command(flatten)]
    root: Root,
}

impl Rebuild {
    pub(super) fn run(self) -> Result<Exit, CommandError> {
        let Self { replace, without_export, answer, root } = self;
        let settings = root.existing()?;
        let cache_bytes = usize::try_from(settings.storage.cache.bytes()).unwrap_or(usize::MAX);
        let options = RebuildOptions { replace, without_export, cache_bytes };
        let shown = RefCell::new(Progress::new("rebuild", Unit::Things));
        let report = rebuild(&settings.root, &options, &Environment::system(), &|progress| {
            shown.borrow_mut().show(integrity_phase_name(progress.phase), progress.done, progress.total);
            ControlFlow::Continue(())
        });
        shown.borrow().end();
        let report = report.map_err(|error| match error {
            RebuildError::Root(error) => error.into(),
            error => CommandError::failed(error),
        })?;
        answer.print(&report, text)?;
        Ok(if report.missing.count > 0 { Exit::Found } else { Exit::Done })
    }
}

fn text(report: &RebuildReport) -> String {
    let mut text = match report.export_made_at_ms {
        Some(at) => format!(
            "Rebuilt from the export of {}: {} rows; what was pushed or deleted since is not known\n",
            time(at),
            report.rows
        ),
        None => "Rebuilt without an export: repositories, manifests and tags are lost\n".to_owned(),
    };
    let _ = writeln!(text, "  contents whose files are missing or not whole: {}", amount(report.missing));
    let _ = writeln!(
        text,
        "  contents that the export did not know, and that nothing refers to: {}",
        amount(report.adopted)
    );
    if report.strange > 0 {
        let _ = writeln!(text, "  files that are not what their names say: {}", report.strange);
        for name in &report.strange_names {
            let _ = writeln!(text, "    {name}");
        }
    }
    for name in &report.replaced {
        let _ = writeln!(text, "  what there was is kept as {name}");
    }
    text
}
