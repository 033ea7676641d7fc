use std::fmt::Write as _;

use clap::Args;
use engine::integrity::ScrubReport;

use super::answer::Answer;
use super::exit::{CommandError, Exit};
use super::follow::{Follow, stop};
use super::progress::{Progress, Unit};
use super::root::Root;
use super::server::Server;
use super::text::{amount, time};
use crate::administration::calls::{GetScrub, Report, ScrubRequest, Task, Work};
use crate::settings::Size;

/// `scrub`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Scrub {
    /// Bytes that are read in a second; 0 is as many as it can. [default: setting scrub.rate]
    #[arg(long, value_name = "SIZE")]
    rate: Option<Size<0, { 1 << 40 }>>,
    /// Begin at the beginning, also where an earlier one was interrupted.
    #[arg(long)]
    afresh: bool,
    /// End the scrub that is running; the next one goes on from there.
    #[arg(long, conflicts_with_all = ["rate", "afresh", "join", "detach", "status"])]
    stop: bool,
    /// Say what the last one has found, or how far the one is that is running.
    #[arg(long, conflicts_with_all = ["rate", "afresh", "join", "detach"])]
    status: bool,
    #[command(flatten)]
    follow: Follow,
    #[command(flatten)]
    answer: Answer,
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    root: Root,
}

impl Scrub {
    pub(super) fn run(self) -> Result<Exit, CommandError> {
        let Self { rate, afresh, follow, answer, server, root, .. } = &self;
        if self.stop {
            let is_running = server.with(root, async |registry| stop(&registry, Task::Scrub).await)?;
            eprintln!("scrub: {}", if is_running { "ends at its next step" } else { "none is running" });
            return Ok(Exit::Done);
        }
        if self.status {
            let report = server.with(root, async |registry| Ok(registry.call(&GetScrub {}).await?))?;
            answer.print(&report, |report| {
                report.as_ref().map_or_else(|| "There was no scrub.\n".to_owned(), text)
            })?;
            return Ok(report.as_ref().map_or(Exit::Done, exit_of));
        }
        let mut progress = Progress::new("scrub", Unit::Bytes);
        let bytes_per_second = rate.map(|rate| rate.bytes());
        let work = Work::Scrub(ScrubRequest { bytes_per_second, afresh: *afresh });
        match server.with(root, async |registry| follow.run(&registry, work, &mut progress).await)? {
            None => Ok(Exit::Done),
            Some(Report::Scrub(report)) => {
                answer.print(&report, text)?;
                let exit = exit_of(&report);
                if report.ended_at_ms.is_none() && exit == Exit::Done {
                    let message = "the scrub was stopped before its end; the next one goes on from there";
                    return Err(CommandError::failed(message));
                }
                Ok(exit)
            }
            Some(_) => Err(CommandError::failed("the registry answered something else")),
        }
    }
}

fn exit_of(report: &ScrubReport) -> Exit {
    match report {
        _ if report.damaged.count > 0 => Exit::Found,
        _ if report.failure.is_some() || report.errors > 0 => Exit::Failed,
        _ => Exit::Done,
    }
}

/// A report for people.
fn text(report: &ScrubReport) -> String {
    let end = match (report.ended_at_ms, &report.failure) {
        (Some(end), _) => format!("ended {}", time(end)),
        (None, Some(failure)) => format!("ended before its end: {failure}; the next one goes on from there"),
        (None, None) => {
            format!("not at its end, {}; a next one goes on from there", time(report.updated_at_ms))
        }
    };
    let mut text = format!("Scrub begun {}, {end}\n", time(report.began_at_ms));
    let _ = writeln!(text, "  read: {} of {} contents", amount(report.checked), amount(report.total));
    for (count, name) in [
        (report.changed, "deleted or pushed again meanwhile"),
        (report.read_again, "read rightly only the second time"),
        (report.reinstated.count, "damaged before, and whole again"),
    ] {
        if count > 0 {
            let _ = writeln!(text, "  {count} {name}");
        }
    }
    let _ = writeln!(text, "  damaged: {}", amount(report.damaged));
    for found in &report.found {
        let damage = format!("{:?}", found.damage).to_lowercase();
        let _ = writeln!(text, "    {} ({damage}) of {}", found.digest, found.repositories.join(", "));
    }
    for error in &report.error_texts {
        let _ = writeln!(text, "  error: {error}");
    }
    text
}
