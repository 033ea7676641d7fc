//! Which tags are kept, where somebody has said that not all of them are.

use std::cmp::Reverse;
use std::str::FromStr;
use std::time::Duration;

use super::leases::to_ms;
use crate::metadata::{TagRecord, Timestamp};
use crate::oci::{Algorithm, RepositoryName, Tag};

/// Which tags of some repositories are kept. Of several rules the first whose pattern fits a repository counts, and a
/// repository that no rule is for keeps all of its tags.
///
/// A tag is kept if it is protected, or among the last ones, or young. A rule that asks for neither number nor age
/// keeps all.
///
/// Tags that list the referrers of a manifest (`sha256-<hex>`, also with a suffix such as `.sig`, as clients without the
/// referrers API make them) belong to that manifest: they are not counted, are kept as long as some repository has it, and
/// go once it is gone and they are older than the age that protects untagged manifests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetentionRule {
    /// The repositories that this is for.
    pub repositories: Pattern,
    /// How many tags are kept, counted from the one that was pushed last.
    pub keep_last: Option<u64>,
    /// Tags that were pushed within this time are kept.
    pub keep_younger: Option<Duration>,
    /// Tags that are always kept, and not counted.
    pub protected: Vec<Pattern>,
    /// Tags that are protected, and besides cannot be made to point at another manifest.
    pub immutable: Vec<Pattern>,
}

/// A pattern of names: `*` stands for any characters but `/`, `**` for any, `?` for one that is not `/`; everything else
/// for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

/// The text is no pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a pattern is made of the characters of repository names and tags, \"*\", \"**\" and \"?\"")]
pub struct PatternError;

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let is_meant = |b: u8| b.is_ascii_alphanumeric() || b"._-/*?".contains(&b);
        if text.is_empty() || text.len() > RepositoryName::LEN_MAX || !text.bytes().all(is_meant) {
            return Err(PatternError);
        }
        Ok(Self(text.to_owned()))
    }
}

impl std::fmt::Display for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Pattern {
    /// Whether `text` fits as a whole. Takes as many steps as both lengths multiplied, at most.
    pub fn matches(&self, text: &str) -> bool {
        let text = text.as_bytes();
        // Which beginnings of the text the pattern fits, as far as it was read.
        let mut fits = vec![false; text.len() + 1];
        fits[0] = true;
        let mut rest = self.0.as_bytes();
        while let Some((&first, after)) = rest.split_first() {
            rest = after;
            if first == b'*' {
                let any = after.first() == Some(&b'*');
                if any {
                    rest = &after[1..];
                }
                for end in 1..=text.len() {
                    fits[end] |= fits[end - 1] && (any || text[end - 1] != b'/');
                }
            } else {
                for end in (1..=text.len()).rev() {
                    let one = text[end - 1];
                    fits[end] = fits[end - 1] && (one == first || first == b'?' && one != b'/');
                }
                fits[0] = false;
            }
        }
        fits[text.len()]
    }
}

/// The rule that is for a repository.
pub(super) fn rule_for<'r>(
    rules: &'r [RetentionRule],
    repository: &RepositoryName,
) -> Option<&'r RetentionRule> {
    rules.iter().find(|rule| rule.repositories.matches(repository.as_str()))
}

/// Whether a tag cannot be made to point at another manifest, by these rules.
pub fn is_immutable(rules: &[RetentionRule], repository: &RepositoryName, tag: &Tag) -> bool {
    let rule = rule_for(rules, repository);
    rule.is_some_and(|rule| rule.immutable.iter().any(|pattern| pattern.matches(tag.as_str())))
}

