use clap::Args;
use engine::integrity::ExportReport;

use super::answer::Answer;
use super::exit::{CommandError, Exit};
use super::follow::Follow;
use super::progress::{Progress, Unit};
use super::root::Root;
use super::server::Server;
use super::text::bytes;
use crate::administration::calls::{ExportRequest, Report, Work};
use crate::settings::Size;

/// `export`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// Bytes that are written in a second; 0 is as many as it can. [default: 32MiB]
    #[arg(long, value_name = "SIZE")]
    rate: Option<Size<0, { 1 << 40 }>>,
    #[command(flatten)]
    follow: Follow,
    #[command(flatten)]
    answer: Answer,
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    root: Root,
}

impl Export {
    pub(super) fn run(self) -> Result<Exit, CommandError> {
        let Self { rate, follow, answer, server, root } = self;
        let mut progress = Progress::new("export", Unit::Things);
        let work = Work::Export(ExportRequest { bytes_per_second: rate.map(|rate| rate.bytes()) });
        match server.with(&root, async |registry| follow.run(&registry, work, &mut progress).await)? {
            None => Ok(Exit::Done),
            Some(Report::Export(report)) => {
                answer.print(&report, text)?;
                Ok(Exit::Done)
            }
            Some(_) => Err(CommandError::failed("the registry answered something else")),
        }
    }
}

fn text(report: &ExportReport) -> String {
    let ExportReport { path, sequence, rows, bytes: length, .. } = report;
    format!("Written to {path}: {rows} rows, {}, up to change {sequence}\n", bytes(*length))
}
