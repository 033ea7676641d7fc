use std::fmt;

/// A pattern of repository paths within a namespace, as rules have it (`resourceNames` of a role):
///
/// | pattern | stands for |
/// | --- | --- |
/// | `*` | any run of characters but `/`, also none |
/// | `**` as a whole segment | any number of segments, also none: `a/**` is `a` and all below, `**/c` is `c` at any depth |
/// | `**` elsewhere | the same as `*` |
/// | `?` | one character but `/` |
/// | `[ab]`, `[a-z]`, `[^ab]`, `[!ab]` | one character but `/` that is, or is not, one of these |
/// | `{a,b/c}` | either of these, in which all of this, `/` and further braces may stand |
/// | `\x` | `x` itself |
///
/// Upper case is taken for lower case. A `/` in front of a pattern is not looked at, as paths begin at the namespace.
///
/// A pattern is bounded: [`PathGlob::LEN_MAX`], and [`PathGlob::TOKENS_MAX`] once its braces are written out. Matching
/// takes no memory, and at most as many steps as the tokens times the length of the path.
#[derive(Clone, PartialEq, Eq)]
pub struct PathGlob {
    /// What the pattern stands for, with the braces written out and [`Token::Either`] between: the path has to fit one of
    /// these.
    alternatives: Box<[Token]>,
    /// Classes of characters, one bit for each of ASCII, by which tokens name them.
    classes: Box<[u128]>,
}

/// Why a text is no [`PathGlob`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPathGlob {
    /// Nothing at all.
    #[error("it is empty; a rule without resourceNames is for every repository")]
    Empty,
    /// Longer than [`PathGlob::LEN_MAX`].
    #[error("it has more than {max} bytes", max = PathGlob::LEN_MAX)]
    Long,
    /// Something that no path has.
    #[error("it has a character that is not in ASCII, which no repository's path has")]
    Character,
    /// A `[` without its `]`, a class of nothing, or a range that runs backwards.
    #[error("a class of characters is not ended, empty, or has a range that runs backwards")]
    Class,
    /// A `{` without its `}`, or the other way round.
    #[error("a brace is without its counterpart")]
    Brace,
    /// A `\` at the end.
    #[error("it ends with a backslash")]
    Escape,
    /// More than [`PathGlob::TOKENS_MAX`].
    #[error("its braces stand for too much")]
    TooMuch,
}

/// A step of a pattern.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Token {
    /// This very character.
    Byte(u8),
    /// One character.
    One,
    /// One character of a class.
    Class(u8),
    /// A run of characters.
    Run,
    /// `**`, before it is known whether it is a whole segment.
    Pair,
    /// Any number of segments: alone in its own.
    Deep,
    /// The end of a segment.
    Slash,
    /// The end of an alternative.
    Either,
}

/// A part of a pattern before its braces are written out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Piece {
    Token(Token),
    Open,
    Comma,
    Close,
}

impl PathGlob {
    /// Bytes of a pattern: twice what a repository's name may have.
    pub const LEN_MAX: usize = 512;
    /// Steps of a pattern when its braces are written out, the ends of alternatives among them.
    pub const TOKENS_MAX: usize = 4096;

    /// Parses a pattern.
    pub fn parse(text: &str) -> Result<Self, InvalidPathGlob> {
        let (pieces, classes) = pieces(text)?;
        size(&pieces)?;
        let Written(alternatives) = read(&pieces);
        let alternatives: Vec<_> = alternatives.iter().map(|tokens| settled(tokens)).collect();
        Ok(Self { alternatives: alternatives.join(&Token::Either).into(), classes: classes.into() })
    }

    /// How many tokens [`PathGlob::parse`] would make of a pattern, and two bytes of memory for each: computed, and not by
    /// making them.
    pub fn tokens(text: &str) -> Result<usize, InvalidPathGlob> {
        let (pieces, _) = pieces(text)?;
        size(&pieces)
    }

    /// Whether `path` is one of those that the pattern stands for. Expects it in lower case.
    pub fn matches(&self, path: &str) -> bool {
        let mut alternatives = self.alternatives.split(|token| *token == Token::Either);
        alternatives.any(|tokens| self.fits(tokens, path.as_bytes()))
    }

