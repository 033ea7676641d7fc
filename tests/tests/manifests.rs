//! Checks which manifests are taken, by which names they can be pushed, and what is said about those that are not.

use serde_json::{Value, json};
use tests::client::{Way, location, put_manifest, with_query};
use tests::content::{
    DIGESTS, DOCKER_LIST, DOCKER_MANIFEST, EMPTY_CONFIG, Manifest, OCI_EMPTY, OCI_INDEX, OCI_LAYER,
    OCI_MANIFEST, artifact, bytes, descriptor, image, index, sha256, sha512,
};
use tests::http::Request;
use tests::server::{Launch, Shared};

static SERVER: Shared = Shared::new(Launch::new);

const MIB: usize = 1 << 20;

/// A manifest of exactly that many bytes.
fn manifest_of_size(size: usize) -> Manifest {
    let mut document = artifact("a/b", "size");
    let room = size - document.to_string().len();
    document["annotations"]["org.example.marker"] = "x".repeat(room + "size".len()).into();
    Manifest::new(&document)
}

#[test]
fn a_manifest_can_be_pushed_by_tag_and_by_digest() {
    let server = SERVER.get();
    let client = server.client();
    client.push_empty_config("manifests/names");
    let manifest = Manifest::new(&artifact("a/b", "names"));
    let by_digest = DIGESTS.map(|digest_of| digest_of(&manifest.bytes));
    for reference in ["latest", "v1", &by_digest[0], &by_digest[1]] {
        let put = client.put_manifest("manifests/names", reference, &manifest).expect(201);
        let digest = if reference.contains(':') { reference } else { &by_digest[0] };
        assert_eq!(put.must("Docker-Content-Digest"), digest);
        let located = client.get(location(&put)).expect(200);
        assert_eq!((located.must("Content-Type"), &located.body), (OCI_MANIFEST, &manifest.bytes));
        client.assert_manifest("manifests/names", reference, &manifest);
    }
    assert_eq!(client.tags("manifests/names"), ["latest", "v1"]);
}

#[test]
fn a_manifest_under_a_wrong_digest_is_refused_and_not_kept() {
    let server = SERVER.get();
    let client = server.client();
    client.push_empty_config("manifests/wrong");
    let manifest = Manifest::new(&artifact("a/b", "wrong"));
    for digest_of in DIGESTS {
        let (right, wrong) = (digest_of(&manifest.bytes), digest_of(b"something else"));
        client.put_manifest("manifests/wrong", &wrong, &manifest).expect_error(400, "DIGEST_INVALID");
        client.put_manifest("manifests/wrong", &with_query(&wrong, "tag", "set"), &manifest).expect(400);
        for reference in [&wrong, &right, "set"] {
            client.get(format!("/v2/manifests/wrong/manifests/{reference}")).expect(404);
        }
    }
}

