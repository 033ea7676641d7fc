//! Checks who may do what: logins, grants, anonymous access, and that nobody learns of what they may not see.

use tests::client::{Client, Way, location, strings, with_query};
use tests::content::{Manifest, artifact, bytes, sha256};
use tests::http::{Request, Response};
use tests::server::{Launch, Shared};

/// bcrypt hashes of "secret1", "secret2" and "secret3", as cheap as they can be.
const USERS: &str = r#"
users:
  reader:
    passwordHash: "$2b$04$abcdefghijklmnopqrstuuCHf7DUmNUvMBdGje9JveOQe49tH5xFK"
    projects: [{name: team, subPath: "frontend/*", access: READ}]
  owner:
    passwordHash: "$2b$04$abcdefghijklmnopqrstuulGPK4fzXEtj4nBuq572tAa2r32TW6di"
    projects: [{name: team, access: FULL}]
  neighbour:
    passwordHash: "$2b$04$abcdefghijklmnopqrstuuPC3kjZLkpJs/JRJQDV9u/oihM4XPpwG"
    projects:
      - {name: lab, access: FULL}
      - {name: team, subPath: "frontend/*", access: READ}
  locked:
    projects: [{name: team, access: FULL}]
"#;

static SERVER: Shared = Shared::new(|| Launch::new().config(USERS));

/// Clients of the three users who can log in.
struct People {
    reader: Client,
    owner: Client,
    neighbour: Client,
}

impl People {
    fn of(client: &Client) -> Self {
        Self {
            reader: client.with_basic("reader", "secret1"),
            owner: client.with_basic("owner", "secret2"),
            neighbour: client.with_basic("neighbour", "secret3"),
        }
    }
}

#[test]
fn who_is_not_logged_in_is_asked_to() {
    let server = SERVER.get();
    let client = server.client();
    People::of(&client).owner.push_image("team/frontend/asked", "latest", "asked");
    let digest = sha256(b"x");
    for (method, target) in [
        ("GET", "/v2/".to_owned()),
        ("GET", "/v2".to_owned()),
        ("GET", "/v2/_catalog".to_owned()),
        ("GET", "/v2/team/frontend/asked/manifests/latest".to_owned()),
        ("GET", "/v2/team/frontend/asked/manifests/none".to_owned()),
        ("GET", "/v2/team/frontend/asked/tags/list".to_owned()),
        ("GET", format!("/v2/team/frontend/asked/blobs/{digest}")),
        ("GET", format!("/v2/team/frontend/asked/referrers/{digest}")),
        ("GET", "/v2/nowhere/at/all/tags/list".to_owned()),
        ("POST", "/v2/team/frontend/asked/blobs/uploads/".to_owned()),
        ("PUT", "/v2/team/frontend/asked/manifests/latest".to_owned()),
        ("DELETE", "/v2/team/frontend/asked/manifests/latest".to_owned()),
        ("DELETE", format!("/v2/team/frontend/asked/blobs/{digest}")),
    ] {
        let response = client.send(Request::new(method, &target).body("")).expect_error(401, "UNAUTHORIZED");
        let mut answers = vec![response];
        if method == "GET" {
            answers.push(client.head(&target).expect(401));
        }
        for challenge in answers.iter().map(|answer| answer.must("WWW-Authenticate")) {
            assert!(
                challenge.starts_with("Basic realm=\"") && challenge.ends_with('"'),
                "{method} {target}: {challenge}"
            );
        }
    }
}

