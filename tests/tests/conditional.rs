//! Checks compare-and-set of tags: a push with a precondition happens if the tag is what the client believes it is,
//! and changes nothing otherwise.

use std::sync::Barrier;
use std::thread;

use serde_json::{Value, json};
use tests::client::{Client, put_manifest};
use tests::content::{Manifest, artifact, index};
use tests::http::Response;
use tests::server::{Launch, Shared};

static SERVER: Shared = Shared::new(Launch::new);

#[track_caller]
fn put_if(
    client: &Client,
    repository: &str,
    tag: &str,
    manifest: &Manifest,
    (name, value): (&str, &str),
) -> Response {
    client.send(put_manifest(repository, tag, manifest).header(name, value))
}

fn quoted(manifest: &Manifest) -> String {
    format!("\"{}\"", manifest.digest())
}

/// Two manifests that can be pushed to the repository.
fn two_manifests(client: &Client, repository: &str) -> [Manifest; 2] {
    client.push_empty_config(repository);
    ["old", "new"].map(|marker| Manifest::new(&artifact("a/b", marker)))
}

#[test]
fn a_tag_can_be_created_only_if_it_is_not_there() {
    let server = SERVER.get();
    let client = server.client();
    let [old, new] = two_manifests(&client, "conditional/create");
    let none = ("If-None-Match", "*");
    put_if(&client, "conditional/create", "tag", &old, none).expect(201);
    put_if(&client, "conditional/create", "tag", &new, none).expect(412);
    put_if(&client, "conditional/create", "tag", &old, none).expect(412);
    client.assert_manifest("conditional/create", "tag", &old);
    put_if(&client, "conditional/create", "other", &new, none).expect(201);
    client.delete("/v2/conditional/create/manifests/tag").expect(202);
    put_if(&client, "conditional/create", "tag", &new, none).expect(201);
    client.assert_manifest("conditional/create", "tag", &new);
}

#[test]
fn a_tag_can_be_moved_only_from_where_it_is() {
    let server = SERVER.get();
    let client = server.client();
    let repository = "conditional/move";
    let [old, new] = two_manifests(&client, repository);
    let (is_old, is_new) = (quoted(&old), quoted(&new));
    for (value, status) in [(&is_old, 412), (&"*".to_owned(), 412)] {
        put_if(&client, repository, "tag", &new, ("If-Match", value)).expect(status);
        client.get(format!("/v2/{repository}/manifests/tag")).expect(404);
    }
    client.push_manifest(repository, "tag", &old);
    for (value, status) in [
        (is_new.clone(), 412),
        ("\"\"".to_owned(), 412),
        (old.digest().replace("sha256:", "\"") + "\"", 412),
        (format!("W/{is_old}"), 412), // If-Match compares strongly (RFC 9110, 13.1.1)
        (format!("{is_new}, \"x\""), 412),
        (is_old.clone(), 201),
    ] {
        let response = put_if(&client, repository, "tag", &new, ("If-Match", &value));
        assert_eq!(response.status, status, "If-Match: {value}");
        let expected = if status == 201 { &new } else { &old };
        client.assert_manifest(repository, "tag", expected);
    }
    put_if(&client, repository, "tag", &old, ("If-Match", &format!("\"x\", {is_new}"))).expect(201);
    put_if(&client, repository, "tag", &new, ("if-match", "*")).expect(201);
    client.assert_manifest(repository, "tag", &new);
}

#[test]
fn the_tag_of_a_pulled_manifest_is_what_a_push_can_be_bound_to() {
    let server = SERVER.get();
    let client = server.client();
    let [old, new] = two_manifests(&client, "conditional/pulled");
    client.push_manifest("conditional/pulled", "tag", &old);
    let seen = client.get("/v2/conditional/pulled/manifests/tag").expect(200);
    put_if(&client, "conditional/pulled", "tag", &new, ("If-Match", seen.must("ETag"))).expect(201);
    put_if(&client, "conditional/pulled", "tag", &old, ("If-Match", seen.must("ETag"))).expect(412);
    client.assert_manifest("conditional/pulled", "tag", &new);
}

