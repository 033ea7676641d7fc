use std::fmt::Write as _;

use clap::Args;
use engine::integrity::{Keeper, Keeps, Why, WhyIn};
use engine::oci::Digest;

use super::answer::Answer;
use super::exit::{CommandError, Exit};
use super::root::{Offline, Root};
use super::server::Server;
use super::text::{bytes, time};
use crate::administration::calls;

/// `why`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct AskWhy {
    /// The digest of a blob or a manifest.
    digest: Digest,
    #[command(flatten)]
    answer: Answer,
    #[command(flatten)]
    offline: Offline,
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    root: Root,
}

impl AskWhy {
    pub(super) fn run(self) -> Result<Exit, CommandError> {
        let Self { digest, answer, offline, server, root } = self;
        let why = match offline.offline {
            true => root.open()?.0.why(&digest).map_err(CommandError::failed)?,
            false => {
                let call = calls::AskWhy { digest: digest.to_string() };
                server.with(&root, async |registry| Ok(registry.call(&call).await?))?
            }
        };
        answer.print(&why, |why| text(&digest, why))?;
        Ok(Exit::Done)
    }
}

fn text(digest: &Digest, why: &Why) -> String {
    let mut text = match &why.stored {
        Some(stored) => {
            let place = stored.file.as_deref().unwrap_or("the metadata");
            format!("{digest}: {}, stored {}, in {place}\n", bytes(stored.bytes), time(stored.stored_at_ms))
        }
        None => format!("{digest} is not stored.\n"),
    };
    if let Some(damage) = why.damage {
        let _ = writeln!(
            text,
            "It was found damaged ({}), and counts as not there until it is pushed again.",
            format!("{damage:?}").to_lowercase()
        );
    }
    for within in &why.repositories {
        write_repository(&mut text, within);
    }
    let unnamed = why.repositories_total.saturating_sub(why.repositories.len() as u64);
    if unnamed > 0 {
        let _ = writeln!(text, "and in {unnamed} more repositories");
    }
    if why.stored.is_some() {
        let verdict = match (why.is_kept, why.repositories.iter().any(|within| within.has_more)) {
            (true, _) => "It is kept.",
            (false, true) => "As far as is shown here, no tag leads to it.",
            (false, false) => "Nothing keeps it: the next collection takes it, unless it is too young.",
        };
        let _ = writeln!(text, "{verdict}");
    }
    text
}

fn write_repository(text: &mut String, within: &WhyIn) {
    let _ = write!(text, "in {}:", within.repository);
    if let Some(at) = within.linked_at_ms {
        let _ = write!(text, " a blob since {}", time(at));
    }
    if let Some(at) = within.pushed_at_ms {
        let _ = write!(text, " a manifest since {}", time(at));
    }
    let _ = writeln!(
        text,
        "{}",
        if within.is_leased { ", which a client was told of a short while ago" } else { "" }
    );
    if !within.tags.is_empty() {
        let _ = writeln!(text, "  tags: {}", within.tags.join(", "));
    }
    for Keeper { digest, keeps, how, tags, .. } in &within.keepers {
        let how = match how {
            Keeps::Blob | Keeps::ForeignBlob => "needs the blob",
            Keeps::Child => "lists the manifest",
            Keeps::Referrer => "has as a referrer",
        };
        let tags = if tags.is_empty() { String::new() } else { format!(", tags: {}", tags.join(", ")) };
        let _ = writeln!(text, "  {digest} {how} {keeps}{tags}");
    }
    if within.has_more {
        let _ = writeln!(text, "  and there are more");
    }
}
