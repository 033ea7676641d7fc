use serde_json::{Value, json};

use super::fake_registry::READER;
use super::*;

const TAGS: &str = "/namespaces/a/payloadrepositorytags";

fn path(tag: &interface::Tag) -> String {
    format!("{TAGS}/{}", tag.object_name())
}

#[tokio::test]
async fn a_tag_goes_at_once() {
    let stage = Stage::new();
    let tag = stage.registry.push("a", "app", "one");
    let answer = stage.delete(&path(&tag), r#"{"propagationPolicy":"Background"}"#).await;
    assert_eq!(
        (answer.status.as_u16(), answer.json()),
        (
            200,
            json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
                "details": {
                    "name": tag.object_name(), "group": "payload-registry.deckhouse.io",
                    "kind": "payloadrepositorytags", "uid": tag.uid,
                },
            })
        )
    );
    assert_eq!(stage.get(&path(&tag)).await.status, 404);
    assert_eq!(stage.delete(&path(&tag), "").await.status, 404);
    assert_eq!(stage.delete(&format!("{TAGS}/UPPER"), "").await.status, 404);
}

#[tokio::test]
async fn what_asks_for_less_is_heeded() {
    let stage = Stage::new();
    let tag = stage.registry.push("a", "app", "one");
    let dry_run = r#"{"dryRun":["All"]}"#;
    assert_eq!(stage.delete(&path(&tag), dry_run).await.status, 200);
    assert_eq!(stage.delete(&format!("{}?dryRun=All", path(&tag)), "{}").await.status, 200);
    assert_eq!(stage.delete(TAGS, dry_run).await.at("/items/0/spec/tag"), "one");
    let foreign = stage.delete(&path(&tag), r#"{"preconditions":{"uid":"another"}}"#).await;
    assert_eq!((foreign.status.as_u16(), foreign.at("/reason")), (409, json!("Conflict")));
    let old = stage.delete(&path(&tag), r#"{"preconditions":{"resourceVersion":"3"}}"#).await;
    assert_eq!(old.status, 409);
    let odd = stage.delete(&path(&tag), r#"{"preconditions":{"resourceVersion":"odd"}}"#).await;
    assert_eq!((odd.status.as_u16(), odd.at("/reason")), (409, json!("Conflict")));
    assert_eq!(stage.delete(&path(&tag), r#"{"dryRun":["Some"]}"#).await.status, 422);
    assert_eq!(stage.delete(TAGS, r#"{"preconditions":{"uid":"x"}}"#).await.status, 400);
    assert_eq!(stage.get(&path(&tag)).await.status, 200);
    let fitting = format!(r#"{{"preconditions":{{"uid":{:?},"resourceVersion":"11"}}}}"#, tag.uid);
    assert_eq!(stage.delete(&path(&tag), &fitting).await.status, 200);
}

#[tokio::test]
async fn a_collection_goes_and_the_next_list_is_empty() {
    let stage = Stage::new();
    stage.registry.push("a", "app", "one");
    stage.registry.push("a", "app", "two");
    stage.registry.push("b", "app", "three");
    let options = r#"{"kind":"DeleteOptions","apiVersion":"meta.k8s.io/v1"}"#;
    let deleted = stage.delete(TAGS, options).await;
    assert_eq!(deleted.at("/items").as_array().map(Vec::len), Some(2));
    assert_eq!(stage.get(TAGS).await.at("/items"), json!([]));
    assert_eq!(stage.get("/payloadrepositorytags").await.at("/items").as_array().map(Vec::len), Some(1));
    assert_eq!(stage.delete("/payloadrepositorytags", "").await.status, 405);
}

#[tokio::test]
async fn a_selected_collection_leaves_the_rest() {
    let stage = Stage::new();
    let one = stage.registry.push("a", "app", "one");
    stage.registry.push("a", "app", "two");
    let left = async || stage.get(TAGS).await.at("/items").as_array().map(Vec::len);
    assert_eq!(stage.delete(&format!("{TAGS}?labelSelector=app"), "").await.at("/items"), json!([]));
    assert_eq!(left().await, Some(2));
    assert_eq!(stage.delete(&format!("{TAGS}?fieldSelector=spec.tag%3Dx"), "").await.status, 400);
    assert_eq!(stage.delete(&format!("{TAGS}?resourceVersion=99"), "").await.status, 504);
    assert_eq!(left().await, Some(2));
    let name = one.object_name();
    let deleted = stage.delete(&format!("{TAGS}?fieldSelector=metadata.name%3D{name}"), "").await;
    assert_eq!(deleted.at("/items").as_array().map(Vec::len), Some(1));
    assert_eq!(left().await, Some(1));
    assert_eq!(
        stage.delete(&format!("{TAGS}?limit=1"), "").await.at("/items").as_array().map(Vec::len),
        Some(1)
    );
    assert_eq!(left().await, Some(0));
}

#[tokio::test]
async fn a_registry_that_is_read_only_is_unavailable_for_a_while() {
    let stage = Stage::new();
    let tag = stage.registry.push("a", "app", "one");
    stage.registry.state().is_read_only = true;
    for path in [path(&tag), TAGS.to_owned()] {
        let answer = stage.delete(&path, "").await;
        assert_eq!((answer.status.as_u16(), answer.at("/reason")), (503, json!("ServiceUnavailable")));
        assert_eq!(answer.headers["retry-after"], "1");
        assert_eq!(answer.at("/details/retryAfterSeconds"), 1);
        assert!(answer.message().contains("read-only"));
    }
}

#[tokio::test]
async fn who_may_not_delete() {
    let stage = Stage::new();
    let tag = stage.registry.push("a", "app", "one");
    for path in [path(&tag), TAGS.to_owned()] {
        let answer = stage.send(request("DELETE", &path, "", READER)).await;
        assert_eq!(answer.status, 403);
        assert!(answer.message().contains("is forbidden: User \"reader\" may not delete it"));
    }
    let mut master = request("DELETE", &path(&tag), "", READER);
    master.headers_mut().append("x-remote-group", "system:masters".parse().expect("a header"));
    assert_eq!(stage.send(master).await.status, 200);
}

#[tokio::test]
async fn nothing_is_deleted_for_those_who_cannot_read_the_answer() {
    let stage = Stage::new();
    let tag = stage.registry.push("a", "app", "one");
    for (path, accept, status) in [
        (path(&tag), "application/vnd.kubernetes.protobuf", 406),
        (TAGS.to_owned(), "application/vnd.kubernetes.protobuf", 406),
        (path(&tag), "application/vnd.kubernetes.protobuf,application/json", 200),
    ] {
        assert_eq!(stage.get(TAGS).await.at("/items").as_array().map(Vec::len), Some(1));
        let mut request = request("DELETE", &path, "", "jane");
        request.headers_mut().insert("accept", accept.parse().expect("a header"));
        assert_eq!(stage.send(request).await.status, status, "{path} {accept}");
    }
}

#[tokio::test]
async fn bodies_that_are_not_read() {
    let stage = Stage::new();
    let tag = stage.registry.push("a", "app", "one");
    let mut protobuf = request("DELETE", &path(&tag), "k8s", "jane");
    let media_type = "application/vnd.kubernetes.protobuf".parse().expect("a header");
    protobuf.headers_mut().insert("content-type", media_type);
    assert_eq!(stage.send(protobuf).await.at("/reason"), "UnsupportedMediaType");
    let large = format!("{{\"kind\":\"{}\"}}", "x".repeat(3 << 20));
    let answer = stage.delete(&path(&tag), &large).await;
    assert_eq!((answer.status.as_u16(), answer.at("/reason")), (413, json!("RequestEntityTooLarge")));
    assert_ne!(stage.get(&path(&tag)).await.at("/kind"), Value::Null);
}
