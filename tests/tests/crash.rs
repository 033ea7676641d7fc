//! Checks that a server which is killed in the middle of many pushes, again and again, has everything afterwards that
//! it confirmed, whole, and nothing that is torn.
//!
//! `PAYLOAD_REGISTRY_TEST_ROUNDS` sets how often it is killed.

use std::collections::BTreeMap;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::thread;

use tests::client::{Client, location, put_manifest, with_query};
use tests::content::{Manifest, OCI_CONFIG, OCI_LAYER, bytes, descriptor, image, sha256};
use tests::http::{Request, Response};
use tests::server::Server;

const ROUNDS: usize = 8;
const PUSHERS: usize = 6;

/// What a push may end as: sent, but not answered; or answered with 201.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Attempted,
    Confirmed,
}

/// What was pushed, by repository and then by digest.
#[derive(Default)]
struct Ledger {
    blobs: BTreeMap<(String, String), (Vec<u8>, Outcome)>,
    manifests: BTreeMap<(String, String), (Manifest, Outcome)>,
    /// For each tag, what was confirmed last, and what was attempted after that.
    tags: BTreeMap<(String, String), (Option<Manifest>, Vec<Manifest>)>,
}

/// One of the threads that push until the server is gone.
struct Pusher<'a> {
    client: Client,
    ledger: &'a Mutex<Ledger>,
    confirmed: &'a AtomicUsize,
    repository: String,
    /// A tag that this pusher alone moves, so that it is known where it was moved last.
    moving: String,
}

impl Pusher<'_> {
    fn ledger(&self) -> std::sync::MutexGuard<'_, Ledger> {
        self.ledger.lock().expect("no pusher panics with the ledger in its hands")
    }

    /// Counts a confirmation.
    #[track_caller]
    fn confirm(&self, response: Response) {
        response.expect(201);
        self.confirmed.fetch_add(1, Ordering::Relaxed);
    }

    /// Pushes a blob in a way that depends on `number`; an error if the server is gone.
    fn blob(&self, content: Vec<u8>, number: usize) -> io::Result<()> {
        let digest = sha256(&content);
        let uploads = format!("/v2/{}/blobs/uploads/", self.repository);
        let key = (self.repository.clone(), digest.clone());
        self.ledger().blobs.entry(key.clone()).or_insert((content.clone(), Outcome::Attempted));
        let last = match number % 3 {
            0 => Request::new("POST", with_query(&uploads, "digest", &digest)).body(&content[..]),
            1 => {
                let session = self.client.try_send(Request::new("POST", &uploads).body(""))?.expect(202);
                Request::new("PUT", with_query(&location(&session), "digest", &digest)).body(&content[..])
            }
            _ => {
                let session = self.client.try_send(Request::new("POST", &uploads).body(""))?.expect(202);
                let (first, second) = content.split_at(content.len() / 3);
                let patch = Request::new("PATCH", location(&session)).chunked(first.chunks(5000));
                let patched = self.client.try_send(patch)?.expect(202);
                Request::new("PUT", with_query(&location(&patched), "digest", &digest)).body(second)
            }
        };
        self.confirm(self.client.try_send(last)?);
        self.ledger().blobs.insert(key, (content, Outcome::Confirmed));
        Ok(())
    }

    /// Pushes an image of two blobs by a new tag or by the one that moves; an error if the server is gone.
    fn image(&self, seed: &str, number: usize) -> io::Result<()> {
        let config = bytes(&format!("{seed}/config"), 300);
        let layer = bytes(&format!("{seed}/layer"), [0, 500, 40_000, 900_000][number % 4] + number);
        self.blob(config.clone(), number)?;
        self.blob(layer.clone(), number / 4)?;
        let layers = vec![descriptor(OCI_LAYER, &layer)];
        let manifest = Manifest::new(&image(descriptor(OCI_CONFIG, &config), layers));
        let tag = if number.is_multiple_of(2) {
            self.moving.clone()
        } else {
            format!("t{}", &manifest.digest()[7..20])
        };
        let (by_digest, by_tag) =
            ((self.repository.clone(), manifest.digest()), (self.repository.clone(), tag.clone()));
        self.ledger().manifests.insert(by_digest.clone(), (manifest.clone(), Outcome::Attempted));
        self.ledger().tags.entry(by_tag.clone()).or_default().1.push(manifest.clone());
        self.confirm(self.client.try_send(put_manifest(&self.repository, &tag, &manifest))?);
        self.ledger().manifests.insert(by_digest, (manifest.clone(), Outcome::Confirmed));
        self.ledger().tags.insert(by_tag, (Some(manifest), Vec::new()));
        Ok(())
    }
}

