//! The manifests below `deploy/`, as they are.

use std::path::Path;

use serde_json::Value;

/// The documents of one file.
#[track_caller]
pub fn read(file: &str) -> Vec<Value> {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy")).join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_saphyr::from_multiple(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The names of all files that hold manifests, in order.
pub fn files() -> Vec<String> {
    let entries =
        std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy")).expect("the directory");
    let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text"));
    let mut names: Vec<String> =
        names.filter(|name| name.ends_with(".yaml") && name != "kustomization.yaml").collect();
    names.sort();
    names
}

/// All documents of all files.
pub fn all() -> Vec<Value> {
    files().iter().flat_map(|file| read(file)).collect()
}

/// The one object of that kind and name.
#[track_caller]
pub fn object(kind: &str, name: &str) -> Value {
    let found = all().into_iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("deploy/ has no {kind} {name}"))
}
