//! Selectors, in the grammars of Kubernetes. What narrows a request is honoured or refused, never ignored: `kubectl delete
//! -l` deletes whatever a list answers.

use super::status::Refusal;

/// A selector over labels. Tags have none, so that all there is to know is whether that suits it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LabelSelector {
    matches_no_labels: bool,
}

impl LabelSelector {
    /// Parses the text of a `labelSelector`; an empty one selects everything.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let mut parser = LabelParser { tokens: tokens(text), next: 0 };
        parser
            .requirements()
            .map(|matches_no_labels| Self { matches_no_labels })
            .map_err(|error| Refusal::bad_request(format!("unable to parse requirement: {error}")))
    }

    /// Whether it selects objects without labels.
    pub fn matches_no_labels(self) -> bool {
        self.matches_no_labels
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    Open,
    Close,
    Comma,
    Not,
    Equals,
    NotEquals,
    Greater,
    Less,
    Word(&'a str),
    End,
}

impl Token<'_> {
    fn text(self) -> String {
        let text = match self {
            Self::Open => "(",
            Self::Close => ")",
            Self::Comma => ",",
            Self::Not => "!",
            Self::Equals => "=",
            Self::NotEquals => "!=",
            Self::Greater => ">",
            Self::Less => "<",
            Self::Word(word) => word,
            Self::End => "",
        };
        text.to_owned()
    }
}

fn tokens(text: &str) -> Vec<Token<'_>> {
    let is_special = |c: char| "=!(),<>".contains(c);
    let is_space = |c: char| " \t\r\n".contains(c);
    let mut tokens = Vec::new();
    let mut rest = text.trim_start_matches(is_space);
    while let Some(first) = rest.chars().next() {
        let (token, length) = match first {
            '(' => (Token::Open, 1),
            ')' => (Token::Close, 1),
            ',' => (Token::Comma, 1),
            '>' => (Token::Greater, 1),
            '<' => (Token::Less, 1),
            '!' if rest.starts_with("!=") => (Token::NotEquals, 2),
            '!' => (Token::Not, 1),
            '=' if rest.starts_with("==") => (Token::Equals, 2),
            '=' => (Token::Equals, 1),
            _ => {
                let end = rest.find(|c| is_special(c) || is_space(c)).unwrap_or(rest.len());
                (Token::Word(&rest[..end]), end)
            }
        };
        tokens.push(token);
        rest = rest[length..].trim_start_matches(is_space);
    }
    tokens
}

struct LabelParser<'a> {
    tokens: Vec<Token<'a>>,
    next: usize,
}

impl<'a> LabelParser<'a> {
    fn peek(&self) -> Token<'a> {
        self.tokens.get(self.next).copied().unwrap_or(Token::End)
    }

    fn take(&mut self) -> Token<'a> {
        let token = self.peek();
        self.next += 1;
        token
    }

    /// Whether an object without labels meets them all.
    fn requirements(&mut self) -> Result<bool, String> {
        let mut all = true;
        if self.peek() == Token::End {
            return Ok(all);
        }
        loop {
            all &= self.requirement()?;
            match self.take() {
                Token::End => return Ok(all),
                Token::Comma => {}
                other => return Err(unexpected(other, "',' or 'end of string'")),
            }
        }
    }

    fn requirement(&mut self) -> Result<bool, String> {
        let is_absent = self.peek() == Token::Not;
        if is_absent {
            self.take();
        }
        let key = match self.take() {
            Token::Word(key) => key,
            other => return Err(unexpected(other, "identifier")),
        };
        check_key(key)?;
        if is_absent {
            return Ok(true);
        }
        match self.peek() {
            Token::End | Token::Comma => return Ok(false),
            _ => {}
        }
        match self.take() {
            Token::Equals => self.value().map(|()| false),
            Token::NotEquals => self.value().map(|()| true),
            Token::Word("in") => self.values().map(|()| false),
            Token::Word("notin") => self.values().map(|()| true),
            Token::Greater | Token::Less => self.number().map(|()| false),
            other => Err(unexpected(other, "in, notin, =, ==, !=, gt, lt")),
        }
    }

    /// One value; none is the empty one.
    fn value(&mut self) -> Result<(), String> {
        match self.peek() {
            Token::End | Token::Comma => Ok(()),
            Token::Word(value) => {
                self.take();
                check_value(value)
            }
            other => Err(unexpected(other, "identifier")),
        }
    }

    fn number(&mut self) -> Result<(), String> {
        match self.take() {
            Token::Word(value) if value.parse::<i64>().is_ok() => Ok(()),
            other => Err(format!("{:?} is no integer, which '>' and '<' need", other.text())),
        }
    }

    /// `(a, b)`; values may be empty, but there must be one.
    fn values(&mut self) -> Result<(), String> {
        match self.take() {
            Token::Open => {}
            other => return Err(unexpected(other, "'('")),
        }
        if self.peek() == Token::Close {
            return Err("for 'in', 'notin' operators, values set can't be empty".to_owned());
        }
        loop {
            if let Token::Word(value) = self.peek() {
                self.take();
                check_value(value)?;
            }
            match self.take() {
                Token::Comma => {}
                Token::Close => return Ok(()),
                other => return Err(unexpected(other, "',' or ')'")),
            }
        }
    }
}

