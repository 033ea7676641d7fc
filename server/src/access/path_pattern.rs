use std::fmt;
use std::str::FromStr;

use engine::oci::RepositoryName;

/// A pattern of repository paths inside a project: the `subPath` of a static user's grant.
///
/// `*` stands for any run of characters, `/` among them and also none at all; everything else stands for itself.
/// So `frontend/*` is all that is below `frontend`, at any depth, and not `frontend` itself; `frontend` is that one
/// repository; `*` is everything.
///
/// The patterns of a Kubernetes role are other ones: there `*` ends at a `/`.
#[derive(Clone, PartialEq, Eq)]
pub struct PathPattern(Box<str>);

/// Why a text is no [`PathPattern`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPathPattern {
    /// Nothing at all.
    #[error("the sub-path is empty; leave it out to grant the whole project")]
    Empty,
    /// Longer than any repository name.
    #[error("a sub-path has at most {max} bytes", max = RepositoryName::LEN_MAX)]
    Long,
    /// Something that no repository path has, so that the grant would never apply.
    #[error(
        "a sub-path is a repository's path inside the project, of lower-case letters, digits, \".\", \"_\", \"-\" and \"/\", with \"*\" for any part of it: frontend or frontend/*"
    )]
    Character,
    /// A `/` at either end, or two in a row.
    #[error(
        "a sub-path neither begins nor ends with \"/\", and has no \"//\"; all below frontend is frontend/*"
    )]
    Slash,
}

impl PathPattern {
    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `path` is one of those that the pattern stands for.
    ///
    /// Takes no memory, and at most `pattern × path` steps: when the rest does not fit, only the last `*` that was
    /// met takes one character more, because what an earlier `*` could take in addition, the last one can take too.
    pub fn matches(&self, path: &str) -> bool {
        let (pattern, path) = (self.0.as_bytes(), path.as_bytes());
        let (mut p, mut t) = (0, 0);
        // Behind the last `*`, and where in the path its run ends for now.
        let mut retry: Option<(usize, usize)> = None;
        while t < path.len() {
            match pattern.get(p) {
                Some(b'*') => {
                    p += 1;
                    retry = Some((p, t));
                }
                Some(byte) if *byte == path[t] => {
                    p += 1;
                    t += 1;
                }
                _ => {
                    let Some((behind, end)) = retry else { return false };
                    retry = Some((behind, end + 1));
                    (p, t) = (behind, end + 1);
                }
            }
        }
        pattern[p..].iter().all(|byte| *byte == b'*')
    }
}

impl FromStr for PathPattern {
    type Err = InvalidPathPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPathPattern> {
        if text.is_empty() {
            return Err(InvalidPathPattern::Empty);
        }
        if text.len() > RepositoryName::LEN_MAX {
            return Err(InvalidPathPattern::Long);
        }
        let is_known = |b: u8| {
            b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-' | b'/' | b'*')
        };
        if !text.bytes().all(is_known) {
            return Err(InvalidPathPattern::Character);
        }
        if text.split('/').any(str::is_empty) {
            return Err(InvalidPathPattern::Slash);
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> PathPattern {
        text.parse().expect(text)
    }

    #[test]
    fn table_of_cases() {
        for (text, path, expected) in [
            ("frontend/*", "frontend/a", true),
            ("frontend/*", "frontend/a/b", true),
            ("frontend/*", "frontend/a/b/c", true),
            ("frontend/*", "frontend", false),
            ("frontend/*", "frontends/a", false),
            ("frontend/*", "x/frontend/a", false),
            ("frontend/*", "", false),
            ("frontend", "frontend", true),
            ("frontend", "frontend/a", false),
            ("frontend", "fronten", false),
            ("frontend*", "frontend", true),
            ("frontend*", "frontend-next", true),
            ("frontend*", "frontend/a", true),
            ("*", "", true),
            ("*", "a", true),
            ("*", "a/b/c", true),
            ("**", "a/b/c", true),
            ("*/cache", "a/cache", true),
            ("*/cache", "a/b/cache", true),
            ("*/cache", "cache", false),
            ("*/cache", "a/cache/b", false),
            ("a/*/z", "a/b/z", true),
            ("a/*/z", "a/b/c/z", true),
            ("a/*/z", "a/z", false),
            ("a*b*c", "aXbXbXc", true),
            ("a*b*c", "abcd", false),
            ("*ab", "aab", true),
        ] {
            assert_eq!(pattern(text).matches(path), expected, "{text} on {path:?}");
        }
    }

    #[test]
    fn patterns_that_could_never_match_are_refused() {
        for (text, error) in [
            ("", InvalidPathPattern::Empty),
            ("/a", InvalidPathPattern::Slash),
            ("a/", InvalidPathPattern::Slash),
            ("a//b", InvalidPathPattern::Slash),
            ("Frontend/*", InvalidPathPattern::Character),
            ("a?b", InvalidPathPattern::Character),
            ("[ab]", InvalidPathPattern::Character),
            ("ä", InvalidPathPattern::Character),
            ("a b", InvalidPathPattern::Character),
        ] {
            assert_eq!(text.parse::<PathPattern>(), Err(error), "{text:?}");
        }
        assert_eq!("a".repeat(256).parse::<PathPattern>(), Err(InvalidPathPattern::Long));
    }

    #[test]
    fn the_worst_pattern_is_answered_at_once() {
        let worst = pattern(&"*a".repeat(127));
        assert!(!worst.matches(&"a".repeat(254).replace('a', "b")));
        assert!(!worst.matches(&format!("{}b", "a".repeat(254))));
    }

    /// The definition, word for word; exponential, so for short texts only.
    fn naive(pattern: &[u8], path: &[u8]) -> bool {
        match pattern.split_first() {
            None => path.is_empty(),
            Some((b'*', rest)) => (0..=path.len()).any(|taken| naive(rest, &path[taken..])),
            Some((byte, rest)) => path.split_first().is_some_and(|(b, left)| b == byte && naive(rest, left)),
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(text in "[ab/*]{1,8}", path in "[ab/]{0,10}") {
            let Ok(pattern) = text.parse::<PathPattern>() else { return Ok(()) };
            prop_assert_eq!(pattern.matches(&path), naive(text.as_bytes(), path.as_bytes()));
        }

        #[test]
        fn any_part_may_become_a_star(path in "[a-c/]{1,20}", from in 0usize..20, to in 0usize..20) {
            let (from, to) = (from.min(path.len()), to.min(path.len()));
            let text = format!("{}*{}", &path[..from.min(to)], &path[from.max(to)..]);
            let Ok(pattern) = text.parse::<PathPattern>() else { return Ok(()) };
            prop_assert!(pattern.matches(&path));
        }
    }
}
