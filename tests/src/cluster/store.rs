use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tokio::sync::watch;

use super::failure::Failure;
use super::resource::Resource;

/// All objects, and how they came to be as they are.
#[derive(Debug)]
pub(super) struct Store {
    state: Mutex<State>,
    /// The version, for those who wait for the next one.
    pub version: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    version: u64,
    uids: u64,
    objects: BTreeMap<Key, Value>,
    history: VecDeque<Change>,
    /// Changes up to this one are forgotten.
    forgotten: u64,
}

/// Where an object is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    group: &'static str,
    plural: &'static str,
    pub namespace: String,
    pub name: String,
}

impl Key {
    /// `namespace` is empty where the resource has none.
    pub fn new(resource: &'static Resource, namespace: &str, name: &str) -> Self {
        let namespace = if resource.is_namespaced { namespace } else { "" };
        Self {
            group: resource.group,
            plural: resource.plural,
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    fn is_of(&self, resource: &Resource, namespace: Option<&str>) -> bool {
        let is_there = namespace.is_none_or(|namespace| namespace == self.namespace);
        self.group == resource.group && self.plural == resource.plural && is_there
    }
}

/// A change of one object.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub version: u64,
    pub key: Key,
    /// The object before, unless it is new.
    pub before: Option<Value>,
    /// The object after, with its own version; as it was, with the version of the deletion, where it is gone.
    pub object: Value,
    pub is_deletion: bool,
}

impl Store {
    pub fn new() -> Self {
        Self { state: Mutex::new(State { version: 1, ..State::default() }), version: watch::Sender::new(1) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn get(&self, key: &Key) -> Result<Value, Failure> {
        let found = self.lock().objects.get(key).cloned();
        found.ok_or_else(|| Failure::not_found(key.plural, &key.name))
    }

    /// Objects in order, and the version they are from.
    pub fn list(&self, resource: &Resource, namespace: Option<&str>) -> (Vec<Value>, u64) {
        let state = self.lock();
        let objects = state.objects.iter().filter(|(key, _)| key.is_of(resource, namespace));
        (objects.map(|(_, object)| object.clone()).collect(), state.version)
    }

    /// Changes after a version; an error where some of them are forgotten.
    pub fn changes(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        after: u64,
    ) -> Result<(Vec<Change>, u64), Failure> {
        let state = self.lock();
        if after < state.forgotten {
            return Err(Failure::new(
                410,
                format!("too old resource version: {after} ({})", state.forgotten),
            ));
        }
        let changes = state.history.iter().filter(|change| change.version > after);
        let changes = changes.filter(|change| change.key.is_of(resource, namespace)).cloned();
        Ok((changes.collect(), state.version))
    }

    /// Forgets all changes: watches from before get 410.
    pub fn forget(&self) {
        let mut state = self.lock();
        state.version += 1;
        state.forgotten = state.version;
        state.history.clear();
        self.version.send_replace(state.version);
    }

    /// Makes an object that is not there.
    pub fn create(&self, key: Key, mut object: Value, dry_run: bool) -> Result<Value, Failure> {
        let mut state = self.lock();
        if state.objects.contains_key(&key) {
            return Err(Failure::already_exists(key.plural, &key.name));
        }
        state.check_namespace(&key)?;
        state.uids += 1;
        let metadata = &mut object["metadata"];
        metadata["name"] = key.name.clone().into();
        if !key.namespace.is_empty() {
            metadata["namespace"] = key.namespace.clone().into();
        }
        metadata["uid"] = format!("00000000-0000-4000-8000-{:012x}", state.uids).into();
        metadata["creationTimestamp"] =
            jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into();
        let object = admitted(&key, None, object)?;
        if dry_run {
            return Ok(object);
        }
        Ok(self.commit(&mut state, key, Some(object)))
    }

    /// Changes an object, by what `change` makes of it. A `resourceVersion` in what comes out has to be the present one.
    pub fn update(
        &self,
        key: Key,
        dry_run: bool,
        change: impl FnOnce(Value) -> Result<Value, Failure>,
    ) -> Result<Value, Failure> {
        let mut state = self.lock();
        let Some(before) = state.objects.get(&key).cloned() else {
            return Err(Failure::not_found(key.plural, &key.name));
        };
        let mut object = change(before.clone())?;
        let asked = &object["metadata"]["resourceVersion"];
        if !asked.is_null() && *asked != "" && *asked != before["metadata"]["resourceVersion"] {
            return Err(Failure::new(
                409,
                format!(
                    "Operation cannot be fulfilled on {} \"{}\": the object has been modified; please apply your changes to \
                     the latest version and try again",
                    key.plural, key.name
                ),
            ));
        }
        if let Some(uid) = object["metadata"]["uid"].as_str()
            && before["metadata"]["uid"] != uid
        {
            return Err(Failure::new(409, format!("{} \"{}\" has another uid", key.plural, key.name)));
        }
        for kept in ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "resourceVersion"]
        {
            match before["metadata"].get(kept) {
                Some(value) => object["metadata"][kept] = value.clone(),
                None => {
                    object["metadata"].as_object_mut().and_then(|metadata| metadata.remove(kept));
                }
            }
        }
        let object = admitted(&key, Some(&before), object)?;
        if dry_run || object == before {
            return Ok(object);
        }
        Ok(self.commit(&mut state, key, Some(object)))
    }

    /// Deletes an object where its uid and version are those of the preconditions. A namespace is only marked.
    pub fn delete(&self, key: Key, preconditions: &Value, dry_run: bool) -> Result<Value, Failure> {
        let mut state = self.lock();
        let Some(before) = state.objects.get(&key).cloned() else {
            return Err(Failure::not_found(key.plural, &key.name));
        };
        for name in ["uid", "resourceVersion"] {
            if let Some(asked) = preconditions[name].as_str()
                && before["metadata"][name] != asked
            {
                return Err(Failure::new(
                    409,
                    format!("Precondition failed: {name} in precondition: {asked}, not that in object meta"),
                ));
            }
        }
        if dry_run {
            return Ok(before);
        }
        if key.plural == "namespaces" {
            let mut object = before;
            object["metadata"]["deletionTimestamp"] =
                jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into();
            object["status"] = json!({"phase": "Terminating"});
            return Ok(self.commit(&mut state, key, Some(object)));
        }
        Ok(self.commit(&mut state, key, None))
    }

    /// Removes an object, whatever it is.
    pub fn remove(&self, key: Key) {
        let mut state = self.lock();
        if state.objects.contains_key(&key) {
            self.commit(&mut state, key, None);
        }
    }

    /// Removes all that is in a namespace.
    pub fn remove_content(&self, namespace: &str) {
        let mut state = self.lock();
        let keys: Vec<Key> = state.objects.keys().filter(|key| key.namespace == namespace).cloned().collect();
        for key in keys {
            self.commit(&mut state, key, None);
        }
    }

    fn commit(&self, state: &mut State, key: Key, object: Option<Value>) -> Value {
        state.version += 1;
        let version = state.version;
        let before = state.objects.get(&key).cloned();
        let is_deletion = object.is_none();
        let mut object = object.or_else(|| before.clone()).unwrap_or_default();
        object["metadata"]["resourceVersion"] = version.to_string().into();
        if is_deletion {
            state.objects.remove(&key);
        } else {
            state.objects.insert(key.clone(), object.clone());
        }
        state.history.push_back(Change { version, key, before, object: object.clone(), is_deletion });
        self.version.send_replace(version);
        object
    }
}

impl State {
    fn check_namespace(&self, key: &Key) -> Result<(), Failure> {
        if key.namespace.is_empty() {
            return Ok(());
        }
        let namespace =
            Key { group: "", plural: "namespaces", namespace: String::new(), name: key.namespace.clone() };
        match self.objects.get(&namespace) {
            None => Err(Failure::not_found("namespaces", &key.namespace)),
            Some(namespace) if namespace["status"]["phase"] == "Terminating" => Err(Failure::new(
                403,
                format!(
                    "unable to create new content in namespace {} because it is being terminated",
                    key.namespace
                ),
            )),
            Some(_) => Ok(()),
        }
    }
}

/// What the API makes of an object before it keeps it.
fn admitted(key: &Key, before: Option<&Value>, mut object: Value) -> Result<Value, Failure> {
    object["metadata"].as_object_mut().and_then(|metadata| metadata.remove("managedFields"));
    match key.plural {
        "namespaces" if object["status"].is_null() => object["status"] = json!({"phase": "Active"}),
        "secrets" => {
            if let Some(texts) = object.as_object_mut().and_then(|object| object.remove("stringData")) {
                for (name, text) in texts.as_object().into_iter().flatten() {
                    let text = text.as_str().unwrap_or_default();
                    object["data"][name] = super::base64(text).into();
                }
            }
            if object["type"].is_null() {
                object["type"] = "Opaque".into();
            }
            if before.is_some_and(|before| before["type"] != object["type"]) {
                return Err(Failure::new(
                    422,
                    format!("Secret \"{}\" is invalid: type: field is immutable", key.name),
                ));
            }
            if object["type"] == "kubernetes.io/dockerconfigjson" {
                let config = object["data"][".dockerconfigjson"].as_str().and_then(super::unbase64);
                if config.is_none_or(|config| serde_json::from_slice::<Value>(&config).is_err()) {
                    return Err(Failure::new(
                        422,
                        format!("Secret \"{}\" is invalid: data[.dockerconfigjson]: Invalid value", key.name),
                    ));
                }
            }
        }
        _ => {}
    }
    Ok(object)
}
