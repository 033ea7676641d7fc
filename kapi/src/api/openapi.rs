//! The API's description, for `kubectl explain` and other programs that ask what there is.

use http::{HeaderMap, Response};
use serde_json::{Map, Value, json};

use super::body::Body;
use super::document::Document;
use super::negotiation;
use super::objects::{GROUP, GROUP_VERSION, KIND, LIST_KIND, RESOURCE, VERSION};
use super::query::Parameters;
use super::status::Refusal;

/// What the names of our definitions begin with. The kube-apiserver puts the definitions of all APIs into one document.
const DEFINITIONS: &str = "io.deckhouse.payload-registry.v1alpha1";

/// The documents.
#[derive(Debug)]
pub struct OpenApi {
    v2: Document,
    v3_index: Document,
    v3: Document,
}

impl OpenApi {
    /// Makes them.
    pub fn new() -> Self {
        let v3 = Document::new("application/json", &document_v3());
        let url = format!("/openapi/v3/apis/{GROUP_VERSION}?hash={}", v3.hash());
        let index = json!({"paths": {format!("apis/{GROUP_VERSION}"): {"serverRelativeURL": url}}});
        Self {
            v2: Document::new("application/json", &document_v2()),
            v3_index: Document::new("application/json", &index),
            v3,
        }
    }

    /// `/openapi/v2`.
    pub fn v2(&self, headers: &HeaderMap) -> Result<Response<Body>, Refusal> {
        negotiation::json(headers)?;
        Ok(self.v2.answer(headers, false))
    }

    /// `/openapi/v3`.
    pub fn v3_index(&self, headers: &HeaderMap) -> Response<Body> {
        self.v3_index.answer(headers, false)
    }

    /// `/openapi/v3/apis/<group>/<version>`.
    pub fn v3(&self, headers: &HeaderMap, parameters: &Parameters) -> Result<Response<Body>, Refusal> {
        negotiation::json(headers)?;
        Ok(self.v3.answer(headers, parameters.first("hash") == Some(self.v3.hash())))
    }
}

fn document_v2() -> Value {
    let reference = |name: &str| json!({"$ref": format!("#/definitions/{DEFINITIONS}.{name}")});
    let paths = paths(
        |name| json!({"description": "OK", "schema": reference(name)}),
        |kind, name, description| json!({"in": kind, "name": name, "type": "string", "description": description}),
        |name, kind, description| json!({"in": "query", "name": name, "type": kind, "description": description}),
    );
    json!({
        "swagger": "2.0",
        "info": {"title": "payload-registry", "version": env!("CARGO_PKG_VERSION")},
        "paths": paths,
        "definitions": definitions(reference),
    })
}

fn document_v3() -> Value {
    let reference = |name: &str| json!({"$ref": format!("#/components/schemas/{DEFINITIONS}.{name}")});
    let paths = paths(
        |name| json!({"description": "OK", "content": {"application/json": {"schema": reference(name)}}}),
        |kind, name, description| json!({"in": kind, "name": name, "schema": {"type": "string"}, "description": description}),
        |name, kind, description| json!({"in": "query", "name": name, "schema": {"type": kind}, "description": description}),
    );
    json!({
        "openapi": "3.0.0",
        "info": {"title": "payload-registry", "version": env!("CARGO_PKG_VERSION")},
        "paths": paths,
        "components": {"schemas": definitions(reference)},
    })
}

/// What is at which path. Versions of OpenAPI differ in how answers and parameters are written.
fn paths(
    answer: impl Fn(&str) -> Value,
    text_parameter: impl Fn(&str, &str, &str) -> Value,
    query_parameter: impl Fn(&str, &str, &str) -> Value,
) -> Value {
    let in_path = |name: &str, description: &str| {
        let mut parameter = text_parameter("path", name, description);
        parameter["required"] = json!(true);
        parameter
    };
    let namespace = in_path("namespace", "The namespace.");
    let name = in_path("name", "The object's name.");
    let selectors = [
        query_parameter("labelSelector", "string", "Selects by labels; tags have none."),
        query_parameter("fieldSelector", "string", "Selects by metadata.name and metadata.namespace."),
    ];
    let paging = [
        query_parameter("limit", "integer", "Objects at most."),
        query_parameter("continue", "string", "Where the page before ended."),
        query_parameter("resourceVersion", "string", "How old the answer may be."),
        query_parameter("resourceVersionMatch", "string", "How resourceVersion is meant."),
    ];
    let dry_run =
        [query_parameter("dryRun", "string", "All: everything is checked, and nothing is deleted.")];
    let operation = |action: &str, id: &str, parameters: &[Value], schema: &str| {
        let mut responses = Map::new();
        responses.insert("200".to_owned(), answer(schema));
        json!({
            "operationId": id,
            "tags": ["payloadRegistry_v1alpha1"],
            "parameters": parameters,
            "responses": responses,
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": {"group": GROUP, "version": VERSION, "kind": KIND},
        })
    };
    let list_parameters = [selectors.as_slice(), &paging].concat();
    let delete_parameters = [selectors.as_slice(), &dry_run].concat();
    let root = format!("/apis/{GROUP_VERSION}");
    json!({
        format!("{root}/{RESOURCE}"): {
            "get": operation("list", "listTagsForAllNamespaces", &list_parameters, LIST_KIND),
        },
        format!("{root}/namespaces/{{namespace}}/{RESOURCE}"): {
            "parameters": [namespace],
            "get": operation("list", "listTags", &list_parameters, LIST_KIND),
            "delete": operation("deletecollection", "deleteTags", &delete_parameters, LIST_KIND),
        },
        format!("{root}/namespaces/{{namespace}}/{RESOURCE}/{{name}}"): {
            "parameters": [name, namespace],
            "get": operation("get", "getTag", &[], KIND),
            "delete": operation("delete", "deleteTag", &dry_run, KIND),
        },
    })
}

