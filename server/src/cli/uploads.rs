use clap::Args;

use super::answer::Answer;
use super::exit::{CommandError, Exit};
use super::root::Root;
use super::server::Server;
use super::text::{bytes, table, time};
use crate::administration::calls::{CancelUpload, ListUploads, Upload};

/// `uploads`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Uploads {
    /// End the session of this id, and free what it has.
    #[arg(long, value_name = "ID")]
    cancel: Option<String>,
    #[command(flatten)]
    answer: Answer,
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    root: Root,
}

impl Uploads {
    pub(super) fn run(self) -> Result<Exit, CommandError> {
        let Self { cancel, answer, server, root } = self;
        let uploads = server.with(&root, async |registry| match cancel {
            Some(id) => Ok(vec![registry.call(&CancelUpload { id }).await?]),
            None => Ok(registry.call(&ListUploads {}).await?),
        })?;
        answer.print(&uploads, |uploads| text(uploads))?;
        Ok(Exit::Done)
    }
}

fn text(uploads: &[Upload]) -> String {
    let mut rows = vec![["ID", "REPOSITORY", "SIZE", "BEGUN", "LAST PROGRESS"].map(str::to_owned).to_vec()];
    rows.extend(uploads.iter().map(|upload| {
        let at = |ms: Option<u64>| ms.map_or_else(|| "just now".to_owned(), time);
        let progress = if upload.is_busy { "now".to_owned() } else { at(upload.touched_at_ms) };
        let (id, repository) = (upload.id.clone(), upload.repository.clone());
        vec![id, repository, bytes(upload.bytes), at(upload.started_at_ms), progress]
    }));
    table(&rows)
}
