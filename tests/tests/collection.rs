//! Checks the collection of garbage as an administrator has it: by command, beside pushes, and whatever ends meanwhile.
//!
//! `PAYLOAD_REGISTRY_TEST_ROUNDS` sets how often the server is killed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use interface::{ClearReadOnly, GetReadOnly, SetReadOnly};
use serde_json::{Value, json};
use tests::administer::{answer, begin, on, on_root};
use tests::client::{Client, put_manifest, with_query};
use tests::content::{
    Manifest, OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, artifact, bytes, descriptor, image, index, sha256,
};
use tests::http::{Connection, Request};
use tests::layout;
use tests::server::{Launch, Server};
use tests::skopeo::{self, skopeo};
use tests::{PATIENCE, eventually};

/// Everything is old enough to be collected at once.
const NO_AGES: &str = "gc: {untaggedAge: 0s, blobAge: 0s, toldAge: 0s}\n";

const ROUNDS: usize = 6;

fn start() -> Server {
    Launch::new().config(NO_AGES).start()
}

/// What a manifest says that it needs.
fn needs(manifest: &Manifest) -> (Vec<String>, Vec<String>) {
    let document: Value = serde_json::from_slice(&manifest.bytes).expect("a document");
    let digest = |descriptor: &Value| descriptor["digest"].as_str().expect("a digest").to_owned();
    let layers = document["layers"].as_array().into_iter().flatten();
    let blobs = layers.chain(document.get("config")).map(digest).collect();
    let children = document["manifests"].as_array().into_iter().flatten().map(digest).collect();
    (blobs, children)
}

/// Fails the test unless the manifest can be pulled with all that it needs, whole.
#[track_caller]
fn assert_whole(client: &Client, repository: &str, reference: &str, manifest: &Manifest) {
    client.assert_manifest(repository, reference, manifest);
    let (blobs, children) = needs(manifest);
    for digest in blobs {
        let response = client.get(format!("/v2/{repository}/blobs/{digest}")).expect(200);
        assert_eq!(sha256(&response.body), digest, "{repository}");
    }
    for digest in children {
        let response = client.get(format!("/v2/{repository}/manifests/{digest}")).expect(200);
        let child = Manifest { media_type: response.must("Content-Type").to_owned(), bytes: response.body };
        assert_whole(client, repository, &digest, &child);
    }
}

#[track_caller]
fn assert_gone(client: &Client, repository: &str, manifest: &Manifest) {
    client.get(format!("/v2/{repository}/manifests/{}", manifest.digest())).expect(404);
}

/// An image index of three images, a signature of it, and what is left of another one.
struct Content {
    multi: Manifest,
    signature: Manifest,
    dead: Vec<Manifest>,
}

fn referrer(subject: &Manifest, marker: &str) -> Manifest {
    let mut referrer = artifact("application/x.signature", marker);
    referrer["subject"] = subject.descriptor();
    Manifest::new(&referrer)
}

