//! Filling a new store with the rows of an export.

use super::super::MetadataError;
use super::super::keys;
use super::super::log::Rows;
use super::super::records::{FileId, Timestamp};
use super::super::rows::{Row as _, STATE, StateRow, TAG_CHANGES};
use super::super::tables::BY_NUMBER;
use super::{BlobCommit, NewContent, Transaction};
use crate::oci::Digest;

/// How far the numbers of changes are ahead of the export's in a store that was rebuilt: farther than any that was given
/// out since.
const SEQUENCE_AHEAD: u64 = 1 << 32;

/// The same of repositories and namespaces.
const IDS_AHEAD: u32 = 1 << 20;

impl Transaction<'_> {
    /// Puts the rows of an export in place. The history of the tags is left out, as it would be that of another time.
    pub(crate) fn restore(&mut self, rows: &[u8]) -> Result<(), MetadataError> {
        self.changes += 1;
        for row in Rows::read(rows) {
            let (number, key, value) = row?;
            let (Some(value), table) = (value, BY_NUMBER.get(usize::from(number))) else { continue };
            if table == Some(&STATE) && key == keys::STATE {
                self.state = StateRow::decode(value)?;
            } else if table != Some(&TAG_CHANGES) {
                self.tables.restore(number, key, value)?;
            }
        }
        Ok(())
    }

    /// Ends the restoring: what numbers were given out since the export was made is not known, so new ones are taken from
    /// far behind them, and whoever goes by them has to list everything again.
    pub(crate) fn end_restore(&mut self) {
        self.changes += 1;
        self.state.sequence = self.state.sequence.saturating_add(SEQUENCE_AHEAD);
        self.state.repository = self.state.repository.saturating_add(IDS_AHEAD);
        self.state.namespace = self.state.namespace.saturating_add(IDS_AHEAD);
        self.state.changes_trimmed = self.state.sequence;
    }

    /// Stores content whose file is there, and which nothing is linked to yet.
    pub(crate) fn adopt(
        &mut self,
        digest: &Digest,
        size: u64,
        file: FileId,
        now: Timestamp,
    ) -> Result<BlobCommit, MetadataError> {
        self.store(digest, size, NewContent::File(file), now)
    }
}
