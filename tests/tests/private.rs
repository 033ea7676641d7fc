//! Checks the private interface: what the Kubernetes component and administrators' commands rely on.

use std::collections::BTreeSet;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};

use interface::{
    AnswerReview, Call, Caller, Change, ChangeKind, Changes, ClearReadOnly, DeleteAllTags, DeleteTag,
    Failure, GetTag, ListPrefixes, ListTags, Namespace, NextReviews, ObjectName, Position, Preconditions,
    PurgeNamespace, Reason, Rule, SetNamespaces, SetReadOnly, SetRules, Subject, Tag, TagPage, Verb, Verdict,
    WatchTags,
};
use serde_json::json;
use tests::authority::{Authority, Certificate};
use tests::client::Client;
use tests::component::KUBERNETES;
use tests::content::{DOCKER_MANIFEST, Manifest, OCI_CONFIG, OCI_INDEX, descriptor, image};
use tests::http::{Connection, Request};
use tests::private::{Private, SERVER_NAME, Stream, request};
use tests::private_tls::{PrivateTls, private_address};
use tests::server::{Launch, Server};

const CONTROLLER: &str = "system:serviceaccount:kube-system:namespace-controller";

/// A user of the settings with the password "secret1", and nobody else pulls or pushes.
const JANE: &str = r#"
users:
  jane:
    passwordHash: "$2b$04$abcdefghijklmnopqrstuuCHf7DUmNUvMBdGje9JveOQe49tH5xFK"
    projects: [{name: ns, access: FULL}, {name: ns2, access: FULL}]
"#;

fn list(namespace: Option<&str>) -> ListTags {
    ListTags { caller: controller(), namespace: namespace.map(Into::into), after: None, limit: None }
}

/// The cluster's namespace controller, whom no rule holds.
fn controller() -> Caller {
    Caller::Unrestricted { name: CONTROLLER.into() }
}

fn user(name: &str) -> Caller {
    Caller::User { name: name.into(), groups: vec!["system:authenticated".into()] }
}

fn get(namespace: &str, path: &str, tag: &str) -> GetTag {
    GetTag { caller: controller(), namespace: namespace.into(), name: ObjectName::new(path, tag) }
}

fn delete(namespace: &str, path: &str, tag: &str) -> DeleteTag {
    DeleteTag {
        caller: controller(),
        namespace: namespace.into(),
        name: ObjectName::new(path, tag),
        preconditions: Preconditions::default(),
        dry_run: false,
    }
}

fn delete_all(namespace: &str) -> DeleteAllTags {
    DeleteAllTags { caller: controller(), namespace: namespace.into(), names: None, dry_run: false }
}

/// What changed after a number, without waiting.
fn watch(after: u64) -> WatchTags {
    WatchTags { caller: controller(), namespace: None, after, limit: 1000, wait_seconds: 0 }
}

fn rule(user: &str, namespace: Option<&str>, verbs: &[Verb], patterns: &[&str]) -> Rule {
    Rule {
        subjects: vec![Subject::User(user.into())],
        namespace: namespace.map(Into::into),
        verbs: verbs.to_vec(),
        patterns: patterns.iter().map(|&pattern| pattern.to_owned()).collect(),
    }
}

fn namespaces(names: &[&str]) -> SetNamespaces {
    let namespaces =
        names.iter().map(|&name| Namespace { name: name.into(), is_terminating: false }).collect();
    SetNamespaces { namespaces }
}

#[track_caller]
fn refused<C: Call>(private: &Private, call: &C, reason: Reason) -> Failure {
    match private.call(call) {
        Err(failure) if failure.reason == reason => failure,
        Err(failure) => panic!("expected {reason:?}, got {failure:?}"),
        Ok(_) => panic!("expected {reason:?}, and {} succeeded", C::PATH),
    }
}

/// Pushes an image once, and further tags by hundreds.
fn push_tags(client: &Client, repository: &str, tags: &[String]) -> Manifest {
    let manifest = client.push_image(repository, &tags[0], repository);
    set_tags(client, repository, tags, &manifest);
    manifest
}

fn set_tags(client: &Client, repository: &str, tags: &[String], manifest: &Manifest) {
    for some in tags.chunks(100) {
        let query: Vec<String> = some.iter().map(|tag| format!("tag={tag}")).collect();
        let target = format!("/v2/{repository}/manifests/{}?{}", manifest.digest(), query.join("&"));
        let request = Request::new("PUT", target).header("Content-Type", &manifest.media_type);
        client.send(request.body(manifest.bytes.clone())).expect(201);
    }
}

fn positions(tags: &[Tag]) -> Vec<Position> {
    tags.iter().map(|tag| Position { namespace: tag.namespace.clone(), name: tag.object_name() }).collect()
}

/// All tags, page by page.
fn paged(private: &Private, namespace: Option<&str>, limit: u32) -> Vec<Tag> {
    let mut tags: Vec<Tag> = Vec::new();
    loop {
        let page: TagPage =
            private.must(&ListTags { after: positions(&tags).pop(), limit: Some(limit), ..list(namespace) });
        assert!(page.tags.len() <= limit as usize);
        assert!(!page.has_more || page.tags.len() == limit as usize, "a page is full where there are more");
        assert!(page.has_more || page.remaining == Some(0));
        tags.extend(page.tags);
        if !page.has_more {
            return tags;
        }
    }
}