#[test]
fn every_kind_of_manifest_is_taken() {
    let server = SERVER.get();
    let client = server.client();
    let repository = "manifests/kinds";
    client.push_empty_config(repository);
    let amd64 = client.push_image(repository, "amd64", "kinds/amd64");
    let arm64 = client.push_image(repository, "arm64", "kinds/arm64");
    let layer = bytes("kinds/layer", 1000);
    client.push_blob(repository, &layer);
    client.push_blob(repository, b"");
    let empty = descriptor(OCI_EMPTY, EMPTY_CONFIG);
    let gzip = "application/vnd.docker.image.rootfs.diff.tar.gzip";

    let mut docker = image(
        descriptor("application/vnd.docker.container.image.v1+json", EMPTY_CONFIG),
        vec![descriptor(gzip, &layer)],
    );
    docker["mediaType"] = DOCKER_MANIFEST.into();
    let docker = Manifest::new(&docker);
    client.push_manifest(repository, "docker", &docker);
    let mut list = index([&docker]);
    list["mediaType"] = DOCKER_LIST.into();
    list["manifests"][0]["platform"] = json!({"os": "linux", "architecture": "arm", "variant": "v7"});

    let mut with_platforms = index([&amd64, &arm64]);
    with_platforms["manifests"][0]["platform"] = json!({"os": "linux", "architecture": "amd64"});
    let inner = Manifest::new(&with_platforms);
    client.push_manifest(repository, "inner", &inner);

    let mut data = image(empty.clone(), vec![descriptor(OCI_LAYER, &layer)]);
    data["config"]["data"] = "e30=".into();

    let mut unknown = image(empty.clone(), vec![descriptor(OCI_LAYER, &layer)]);
    unknown["org.example.extra"] = json!({"a": [1, 2.5, null, true], "b": {"c": "d"}});
    unknown["layers"][0]["org.example.extra"] = "e".into();
    let mut unknown_in_index = index([&amd64]);
    unknown_in_index["org.example.extra"] = json!([{}]);

    let mut artifact_index = index([&amd64]);
    artifact_index["artifactType"] = "application/vnd.example.index".into();

    let mut foreign = image(empty.clone(), Vec::new());
    foreign["layers"] = json!([
        {"mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", "digest": sha256(b"foreign"), "size": 7,
         "urls": ["https://example.com/layer"]},
        {"mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "digest": sha256(b"docker's"), "size": 8,
         "urls": ["https://example.com/layer"]},
    ]);

    let mut sha512_layer = image(empty.clone(), vec![descriptor(OCI_LAYER, &layer)]);
    client.push_blob_by(Way::Post, repository, &layer, &sha512(&layer)).expect(201);
    sha512_layer["layers"][0]["digest"] = sha512(&layer).into();

    for (kind, document) in [
        ("oci-image", serde_json::from_slice(&amd64.bytes).expect("JSON")),
        ("oci-index", with_platforms),
        ("docker-image", serde_json::from_slice(&docker.bytes).expect("JSON")),
        ("docker-list", list),
        ("artifact", artifact("application/vnd.example", "kinds")),
        ("artifact-index", artifact_index),
        ("no-layers", image(empty.clone(), Vec::new())),
        ("empty-layer", image(empty.clone(), vec![descriptor(OCI_LAYER, b"")])),
        (
            "same-layer-twice",
            image(empty.clone(), vec![descriptor(OCI_LAYER, &layer), descriptor(OCI_LAYER, &layer)]),
        ),
        ("empty-index", index([])),
        ("nested-index", index([&inner, &arm64])),
        ("index-of-docker-images", index([&docker])),
        ("data-field", data),
        ("unknown-fields", unknown),
        ("unknown-fields-in-index", unknown_in_index),
        ("foreign-layers", foreign),
        ("sha512-layer", sha512_layer),
    ] {
        let manifest = Manifest::new(&document);
        let put = client.put_manifest(repository, kind, &manifest);
        assert_eq!(put.status, 201, "{kind}: {}", put.summary());
        client.assert_manifest(repository, kind, &manifest);
        client.assert_manifest(repository, &manifest.digest(), &manifest);
    }
}

#[test]
fn a_push_by_digest_can_set_many_tags_at_once() {
    let server = SERVER.get();
    let client = server.client();
    client.push_empty_config("manifests/tags");
    let manifest = Manifest::new(&artifact("a/b", "tags"));
    let tags: Vec<String> = (0..12).map(|n| format!("1.2.{n}")).collect();
    for digest_of in DIGESTS {
        let digest = digest_of(&manifest.bytes);
        let algorithm = digest.split(':').next().expect("an algorithm");
        let repository = format!("manifests/tags-{algorithm}");
        client.push_empty_config(&repository);
        let reference = tags.iter().fold(digest.clone(), |target, tag| with_query(&target, "tag", tag));
        let put = client.put_manifest(&repository, &reference, &manifest).expect(201);
        assert_eq!(put.must("Docker-Content-Digest"), digest);
        let mut set = put.list("OCI-Tag");
        set.sort_unstable();
        let mut expected: Vec<&str> = tags.iter().map(String::as_str).collect();
        expected.sort_unstable();
        assert_eq!(set, expected);
        assert_eq!(client.tags(&repository), expected);
        for tag in &tags {
            client.assert_manifest(&repository, tag, &manifest);
            let head = client.head(format!("/v2/{repository}/manifests/{tag}")).expect(200);
            assert_eq!(head.must("Docker-Content-Digest"), digest);
        }
    }
}

