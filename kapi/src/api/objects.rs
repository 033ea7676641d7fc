//! Tags as Kubernetes objects.

use std::collections::BTreeMap;

use interface::{Tag, TagDetails};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ListMeta, ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;

use super::negotiation::{Form, MetaVersion};
use super::table::{IncludeObject, Row, Table};

/// The API's group.
pub const GROUP: &str = "payload-registry.deckhouse.io";
/// Its version.
pub const VERSION: &str = "v1alpha1";
/// Both, as `apiVersion` has them.
pub const GROUP_VERSION: &str = "payload-registry.deckhouse.io/v1alpha1";
/// The resource.
pub const RESOURCE: &str = "payloadrepositorytags";
/// The kind of its objects.
pub const KIND: &str = "PayloadRepositoryTag";
/// The kind of a list of them.
pub const LIST_KIND: &str = "PayloadRepositoryTagList";
/// The resource that rules of RBAC name; there are no objects of it.
pub const ACCESS_RESOURCE: &str = "payloadrepositoryaccesses";
/// Its kind.
pub const ACCESS_KIND: &str = "PayloadRepositoryAccess";

/// Writes tags in the form that a client asked for.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The registry's host, with the port where it needs one: what addresses begin with.
    pub host: &'a str,
    /// The form.
    pub form: Form,
    /// What the rows of a table carry beside their cells.
    pub include: IncludeObject,
}

/// What is behind the last item of a list.
pub const LIST_END: &[u8] = b"]}";

impl View<'_> {
    /// Writes one tag. A table has its columns' definitions if `with_columns`.
    pub fn object(
        &self,
        tag: &Tag,
        details: Option<&TagDetails>,
        with_columns: bool,
    ) -> serde_json::Result<Vec<u8>> {
        match self.form {
            Form::Full => serde_json::to_vec(&Object::new(self.host, tag, details)),
            Form::Metadata(version) => serde_json::to_vec(&PartialObject::new(version, metadata(tag))),
            Form::Table(version) => {
                let meta = list_meta(tag.sequence);
                let rows = [Row::new(version, self.host, self.include, tag, details)];
                serde_json::to_vec(&Table::new(version, &meta, with_columns, &rows))
            }
        }
    }

    /// Writes a list.
    pub fn list(&self, tags: &[Tag], meta: &ListMeta) -> serde_json::Result<Vec<u8>> {
        let mut json = self.list_head(meta)?;
        self.list_items(tags, &mut json)?;
        json.extend_from_slice(LIST_END);
        Ok(json)
    }

    /// Writes what is before the items of a list.
    pub fn list_head(&self, meta: &ListMeta) -> serde_json::Result<Vec<u8>> {
        let mut json = match self.form {
            Form::Full => serde_json::to_vec(&EmptyList::new(LIST_KIND, GROUP_VERSION, meta)),
            Form::Metadata(version) => {
                serde_json::to_vec(&EmptyList::new("PartialObjectMetadataList", version.api_version(), meta))
            }
            Form::Table(version) => serde_json::to_vec(&Table::new(version, meta, true, &[])),
        }?;
        // The items, which are none, are what these documents end with.
        json.truncate(json.len() - LIST_END.len());
        Ok(json)
    }

    /// Writes items of a list, with what stands between them.
    pub fn list_items(&self, tags: &[Tag], json: &mut Vec<u8>) -> serde_json::Result<()> {
        for (at, tag) in tags.iter().enumerate() {
            if at > 0 {
                json.push(b',');
            }
            match self.form {
                Form::Full => serde_json::to_writer(&mut *json, &Object::new(self.host, tag, None)),
                Form::Metadata(version) => {
                    serde_json::to_writer(&mut *json, &PartialObject::new(version, metadata(tag)))
                }
                Form::Table(version) => {
                    serde_json::to_writer(&mut *json, &Row::new(version, self.host, self.include, tag, None))
                }
            }?;
        }
        Ok(())
    }

    /// Writes what a watch sends to say how far it is: an object with a resourceVersion and nothing else but, maybe,
    /// annotations.
    pub fn bookmark(
        &self,
        sequence: u64,
        annotations: Option<BTreeMap<String, String>>,
        with_columns: bool,
    ) -> serde_json::Result<Vec<u8>> {
        let resource_version = Some(sequence.to_string());
        let metadata = ObjectMeta { annotations, resource_version, ..ObjectMeta::default() };
        match self.form {
            Form::Full => {
                serde_json::to_vec(&BareObject { kind: KIND, api_version: GROUP_VERSION, metadata })
            }
            Form::Metadata(version) => serde_json::to_vec(&PartialObject::new(version, metadata)),
            Form::Table(version) => {
                let rows = [Row::bookmark(version, metadata)];
                serde_json::to_vec(&Table::new(version, &list_meta(sequence), with_columns, &rows))
            }
        }
    }
}