#[test]
fn lists_are_in_the_order_of_names_and_pages_make_up_the_whole() {
    let server = Server::start();
    let (client, private) = (server.client(), server.private());
    assert!(private.must(&list(None)).sequence > 0, "also where there is nothing");
    let mut expected = BTreeSet::new();
    for repository in ["ns/a", "ns/a/b", "ns/zz", "ns2/a", "ns-a/b", "ns.b/a", "n/a", "alone"] {
        let tags: Vec<String> = ["latest", "1", "1.0", "1.0.0", "Z", "a", "_x", "zz-9"]
            .map(|tag| format!("{tag}{}", repository.len()))
            .into();
        push_tags(&client, repository, &tags);
        if let Some((namespace, path)) = repository.split_once('/') {
            let name =
                |tag: &String| Position { namespace: namespace.into(), name: ObjectName::new(path, tag) };
            expected.extend(tags.iter().map(name));
        }
    }
    let expected: Vec<Position> = expected.into_iter().collect();
    let whole = private.must(&list(None));
    assert_eq!(positions(&whole.tags), expected);
    assert!(!whole.has_more && whole.remaining == Some(0));
    for limit in [1, 2, 7, 8, 9, 24, 55, 56, 57] {
        assert_eq!(paged(&private, None, limit), whole.tags, "{limit}");
    }
    for namespace in ["ns", "ns2", "ns-a", "ns.b", "n"] {
        let tags: Vec<Tag> = whole.tags.iter().filter(|tag| tag.namespace == namespace).cloned().collect();
        assert_eq!(private.must(&list(Some(namespace))).tags, tags, "{namespace}");
        for limit in [1, 5, 8, 30] {
            assert_eq!(paged(&private, Some(namespace), limit), tags, "{namespace} {limit}");
        }
        let first = private.must(&ListTags { limit: Some(3), ..list(Some(namespace)) });
        assert_eq!((first.has_more, first.remaining), (true, Some(tags.len() as u64 - 3)));
    }
    for namespace in ["", "none", "alone", "ns/a", "NS", "ns/"] {
        assert_eq!(private.must(&list(Some(namespace))).tags, [], "{namespace:?}");
    }
    refused(&private, &ListTags { limit: Some(0), ..list(None) }, Reason::Invalid);
}