#[test]
fn a_push_with_one_bad_tag_sets_none() {
    let server = SERVER.get();
    let client = server.client();
    client.push_empty_config("manifests/bad-tags");
    let manifest = Manifest::new(&artifact("a/b", "bad tags"));
    for bad in ["-dash", "a b", "", &"t".repeat(129), &sha256(b"x")] {
        let reference = with_query(&with_query(&manifest.digest(), "tag", "good"), "tag", bad);
        client.put_manifest("manifests/bad-tags", &reference, &manifest).expect(400);
        client.get("/v2/manifests/bad-tags/manifests/good").expect(404);
    }
}

#[test]
fn a_tag_moves_to_what_was_pushed_last() {
    let server = SERVER.get();
    let client = server.client();
    client.push_empty_config("manifests/moving");
    let versions = ["1", "2", "3"].map(|marker| Manifest::new(&artifact("a/b", marker)));
    for manifest in &versions {
        client.push_manifest("manifests/moving", "latest", manifest);
        client.assert_manifest("manifests/moving", "latest", manifest);
    }
    for manifest in &versions {
        client.assert_manifest("manifests/moving", &manifest.digest(), manifest);
    }
    client.push_manifest("manifests/moving", "latest", &versions[0]);
    client.assert_manifest("manifests/moving", "latest", &versions[0]);
    assert_eq!(client.tags("manifests/moving"), ["latest"]);
}

#[test]
fn a_manifest_whose_parts_are_missing_is_refused() {
    let server = SERVER.get();
    let client = server.client();
    let repository = "manifests/missing";
    client.push_empty_config(repository);
    let present = descriptor(OCI_EMPTY, EMPTY_CONFIG);
    let missing = descriptor(OCI_LAYER, b"missing");
    // What other repositories have is not in this one.
    let foreign = client.push_image("manifests/neighbour", "latest", "neighbour");
    client.push_blob("manifests/neighbour", b"neighbour's blob");
    let neighbours = descriptor(OCI_LAYER, b"neighbour's blob");
    let nowhere = Manifest::new(&artifact("a/b", "nowhere"));
    let mut docker = image(present.clone(), vec![missing.clone()]);
    docker["mediaType"] = DOCKER_MANIFEST.into();
    let mut list = index([&nowhere]);
    list["mediaType"] = DOCKER_LIST.into();
    for (case, document, missing_digest) in [
        ("a config", image(missing.clone(), Vec::new()), &missing["digest"]),
        ("a layer", image(present.clone(), vec![present.clone(), missing.clone()]), &missing["digest"]),
        ("a neighbour's layer", image(present.clone(), vec![neighbours.clone()]), &neighbours["digest"]),
        ("a Docker layer", docker, &missing["digest"]),
        ("a child", index([&nowhere]), &json!(nowhere.digest())),
        ("a neighbour's child", index([&foreign]), &json!(foreign.digest())),
        ("a child of a list", list, &json!(nowhere.digest())),
    ] {
        let manifest = Manifest::new(&document);
        for reference in ["latest", &manifest.digest()] {
            let refused = client.put_manifest(repository, reference, &manifest);
            assert_eq!(refused.status, 404, "{case}: {}", refused.summary());
            let refused = refused.expect_error(404, "MANIFEST_BLOB_UNKNOWN");
            let text = String::from_utf8_lossy(&refused.body);
            assert!(text.contains(missing_digest.as_str().expect("a digest")), "{case} is not named: {text}");
        }
        client.get(format!("/v2/{repository}/manifests/{}", manifest.digest())).expect(404);
        client.get(format!("/v2/{repository}/manifests/latest")).expect(404);
    }
}

#[test]
fn a_subject_is_confirmed_and_need_not_be_there() {
    let server = SERVER.get();
    let client = server.client();
    let repository = "manifests/subject";
    client.push_empty_config(repository);
    let present = Manifest::new(&artifact("a/b", "present"));
    client.push_manifest(repository, "present", &present);
    let absent = Manifest::new(&artifact("a/b", "absent"));
    for subject in [&present, &absent] {
        for mut document in [artifact("a/b", &subject.digest()), index([&present])] {
            let plain = Manifest::new(&document);
            let put = client.put_manifest(repository, &plain.digest(), &plain).expect(201);
            assert_eq!(put.header("OCI-Subject"), None);
            document["subject"] = subject.descriptor();
            let referrer = Manifest::new(&document);
            for reference in ["referrer", &referrer.digest()] {
                let put = client.put_manifest(repository, reference, &referrer).expect(201);
                assert_eq!(put.must("OCI-Subject"), subject.digest());
                client.assert_manifest(repository, reference, &referrer);
            }
        }
    }
}