/// Fails the test unless all that was confirmed is there, and all that is there is whole.
fn verify(client: &Client, ledger: &Ledger) {
    for ((repository, digest), (content, outcome)) in &ledger.blobs {
        let response = client.get(format!("/v2/{repository}/blobs/{digest}")).expect_any(&[200, 404]);
        if response.status == 404 {
            assert_eq!(*outcome, Outcome::Attempted, "{repository}@{digest} was confirmed, and is gone");
        } else {
            assert!(response.body == *content, "{repository}@{digest} is torn ({outcome:?})");
        }
    }
    for ((repository, digest), (manifest, outcome)) in &ledger.manifests {
        let response = client.get(format!("/v2/{repository}/manifests/{digest}")).expect_any(&[200, 404]);
        if response.status == 404 {
            assert_eq!(*outcome, Outcome::Attempted, "{repository}@{digest} was confirmed, and is gone");
            continue;
        }
        assert_eq!(response.body, manifest.bytes, "{repository}@{digest} is torn ({outcome:?})");
        let document = response.json();
        for part in [&document["config"], &document["layers"][0]] {
            let part = part["digest"].as_str().expect("a digest");
            client.head(format!("/v2/{repository}/blobs/{part}")).expect(200);
        }
    }
    for ((repository, tag), (confirmed, attempted)) in &ledger.tags {
        let response = client.get(format!("/v2/{repository}/manifests/{tag}")).expect_any(&[200, 404]);
        let found = (response.status == 200).then_some(&response.body);
        let allowed = confirmed.as_ref().map(|manifest| &manifest.bytes);
        let is_attempted = attempted.iter().any(|manifest| found == Some(&manifest.bytes));
        assert!(
            found == allowed || is_attempted,
            "{repository}:{tag} is neither what was confirmed nor what came after"
        );
        let is_listed = found.is_some();
        if is_listed {
            assert!(
                client.tags(repository).contains(tag),
                "{repository}:{tag} can be pulled, and is not listed"
            );
        }
    }
}

#[test]
fn what_was_confirmed_survives_kills_in_the_middle_of_pushes() {
    let rounds = std::env::var("PAYLOAD_REGISTRY_TEST_ROUNDS")
        .ok()
        .and_then(|rounds| rounds.parse().ok())
        .unwrap_or(ROUNDS);
    let mut server = Server::start();
    let ledger = Mutex::new(Ledger::default());
    for round in 0..rounds {
        let confirmed = AtomicUsize::new(0);
        let running = AtomicU32::new(0);
        // Killed early in one round and late in another, and always while all of them are pushing.
        let enough = 3 + 17 * round % 60;
        thread::scope(|scope| {
            for worker in 0..PUSHERS {
                let pusher = Pusher {
                    client: server.client(),
                    ledger: &ledger,
                    confirmed: &confirmed,
                    repository: format!("crash/{}", worker % 4),
                    moving: format!("moving-{worker}"),
                };
                let running = &running;
                scope.spawn(move || {
                    running.fetch_add(1, Ordering::Relaxed);
                    for number in 0.. {
                        if pusher.image(&format!("{round}/{worker}/{number}"), number).is_err() {
                            break;
                        }
                    }
                });
            }
            tests::eventually("pushes are confirmed", || {
                let all_run = running.load(Ordering::Relaxed) as usize == PUSHERS;
                (all_run && confirmed.load(Ordering::Relaxed) >= enough).then_some(())
            });
            server.kill();
        });
        server.restart();
        let ledger = ledger.lock().expect("no pusher panicked");
        verify(&server.client(), &ledger);
    }
    let ledger = ledger.into_inner().expect("no pusher panicked");
    assert!(ledger.blobs.values().any(|(_, outcome)| *outcome == Outcome::Confirmed));
    // What was left half done is taken up again: everything can be pushed now.
    let client = server.client();
    for ((repository, digest), (content, _)) in &ledger.blobs {
        if client.head(format!("/v2/{repository}/blobs/{digest}")).status == 404 {
            client.push_blob(repository, content);
        }
    }
    for ((repository, digest), (manifest, _)) in &ledger.manifests {
        client.push_manifest(repository, digest, manifest);
    }
    server.kill();
    server.restart();
    for ((repository, digest), (content, _)) in &ledger.blobs {
        server.client().assert_blob(repository, digest, content);
    }
}

#[test]
fn a_delete_that_was_confirmed_survives_a_kill() {
    let mut server = Server::start();
    for round in 0..4 {
        let client = server.client();
        let images: Vec<Manifest> = (0..6)
            .map(|n| client.push_image("crash/delete", &format!("t{n}"), &format!("{round}/{n}")))
            .collect();
        let blob = client.push_blob("crash/delete", &bytes(&format!("deleted {round}"), 100_000));
        client.delete("/v2/crash/delete/manifests/t0").expect(202);
        client.delete(format!("/v2/crash/delete/manifests/{}", images[1].digest())).expect(202);
        client.delete(format!("/v2/crash/delete/blobs/{blob}")).expect(202);
        server.kill();
        server.restart();
        let client = server.client();
        assert_eq!(client.tags("crash/delete"), ["t2", "t3", "t4", "t5"]);
        client.head(format!("/v2/crash/delete/blobs/{blob}")).expect(404);
        client.head(format!("/v2/crash/delete/manifests/{}", images[1].digest())).expect(404);
        client.assert_manifest("crash/delete", &images[0].digest(), &images[0]);
        for (number, image) in images.iter().enumerate().skip(2) {
            client.assert_manifest("crash/delete", &format!("t{number}"), image);
        }
    }
}