#[test]
fn a_tag_has_its_manifest_and_its_configuration() {
    let server = Server::start();
    let (client, private) = (server.client(), server.private());
    let pushed = client.push_image("ns/app/web", "v1", "one");
    let details = private.must(&get("ns", "app/web", "v1"));
    assert_eq!(details.tag, private.must(&list(Some("ns"))).tags[0]);
    assert_eq!(details.tag.digest, pushed.digest());
    assert_eq!(details.manifest.as_bytes(), pushed.bytes);
    assert_eq!(details.media_type, pushed.media_type);
    let config = details.config.expect("an image has a configuration");
    assert_eq!(config, r#"{"architecture":"amd64","os":"linux","author":"one"}"#);

    // Another one in Docker's types, whose configuration is a file of its own in the store.
    let config = format!(r#"{{"architecture":"amd64","comment":"{}"}}"#, "c".repeat(100_000)).into_bytes();
    client.push_blob("ns/app/web", &config);
    let mut docker = image(descriptor("application/vnd.docker.container.image.v1+json", &config), vec![]);
    docker["mediaType"] = json!(DOCKER_MANIFEST);
    client.push_manifest("ns/app/web", "docker", &Manifest::new(&docker));
    let details = private.must(&get("ns", "app/web", "docker"));
    assert_eq!(details.config.map(String::into_bytes), Some(config));

    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [
        {"mediaType": pushed.media_type, "digest": pushed.digest(), "size": pushed.bytes.len()}]});
    client.push_manifest("ns/app/web", "index", &Manifest::new(&index));
    let details = private.must(&get("ns", "app/web", "index"));
    assert_eq!((details.media_type.as_str(), details.config), (OCI_INDEX, None));

    let large = format!(r#"{{"comment":"{}"}}"#, "c".repeat(1 << 20)).into_bytes();
    let nothing_of_it = [
        ("large", OCI_CONFIG, large.as_slice()),
        ("text", OCI_CONFIG, b"{no JSON"),
        ("array", OCI_CONFIG, b"[]"),
        ("binary", OCI_CONFIG, &[0xff, 0xfe]),
        ("artifact", "application/vnd.example+json", b"{}"),
    ];
    for (tag, media_type, config) in nothing_of_it {
        client.push_blob("ns/app/web", config);
        client.push_manifest(
            "ns/app/web",
            tag,
            &Manifest::new(&image(descriptor(media_type, config), vec![])),
        );
        assert_eq!(private.must(&get("ns", "app/web", tag)).config, None, "{tag}");
    }

    for (namespace, path, tag) in
        [("ns", "app/web", "v2"), ("ns", "app", "v1"), ("n", "app/web", "v1"), ("ns/app", "web", "v1")]
    {
        refused(&private, &get(namespace, path, tag), Reason::NotFound);
    }
}

#[test]
fn a_uid_is_that_of_a_tags_life() {
    let mut server = Server::start();
    let (client, private) = (server.client(), server.private());
    client.push_image("ns/app", "v1", "one");
    let first = private.must(&get("ns", "app", "v1")).tag;
    client.push_image("ns/app", "v1", "one");
    assert_eq!(private.must(&get("ns", "app", "v1")).tag, first, "the same again changes nothing");
    client.push_image("ns/app", "v1", "two");
    let moved = private.must(&get("ns", "app", "v1")).tag;
    assert_eq!((&moved.uid, moved.created_at_ms), (&first.uid, first.created_at_ms));
    assert!(moved.sequence > first.sequence && moved.digest != first.digest);

    server.stop();
    server.restart();
    assert_eq!(private.must(&get("ns", "app", "v1")).tag, moved, "a restart changes nothing");
    let client = server.client();
    client.delete("/v2/ns/app/manifests/v1").expect(202);
    client.push_image("ns/app", "v1", "two");
    let again = private.must(&get("ns", "app", "v1")).tag;
    assert_ne!(again.uid, first.uid);
    assert!(again.sequence > moved.sequence);
}

#[test]
fn deletes_obey_their_preconditions() {
    let server = Server::start();
    let (client, private) = (server.client(), server.private());
    let manifest = client.push_image("ns/app", "v1", "one");
    set_tags(&client, "ns/app", &["v2".into()], &manifest);
    let tag = private.must(&get("ns", "app", "v1")).tag;

    let with = |uid: Option<&str>, sequence| {
        let preconditions = Preconditions { uid: uid.map(Into::into), sequence };
        DeleteTag { preconditions, ..delete("ns", "app", "v1") }
    };
    for wrong in
        [with(Some("00000000-0000-8000-8000-000000000000"), None), with(None, Some(tag.sequence + 1))]
    {
        refused(&private, &wrong, Reason::Conflict);
        refused(&private, &DeleteTag { dry_run: true, ..wrong }, Reason::Conflict);
    }
    let right = with(Some(&tag.uid), Some(tag.sequence));
    assert_eq!(private.must(&DeleteTag { dry_run: true, ..right.clone() }), tag);
    assert_eq!(private.must(&list(Some("ns"))).tags.len(), 2, "a dry run deletes nothing");
    assert_eq!(private.must(&right), tag);
    refused(&private, &right, Reason::NotFound);
    refused(&private, &DeleteTag { dry_run: true, ..right }, Reason::NotFound);
    assert_eq!(client.tags("ns/app"), ["v2"]);
    // The manifest stays, with its other tag.
    client.assert_manifest("ns/app", "v2", &manifest);
    client.assert_manifest("ns/app", &manifest.digest(), &manifest);
    for name in ["audit", "delete tag", "ns/app", "v1", CONTROLLER, &tag.digest] {
        let log = server.log();
        assert!(log.lines().any(|line| line.contains("delete tag") && line.contains(name)), "{name}: {log}");
    }
}

#[test]
fn a_namespace_is_emptied_of_its_tags_and_of_no_others() {
    let server = Server::start();
    let (client, private) = (server.client(), server.private());
    let many: Vec<String> = (0..300).map(|number| format!("t{number}")).collect();
    push_tags(&client, "ns/many", &many);
    push_tags(&client, "ns/few/er", &["x".into(), "y".into()]);
    push_tags(&client, "ns2/other", &["x".into()]);
    let before = private.must(&list(Some("ns")));
    assert_eq!(before.tags.len(), 302);

    let names = Some(vec![ObjectName::new("few/er", "x"), ObjectName::new("few/er", "none")]);
    let deleted = private.must(&DeleteAllTags { names, ..delete_all("ns") });
    assert_eq!(deleted.tags.iter().map(|tag| tag.tag.as_str()).collect::<Vec<_>>(), ["x"]);
    let all = DeleteAllTags { dry_run: true, ..delete_all("ns") };
    assert_eq!(private.must(&all).tags.len(), 301);
    assert_eq!(private.must(&list(Some("ns"))).tags.len(), 301, "a dry run deletes nothing");
    let deleted = private.must(&delete_all("ns"));
    let mut expected = before.tags;
    expected.retain(|tag| (tag.path.as_str(), tag.tag.as_str()) != ("few/er", "x"));
    let mut tags = deleted.tags;
    tags.sort_by_key(Tag::object_name);
    assert_eq!(tags, expected);
    let left = private.must(&list(None));
    assert!(left.sequence >= deleted.sequence);
    assert_eq!(left.tags.iter().map(|tag| tag.namespace.as_str()).collect::<Vec<_>>(), ["ns2"]);
    assert_eq!(private.must(&delete_all("ns")).tags, []);
    assert_eq!(private.must(&delete_all("ns2/other")).tags, []);
    assert_eq!(private.must(&delete_all("n")).tags, []);
}

#[test]
fn callers_see_and_delete_what_the_rules_allow() {
    let server = Launch::new().config(JANE).start();
    let (client, private) = (server.client().with_basic("jane", "secret1"), server.private());
    for repository in ["ns/front/web", "ns/back", "ns2/front/web"] {
        push_tags(&client, repository, &["a".into(), "b".into()]);
    }
    let listed = |caller: &Caller, namespace: Option<&str>| -> Vec<String> {
        let page = private.must(&ListTags { caller: caller.clone(), ..list(namespace) });
        page.tags.iter().map(|tag| format!("{}/{}:{}", tag.namespace, tag.path, tag.tag)).collect()
    };
    let (reader, writer, nobody) = (user("reader"), user("writer"), user("nobody"));
    let after = private.must(&list(None)).sequence;
    // Nothing is known yet, so nobody who is held to rules is told anything.
    refused(&private, &ListTags { caller: reader.clone(), ..list(None) }, Reason::Unavailable);
    refused(&private, &GetTag { caller: reader.clone(), ..get("ns", "back", "a") }, Reason::Unavailable);
    refused(
        &private,
        &DeleteTag { caller: reader.clone(), ..delete("ns", "back", "a") },
        Reason::Unavailable,
    );
    refused(&private, &DeleteAllTags { caller: reader.clone(), ..delete_all("ns") }, Reason::Unavailable);
    refused(&private, &WatchTags { caller: reader.clone(), ..watch(after) }, Reason::Unavailable);

    let rules = vec![
        rule("reader", None, &[Verb::Get], &["front/**"]),
        rule("reader", Some("ns2"), &[Verb::Delete], &[]),
        rule("lister", Some("ns"), &[Verb::List], &[]),
        rule("writer", Some("ns"), &[Verb::Get, Verb::Delete], &["front/**"]),
        rule("writer", Some("ns"), &[Verb::List], &["back"]),
    ];
    private.must(&SetRules { rules });
    assert_eq!(
        listed(&reader, None),
        ["ns/front/web:a", "ns/front/web:b", "ns2/front/web:a", "ns2/front/web:b"]
    );
    assert_eq!(listed(&reader, Some("ns")), ["ns/front/web:a", "ns/front/web:b"]);
    assert_eq!(listed(&user("lister"), None).len(), 4);
    assert_eq!(listed(&nobody, None).len(), 0);
    let page = private.must(&ListTags { caller: reader.clone(), limit: Some(3), ..list(None) });
    assert_eq!((page.tags.len(), page.has_more), (3, true));

    private.must(&GetTag { caller: reader.clone(), ..get("ns", "front/web", "a") });
    // To see the list is not to pull.
    refused(&private, &GetTag { caller: user("lister"), ..get("ns", "back", "a") }, Reason::Denied);
    refused(&private, &GetTag { caller: nobody.clone(), ..get("ns", "none", "a") }, Reason::Denied);
    refused(
        &private,
        &DeleteTag { caller: reader.clone(), ..delete("ns", "front/web", "a") },
        Reason::Denied,
    );

    // One that is seen and may not be deleted fails the whole; one that is not seen is left.
    refused(&private, &DeleteAllTags { caller: writer.clone(), ..delete_all("ns") }, Reason::Denied);
    assert_eq!(private.must(&list(Some("ns"))).tags.len(), 4);
    let names = Some(vec![ObjectName::new("front/web", "a")]);
    let some = DeleteAllTags { caller: writer.clone(), names, ..delete_all("ns") };
    assert_eq!(private.must(&some).tags.len(), 1);
    let all = DeleteAllTags { caller: reader.clone(), ..delete_all("ns2") };
    assert_eq!(private.must(&all).tags.len(), 2);
    assert_eq!(private.must(&DeleteAllTags { caller: nobody.clone(), ..delete_all("ns") }).tags.len(), 0);
    private.must(&DeleteTag { caller: writer, ..delete("ns", "front/web", "b") });

    // Changes, too, are told to those who see the tag.
    let told = |caller: &Caller| -> Vec<String> {
        let changes = private.must(&WatchTags { caller: caller.clone(), ..watch(after) });
        assert_eq!(changes.sequence, private.must(&list(None)).sequence, "also where nothing is told");
        changes.changes.iter().map(|change| format!("{}/{}", change.tag.namespace, change.tag.path)).collect()
    };
    assert_eq!(told(&reader), ["ns/front/web", "ns2/front/web", "ns2/front/web", "ns/front/web"]);
    assert_eq!(told(&nobody), [""; 0]);
    // New rules are in force at once.
    private.must(&SetRules { rules: vec![rule("nobody", Some("ns"), &[Verb::Get], &["back"])] });
    assert_eq!(listed(&nobody, None), ["ns/back:a", "ns/back:b"]);
    assert_eq!(listed(&reader, None).len(), 0);
}

#[test]
fn who_may_pull_by_the_settings_sees_and_gets_and_deletes_by_rules_alone() {
    for (anonymous, expected) in [("none", 0), ("read", 2), ("write", 2)] {
        let settings = format!("{JANE}anonymous: {anonymous}\nallowOpen: true\n");
        let server = Launch::new().config(settings).start();
        let (client, private) = (server.client().with_basic("jane", "secret1"), server.private());
        let after = private.must(&list(None)).sequence;
        push_tags(&client, "ns/app", &["a".into(), "b".into()]);
        private.must(&SetRules { rules: vec![rule("cleaner", Some("ns"), &[Verb::Delete], &["app"])] });
        let (nobody, cleaner) = (user("nobody"), user("cleaner"));
        for caller in [&nobody, &cleaner] {
            let page = private.must(&ListTags { caller: caller.clone(), ..list(Some("ns")) });
            assert_eq!(page.tags.len(), expected, "{anonymous}");
            let changes = private.must(&WatchTags { caller: caller.clone(), ..watch(after) });
            assert_eq!(changes.changes.len(), expected, "{anonymous}");
            let got = private.call(&GetTag { caller: caller.clone(), ..get("ns", "app", "a") });
            assert_eq!(got.is_ok(), expected > 0, "{anonymous}");
        }
        let one = DeleteTag { caller: nobody.clone(), ..delete("ns", "app", "a") };
        refused(&private, &one, Reason::Denied);
        let all = |caller: Caller| DeleteAllTags { caller, ..delete_all("ns") };
        match expected {
            // Nothing is seen, so nothing is meant.
            0 => assert_eq!(private.must(&all(nobody)).tags, []),
            _ => {
                refused(&private, &all(nobody), Reason::Denied);
            }
        }
        assert_eq!(private.must(&all(cleaner)).tags.len(), expected);
        let left = private.must(&list(None)).tags;
        assert_eq!(left.len(), 2 - expected, "{anonymous}");
    }
}

#[test]
fn what_is_not_there_is_deleted_also_while_nothing_can_be_written() {
    let server = Server::start();
    let (client, private) = (server.client(), server.private());
    push_tags(&client, "ns/app", &["a".into()]);
    client.push_blob("only-blobs/app", b"a blob");
    private.must(&SetReadOnly {
        owner: "jane".into(),
        reason: "a test".into(),
        lasting_seconds: 600,
        drain_seconds: 0,
    });
    // The cluster asks for this in each namespace that is deleted.
    for namespace in ["none", "only-blobs", "n"] {
        for dry_run in [false, true] {
            let deleted = private.must(&DeleteAllTags { dry_run, ..delete_all(namespace) });
            assert_eq!((deleted.tags, deleted.sequence > 0), (vec![], true), "{namespace}");
        }
    }
    let named = |tag: &str| {
        let names = Some(vec![ObjectName::new("app", tag)]);
        DeleteAllTags { names, ..delete_all("ns") }
    };
    assert_eq!(private.must(&named("none")).tags, []);
    for dry_run in [false, true] {
        refused(&private, &DeleteAllTags { dry_run, ..named("a") }, Reason::ReadOnly);
        refused(&private, &DeleteAllTags { dry_run, ..delete_all("ns") }, Reason::ReadOnly);
        refused(&private, &DeleteTag { dry_run, ..delete("ns", "app", "a") }, Reason::ReadOnly);
        for (namespace, path, tag) in [("ns", "app", "b"), ("ns", "other", "a"), ("none", "app", "a")] {
            let missing = DeleteTag { dry_run, ..delete(namespace, path, tag) };
            refused(&private, &missing, Reason::NotFound);
        }
    }
    assert_eq!(client.tags("ns/app"), ["a"]);
    private.must(&ClearReadOnly { owner: None });
    assert_eq!(private.must(&delete_all("ns")).tags.len(), 1);
}

#[test]
fn rules_that_stand_for_too_much_are_not_compiled() {
    let server = Launch::new().config(JANE).start();
    let (client, private) = (server.client().with_basic("jane", "secret1"), server.private());
    push_tags(&client, "ns/app", &["a".into()]);
    push_tags(&client, "ns2/app", &["a".into()]);
    // Two roles, as large as a cluster stores them, of patterns that stand for 3,840 characters each.
    let braces = "{a,b}".repeat(8);
    let patterns: Vec<String> = (0..28_000).map(|number| format!("{number:06}{braces}")).collect();
    let heavy = |user: &str| Rule { patterns: patterns.clone(), ..rule(user, Some("ns"), &[Verb::Get], &[]) };
    let rules =
        || vec![heavy("greedy"), heavy("other"), rule("modest", Some("ns2"), &[Verb::Get], &["{app,web}"])];
    private.must(&SetRules { rules: rules() });
    private.must(&SetRules { rules: rules() });
    let listed = |name: &str| private.must(&ListTags { caller: user(name), ..list(None) }).tags.len();
    assert_eq!((listed("greedy"), listed("modest")), (0, 1));
    let log = server.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("stand for too much")).collect();
    assert!(lines.len() == 1 && lines[0].contains("ns") && lines[0].contains("27864"), "{lines:?}");
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("a process");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    let peak_kib: u64 = peak.trim().trim_end_matches(" kB").parse().expect("KiB");
    assert!(peak_kib < 256 << 10, "{peak_kib} KiB");
}

