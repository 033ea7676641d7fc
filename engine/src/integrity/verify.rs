use std::path::Path;

use crate::layout::{self, RootError};
use crate::metadata::{self, FileStorage, MetadataError};

/// Why the metadata of a stopped registry is of no use, or nobody knows.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The root, or there is no metadata in it.
    #[error(transparent)]
    Root(#[from] RootError),
    /// It cannot be read, or is damaged.
    #[error("{path} cannot be used: {source}; put a copy in its place, or rebuild it from its export")]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong.
        source: MetadataError,
    },
}

/// Reads all of the metadata of a stopped registry, with `cache_bytes` of memory, and compares it with its checksums, which
/// nothing does while it is used. `false`: something was wrong that could be put right without loss, and was.
pub fn verify(root: &Path, cache_bytes: usize) -> Result<bool, VerifyError> {
    layout::look_for_metadata(root)?;
    let locked = layout::prepare(root)?;
    let path = root.join(layout::METADATA);
    let text = path.display().to_string();
    let answer = metadata::verify(&FileStorage::new(&path), cache_bytes);
    drop(locked);
    answer.map_err(|source| VerifyError::Damaged { path: text, source })
}
