//! Tests of the store as its callers see it.

mod crashes;
mod faults;
mod histories;
pub(crate) mod memory;
mod model;
mod namespaces;
mod operations;

use std::sync::Arc;

use super::*;
use crate::oci::{Algorithm, Digest, Manifest, RepositoryName, Tag, media_type};
use memory::MemoryStorage;

/// With a log that is full after some operations.
const OPTIONS: Options =
    Options { cache_size: 256 << 10, tag_changes_max: TAG_CHANGES_MAX, log_size: 48 << 10 };

fn open(storage: &Arc<MemoryStorage>) -> Metadata {
    open_with(storage, TAG_CHANGES_MAX)
}

fn open_with(storage: &Arc<MemoryStorage>, tag_changes_max: u64) -> Metadata {
    Metadata::open(storage.clone(), Options { tag_changes_max, ..OPTIONS }).expect("opens")
}

/// A blob of no particular content.
fn save(metadata: &Metadata, number: u32) -> Result<BlobCommit, MetadataError> {
    let content = NewContent::File(FileId([number as u8; 16]));
    metadata.write_blocking(move |transaction| {
        transaction.commit_blob(&name("a"), &digest(number), 1, content, None, Timestamp(1))
    })
}

fn name(text: &str) -> RepositoryName {
    text.parse().expect("a name")
}

fn tag(text: &str) -> Tag {
    text.parse().expect("a tag")
}

/// A digest of no particular content. Every fourth is a SHA-512 one.
fn digest(number: u32) -> Digest {
    let algorithm = if number % 4 == 3 { Algorithm::Sha512 } else { Algorithm::Sha256 };
    // Spread over the keys as real digests are.
    let spread = number.wrapping_mul(0x9E37_79B1).to_be_bytes();
    let value: Vec<u8> =
        spread.iter().chain(&number.to_be_bytes()).copied().cycle().take(algorithm.size()).collect();
    Digest::new(algorithm, &value).expect("the algorithm's length")
}

fn image(blobs: &[Digest]) -> Manifest {
    Manifest {
        media_type: media_type::OCI_MANIFEST.into(),
        artifact_type: None,
        subject: None,
        config: None,
        blobs: blobs.to_vec(),
        foreign_blobs: Vec::new(),
        children: Vec::new(),
        annotations: None,
    }
}

fn put<'a>(digest: Digest, manifest: &'a Manifest, tags: &'a [Tag], now: u64) -> PutManifest<'a> {
    PutManifest {
        digest,
        manifest,
        size: 7,
        content: NewContent::Inline("content".into()),
        tags,
        condition: &TagCondition::Any,
        now: Timestamp(now),
    }
}