fn told(changes: &Changes) -> Vec<(ChangeKind, String)> {
    let of = |Change { kind, tag }: &Change| (*kind, format!("{}/{}:{}", tag.namespace, tag.path, tag.tag));
    changes.changes.iter().map(of).collect()
}

#[test]
fn a_watch_tells_exactly_the_changes() {
    let server = Server::start();
    let (client, private) = (server.client(), server.private());
    let start = private.must(&list(None)).sequence;
    let one = client.push_image("ns/app", "v1", "one");
    let added = private.must(&get("ns", "app", "v1")).tag;
    client.push_image("ns/app", "v1", "one");
    client.push_image("ns/app", "v1", "two");
    let moved = private.must(&get("ns", "app", "v1")).tag;
    set_tags(&client, "ns/app", &["v2".into(), "v3".into()], &one);
    client.delete("/v2/ns/app/manifests/v1").expect(202);
    // A manifest goes with its tags.
    client.delete(format!("/v2/ns/app/manifests/{}", one.digest())).expect(202);
    client.push_image("other/app", "v1", "three");
    client.push_image("alone", "v1", "four");

    let changes = private.must(&watch(start));
    let name = |tag: &str| tag.to_owned();
    let expected = [
        (ChangeKind::Added, name("ns/app:v1")),
        (ChangeKind::Modified, name("ns/app:v1")),
        (ChangeKind::Added, name("ns/app:v2")),
        (ChangeKind::Added, name("ns/app:v3")),
        (ChangeKind::Deleted, name("ns/app:v1")),
        (ChangeKind::Deleted, name("ns/app:v2")),
        (ChangeKind::Deleted, name("ns/app:v3")),
        (ChangeKind::Added, name("other/app:v1")),
    ];
    assert_eq!(told(&changes), expected);
    assert!(changes.changes.is_sorted_by(|a, b| a.tag.sequence < b.tag.sequence));
    assert_eq!(changes.changes[0].tag, added);
    assert_eq!(changes.changes[1].tag, moved);
    let gone = &changes.changes[4].tag;
    assert_eq!((&gone.uid, &gone.digest), (&moved.uid, &moved.digest));
    assert!(gone.sequence > moved.sequence, "a deletion has a number of its own");
    assert_eq!(changes.sequence, private.must(&list(None)).sequence);

    // One after the other gives the same.
    let mut single = Vec::new();
    let mut after = start;
    while single.len() < expected.len() {
        let changes = private.must(&WatchTags { limit: 1, ..watch(after) });
        assert!(changes.sequence > after);
        after = changes.sequence;
        single.extend(changes.changes);
    }
    assert_eq!(single, changes.changes);
    let of_one = private.must(&WatchTags { namespace: Some("other".into()), ..watch(start) });
    assert_eq!(told(&of_one), expected[7..]);
    assert_eq!(of_one.sequence, changes.sequence);
    let of_none = private.must(&WatchTags { namespace: Some("ns/app".into()), ..watch(start) });
    assert_eq!((told(&of_none), of_none.sequence), (vec![], changes.sequence));

    refused(&private, &watch(changes.sequence + 1), Reason::Future);
    refused(&private, &WatchTags { limit: 0, ..watch(start) }, Reason::Invalid);
}

