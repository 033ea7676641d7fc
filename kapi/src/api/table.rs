//! Tags as the table that kubectl prints.

use interface::{Tag, TagDetails};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ListMeta, ObjectMeta};
use serde::Serialize;

use super::negotiation::MetaVersion;
use super::objects::{Object, PartialObject, address, metadata};
use super::status::Refusal;

/// What a row carries beside its cells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    /// The object's metadata.
    #[default]
    Metadata,
    /// The object.
    Object,
    /// Nothing.
    None,
}

impl IncludeObject {
    /// Parses the parameter `includeObject`.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        match text {
            "" | "Metadata" => Ok(Self::Metadata),
            "Object" => Ok(Self::Object),
            "None" => Ok(Self::None),
            other => Err(Refusal::bad_request(format!(
                "unrecognized includeObject value: {other:?}; it is one of Metadata, Object and None"
            ))),
        }
    }
}

/// A column.
#[derive(Serialize)]
struct Column {
    name: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    format: &'static str,
    description: &'static str,
    /// 0 is always shown, 1 with `-o wide`.
    priority: u8,
}

const COLUMNS: [Column; 4] = [
    Column {
        name: "Name",
        kind: "string",
        format: "name",
        description: "Name of the object: base32 of <path>:<tag>.",
        priority: 0,
    },
    Column {
        name: "Repository",
        kind: "string",
        format: "",
        description: "Path of the repository within the namespace.",
        priority: 0,
    },
    Column { name: "Tag", kind: "string", format: "", description: "The tag.", priority: 0 },
    Column {
        name: "Address",
        kind: "string",
        format: "",
        description: "Address of the tag, as clients of the registry use it.",
        priority: 1,
    },
];

/// The document.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Table<'a> {
    kind: &'static str,
    api_version: &'static str,
    metadata: &'a ListMeta,
    column_definitions: &'static [Column],
    /// The last of the fields, so that rows can be written one by one.
    rows: &'a [Row<'a>],
}

impl<'a> Table<'a> {
    /// A table of rows. Only the first of a watch's tables defines the columns.
    pub fn new(
        version: MetaVersion,
        metadata: &'a ListMeta,
        with_columns: bool,
        rows: &'a [Row<'a>],
    ) -> Self {
        let column_definitions: &[_] = if with_columns { &COLUMNS } else { &[] };
        Self { kind: "Table", api_version: version.api_version(), metadata, column_definitions, rows }
    }
}

/// A row.
#[derive(Serialize)]
pub struct Row<'a> {
    cells: [String; COLUMNS.len()],
    object: Option<RowObject<'a>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum RowObject<'a> {
    Metadata(PartialObject),
    Object(Object<'a>),
}

impl<'a> Row<'a> {
    /// The row of a tag.
    pub fn new(
        version: MetaVersion,
        host: &str,
        include: IncludeObject,
        tag: &'a Tag,
        details: Option<&'a TagDetails>,
    ) -> Self {
        let cells = [tag.object_name().into(), tag.path.clone(), tag.tag.clone(), address(host, tag)];
        let object = match include {
            IncludeObject::Metadata => Some(RowObject::Metadata(PartialObject::new(version, metadata(tag)))),
            IncludeObject::Object => Some(RowObject::Object(Object::new(host, tag, details))),
            IncludeObject::None => None,
        };
        Self { cells, object }
    }

    /// The row of a bookmark: metadata without an object.
    pub fn bookmark(version: MetaVersion, metadata: ObjectMeta) -> Self {
        let object = Some(RowObject::Metadata(PartialObject::new(version, metadata)));
        Self { cells: Default::default(), object }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::objects::tests::tag;
    use super::*;

    fn table(include: IncludeObject, with_columns: bool) -> Value {
        let tag = tag("d8-system", "test/http-echo", "latest", 3);
        let rows = [Row::new(MetaVersion::V1, "registry.example.com", include, &tag, None)];
        let meta = ListMeta::default();
        serde_json::to_value(Table::new(MetaVersion::V1, &meta, with_columns, &rows)).expect("JSON")
    }

    #[test]
    fn the_columns_of_the_documentation() {
        let table = table(IncludeObject::Metadata, true);
        let columns = table["columnDefinitions"].as_array().expect("columns");
        let columns: Vec<_> = columns.iter().map(|column| (&column["name"], &column["priority"])).collect();
        assert_eq!(json!(columns), json!([["Name", 0], ["Repository", 0], ["Tag", 0], ["Address", 1]]));
        assert_eq!(
            table["rows"][0]["cells"],
            json!([
                "orsxg5bpnb2hi4bnmvrwq3z2nrqxizltoq",
                "test/http-echo",
                "latest",
                "registry.example.com/d8-system/test/http-echo:latest",
            ])
        );
    }

    #[test]
    fn what_rows_carry() {
        let object = |include| table(include, false)["rows"][0]["object"].clone();
        assert_eq!(object(IncludeObject::Metadata)["kind"], "PartialObjectMetadata");
        assert_eq!(object(IncludeObject::Object)["kind"], "PayloadRepositoryTag");
        assert_eq!(object(IncludeObject::None), Value::Null);
        assert_eq!(table(IncludeObject::None, false)["columnDefinitions"], json!([]));
    }
}