#[test]
fn manifests_of_4_mib_are_taken() {
    let server = SERVER.get();
    let client = server.client();
    client.push_empty_config("manifests/large");
    for size in [MIB, 4 * MIB - 1, 4 * MIB] {
        let manifest = manifest_of_size(size);
        assert_eq!(manifest.bytes.len(), size);
        client.push_manifest("manifests/large", "latest", &manifest);
        client.assert_manifest("manifests/large", "latest", &manifest);
    }
}

#[test]
fn manifests_over_the_limit_are_too_large() {
    let server = Launch::new().config("limits: {manifestSize: 5MiB}\n").start();
    let client = server.client();
    client.push_empty_config("manifests/limit");
    let largest = manifest_of_size(5 * MIB);
    client.push_manifest("manifests/limit", "latest", &largest);
    for size in [5 * MIB + 1, 20 * MIB] {
        let manifest = manifest_of_size(size);
        client.put_manifest("manifests/limit", "latest", &manifest).expect(413);
        let streamed =
            Request::new("PUT", "/v2/manifests/limit/manifests/latest").header("Content-Type", OCI_MANIFEST);
        client.send(streamed.chunked(manifest.bytes.chunks(100_000))).expect(413);
        client.get(format!("/v2/manifests/limit/manifests/{}", manifest.digest())).expect(404);
    }
    // Who says that much is coming is refused before it comes.
    let promise =
        Request::new("PUT", "/v2/manifests/limit/manifests/latest").header("Content-Type", OCI_MANIFEST);
    let promise = promise.header("Expect", "100-continue").header("Content-Length", "9223372036854775807");
    let mut connection = server.connect();
    connection.write(promise.head().as_bytes()).expect("the head is sent");
    connection.receive("PUT").expect("a response").expect(413);
    client.assert_manifest("manifests/limit", "latest", &largest);
}

#[test]
fn a_manifest_may_come_in_chunked_coding() {
    let server = SERVER.get();
    let client = server.client();
    client.push_empty_config("manifests/chunked");
    let manifest = Manifest::new(&artifact("a/b", "chunked"));
    let request = Request::new("PUT", "/v2/manifests/chunked/manifests/latest")
        .header("Content-Type", &manifest.media_type);
    client.send(request.chunked(manifest.bytes.chunks(7))).expect(201);
    client.assert_manifest("manifests/chunked", "latest", &manifest);
}

