use super::super::rows::Row as _;
use super::super::tables::readable_row;
use super::super::{MetadataError, keys};
use super::Transaction;
use crate::read_only::Hold;

impl Transaction<'_> {
    /// The hold on writes, where there is one, be its time over. One that cannot be read is none: a
    /// registry that starts without it is of more use than one that does not.
    pub(crate) fn hold(&self) -> Result<Option<Hold>, MetadataError> {
        readable_row(&*self.tables.state, keys::HOLD)
    }

    /// Keeps a hold on writes, in place of the one there is, or none.
    pub(crate) fn set_hold(&mut self, hold: Option<&Hold>) -> Result<(), MetadataError> {
        self.change();
        match hold {
            Some(hold) => self.tables.state.insert(keys::HOLD, hold.encode()?.as_slice())?,
            None => self.tables.state.remove(keys::HOLD)?,
        };
        Ok(())
    }
}