fn push_content(client: &Client, repository: &str) -> Content {
    client.push_empty_config(repository);
    let children = ["amd64", "arm64", "riscv64"].map(|arch| client.push_image(repository, arch, arch));
    let multi = Manifest::new(&index(&children));
    client.push_manifest(repository, "v1", &multi);
    for arch in ["amd64", "arm64", "riscv64"] {
        client.delete(format!("/v2/{repository}/manifests/{arch}")).expect(202);
    }
    let signature = referrer(&multi, "of v1");
    client.push_manifest(repository, &signature.digest(), &signature);
    // A tag is moved; what it left has a signature, and shares a layer with what is alive.
    let old = client.push_image(repository, "latest", "old");
    let signature_of_old = referrer(&old, "of old");
    client.push_manifest(repository, &signature_of_old.digest(), &signature_of_old);
    let shared = bytes("amd64/1", 70_000);
    let config = format!(r#"{{"author":"{repository}"}}"#).into_bytes();
    client.push_blob(repository, &config);
    let layers = vec![descriptor(OCI_LAYER, &shared)];
    let sharing = Manifest::new(&image(descriptor(OCI_CONFIG, &config), layers));
    client.push_manifest(repository, &sharing.digest(), &sharing);
    client.push_image(repository, "latest", "new");
    // And a blob that nothing ever needed.
    client.push_blob(repository, &bytes("unused", 50_000));
    Content { multi, signature, dead: vec![old, signature_of_old, sharing] }
}

#[test]
fn what_nothing_keeps_goes_and_all_else_stays() {
    let server = start();
    let client = server.client();
    let (one, other) = (push_content(&client, "team/one"), push_content(&client, "team/other"));
    // Alive here, dead there.
    let uploads = with_query("/v2/third/app/blobs/uploads/", "mount", &sha256(&bytes("old/1", 70_000)));
    client.post(with_query(&uploads, "from", "team/one")).expect(201);
    let config = br#"{"author":"third"}"#;
    client.push_blob("third/app", config);
    let layer = descriptor(OCI_LAYER, &bytes("old/1", 70_000));
    let third = Manifest::new(&image(descriptor(OCI_CONFIG, config), vec![layer]));
    client.push_manifest("third/app", "v1", &third);

    let before = server.disk_usage();
    let planned = answer(&server, &["gc", "--dry-run"]);
    assert_eq!((&planned["dryRun"], &planned["failure"]), (&json!(true), &Value::Null));
    let everything_is_there = || {
        for content in [&one, &other] {
            for manifest in &content.dead {
                client.get(format!("/v2/team/one/manifests/{}", manifest.digest()));
            }
        }
        client.get(format!("/v2/team/one/blobs/{}", sha256(&bytes("unused", 50_000)))).expect(200);
    };
    everything_is_there();

    let done = answer(&server, &["gc"]);
    assert_eq!(
        (&done["dryRun"], &done["mode"], &done["errors"]),
        (&json!(false), &json!("read-only"), &json!(0))
    );
    assert_eq!(planned["removed"], done["removed"], "a dry run says what a collection does");
    assert_eq!(planned["repositories"], done["repositories"]);
    assert_eq!(done["removed"]["manifests"]["count"], 6);
    assert!(done["removed"]["contents"]["bytes"].as_u64() > Some(0) && done["windowUs"].as_u64() > Some(0));
    for (repository, content) in [("team/one", &one), ("team/other", &other)] {
        assert_whole(&client, repository, "v1", &content.multi);
        assert_whole(&client, repository, &content.signature.digest(), &content.signature);
        let referrers =
            client.get(format!("/v2/{repository}/referrers/{}", content.multi.digest())).expect(200);
        assert_eq!(referrers.json()["manifests"][0]["digest"], content.signature.digest());
        content.dead.iter().for_each(|manifest| assert_gone(&client, repository, manifest));
        for gone in [bytes("unused", 50_000), bytes("old/0", 3000)] {
            client.head(format!("/v2/{repository}/blobs/{}", sha256(&gone))).expect(404);
        }
        client.get(format!("/v2/{repository}/manifests/latest")).expect(200);
    }
    assert_whole(&client, "third/app", "v1", &third);
    assert!(server.disk_usage() < before, "{} of {before}", server.disk_usage());
    assert_eq!(server.private().must(&GetReadOnly {}).hold, None);
    // Nothing is left to do.
    let again = answer(&server, &["gc", "--mode", "online"]);
    assert_eq!((&again["mode"], &again["removed"]["contents"]["count"]), (&json!("online"), &json!(0)));
    assert_eq!(again["removed"]["manifests"]["count"], 0);

    let history = answer(&server, &["gc", "--history"]);
    assert_eq!(history, json!([again, done]), "a dry run is none of what was done");
    let text = on(&server, &["gc", "--history"]).expect(0).stdout;
    assert!(text.contains("removed: 6 ") && text.contains("writing was paused for"), "{text}");
    let metrics = String::from_utf8(client.get("/metrics").expect(200).body).expect("text");
    assert!(metrics.contains("payload_registry_collections_total{result=\"done\"} 2\n"), "{metrics}");
}

#[test]
fn what_is_young_or_was_told_of_stays() {
    let server = Launch::new().config("gc: {toldAge: 0s}\n").start();
    let client = server.client();
    let content = push_content(&client, "team/app");
    let report = answer(&server, &["gc"]);
    assert_eq!(report["removed"]["contents"]["count"], 0);
    assert!(report["kept"]["youngManifests"].as_u64() > Some(0), "{report}");
    let report = answer(&server, &["gc", "--untagged-age", "0s", "--dry-run"]);
    assert_eq!(report["removed"]["manifests"]["count"], 3);
    content.dead.iter().for_each(|manifest| assert_whole(&client, "team/app", &manifest.digest(), manifest));

    // A client that is told that something is there does not push it again.
    let server = Launch::new().config("gc: {untaggedAge: 0s, blobAge: 0s, toldAge: 1h}\n").start();
    let client = server.client();
    push_content(&client, "team/app");
    let report = answer(&server, &["gc"]);
    assert_eq!(report["removed"]["contents"]["count"], 0, "after a start everything counts as told");
    assert!(report["kept"]["leasedManifests"].as_u64() > Some(0), "{report}");
}

#[test]
fn retention_keeps_the_last_tags() {
    let rules = "gc: {untaggedAge: 0s, blobAge: 0s, toldAge: 0s, retention: [{repositories: 'ci/**', keepLast: 2, protected: ['v*']}]}\n";
    let server = Launch::new().config(rules).start();
    let client = server.client();
    for repository in ["ci/app", "team/app"] {
        for tag in ["v1", "a", "b", "c", "d"] {
            client.push_image(repository, tag, tag);
        }
    }
    let planned = answer(&server, &["gc", "--dry-run"]);
    assert_eq!(planned["removed"]["tags"]["count"], 2);
    assert_eq!(client.tags("ci/app").len(), 5);
    let done = answer(&server, &["gc"]);
    assert_eq!(planned["removed"], done["removed"]);
    assert_eq!(client.tags("ci/app"), ["c", "d", "v1"]);
    assert_eq!(client.tags("team/app").len(), 5);
    // Signatures that are kept in another repository than what they are of.
    let signature_of = |digest: &str| format!("{}.sig", digest.replace(':', "-"));
    let image = client.push_image("team/app", "signed", "signed");
    let (kept, gone) = (signature_of(&image.digest()), signature_of(&sha256(b"nothing")));
    for tag in [&kept, &gone] {
        client.push_image("ci/signatures", tag, tag);
    }
    assert_eq!(answer(&server, &["gc"])["removed"]["tags"]["count"], 1);
    assert_eq!(client.tags("ci/signatures"), [kept]);
}

/// A client in the middle of a PATCH: writing cannot be paused before it ends.
fn write_without_end(server: &Server, repository: &str) -> Connection {
    let session = server.client().begin_upload(repository);
    let mut connection = server.connect();
    let head =
        format!("PATCH {session} HTTP/1.1\r\nHost: registry.test\r\nTransfer-Encoding: chunked\r\n\r\n");
    connection.write(head.as_bytes()).expect("sends");
    connection.write(b"5\r\nbegun\r\n").expect("sends");
    eventually("a running write", || {
        (server.private().must(&GetReadOnly {}).running_writes > 0).then_some(())
    });
    connection
}

fn wait_for_window(server: &Server) {
    eventually("the window of a collection", || {
        server.private().must(&GetReadOnly {}).hold.filter(|hold| hold.owner == "gc")
    });
}

fn start_slow() -> Server {
    let config =
        "gc: {untaggedAge: 0s, blobAge: 0s, toldAge: 0s, drain: 50m, lease: 1h}\nshutdown: {drain: 0s}\n";
    Launch::new().config(config).start()
}

#[test]
fn one_collection_runs_at_a_time_and_others_can_wait_for_it() {
    let server = start_slow();
    server.client().push_blob("team/app", b"not needed by anything");
    let mut write = write_without_end(&server, "team/busy");
    let first = begin(&server, &["gc", "--json"]);
    wait_for_window(&server);
    let refused = on(&server, &["gc"]).expect(3);
    assert!(
        refused.stderr.contains("a collection is running already: begun by payload-registry on "),
        "{refused:?}"
    );
    on(&server, &["gc", "--join", "--dry-run"]).expect(3);
    let joined = begin(&server, &["gc", "--join", "--json"]);
    joined.wait_until_it_says("waiting for the one that");
    write.write(b"0\r\n\r\n").expect("sends");
    write.receive("PATCH").expect("an answer").expect(202);
    let (first, joined) = (first.end().expect(0).json(), joined.end().expect(0).json());
    assert_eq!(first["removed"]["contents"]["count"], 1);
    assert_eq!(first["beganAtMs"], joined["beganAtMs"]);
}

#[test]
fn a_collection_can_be_stopped_and_ends_with_the_server() {
    let mut server = start_slow();
    let _write = write_without_end(&server, "team/busy");
    let stopped = begin(&server, &["gc"]);
    wait_for_window(&server);
    on(&server, &["gc", "--stop"]).expect(0);
    let stopped = stopped.end().expect(1);
    assert!(stopped.stderr.contains("it was stopped"), "{stopped:?}");
    assert_eq!(server.private().must(&GetReadOnly {}).hold, None);

    let _lost = begin(&server, &["gc"]);
    wait_for_window(&server);
    assert!(server.stop().success());
    server.restart();
    assert_eq!(server.private().must(&GetReadOnly {}).hold, None, "it has been let go at the end");
}

#[test]
fn a_command_that_dies_leaves_the_collection_alone() {
    let server = start_slow();
    server.client().push_blob("team/app", b"not needed by anything");
    let mut write = write_without_end(&server, "team/busy");
    let command = begin(&server, &["gc"]);
    wait_for_window(&server);
    drop(command);
    write.write(b"0\r\n\r\n").expect("sends");
    write.receive("PATCH").expect("an answer").expect(202);
    eventually("its report", || {
        let history = answer(&server, &["gc", "--history"]);
        (history[0]["removed"]["contents"]["count"] == 1).then_some(())
    });
    eventually("writes", || server.private().must(&GetReadOnly {}).hold.is_none().then_some(()));
}

#[test]
fn a_server_that_dies_in_the_window_writes_again_at_once() {
    let mut server = start_slow();
    let _write = write_without_end(&server, "team/busy");
    let command = begin(&server, &["gc", "--json"]);
    wait_for_window(&server);
    server.kill();
    server.restart();
    server.client().push_image("team/app", "v1", "after");
    assert!(server.log().contains("a collection has died"), "{}", server.log());
    // The command finds out, too: the socket is at the same place.
    let lost = command.end().expect(1);
    assert!(lost.stderr.contains("it was restarted"), "{lost:?}");
    answer(&server, &["gc"]);
}

#[test]
fn the_window_ends_by_itself_whoever_is_there() {
    let ages = "untaggedAge: 0s, blobAge: 0s, toldAge: 0s";
    let server = Launch::new().config(format!("gc: {{{ages}, drain: 50m, lease: 1s}}\n")).start();
    let client = server.client();
    let unused = client.push_blob("team/app", b"not needed by anything");
    // As long as this goes on, the collection waits, and its command is gone.
    let mut write = write_without_end(&server, "team/busy");
    let command = begin(&server, &["gc"]);
    wait_for_window(&server);
    drop(command);
    eventually("the end of the lease", || {
        server.private().must(&GetReadOnly {}).hold.is_none().then_some(())
    });
    let image = client.push_image("team/app", "v1", "after the lease");
    write.write(b"0\r\n\r\n").expect("sends");
    write.receive("PATCH").expect("an answer").expect(202);
    eventually("the end of the collection", || {
        let history = answer(&server, &["gc", "--history"]);
        (history.as_array().map(Vec::len) == Some(1)).then_some(())
    });
    client.head(format!("/v2/team/app/blobs/{unused}")).expect(404);
    assert_whole(&client, "team/app", "v1", &image);
    assert!(server.log().contains("marking took longer than writing may be paused"), "{}", server.log());
    answer(&server, &["gc"]);
    assert_whole(&client, "team/app", "v1", &image);
}

#[test]
fn somebody_elses_read_only_mode_is_kept() {
    let server = start();
    server.client().push_blob("team/app", b"not needed by anything");
    let reason = "moving house".to_owned();
    server.private().must(&SetReadOnly {
        owner: "jane".into(),
        reason,
        lasting_seconds: 600,
        drain_seconds: 0,
    });
    let report = answer(&server, &["gc"]);
    assert_eq!(report["removed"]["contents"]["count"], 1);
    let hold = server.private().must(&GetReadOnly {}).hold.expect("jane's");
    assert_eq!(hold.owner, "jane");
    server.private().must(&ClearReadOnly { owner: Some("jane".into()) });
}

#[test]
fn a_stopped_root_can_be_collected() {
    let mut server = start();
    let content = push_content(&server.client(), "team/app");
    let busy = on(&server, &["gc", "--offline"]).expect(3);
    assert!(busy.stderr.contains("another process has"), "{busy:?}");
    assert!(server.stop().success());
    on(&server, &["gc"]).expect(4);
    let age = ["--untagged-age", "0s", "--blob-age", "0s", "--json"];
    let planned = on(&server, &[&["gc", "--offline", "--dry-run"][..], &age].concat()).expect(0).json();
    let done = on(&server, &[&["gc", "--offline"][..], &age].concat()).expect(0).json();
    assert_eq!(planned["removed"], done["removed"]);
    assert_eq!(done["removed"]["manifests"]["count"], 3);
    server.restart();
    assert_whole(&server.client(), "team/app", "v1", &content.multi);
    assert_eq!(answer(&server, &["gc", "--history"]).as_array().map(Vec::len), Some(1));
    let nowhere = on_root(Path::new("/nowhere/at/all"), &["gc", "--offline"]).expect(1);
    assert!(nowhere.stderr.contains("there is no directory /nowhere/at/all"), "{nowhere:?}");
    // A directory that is no registry's stays as it is.
    let elsewhere = tempfile::tempdir().expect("a directory");
    let digest = sha256(b"anything");
    for command in
        [&["gc", "--dry-run"][..], &["gc"], &["gc", "--history"], &["du"], &["fsck"], &["why", &digest]]
    {
        let ended = on_root(elsewhere.path(), &[command, &["--offline"]].concat()).expect(1);
        assert!(ended.stderr.contains("metadata.redb: say by --root"), "{ended:?}");
        assert_eq!(fs::read_dir(elsewhere.path()).expect("a directory").count(), 0, "{command:?}");
    }
}

#[test]
fn the_registry_collects_by_itself() {
    let config = "gc: {untaggedAge: 0s, blobAge: 0s, toldAge: 0s, interval: 1s, mode: online}\n";
    let server = Launch::new().config(config).start();
    let client = server.client();
    let digest = client.push_blob("team/app", &bytes("unused", 20_000));
    eventually("a collection", || {
        (client.head(format!("/v2/team/app/blobs/{digest}")).status == 404).then_some(())
    });
}

/// Pushes images whose tags it deletes some of, until it is told to end, or the server is gone.
struct Pusher<'a> {
    client: Client,
    repository: String,
    seed: String,
    is_over: &'a AtomicBool,
    /// By tag, what can be pulled from now on.
    alive: &'a Mutex<BTreeSet<(String, String, Vec<u8>)>>,
    confirmed: &'a AtomicUsize,
}