fn definitions(reference: impl Fn(&str) -> Value) -> Value {
    let text = |description: &str| json!({"type": "string", "description": description});
    let api_version = text("The version of the object's schema: payload-registry.deckhouse.io/v1alpha1.");
    let kind = text("What the object is.");
    let tag = json!({
        "type": "object",
        "description": "A tag of a repository in the registry. Objects are neither created nor changed through the \
            Kubernetes API: they reflect what is in the registry. Deleting one deletes the tag.",
        "x-kubernetes-group-version-kind": [{"group": GROUP, "version": VERSION, "kind": KIND}],
        "properties": {
            "apiVersion": api_version,
            "kind": kind,
            "metadata": {
                "type": "object",
                "description": "Standard object's metadata. There are neither labels nor annotations.",
                "properties": {
                    "name": text("Lower-case unpadded base32 (RFC 4648) of <repositoryPath>:<tag>."),
                    "namespace": text("The namespace: the first segment of the repository's name."),
                    "uid": text("The same for as long as the tag exists."),
                    "resourceVersion": text("Another one whenever the tag points elsewhere."),
                    "creationTimestamp": {
                        "type": "string", "format": "date-time", "description": "When the tag came to exist.",
                    },
                },
            },
            "spec": {
                "type": "object",
                "description": "Which tag it is.",
                "properties": {
                    "address": text("Its address, as clients of the registry use it, for example to pull."),
                    "repositoryPath": text("Path of the repository within the namespace."),
                    "tag": text("Name of the tag."),
                },
            },
            "status": {
                "type": "object",
                "description": "What the tag points at. It is there in objects that are asked for one by one.",
                "properties": {
                    "digest": text("Digest of the manifest."),
                    "manifest": {
                        "type": "object",
                        "description": "The manifest of the image, of the index or of the artifact.",
                        "x-kubernetes-preserve-unknown-fields": true,
                    },
                    "config": {
                        "type": "object",
                        "description": "The image's build configuration. Indexes and artifacts have none.",
                        "x-kubernetes-preserve-unknown-fields": true,
                    },
                },
            },
        },
    });
    let list = json!({
        "type": "object",
        "description": "Tags of the registry.",
        "required": ["items"],
        "x-kubernetes-group-version-kind": [{"group": GROUP, "version": VERSION, "kind": LIST_KIND}],
        "properties": {
            "apiVersion": api_version,
            "kind": kind,
            "metadata": {
                "type": "object",
                "description": "Standard list metadata.",
                "properties": {
                    "resourceVersion": text("The state that the list is from."),
                    "continue": text("Where the next page begins, if there is one."),
                    "remainingItemCount": {
                        "type": "integer", "format": "int64", "description": "How many more there are.",
                    },
                },
            },
            "items": {"type": "array", "description": "The tags.", "items": reference(KIND)},
        },
    });
    json!({format!("{DEFINITIONS}.{KIND}"): tag, format!("{DEFINITIONS}.{LIST_KIND}"): list})
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every reference within a document.
    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    if let ("$ref", Value::String(reference)) = (key.as_str(), value) {
                        found.push(reference.clone());
                    }
                    references(value, found);
                }
            }
            Value::Array(values) => values.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    #[test]
    fn references_lead_somewhere() {
        for document in [document_v2(), document_v3()] {
            let mut found = Vec::new();
            references(&document, &mut found);
            assert!(!found.is_empty());
            for reference in found {
                let pointer = reference.trim_start_matches('#');
                assert!(document.pointer(pointer).is_some_and(Value::is_object), "{reference}");
            }
        }
    }

    #[test]
    fn what_kubectl_explain_looks_for() {
        let document = document_v3();
        let operation =
            &document["paths"][format!("/apis/{GROUP_VERSION}/namespaces/{{namespace}}/{RESOURCE}")]["get"];
        let gvk = json!({"group": GROUP, "version": VERSION, "kind": KIND});
        assert_eq!(operation["x-kubernetes-group-version-kind"], gvk);
        let schema = &document["components"]["schemas"][format!("{DEFINITIONS}.{KIND}")];
        assert_eq!(schema["x-kubernetes-group-version-kind"], json!([gvk]));
        assert!(schema["properties"]["status"]["properties"]["manifest"].is_object());
    }

    #[test]
    fn the_index_names_the_document_by_its_hash() {
        let api = OpenApi::new();
        let pinned = Parameters::parse(&format!("hash={}", api.v3.hash()));
        let cache = |parameters: &Parameters| {
            let response = api.v3(&HeaderMap::new(), parameters).expect("an answer");
            response.headers()[http::header::CACHE_CONTROL].to_str().expect("text").to_owned()
        };
        assert_eq!(cache(&pinned), "public, immutable");
        assert_eq!(cache(&Parameters::default()), "no-cache, private");
    }
}
