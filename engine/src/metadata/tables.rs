use std::ops::Bound;
use std::sync::OnceLock;

use redb::{Range, ReadOnlyTable, ReadTransaction, ReadableTable, Table, TableDefinition, WriteTransaction};

use super::rows::{CONTENTS, DIGESTS, NAMES, REPOSITORIES, Row, STATE, TAG_CHANGES, UPLOADS};
use super::{MetadataError, keys};

type Key = &'static [u8];
type Value = &'static [u8];
pub(super) type WriteTable<'t> = Table<'t, Key, Value>;
pub(super) type ReadTable = ReadOnlyTable<Key, Value>;
pub(super) type ReadRange = Range<'static, Key, Value>;

/// The tables, opened in a write transaction.
pub(super) struct WriteTables<'t> {
    pub(super) digests: WriteTable<'t>,
    pub(super) repositories: WriteTable<'t>,
    pub(super) names: WriteTable<'t>,
    pub(super) contents: WriteTable<'t>,
    pub(super) uploads: WriteTable<'t>,
    pub(super) tag_changes: WriteTable<'t>,
    pub(super) state: WriteTable<'t>,
}

impl<'t> WriteTables<'t> {
    /// Opens the tables, and creates those that do not exist.
    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Self, MetadataError> {
        let open = |name| transaction.open_table(TableDefinition::new(name));
        Ok(Self {
            digests: open(DIGESTS)?,
            repositories: open(REPOSITORIES)?,
            names: open(NAMES)?,
            contents: open(CONTENTS)?,
            uploads: open(UPLOADS)?,
            tag_changes: open(TAG_CHANGES)?,
            state: open(STATE)?,
        })
    }
}

/// The tables of a read transaction. Each is opened when it is first asked for: most requests need two of them, and
/// opening one costs about as much as a look-up.
pub(super) struct ReadTables {
    transaction: ReadTransaction,
    digests: OnceLock<ReadTable>,
    repositories: OnceLock<ReadTable>,
    names: OnceLock<ReadTable>,
    contents: OnceLock<ReadTable>,
    uploads: OnceLock<ReadTable>,
    tag_changes: OnceLock<ReadTable>,
}

impl ReadTables {
    pub(super) fn new(transaction: ReadTransaction) -> Self {
        Self {
            transaction,
            digests: OnceLock::new(),
            repositories: OnceLock::new(),
            names: OnceLock::new(),
            contents: OnceLock::new(),
            uploads: OnceLock::new(),
            tag_changes: OnceLock::new(),
        }
    }

    pub(super) fn digests(&self) -> Result<&ReadTable, MetadataError> {
        self.table(&self.digests, DIGESTS)
    }

    pub(super) fn repositories(&self) -> Result<&ReadTable, MetadataError> {
        self.table(&self.repositories, REPOSITORIES)
    }

    pub(super) fn names(&self) -> Result<&ReadTable, MetadataError> {
        self.table(&self.names, NAMES)
    }

    pub(super) fn contents(&self) -> Result<&ReadTable, MetadataError> {
        self.table(&self.contents, CONTENTS)
    }

    pub(super) fn uploads(&self) -> Result<&ReadTable, MetadataError> {
        self.table(&self.uploads, UPLOADS)
    }

    pub(super) fn tag_changes(&self) -> Result<&ReadTable, MetadataError> {
        self.table(&self.tag_changes, TAG_CHANGES)
    }

    fn table<'s>(
        &'s self,
        slot: &'s OnceLock<ReadTable>,
        name: &str,
    ) -> Result<&'s ReadTable, MetadataError> {
        if let Some(table) = slot.get() {
            return Ok(table);
        }
        let table = self.transaction.open_table(TableDefinition::new(name))?;
        Ok(slot.get_or_init(|| table))
    }
}

/// The row at `key`, decoded by `read` where there is one.
pub(super) fn row<T>(
    table: &impl ReadableTable<Key, Value>,
    key: &[u8],
    read: impl FnOnce(&[u8]) -> Result<T, MetadataError>,
) -> Result<Option<T>, MetadataError> {
    table.get(key)?.map(|value| read(value.value())).transpose()
}

/// The row at `key`, where it is of a type that owns its fields.
pub(super) fn owned_row<R: for<'a> Row<'a>>(
    table: &impl ReadableTable<Key, Value>,
    key: &[u8],
) -> Result<Option<R>, MetadataError> {
    row(table, key, |value| R::decode(value))
}

/// Whether there is a row at `key`.
pub(super) fn has(table: &impl ReadableTable<Key, Value>, key: &[u8]) -> Result<bool, MetadataError> {
    Ok(table.get(key)?.is_some())
}

/// The bounds of all keys that begin with `prefix` and are greater than `prefix` and `after` together.
fn prefix_bounds(prefix: &[u8], after: Option<&[u8]>) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
    let lower = match after {
        None => Bound::Included(prefix.to_vec()),
        Some(after) => Bound::Excluded([prefix, after].concat()),
    };
    (lower, keys::after_prefix(prefix).map_or(Bound::Unbounded, Bound::Excluded))
}

fn as_slices((lower, upper): &(Bound<Vec<u8>>, Bound<Vec<u8>>)) -> (Bound<&[u8]>, Bound<&[u8]>) {
    (lower.as_ref().map(Vec::as_slice), upper.as_ref().map(Vec::as_slice))
}

/// The rows whose keys begin with `prefix`, after the one of `prefix` and `after` together, in the order of the keys.
/// The range keeps its snapshot alive.
pub(super) fn read_prefix(
    table: &ReadTable,
    prefix: &[u8],
    after: Option<&[u8]>,
) -> Result<ReadRange, MetadataError> {
    Ok(table.range::<&[u8]>(as_slices(&prefix_bounds(prefix, after)))?)
}

/// The same within a write transaction.
pub(super) fn scan_prefix<'a>(
    table: &'a impl ReadableTable<Key, Value>,
    prefix: &[u8],
) -> Result<Range<'a, Key, Value>, MetadataError> {
    Ok(table.range::<&[u8]>(as_slices(&prefix_bounds(prefix, None)))?)
}