impl Pusher<'_> {
    /// An error where the server is gone.
    fn run(&self) -> std::io::Result<()> {
        for number in 0.. {
            if self.is_over.load(Ordering::Relaxed) {
                return Ok(());
            }
            self.push(number)?;
        }
        Ok(())
    }

    fn push(&self, number: usize) -> std::io::Result<()> {
        let Self { client, repository, seed, .. } = self;
        // Every second image has the layer of the one before, and that of all.
        let own = bytes(&format!("{seed}/{}", number / 2), 6000 + number % 3 * 30_000);
        let config = format!(r#"{{"author":"{seed}/{number}"}}"#).into_bytes();
        let common = bytes("common", 9000);
        let layers = [&own, &common].map(|layer| descriptor(OCI_LAYER, layer)).to_vec();
        let manifest = Manifest::new(&image(descriptor(OCI_CONFIG, &config), layers));
        let tag = format!("{seed}-{number}");
        loop {
            for blob in [&own, &common, &config] {
                let digest = sha256(blob);
                // As clients do it: what is there is not pushed.
                let there =
                    client.try_send(Request::new("HEAD", format!("/v2/{repository}/blobs/{digest}")))?;
                if there.status == 200 {
                    continue;
                }
                let target = with_query(&format!("/v2/{repository}/blobs/uploads/"), "digest", &digest);
                while client
                    .try_send(Request::new("POST", &target).body(&blob[..]))?
                    .expect_any(&[201, 503])
                    .status
                    == 503
                {
                    thread::sleep(Duration::from_millis(1));
                }
            }
            match client
                .try_send(put_manifest(repository, &tag, &manifest))?
                .expect_any(&[201, 404, 503])
                .status
            {
                201 => break,
                // With no age at all, what was pushed may be collected before it is used; a client pushes it again.
                404 => {}
                _ => thread::sleep(Duration::from_millis(1)),
            }
        }
        self.confirmed.fetch_add(1, Ordering::Relaxed);
        let entry = (repository.clone(), tag.clone(), manifest.bytes.clone());
        self.alive.lock().expect("no panic").insert(entry.clone());
        if !number.is_multiple_of(3) {
            // From here on nobody knows whether the tag is there.
            self.alive.lock().expect("no panic").remove(&entry);
            let target = format!("/v2/{repository}/manifests/{tag}");
            while client.try_send(Request::new("DELETE", &target))?.expect_any(&[202, 503]).status == 503 {
                thread::sleep(Duration::from_millis(1));
            }
        }
        Ok(())
    }
}

