use serde_json::{Value, json};

use super::fake_registry::{MANIFEST, NOBODY};
use super::*;
use crate::api::pages::PAGE_TAGS;

fn with_tags() -> Stage {
    let stage = Stage::new();
    for (namespace, tag) in [("a", "one"), ("a", "two"), ("b", "three"), ("b", "artifact")] {
        stage.registry.push(namespace, "app", tag);
    }
    stage
}

fn name(tag: &str) -> String {
    interface::ObjectName::new("app", tag).into()
}

#[tokio::test]
async fn lists_of_a_namespace_and_of_all() {
    let stage = with_tags();
    let list = stage.get("/namespaces/a/payloadrepositorytags").await;
    assert_eq!(list.status, 200);
    assert_eq!(list.at("/kind"), "PayloadRepositoryTagList");
    assert_eq!(list.at("/metadata"), json!({"resourceVersion": "14"}));
    assert_eq!(list.at("/items/1/spec/address"), "registry.example.com/a/app:two");
    assert_eq!(list.at("/items/0/status"), Value::Null);
    assert_eq!(stage.get("/payloadrepositorytags").await.at("/items").as_array().map(Vec::len), Some(4));
    let none = stage.get("/namespaces/c/payloadrepositorytags").await;
    assert_eq!((none.status.as_u16(), none.at("/items")), (200, json!([])));
}

#[tokio::test]
async fn one_tag() {
    let stage = with_tags();
    let tag = stage.get(&format!("/namespaces/a/payloadrepositorytags/{}", name("one"))).await;
    assert_eq!(tag.at("/kind"), "PayloadRepositoryTag");
    assert_eq!(tag.at("/status/config"), json!({"os": "linux"}));
    assert!(String::from_utf8_lossy(&tag.body).contains(MANIFEST));
    let artifact = stage.get(&format!("/namespaces/b/payloadrepositorytags/{}", name("artifact"))).await;
    assert_eq!(
        (artifact.at("/status/config"), artifact.at("/status/digest").is_string()),
        (Value::Null, true)
    );
    for missing in [name("none"), "NB2HI4BNMVRWQ3Z2NRQXIZLTOQ".to_owned(), "x".repeat(700)] {
        let answer = stage.get(&format!("/namespaces/a/payloadrepositorytags/{missing}")).await;
        assert_eq!(answer.status, 404);
        let message = format!("payloadrepositorytags.payload-registry.deckhouse.io {missing:?} not found");
        assert_eq!(answer.message(), message);
    }
    let path = format!("/namespaces/a/payloadrepositorytags/{}", name("one"));
    let denied = stage.send(request("GET", &path, "", NOBODY)).await;
    assert_eq!((denied.status.as_u16(), denied.at("/reason")), (403, json!("Forbidden")));
    assert!(denied.message().contains("is forbidden: User \"nobody\""), "{}", denied.message());
}

#[tokio::test]
async fn tables_and_metadata() {
    let stage = with_tags();
    let table = stage.get_as("/namespaces/a/payloadrepositorytags?limit=500", TABLE).await;
    assert_eq!(table.at("/kind"), "Table");
    assert_eq!(
        table.at("/rows/1/cells"),
        json!([name("two"), "app", "two", "registry.example.com/a/app:two"])
    );
    assert_eq!(table.at("/rows/0/object/metadata/namespace"), "a");
    let sorted = stage.get_as("/namespaces/a/payloadrepositorytags?includeObject=Object", TABLE).await;
    assert_eq!(sorted.at("/rows/0/object/spec/tag"), "one");
    let metadata = stage.get_as("/payloadrepositorytags", METADATA_LIST).await;
    assert_eq!(metadata.at("/kind"), "PartialObjectMetadataList");
    assert_eq!(
        (metadata.at("/items/0/kind"), metadata.at("/items/0/spec")),
        (json!("PartialObjectMetadata"), Value::Null)
    );
    let path = format!("/namespaces/a/payloadrepositorytags/{}", name("one"));
    let one = stage.get_as(&path, TABLE).await;
    assert_eq!(
        (one.at("/rows").as_array().map(Vec::len), one.at("/metadata/resourceVersion")),
        (Some(1), json!("11"))
    );
    assert_eq!(stage.get_as(&path, METADATA).await.at("/metadata/name"), json!(name("one")));
    assert_eq!(stage.get_as(&path, "application/vnd.kubernetes.protobuf").await.status, 406);
}

#[tokio::test]
async fn pages_go_on_where_they_ended() {
    let stage = with_tags();
    let mut seen = Vec::new();
    let mut token = String::new();
    for remaining in [json!(3), json!(2), json!(1), Value::Null] {
        let page = stage.get(&format!("/payloadrepositorytags?limit=1&continue={token}")).await;
        assert_eq!(page.at("/metadata/remainingItemCount"), remaining);
        assert_eq!(page.at("/metadata/resourceVersion"), "14");
        seen.extend(tags_of(&page.json()));
        token = page.at("/metadata/continue").as_str().unwrap_or_default().to_owned();
        // What happens meanwhile does not change the version of the list.
        stage.registry.push("z", "app", &format!("n{}", seen.len()));
        let last = stage.registry.push("z", "app", &format!("n{}", seen.len()));
        stage.registry.remove(&last);
    }
    assert_eq!(seen, ["a/one", "a/two", "b/artifact", "b/three"].map(str::to_owned));
    assert_eq!(token, "");
}