    /// Segment by segment. When the rest does not fit, only the last `**` that was met takes one segment more, because what
    /// an earlier one could take in addition, the last one can take too.
    fn fits(&self, tokens: &[Token], path: &[u8]) -> bool {
        let mut pattern = tokens.split(|token| *token == Token::Slash);
        let mut path = path.split(|byte| *byte == b'/');
        // Behind the last `**`, and what it has not taken so far.
        let mut retry = None;
        loop {
            let (mut next_pattern, mut next_path) = (pattern.clone(), path.clone());
            match (next_pattern.next(), next_path.next()) {
                (None, None) => return true,
                (Some([Token::Deep]), _) => {
                    retry = Some((next_pattern.clone(), path.clone()));
                    pattern = next_pattern;
                }
                (Some(tokens), Some(segment)) if self.fits_segment(tokens, segment) => {
                    (pattern, path) = (next_pattern, next_path);
                }
                _ => {
                    let Some((behind, left)) = &mut retry else { return false };
                    if left.next().is_none() {
                        return false;
                    }
                    (pattern, path) = (behind.clone(), left.clone());
                }
            }
        }
    }

    /// The same within a segment, character by character.
    fn fits_segment(&self, tokens: &[Token], segment: &[u8]) -> bool {
        let (mut p, mut s) = (0, 0);
        // Behind the last `*`, and where in the segment its run ends for now.
        let mut retry: Option<(usize, usize)> = None;
        while let Some(byte) = segment.get(s) {
            match tokens.get(p) {
                Some(Token::Run) => {
                    p += 1;
                    retry = Some((p, s));
                }
                Some(token) if self.is(*token, *byte) => {
                    p += 1;
                    s += 1;
                }
                _ => {
                    let Some((behind, end)) = retry else { return false };
                    retry = Some((behind, end + 1));
                    (p, s) = (behind, end + 1);
                }
            }
        }
        tokens[p..].iter().all(|token| *token == Token::Run)
    }

    /// Whether a token stands for this one character.
    fn is(&self, token: Token, byte: u8) -> bool {
        match token {
            Token::Byte(expected) => expected == byte,
            Token::One => true,
            Token::Class(class) => byte.is_ascii() && self.classes[usize::from(class)] >> byte & 1 == 1,
            Token::Run | Token::Pair | Token::Deep | Token::Slash | Token::Either => false,
        }
    }
}

impl fmt::Debug for PathGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PathGlob").field("tokens", &self.alternatives.len()).finish_non_exhaustive()
    }
}

/// Reads a pattern.
fn pieces(text: &str) -> Result<(Vec<Piece>, Vec<u128>), InvalidPathGlob> {
    if text.len() > PathGlob::LEN_MAX {
        return Err(InvalidPathGlob::Long);
    }
    if !text.is_ascii() {
        return Err(InvalidPathGlob::Character);
    }
    let text = text.to_ascii_lowercase();
    let text = text.strip_prefix('/').unwrap_or(&text);
    if text.is_empty() {
        return Err(InvalidPathGlob::Empty);
    }
    let mut pieces = Vec::with_capacity(text.len());
    let mut classes: Vec<u128> = Vec::new();
    let mut depth = 0_usize;
    let mut rest = text.as_bytes();
    while let [first, behind @ ..] = rest {
        rest = behind;
        pieces.push(match first {
            b'*' if rest.first() == Some(&b'*') => {
                rest = &rest[1..];
                Piece::Token(Token::Pair)
            }
            b'*' => Piece::Token(Token::Run),
            b'?' => Piece::Token(Token::One),
            b'/' => Piece::Token(Token::Slash),
            b'[' => {
                let (class, behind) = class(rest)?;
                rest = behind;
                let known = classes.iter().position(|known| *known == class);
                let index = known.unwrap_or_else(|| {
                    classes.push(class);
                    classes.len() - 1
                });
                // Of 512 bytes there are not more classes than that.
                Piece::Token(Token::Class(u8::try_from(index).map_err(|_| InvalidPathGlob::TooMuch)?))
            }
            b'{' => {
                depth += 1;
                Piece::Open
            }
            b',' if depth > 0 => Piece::Comma,
            b'}' => {
                depth = depth.checked_sub(1).ok_or(InvalidPathGlob::Brace)?;
                Piece::Close
            }
            b'\\' => {
                let (escaped, behind) = rest.split_first().ok_or(InvalidPathGlob::Escape)?;
                rest = behind;
                // A `/` separates segments however it is written.
                Piece::Token(if *escaped == b'/' { Token::Slash } else { Token::Byte(*escaped) })
            }
            byte => Piece::Token(Token::Byte(*byte)),
        });
    }
    if depth == 0 { Ok((pieces, classes)) } else { Err(InvalidPathGlob::Brace) }
}