#[test]
fn a_login_takes_the_right_password() {
    let server = SERVER.get();
    let client = server.client();
    for (user, password) in [("reader", "secret1"), ("owner", "secret2"), ("neighbour", "secret3")] {
        client.with_basic(user, password).get("/v2/").expect(200);
    }
    // The scheme's name may be written in any case (RFC 9110, 11.1).
    client.with_authorization("basic cmVhZGVyOnNlY3JldDE=").get("/v2/").expect(200);
    let long = "x".repeat(5000);
    for (user, password) in [
        ("reader", "secret2"),
        ("reader", ""),
        ("reader", "secret1 "),
        ("reader", "SECRET1"),
        ("reader", "secret1\0"),
        ("Reader", "secret1"),
        ("nobody", "secret1"),
        ("", "secret1"),
        ("", ""),
        ("locked", ""),
        ("locked", "secret1"),
        ("anonymous", ""),
        ("token", "secret1"),
        ("reader", &long),
        (&long, "secret1"),
    ] {
        let refused = client.with_basic(user, password).get("/v2/").expect_error(401, "UNAUTHORIZED");
        assert!(refused.must("WWW-Authenticate").starts_with("Basic "));
    }
    for authorization in [
        "",
        "Basic",
        "Basic ",
        "Basic !!!",
        "Basic cmVhZGVy",
        "Basic cmVhZGVyOnNlY3JldDE=x",
        "Bearer secret1",
        "Digest a=b",
        "cmVhZGVyOnNlY3JldDE=",
    ] {
        client.with_authorization(authorization).get("/v2/").expect_any(&[400, 401]);
    }
}

#[test]
fn a_grant_covers_what_it_says_and_nothing_else() {
    let server = SERVER.get();
    let client = server.client();
    let people = People::of(&client);
    for repository in ["team/frontend/app", "team/frontend/deep/down/app", "team/backend/app", "team/app"] {
        people.owner.push_image(repository, "latest", repository);
    }
    people.neighbour.push_image("lab/app", "latest", "lab/app");
    for (case, who, repository, may_pull, may_push) in [
        ("what is below", &people.reader, "team/frontend/app", true, false),
        ("what is far below", &people.reader, "team/frontend/deep/down/app", true, false),
        ("what is beside", &people.reader, "team/backend/app", false, false),
        ("what is above", &people.reader, "team/app", false, false),
        ("another project", &people.reader, "lab/app", false, false),
        ("all of the project", &people.owner, "team/backend/app", true, true),
        ("all of the project", &people.owner, "team/frontend/deep/down/app", true, true),
        ("another project", &people.owner, "lab/app", false, false),
        ("a project of one's own", &people.neighbour, "lab/app", true, true),
        ("a part of another", &people.neighbour, "team/frontend/app", true, false),
        ("the rest of another", &people.neighbour, "team/backend/app", false, false),
    ] {
        let digest = sha256(&bytes(&format!("{repository}/0"), 3000));
        let its_owner = if repository.starts_with("lab/") { &people.neighbour } else { &people.owner };
        let session = its_owner.begin_upload(repository);
        let manifest = Manifest::new(&artifact("a/b", case));
        for target in [
            format!("/v2/{repository}/manifests/latest"),
            format!("/v2/{repository}/blobs/{digest}"),
            format!("/v2/{repository}/tags/list"),
            format!("/v2/{repository}/referrers/{digest}"),
        ] {
            let status = if may_pull { 200 } else { 403 };
            let get = who.get(&target);
            assert_eq!(get.status, status, "{case}: {target}: {}", get.summary());
            assert!(may_pull || get.error_codes() == ["DENIED"], "{}", get.summary());
            assert_eq!(who.head(target).status, status, "{case}");
        }
        for (request, status) in [
            (Request::new("POST", format!("/v2/{repository}/blobs/uploads/")).body(""), 202),
            (Request::new("GET", &session), 204),
            (Request::new("PATCH", &session).body("xyz"), 202),
            (Request::new("PUT", with_query(&session, "digest", &sha256(b"xyz"))).body(""), 201),
            (Request::new("DELETE", &session), 404),
            (Request::new("DELETE", format!("/v2/{repository}/manifests/none")), 404),
            (Request::new("DELETE", format!("/v2/{repository}/blobs/{}", sha256(b"none"))), 404),
        ] {
            let what = format!("{case}: {} {}", request.method, request.target);
            let response = who.send(request);
            assert_eq!(
                response.status,
                if may_push { status } else { 403 },
                "{what}: {}",
                response.summary()
            );
            assert!(may_push || response.error_codes() == ["DENIED"], "{}", response.summary());
        }
        if !may_push {
            assert_eq!(its_owner.upload_size(&session), 0);
        }
        if !may_push {
            who.put_manifest(repository, "latest", &manifest).expect_error(403, "DENIED");
        }
    }
}

