use serde_json::json;

use super::*;
use crate::api::Phase;

fn plain(method: &str, path: &str) -> Request<Full<Bytes>> {
    let mut request = request(method, "", "", "jane");
    *request.uri_mut() = path.parse().expect("a path");
    request
}

#[tokio::test]
async fn nobody_but_the_front_proxy_says_who_a_user_is() {
    let stage = Stage::new();
    let foreign = Authority::new("front-proxy-ca");
    let genuine = &stage.proxy;
    for (peer, named, status) in [
        (genuine, true, 200),
        (genuine, false, 401),
        (&Peer::new(Vec::new()), true, 401),
        (&Peer::new(foreign.client("front-proxy-client")), true, 401),
    ] {
        for path in ["/apis", "/openapi/v2", "/version", ROOT, &format!("{ROOT}/payloadrepositorytags")] {
            let mut request = plain("GET", path);
            if !named {
                request.headers_mut().remove("x-remote-user");
            }
            let answer = stage.api.respond(peer, request).await;
            assert_eq!(answer.status().as_u16(), status, "{path}");
        }
    }
    let refused = stage.api.respond(&Peer::new(Vec::new()), plain("GET", "/apis")).await;
    let body = refused.into_body().collect().await.expect("a body").to_bytes();
    let refused: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!((&refused["reason"], &refused["code"]), (&json!("Unauthorized"), &json!(401)));
}

#[tokio::test]
async fn probes_are_for_everybody_and_tell_the_end() {
    let stage = Stage::new();
    let stranger = Peer::new(Vec::new());
    let status = async |path: &str| {
        let mut request = plain("GET", path);
        request.headers_mut().clear();
        stage.api.respond(&stranger, request).await.status().as_u16()
    };
    assert_eq!((status("/healthz").await, status("/livez").await, status("/readyz").await), (200, 200, 200));
    stage.lifecycle.enter(Phase::Draining);
    assert_eq!((status("/livez").await, status("/readyz").await), (200, 503));
    let verbose = stage.send(plain("GET", "/readyz?verbose")).await;
    let text = String::from_utf8(verbose.body.to_vec()).expect("text");
    assert!(text.starts_with("[-]not-stopping\n[+]front-proxy\n[-]registry: of no consequence"), "{text}");
}

#[tokio::test]
async fn without_a_configuration_of_the_front_proxy_nothing_is_ready() {
    let stage = Stage::new();
    let api = Api::new(
        stage.registry.client(),
        "registry.example.com".to_owned(),
        FrontProxy::new(),
        Arc::new(Readiness::default()),
        Lifecycle::new(),
    );
    assert_eq!(api.respond(&stage.proxy, plain("GET", "/readyz")).await.status(), 503);
    assert_eq!(api.respond(&stage.proxy, plain("GET", "/apis")).await.status(), 401);
}

#[tokio::test]
async fn discovery_and_openapi_do_not_need_the_registry() {
    let registry = crate::registry::Address::Unix("/nowhere/at/all".into());
    let front_proxy = FrontProxy::new();
    let authority = Authority::new("ca");
    front_proxy.set(config(&authority));
    let api = Api::new(
        crate::registry::Registry::new(registry),
        "registry.example.com".to_owned(),
        front_proxy,
        Arc::new(Readiness::default()),
        Lifecycle::new(),
    );
    let peer = Peer::new(authority.client("front-proxy-client"));
    for path in [
        "/apis",
        "/apis/payload-registry.deckhouse.io",
        ROOT,
        "/openapi/v2",
        "/openapi/v3",
        "/openapi/v3/apis/payload-registry.deckhouse.io/v1alpha1",
        "/version",
    ] {
        // The aggregator's own users; one of them is in no group.
        for user in ["system:kube-aggregator", "system:aggregator"] {
            let mut request = plain("GET", path);
            request.headers_mut().remove("x-remote-group");
            request.headers_mut().insert("x-remote-user", user.parse().expect("a header"));
            assert_eq!(api.respond(&peer, request).await.status(), 200, "{path}");
        }
    }
    let list = api.respond(&peer, plain("GET", &format!("{ROOT}/payloadrepositorytags"))).await;
    assert_eq!(list.status(), 503);
    assert_eq!(list.headers()["retry-after"], "1");
}

