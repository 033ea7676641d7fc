//! The calls about tags.

mod delete;
mod get;
mod list;
mod watch;

use engine::metadata::{TagRecord, Timestamp};
use engine::oci::{Digest, RepositoryName, Tag};
use interface::{ObjectName, Reason};
use sha2::{Digest as _, Sha256};

use super::refusal::Refusal;

pub(super) use delete::{delete, delete_all};
pub(super) use get::get;
pub(super) use list::list;
pub(super) use watch::watch;

/// What a tag is known by outside.
struct TagFacts<'a> {
    repository: &'a RepositoryName,
    tag: &'a str,
    digest: Digest,
    /// Number and time of the change that made it exist.
    created: (u64, Timestamp),
    /// Number of its last change.
    sequence: u64,
}

impl<'a> TagFacts<'a> {
    fn new(repository: &'a RepositoryName, tag: &'a str, record: &TagRecord) -> Self {
        let TagRecord { digest, created_at, sequence, created, .. } = *record;
        Self { repository, tag, digest, created: (created, created_at), sequence }
    }

    fn into_tag(self) -> interface::Tag {
        let (_, created_at) = self.created;
        interface::Tag {
            namespace: self.repository.namespace().to_owned(),
            path: self.repository.path().to_owned(),
            tag: self.tag.to_owned(),
            digest: self.digest.to_string(),
            uid: self.uid(),
            created_at_ms: created_at.0,
            sequence: self.sequence,
        }
    }

    /// A UUID of version 8 (RFC 9562, section 5.8): the tag's name and the change that made it exist, hashed.
    fn uid(&self) -> String {
        let (number, at) = self.created;
        let mut hasher = Sha256::new();
        // No name has a colon.
        hasher.update(format!("{}:{}:{number}:{}", self.repository, self.tag, at.0));
        let hash = hasher.finalize();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash[..16]);
        bytes[6] = 0x80 | bytes[6] & 0x0f;
        bytes[8] = 0x80 | bytes[8] & 0x3f;
        let hex = hex::encode(bytes);
        format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }
}

/// The repository and the tag of this name; `None` where there cannot be such ones.
fn repository_and_tag(namespace: &str, name: &ObjectName) -> Option<(RepositoryName, Tag)> {
    let (path, tag) = name.path_and_tag();
    let repository: RepositoryName = format!("{namespace}/{path}").parse().ok()?;
    let tag = tag.parse().ok()?;
    // A slash in the namespace would make it another one.
    (repository.namespace() == namespace).then_some((repository, tag))
}

fn unknown(namespace: &str, name: &ObjectName) -> Refusal {
    let (path, tag) = name.path_and_tag();
    Refusal::new(Reason::NotFound, format!("{namespace}/{path} has no tag {tag}"))
}

fn denied(namespace: &str, path: &str, user: &str, verb: &str) -> Refusal {
    Refusal::new(Reason::Denied, format!("{user} may not {verb} tags of {namespace}/{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uid(repository: &str, tag: &str, created: (u64, u64)) -> String {
        let digest = "sha256:".to_owned() + &"0".repeat(64);
        let facts = TagFacts {
            repository: &repository.parse().expect("a name"),
            tag,
            digest: digest.parse().expect("a digest"),
            created: (created.0, Timestamp(created.1)),
            sequence: 9,
        };
        facts.uid()
    }

    #[test]
    fn uids_are_uuids_of_a_tags_life() {
        let one = uid("ns/a/b", "latest", (1, 2));
        assert_eq!(one.len(), 36);
        assert_eq!(one.as_bytes()[14], b'8', "{one}");
        assert!(b"89ab".contains(&one.as_bytes()[19]), "{one}");
        assert_eq!(one, uid("ns/a/b", "latest", (1, 2)));
        for other in [
            uid("ns/a", "latest", (1, 2)),
            uid("ns/a/b", "newest", (1, 2)),
            uid("ns/a/b", "latest", (2, 2)),
            uid("ns/a/b", "latest", (1, 3)),
        ] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn a_namespace_is_one_segment() {
        let name = ObjectName::new("b", "latest");
        assert!(repository_and_tag("a", &name).is_some());
        for namespace in ["", "a/x", "A", "a/", "/a", "a:b"] {
            assert_eq!(repository_and_tag(namespace, &name), None, "{namespace:?}");
        }
        assert_eq!(repository_and_tag("a", &ObjectName::new("/b", "latest")), None);
        assert_eq!(repository_and_tag("a", &ObjectName::new("B", "latest")), None);
    }
}