fn unexpected(token: Token<'_>, expected: &str) -> String {
    format!("found '{}', expected: {expected}", token.text())
}

/// A qualified name: `[<DNS subdomain>/]<name>`.
fn check_key(key: &str) -> Result<(), String> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    let is_prefix = |prefix: &str| {
        prefix.len() <= 253
            && prefix
                .split('.')
                .all(|part| is_name(part, |c| c.is_ascii_lowercase() || c.is_ascii_digit(), |c| c == b'-'))
    };
    if prefix.is_none_or(is_prefix) && name.len() <= 63 && is_label(name) {
        Ok(())
    } else {
        Err(format!("key: Invalid value: {key:?}: it is no qualified name such as example.com/name"))
    }
}

fn check_value(value: &str) -> Result<(), String> {
    if value.is_empty() || (value.len() <= 63 && is_label(value)) {
        Ok(())
    } else {
        Err(format!("values[0]: Invalid value: {value:?}: it can be no label's value"))
    }
}

fn is_label(text: &str) -> bool {
    is_name(text, |c| c.is_ascii_alphanumeric(), |c| matches!(c, b'-' | b'_' | b'.'))
}

fn is_name(text: &str, at_ends: impl Fn(u8) -> bool, within: impl Fn(u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    matches!((bytes.first(), bytes.last()), (Some(&first), Some(&last)) if at_ends(first) && at_ends(last))
        && bytes.iter().all(|&byte| at_ends(byte) || within(byte))
}

/// A selector over fields: name and namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    requirements: Vec<Requirement>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    field: Field,
    is_equal: bool,
    value: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Name,
    Namespace,
}

impl FieldSelector {
    /// Parses the text of a `fieldSelector`; an empty one selects everything.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let terms = split_terms(text);
        let requirements = terms.into_iter().filter(|term| !term.is_empty()).map(requirement);
        Ok(Self { requirements: requirements.collect::<Result<_, _>>()? })
    }

    /// Whether it selects everything.
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether it selects an object.
    pub fn matches(&self, namespace: &str, name: &str) -> bool {
        self.requirements.iter().all(|requirement| {
            let value = match requirement.field {
                Field::Name => name,
                Field::Namespace => namespace,
            };
            (value == requirement.value) == requirement.is_equal
        })
    }

    /// Whether it can select objects of one name only.
    pub fn is_one_name(&self) -> bool {
        self.requirements.iter().any(|it| it.field == Field::Name && it.is_equal)
    }

    /// The one namespace that it can select objects of, where it says so.
    pub fn namespace(&self) -> Option<&str> {
        let mut requirements = self.requirements.iter();
        requirements.find(|it| it.field == Field::Namespace && it.is_equal).map(|it| it.value.as_str())
    }
}