#[test]
fn a_watch_waits_for_what_happens() {
    let mut server = Server::start();
    let (client, private) = (server.client(), server.private());
    client.push_image("ns/app", "v1", "one");
    let now = private.must(&list(None)).sequence;
    let waiting = |after, namespace: &str| {
        let mut connection = private.connect().expect("connects");
        let namespace = Some(namespace.to_owned());
        connection.send(&request(&WatchTags { namespace, wait_seconds: 30, ..watch(after) }));
        // Who came first is heard first: this is answered when the other waits.
        private.must(&list(None));
        connection
    };
    let answer = |mut connection: Connection<Box<dyn Stream>>| -> Changes {
        let answer = connection.receive("POST").expect("an answer").expect(200);
        serde_json::from_slice(&answer.body).expect("changes")
    };
    let (here, there) = (waiting(now, "ns"), waiting(now, "elsewhere"));
    client.push_image("ns/app", "v2", "two");
    let changes = answer(here);
    assert_eq!(told(&changes), [(ChangeKind::Added, "ns/app:v2".to_owned())]);
    // What happens elsewhere wakes nobody; the end of the server does.
    let last = waiting(changes.sequence, "ns");
    server.stop();
    for watch in [there, last] {
        let changes = answer(watch);
        assert_eq!(changes.changes, []);
        assert!(changes.sequence >= now);
    }
}

