//! The keys, as bytes. Numbers are big-endian, so that the order of the bytes is the order of the numbers; a digest
//! (`Digest::as_key`) tells its own length by its first byte, so that what follows it can be found.
//!
//! Rows that are written together share a table and a prefix wherever they can: each table and each leaf that a commit
//! touches is a page of 4 KiB more to write, and that is most of what a commit costs.
//!
//! | table | key | value |
//! |---|---|---|
//! | `digests` | digest, `b` | the content: `BlobRecord` |
//! | | digest, `l`, repository id (8) | empty: linked as a blob in this repository |
//! | | digest, `m`, repository id (8) | empty: a manifest of this repository |
//! | `repositories` | repository id (8), `i` | name and creation: `RepositoryRow` |
//! | | repository id (8), `l`, digest | a linked blob: `LinkRecord` |
//! | | repository id (8), `m`, digest | a manifest: `ManifestRecord` |
//! | | repository id (8), `e`, digest | all that this manifest refers to: `EdgesRow` |
//! | | repository id (8), `p`, digest, digest of the parent, `EdgeKind` (1) | empty: the parent refers to it |
//! | | repository id (8), `r`, subject's digest, digest | a referrer of the subject: `ReferrerRow` |
//! | | repository id (8), `t`, tag | a tag: `TagRecord` |
//! | | repository id (8), `g`, digest, tag | empty: the tag points at this manifest |
//! | `names` | repository name | repository id (8) |
//! | `contents` | digest | the bytes of inline content of less than 1,366 bytes |
//! | | `l`, digest | the bytes of other inline content |
//! | `uploads` | upload id (16) | an upload session: `UploadRow` |
//! | `tag_changes` | sequence number (8) | a change: `TagChangeRow` |
//! | `state` | empty | sequence number, counters: `StateRow` |
//! | | `g` | generation of the log (8) |
//! | | `r` | the hold on writes, where there is one: `Hold` |
//! | | `s` | how far the scrub is: `ScrubRow` |
//! | | `n`, number of a namespace (4) | what it holds: `NamespaceUsage` |
//! | `collections` | sequence number (8) | what a collection has done: `CollectionRow` |
//! | `damaged` | digest | content that was found damaged: `DamageRecord` |

use std::borrow::Cow;

use super::records::{EdgeKind, NamespaceId, RepositoryId};
use crate::oci::{Algorithm, Digest, Tag};

/// What a row of the table `digests` says of its digest.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(super) enum OfDigest {
    Blob = b'b',
    LinkedIn = b'l',
    ManifestIn = b'm',
}

/// What a row of the table `repositories` says of its repository.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(super) enum OfRepository {
    Identity = b'i',
    Link = b'l',
    Manifest = b'm',
    Edges = b'e',
    Parent = b'p',
    Referrer = b'r',
    Tag = b't',
    TagOf = b'g',
}

/// The key of the row of `state` that every commit writes.
pub(super) const STATE: &[u8] = &[];

/// The key of the row of `state` that every checkpoint writes.
pub(super) const LOG_GENERATION: &[u8] = b"g";

/// The key of the row of `state` that a read-only mode has.
pub(super) const HOLD: &[u8] = b"r";

/// The key of the row of `state` that a scrub leaves behind.
pub(super) const SCRUB: &[u8] = b"s";

/// What the keys of `state` begin with that are of namespaces.
pub(super) const NAMESPACES: &[u8] = b"n";

/// What the keys of `contents` begin with whose content is large; the others begin with the number of an algorithm.
pub(super) const LARGE: &[u8] = b"l";

/// The size from which on content is large. redb merges a leaf with its neighbour once it is filled to less than a third:
/// one with a single row of this size never is. Among small ones, nearly every removal of such a row rewrote two leaves.
const LARGE_MIN: u64 = 4096 / 3 + 1;

/// Whether inline content of this size is kept among the large.
pub(super) fn is_large(size: u64) -> bool {
    size >= LARGE_MIN
}

/// Where inline content is, among the large or the small.
pub(super) fn content(digest: &Digest, is_large: bool) -> Cow<'_, [u8]> {
    match is_large {
        true => [LARGE, digest.as_key()].concat().into(),
        false => digest.as_key().into(),
    }
}