#[track_caller]
fn assert_all_alive(client: &Client, alive: &BTreeSet<(String, String, Vec<u8>)>) {
    for (repository, tag, manifest) in alive {
        let manifest = Manifest { media_type: tests::content::OCI_MANIFEST.into(), bytes: manifest.clone() };
        assert_whole(client, repository, tag, &manifest);
    }
}

/// Runs pushers beside `work`.
fn storm<T>(
    server: &Server,
    round: usize,
    alive: &Mutex<BTreeSet<(String, String, Vec<u8>)>>,
    work: impl FnOnce(&AtomicUsize) -> T,
) -> T {
    let (is_over, confirmed) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for pusher in 0..4 {
            let pusher = Pusher {
                client: server.client(),
                // Two in each of two repositories.
                repository: format!("storm/{}", pusher % 2),
                seed: format!("r{round}p{pusher}"),
                is_over: &is_over,
                alive,
                confirmed: &confirmed,
            };
            scope.spawn(move || pusher.run());
        }
        let result = work(&confirmed);
        is_over.store(true, Ordering::Relaxed);
        result
    })
}

#[test]
fn every_image_that_was_pushed_while_it_collects_can_be_pulled() {
    let server = start();
    let alive = Mutex::default();
    let collected = storm(&server, 0, &alive, |confirmed| {
        let mut collected = 0;
        for mode in ["online", "read-only", "online", "online"] {
            let before = confirmed.load(Ordering::Relaxed);
            eventually("some more images", || {
                (confirmed.load(Ordering::Relaxed) > before + 20).then_some(())
            });
            let report = answer(&server, &["gc", "--mode", mode]);
            assert_eq!(report["errors"], 0, "{report}");
            collected += report["removed"]["contents"]["count"].as_u64().expect("a number");
        }
        collected
    });
    assert!(collected > 0, "there was something to collect");
    assert_all_alive(&server.client(), &alive.lock().expect("no panic"));
    answer(&server, &["gc"]);
    assert_all_alive(&server.client(), &alive.lock().expect("no panic"));
    let last = answer(&server, &["gc", "--dry-run"]);
    assert_eq!(last["removed"]["contents"]["count"], 0, "nothing dead is left: {last}");
}

