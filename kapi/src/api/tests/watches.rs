use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::*;
use crate::api::Phase;
use crate::api::pages::PAGE_TAGS;

const TAGS: &str = "/payloadrepositorytags";

/// A watch as its client reads it.
struct Reader {
    status: StatusCode,
    body: Body,
    read: Vec<u8>,
}

impl Stage {
    async fn watch(&self, query: &str) -> Reader {
        self.watch_as(query, "application/json").await
    }

    async fn watch_as(&self, query: &str, accept: &str) -> Reader {
        let mut request = request("GET", &format!("{TAGS}?watch=true&{query}"), "", "jane");
        request.headers_mut().insert("accept", accept.parse().expect("a header"));
        let (parts, body) = self.start(request).await.into_parts();
        Reader { status: parts.status, body, read: Vec::new() }
    }
}

impl Reader {
    /// The next event; `None` at the end.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.read.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).expect("an event"));
            }
            let frame = self.body.frame().await?.expect("a frame");
            self.read.extend_from_slice(&frame.into_data().expect("data"));
        }
    }

    /// Kind, tag and version of the next event.
    async fn brief(&mut self) -> (String, String, String) {
        let event = self.next().await.expect("an event");
        let text =
            |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        (text("/type"), text("/object/spec/tag"), text("/object/metadata/resourceVersion"))
    }
}

fn brief(kind: &str, tag: &str, version: &str) -> (String, String, String) {
    (kind.to_owned(), tag.to_owned(), version.to_owned())
}

#[tokio::test]
async fn events_after_a_version() {
    let stage = Stage::new();
    let one = stage.registry.push("a", "app", "one");
    let mut watch = stage.watch("resourceVersion=10").await;
    assert_eq!(watch.status, 200);
    assert_eq!(watch.brief().await, brief("ADDED", "one", "11"));
    stage.registry.push("a", "app", "one");
    assert_eq!(watch.brief().await, brief("MODIFIED", "one", "12"));
    stage.registry.push("a", "app", "two");
    stage.registry.remove(&one);
    assert_eq!(watch.brief().await, brief("ADDED", "two", "13"));
    assert_eq!(watch.brief().await, brief("DELETED", "one", "14"));
}

#[tokio::test]
async fn the_state_first_where_no_version_is_named() {
    for query in ["", "resourceVersion=0", "resourceVersion="] {
        let stage = Stage::new();
        stage.registry.push("a", "app", "one");
        stage.registry.push("a", "app", "two");
        let mut watch = stage.watch(query).await;
        assert_eq!(watch.brief().await, brief("ADDED", "one", "11"), "{query}");
        assert_eq!(watch.brief().await, brief("ADDED", "two", "12"));
        stage.registry.push("b", "app", "three");
        assert_eq!(watch.brief().await, brief("ADDED", "three", "13"));
    }
}

#[tokio::test]
async fn a_list_by_watching() {
    let stage = Stage::new();
    stage.registry.push("b", "app", "one");
    stage.registry.push("a", "app", "two");
    let query = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    for (accept, blueprint) in [
        (
            "application/json",
            json!({
                "kind": "PayloadRepositoryTagList", "apiVersion": "payload-registry.deckhouse.io/v1alpha1",
                "metadata": {}, "items": [],
            }),
        ),
        (
            METADATA,
            json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": {}, "items": []}),
        ),
    ] {
        let mut watch = stage.watch_as(query, accept).await;
        let namespaces = [watch.next().await, watch.next().await]
            .map(|event| event.expect("an event")["object"]["metadata"]["namespace"].clone());
        assert_eq!(namespaces, ["a", "b"]);
        let mark = watch.next().await.expect("the end of the state");
        assert_eq!(mark["type"], "BOOKMARK");
        let metadata = &mark["object"]["metadata"];
        assert_eq!(metadata["resourceVersion"], "12");
        assert_eq!(metadata["annotations"]["k8s.io/initial-events-end"], "true");
        let annotation = metadata["annotations"]["kubernetes.io/initial-events-list-blueprint"].as_str();
        let decoded = STANDARD.decode(annotation.expect("a blueprint")).expect("base64");
        assert!(decoded.ends_with(b"\n"));
        assert_eq!(serde_json::from_slice::<Value>(&decoded).expect("JSON"), blueprint);
    }
    // From now on, without the state.
    let mut watch = stage.watch("sendInitialEvents=false&resourceVersionMatch=NotOlderThan").await;
    stage.registry.push("a", "app", "three");
    assert_eq!(watch.brief().await, brief("ADDED", "three", "13"));
}

#[tokio::test]
async fn a_long_state_is_read_as_it_is_taken() {
    let stage = Stage::new();
    let count = PAGE_TAGS as usize + 5;
    for number in 0..count {
        stage.registry.push("a", "app", &format!("t{number}"));
    }
    let query = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut watch = stage.watch(query).await;
    let mut added = 0;
    // Pushed while the state is read: it is told behind the state, if not in it.
    let late = stage.registry.push("b", "app", "late");
    let mark = loop {
        let event = watch.next().await.expect("an event");
        if event["type"] != "ADDED" {
            break event;
        }
        added += 1;
    };
    assert!(added >= count, "{added}");
    assert_eq!(mark["object"]["metadata"]["resourceVersion"], (10 + count).to_string());
    assert_eq!(watch.brief().await, brief("ADDED", "late", &late.sequence.to_string()));
}

