//! Checks the lists: tags and repositories in order and in pages, and the referrers of a manifest.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tests::client::{Client, next_page, strings, with_query};
use tests::content::{Manifest, OCI_CONFIG, OCI_INDEX, artifact, descriptor, image, index, sha256, sha512};
use tests::http::Response;
use tests::server::{Launch, Server, Shared};

static SERVER: Shared = Shared::new(Launch::new);

/// All pages of a list, beginning with `target`.
#[track_caller]
fn pages(client: &Client, target: &str) -> Vec<Response> {
    let mut pages = vec![client.get(target).expect(200)];
    while let Some(next) = next_page(pages.last().expect("a page")) {
        assert!(pages.len() < 10_000, "the pages don't end");
        pages.push(client.get(next).expect(200));
    }
    pages
}

/// Pushes one manifest under all of these tags.
fn push_tags(client: &Client, repository: &str, tags: &[impl AsRef<str>]) {
    client.push_empty_config(repository);
    let manifest = Manifest::new(&artifact("a/b", repository));
    tags.iter().for_each(|tag| client.push_manifest(repository, tag.as_ref(), &manifest));
}

#[test]
fn tags_come_in_the_order_of_their_bytes() {
    let server = SERVER.get();
    let client = server.client();
    let mut tags =
        ["b", "B", "_", "a", "a.b", "a-b", "a_b", "ab", "aB", "10", "9", "a0", "Z", "v1.10", "v1.9", "0"];
    push_tags(&client, "lists/order", &tags);
    tags.sort_unstable();
    let list = client.get("/v2/lists/order/tags/list").expect(200);
    assert_eq!(list.json()["name"], "lists/order");
    assert_eq!(list.must("Content-Type").split(';').next(), Some("application/json"));
    assert_eq!(strings(&list.json()["tags"]), tags);
}

#[test]
fn tags_can_be_read_in_pages() {
    let server = SERVER.get();
    let client = server.client();
    let tags: Vec<String> = (0..25).map(|n| format!("t{n:02}")).collect();
    push_tags(&client, "lists/pages", &tags);
    for n in [1, 7, 24, 25, 26, 1000] {
        let pages = pages(&client, &format!("/v2/lists/pages/tags/list?n={n}"));
        let lists: Vec<Vec<String>> = pages.iter().map(|page| strings(&page.json()["tags"])).collect();
        assert_eq!(lists.concat(), tags, "in pages of {n}");
        for (position, list) in lists.iter().enumerate() {
            assert!(list.len() <= n);
            assert!(list.len() == n || position + 1 == lists.len(), "page {position} of {n} is short");
        }
    }
    // Without n, everything comes at once, or says where it goes on.
    let all: Vec<String> = pages(&client, "/v2/lists/pages/tags/list")
        .iter()
        .flat_map(|page| strings(&page.json()["tags"]))
        .collect();
    assert_eq!(all, tags);
}

#[test]
fn thousands_of_tags_are_all_listed() {
    let server = SERVER.get();
    let client = server.client();
    client.push_empty_config("lists/thousands");
    let manifest = Manifest::new(&artifact("a/b", "thousands"));
    let tags: Vec<String> = (0..5000).map(|n| format!("t{n:05}")).collect();
    for some in tags.chunks(100) {
        let reference = some.iter().fold(manifest.digest(), |target, tag| with_query(&target, "tag", tag));
        client.push_manifest("lists/thousands", &reference, &manifest);
    }
    assert!(client.tags("lists/thousands") == tags);
    let pages = pages(&client, "/v2/lists/thousands/tags/list?n=999");
    let lists: Vec<Vec<String>> = pages.iter().map(|page| strings(&page.json()["tags"])).collect();
    assert!(lists.concat() == tags);
    client.delete(format!("/v2/lists/thousands/manifests/{}", manifest.digest())).expect(202);
    assert_eq!(client.tags("lists/thousands"), [""; 0]);
}

#[test]
fn a_page_begins_behind_the_tag_that_was_last() {
    let server = SERVER.get();
    let client = server.client();
    push_tags(&client, "lists/last", &["a", "b", "c", "d"]);
    for (query, expected) in [
        ("last=a", &["b", "c", "d"][..]),
        ("last=b&n=1", &["c"]),
        ("n=1&last=b", &["c"]),
        ("last=bb", &["c", "d"]), // no such tag
        ("last=A", &["a", "b", "c", "d"]),
        ("last=", &["a", "b", "c", "d"]),
        ("last=d", &[]),
        ("last=zzz&n=2", &[]),
        ("n=2&last=%62", &["c", "d"]),
    ] {
        let page = client.get(format!("/v2/lists/last/tags/list?{query}")).expect(200);
        assert_eq!(strings(&page.json()["tags"]), expected, "{query}");
    }
}