/// What skopeo can pull: by repository and tag, the index.
type Images = BTreeMap<(String, String), Manifest>;

/// Somebody who pushes multi-platform images by skopeo, tags some of them again, copies some to another repository, and deletes
/// some.
struct SkopeoPusher<'a> {
    server: &'a Server,
    /// The number of this one.
    pusher: usize,
    dir: PathBuf,
    is_over: &'a AtomicBool,
    pushed: &'a AtomicUsize,
}

impl SkopeoPusher<'_> {
    /// Goes on until it is told to end. Gives what must be there then.
    fn run(&self) -> Images {
        let mut alive = Images::new();
        for number in 0.. {
            if self.is_over.load(Ordering::Relaxed) {
                break;
            }
            self.push(number, &mut alive);
        }
        alive
    }

    fn push(&self, number: usize, alive: &mut Images) {
        // One platform is the same in all images, and another one in two of them.
        let (half, own) =
            (format!("p{}-half-{}", self.pusher, number / 2), format!("p{}-own-{number}", self.pusher));
        let layout = self.dir.join("in");
        let _ = fs::remove_dir_all(&layout);
        let (repository, tag) = (format!("storm/{}", self.pusher % 2), format!("p{}-{number}", self.pusher));
        let index = layout::write(&layout, &tag, &["common", &half, &own]);
        let image = |repository: &str, tag: &str| skopeo::image(self.server, &format!("{repository}:{tag}"));
        let remote = image(&repository, &tag);
        let insecure = ["copy", "--all", "--src-tls-verify=false", "--dest-tls-verify=false"];
        skopeo(&self.dir, &[&insecure[..], &[&format!("oci:in:{tag}"), &remote]].concat());
        alive.insert((repository.clone(), tag.clone()), index.clone());
        match number % 4 {
            // What the tag pointed to has nothing else that keeps it, half of the time.
            1 => {
                let moving = format!("p{}-moving", self.pusher);
                skopeo(&self.dir, &[&insecure[..], &[&remote, &image(&repository, &moving)]].concat());
                alive.insert((repository, moving), index);
            }
            2 => {
                let copies = format!("copies/{}", self.pusher);
                skopeo(&self.dir, &[&insecure[..], &[&remote, &image(&copies, &tag)]].concat());
                alive.insert((copies, tag.clone()), index);
                skopeo(&self.dir, &["delete", "--tls-verify=false", &remote]);
                alive.remove(&(repository, tag));
            }
            3 => {}
            _ => {
                skopeo(&self.dir, &["delete", "--tls-verify=false", &remote]);
                alive.remove(&(repository, tag));
            }
        }
        self.pushed.fetch_add(1, Ordering::Relaxed);
    }
}