#[test]
fn a_refusal_says_nothing_of_what_is_there() {
    let server = SERVER.get();
    let people = People::of(&server.client());
    let image = people.owner.push_image("team/backend/secret", "latest", "secret");
    let there = people.owner.push_blob("team/backend/secret", b"secret");
    for (existing, missing) in [
        ("/v2/team/backend/secret/tags/list".to_owned(), "/v2/team/backend/nothing/tags/list".to_owned()),
        (
            "/v2/team/backend/secret/manifests/latest".to_owned(),
            "/v2/team/backend/secret/manifests/none".to_owned(),
        ),
        (
            format!("/v2/team/backend/secret/manifests/{}", image.digest()),
            format!("/v2/team/backend/nothing/manifests/{}", image.digest()),
        ),
        (
            format!("/v2/team/backend/secret/blobs/{there}"),
            format!("/v2/team/backend/secret/blobs/{}", sha256(b"nothing")),
        ),
    ] {
        let (seen, unseen) = (people.reader.get(existing), people.reader.get(missing));
        assert_eq!((seen.status, seen.error_codes()), (unseen.status, unseen.error_codes()));
        assert_eq!(seen.status, 403);
        let names =
            |head: &tests::http::Head| head.headers.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&seen), names(&unseen));
    }
}

#[test]
fn a_mount_takes_the_right_to_pull_from_the_source() {
    let server = SERVER.get();
    let people = People::of(&server.client());
    let (open, secret) = (bytes("open to the neighbour", 5000), bytes("secret to the neighbour", 5000));
    people.owner.push_blob("team/frontend/source", &open);
    people.owner.push_blob("team/backend/source", &secret);
    let uploads = "/v2/lab/target/blobs/uploads/";
    let mount = |digest: &str, from: &str| {
        let target = with_query(uploads, "mount", digest);
        people.neighbour.post(if from.is_empty() { target } else { with_query(&target, "from", from) })
    };
    mount(&sha256(&open), "team/frontend/source").expect(201);
    people.neighbour.assert_blob("lab/target", &sha256(&open), &open);
    // Whether the blob is there makes no difference that the caller could see.
    for (digest, from) in [
        (sha256(&secret), "team/backend/source"),
        (sha256(b"nothing"), "team/backend/source"),
        (sha256(&secret), "team/backend/nothing"),
        (sha256(&secret), "team/frontend/source"),
        (sha256(&secret), ""),
        (sha256(b"nothing"), ""),
    ] {
        let response = mount(&digest, from).expect(202);
        assert_eq!(response.header("Docker-Content-Digest"), None, "{}", response.summary());
        people.neighbour.head(format!("/v2/lab/target/blobs/{digest}")).expect(404);
        people.neighbour.delete(location(&response)).expect(204);
    }
    // Nor can a manifest name what its pusher may not read.
    let config = tests::content::descriptor("a/b", &secret);
    let manifest = Manifest::new(&tests::content::image(config, Vec::new()));
    people
        .neighbour
        .put_manifest("lab/target", "stolen", &manifest)
        .expect_error(404, "MANIFEST_BLOB_UNKNOWN");
    // And into a place where one may not push, nothing can be mounted.
    let target = with_query("/v2/team/frontend/target/blobs/uploads/", "mount", &sha256(&open));
    people.neighbour.post(with_query(&target, "from", "team/frontend/source")).expect_error(403, "DENIED");
}

#[test]
fn pushing_what_others_have_takes_the_whole_content() {
    let server = SERVER.get();
    let people = People::of(&server.client());
    let secret = bytes("known to others", 5000);
    people.owner.push_blob("team/backend/known", &secret);
    let session = people.neighbour.begin_upload("lab/known");
    // The digest alone, without the content, is worth nothing.
    people
        .neighbour
        .put(with_query(&session, "digest", &sha256(&secret)), b"")
        .expect_error(400, "DIGEST_INVALID");
    people.neighbour.head(format!("/v2/lab/known/blobs/{}", sha256(&secret))).expect(404);
    people.neighbour.push_blob_by(Way::Post, "lab/known", &secret, &sha256(&secret)).expect(201);
    people.neighbour.assert_blob("lab/known", &sha256(&secret), &secret);
}