#[test]
fn a_page_of_no_tags_is_empty_and_the_last() {
    let server = SERVER.get();
    let client = server.client();
    push_tags(&client, "lists/zero", &["a", "b"]);
    for query in ["n=0", "n=0&last=a"] {
        let page = client.get(format!("/v2/lists/zero/tags/list?{query}")).expect(200);
        assert_eq!(page.json()["tags"], json!([]));
        assert_eq!(next_page(&page), None);
    }
}

#[test]
fn a_number_that_is_none_is_a_bad_request() {
    let server = SERVER.get();
    let client = server.client();
    push_tags(&client, "lists/number", &["a"]);
    for n in ["-1", "x", "1.5", "1e3", "0x10"] {
        client.get(format!("/v2/lists/number/tags/list?n={n}")).expect(400);
        client.get(format!("/v2/_catalog?n={n}")).expect(400);
    }
    // More than there can be is a number all the same.
    let list = client.get("/v2/lists/number/tags/list?n=18446744073709551615").expect(200);
    assert_eq!(list.json()["tags"], json!(["a"]));
}

#[test]
fn a_repository_without_tags_has_an_empty_list() {
    let server = SERVER.get();
    let client = server.client();
    push_tags(&client, "lists/emptied", &["only"]);
    client.delete("/v2/lists/emptied/manifests/only").expect(202);
    let list = client.get("/v2/lists/emptied/tags/list").expect(200);
    assert_eq!(list.json()["tags"], json!([]), "{}", list.summary());
}

#[test]
fn a_repository_that_is_not_there_is_unknown() {
    let server = SERVER.get();
    server.client().get("/v2/lists/nowhere/tags/list").expect_error(404, "NAME_UNKNOWN");
    server.client().get("/v2/lists/nowhere/tags/list?n=0").expect_error(404, "NAME_UNKNOWN");
}

#[test]
fn the_catalog_lists_repositories_in_order_and_in_pages() {
    let server = Server::start();
    let client = server.client();
    let empty = client.get("/v2/_catalog").expect(200);
    assert_eq!(empty.json()["repositories"], json!([]), "{}", empty.summary());
    let mut names: Vec<String> = ["b", "a/b", "a", "a-b", "a.b", "a0", "a/b/c", "z/1"].map(Into::into).into();
    names.iter().for_each(|name| push_tags(&client, name, &["latest"]));
    names.sort_unstable();
    for n in [1, 3, 8, 9] {
        let pages = pages(&client, &format!("/v2/_catalog?n={n}"));
        let lists: Vec<Vec<String>> =
            pages.iter().map(|page| strings(&page.json()["repositories"])).collect();
        assert_eq!(lists.concat(), names, "in pages of {n}");
        assert!(lists.iter().all(|list| list.len() <= n));
    }
    for (query, expected) in
        [("last=a.b", &names[3..]), ("last=a.b&n=2", &names[3..5]), ("last=aa", &names[6..]), ("n=0", &[])]
    {
        let page = client.get(format!("/v2/_catalog?{query}")).expect(200);
        assert_eq!(strings(&page.json()["repositories"]), expected, "{query}");
    }
}

/// The descriptors of all pages of referrers.
#[track_caller]
fn referrers(client: &Client, target: &str) -> Vec<Value> {
    let mut descriptors = Vec::new();
    for page in pages(client, target) {
        assert_eq!(page.must("Content-Type"), OCI_INDEX);
        let document = page.json();
        assert_eq!((&document["schemaVersion"], &document["mediaType"]), (&json!(2), &json!(OCI_INDEX)));
        descriptors.extend(document["manifests"].as_array().expect("a list of descriptors").iter().cloned());
    }
    descriptors
}

/// The digests of some descriptors, in order.
fn digests(descriptors: &[Value]) -> BTreeSet<String> {
    let digests: BTreeSet<_> =
        descriptors.iter().map(|entry| entry["digest"].as_str().expect("a digest").to_owned()).collect();
    assert_eq!(digests.len(), descriptors.len(), "a referrer is listed twice");
    digests
}

#[test]
fn what_nobody_refers_to_has_an_empty_list_of_referrers() {
    let server = SERVER.get();
    let client = server.client();
    let image = client.push_image("lists/unreferred", "latest", "unreferred");
    for target in [
        format!("/v2/lists/unreferred/referrers/{}", image.digest()),
        format!("/v2/lists/unreferred/referrers/{}", sha256(b"nothing")),
        format!("/v2/lists/unreferred/referrers/{}", sha512(b"nothing")),
        format!("/v2/lists/never-seen/referrers/{}", sha256(b"nothing")),
    ] {
        let list = client.get(&target).expect(200);
        assert_eq!(list.must("Content-Type"), OCI_INDEX);
        assert_eq!(list.json()["manifests"], json!([]), "{target}");
        assert_eq!(list.header("OCI-Filters-Applied"), None);
    }
}