/// Pulls an image whole, and fails the test unless it is what was pushed.
fn assert_pulled_whole(server: &Server, dir: &Path, repository: &str, tag: &str, index: &Manifest) {
    let out = dir.join("out");
    let _ = fs::remove_dir_all(&out);
    let remote = skopeo::image(server, &format!("{repository}:{tag}"));
    skopeo(dir, &["copy", "--all", "--src-tls-verify=false", &remote, "oci:out:pulled"]);
    let blobs = out.join("blobs/sha256");
    let read = |digest: &str| {
        let content = fs::read(blobs.join(&digest["sha256:".len()..]));
        let content = content.unwrap_or_else(|error| panic!("{repository}:{tag} has no {digest}: {error}"));
        assert_eq!(sha256(&content), digest, "{repository}:{tag}");
        content
    };
    let mut wanted = BTreeSet::from([index.digest()]);
    assert_eq!(read(&index.digest()), index.bytes);
    let (_, children) = needs(index);
    for child in children {
        let manifest = Manifest { media_type: OCI_MANIFEST.into(), bytes: read(&child) };
        let (blobs, _) = needs(&manifest);
        blobs.iter().for_each(|digest| drop(read(digest)));
        wanted.extend(blobs);
        wanted.insert(child);
    }
    let entries = fs::read_dir(&blobs).expect("a layout");
    assert_eq!(entries.count(), wanted.len(), "{repository}:{tag}");
}

