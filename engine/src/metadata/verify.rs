use super::MetadataError;
use super::storage::{Backend, Storage, StoragePart};

/// Reads all pages of a store that nobody has open, and compares them with their checksums; `false` where something that
/// could be put right was wrong, and was put right. What the log has is not looked at, as each record of it is checked
/// when the store is opened.
///
/// # Errors
/// The file cannot be read, or is not what was written to it.
pub(crate) fn verify(storage: &dyn Storage, cache_size: usize) -> Result<bool, MetadataError> {
    let tables = storage.open(StoragePart::Tables)?;
    let mut database =
        redb::Builder::new().set_cache_size(cache_size).create_with_backend(Backend(tables))?;
    Ok(database.check_integrity()?)
}
