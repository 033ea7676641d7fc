//! Checks that a client that others wrote gets on with the registry: skopeo, which speaks as Podman and CRI-O do.

use serde_json::Value;
use tests::content::{DOCKER_LIST, DOCKER_MANIFEST, Manifest, OCI_INDEX, OCI_MANIFEST, sha256};
use tests::layout;
use tests::server::{Launch, Shared};
use tests::skopeo::{image, run, skopeo};

static SERVER: Shared = Shared::new(Launch::new);

/// A directory with a layout of a multi-platform image in `in`, and its index.
fn layout() -> (tempfile::TempDir, Manifest) {
    let dir = tempfile::tempdir().expect("a directory");
    let index = layout::write(&dir.path().join("in"), "v1", &["amd64", "arm64", "riscv64"]);
    (dir, index)
}

#[test]
fn a_multi_platform_image_goes_in_and_comes_out_the_same() {
    let server = SERVER.get();
    let (dir, index) = layout();
    let remote = image(&server, "clients/multi:v1");
    skopeo(dir.path(), &["copy", "--all", "--dest-tls-verify=false", "oci:in:v1", &remote]);
    server.client().assert_manifest("clients/multi", "v1", &index);
    assert_eq!(index.media_type, OCI_INDEX);

    skopeo(dir.path(), &["copy", "--all", "--src-tls-verify=false", &remote, "oci:out:v1"]);
    let blobs = |layout: &str| {
        let entries = std::fs::read_dir(dir.path().join(layout).join("blobs/sha256")).expect("a layout");
        let mut names: Vec<String> =
            entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text")).collect();
        names.sort();
        names
    };
    assert_eq!(blobs("in"), blobs("out"));
    for name in blobs("out") {
        let content = std::fs::read(dir.path().join("out/blobs/sha256").join(&name)).expect("a blob");
        assert_eq!(sha256(&content), format!("sha256:{name}"));
    }
    // Copied again, nothing is left to be pushed; by digest, the same comes back.
    skopeo(dir.path(), &["copy", "--all", "--dest-tls-verify=false", "oci:in:v1", &remote]);
    let by_digest = image(&server, &format!("clients/multi@{}", index.digest()));
    skopeo(dir.path(), &["copy", "--all", "--src-tls-verify=false", &by_digest, "oci:again:v1"]);
    assert_eq!(blobs("in"), blobs("again"));
}

#[test]
fn an_image_can_be_copied_within_the_registry() {
    let server = SERVER.get();
    let (dir, index) = layout();
    let (from, to) = (image(&server, "clients/from:v1"), image(&server, "clients/to:v1"));
    skopeo(dir.path(), &["copy", "--all", "--dest-tls-verify=false", "oci:in:v1", &from]);
    skopeo(dir.path(), &["copy", "--all", "--src-tls-verify=false", "--dest-tls-verify=false", &from, &to]);
    server.client().assert_manifest("clients/to", "v1", &index);
}

#[test]
fn an_image_can_be_converted_to_docker_s_format() {
    let server = SERVER.get();
    let (dir, _) = layout();
    let (single, all) = (image(&server, "clients/docker:single"), image(&server, "clients/docker:all"));
    let to_docker = ["--format", "v2s2", "--dest-tls-verify=false", "oci:in:v1"];
    skopeo(dir.path(), &[&["--override-arch", "arm64", "copy"], &to_docker[..], &[&single]].concat());
    skopeo(dir.path(), &[&["copy", "--all"], &to_docker[..], &[&all]].concat());
    let client = server.client();
    let manifest = client.get("/v2/clients/docker/manifests/single").expect(200);
    assert_eq!(manifest.must("Content-Type"), DOCKER_MANIFEST);
    assert_eq!(manifest.json()["mediaType"], DOCKER_MANIFEST);
    let list = client.get("/v2/clients/docker/manifests/all").expect(200);
    assert_eq!(list.must("Content-Type"), DOCKER_LIST);
    let inspected: Value = serde_json::from_str(&skopeo(
        dir.path(),
        &["--override-arch", "arm64", "inspect", "--tls-verify=false", &all],
    ))
    .expect("JSON");
    assert_eq!(inspected["Architecture"], "arm64");
    assert_eq!(inspected["Layers"].as_array().map(Vec::len), Some(2));
    skopeo(dir.path(), &["copy", "--all", "--src-tls-verify=false", &all, "dir:out"]);
}