/// Runs pushers for so long, and until something was collected, beside one collection after the other. No push may fail.
fn skopeo_storm(lasting: Duration) {
    // Longer than a push of these images takes, however loaded the machine is: what a user has to see to.
    let ages = "gc: {untaggedAge: 8s, blobAge: 8s, toldAge: 8s}\n";
    let server = Launch::new().config(ages).start();
    let dir = tempfile::tempdir().expect("a directory");
    let own_dir = |pusher: usize| {
        let own = dir.path().join(pusher.to_string());
        fs::create_dir_all(&own).expect("a directory");
        own
    };
    let (is_over, pushed) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (alive, collections, collected) = thread::scope(|scope| {
        let pushers: Vec<_> = (0..3)
            .map(|pusher| {
                let (server, dir) = (&server, own_dir(pusher));
                let pusher = SkopeoPusher { server, pusher, dir, is_over: &is_over, pushed: &pushed };
                scope.spawn(move || pusher.run())
            })
            .collect();
        let began = Instant::now();
        let (mut collections, mut collected) = (0, 0);
        // A pusher ends early where a push has failed.
        while began.elapsed() < lasting || collected == 0 {
            if pushers.iter().any(thread::ScopedJoinHandle::is_finished)
                || began.elapsed() > lasting + 2 * PATIENCE
            {
                break;
            }
            let report = answer(&server, &["gc", "--mode", "online"]);
            assert_eq!((&report["errors"], &report["failure"]), (&json!(0), &Value::Null), "{report}");
            collections += 1;
            collected += report["removed"]["contents"]["count"].as_u64().expect("a number");
        }
        is_over.store(true, Ordering::Relaxed);
        let alive = pushers.into_iter().map(|pusher| pusher.join().expect("no push fails"));
        (alive.collect::<Vec<Images>>(), collections, collected)
    });
    assert!(collected > 0, "there was something to collect");
    let count = alive.iter().map(BTreeMap::len).sum::<usize>();
    let pushed = pushed.load(Ordering::Relaxed);
    eprintln!(
        "{pushed} images, {count} tags of them left; {collections} collections removed {collected} contents"
    );
    answer(&server, &["gc", "--mode", "online"]);
    thread::scope(|scope| {
        for (pusher, images) in alive.iter().enumerate() {
            let (server, dir) = (&server, own_dir(pusher));
            scope.spawn(move || {
                for ((repository, tag), index) in images {
                    assert_pulled_whole(server, &dir, repository, tag, index);
                }
            });
        }
    });
    let tags: usize = ["storm/0", "storm/1", "copies/0", "copies/1", "copies/2"]
        .iter()
        .map(|name| server.client().tags(name).len())
        .sum();
    assert_eq!(tags, count);
}

