//! Checks what an administrator can find out about what is stored, and put right: scrub, fsck, why, du, export, rebuild.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tests::administer::{answer, begin, on, on_root};
use tests::client::{location, with_query};
use tests::content::{bytes, sha256};
use tests::eventually;
use tests::server::Server;

/// The file of a blob that is large enough to have one.
#[track_caller]
fn file_of(root: &Path, digest: &str) -> PathBuf {
    let hex = digest.strip_prefix("sha256:").expect("a digest");
    let entries = fs::read_dir(root.join("blobs/sha256").join(&hex[..2])).expect("a directory");
    let mut paths = entries.map(|entry| entry.expect("an entry").path());
    let is_its = |path: &PathBuf| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(hex))
    };
    paths.find(is_its).expect("a file")
}

/// Changes one byte of a file.
fn damage(path: &Path) {
    let mut content = fs::read(path).expect("a file");
    content[1000] ^= 1;
    fs::write(path, content).expect("a file");
}

#[test]
fn damage_is_found_reported_and_healed_by_a_push() {
    let server = Server::start();
    let client = server.client();
    client.push_image("team/app", "v1", "scrubbed");
    let content = bytes("damaged", 100_000);
    let digest = client.push_blob("team/app", &content);
    let report = answer(&server, &["scrub", "--rate", "0"]);
    assert_eq!((&report["damaged"]["count"], &report["errors"]), (&json!(0), &json!(0)));
    assert_eq!(report["checked"], report["total"]);

    damage(&file_of(server.root(), &digest));
    let ended = on(&server, &["scrub", "--rate", "0", "--json"]).expect(6);
    let found = &ended.json()["found"];
    assert_eq!(found[0]["digest"], digest);
    assert_eq!(found[0]["repositories"], json!(["team/app"]));
    assert_eq!(on(&server, &["scrub", "--status", "--json"]).expect(6).json()["found"], *found);
    let text = on(&server, &["scrub", "--status"]).expect(6).stdout;
    assert!(text.contains(&digest) && text.contains("team/app"), "{text}");
    client.head(format!("/v2/team/app/blobs/{digest}")).expect(404);
    let metrics = String::from_utf8(client.get("/metrics").expect(200).body).expect("text");
    assert!(metrics.contains("payload_registry_damaged_contents 1\n"), "{metrics}");
    let scrubbed =
        metrics.lines().find_map(|line| line.strip_prefix("payload_registry_scrubbed_bytes_total "));
    assert!(scrubbed.and_then(|bytes| bytes.parse::<u64>().ok()) > Some(200_000), "{scrubbed:?}");
    let why = answer(&server, &["why", &digest]);
    assert!(!why["damage"].is_null(), "{why}");

    client.push_blob("team/app", &content);
    client.assert_blob("team/app", &digest, &content);
    assert_eq!(answer(&server, &["scrub", "--rate", "0"])["damaged"]["count"], 0);
}

#[test]
fn a_scrub_goes_on_beside_its_command_and_can_be_stopped() {
    let server = Server::start();
    assert_eq!(answer(&server, &["scrub", "--status"]), Value::Null);
    let digest = server.client().push_blob("team/app", &bytes("slow", 5_000_000));
    on(&server, &["scrub", "--rate", "1", "--detach"]).expect(0);
    on(&server, &["scrub"]).expect(3);
    on(&server, &["scrub", "--stop"]).expect(0);
    eventually("its end", || {
        let again = on(&server, &["scrub", "--rate", "0", "--json"]);
        (again.code != Some(3)).then(|| again.expect(0))
    });
    // Whoever waits for one that is stopped does not take it for a whole one.
    let slow = begin(&server, &["scrub", "--rate", "1", "--json"]);
    eventually("a scrub that runs", || {
        (on(&server, &["scrub", "--stop"]).expect(0).stderr != "scrub: none is running\n").then_some(())
    });
    let stopped = slow.end().expect(1);
    assert!(stopped.stderr.contains("the scrub was stopped before its end"), "{stopped:?}");
    assert_eq!(stopped.json()["endedAtMs"], Value::Null);
    server.client().assert_blob("team/app", &digest, &bytes("slow", 5_000_000));
}