/// A list's metadata, with a resourceVersion and nothing else.
pub fn list_meta(sequence: u64) -> ListMeta {
    ListMeta { resource_version: Some(sequence.to_string()), ..ListMeta::default() }
}

/// A list without items, which are the last of its fields.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EmptyList<'a> {
    kind: &'static str,
    api_version: &'static str,
    metadata: &'a ListMeta,
    items: [(); 0],
}

impl<'a> EmptyList<'a> {
    fn new(kind: &'static str, api_version: &'static str, metadata: &'a ListMeta) -> Self {
        Self { kind, api_version, metadata, items: [] }
    }
}

/// A tag as an object.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Object<'a> {
    kind: &'static str,
    api_version: &'static str,
    metadata: ObjectMeta,
    spec: Spec<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<ObjectStatus<'a>>,
}

impl<'a> Object<'a> {
    /// The object of a tag; with a status where there are details.
    pub fn new(host: &str, tag: &'a Tag, details: Option<&'a TagDetails>) -> Self {
        Self {
            kind: KIND,
            api_version: GROUP_VERSION,
            metadata: metadata(tag),
            spec: Spec { address: address(host, tag), repository_path: &tag.path, tag: &tag.tag },
            status: details.map(|details| ObjectStatus {
                digest: &details.tag.digest,
                manifest: raw(&details.manifest),
                config: details.config.as_deref().and_then(raw),
            }),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Spec<'a> {
    address: String,
    repository_path: &'a str,
    tag: &'a str,
}

/// What the tag points at: passed through as it was pushed, so that no number changes on the way.
#[derive(Serialize)]
struct ObjectStatus<'a> {
    digest: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    manifest: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<&'a RawValue>,
}

/// A text that is JSON; what is not has no place in an answer.
fn raw(text: &str) -> Option<&RawValue> {
    serde_json::from_str(text).ok()
}

/// What a bookmark is: an object of the kind, and nothing in it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BareObject {
    kind: &'static str,
    api_version: &'static str,
    metadata: ObjectMeta,
}

/// An object's metadata alone.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PartialObject {
    kind: &'static str,
    api_version: &'static str,
    metadata: ObjectMeta,
}

impl PartialObject {
    /// One with this metadata.
    pub fn new(version: MetaVersion, metadata: ObjectMeta) -> Self {
        Self { kind: "PartialObjectMetadata", api_version: version.api_version(), metadata }
    }
}