#[test]
#[ignore = "takes minutes: 100,000 changes"]
fn changes_that_are_no_longer_kept_are_said_to_be() {
    let server = Server::start();
    let (client, private) = (server.client(), server.private());
    let start = private.must(&list(None)).sequence;
    let tags: Vec<String> = (0..100).map(|number| format!("t{number}")).collect();
    let manifests = [client.push_image("ns/app", "one", "one"), client.push_image("ns/app", "two", "two")];
    for round in 0..1001 {
        set_tags(&client, "ns/app", &tags, &manifests[round % 2]);
    }
    let page = private.must(&list(Some("ns")));
    assert!(page.oldest > start);
    refused(&private, &watch(start), Reason::Expired);
    refused(&private, &watch(page.oldest - 1), Reason::Expired);
    let mut after = page.oldest;
    let mut count = 0;
    while after < page.sequence {
        let changes = private.must(&watch(after));
        count += changes.changes.len();
        after = changes.sequence;
    }
    assert_eq!(count, 100_000);
}

#[test]
fn a_namespace_that_is_gone_is_purged() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut server = Launch::new().root(directory.path()).start();
    let client = server.client();
    let many: Vec<String> = (0..150).map(|number| format!("t{number}")).collect();
    push_tags(&client, "gone/many", &many);
    for number in 0..5 {
        client.push_image(&format!("gone/images/{number}"), "latest", &format!("image {number}"));
    }
    client.push_blob("gone/only-a-blob", b"a blob");
    client.begin_upload("gone/session");
    client.push_image("gone2/app", "latest", "stays");
    client.push_image("gone", "latest", "a repository of that name");
    client.begin_upload("started/here");
    // From when it serves a cluster, a name of one segment can only be there from before.
    server.stop();
    let settings = format!("{KUBERNETES}anonymous: write\nallowOpen: true\n");
    let server = Launch::new().root(directory.path()).config(settings).start();
    let (client, private) = (server.client(), server.private());
    let prefixes = || private.must(&ListPrefixes {}).prefixes;
    assert_eq!(prefixes(), ["gone", "gone2", "started"]);

    let purge = PurgeNamespace { namespace: "gone".into() };
    refused(&private, &purge, Reason::Unavailable);
    private.must(&namespaces(&["gone", "gone2", "started"]));
    refused(&private, &purge, Reason::Conflict);
    let mut terminating = namespaces(&["gone", "gone2"]);
    terminating.namespaces[0].is_terminating = true;
    private.must(&terminating);
    refused(&private, &purge, Reason::Conflict);
    private.must(&namespaces(&["gone2"]));
    let before = private.must(&list(None)).sequence;
    let purged = private.must(&purge);
    let counts = (purged.repositories, purged.tags, purged.manifests, purged.uploads);
    assert_eq!(counts, (8, 156, 7, 1));
    assert_eq!(prefixes(), ["gone2", "started"]);
    assert_eq!(client.get("/v2/_catalog").expect(200).json()["repositories"], json!(["gone2/app"]));
    let changes = private.must(&watch(before)).changes;
    assert_eq!(changes.len(), 155, "watchers see it, but for the repository without a path");
    assert!(
        changes.iter().all(|change| change.kind == ChangeKind::Deleted && change.tag.namespace == "gone")
    );
    assert_eq!(private.must(&purge), Default::default());

    // The same can be pushed again.
    private.must(&namespaces(&["gone"]));
    let again = client.push_image("gone/many", "latest", "gone/many");
    client.assert_manifest("gone/many", "latest", &again);
}