impl RetentionRule {
    /// Those of all `tags` of a repository that are not kept. `is_there`: whether some repository has the manifest;
    /// `settled_before`: tags of referrers that were pushed later stay for now.
    pub(super) fn expired<E>(
        &self,
        tags: Vec<(Tag, TagRecord)>,
        now: Timestamp,
        settled_before: Timestamp,
        is_there: impl Fn(&Subject) -> Result<bool, E>,
    ) -> Result<Vec<(Tag, TagRecord)>, E> {
        if self.keep_last.is_none() && self.keep_younger.is_none() {
            return Ok(Vec::new());
        }
        let mut expired = Vec::new();
        let mut counted = Vec::new();
        for (tag, record) in tags {
            if self.protected.iter().chain(&self.immutable).any(|pattern| pattern.matches(tag.as_str())) {
                continue;
            }
            match subject_of(&tag) {
                Some(subject) => {
                    if record.updated_at < settled_before && !is_there(&subject)? {
                        expired.push((tag, record));
                    }
                }
                None => counted.push((tag, record)),
            }
        }
        counted.sort_by(|(a, one), (b, other)| {
            let age = |record: &TagRecord| Reverse((record.updated_at, record.sequence));
            age(one).cmp(&age(other)).then_with(|| a.cmp(b))
        });
        let last = usize::try_from(self.keep_last.unwrap_or(0)).unwrap_or(usize::MAX);
        let young = self.keep_younger.map_or(u64::MAX, |age| now.0.saturating_sub(to_ms(age)));
        expired.extend(counted.into_iter().skip(last).filter(|(_, record)| record.updated_at.0 < young));
        Ok(expired)
    }
}

/// The manifest whose referrers a tag lists. A long digest is cut in a tag, so this may be the beginning of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Subject {
    pub(super) algorithm: Algorithm,
    /// At least [`SUBJECT_LEN_MIN`] bytes.
    pub(super) value: Vec<u8>,
}

/// The specification cuts a digest to 64 characters, which are 32 bytes, and some clients cut the tag where it becomes too
/// long for one.
const SUBJECT_LEN_MIN: usize = 32;