#[test]
fn referrers_are_described_by_their_manifests() {
    let server = SERVER.get();
    let client = server.client();
    let repository = "lists/referrers";
    client.push_empty_config(repository);
    client.push_blob(repository, b"config");
    let subject = client.push_image(repository, "subject", "subject of referrers");
    let other = client.push_image(repository, "other", "other subject");

    let annotations = json!({"org.example.key": "value", "org.example.other": "\"quoted\" \u{e4}"});
    let mut typed = artifact("application/vnd.example.sbom", "typed");
    typed["annotations"] = annotations.clone();
    let mut by_config = image(descriptor("application/vnd.example.config", b"config"), Vec::new());
    by_config["annotations"] = annotations.clone();
    let mut by_image_config = image(descriptor(OCI_CONFIG, b"config"), Vec::new());
    by_image_config["artifactType"] = "".into();
    let mut plain_index = index([&other]);
    plain_index["annotations"] = annotations.clone();
    let mut typed_index = index([&other]);
    typed_index["artifactType"] = "application/vnd.example.index".into();

    let mut expected = Vec::new();
    for (mut document, artifact_type) in [
        (typed, Some("application/vnd.example.sbom")),
        (by_config, Some("application/vnd.example.config")),
        (by_image_config, Some(OCI_CONFIG)),
        (plain_index, None),
        (typed_index, Some("application/vnd.example.index")),
    ] {
        document["subject"] = subject.descriptor();
        let manifest = Manifest::new(&document);
        client.push_manifest(repository, &manifest.digest(), &manifest);
        let mut entry = manifest.descriptor();
        if let Some(artifact_type) = artifact_type {
            entry["artifactType"] = artifact_type.into();
        }
        if document["annotations"].is_object() {
            entry["annotations"] = document["annotations"].clone();
        }
        expected.push(entry);
    }
    let mut unrelated = artifact("application/vnd.example.sbom", "unrelated");
    unrelated["subject"] = other.descriptor();
    client.push_manifest(repository, "unrelated", &Manifest::new(&unrelated));

    let listed = referrers(&client, &format!("/v2/{repository}/referrers/{}", subject.digest()));
    assert_eq!(listed.len(), expected.len());
    for entry in &expected {
        assert!(listed.contains(entry), "{entry} is not in {listed:#?}");
    }
}

#[test]
fn referrers_can_be_filtered_by_type() {
    let server = SERVER.get();
    let client = server.client();
    let repository = "lists/filtered";
    client.push_empty_config(repository);
    let subject = descriptor(OCI_INDEX, b"a subject that is not there");
    let types = [
        "application/vnd.example.sbom+json",
        "application/vnd.example.signature",
        "application/vnd.example.sbom",
    ];
    for (position, artifact_type) in types.iter().enumerate() {
        for marker in 0..=position {
            let mut document = artifact(artifact_type, &marker.to_string());
            document["subject"] = subject.clone();
            client.push_manifest(repository, &format!("t{position}-{marker}"), &Manifest::new(&document));
        }
    }
    let target = format!("/v2/{repository}/referrers/{}", sha256(b"a subject that is not there"));
    assert_eq!(referrers(&client, &target).len(), 6);
    for (artifact_type, count) in
        [(types[0], 1), (types[1], 2), (types[2], 3), ("application/vnd.example.none", 0)]
    {
        let filtered = with_query(&target, "artifactType", artifact_type);
        assert_eq!(client.get(&filtered).expect(200).list("OCI-Filters-Applied"), ["artifactType"]);
        let listed = referrers(&client, &filtered);
        assert_eq!(listed.len(), count, "{artifact_type}");
        assert!(listed.iter().all(|entry| entry["artifactType"] == artifact_type));
    }
}

#[test]
fn a_long_list_of_referrers_comes_in_pages_that_clients_accept() {
    let server = SERVER.get();
    let client = server.client();
    let repository = "lists/long";
    client.push_empty_config(repository);
    let subject = descriptor(OCI_INDEX, b"subject of many");
    let mut expected = BTreeSet::new();
    for marker in 0..24 {
        let mut document = artifact(if marker % 2 == 0 { "a/even" } else { "a/odd" }, &marker.to_string());
        document["annotations"]["org.example.long"] = "x".repeat(400_000).into();
        document["subject"] = subject.clone();
        let manifest = Manifest::new(&document);
        client.push_manifest(repository, &manifest.digest(), &manifest);
        expected.insert(manifest.digest());
    }
    let target = format!("/v2/{repository}/referrers/{}", sha256(b"subject of many"));
    for page in pages(&client, &target) {
        // Clients read no more than that of a manifest.
        assert!(page.body.len() <= 4 << 20, "a page of {} bytes", page.body.len());
    }
    assert_eq!(digests(&referrers(&client, &target)), expected);
    let filtered = with_query(&target, "artifactType", "a/odd");
    for page in pages(&client, &filtered) {
        assert_eq!(page.list("OCI-Filters-Applied"), ["artifactType"], "on every page");
    }
    assert_eq!(digests(&referrers(&client, &filtered)).len(), 12);
}

