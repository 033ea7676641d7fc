use engine::metadata::UploadId;
use engine::oci::RepositoryName;
use engine::{Core, ResumeError};
use interface::Reason;

use super::calls::{CancelUpload, Upload};
use super::dispatch::Context;
use crate::private::Refusal;

/// All sessions, by repository.
pub(super) fn list(core: &Core) -> Result<Vec<Upload>, Refusal> {
    let mut uploads = Vec::new();
    for (id, repository) in core.uploads()? {
        uploads.extend(look(core, id, &repository)?);
    }
    uploads.sort_by(|one, other| (&one.repository, &one.id).cmp(&(&other.repository, &other.id)));
    Ok(uploads)
}

/// Ends one.
pub(super) async fn cancel(context: &Context<'_>, call: CancelUpload) -> Result<Upload, Refusal> {
    let unknown = || Refusal::new(Reason::NotFound, format!("there is no upload session {}", call.id));
    let id: UploadId = call.id.parse().map_err(|_| unknown())?;
    let core = context.core;
    let _write = core.begin_write()?;
    let repository = core.uploads()?.remove(&id).ok_or_else(unknown)?;
    let upload = look(core, id, &repository)?.ok_or_else(unknown)?;
    match core.resume_upload(&repository, id) {
        Ok(writer) => writer.cancel().await?,
        Err(ResumeError::Unknown) => return Err(unknown()),
        Err(ResumeError::Busy(_)) => {
            let message = format!(
                "a request is writing to the upload session {id}; it can be ended when that has ended"
            );
            return Err(Refusal::new(Reason::Conflict, message));
        }
        Err(ResumeError::Engine(error)) => return Err(error.into()),
    }
    context.audit("cancel upload", &format!("{id} of {repository}, {} bytes", upload.bytes));
    Ok(upload)
}

/// What is known of a session; `None` where it has ended since it was found.
fn look(core: &Core, id: UploadId, repository: &RepositoryName) -> Result<Option<Upload>, Refusal> {
    let (bytes, is_busy) = match core.upload_size(repository, id) {
        Ok(size) => (size, false),
        Err(ResumeError::Busy(busy)) => (busy.size(), true),
        Err(ResumeError::Unknown) => return Ok(None),
        Err(ResumeError::Engine(error)) => return Err(error.into()),
    };
    let record = core.metadata().snapshot()?.upload(id)?;
    Ok(Some(Upload {
        id: id.to_string(),
        repository: repository.to_string(),
        bytes,
        started_at_ms: record.as_ref().map(|record| record.started_at.0),
        touched_at_ms: record.as_ref().map(|record| record.touched_at.0),
        is_busy,
    }))
}