#[test]
fn every_image_that_skopeo_pushed_while_it_collects_can_be_pulled() {
    skopeo_storm(Duration::from_secs(12));
}

#[test]
#[ignore = "takes five minutes"]
fn skopeo_pushes_for_minutes_while_it_collects() {
    skopeo_storm(Duration::from_secs(300));
}

/// The points of a collection that are looked for in the log, to kill the server there.
const STEPS: [&str; 8] =
    ["Entered", "Marked", "Left", "Doomed", "Committed", "FileRemoved", "FilesRemoved", "Done"];

#[test]
fn a_server_that_is_killed_while_it_collects_has_lost_nothing_alive() {
    let config = format!("{NO_AGES}log: {{level: 'info,server::administration=trace'}}\n");
    let mut server = Launch::new().config(config).start();
    let rounds = std::env::var("PAYLOAD_REGISTRY_TEST_ROUNDS").ok().and_then(|rounds| rounds.parse().ok());
    let alive = Mutex::default();
    let mut usual = Duration::from_millis(20);
    for round in 0..rounds.unwrap_or(ROUNDS) {
        let server_now = &server;
        storm(server_now, round, &alive, |confirmed| {
            eventually("some images", || (confirmed.load(Ordering::Relaxed) > 15).then_some(()));
        });
        let command = begin(&server, &["gc", "--json"]);
        let log_before = server.log().len();
        if round % 2 == 0 {
            let step = format!("\"step\":\"{}\"", STEPS[round / 2 % STEPS.len()]);
            let deadline = Instant::now() + tests::PATIENCE;
            while Instant::now() < deadline {
                let log = server.log();
                let new = &log[log_before..];
                if new.contains(&step) || new.contains("\"collected\"") {
                    break;
                }
            }
        } else {
            let log = || server.log()[log_before..].to_owned();
            eventually("a beginning", || {
                (log().contains("\"Entered\"") || log().contains("\"collected\"")).then_some(())
            });
            // Somewhere within the time that a collection takes.
            thread::sleep(usual.mul_f64((round * 7 % 10) as f64 / 10.0));
        }
        server.kill();
        let log = server.log();
        let last = STEPS
            .iter()
            .filter_map(|step| Some((log[log_before..].rfind(&format!("\"{step}\""))?, step)))
            .max();
        eprintln!("round {round}: killed after {:?}", last.map(|(_, step)| step));
        drop(command);
        server.restart();
        assert_eq!(server.private().must(&GetReadOnly {}).hold, None);
        assert_all_alive(&server.client(), &alive.lock().expect("no panic"));
        let began = Instant::now();
        let report = answer(&server, &["gc"]);
        usual = began.elapsed();
        assert_eq!((&report["errors"], &report["failure"]), (&json!(0), &Value::Null), "{report}");
        assert_all_alive(&server.client(), &alive.lock().expect("no panic"));
        let last = answer(&server, &["gc", "--dry-run"]);
        assert_eq!(last["removed"]["contents"]["count"], 0, "nothing dead is left: {last}");
    }
}
