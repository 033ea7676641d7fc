use serde_json::Value;

use super::failure::Failure;

/// What a patch of that media type makes of an object. Strategic merge and apply are taken for merge: what differs is
/// how they treat lists and owners, which nothing here depends on.
pub(super) fn apply(media_type: &str, mut object: Value, patch: &Value) -> Result<Value, Failure> {
    match media_type {
        "application/merge-patch+json"
        | "application/strategic-merge-patch+json"
        | "application/apply-patch+yaml" => {
            merge(&mut object, patch);
            Ok(object)
        }
        _ => Err(Failure::new(415, format!("the double takes no patches of type {media_type:?}"))),
    }
}

/// RFC 7396.
fn merge(target: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    for (name, value) in fields {
        if value.is_null() {
            target.as_object_mut().and_then(|object| object.remove(name));
        } else {
            merge(&mut target[name], value);
        }
    }
}