#[test]
fn rows_and_files_are_compared_and_repaired() {
    let mut server = Server::start();
    let client = server.client();
    let image = client.push_image("team/app", "v1", "checked");
    let digest = client.push_blob("team/app", &bytes("lost", 100_000));
    let sound = answer(&server, &["fsck"]);
    assert_eq!((&sound["left"], &sound["errors"]), (&json!(0), &json!(0)));
    assert!(sound["examined"]["files"].as_u64() > Some(0));
    assert!(on(&server, &["fsck"]).expect(0).stdout.contains("Nothing is wrong."));

    fs::remove_file(file_of(server.root(), &digest)).expect("a file");
    let found = on(&server, &["fsck", "--json"]).expect(6).json();
    assert_eq!(found["findings"]["file-missing"]["count"], 1, "{found}");
    assert!(on(&server, &["fsck"]).expect(6).stdout.contains("wrong: file-missing, 1"));
    // The same on the stopped root.
    assert_eq!(on(&server, &["fsck", "--offline"]).expect(3).stdout, "");
    assert!(server.stop().success());
    assert_eq!(on(&server, &["fsck", "--offline", "--json"]).expect(6).json()["findings"], found["findings"]);
    let repaired = on(&server, &["fsck", "--offline", "--repair", "--json"]).expect(0).json();
    assert_eq!((&repaired["repaired"], &repaired["left"]), (&json!(1), &json!(0)), "{repaired}");
    server.restart();
    let client = server.client();
    client.head(format!("/v2/team/app/blobs/{digest}")).expect(404);
    client.push_blob("team/app", &bytes("lost", 100_000));
    client.assert_blob("team/app", &digest, &bytes("lost", 100_000));
    client.assert_manifest("team/app", "v1", &image);
    assert_eq!(answer(&server, &["fsck"])["left"], 0);
}

#[test]
fn checksums_of_the_metadata_are_compared_before_a_stopped_root_is_opened() {
    let mut server = Server::start();
    let client = server.client();
    let image = client.push_image("team/of-some-length", "v1", "summed");
    // What a process leaves that was killed is no damage.
    server.kill();
    let found = on(&server, &["fsck", "--offline", "--json"]).expect(0);
    assert!(found.stderr.contains("comparing it with its checksums"), "{found:?}");
    assert_eq!(found.json()["left"], 0);
    server.restart();
    server.client().assert_manifest("team/of-some-length", "v1", &image);
    assert!(server.stop().success());

    let path = server.root().join("metadata.redb");
    let whole = fs::read(&path).expect("a file");
    let name = b"team/of-some-length";
    for at in whole.windows(name.len()).enumerate().filter(|(_, part)| part == name).map(|(at, _)| at) {
        let mut damaged = fs::read(&path).expect("a file");
        damaged[at + name.len() - 1] ^= 1;
        fs::write(&path, damaged).expect("a file");
    }
    for repair in [&[][..], &["--repair"]] {
        let ended = on(&server, &[&["fsck", "--offline"][..], repair].concat()).expect(6);
        assert!(ended.stderr.contains("metadata.redb cannot be used"), "{ended:?}");
        assert!(ended.stderr.contains("rebuild it from its export"), "{ended:?}");
    }
}

#[test]
fn what_keeps_content_is_told() {
    let mut server = Server::start();
    let client = server.client();
    let image = client.push_image("team/app", "v1", "kept");
    let layer = sha256(&bytes("kept/1", 70_000));
    let why = answer(&server, &["why", &layer]);
    assert_eq!((&why["isKept"], &why["stored"]["bytes"]), (&json!(true), &json!(70_000)));
    let within = &why["repositories"][0];
    assert_eq!(within["repository"], "team/app");
    assert_eq!(within["keepers"][0]["digest"], image.digest());
    assert_eq!(within["keepers"][0]["tags"], json!(["v1"]));
    let text = on(&server, &["why", &layer]).expect(0).stdout;
    assert!(
        text.contains("needs the blob") && text.contains("tags: v1") && text.contains("It is kept."),
        "{text}"
    );

    let unused = client.push_blob("team/app", &bytes("unused", 10_000));
    assert!(server.stop().success());
    let why = on(&server, &["why", &unused, "--offline", "--json"]).expect(0).json();
    assert_eq!(why["isKept"], false);
    let text = on(&server, &["why", &unused, "--offline"]).expect(0).stdout;
    assert!(text.contains("Nothing keeps it"), "{text}");
    let nothing = on(&server, &["why", &sha256(b"nothing"), "--offline", "--json"]).expect(0).json();
    assert_eq!((&nothing["stored"], &nothing["repositories"]), (&Value::Null, &json!([])));
    on(&server, &["why", "latest"]).expect(2);
}

