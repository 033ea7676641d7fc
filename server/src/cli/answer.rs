use std::io::{self, Write as _};

use clap::Args;
use serde::Serialize;
use serde_json::{Map, Value};

use super::exit::CommandError;

/// How what came of a command is printed.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// Print one JSON document instead of text.
    #[arg(long)]
    json: bool,
}

impl Answer {
    /// Prints an answer on standard output: as JSON, or as the text that `text` makes of it.
    pub(super) fn print<A: Serialize>(
        &self,
        answer: &A,
        text: impl FnOnce(&A) -> String,
    ) -> Result<(), CommandError> {
        let text = match self.json {
            true => {
                let value = camel_case(serde_json::to_value(answer).map_err(CommandError::failed)?);
                serde_json::to_string_pretty(&value).map_err(CommandError::failed)? + "\n"
            }
            false => text(answer),
        };
        match io::stdout().lock().write_all(text.as_bytes()) {
            // Whoever read it has read enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other.map_err(|error| CommandError::failed(format!("cannot print the answer: {error}"))),
        }
    }
}

/// The same value with all its keys in the way in which the interface writes them; the engine has its own.
fn camel_case(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.into_iter().map(|(key, value)| (camel_case_key(&key), camel_case(value)));
            Value::Object(fields.collect::<Map<_, _>>())
        }
        Value::Array(values) => values.into_iter().map(camel_case).collect(),
        other => other,
    }
}

fn camel_case_key(key: &str) -> String {
    let mut words = key.split('_');
    let mut name = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut letters = word.chars();
        name.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
        name.push_str(letters.as_str());
    }
    name
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_are_written_in_one_way() {
        let value = json!({"began_at_ms": 1, "isKept": [{"file-missing": {"left_examples": ["a_b"]}}]});
        let expected = json!({"beganAtMs": 1, "isKept": [{"file-missing": {"leftExamples": ["a_b"]}}]});
        assert_eq!(camel_case(value), expected);
    }
}