#[test]
fn the_catalog_shows_what_the_caller_may_pull() {
    let server = Launch::new().config(USERS).start();
    let people = People::of(&server.client());
    for repository in ["team/a", "team/frontend/a", "team/frontend/b/c", "team/z"] {
        people.owner.push_image(repository, "latest", repository);
    }
    people.neighbour.push_image("lab/a", "latest", "lab/a");
    let all = |client: &Client, query: &str| {
        strings(&client.get(format!("/v2/_catalog{query}")).expect(200).json()["repositories"])
    };
    assert_eq!(all(&people.owner, ""), ["team/a", "team/frontend/a", "team/frontend/b/c", "team/z"]);
    assert_eq!(all(&people.reader, ""), ["team/frontend/a", "team/frontend/b/c"]);
    assert_eq!(all(&people.neighbour, ""), ["lab/a", "team/frontend/a", "team/frontend/b/c"]);
    assert_eq!(all(&people.neighbour, "?n=2"), ["lab/a", "team/frontend/a"]);
    assert_eq!(all(&people.neighbour, "?n=2&last=lab/a"), ["team/frontend/a", "team/frontend/b/c"]);
    assert_eq!(all(&people.reader, "?n=1"), ["team/frontend/a"]);
    assert_eq!(all(&people.reader, "?last=team/frontend/b/c"), [""; 0]);
}

#[test]
fn everybody_may_be_let_in_to_read() {
    let server = Launch::new().config(format!("anonymous: read\n{USERS}")).start();
    let client = server.client();
    let people = People::of(&client);
    let image = people.owner.push_image("team/public", "latest", "public");
    client.assert_manifest("team/public", "latest", &image);
    assert_eq!(client.tags("team/public"), ["latest"]);
    assert_eq!(strings(&client.get("/v2/_catalog").expect(200).json()["repositories"]), ["team/public"]);
    // To write, one is asked to log in.
    for (method, target) in [
        ("POST", "/v2/team/public/blobs/uploads/"),
        ("PUT", "/v2/team/public/manifests/latest"),
        ("DELETE", "/v2/team/public/manifests/latest"),
    ] {
        let refused = client.send(Request::new(method, target).body("")).expect_error(401, "UNAUTHORIZED");
        refused.must("WWW-Authenticate");
    }
    // Who is logged in may read all the more, and who fails to log in may not.
    people.reader.assert_manifest("team/public", "latest", &image);
    client.with_basic("reader", "wrong").get("/v2/team/public/tags/list").expect_error(401, "UNAUTHORIZED");
}

#[test]
fn where_some_log_in_and_others_need_not_clients_get_a_token() {
    let server = Launch::new().config(format!("anonymous: read\n{USERS}")).start();
    let client = server.client();
    let people = People::of(&client);
    people.owner.push_image("team/public", "latest", "public");
    // The answer to this request alone tells clients how to log in, if they have credentials.
    let challenge = client.get("/v2/").expect_error(401, "UNAUTHORIZED").must("WWW-Authenticate").to_owned();
    let realm = challenge.split('"').nth(1).expect("a realm").to_owned();
    assert!(challenge.starts_with("Bearer ") && realm.starts_with("http://"), "{challenge}");
    let path = format!("/{}", realm.splitn(4, '/').nth(3).expect("a path"));
    let scope = "scope=repository:team/public:pull,push&scope=repository:lab/other:push%20nonsense";
    let target = format!("{path}?service=payload-registry&{scope}");
    let bearer =
        |response: &Response| format!("Bearer {}", response.json()["token"].as_str().expect("a token"));
    let (anonymous, owner) = (client.get(&target).expect(200), people.owner.get(&target).expect(200));
    for who in [&anonymous, &owner] {
        assert!(who.json()["expires_in"].as_u64().is_some_and(|seconds| seconds >= 60));
        let with_token = Request::new("GET", "/v2/").header("Authorization", bearer(who));
        client.send(with_token).expect(200);
    }
    for (who, status) in [(&anonymous, 401), (&owner, 202)] {
        let push =
            Request::new("POST", "/v2/team/public/blobs/uploads/").header("Authorization", bearer(who));
        let answer = client.send(push.body("")).expect(status);
        let scope = "scope=\"repository:team/public:pull,push\"";
        assert!(status == 202 || answer.must("WWW-Authenticate").contains(scope));
    }
    people.owner.get(format!("{target}&account=somebody")).expect(400);
    client.with_basic("owner", "wrong").get(&target).expect_error(401, "UNAUTHORIZED");
    let form = |password: &str| {
        let form = format!("grant_type=password&username=owner&password={password}&{scope}");
        Request::new("POST", &path).header("Content-Type", "application/x-www-form-urlencoded").body(form)
    };
    client.send(form("wrong")).expect_error(401, "UNAUTHORIZED");
    client
        .send(Request::new("GET", "/v2/team/public/tags/list").header("Authorization", "Bearer x"))
        .expect(401);
}