#[tokio::test]
async fn selectors() {
    let stage = Stage::new();
    let wanted = interface::ObjectName::new("app", "two");
    let mut by_name = stage.watch(&format!("fieldSelector=metadata.name%3D{wanted}")).await;
    let mut by_label = stage.watch("labelSelector=app&timeoutSeconds=1").await;
    stage.registry.push("a", "app", "one");
    stage.registry.push("a", "app", "two");
    assert_eq!(by_name.brief().await, brief("ADDED", "two", "12"));
    assert_eq!(by_label.next().await, None);
    let answer = stage.get(&format!("{TAGS}?watch=true&fieldSelector=spec.tag%3Dx")).await;
    assert_eq!(answer.status, 400);
}

#[tokio::test]
async fn only_the_first_table_defines_columns() {
    let stage = Stage::new();
    stage.registry.push("a", "app", "one");
    stage.registry.push("a", "app", "two");
    let mut watch = stage.watch_as("", TABLE).await;
    for columns in [4, 0] {
        let event = watch.next().await.expect("an event");
        assert_eq!(event["object"]["kind"], "Table");
        assert_eq!(event["object"]["columnDefinitions"].as_array().map(Vec::len), Some(columns));
        assert_eq!(event["object"]["rows"].as_array().map(Vec::len), Some(1));
    }
}

#[tokio::test]
async fn what_cannot_be_told_is_an_error() {
    let stage = Stage::new();
    for (query, status, reason) in [
        ("resourceVersion=3", 410, "Expired"),
        // The registry has lost what it said.
        ("resourceVersion=99", 410, "Expired"),
        ("sendInitialEvents=true", 422, "Invalid"),
        ("sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion=99", 504, "Timeout"),
        ("resourceVersion=x", 400, "BadRequest"),
    ] {
        let answer = stage.get(&format!("{TAGS}?watch=true&{query}")).await;
        assert_eq!((answer.status.as_u16(), answer.at("/reason")), (status, json!(reason)), "{query}");
    }
    let old = stage.get(&format!("{TAGS}?watch=true&resourceVersion=3")).await;
    assert_eq!(old.message(), "too old resource version: 3 (5)");
    let mut watch = stage.watch("resourceVersion=10").await;
    // So much has happened meanwhile that the next change is forgotten.
    stage.registry.state().oldest = 20;
    stage.registry.push("a", "app", "one");
    let event = watch.next().await.expect("an event");
    assert_eq!((&event["type"], &event["object"]["code"]), (&json!("ERROR"), &json!(410)));
    assert_eq!(event["object"]["kind"], "Status");
    assert_eq!(event["object"]["message"], "too old resource version: 10 (20)");
    assert_eq!(watch.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn bookmarks_come_each_minute_and_the_end_when_it_is_time() {
    let stage = Stage::new();
    let start = tokio::time::Instant::now();
    let mut watch = stage.watch("resourceVersion=10&allowWatchBookmarks=true&timeoutSeconds=150").await;
    let bookmark = json!({
        "kind": "PayloadRepositoryTag", "apiVersion": "payload-registry.deckhouse.io/v1alpha1",
        "metadata": {"resourceVersion": "10"},
    });
    for _ in 0..2 {
        assert_eq!(watch.next().await, Some(json!({"type": "BOOKMARK", "object": bookmark})));
    }
    assert!((120..150).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    assert_eq!(watch.next().await, None);
    assert_eq!(start.elapsed().as_secs(), 150);
}

#[tokio::test]
async fn watches_end_with_the_program() {
    let stage = Stage::new();
    let mut watch = stage.watch("resourceVersion=10").await;
    let end = async {
        stage.lifecycle.enter(Phase::Draining);
        stage.lifecycle.enter(Phase::Ending);
    };
    assert_eq!(tokio::join!(watch.next(), end).0, None);
}

#[tokio::test]
async fn one_user_may_have_so_many_and_others_do_not_notice() {
    let stage = Stage::new();
    stage.registry.push("a", "app", "one");
    let mut watches = Vec::new();
    let refused = loop {
        let watch = stage.watch("").await;
        if watch.status != 200 {
            break watch;
        }
        watches.push(watch);
    };
    assert_eq!((refused.status.as_u16(), watches.len()), (429, 100));
    let body = refused.body.collect().await.expect("a body").to_bytes();
    let status: Value = serde_json::from_slice(&body).expect("a Status");
    assert_eq!((&status["kind"], &status["reason"]), (&json!("Status"), &json!("TooManyRequests")));
    assert_eq!(status["details"]["retryAfterSeconds"], 1);
    let of_another = request("GET", &format!("{TAGS}?watch=true"), "", "john");
    assert_eq!(stage.start(of_another).await.status(), 200);
    // One that ends makes room, and whatever else the user does was never in question.
    watches.pop();
    assert_eq!(stage.watch("").await.status, 200);
    assert_eq!(stage.start(request("GET", TAGS, "", "jane")).await.status(), 200);
}