#[test]
fn a_registry_that_serves_no_cluster_is_not_purged() {
    let server = Server::start();
    let (client, private) = (server.client(), server.private());
    push_tags(&client, "ns/app", &["a".into()]);
    let session = client.begin_upload("ns/app");
    let purge = PurgeNamespace { namespace: "ns".into() };
    // Whatever somebody says there is.
    let failure = refused(&private, &purge, Reason::Conflict);
    assert!(failure.message.contains("kubernetes.enabled"), "{failure:?}");
    private.must(&namespaces(&["kube-system"]));
    refused(&private, &purge, Reason::Conflict);
    assert_eq!(client.tags("ns/app"), ["a"]);
    client.get(&session).expect(204);
    // A deletion that is asked for is one all the same.
    assert_eq!(private.must(&delete_all("ns")).tags.len(), 1);
}

#[test]
fn the_component_is_told_what_is_missing() {
    let mut server = Server::start();
    let private = server.private();
    let work = private.must(&NextReviews { wait_seconds: 30 });
    assert!(work.needs_rules && work.needs_namespaces && work.reviews.is_empty());
    private.must(&SetRules { rules: vec![] });
    private.must(&namespaces(&[]));
    let work = private.must(&NextReviews { wait_seconds: 0 });
    assert!(!work.needs_rules && !work.needs_namespaces && work.reviews.is_empty());
    private.must(&AnswerReview { id: 1, verdict: Verdict::Refused });
    server.stop();
    server.restart();
    assert!(private.must(&NextReviews { wait_seconds: 30 }).needs_rules, "rules do not survive");
}

#[test]
fn what_is_no_call_is_refused() {
    let server = Server::start();
    let private = server.private();
    let send = |request: Request| {
        let response = private.try_send(&request).expect("an answer");
        let failure: Failure = serde_json::from_slice(&response.body).expect("a failure");
        assert_eq!(failure.reason.status(), response.status);
        failure.reason
    };
    let post = |path: &str, body: &str| send(Request::new("POST", path).body(body));
    const NO_LIMIT: &str = r#"{"caller":{"unrestricted":{"name":"jane"}},"limit":-1}"#;
    for body in ["", "{", "[]", "null", r#"{"caller":"nobody"}"#, r#"{"caller":"unrestricted"}"#, NO_LIMIT] {
        assert_eq!(post("/v1/tags/list", body), Reason::Invalid, "{body}");
    }
    let with_name = r#"{"caller":{"unrestricted":{"name":"jane"}},"namespace":"ns","name":"UPPER"}"#;
    assert_eq!(post("/v1/tags/get", with_name), Reason::Invalid);
    for path in ["/", "/v1", "/v1/", "/v1/tags", "/v2/", "/v1/tags/list/", "/v1/Tags/list"] {
        assert_eq!(post(path, "{}"), Reason::NotFound, "{path}");
    }
    assert_eq!(send(Request::new("GET", "/v1/tags/list")), Reason::Invalid);
    let large = " ".repeat(2 << 20);
    assert_eq!(post("/v1/tags/list", &large), Reason::Invalid);
    assert_eq!(send(Request::new("POST", "/v1/tags/list").chunked([large.as_bytes()])), Reason::Invalid);
    // What a cluster has may be larger.
    private.must(&SetRules { rules: vec![rule("user", None, &[Verb::Get], &["p/**"]); 30_000] });
    assert_eq!(private.must(&list(None)).tags, []);
}

#[test]
fn the_socket_is_for_its_owner_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let deep = directory.path().join("d".repeat(120)).join("e".repeat(120));
    std::fs::create_dir_all(&deep).expect("a directory");
    for launch in [Launch::new(), Launch::new().without_io_uring()] {
        let mut server = launch.root(&deep).start();
        let private = server.private();
        let socket = deep.join("private.sock");
        let metadata = std::fs::symlink_metadata(&socket).expect("a socket");
        assert!(metadata.file_type().is_socket());
        assert_eq!(metadata.permissions().mode() & 0o7777, 0o600);
        private.must(&list(None));
        // A process that was killed leaves its socket, and the next one takes its place.
        server.kill();
        assert!(socket.exists());
        server.restart();
        private.must(&list(None));
        assert_eq!(server.stop().code(), Some(0));
        assert!(!socket.exists(), "a process that ended does not");
    }
}

