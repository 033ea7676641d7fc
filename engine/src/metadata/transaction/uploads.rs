use super::super::rows::{Row as _, UploadRow};
use super::super::{MetadataError, UploadId, UploadRecord};
use super::{Transaction, lower};

impl Transaction<'_> {
    /// Stores an upload session, in place of what was stored of it before.
    pub fn save_upload(&mut self, id: UploadId, record: &UploadRecord) -> Result<(), MetadataError> {
        let row = UploadRow::from(record).encode()?;
        self.change();
        if !self.tables.uploads.insert(id.0.as_slice(), row.as_slice())? {
            self.state.statistics.uploads += 1;
        }
        Ok(())
    }

    /// Ends an upload session; whether there was one. Its file is the caller's to delete.
    pub fn remove_upload(&mut self, id: UploadId) -> Result<bool, MetadataError> {
        if !self.tables.uploads.remove(id.0.as_slice())? {
            return Ok(false);
        }
        self.change();
        lower(&mut self.state.statistics.uploads, 1);
        Ok(true)
    }
}
