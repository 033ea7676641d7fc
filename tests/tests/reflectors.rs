//! Checks that programs which follow the tags as they follow anything in a cluster always see what there is: reflectors of
//! kube-rs, on which controllers in Rust are built.

use std::collections::BTreeMap;
use std::fmt::Debug;

use futures::StreamExt as _;
use kube::api::{Api, ApiResource, DynamicObject, PartialObjectMeta};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::reflector::{Store, store::Writer};
use kube::runtime::{WatchStreamExt as _, reflector, watcher};
use kube::{Client, Config, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tests::cluster::User;
use tests::eventually;
use tests::installation::Installation;
use tokio::runtime::Runtime;

/// Versions of tags by namespace and name.
type Versions = BTreeMap<(String, String), String>;

/// A copy that something keeps up to date, and how it does.
struct Copy {
    how: &'static str,
    versions: Box<dyn Fn() -> Versions>,
}

fn tag_type() -> ApiResource {
    ApiResource {
        group: "payload-registry.deckhouse.io".into(),
        version: "v1alpha1".into(),
        api_version: "payload-registry.deckhouse.io/v1alpha1".into(),
        kind: "PayloadRepositoryTag".into(),
        plural: "payloadrepositorytags".into(),
    }
}

/// Follows the tags of all namespaces until the runtime ends.
fn copy<K>(runtime: &Runtime, client: &Client, config: &watcher::Config, how: &'static str) -> Copy
where
    K: Resource<DynamicType = ApiResource> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let writer = Writer::new(tag_type());
    let store: Store<K> = writer.as_reader();
    let api = Api::all_with(client.clone(), &tag_type());
    let events = reflector(writer, watcher(api, config.clone()).default_backoff());
    runtime.spawn(events.for_each(|_| std::future::ready(())));
    let of = |tag: &K| {
        let version = tag.resource_version().expect("each tag has one");
        ((tag.namespace().expect("each is in one"), tag.name_any()), version)
    };
    Copy { how, versions: Box::new(move || store.state().iter().map(|tag| of(tag)).collect()) }
}

/// Follows them in each way that there is.
fn follow(runtime: &Runtime, installation: &Installation) -> Vec<Copy> {
    let kubeconfig =
        Kubeconfig::read_from(installation.cluster.kubeconfig(&User::admin())).expect("a kubeconfig");
    let client = runtime.block_on(async {
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
        Client::try_from(config.expect("a way to the cluster")).expect("a client")
    });
    // Lists of several pages; and none at all.
    let listed = watcher::Config::default().page_size(7);
    let streamed = watcher::Config::default().streaming_lists();
    type Metadata = PartialObjectMeta<DynamicObject>;
    vec![
        copy::<DynamicObject>(runtime, &client, &listed, "objects, listed"),
        copy::<DynamicObject>(runtime, &client, &streamed, "objects, streamed"),
        copy::<Metadata>(runtime, &client, &listed, "metadata, listed"),
        copy::<Metadata>(runtime, &client, &streamed, "metadata, streamed"),
    ]
}

/// What `kubectl` lists.
fn listed(installation: &Installation) -> Versions {
    let list = installation.kubectl(&User::admin()).json(&[
        "get",
        "payloadrepositorytags.payload-registry.deckhouse.io",
        "--all-namespaces",
    ]);
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let tag = |tag: &Value| {
        let metadata = &tag["metadata"];
        ((text(&metadata["namespace"]), text(&metadata["name"])), text(&metadata["resourceVersion"]))
    };
    list["items"].as_array().expect("a list").iter().map(tag).collect()
}

/// Waits until each copy is what `kubectl` lists, which are so many tags.
#[track_caller]
fn agree(copies: &[Copy], installation: &Installation, count: usize, when: &str) {
    let listed = listed(installation);
    assert_eq!(listed.len(), count, "{when}");
    for Copy { how, versions } in copies {
        eventually(&format!("{how}: {when}"), || (versions() == listed).then_some(()));
    }
}

#[test]
fn reflectors_see_what_there_is_whatever_happens() {
    let mut installation = Installation::start();
    let one = installation.client(&installation.owner("one"));
    let two = installation.client(&installation.owner("two"));
    for number in 0..16 {
        one.push_image("one/app", &format!("v{number}"), &format!("one {number}"));
        two.push_image(&format!("two/app{number}"), "latest", &format!("two {number}"));
    }
    let runtime = Runtime::new().expect("a runtime");
    let copies = follow(&runtime, &installation);
    agree(&copies, &installation, 32, "at the beginning");

    one.push_image("one/app", "v3", "moved");
    one.push_image("one/app", "new", "new");
    one.delete("/v2/one/app/manifests/v5").expect(202);
    two.delete("/v2/two/app7/manifests/latest").expect(202);
    two.push_image("two/deep/er", "1.0", "new");
    agree(&copies, &installation, 32, "after some changes");

    // Where a watch cannot go on, there is a list again.
    installation.kapi.kill();
    one.push_image("one/app", "meanwhile", "meanwhile");
    one.delete("/v2/one/app/manifests/v6").expect(202);
    installation.kapi.restart();
    installation.route();
    installation.wait();
    agree(&copies, &installation, 32, "after the component was killed");

    installation.server.kill();
    installation.server.restart();
    installation.wait();
    let one = installation.client(&installation.owner("one"));
    one.push_image("one/app", "later", "later");
    agree(&copies, &installation, 33, "after the registry was killed");

    installation.cluster.remove_namespace("two");
    eventually("the namespace's tags are gone", || (listed(&installation).len() == 17).then_some(()));
    agree(&copies, &installation, 17, "after a namespace has gone");
}