#[test]
fn everybody_may_be_let_in_to_write() {
    for config in ["anonymous: write\n", "{}\n"] {
        let server = Launch::new().config(config).start();
        let image = server.client().push_image("any/body", "latest", "anybody");
        server.client().assert_manifest("any/body", "latest", &image);
        server.client().delete("/v2/any/body/manifests/latest").expect(202);
    }
}

#[test]
fn nobody_may_be_let_in() {
    let server = Launch::new().config("anonymous: none\n").start();
    server.client().get("/v2/").expect_error(401, "UNAUTHORIZED");
    server.client().get("/v2/a/b/tags/list").expect_error(401, "UNAUTHORIZED");
    server.client().with_basic("any", "body").get("/v2/").expect_error(401, "UNAUTHORIZED");
}

#[test]
fn a_refused_push_costs_a_client_that_asks_first_no_body() {
    let server = SERVER.get();
    let people = People::of(&server.client());
    let promise = |request: Request| {
        let request = request.header("Expect", "100-continue").header("Content-Length", "1000000");
        let mut connection = server.connect();
        connection.write(request.head().as_bytes()).expect("the head is sent");
        connection.receive_head().expect("a response").status
    };
    assert_eq!(promise(Request::new("PUT", "/v2/team/frontend/app/manifests/latest")), 401);
    drop(people);
    let reader = "Basic cmVhZGVyOnNlY3JldDE=";
    assert_eq!(
        promise(
            Request::new("PUT", "/v2/team/frontend/app/manifests/latest").header("Authorization", reader)
        ),
        403
    );
}

#[test]
fn health_and_metrics_take_no_login() {
    let server = SERVER.get();
    for target in ["/healthz", "/readyz", "/metrics"] {
        server.client().get(target).expect(200);
    }
}

#[test]
fn an_open_registry_on_a_public_address_has_to_be_asked_for_by_name() {
    for listen in ["0.0.0.0:0", "[::]:0"] {
        Launch::new().listen(listen).refusal().mentions(&["allowOpen"]);
        Launch::new().listen(listen).config("anonymous: write\n").refusal().mentions(&["allowOpen"]);
        Launch::new()
            .listen(listen)
            .config(format!("anonymous: write\n{USERS}"))
            .refusal()
            .mentions(&["allowOpen"]);
    }
    let asked_for = Launch::new().listen("0.0.0.0:0").config("allowOpen: true\n").start();
    asked_for.client().push_blob("a/b", b"open");
    for config in ["anonymous: read\n", "anonymous: none\n", USERS] {
        let closed = Launch::new().listen("0.0.0.0:0").config(config).start();
        closed.client().post("/v2/a/b/blobs/uploads/").expect(401);
    }
}

#[test]
fn where_namespaces_are_required_a_name_has_two_segments() {
    let server = Launch::new().config("namespaces: {required: true}\n").start();
    let client = server.client();
    for target in ["/v2/single/blobs/uploads/", "/v2/single/blobs/uploads/?digest=sha256:0"] {
        client.post(target).expect_error(400, "NAME_INVALID");
    }
    let manifest = Manifest::new(&artifact("a/b", "single"));
    client.put_manifest("single", "latest", &manifest).expect_error(400, "NAME_INVALID");
    client.push_image("two/segments", "latest", "two segments");
    client.push_image("two/segments/and/more", "latest", "more segments");
    assert_eq!(
        strings(&client.get("/v2/_catalog").json()["repositories"]),
        ["two/segments", "two/segments/and/more"]
    );
}