/// Splits at commas that are not behind a backslash.
fn split_terms(text: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let mut start = 0;
    let mut is_escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            ',' => {
                terms.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

fn requirement(term: &str) -> Result<Requirement, Refusal> {
    let invalid = || Refusal::bad_request(format!("invalid field selector: {term:?}: can't understand it"));
    let mut is_escaped = false;
    for (at, c) in term.char_indices() {
        if is_escaped {
            is_escaped = false;
            continue;
        }
        is_escaped = c == '\\';
        let rest = &term[at..];
        for (operator, is_equal) in [("!=", false), ("==", true), ("=", true)] {
            if let Some(value) = rest.strip_prefix(operator) {
                let value = unescape(value).ok_or_else(invalid)?;
                return Ok(Requirement { field: field(&term[..at])?, is_equal, value });
            }
        }
    }
    Err(invalid())
}

fn field(label: &str) -> Result<Field, Refusal> {
    match label {
        "metadata.name" => Ok(Field::Name),
        "metadata.namespace" => Ok(Field::Namespace),
        other => Err(Refusal::bad_request(format!("field label not supported: {other}"))),
    }
}

/// A backslash stands before a comma, an equals sign or a backslash that mean themselves, and nowhere else; an equals
/// sign cannot stand alone.
fn unescape(value: &str) -> Option<String> {
    let mut plain = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => plain.push(chars.next().filter(|c| matches!(c, '\\' | ',' | '='))?),
            ',' | '=' => return None,
            c => plain.push(c),
        }
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn labels() {
        for (text, matches) in [
            ("", true),
            ("  ", true),
            ("a", false),
            ("!a", true),
            ("! a", true),
            ("a=b", false),
            ("a==b", false),
            ("a = b", false),
            ("a=", false),
            ("a!=b", true),
            ("a!=", true),
            ("a in (b)", false),
            ("a in (b, c)", false),
            ("a in (,)", false),
            ("a notin (b,c)", true),
            ("a notin(b)", true),
            ("a>1", false),
            ("a<1", false),
            ("in", false),
            ("!in", true),
            ("in in (in)", false),
            ("a!=b,!c,d notin (e)", true),
            ("a!=b,c", false),
            ("example.com/app=x", false),
            ("!example.com/app", true),
        ] {
            let selector = LabelSelector::parse(text).unwrap_or_else(|error| panic!("{text:?}: {error:?}"));
            assert_eq!(selector.matches_no_labels(), matches, "{text:?}");
        }
    }

    #[test]
    fn texts_that_are_no_label_selectors() {
        for text in [
            ",",
            "a,",
            ",a",
            "a b",
            "=b",
            "a in",
            "a in b",
            "a in (b",
            "a in ()",
            "!a=b",
            "a!b",
            "(a)",
            "a>b",
            "a>",
            "!",
            "a==,=",
            "-a",
            "a/b/c=d",
            "/a",
            "A_b/c",
            "a=-b",
            "a in (b) c",
            "a,,b",
            "a===b",
        ] {
            assert!(LabelSelector::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn fields() {
        let matches = |text: &str| {
            FieldSelector::parse(text)
                .unwrap_or_else(|error| panic!("{text:?}: {error:?}"))
                .matches("ns", "name")
        };
        for text in [
            "",
            ",",
            "metadata.name=name",
            "metadata.name==name",
            "metadata.name!=other",
            "metadata.namespace=ns",
            "metadata.name=name,metadata.namespace=ns",
            "metadata.name!=other,metadata.namespace!=",
            r"metadata.name!=a\,b\=c\\",
        ] {
            assert!(matches(text), "{text:?}");
        }
        for text in
            ["metadata.name=", "metadata.name=other", "metadata.name!=name", "metadata.namespace=other"]
        {
            assert!(!matches(text), "{text:?}");
        }
        let narrowed = FieldSelector::parse("metadata.namespace=ns").expect("a selector");
        assert_eq!(narrowed.namespace(), Some("ns"));
    }

    #[test]
    fn texts_that_are_no_field_selectors() {
        for (text, message) in [
            ("spec.tag=x", "field label not supported: spec.tag"),
            ("metadata.name=x,status.phase=y", "field label not supported: status.phase"),
            ("metadata.name", "can't understand"),
            ("=", "field label not supported: "),
            ("metadata.name=a=b", "can't understand"),
            (r"metadata.name=a\b", "can't understand"),
            (r"metadata.name=a\", "can't understand"),
        ] {
            let error = FieldSelector::parse(text).expect_err(text);
            let message_of = error.status().message.clone().unwrap_or_default();
            assert!(message_of.contains(message), "{message_of}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[ -~äß]{0,60}") {
            let _ = (LabelSelector::parse(&text), FieldSelector::parse(&text));
        }

        #[test]
        fn escaped_values_come_back(value in "[a-z,=\\\\ä]{0,20}") {
            let escaped = value.replace('\\', r"\\").replace(',', r"\,").replace('=', r"\=");
            let selector = FieldSelector::parse(&format!("metadata.name={escaped}")).expect("a selector");
            prop_assert!(selector.matches("", &value));
        }
    }
}
