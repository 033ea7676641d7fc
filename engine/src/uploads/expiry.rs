//! The end of upload sessions that nobody goes on with.

use crate::collection::{Amount, Store};
use crate::error::EngineError;
use crate::layout;
use crate::metadata::{MetadataError, Timestamp, UploadContent, UploadId};

use super::sessions::Taken;

/// Sessions that are removed in one transaction, when they have expired.
const EXPIRE_BATCH: usize = 256;

impl Store<'_> {
    /// Ends the sessions without progress since `before`, with their files; or counts them, in a dry run. Waits for the
    /// disk.
    pub(crate) fn expire_uploads(&self, before: Timestamp, dry_run: bool) -> Result<Amount, EngineError> {
        let mut expired = Amount::default();
        let mut batch = Vec::new();
        for upload in self.metadata.snapshot()?.uploads()? {
            let (id, record) = match upload {
                Err(error @ MetadataError::Row { .. }) => {
                    tracing::warn!(%error, "an upload session cannot be read, and stays");
                    continue;
                }
                upload => upload?,
            };
            if record.touched_at >= before || self.sessions.is_busy(id) {
                continue;
            }
            if dry_run {
                expired.add(record.size);
                continue;
            }
            // One that a client came back to in the meantime is left alone.
            let Ok(taken) = self.sessions.take(self.metadata, &record.repository, id) else { continue };
            if taken.record.touched_at >= before {
                self.sessions.give_back(id, taken);
                continue;
            }
            batch.push((id, taken));
            if batch.len() == EXPIRE_BATCH {
                self.end_uploads(std::mem::take(&mut batch), &mut expired)?;
            }
        }
        self.end_uploads(batch, &mut expired)?;
        Ok(expired)
    }

    fn end_uploads(&self, batch: Vec<(UploadId, Taken)>, expired: &mut Amount) -> Result<(), EngineError> {
        let ids: Vec<UploadId> = batch.iter().map(|(id, _)| *id).collect();
        if ids.is_empty() {
            return Ok(());
        }
        let removed = self.metadata.write_blocking(move |transaction| {
            ids.into_iter().try_for_each(|id| transaction.remove_upload(id).map(drop))
        });
        if let Err(error) = removed {
            batch.into_iter().for_each(|(id, taken)| self.sessions.give_back(id, taken));
            return Err(error.into());
        }
        for (id, Taken { record, .. }) in batch {
            tracing::info!(upload = %id, repository = %record.repository, bytes = record.size, "an upload session has expired");
            expired.add(record.size);
            if let UploadContent::File(file) = record.content {
                let name = layout::upload(file);
                if let Err(error) = self.files.remove(&name)
                    && error.kind() != std::io::ErrorKind::NotFound
                {
                    tracing::warn!(file = name, %error, "cannot remove the file of an upload session that has expired");
                }
            }
            self.sessions.remove(id);
        }
        Ok(())
    }
}
