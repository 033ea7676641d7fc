//! What a write transaction can do. Each operation checks first and writes after.

mod blobs;
mod collection;
mod damage;
mod hold;
mod manifests;
mod namespaces;
mod purge;
mod repair;
mod repositories;
mod restore;
mod tags;
mod uploads;

use std::collections::BTreeMap;

use redb::ReadableTableMetadata as _;

use super::log::Rows;
use super::records::{NamespaceId, NamespaceUsage};
use super::rows::{Row as _, StateRow, TagChangeRow};
use super::tables::WriteTables;
use super::{MetadataError, keys};

pub use blobs::{BlobCommit, NewContent};
pub(crate) use collection::{Collected, NOWHERE};
pub(super) use manifests::edges_of;
pub use manifests::{ManifestCommit, PutManifest};
pub use purge::PurgeStep;
pub use tags::TagCondition;

/// The store within a write transaction: what it reads is the last committed state and what requests of the same
/// batch have written before.
pub struct Transaction<'t> {
    tables: WriteTables<'t>,
    state: StateRow,
    /// What namespaces hold, as far as it has changed.
    namespaces: BTreeMap<NamespaceId, NamespaceUsage>,
    changes: u64,
    tag_changes_max: u64,
}

impl<'t> Transaction<'t> {
    pub(super) fn new(tables: WriteTables<'t>, state: StateRow, tag_changes_max: u64) -> Self {
        Self { tables, state, namespaces: BTreeMap::new(), changes: 0, tag_changes_max }
    }

    /// How often something was changed. Counted before each first write.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// The number of the last change.
    pub(crate) fn sequence(&self) -> u64 {
        self.state.sequence
    }

    /// Ends the transaction's writes, and gives the state they leave behind and what the log says of them; `None` where
    /// there were none.
    pub(super) fn finish(mut self) -> Result<Option<(StateRow, Rows)>, MetadataError> {
        if self.changes == 0 {
            return Ok(None);
        }
        self.write_namespaces()?;
        self.tables.state.insert(keys::STATE, self.state.encode()?.as_slice())?;
        Ok(Some((self.state, self.tables.take_written())))
    }

    /// The number of the change that is about to be made.
    fn change(&mut self) -> u64 {
        self.changes += 1;
        self.state.sequence += 1;
        self.state.sequence
    }

    /// Records the change of a tag, and drops the oldest records beyond the limit.
    fn record_tag_change(&mut self, sequence: u64, change: &TagChangeRow<'_>) -> Result<(), MetadataError> {
        let kept = &mut self.tables.tag_changes;
        kept.insert(sequence.to_be_bytes().as_slice(), change.encode()?.as_slice())?;
        while kept.len()? > self.tag_changes_max {
            let Some(oldest) = kept.pop_first()? else { break };
            self.state.changes_trimmed = super::snapshot::number(&oldest, super::rows::TAG_CHANGES)?;
        }
        Ok(())
    }
}

/// Lowers a counter. In a store that needs repair it may be less than what it counts.
fn lower(counter: &mut u64, by: u64) {
    *counter = counter.saturating_sub(by);
}

impl std::fmt::Debug for Transaction<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transaction").field("sequence", &self.state.sequence).finish_non_exhaustive()
    }
}