#[test]
fn many_referrers_are_all_listed() {
    let server = SERVER.get();
    let client = server.client();
    client.push_empty_config("lists/crowd");
    let subject = descriptor(OCI_INDEX, b"subject of a crowd");
    let mut expected = BTreeSet::new();
    for marker in 0..120 {
        let mut document = artifact("a/b", &marker.to_string());
        document["subject"] = subject.clone();
        let manifest = Manifest::new(&document);
        client.push_manifest("lists/crowd", &manifest.digest(), &manifest);
        expected.insert(manifest.digest());
    }
    let target = format!("/v2/lists/crowd/referrers/{}", sha256(b"subject of a crowd"));
    assert_eq!(digests(&referrers(&client, &target)), expected);
}

#[test]
fn a_deleted_referrer_is_no_longer_listed() {
    let server = SERVER.get();
    let client = server.client();
    let repository = "lists/deleted";
    client.push_empty_config(repository);
    let subject = client.push_image(repository, "subject", "deleted referrer");
    let manifests = ["kept", "deleted"].map(|marker| {
        let mut document = artifact("a/b", marker);
        document["subject"] = subject.descriptor();
        Manifest::new(&document)
    });
    manifests.iter().for_each(|manifest| client.push_manifest(repository, &manifest.digest(), manifest));
    let target = format!("/v2/{repository}/referrers/{}", subject.digest());
    assert_eq!(referrers(&client, &target).len(), 2);
    client.delete(format!("/v2/{repository}/manifests/{}", manifests[1].digest())).expect(202);
    assert_eq!(digests(&referrers(&client, &target)), BTreeSet::from([manifests[0].digest()]));
}

#[test]
fn what_a_fallback_tag_lists_is_part_of_the_referrers() {
    let server = SERVER.get();
    let client = server.client();
    let repository = "lists/fallback";
    client.push_empty_config(repository);
    let subject = client.push_image(repository, "subject", "fallback");
    let mut with_subject = artifact("a/b", "with a subject");
    with_subject["subject"] = subject.descriptor();
    let with_subject = Manifest::new(&with_subject);
    client.push_manifest(repository, &with_subject.digest(), &with_subject);
    // A client that doesn't know of the referrers' end-point lists what it pushed under a tag.
    let mut fallback = index([&with_subject]);
    fallback["manifests"][0]["artifactType"] = "a/b".into();
    let tag = subject.digest().replace(':', "-");
    client.push_manifest(repository, &tag, &Manifest::new(&fallback));
    let target = format!("/v2/{repository}/referrers/{}", subject.digest());
    assert_eq!(digests(&referrers(&client, &target)), BTreeSet::from([with_subject.digest()]));
    assert!(client.tags(repository).contains(&tag));
}

#[test]
fn a_subject_is_known_by_the_digest_that_its_referrers_name() {
    let server = SERVER.get();
    let client = server.client();
    client.push_empty_config("lists/sha512");
    let subject = Manifest::new(&artifact("a/b", "subject by sha512"));
    let by_sha512 = sha512(&subject.bytes);
    client.push_manifest("lists/sha512", &by_sha512, &subject);
    let mut document = artifact("a/b", "refers by sha512");
    document["subject"] = subject.descriptor();
    document["subject"]["digest"] = by_sha512.clone().into();
    let referrer = Manifest::new(&document);
    let put = client.put_manifest("lists/sha512", "referrer", &referrer).expect(201);
    assert_eq!(put.must("OCI-Subject"), by_sha512);
    let list = referrers(&client, &format!("/v2/lists/sha512/referrers/{by_sha512}"));
    assert_eq!(digests(&list), BTreeSet::from([referrer.digest()]));
}

#[test]
fn referrers_stay_within_their_repository() {
    let server = SERVER.get();
    let client = server.client();
    client.push_empty_config("lists/one");
    client.push_empty_config("lists/two");
    let mut document = artifact("a/b", "in one repository");
    document["subject"] = descriptor(OCI_INDEX, b"subject in two");
    let manifest = Manifest::new(&document);
    client.push_manifest("lists/one", "tag", &manifest);
    let digest = sha256(b"subject in two");
    assert_eq!(referrers(&client, &format!("/v2/lists/one/referrers/{digest}")).len(), 1);
    assert_eq!(referrers(&client, &format!("/v2/lists/two/referrers/{digest}")).len(), 0);
}
