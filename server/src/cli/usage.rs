use std::fmt::Write as _;

use clap::Args;
use engine::integrity::{Named, Usage};

use super::answer::Answer;
use super::exit::{CommandError, Exit};
use super::root::{Offline, Root};
use super::server::Server;
use super::text::{amount, bytes, table};
use crate::administration::calls::GetUsage;

/// `du`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Du {
    /// Only this namespace, with each of its repositories.
    #[arg(long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    #[command(flatten)]
    answer: Answer,
    #[command(flatten)]
    offline: Offline,
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    root: Root,
}

impl Du {
    pub(super) fn run(self) -> Result<Exit, CommandError> {
        let Self { namespace, answer, offline, server, root } = self;
        let mut usage = match offline.offline {
            true => root.open()?.0.usage().map_err(CommandError::failed)?,
            false => server.with(&root, async |registry| Ok(registry.call(&GetUsage {}).await?))?,
        };
        if let Some(namespace) = &namespace {
            usage.namespaces.retain(|named| named.name == *namespace);
            usage.repositories.retain(|named| first_segment(&named.name) == namespace);
            if usage.namespaces.is_empty() {
                return Err(CommandError::failed(format!("nothing is stored in the namespace {namespace}")));
            }
        }
        answer.print(&usage, |usage| text(usage, namespace.is_some()))?;
        Ok(Exit::Done)
    }
}

fn first_segment(name: &str) -> &str {
    name.split_once('/').map_or(name, |(first, _)| first)
}

fn text(usage: &Usage, of_one: bool) -> String {
    let mut text = String::new();
    if !of_one {
        let _ = writeln!(text, "stored: {}", amount(usage.stored));
        let _ = writeln!(text, "in the metadata: {}", amount(usage.inline));
        let _ =
            writeln!(text, "in no repository, which the next collection takes: {}", amount(usage.unlinked));
        let _ = writeln!(text, "damaged: {}\n", usage.damaged);
    }
    let mut rows = vec![["NAME", "OWN", "SHARED", "TOTAL", "CONTENTS", "QUOTA"].map(str::to_owned).to_vec()];
    rows.extend(usage.namespaces.iter().map(row));
    if of_one {
        rows.extend(usage.repositories.iter().map(row));
    }
    text + &table(&rows)
}

fn row(named: &Named) -> Vec<String> {
    let Named { name, share, quota } = named;
    let total = share.total();
    vec![
        name.clone(),
        bytes(share.own.bytes),
        bytes(share.shared.bytes),
        bytes(total.bytes),
        total.count.to_string(),
        quota.map_or_else(|| "-".to_owned(), bytes),
    ]
}