/// The manifest whose referrers the tag lists (OCI distribution specification, "Referrers Tag Schema", and the
/// signatures, attestations and bills of material that cosign keeps so).
fn subject_of(tag: &Tag) -> Option<Subject> {
    let (algorithm, rest) = tag.as_str().split_once('-')?;
    let algorithm: Algorithm = algorithm.parse().ok()?;
    let hex = rest.split_once('.').map_or(rest, |(hex, _)| hex);
    let is_digest = hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if !is_digest || !(2 * SUBJECT_LEN_MIN..=2 * algorithm.size()).contains(&hex.len()) {
        return None;
    }
    // Half a byte at the end says nothing that the others do not.
    let value = hex::decode(&hex[..hex.len() / 2 * 2]).ok()?;
    Some(Subject { algorithm, value })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{ContentHasher, Digest};

    #[test]
    fn patterns_fit_what_they_say() {
        for (pattern, fitting, other) in [
            ("a", &["a"][..], &["", "b", "aa", "a/a"][..]),
            ("team/*", &["team/a", "team/"], &["team/a/b", "team", "steam/a"]),
            ("team/**", &["team/a", "team/a/b"], &["team", "other/team/a"]),
            ("**", &["a", "a/b/c", ""], &[]),
            ("**/ci-*", &["a/ci-1", "a/b/ci-"], &["ci-1", "a/ci-1/b"]),
            ("v?.*", &["v1.", "v2.3"], &["v12.3", "v/.1"]),
            ("*a*b*", &["ab", "xaxbx", "aabb"], &["ba", "a/b"]),
        ] {
            let pattern: Pattern = pattern.parse().expect("a pattern");
            fitting.iter().for_each(|text| assert!(pattern.matches(text), "{pattern} {text}"));
            other.iter().for_each(|text| assert!(!pattern.matches(text), "{pattern} {text}"));
        }
        for bad in ["", "a b", "[a]", "ä"] {
            assert_eq!(bad.parse::<Pattern>(), Err(PatternError));
        }
        // Nothing that a pattern says takes long.
        assert!(!"*a".repeat(100).parse::<Pattern>().expect("a pattern").matches(&"a".repeat(99)));
    }

    fn expired(rule: &RetentionRule, tags: &[(&str, u64)], there: &[Digest]) -> Vec<String> {
        let digest = ContentHasher::digest(Algorithm::Sha256, b"manifest");
        let tags = tags.iter().map(|(tag, at)| {
            let at = Timestamp(*at);
            (
                tag.parse().expect("a tag"),
                TagRecord { digest, created_at: at, updated_at: at, sequence: at.0, created: at.0 },
            )
        });
        let is_there = |subject: &Subject| {
            let is_it = |digest: &Digest| {
                digest.algorithm() == subject.algorithm && digest.value().starts_with(&subject.value)
            };
            Ok::<_, ()>(there.iter().any(is_it))
        };
        let expired = rule.expired(tags.collect(), Timestamp(100), Timestamp(50), is_there).expect("answers");
        expired.into_iter().map(|(tag, _)| tag.to_string()).collect()
    }

    fn rule() -> RetentionRule {
        let repositories = "**".parse().expect("a pattern");
        let (protected, immutable) = (Vec::new(), Vec::new());
        RetentionRule { repositories, keep_last: None, keep_younger: None, protected, immutable }
    }

    #[test]
    fn the_last_the_young_and_the_protected_are_kept() {
        let tags = [("a", 10), ("b", 90), ("c", 20), ("latest", 1), ("d", 30)];
        assert!(expired(&rule(), &tags, &[]).is_empty());
        let last = RetentionRule { keep_last: Some(2), ..rule() };
        assert_eq!(expired(&last, &tags, &[]), ["c", "a", "latest"]);
        let young = RetentionRule { keep_younger: Some(Duration::from_millis(75)), ..rule() };
        assert_eq!(expired(&young, &tags, &[]), ["c", "a", "latest"]);
        let both = RetentionRule { keep_last: Some(3), ..young };
        assert_eq!(expired(&both, &tags, &[]), ["a", "latest"]);
        let protected = RetentionRule { protected: vec!["late*".parse().expect("a pattern")], ..both };
        assert_eq!(expired(&protected, &tags, &[]), ["a"]);
        let none = RetentionRule { keep_last: Some(0), ..rule() };
        assert_eq!(expired(&none, &tags, &[]).len(), tags.len());
    }

    #[test]
    fn tags_of_referrers_belong_to_their_subjects() {
        let there = ContentHasher::digest(Algorithm::Sha256, b"there");
        let gone = ContentHasher::digest(Algorithm::Sha256, b"gone");
        let of = |digest: &Digest, suffix: &str| format!("sha256-{}{suffix}", digest.hex());
        let names = [of(&there, ".sig"), of(&there, ""), of(&gone, ".sig"), of(&gone, ".att")];
        let tags: Vec<(&str, u64)> =
            names.iter().map(String::as_str).zip([1, 2, 3, 60]).chain([("v1", 0), ("sha256-x", 0)]).collect();
        let rule = RetentionRule { keep_last: Some(1), ..rule() };
        assert_eq!(expired(&rule, &tags, &[there]), [names[2].as_str(), "v1"]);
    }

    #[test]
    fn tags_of_long_digests_are_cut() {
        let there = ContentHasher::digest(Algorithm::Sha512, b"there");
        let gone = ContentHasher::digest(Algorithm::Sha512, b"gone");
        let of = |digest: &Digest, len: usize| format!("sha512-{}", &digest.hex()[..len]);
        let short = of(&there, 62);
        let names = [of(&there, 64), of(&there, 121), of(&gone, 64), of(&gone, 121)];
        let tags: Vec<(&str, u64)> =
            names.iter().map(String::as_str).zip(1..).chain([("v1", 9), (short.as_str(), 8)]).collect();
        let rule = RetentionRule { keep_last: Some(1), ..rule() };
        assert_eq!(
            expired(&rule, &tags, &[there]),
            [names[2].as_str(), names[3].as_str(), short.as_str()],
            "what is shorter is a tag like others"
        );
    }
}
