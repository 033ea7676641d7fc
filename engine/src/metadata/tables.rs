use std::ops::{Bound, Deref};
use std::sync::OnceLock;

use redb::{Range, ReadOnlyTable, ReadTransaction, ReadableTable, Table, TableDefinition, WriteTransaction};

use super::log::Rows;
use super::rows::{
    COLLECTIONS, CONTENTS, DAMAGED, DIGESTS, LOG, NAMES, REPOSITORIES, Row, STATE, TAG_CHANGES, UPLOADS,
    damaged,
};
use super::{MetadataError, keys};
use crate::oci::Digest;

type Key = &'static [u8];
type Value = &'static [u8];
pub(super) type ReadTable = ReadOnlyTable<Key, Value>;
pub(super) type ReadRange = Range<'static, Key, Value>;

/// The names of the tables, by the numbers that stand for them in the log.
pub(super) const BY_NUMBER: [&str; 9] =
    [DIGESTS, REPOSITORIES, NAMES, CONTENTS, UPLOADS, TAG_CHANGES, STATE, COLLECTIONS, DAMAGED];

/// A table that is written to. It is read as the table of redb that it holds; every write goes through here, and is
/// recorded for the log.
pub(super) struct WriteTable<'t> {
    table: Table<'t, Key, Value>,
    number: u8,
    written: Rows,
}

impl<'t> Deref for WriteTable<'t> {
    type Target = Table<'t, Key, Value>;

    fn deref(&self) -> &Self::Target {
        &self.table
    }
}

impl WriteTable<'_> {
    /// Puts a row in place; whether there was one before.
    pub(super) fn insert(&mut self, key: &[u8], value: &[u8]) -> Result<bool, MetadataError> {
        let existed = self.table.insert(key, value)?.is_some();
        self.written.push(self.number, key, Some(value));
        Ok(existed)
    }

    /// Removes a row; whether there was one.
    pub(super) fn remove(&mut self, key: &[u8]) -> Result<bool, MetadataError> {
        let existed = self.table.remove(key)?.is_some();
        if existed {
            self.written.push(self.number, key, None);
        }
        Ok(existed)
    }

    /// Puts inline content in place: for the table `contents`.
    pub(super) fn insert_content(&mut self, digest: &Digest, bytes: &[u8]) -> Result<(), MetadataError> {
        let is_large = keys::is_large(bytes.len() as u64);
        self.insert(&keys::content(digest, is_large), bytes).map(drop)
    }

    /// Removes inline content: for the table `contents`. `size` says where to look first.
    pub(super) fn remove_content(&mut self, digest: &Digest, size: u64) -> Result<(), MetadataError> {
        let is_large = keys::is_large(size);
        if !self.remove(&keys::content(digest, is_large))? {
            self.remove(&keys::content(digest, !is_large))?;
        }
        Ok(())
    }

    /// Removes the first row; its key.
    pub(super) fn pop_first(&mut self) -> Result<Option<Vec<u8>>, MetadataError> {
        let Some((key, _)) = self.table.pop_first()? else { return Ok(None) };
        let key = key.value().to_vec();
        self.written.push(self.number, &key, None);
        Ok(Some(key))
    }
}

/// The tables, opened in a write transaction.
pub(super) struct WriteTables<'t> {
    pub(super) digests: WriteTable<'t>,
    pub(super) repositories: WriteTable<'t>,
    pub(super) names: WriteTable<'t>,
    pub(super) contents: WriteTable<'t>,
    pub(super) uploads: WriteTable<'t>,
    pub(super) tag_changes: WriteTable<'t>,
    pub(super) state: WriteTable<'t>,
    pub(super) collections: WriteTable<'t>,
    pub(super) damaged: WriteTable<'t>,
}