#[test]
fn images_can_be_inspected_listed_and_deleted() {
    let server = SERVER.get();
    let (dir, index) = layout();
    for tag in ["v1", "v2", "latest"] {
        let remote = image(&server, &format!("clients/life:{tag}"));
        skopeo(dir.path(), &["copy", "--all", "--dest-tls-verify=false", "oci:in:v1", &remote]);
    }
    let repository = image(&server, "clients/life");
    let raw = skopeo(dir.path(), &["inspect", "--tls-verify=false", "--raw", &format!("{repository}:v1")]);
    assert_eq!(raw.as_bytes(), index.bytes);
    let arm64 = ["--override-arch", "arm64", "inspect", "--tls-verify=false"];
    let config: Value = serde_json::from_str(&skopeo(
        dir.path(),
        &[&arm64[..], &["--config", &format!("{repository}:v1")]].concat(),
    ))
    .expect("JSON");
    assert_eq!(config["config"]["Labels"]["org.example.architecture"], "arm64");
    let inspected: Value =
        serde_json::from_str(&skopeo(dir.path(), &[&arm64[..], &[&format!("{repository}:v1")]].concat()))
            .expect("JSON");
    assert_eq!(inspected["Digest"], index.digest());
    assert_eq!(inspected["RepoTags"], serde_json::json!(["latest", "v1", "v2"]));
    let tags: Value =
        serde_json::from_str(&skopeo(dir.path(), &["list-tags", "--tls-verify=false", &repository]))
            .expect("JSON");
    assert_eq!(tags["Tags"], serde_json::json!(["latest", "v1", "v2"]));

    // skopeo deletes what the tag points to, so all tags of it go.
    skopeo(dir.path(), &["delete", "--tls-verify=false", &format!("{repository}:v1")]);
    let client = server.client();
    for tag in ["v1", "v2", "latest"] {
        client.head(format!("/v2/clients/life/manifests/{tag}")).expect(404);
    }
    let children: Value = serde_json::from_slice(&index.bytes).expect("JSON");
    for child in children["manifests"].as_array().expect("children") {
        let pulled = client
            .get(format!("/v2/clients/life/manifests/{}", child["digest"].as_str().expect("a digest")))
            .expect(200);
        assert_eq!(pulled.must("Content-Type"), OCI_MANIFEST);
    }
}

#[test]
fn a_login_works_for_pushing_and_pulling() {
    // bcrypt of "secret1"
    let config = r#"
users:
  jane:
    passwordHash: "$2b$04$abcdefghijklmnopqrstuuCHf7DUmNUvMBdGje9JveOQe49tH5xFK"
    projects: [{name: clients, access: FULL}]
"#;
    let server = Launch::new().config(config).start();
    let (dir, index) = layout();
    let remote = image(&server, "clients/login:v1");
    skopeo(
        dir.path(),
        &["copy", "--all", "--dest-tls-verify=false", "--dest-creds", "jane:secret1", "oci:in:v1", &remote],
    );
    server.client().with_basic("jane", "secret1").assert_manifest("clients/login", "v1", &index);
    skopeo(
        dir.path(),
        &["copy", "--all", "--src-tls-verify=false", "--src-creds", "jane:secret1", &remote, "oci:out:v1"],
    );
    let address = server.address().to_string();
    skopeo(
        dir.path(),
        &["login", "--tls-verify=false", "--authfile", "auth.json", "-u", "jane", "-p", "secret1", &address],
    );
    skopeo(dir.path(), &["inspect", "--tls-verify=false", "--authfile", "auth.json", "--raw", &remote]);
    let anonymous = run(dir.path(), &["inspect", "--tls-verify=false", "--no-creds", &remote]);
    assert!(!anonymous.status.success());
}