#[test]
fn a_push_can_be_bound_to_a_change() {
    let server = SERVER.get();
    let client = server.client();
    let [old, new] = two_manifests(&client, "conditional/change");
    client.push_manifest("conditional/change", "tag", &old);
    put_if(&client, "conditional/change", "tag", &new, ("If-None-Match", &quoted(&old))).expect(412);
    client.assert_manifest("conditional/change", "tag", &old);
    put_if(&client, "conditional/change", "tag", &new, ("If-None-Match", &quoted(&new))).expect(201);
    client.assert_manifest("conditional/change", "tag", &new);
}

#[test]
fn a_tag_can_be_deleted_only_if_it_is_what_the_client_believes() {
    let server = SERVER.get();
    let client = server.client();
    let [old, new] = two_manifests(&client, "conditional/delete");
    client.push_manifest("conditional/delete", "tag", &old);
    let delete = |manifest: &Manifest| {
        let request = tests::http::Request::new("DELETE", "/v2/conditional/delete/manifests/tag");
        client.send(request.header("If-Match", quoted(manifest)))
    };
    delete(&new).expect(412);
    client.assert_manifest("conditional/delete", "tag", &old);
    delete(&old).expect(202);
    client.head("/v2/conditional/delete/manifests/tag").expect(404);
}

#[test]
fn of_many_clients_that_create_a_tag_one_succeeds() {
    let server = SERVER.get();
    let client = server.client();
    client.push_empty_config("conditional/race");
    for round in 0..5 {
        let tag = format!("round{round}");
        let manifests: Vec<Manifest> =
            (0..8).map(|n| Manifest::new(&artifact("a/b", &format!("{round}/{n}")))).collect();
        let start = Barrier::new(manifests.len());
        let statuses: Vec<u16> = thread::scope(|scope| {
            let pushes = manifests.iter().map(|manifest| {
                let (client, tag, start) = (&client, &tag, &start);
                scope.spawn(move || {
                    start.wait();
                    put_if(client, "conditional/race", tag, manifest, ("If-None-Match", "*"))
                        .expect_any(&[201, 412])
                        .status
                })
            });
            let pushes: Vec<_> = pushes.collect();
            pushes.into_iter().map(|push| push.join().expect("a push")).collect()
        });
        let winners: Vec<usize> = (0..statuses.len()).filter(|n| statuses[*n] == 201).collect();
        assert_eq!(winners.len(), 1, "{statuses:?}");
        client.assert_manifest("conditional/race", &tag, &manifests[winners[0]]);
    }
}

#[test]
fn no_update_of_a_shared_list_is_lost() {
    const CLIENTS: usize = 6;
    const UPDATES: usize = 5;
    let server = SERVER.get();
    let client = server.client();
    let repository = "conditional/list";
    client.push_empty_config(repository);
    client.push_manifest(repository, "list", &Manifest::new(&index([])));
    thread::scope(|scope| {
        for worker in 0..CLIENTS {
            let client = &client;
            scope.spawn(move || {
                for update in 0..UPDATES {
                    let entry = Manifest::new(&artifact("a/b", &format!("{worker}/{update}")));
                    client.push_manifest(repository, &entry.digest(), &entry);
                    // Read, add, write if unchanged; again until it is. Whenever one fails, another has succeeded.
                    let added = (0..CLIENTS * UPDATES).any(|_| {
                        let seen = client.get(format!("/v2/{repository}/manifests/list")).expect(200);
                        let mut list: Value = seen.json();
                        list["manifests"].as_array_mut().expect("a list").push(entry.descriptor());
                        let pushed = put_if(
                            client,
                            repository,
                            "list",
                            &Manifest::new(&list),
                            ("If-Match", seen.must("ETag")),
                        );
                        pushed.expect_any(&[201, 412]).status == 201
                    });
                    assert!(added, "others cannot have succeeded that often");
                }
            });
        }
    });
    let list = client.get(format!("/v2/{repository}/manifests/list")).expect(200).json();
    assert_eq!(list["manifests"].as_array().map(Vec::len), Some(CLIENTS * UPDATES));
    assert_eq!(list["schemaVersion"], json!(2));
}