#[test]
fn a_manifest_that_is_none_is_invalid() {
    let server = SERVER.get();
    let client = server.client();
    let repository = "manifests/invalid";
    client.push_empty_config(repository);
    let good = artifact("a/b", "invalid");
    let changed = |path: &str, value: Value| {
        let mut document = good.clone();
        *document.pointer_mut(path).unwrap_or_else(|| panic!("no {path}")) = value;
        document.to_string()
    };
    let with = |name: &str, value: Value| {
        let mut document = good.clone();
        document[name] = value;
        document.to_string()
    };
    let cases = [
        ("nothing", String::new()),
        ("no JSON", "this is no manifest".into()),
        ("half of it", good.to_string()[..100].into()),
        ("more than it", format!("{good} {good}")),
        ("null", "null".into()),
        ("a string", "\"manifest\"".into()),
        ("an array", format!("[{good}]")),
        (
            "schema 1",
            r#"{"schemaVersion":1,"name":"a/b","tag":"c","architecture":"amd64","fsLayers":[],"history":[]}"#
                .into(),
        ),
        ("another schema version", changed("/schemaVersion", json!(3))),
        ("a schema version in words", changed("/schemaVersion", json!("2"))),
        ("another type than it is pushed with", changed("/mediaType", json!(OCI_INDEX))),
        ("a type that is a number", changed("/mediaType", json!(1))),
        ("no config", changed("/config", Value::Null)),
        ("a config that is a list", changed("/config", json!([]))),
        ("a digest that is none", changed("/config/digest", json!("sha256:zz"))),
        ("a digest that is a number", changed("/config/digest", json!(1))),
        (
            "a digest of an unknown algorithm",
            changed("/config/digest", json!("md5:0123456789abcdef0123456789abcdef")),
        ),
        ("a size below zero", changed("/config/size", json!(-1))),
        ("a size with a fraction", changed("/config/size", json!(2.5))),
        ("a size in words", changed("/config/size", json!("2"))),
        ("layers that are an object", changed("/layers", json!({}))),
        ("layers that are numbers", changed("/layers", json!([1]))),
        ("annotations that are a list", changed("/annotations", json!([]))),
        ("an annotation that is a number", changed("/annotations", json!({"a": 1}))),
        ("a subject that is a string", with("subject", json!(sha256(b"x")))),
        ("a subject without a digest", with("subject", json!({"mediaType": OCI_MANIFEST, "size": 2}))),
        ("an artifact type that is a list", changed("/artifactType", json!([]))),
        ("two configs", good.to_string().replacen('{', &format!(r#"{{"config":{},"#, good["config"]), 1)),
        (
            "a key twice, deep down",
            with("extra", json!({"a": 1})).replace(r#"{"a":1}"#, r#"[{"b":{"a":1,"\u0061":2}}]"#),
        ),
        (
            "deep lists",
            with("extra", json!("?"))
                .replace("\"?\"", &format!("{}{}", "[".repeat(50_000), "]".repeat(50_000))),
        ),
        (
            "deep objects",
            with("extra", json!("?"))
                .replace("\"?\"", &format!("{}1{}", "{\"a\":".repeat(50_000), "}".repeat(50_000))),
        ),
    ];
    for (case, text) in cases {
        let manifest = Manifest { media_type: OCI_MANIFEST.into(), bytes: text.into_bytes() };
        for reference in ["latest", &manifest.digest()] {
            let refused = client.put_manifest(repository, reference, &manifest);
            assert_eq!(refused.status, 400, "{case}: {}", refused.summary());
            refused.expect_error(400, "MANIFEST_INVALID");
        }
        client.get(format!("/v2/{repository}/manifests/latest")).expect(404);
    }
    let binary = Manifest { media_type: OCI_MANIFEST.into(), bytes: vec![0xff; 100] };
    client.put_manifest(repository, "latest", &binary).expect_error(400, "MANIFEST_INVALID");
    server.assert_alive();
}

#[test]
fn an_index_that_is_none_is_invalid() {
    let server = SERVER.get();
    let client = server.client();
    let child = client.push_image("manifests/invalid-index", "child", "invalid index");
    let good = index([&child]);
    for (case, pointer, value) in [
        ("another type", "/mediaType", json!(OCI_MANIFEST)),
        ("another schema version", "/schemaVersion", json!(1)),
        ("no list", "/manifests", Value::Null),
        ("a list that is an object", "/manifests", json!({})),
        ("a child without a digest", "/manifests/0", json!({"mediaType": OCI_MANIFEST, "size": 3})),
        ("a child that is a string", "/manifests/0", json!("child")),
        ("a child of a size below zero", "/manifests/0/size", json!(-3)),
    ] {
        let mut document = good.clone();
        *document.pointer_mut(pointer).expect(pointer) = value;
        let manifest = Manifest { media_type: OCI_INDEX.into(), bytes: document.to_string().into_bytes() };
        let refused = client.put_manifest("manifests/invalid-index", "latest", &manifest);
        assert_eq!(refused.status, 400, "{case}: {}", refused.summary());
        refused.expect_error(400, "MANIFEST_INVALID");
    }
}

#[test]
fn the_same_push_twice_is_no_error() {
    let server = SERVER.get();
    let client = server.client();
    client.push_empty_config("manifests/twice");
    let manifest = Manifest::new(&artifact("a/b", "twice"));
    for _ in 0..3 {
        client.push_manifest("manifests/twice", "latest", &manifest);
        client.push_manifest("manifests/twice", &manifest.digest(), &manifest);
    }
    assert_eq!(client.tags("manifests/twice"), ["latest"]);
    let over_one_connection = put_manifest("manifests/twice", "latest", &manifest);
    let mut connection = server.connect();
    for _ in 0..3 {
        connection.exchange(&over_one_connection).expect("a response").expect(201);
    }
}