#[tokio::test]
async fn what_there_is_not() {
    let stage = Stage::new();
    let tag = "/namespaces/a/payloadrepositorytags/nb2hi4bnmvrwq3z2nrqxizltoq";
    for (method, path) in [
        ("POST", "/namespaces/a/payloadrepositorytags"),
        ("POST", "/payloadrepositorytags"),
        ("PUT", tag),
        ("PATCH", tag),
        ("DELETE", "/payloadrepositorytags"),
        ("POST", "/namespaces/a/payloadrepositoryaccesses"),
        ("GET", "/namespaces/a/payloadrepositoryaccesses"),
        ("GET", "/payloadrepositoryaccesses"),
        ("DELETE", "/namespaces/a/payloadrepositoryaccesses/x"),
        ("POST", ""),
    ] {
        let answer = stage.send(request(method, path, "{}", "jane")).await;
        assert_eq!(answer.status, 405, "{method} {path}");
        assert_eq!(answer.at("/reason"), "MethodNotAllowed");
        assert_eq!(answer.message(), "the server does not allow this method on the requested resource");
    }
    for path in ["/namespaces/a/pods", "/payloadrepositorytags/x", &format!("{tag}/status"), "/watch/x"] {
        let answer = stage.get(path).await;
        assert_eq!(answer.status, 404, "{path}");
        assert_eq!(answer.message(), "the server could not find the requested resource");
    }
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        for path in [format!("{ROOT}{tag}/status"), "/apis/nothing".to_owned(), "/nothing".to_owned()] {
            let answer = stage.send(plain(method, &path)).await;
            assert_eq!(
                (answer.status.as_u16(), answer.at("/reason")),
                (404, json!("NotFound")),
                "{method} {path}"
            );
            assert_eq!(answer.message(), "the server could not find the requested resource");
        }
    }
    let access = stage.get("/namespaces/a/payloadrepositoryaccesses/x").await;
    assert_eq!(access.message(), "payloadrepositoryaccesses.payload-registry.deckhouse.io \"x\" not found");
}

#[tokio::test]
async fn refusals_say_what_they_are_about() {
    let stage = Stage::new();
    let (tags, accesses) = ("/namespaces/a/payloadrepositorytags", "/namespaces/a/payloadrepositoryaccesses");
    let name = "nb2hi4bnmvrwq3z2nrqxizltoq";
    let group = "payload-registry.deckhouse.io";
    let all = json!({"group": group, "kind": "payloadrepositorytags"});
    let one = json!({"name": name, "group": group, "kind": "payloadrepositorytags"});
    for (method, path, body, status, details) in [
        ("GET", format!("{tags}?limit=x"), "", 400, &all),
        ("GET", format!("{tags}?watch=true&resourceVersion=1"), "", 410, &all),
        ("POST", tags.to_owned(), "", 405, &all),
        ("DELETE", "/payloadrepositorytags".to_owned(), "", 405, &all),
        ("PUT", format!("{tags}/{name}"), "", 405, &one),
        ("DELETE", format!("{tags}/{name}"), "{", 400, &one),
        ("GET", format!("{tags}/{name}"), "", 404, &one),
        ("POST", accesses.to_owned(), "", 405, &json!({"group": group, "kind": "payloadrepositoryaccesses"})),
    ] {
        let answer = stage.send(request(method, &path, body, "jane")).await;
        assert_eq!((answer.status.as_u16(), &answer.at("/details")), (status, details), "{method} {path}");
    }
    let unreadable = stage.get_as(&format!("{tags}/{name}"), "application/cbor").await;
    assert_eq!((unreadable.status.as_u16(), unreadable.at("/details")), (406, one.clone()));
    let mut nobody = request("GET", &format!("{tags}/{name}"), "", "");
    nobody.headers_mut().remove("x-remote-user");
    let nobody = stage.send(nobody).await;
    assert_eq!((nobody.status.as_u16(), nobody.at("/details")), (401, one));
    // Options have their own.
    let invalid = stage.get(&format!("{tags}?sendInitialEvents=true")).await;
    assert_eq!(invalid.at("/details/kind"), "ListOptions");
    assert_eq!(stage.get("/nothing").await.at("/details"), Value::Null);
}

#[tokio::test]
async fn metrics_are_for_those_whom_no_rule_holds() {
    let stage = Stage::new();
    let answer = stage.send(plain("GET", "/metrics")).await;
    assert_eq!(
        (answer.status.as_u16(), answer.message().as_str()),
        (403, "forbidden: User \"jane\" cannot get path \"/metrics\"")
    );
    let mut request = plain("GET", "/metrics");
    request.headers_mut().append("x-remote-group", "system:masters".parse().expect("a header"));
    let metrics = String::from_utf8(stage.send(request).await.body.to_vec()).expect("text");
    let line = "payload_registry_kapi_answers_total{resource=\"metrics\",verb=\"GET\",code=\"403\"} 1";
    assert!(metrics.contains(line), "{metrics}");
    assert!(metrics.contains("payload_registry_kapi_condition{condition=\"rbac\"} 0"), "{metrics}");
}