/// Reads a class, behind its `[`, and gives what follows it. A `]` in it is escaped.
fn class(text: &[u8]) -> Result<(u128, &[u8]), InvalidPathGlob> {
    let (is_negated, mut rest) = match text {
        [b'^' | b'!', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let mut class = 0_u128;
    loop {
        if let [b']', behind @ ..] = rest {
            if class == 0 {
                return Err(InvalidPathGlob::Class);
            }
            return Ok((if is_negated { !class } else { class }, behind));
        }
        let (first, behind) = member(rest)?;
        let (last, behind) = match behind {
            [b'-', b']', ..] => (first, behind),
            [b'-', end @ ..] => member(end)?,
            _ => (first, behind),
        };
        if first > last {
            return Err(InvalidPathGlob::Class);
        }
        (first..=last).for_each(|byte| class |= 1 << byte);
        rest = behind;
    }
}

/// Reads a character of a class, escaped or not, and gives what follows it.
fn member(text: &[u8]) -> Result<(u8, &[u8]), InvalidPathGlob> {
    let (first, rest) = text.split_first().ok_or(InvalidPathGlob::Class)?;
    if *first != b'\\' {
        return Ok((*first, rest));
    }
    let (escaped, rest) = rest.split_first().ok_or(InvalidPathGlob::Class)?;
    Ok((*escaped, rest))
}

/// What a part of a pattern stands for: some alternatives, each a run of tokens.
trait Meaning: Sized {
    /// Nothing at all, not even the empty run.
    fn nothing() -> Self;
    /// The empty run alone.
    fn empty() -> Self;
    /// Each run with a token behind it.
    fn then_token(self, token: Token) -> Self;
    /// Each run with each of `next` behind it.
    fn then(self, next: Self) -> Self;
    /// These and those.
    fn or(self, other: Self) -> Self;
}

/// The runs themselves, with the braces written out.
struct Written(Vec<Vec<Token>>);

/// Only their numbers. They stay at the greatest there is where they would be greater.
#[derive(Clone, Copy)]
struct Counted {
    runs: usize,
    /// Of all runs together.
    tokens: usize,
}

/// Reads the pieces of a pattern, of which it is known that the braces fit together.
fn read<M: Meaning>(pieces: &[Piece]) -> M {
    // Before the braces that are open: the alternatives that are complete, and the one that goes on behind the braces.
    let mut outer: Vec<(M, M)> = Vec::new();
    let (mut complete, mut run) = (M::nothing(), M::empty());
    for piece in pieces {
        match piece {
            Piece::Token(token) => run = run.then_token(*token),
            Piece::Open => {
                outer.push((complete, run));
                (complete, run) = (M::nothing(), M::empty());
            }
            Piece::Comma => (complete, run) = (complete.or(run), M::empty()),
            Piece::Close => {
                let inside = complete.or(run);
                let (before, start) = outer.pop().unwrap_or((M::nothing(), M::empty()));
                (complete, run) = (before, start.then(inside));
            }
        }
    }
    complete.or(run)
}

/// Tokens of a pattern when its braces are written out, with an end for each alternative.
fn size(pieces: &[Piece]) -> Result<usize, InvalidPathGlob> {
    let Counted { runs, tokens } = read(pieces);
    let size = tokens.saturating_add(runs);
    if size <= PathGlob::TOKENS_MAX { Ok(size) } else { Err(InvalidPathGlob::TooMuch) }
}

impl Meaning for Written {
    fn nothing() -> Self {
        Self(Vec::new())
    }

    fn empty() -> Self {
        Self(vec![Vec::new()])
    }

    fn then_token(mut self, token: Token) -> Self {
        self.0.iter_mut().for_each(|run| run.push(token));
        self
    }

    fn then(self, next: Self) -> Self {
        if let [run] = &*self.0
            && run.is_empty()
        {
            return next;
        }
        Self(self.0.iter().flat_map(|run| next.0.iter().map(move |next| [&**run, next].concat())).collect())
    }

    fn or(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }
}

impl Meaning for Counted {
    fn nothing() -> Self {
        Self { runs: 0, tokens: 0 }
    }

    fn empty() -> Self {
        Self { runs: 1, tokens: 0 }
    }

    fn then_token(self, _: Token) -> Self {
        Self { tokens: self.tokens.saturating_add(self.runs), ..self }
    }

    fn then(self, next: Self) -> Self {
        let before = self.tokens.saturating_mul(next.runs);
        let behind = next.tokens.saturating_mul(self.runs);
        Self { runs: self.runs.saturating_mul(next.runs), tokens: before.saturating_add(behind) }
    }

    fn or(self, other: Self) -> Self {
        Self { runs: self.runs.saturating_add(other.runs), tokens: self.tokens.saturating_add(other.tokens) }
    }
}

/// Says of each `**` whether it is a whole segment.
fn settled(tokens: &[Token]) -> Vec<Token> {
    let segments = tokens.split(|token| *token == Token::Slash);
    let segments: Vec<Vec<Token>> = segments
        .map(|segment| match segment {
            [Token::Pair] => vec![Token::Deep],
            segment => {
                segment.iter().map(|token| if *token == Token::Pair { Token::Run } else { *token }).collect()
            }
        })
        .collect();
    segments.join(&Token::Slash)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        PathGlob::parse(pattern).expect(pattern).matches(path)
    }

    #[test]
    fn table_of_cases() {
        for (pattern, fits, others) in [
            ("app", &["app"][..], &["ap", "apps", "app/x", "x/app"][..]),
            ("APP/Web", &["app/web"], &["app"]),
            ("*", &["a", "app-1.2_3"], &["a/b"]),
            ("app*", &["app", "app-dev"], &["app/x", "xapp"]),
            ("*app", &["app", "my-app"], &["my/app", "apps"]),
            ("a*c", &["ac", "abc", "abcc"], &["a/c", "acb"]),
            ("a*b*c", &["abc", "aXbXbXc", "abbcc"], &["ac", "ab/c"]),
            ("*/b", &["a/b", "x/b"], &["b", "a/x/b"]),
            ("a/*", &["a/b", "a/x"], &["a", "a/b/c"]),
            ("a/*/c", &["a/b/c"], &["a/c", "a/b/b/c"]),
            ("**", &["a", "a/b", "a/b/c"], &[]),
            ("a/**", &["a", "a/b", "a/b/c"], &["ab", "b/a"]),
            ("**/c", &["c", "a/c", "a/b/c"], &["cc", "a/cc", "c/a"]),
            ("a/**/c", &["a/c", "a/b/c", "a/b/b/c"], &["ac", "a", "a/b", "b/a/c"]),
            ("**/a/**", &["a", "x/a", "a/x", "x/y/a/z"], &["x", "xa"]),
            ("**/a/**/b", &["a/b", "x/a/y/b", "a/a/b/b"], &["b/a", "a", "b"]),
            ("**/**", &["a", "a/b"], &[]),
            ("a/**/**/b", &["a/b", "a/x/b", "a/x/y/b"], &["a"]),
            ("**/*", &["a", "a/b"], &[]),
            ("*/**", &["a", "a/b"], &[]),
            ("*/**/*", &["a/b", "a/b/c"], &["a"]),
            ("path**", &["path", "path-1"], &["path/x"]),
            ("**path", &["path", "a-path"], &["x/path"]),
            ("a/**b", &["a/b", "a/xb"], &["a/x/b"]),
            ("a**/b", &["a/b", "ax/b"], &["a/x/b", "b"]),
            ("***", &["a", "abc"], &["a/b"]),
            ("a?c", &["abc", "a-c"], &["ac", "a/c", "abbc"]),
            ("??", &["ab"], &["a", "abc", "a/b"]),
            ("[ab]", &["a", "b"], &["c", "ab"]),
            ("[a-c]x", &["ax", "bx", "cx"], &["dx", "x"]),
            ("[A-C]x", &["ax", "cx"], &["dx"]),
            ("[a-c0-9]", &["b", "7"], &["d", "-"]),
            ("[^ab]", &["c", "-"], &["a", "b", "ab"]),
            ("[!ab]", &["c"], &["a"]),
            ("a[^x]b", &["a-b"], &["a/b", "axb"]),
            ("[a-]", &["a", "-"], &["b"]),
            (r"[\-a]", &["-", "a"], &["b"]),
            (r"[a\]]", &["a", "]"], &["b"]),
            ("[!!]", &["a"], &["!"]),
            ("[{,}]", &["{", ",", "}"], &["a"]),
            ("{a,b}", &["a", "b"], &["c", "ab", "{a,b}"]),
            ("x{a,b}y", &["xay", "xby"], &["xy", "xaby"]),
            ("{a/b,c}", &["a/b", "c"], &["a", "b"]),
            ("{a/*,c/**}", &["a/x", "c", "c/x/y"], &["a", "a/x/y"]),
            ("app{,-dev}", &["app", "app-dev"], &["app-", "app-prod"]),
            ("{a,b{c,d/e}}", &["a", "bc", "bd/e"], &["b", "bd"]),
            ("{a,b}{1,2}", &["a1", "a2", "b1", "b2"], &["a", "ab"]),
            ("{a,**}/x", &["a/x", "x", "b/c/x"], &["a"]),
            ("{*,a}*", &["a", "abc"], &["a/b"]),
            ("{a}", &["a"], &["{a}"]),
            ("a,b", &["a,b"], &["a", "b"]),
            ("a]", &["a]"], &["a"]),
            (r"\*", &["*"], &["a"]),
            (r"a\?", &["a?"], &["ab"]),
            (r"\{a,b\}", &["{a,b}"], &["a", "b"]),
            (r"\a", &["a"], &["\\a"]),
            (r"a\/b", &["a/b"], &["ab"]),
            (r"\*\*", &["**"], &["a", "a/b"]),
            ("/app", &["app"], &["/app", "x/app"]),
            ("/path**", &["path", "pathology"], &["path/x"]),
            ("/**", &["a", "a/b"], &[]),
            ("frontend/**", &["frontend", "frontend/app"], &["frontends", "backend/app"]),
            ("a/", &[], &["a", "a/b"]),
            ("a//b", &[], &["a/b"]),
            ("//a", &[], &["a"]),
        ] {
            for path in fits {
                assert!(matches(pattern, path), "{pattern} on {path}");
            }
            for path in others {
                assert!(!matches(pattern, path), "{pattern} on {path}");
            }
        }
    }

    #[test]
    fn bad_patterns() {
        for (pattern, error) in [
            ("", InvalidPathGlob::Empty),
            ("/", InvalidPathGlob::Empty),
            ("ä", InvalidPathGlob::Character),
            ("[", InvalidPathGlob::Class),
            ("[a", InvalidPathGlob::Class),
            ("[]", InvalidPathGlob::Class),
            ("[^]", InvalidPathGlob::Class),
            ("[]a]", InvalidPathGlob::Class),
            ("[z-a]", InvalidPathGlob::Class),
            ("[a-", InvalidPathGlob::Class),
            (r"[\", InvalidPathGlob::Class),
            ("{a", InvalidPathGlob::Brace),
            ("a}", InvalidPathGlob::Brace),
            ("{a,{b}", InvalidPathGlob::Brace),
            ("}{", InvalidPathGlob::Brace),
            (r"a\", InvalidPathGlob::Escape),
        ] {
            assert_eq!(PathGlob::parse(pattern), Err(error), "{pattern:?}");
        }
        assert_eq!(PathGlob::parse(&"a".repeat(513)), Err(InvalidPathGlob::Long));
        assert_eq!(PathGlob::parse(&"{a,b}".repeat(100)), Err(InvalidPathGlob::TooMuch));
        assert_eq!(PathGlob::parse(&"{,}".repeat(170)), Err(InvalidPathGlob::TooMuch));
    }

    #[test]
    fn what_braces_stand_for_is_counted_and_not_made() {
        for (pattern, tokens) in [
            ("app", 4),
            ("a/**/[bc]?", 7),
            ("{a,b}", 4),
            ("{}", 1),
            ("{,,}", 3),
            ("x{a,bc}y", 9),
            ("{a,b{c,d/e}}", 2 + 3 + 5),
            ("000001{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}", 256 * (6 + 8 + 1)),
        ] {
            assert_eq!(PathGlob::tokens(pattern), Ok(tokens), "{pattern}");
        }
        for pattern in ["{a,b}".repeat(100), "{,}".repeat(170), "{a,b}".repeat(9) + "cc"] {
            assert_eq!(PathGlob::tokens(&pattern), Err(InvalidPathGlob::TooMuch), "{pattern}");
        }
    }

    #[test]
    fn the_worst_patterns_are_answered_at_once() {
        let deep = "a/".repeat(126) + "b";
        let long = "a".repeat(255);
        for pattern in [
            "**/*/".repeat(102),
            "**/a/".repeat(102) + "c",
            "*a".repeat(256),
            "**/".repeat(170) + "c",
            "?*".repeat(256),
            "{**/a,**/a*a*a*a*a*a*a*a*a*a*b/**/c}".to_owned(),
        ] {
            let glob = PathGlob::parse(&pattern).expect(&pattern);
            for _ in 0..100 {
                std::hint::black_box((glob.matches(&deep), glob.matches(&long)));
            }
        }
        // As deep as braces can be.
        let nested = "{".repeat(256) + &"}".repeat(256);
        assert!(PathGlob::parse(&nested).is_ok());
    }

    /// The definition, word for word, of a pattern without braces, classes and escapes. Exponential.
    fn naive(pattern: &[&str], path: &[&str]) -> bool {
        match pattern.split_first() {
            None => path.is_empty(),
            Some((&"**", rest)) => (0..=path.len()).any(|taken| naive(rest, &path[taken..])),
            Some((segment, rest)) => path.split_first().is_some_and(|(first, left)| {
                naive_segment(segment.as_bytes(), first.as_bytes()) && naive(rest, left)
            }),
        }
    }

    fn naive_segment(pattern: &[u8], text: &[u8]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some((b'*', rest)) => (0..=text.len()).any(|taken| naive_segment(rest, &text[taken..])),
            Some((b'?', rest)) => !text.is_empty() && naive_segment(rest, &text[1..]),
            Some((byte, rest)) => text.first() == Some(byte) && naive_segment(rest, &text[1..]),
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(pattern in "[ab*?]{0,4}(/([ab*?]{0,4}|\\*\\*)){0,4}", path in "[ab]{1,3}(/[ab]{1,3}){0,4}") {
            let Ok(glob) = PathGlob::parse(&pattern) else { return Ok(()) };
            let pattern = pattern.strip_prefix('/').unwrap_or(&pattern);
            let (segments, path_segments) =
                (pattern.split('/').collect::<Vec<_>>(), path.split('/').collect::<Vec<_>>());
            prop_assert_eq!(glob.matches(&path), naive(&segments, &path_segments));
        }

        // A `*` that meets another across the brace is not a `**`, so no part begins or ends with one.
        #[test]
        fn braces_are_either(
            before in "[ab]([ab*/]{0,2}[ab])?",
            [one, other] in proptest::array::uniform2("([ab/?]([ab*/?]{0,2}[ab/?])?)?"),
            behind in "([ab/]([ab*/]{0,2}[ab])?)?",
            path in "[ab]{1,3}(/[ab]{1,3}){0,3}",
        ) {
            let both = format!("{before}{{{one},{other}}}{behind}");
            let either = [one, other].map(|part| format!("{before}{part}{behind}"));
            let expected = either.iter().any(|text| matches(text, &path));
            prop_assert_eq!(matches(&both, &path), expected);
        }

        #[test]
        fn nothing_panics(pattern in any::<String>(), path in any::<String>()) {
            if let Ok(glob) = PathGlob::parse(&pattern) {
                glob.matches(&path);
            }
        }

        #[test]
        fn nothing_that_looks_like_a_pattern_panics(pattern in r"[a-c*?/\[\]{},!^\\-]{0,40}", path in "[a-c/\\[*]{0,20}") {
            if let Ok(glob) = PathGlob::parse(&pattern) {
                // An end more than there are between.
                prop_assert_eq!(PathGlob::tokens(&pattern), Ok(glob.alternatives.len() + 1));
                prop_assert!(glob.alternatives.len() < PathGlob::TOKENS_MAX);
                glob.matches(&path);
            }
        }

        #[test]
        fn what_is_escaped_stands_for_itself(path in "[a-z0-9._/*?{},\\[\\]!^-]{1,40}") {
            let escaped: String = path.chars().flat_map(|c| ['\\', c]).collect();
            prop_assert!(PathGlob::parse(&escaped).expect("valid").matches(&path));
        }
    }
}
