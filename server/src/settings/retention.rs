use std::fmt;
use std::time::Duration;

use engine::collection::{Pattern, RetentionRule};
use serde::de::{Deserialize, Deserializer, Error as _};
use serde_json::{Value, json};

use super::{InvalidValue, Time, file, value};

/// The longest age that a rule can ask for: 100 years, in seconds.
const AGE_MAX: u64 = 100 * 365 * 24 * 3600;

/// Which tags are kept: rules of which the first that fits a repository counts. None of them: every tag.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retention(Vec<RetentionRule>);

impl Retention {
    /// The rules, in their order.
    pub fn rules(&self) -> &[RetentionRule] {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Retention {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let rules = Vec::<Rule>::deserialize(deserializer)?;
        Ok(Self(rules.into_iter().map(RetentionRule::from).collect()))
    }
}

/// A rule as it is written.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Rule {
    #[serde(deserialize_with = "pattern")]
    repositories: Pattern,
    #[serde(default)]
    keep_last: Option<u64>,
    #[serde(default, deserialize_with = "age")]
    keep_younger: Option<Duration>,
    #[serde(default, deserialize_with = "patterns")]
    protected: Vec<Pattern>,
    #[serde(default, deserialize_with = "patterns")]
    immutable: Vec<Pattern>,
}

impl From<Rule> for RetentionRule {
    fn from(rule: Rule) -> Self {
        let Rule { repositories, keep_last, keep_younger, protected, immutable } = rule;
        Self { repositories, keep_last, keep_younger, protected, immutable }
    }
}

fn pattern<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Pattern, D::Error> {
    parsed(&String::deserialize(deserializer)?)
}

fn patterns<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Pattern>, D::Error> {
    Vec::<String>::deserialize(deserializer)?.iter().map(|text| parsed(text)).collect()
}

fn parsed<E: serde::de::Error>(text: &str) -> Result<Pattern, E> {
    text.parse().map_err(|error| E::custom(format_args!("{text:?} will not do: {error}")))
}

fn age<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let time: Result<Time<0, AGE_MAX>, InvalidValue> = text.parse();
    let time = time.map_err(|error| D::Error::custom(format_args!("{text:?} will not do: {error}")))?;
    Ok(Some(time.get()))
}

/// As JSON, which can be read again.
impl fmt::Display for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts = |patterns: &[Pattern]| patterns.iter().map(Pattern::to_string).collect::<Vec<_>>();
        let rules: Vec<Value> = self
            .0
            .iter()
            .map(|rule| {
                let mut shown = json!({"repositories": rule.repositories.to_string()});
                if let Some(count) = rule.keep_last {
                    shown["keepLast"] = count.into();
                }
                if let Some(age) = rule.keep_younger {
                    shown["keepYounger"] = format!("{}s", age.as_secs()).into();
                }
                if !rule.protected.is_empty() {
                    shown["protected"] = texts(&rule.protected).into();
                }
                if !rule.immutable.is_empty() {
                    shown["immutable"] = texts(&rule.immutable).into();
                }
                shown
            })
            .collect();
        Value::from(rules).fmt(f)
    }
}

/// In the environment, rules are written as in the file, in YAML or JSON.
impl value::Value for Retention {
    fn parse(text: &str) -> Result<Self, InvalidValue> {
        file::parse(text).map_err(|error| InvalidValue::new(error.to_string()))
    }

    fn shown(&self) -> String {
        self.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Value as _;
    use super::*;

    #[test]
    fn rules_are_read_and_can_be_read_again() {
        let text = "\
- repositories: team-a/**
  keepLast: 10
  keepYounger: 30d
  protected: [latest]
  immutable: [v*]
- repositories: '*'
";
        let retention = Retention::parse(text).expect("rules");
        let pattern = |text: &str| text.parse::<Pattern>().expect("a pattern");
        let expected = [
            RetentionRule {
                repositories: pattern("team-a/**"),
                keep_last: Some(10),
                keep_younger: Some(Duration::from_secs(30 * 24 * 3600)),
                protected: vec![pattern("latest")],
                immutable: vec![pattern("v*")],
            },
            RetentionRule {
                repositories: pattern("*"),
                keep_last: None,
                keep_younger: None,
                protected: Vec::new(),
                immutable: Vec::new(),
            },
        ];
        assert_eq!(retention.rules(), expected);
        assert_eq!(Retention::parse(&retention.shown()), Ok(retention));
        assert_eq!(Retention::default().shown(), "[]");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, expected) in [
            ("- keepLast: 1", r#"the key "repositories" is missing"#),
            ("- repositories: 'a b'", r#""a b" will not do: a pattern is made of"#),
            ("- {repositories: a, keepLast: many}", "line 1"),
            ("- {repositories: a, keepYounger: 30}", r#""30" will not do: write a number with a unit"#),
            ("- {repositories: a, protected: ['']}", r#""" will not do: a pattern is made of"#),
            ("- {repositories: a, keepFirst: 1}", r#"the key "keepFirst" is unknown"#),
        ] {
            let error = Retention::parse(text).expect_err(text).to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