#[test]
fn it_can_be_elsewhere_or_nowhere() {
    let directory = tempfile::tempdir().expect("a directory");
    let elsewhere = directory.path().join("elsewhere.sock");
    let listen = |text: &str| Launch::new().env("PAYLOAD_REGISTRY_PRIVATE_LISTEN", text);
    let at = format!("unix:{}", elsewhere.display());
    let server = listen(&at).start();
    Private::unix(&elsewhere).must(&list(None));
    assert!(!server.root().join("private.sock").exists());
    // A socket that somebody listens on is not taken away.
    listen(&at).refusal().mentions(&["elsewhere.sock", "another process", "private.listen"]);
    Private::unix(&elsewhere).must(&list(None));

    let server = listen("none").start();
    assert!(!server.root().join("private.sock").exists());
    server.assert_alive();
    std::fs::write(directory.path().join("file"), "text").expect("a file");
    let at = format!("unix:{}", directory.path().join("file").display());
    listen(&at).refusal().mentions(&["no socket"]);
    listen("unix:/nowhere/at/all.sock").refusal().mentions(&["/nowhere/at/all.sock"]);
    listen("127.0.0.1:0").refusal().mentions(&["private.tls.certificate"]);
}

#[test]
fn over_tls_a_certificate_is_needed() {
    let (servers, clients, others) =
        (Authority::new("servers"), Authority::new("clients"), Authority::new("others"));
    let files = PrivateTls::new(&servers.issue_server(&[SERVER_NAME]), &clients.pem());
    for launch in [Launch::new(), Launch::new().without_io_uring()] {
        let mut server = files.launch(launch).start();
        let client = server.client();
        let many: Vec<String> = (0..600).map(|number| format!("t{number}")).collect();
        push_tags(&client, "ns/app", &many);
        assert!(!server.root().join("private.sock").exists());
        let address = private_address(&server);
        let with = |certificate: &Certificate| Private::tls(address, &servers.pem(), Some(certificate));
        let right = with(&clients.issue_client("component"));
        // Answers of many records, bodies of many, and several calls over one connection.
        assert_eq!(right.must(&list(Some("ns"))).tags.len(), 600);
        right.must(&SetRules { rules: vec![rule("user", None, &[Verb::Get], &["p/**"]); 10_000] });
        let mut connection = right.connect().expect("connects");
        for _ in 0..3 {
            let body = serde_json::to_vec(&list(Some("ns"))).expect("JSON");
            let request = Request::new("POST", "/v1/tags/list").body(body);
            let answer = connection.exchange(&request).expect("an answer").expect(200);
            let page: TagPage = serde_json::from_slice(&answer.body).expect("a page");
            assert_eq!(page.tags.len(), 600);
        }

        let request = Request::new("POST", "/v1/namespaces/prefixes").body("{}");
        for wrong in [
            Private::tls(address, &servers.pem(), None),
            with(&others.issue_client("component")),
            with(&clients.issue_server(&["component"])),
        ] {
            let answer = wrong.try_send(&request);
            assert!(answer.is_err(), "{answer:?}");
        }
        // Nor without TLS.
        let mut plain = tests::http::Connection::open(address);
        plain.send(&request);
        assert!(plain.receive("POST").is_err());

        let waiting = {
            let (right, after) = (right.clone(), right.must(&list(None)).sequence);
            std::thread::spawn(move || right.must(&WatchTags { wait_seconds: 30, ..watch(after) }))
        };
        client.push_image("ns/app", "new", "new");
        assert_eq!(waiting.join().expect("told").changes.len(), 1);
        assert_eq!(server.stop().code(), Some(0));
    }
}

#[test]
fn certificates_are_read_again_when_they_change() {
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let (new_servers, new_clients) = (Authority::new("new servers"), Authority::new("new clients"));
    let files = PrivateTls::new(&servers.issue_server(&[SERVER_NAME]), &clients.pem());
    let server = files.launch(Launch::new()).start();
    let address = private_address(&server);
    let certificate = clients.issue_client("component");
    let before = Private::tls(address, &servers.pem(), Some(&certificate));
    before.must(&ListPrefixes {});
    let request = Request::new("POST", "/v1/namespaces/prefixes").body("{}");

    // What cannot be used changes nothing: half of a pair, an empty file, none.
    let renewed = new_servers.issue_server(&[SERVER_NAME]);
    files.write("server.crt", &renewed.certificate);
    before.must(&ListPrefixes {});
    files.write("ca.crt", "");
    before.must(&ListPrefixes {});
    std::fs::remove_file(files.path("ca.crt")).expect("a file");
    before.must(&ListPrefixes {});
    files.write("ca.crt", &clients.pem());
    files.write("server.key", &renewed.key);
    let after = Private::tls(address, &new_servers.pem(), Some(&certificate));
    after.must(&ListPrefixes {});
    assert!(before.try_send(&request).is_err(), "the certificate is another one");

    // Both authorities, then the new one alone.
    files.write("ca.crt", &(clients.pem() + &new_clients.pem()));
    after.must(&ListPrefixes {});
    let newest = new_clients.issue_client("component");
    let newest = Private::tls(address, &new_servers.pem(), Some(&newest));
    newest.must(&ListPrefixes {});
    files.write("ca.crt", &new_clients.pem());
    newest.must(&ListPrefixes {});
    assert!(after.try_send(&request).is_err(), "the authority is no longer one");

    files.write("server.key", "no key");
    newest.must(&ListPrefixes {});
    files.launch(Launch::new()).refusal().mentions(&["server.key", "private.tls.key"]);
}