/// `n, namespace`.
pub(super) fn namespace(id: NamespaceId) -> Vec<u8> {
    [NAMESPACES, &id.0.to_be_bytes()].concat()
}

/// `digest, kind, namespace`: the prefix of the keys with a repository of the namespace.
pub(super) fn of_digest_in_namespace(digest: &Digest, kind: OfDigest, namespace: NamespaceId) -> Vec<u8> {
    let mut key = of_digest(digest, kind);
    key.extend_from_slice(&namespace.0.to_be_bytes());
    key
}

/// `digest, kind`: a whole key, or the prefix of the keys with a repository.
pub(super) fn of_digest(digest: &Digest, kind: OfDigest) -> Vec<u8> {
    let mut key = Vec::with_capacity(digest.as_key().len() + 9);
    key.extend_from_slice(digest.as_key());
    key.push(kind as u8);
    key
}

/// `digest, kind, repository`.
pub(super) fn of_digest_in(digest: &Digest, kind: OfDigest, repository: RepositoryId) -> Vec<u8> {
    let mut key = of_digest(digest, kind);
    key.extend_from_slice(&repository.0.to_be_bytes());
    key
}

/// `repository, kind`: a whole key, or a prefix.
pub(super) fn of_repository(repository: RepositoryId, kind: OfRepository) -> Vec<u8> {
    let mut key = Vec::with_capacity(9 + 2 * 65 + 1);
    key.extend_from_slice(&repository.0.to_be_bytes());
    key.push(kind as u8);
    key
}

/// `repository, kind, digest`: a whole key, or a prefix.
pub(super) fn of_repository_digest(repository: RepositoryId, kind: OfRepository, digest: &Digest) -> Vec<u8> {
    let mut key = of_repository(repository, kind);
    key.extend_from_slice(digest.as_key());
    key
}

/// `repository, p, child, parent, edge`.
pub(super) fn parent(repository: RepositoryId, child: &Digest, parent: &Digest, edge: EdgeKind) -> Vec<u8> {
    let mut key = of_repository_digest(repository, OfRepository::Parent, child);
    key.extend_from_slice(parent.as_key());
    key.push(edge as u8);
    key
}

/// `repository, r, subject, digest`.
pub(super) fn referrer(repository: RepositoryId, subject: &Digest, digest: &Digest) -> Vec<u8> {
    let mut key = of_repository_digest(repository, OfRepository::Referrer, subject);
    key.extend_from_slice(digest.as_key());
    key
}

/// `repository, t, tag`.
pub(super) fn tag(repository: RepositoryId, tag: &Tag) -> Vec<u8> {
    let mut key = of_repository(repository, OfRepository::Tag);
    key.extend_from_slice(tag.as_str().as_bytes());
    key
}

/// `repository, g, digest, tag`.
pub(super) fn tag_of(repository: RepositoryId, digest: &Digest, tag: &Tag) -> Vec<u8> {
    let mut key = of_repository_digest(repository, OfRepository::TagOf, digest);
    key.extend_from_slice(tag.as_str().as_bytes());
    key
}

/// The first key after all that begin with `prefix`; `None` where there is none.
pub(super) fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

/// A digest at the start of `key`, and what follows it.
pub(super) fn split_digest(key: &[u8]) -> Option<(Digest, &[u8])> {
    let number = *key.first()?;
    let algorithm = Algorithm::ALL.into_iter().find(|algorithm| *algorithm as u8 == number)?;
    let (digest, rest) = key.split_at_checked(1 + algorithm.size())?;
    Some((Digest::from_key(digest)?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix() {
        assert_eq!(after_prefix(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(after_prefix(&[1, 255, 255]), Some(vec![2]));
        assert_eq!(after_prefix(&[255]), None);
        assert_eq!(after_prefix(&[]), None);
    }

    #[test]
    fn digests_are_found_in_keys() {
        for (algorithm, size) in [(Algorithm::Sha256, 32), (Algorithm::Sha512, 64)] {
            let digest = Digest::new(algorithm, &vec![7; size]).expect("right length");
            let mut key = digest.as_key().to_vec();
            key.extend_from_slice(b"rest");
            assert_eq!(split_digest(&key), Some((digest, &b"rest"[..])));
            assert_eq!(split_digest(&key[..size]), None);
        }
        assert_eq!(split_digest(&[9; 40]), None);
        assert_eq!(split_digest(&[]), None);
    }
}