impl<'t> WriteTables<'t> {
    /// Opens the tables, and creates those that do not exist.
    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Self, MetadataError> {
        let open = |number: usize| -> Result<WriteTable<'t>, MetadataError> {
            let table = transaction.open_table(TableDefinition::new(BY_NUMBER[number]))?;
            Ok(WriteTable { table, number: number as u8, written: Rows::default() })
        };
        Ok(Self {
            digests: open(0)?,
            repositories: open(1)?,
            names: open(2)?,
            contents: open(3)?,
            uploads: open(4)?,
            tag_changes: open(5)?,
            state: open(6)?,
            collections: open(7)?,
            damaged: open(8)?,
        })
    }

    fn all(&mut self) -> [&mut WriteTable<'t>; 9] {
        let Self {
            digests,
            repositories,
            names,
            contents,
            uploads,
            tag_changes,
            state,
            collections,
            damaged,
        } = self;
        [digests, repositories, names, contents, uploads, tag_changes, state, collections, damaged]
    }

    /// Takes what was written to all of the tables. Rows of one table are in the order in which they were written;
    /// between tables there is no order that matters.
    pub(super) fn take_written(&mut self) -> Rows {
        let mut rows = Rows::default();
        for table in self.all() {
            rows.append(std::mem::take(&mut table.written));
        }
        rows
    }

    /// Puts a row in place in the table of this number.
    pub(super) fn restore(&mut self, number: u8, key: &[u8], value: &[u8]) -> Result<(), MetadataError> {
        let mut tables = self.all();
        let table = tables
            .get_mut(usize::from(number))
            .ok_or_else(|| damaged(LOG, format_args!("a row of table {number}, which is not known")))?;
        table.insert(key, value).map(drop)
    }

    /// Writes rows again as they were written once, whatever is there now.
    pub(super) fn replay(&mut self, rows: &[u8]) -> Result<(), MetadataError> {
        let mut tables = self.all();
        for row in Rows::read(rows) {
            let (number, key, value) = row?;
            let table = &mut tables
                .get_mut(usize::from(number))
                .ok_or_else(|| damaged(LOG, format_args!("a row of table {number}, which is not known")))?
                .table;
            match value {
                Some(value) => table.insert(key, value)?,
                None => table.remove(key)?,
            };
        }
        Ok(())
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
    collections: OnceLock<ReadTable>,
    damaged: OnceLock<ReadTable>,
    state: OnceLock<ReadTable>,
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
            collections: OnceLock::new(),
            damaged: OnceLock::new(),
            state: OnceLock::new(),
        }
    }

    pub(super) fn by_name(&self, name: &str) -> Result<&ReadTable, MetadataError> {
        match name {
            DIGESTS => self.digests(),
            REPOSITORIES => self.repositories(),
            NAMES => self.names(),
            CONTENTS => self.contents(),
            UPLOADS => self.uploads(),
            TAG_CHANGES => self.tag_changes(),
            COLLECTIONS => self.collections(),
            DAMAGED => self.damaged(),
            _ => self.state(),
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

    pub(super) fn state(&self) -> Result<&ReadTable, MetadataError> {
        self.table(&self.state, STATE)
    }

    pub(super) fn collections(&self) -> Result<&ReadTable, MetadataError> {
        self.table(&self.collections, COLLECTIONS)
    }

    pub(super) fn damaged(&self) -> Result<&ReadTable, MetadataError> {
        self.table(&self.damaged, DAMAGED)
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

/// The bytes of inline content, given to `read` where they are there. `size` says where to look first.
pub(super) fn content<T>(
    contents: &impl ReadableTable<Key, Value>,
    digest: &Digest,
    size: u64,
    read: impl Fn(&[u8]) -> T,
) -> Result<Option<T>, MetadataError> {
    let is_large = keys::is_large(size);
    for is_large in [is_large, !is_large] {
        if let Some(bytes) = contents.get(&*keys::content(digest, is_large))? {
            return Ok(Some(read(bytes.value())));
        }
    }
    Ok(None)
}

/// The row at `key`, where it is of a type that owns its fields.
pub(super) fn owned_row<R: for<'a> Row<'a>>(
    table: &impl ReadableTable<Key, Value>,
    key: &[u8],
) -> Result<Option<R>, MetadataError> {
    row(table, key, |value| R::decode(value))
}

/// The same, where a row that cannot be read counts as none: what it said is given up.
pub(super) fn readable_row<R: for<'a> Row<'a>>(
    table: &impl ReadableTable<Key, Value>,
    key: &[u8],
) -> Result<Option<R>, MetadataError> {
    match owned_row(table, key) {
        Err(error) if error.is_of_one_row() => {
            tracing::warn!(%error, "a row that cannot be read counts as none");
            Ok(None)
        }
        row => row,
    }
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
