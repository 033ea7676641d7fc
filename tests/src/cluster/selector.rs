use serde_json::Value;

use super::failure::Failure;

/// What a list or a watch is narrowed to.
#[derive(Clone, Debug, Default)]
pub(super) struct Selector {
    /// Fields: path, whether it must be equal, value.
    fields: Vec<(String, bool, String)>,
    /// Labels: name, whether it must be equal, value.
    labels: Vec<(String, bool, String)>,
}

impl Selector {
    /// Reads `fieldSelector` and `labelSelector`; of the latter's grammar, equality.
    pub fn parse(fields: &str, labels: &str) -> Result<Self, Failure> {
        let selector = Self { fields: terms(fields)?, labels: terms(labels)? };
        for (field, ..) in &selector.fields {
            if !["metadata.name", "metadata.namespace", "type"].contains(&field.as_str()) {
                return Err(Failure::new(400, format!("field label not supported: {field}")));
            }
        }
        Ok(selector)
    }

    /// Whether an object is among what is selected.
    pub fn matches(&self, object: &Value) -> bool {
        let is = |value: &Value, is_equal: bool, wanted: &str| {
            (value.as_str().unwrap_or_default() == wanted) == is_equal
        };
        let field =
            |path: &str| object.pointer(&format!("/{}", path.replace('.', "/"))).unwrap_or(&Value::Null);
        let labels = &object["metadata"]["labels"];
        self.fields.iter().all(|(path, is_equal, wanted)| is(field(path), *is_equal, wanted))
            && self.labels.iter().all(|(name, is_equal, wanted)| is(&labels[name], *is_equal, wanted))
    }
}

fn terms(text: &str) -> Result<Vec<(String, bool, String)>, Failure> {
    let term = |term: &str| {
        let (name, is_equal, value) = match (term.split_once("!="), term.split_once("==")) {
            (Some((name, value)), _) => (name, false, value),
            (None, Some((name, value))) => (name, true, value),
            (None, None) => {
                let (name, value) = term
                    .split_once('=')
                    .ok_or_else(|| Failure::new(400, format!("no selector that the double reads: {term}")))?;
                (name, true, value)
            }
        };
        Ok((name.to_owned(), is_equal, value.to_owned()))
    };
    text.split(',').filter(|part| !part.is_empty()).map(term).collect()
}