/// The metadata of a tag's object.
pub fn metadata(tag: &Tag) -> ObjectMeta {
    let created = i64::try_from(tag.created_at_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    ObjectMeta {
        name: Some(tag.object_name().into()),
        namespace: Some(tag.namespace.clone()),
        uid: Some(tag.uid.clone()),
        resource_version: Some(tag.sequence.to_string()),
        creation_timestamp: created.map(Time),
        ..ObjectMeta::default()
    }
}

/// What a client of the registry calls a tag.
pub fn address(host: &str, tag: &Tag) -> String {
    format!("{host}/{}/{}:{}", tag.namespace, tag.path, tag.tag)
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A tag of the documentation's samples.
    pub(crate) fn tag(namespace: &str, path: &str, tag: &str, sequence: u64) -> Tag {
        Tag {
            namespace: namespace.to_owned(),
            path: path.to_owned(),
            tag: tag.to_owned(),
            digest: format!("sha256:{:064x}", sequence),
            uid: format!("00000000-0000-4000-8000-{sequence:012x}"),
            created_at_ms: 1_769_186_471_519,
            sequence,
        }
    }

    fn view(form: Form) -> View<'static> {
        View { host: "registry.example.com", form, include: IncludeObject::Metadata }
    }

    fn parse(json: serde_json::Result<Vec<u8>>) -> Value {
        serde_json::from_slice(&json.expect("JSON")).expect("JSON")
    }

    #[test]
    fn a_tag_and_what_it_points_at() {
        let tag = tag("d8-system", "http-echo", "latest", 7);
        let details = TagDetails {
            sequence: 9,
            tag: tag.clone(),
            media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
            manifest: r#"{"schemaVersion": 2, "huge": 12345678901234567890123, "exact": 1.10}"#.to_owned(),
            config: Some(r#"{"os":"linux"}"#.to_owned()),
        };
        let text = view(Form::Full).object(&tag, Some(&details), true).expect("JSON");
        let text = String::from_utf8(text).expect("text");
        assert!(
            text.contains(
                r#""manifest":{"schemaVersion": 2, "huge": 12345678901234567890123, "exact": 1.10}"#
            )
        );
        let metadata = json!({
            "name": "nb2hi4bnmvrwq3z2nrqxizltoq", "namespace": "d8-system",
            "uid": "00000000-0000-4000-8000-000000000007", "resourceVersion": "7",
            "creationTimestamp": "2026-01-23T16:41:11Z",
        });
        let object = parse(view(Form::Full).object(&tag, None, true));
        assert_eq!(
            object,
            json!({
                "kind": KIND, "apiVersion": GROUP_VERSION, "metadata": metadata,
                "spec": {
                    "address": "registry.example.com/d8-system/http-echo:latest",
                    "repositoryPath": "http-echo", "tag": "latest",
                },
            })
        );
        let partial = parse(view(Form::Metadata(MetaVersion::V1)).object(&tag, None, true));
        assert_eq!(
            partial,
            json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
        );
    }

    #[test]
    fn an_empty_list_has_items() {
        let list = parse(view(Form::Full).list(&[], &list_meta(4)));
        assert_eq!(
            list,
            json!({
                "kind": LIST_KIND, "apiVersion": GROUP_VERSION,
                "metadata": {"resourceVersion": "4"}, "items": [],
            })
        );
    }

    #[test]
    fn lists_in_every_form() {
        let tags = [tag("a", "b", "c", 1), tag("a", "b", "d", 2)];
        for (form, kind, items) in [
            (Form::Full, LIST_KIND, "items"),
            (Form::Metadata(MetaVersion::V1beta1), "PartialObjectMetadataList", "items"),
            (Form::Table(MetaVersion::V1), "Table", "rows"),
        ] {
            for count in 0..=2 {
                let list = parse(view(form).list(&tags[..count], &list_meta(4)));
                assert_eq!(
                    (&list["kind"], &list["metadata"]),
                    (&json!(kind), &json!({"resourceVersion": "4"}))
                );
                assert_eq!(list[items].as_array().map(Vec::len), Some(count), "{kind}");
            }
        }
    }

    #[test]
    fn bookmarks_in_every_form() {
        let annotations = || Some(BTreeMap::from([("a".to_owned(), "b".to_owned())]));
        let metadata = json!({"resourceVersion": "4", "annotations": {"a": "b"}});
        for (form, pointer) in [
            (Form::Full, "/metadata"),
            (Form::Metadata(MetaVersion::V1), "/metadata"),
            (Form::Table(MetaVersion::V1), "/rows/0/object/metadata"),
        ] {
            let bookmark = parse(view(form).bookmark(4, annotations(), false));
            assert_eq!(bookmark["metadata"]["resourceVersion"], "4");
            assert_eq!(bookmark.pointer(pointer), Some(&metadata), "{form:?}");
        }
    }

    #[test]
    fn what_is_no_json_does_not_spoil_the_answer() {
        let tag = tag("a", "b", "c", 1);
        let details = TagDetails {
            sequence: 1,
            tag: tag.clone(),
            media_type: String::new(),
            manifest: "{".to_owned(),
            config: Some("}".to_owned()),
        };
        let object = parse(view(Form::Full).object(&tag, Some(&details), true));
        assert_eq!(object["status"], json!({"digest": tag.digest}));
    }
}