#[test]
fn usage_counts_what_is_shared_and_what_is_not() {
    let mut server = Server::start();
    let client = server.client();
    let content = bytes("shared", 100_000);
    let digest = client.push_blob("one/a", &content);
    let uploads = with_query("/v2/two/b/blobs/uploads/", "mount", &digest);
    client.post(with_query(&uploads, "from", "one/a")).expect(201);
    client.push_blob("one/c", &bytes("own", 20_000));
    let usage = answer(&server, &["du"]);
    assert_eq!(usage["stored"], json!({"count": 2, "bytes": 120_000}));
    let share = |list: &str, name: &str| {
        let named = usage[list].as_array().expect("a list").iter().find(|named| named["name"] == name);
        named.expect("a name")["share"].clone()
    };
    let nothing = json!({"count": 0, "bytes": 0});
    let shared = json!({"count": 1, "bytes": 100_000});
    assert_eq!(share("namespaces", "two"), json!({"own": nothing, "shared": shared}));
    assert_eq!(share("namespaces", "one")["own"], json!({"count": 1, "bytes": 20_000}));
    assert_eq!(share("repositories", "one/a"), json!({"own": nothing, "shared": shared}));
    let one = answer(&server, &["du", "--namespace", "one"]);
    assert_eq!(
        (one["namespaces"].as_array().map(Vec::len), one["repositories"].as_array().map(Vec::len)),
        (Some(1), Some(2))
    );
    let text = on(&server, &["du", "--namespace", "one"]).expect(0).stdout;
    assert!(text.contains("one/c") && !text.contains("two"), "{text}");
    on(&server, &["du", "--namespace", "none"]).expect(1);
    assert!(server.stop().success());
    assert_eq!(on(&server, &["du", "--offline", "--json"]).expect(0).json(), usage);
}

#[test]
fn the_metadata_can_be_rebuilt_from_its_export() {
    let mut server = Server::start();
    let client = server.client();
    let image = client.push_image("team/app", "v1", "exported");
    let report = answer(&server, &["export"]);
    assert_eq!(report["path"], server.root().join("metadata.export").display().to_string());
    on(&server, &["rebuild"]).expect(3);
    // Known to the files alone.
    let later = client.push_blob("team/app", &bytes("later", 50_000));
    assert!(server.stop().success());
    on(&server, &["rebuild"]).expect(1);
    let root = server.root().to_owned();
    for entry in fs::read_dir(&root).expect("the root").map(|entry| entry.expect("an entry")) {
        let name = entry.file_name().into_string().expect("text");
        if name.starts_with("metadata") && name != "metadata.export" {
            fs::remove_file(entry.path()).expect("a file");
        }
    }
    let report = on_root(&root, &["rebuild", "--json"]).expect(0).json();
    assert_eq!(
        (&report["missing"]["count"], &report["adopted"]["count"]),
        (&json!(0), &json!(1)),
        "{report}"
    );
    server.restart();
    let client = server.client();
    client.assert_manifest("team/app", "v1", &image);
    client.head(format!("/v2/team/app/blobs/{later}")).expect(404);
    assert_eq!(answer(&server, &["fsck"])["left"], 0);
    assert_eq!(answer(&server, &["scrub", "--rate", "0"])["damaged"]["count"], 0);
}

#[test]
fn upload_sessions_are_listed_and_ended() {
    let server = Server::start();
    let client = server.client();
    let sessions = ["b/app", "a/app"]
        .map(|repository| location(&client.patch(client.begin_upload(repository), b"begun").expect(202)));
    let fresh = client.begin_upload("c/app");
    let uploads = answer(&server, &["uploads"]);
    let list: Vec<(&Value, &Value)> = uploads
        .as_array()
        .expect("a list")
        .iter()
        .map(|upload| (&upload["repository"], &upload["bytes"]))
        .collect();
    assert_eq!(
        list,
        [(&json!("a/app"), &json!(5)), (&json!("b/app"), &json!(5)), (&json!("c/app"), &json!(0))]
    );
    let id = |session: &str| session.rsplit_once('/').expect("a path").1.to_owned();
    let ended = answer(&server, &["uploads", "--cancel", &id(&sessions[1])]);
    assert_eq!(ended[0]["repository"], "a/app");
    client.get(&sessions[1]).expect(404);
    client.get(&sessions[0]).expect(204);
    answer(&server, &["uploads", "--cancel", &id(&fresh)]);
    assert_eq!(answer(&server, &["uploads"]).as_array().map(Vec::len), Some(1));
    on(&server, &["uploads", "--cancel", &id(&fresh)]).expect(1);
    on(&server, &["uploads", "--cancel", "none"]).expect(1);
}
