use std::cell::RefCell;
use std::fmt::Write as _;
use std::ops::ControlFlow;

use clap::Args;
use engine::integrity::{CheckReport, verify};

use super::answer::Answer;
use super::exit::{CommandError, Exit};
use super::follow::Follow;
use super::progress::{Progress, Unit};
use super::root::{Offline, Root, open};
use super::server::Server;
use crate::administration::calls::{CheckRequest, Report, Work};
use crate::administration::{check_options, integrity_phase_name};
use crate::serve::engine_options;

/// `fsck`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Fsck {
    /// Put right what is wrong. Content that was lost stays lost until it is pushed again.
    #[arg(long)]
    repair: bool,
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

impl Fsck {
    pub(super) fn run(self) -> Result<Exit, CommandError> {
        let Self { repair, follow, answer, offline, server, root } = self;
        let mut progress = Progress::new("fsck", Unit::Things);
        let request = CheckRequest { repair };
        let report = if offline.offline {
            let options = engine_options(&root.existing()?, 1);
            progress.say("reading the metadata and comparing it with its checksums");
            if !verify(&options.root, options.cache_bytes)? {
                progress.say(
                    "what the metadata said of its free pages was wrong, and was put right; nothing was lost",
                );
            }
            let engine = open(options)?;
            let shown = RefCell::new(progress);
            let report = engine.check(&check_options(&request), &|progress| {
                shown.borrow_mut().show(integrity_phase_name(progress.phase), progress.done, progress.total);
                ControlFlow::Continue(())
            });
            shown.borrow().end();
            report.map_err(CommandError::failed)?
        } else {
            let work = Work::Check(request);
            match server.with(&root, async |registry| follow.run(&registry, work, &mut progress).await)? {
                None => return Ok(Exit::Done),
                Some(Report::Check(report)) => report,
                Some(_) => return Err(CommandError::failed("the registry answered something else")),
            }
        };
        answer.print(&report, text)?;
        Ok(match report {
            _ if report.left > 0 => Exit::Found,
            _ if report.errors > 0 => Exit::Failed,
            _ => Exit::Done,
        })
    }
}

/// A report for people.
fn text(report: &CheckReport) -> String {
    let examined = &report.examined;
    let mut text = format!(
        "Looked at {} repositories, {} tags, {} manifests, {} links of blobs, {} contents and {} files\n",
        examined.repositories,
        examined.tags,
        examined.manifests,
        examined.links,
        examined.contents,
        examined.files
    );
    for (kind, found) in &report.findings {
        // Each kind has a word of its own for machines, which will do for people.
        let name = serde_json::to_value(kind)
            .ok()
            .and_then(|name| name.as_str().map(str::to_owned))
            .unwrap_or_default();
        let weight = if kind.is_fault() { "wrong" } else { "worth knowing" };
        let _ = writeln!(text, "  {weight}: {name}, {}", found.count);
        for example in &found.examples {
            let _ = writeln!(text, "    {example}");
        }
    }
    for error in &report.error_texts {
        let _ = writeln!(text, "  error: {error}");
    }
    let _ = match (report.faults(), report.repair) {
        (0, _) => writeln!(text, "Nothing is wrong."),
        (_, true) => writeln!(text, "Put right: {}. Still wrong: {}.", report.repaired, report.left),
        (faults, false) => writeln!(text, "Wrong: {faults}. With --repair, what can be put right is."),
    };
    for example in &report.left_examples {
        let _ = writeln!(text, "  left: {example}");
    }
    text
}