#[tokio::test]
async fn a_page_that_cannot_go_on_is_expired() {
    let stage = with_tags();
    let page = stage.get("/payloadrepositorytags?limit=1").await;
    let token = page.at("/metadata/continue").as_str().expect("a token").to_owned();
    stage.registry.state().oldest = 15;
    stage.registry.state().sequence = 20;
    let expired = stage.get(&format!("/payloadrepositorytags?limit=1&continue={token}")).await;
    assert_eq!((expired.status.as_u16(), expired.at("/reason")), (410, json!("Expired")));
    let foreign = stage.get(&format!("/namespaces/z/payloadrepositorytags?limit=1&continue={token}")).await;
    assert_eq!(foreign.status, 400);
}

#[tokio::test]
async fn selectors_narrow_and_pages_are_filled() {
    let stage = with_tags();
    let selected =
        async |query: &str| tags_of(&stage.get(&format!("/payloadrepositorytags?{query}")).await.json());
    assert_eq!(selected("labelSelector=app").await, [""; 0]);
    assert_eq!(selected("labelSelector=!app").await.len(), 4);
    assert_eq!(selected(&format!("fieldSelector=metadata.name%3D{}", name("one"))).await, ["a/one"]);
    assert_eq!(selected("fieldSelector=metadata.namespace%3Db").await, ["b/artifact", "b/three"]);
    let without = format!("fieldSelector=metadata.name!%3D{}", name("two"));
    let page = stage.get(&format!("/payloadrepositorytags?limit=2&{without}")).await;
    assert_eq!(tags_of(&page.json()), ["a/one", "b/artifact"]);
    assert_eq!(page.at("/metadata/remainingItemCount"), Value::Null);
    let token = page.at("/metadata/continue").as_str().expect("a token").to_owned();
    let page = stage.get(&format!("/payloadrepositorytags?limit=2&{without}&continue={token}")).await;
    assert_eq!(
        (tags_of(&page.json()), page.at("/metadata/continue")),
        (vec!["b/three".to_owned()], Value::Null)
    );
    assert_eq!(stage.get("/payloadrepositorytags?fieldSelector=spec.tag%3Dx").await.status, 400);
}

#[tokio::test]
async fn versions() {
    let stage = with_tags();
    for (query, status) in [
        ("resourceVersion=0", 200),
        ("resourceVersion=14", 200),
        ("resourceVersion=12", 200),
        ("resourceVersion=15", 504),
        ("resourceVersion=14&resourceVersionMatch=Exact", 200),
        ("resourceVersion=12&resourceVersionMatch=Exact", 410),
        ("resourceVersion=15&resourceVersionMatch=NotOlderThan", 504),
        ("sendInitialEvents=true&resourceVersionMatch=NotOlderThan", 422),
    ] {
        let answer = stage.get(&format!("/payloadrepositorytags?{query}")).await;
        assert_eq!(answer.status.as_u16(), status, "{query}");
    }
    let path = format!("/namespaces/a/payloadrepositorytags/{}?resourceVersion=15", name("one"));
    let ahead = stage.get(&path).await;
    assert_eq!(ahead.at("/details/causes/0/reason"), "ResourceVersionTooLarge");
    assert_eq!(ahead.headers["retry-after"], "1");
}

#[tokio::test]
async fn long_lists_are_written_page_by_page() {
    let stage = Stage::new();
    let count = PAGE_TAGS as usize + 1;
    for number in 0..count {
        stage.registry.push("a", "app", &format!("t{number}"));
    }
    let list = stage.get("/payloadrepositorytags").await;
    assert_eq!(list.at("/items").as_array().map(Vec::len), Some(count));
    assert_eq!(list.at("/metadata"), json!({"resourceVersion": (10 + count).to_string()}));
    // Far more than is held at once is not asked for, whatever the client says.
    let page = stage.get("/payloadrepositorytags?limit=4000000000").await;
    assert_eq!(page.at("/metadata/remainingItemCount"), 1);
    assert_eq!(stage.registry.state().largest_page, Some(PAGE_TAGS));
}

#[tokio::test]
async fn an_answer_that_is_not_read_takes_little() {
    let stage = Stage::new();
    let tags: Vec<_> =
        (0..5000).map(|number| stage.registry.push("a", "app", &format!("t{number}"))).collect();
    let list = request("GET", "/payloadrepositorytags", "", "jane");
    let watch = request("GET", "/payloadrepositorytags?watch=true", "", "jane");
    for (what, request) in [("list", list), ("watch", watch)] {
        let mut body = stage.start(request).await.into_body();
        body.frame().await.expect("a frame").expect("a piece");
        let listed = std::mem::take(&mut stage.registry.state().listed_tags);
        assert!(listed <= 2000, "{what}: {listed}");
    }
    // One is sought in larger pages: what is not selected is not held.
    let sought = tags[0].object_name();
    let found = stage.get(&format!("/payloadrepositorytags?fieldSelector=metadata.name%3D{sought}")).await;
    assert_eq!(tags_of(&found.json()), ["a/t0"]);
    assert!(stage.registry.state().largest_page.is_some_and(|tags| tags >= 5000));
}
