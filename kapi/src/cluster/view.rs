use std::collections::BTreeMap;

use kube::Resource;
use kube::runtime::watcher::Event;

/// Names an object of a kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    /// The namespace; empty for objects that are in none.
    pub(super) namespace: String,
    /// The name.
    pub(super) name: String,
}

impl Key {
    pub(super) fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    pub(super) fn of(object: &impl Resource) -> Self {
        let metadata = object.meta();
        Self {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
        }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.namespace.as_str() {
            "" => f.write_str(&self.name),
            namespace => write!(f, "{namespace}/{}", self.name),
        }
    }
}

/// What is worth knowing of all objects of a kind, as a watch tells it.
///
/// It is complete once everything has been listed, and stays what it was while the watch is broken: a list that begins
/// anew takes the place of the old one when it is complete, and not before.
#[derive(Debug)]
pub(super) struct View<V> {
    objects: BTreeMap<Key, V>,
    arriving: BTreeMap<Key, V>,
    is_complete: bool,
}

impl<V> Default for View<V> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), arriving: BTreeMap::new(), is_complete: false }
    }
}

impl<V: PartialEq> View<V> {
    /// Takes what happened. `keep` gives what is worth knowing of an object, `None` where it is as good as not there.
    /// Whether the view is another one now: it has become complete, or it was and something in it changed.
    pub(super) fn take<K: Resource>(&mut self, event: Event<K>, keep: impl Fn(&K) -> Option<V>) -> bool {
        match event {
            Event::Init => {
                self.arriving.clear();
                false
            }
            Event::InitApply(object) => {
                if let Some(value) = keep(&object) {
                    self.arriving.insert(Key::of(&object), value);
                }
                false
            }
            Event::InitDone => {
                let arrived = std::mem::take(&mut self.arriving);
                let is_other = !self.is_complete || self.objects != arrived;
                self.objects = arrived;
                self.is_complete = true;
                is_other
            }
            Event::Apply(object) => match keep(&object) {
                Some(value) if self.objects.get(&Key::of(&object)) == Some(&value) => false,
                Some(value) => {
                    self.objects.insert(Key::of(&object), value);
                    self.is_complete
                }
                None => self.objects.remove(&Key::of(&object)).is_some() && self.is_complete,
            },
            Event::Delete(object) => self.objects.remove(&Key::of(&object)).is_some() && self.is_complete,
        }
    }
}

impl<V> View<V> {
    /// Whether everything there is has been seen once.
    pub(super) fn is_complete(&self) -> bool {
        self.is_complete
    }

    pub(super) fn get(&self, key: &Key) -> Option<&V> {
        self.objects.get(key)
    }

    /// All, by namespace and name.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Key, &V)> {
        self.objects.iter()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    fn object(name: &str, value: &str) -> ConfigMap {
        let mut object = ConfigMap::default();
        object.metadata.name = Some(name.to_owned());
        object.data = Some([("value".to_owned(), value.to_owned())].into());
        object
    }

    fn value(object: &ConfigMap) -> Option<String> {
        let value = object.data.as_ref()?.get("value")?;
        (value != "nothing").then(|| value.clone())
    }

    fn contents(view: &View<String>) -> Vec<(&str, &str)> {
        view.iter().map(|(key, value)| (key.name.as_str(), value.as_str())).collect()
    }

    #[test]
    fn a_list_takes_the_place_of_the_last_one_when_it_is_complete() {
        let mut view = View::default();
        let take = |view: &mut View<String>, event| view.take(event, value);
        assert!(!take(&mut view, Event::Init));
        assert!(!take(&mut view, Event::InitApply(object("a", "1"))));
        assert!(!view.is_complete());
        assert_eq!(contents(&view), []);
        assert!(take(&mut view, Event::InitDone));
        assert!(view.is_complete());
        assert_eq!(contents(&view), [("a", "1")]);

        assert!(!take(&mut view, Event::Init));
        assert!(!take(&mut view, Event::InitApply(object("b", "2"))));
        assert_eq!(contents(&view), [("a", "1")], "the old list stands while the new one arrives");
        assert!(!take(&mut view, Event::Init), "the list broke off");
        assert!(!take(&mut view, Event::InitApply(object("a", "1"))));
        assert!(!take(&mut view, Event::InitDone), "the same as before");
        assert_eq!(contents(&view), [("a", "1")]);
    }

    #[test]
    fn only_what_matters_is_a_change() {
        let mut view = View::default();
        let take = |view: &mut View<String>, event| view.take(event, value);
        take(&mut view, Event::Init);
        assert!(take(&mut view, Event::InitDone), "complete, if empty");
        assert!(take(&mut view, Event::Apply(object("a", "1"))));
        assert!(!take(&mut view, Event::Apply(object("a", "1"))));
        assert!(!take(&mut view, Event::Apply(object("b", "nothing"))));
        assert!(!take(&mut view, Event::Delete(object("b", "nothing"))));
        assert!(take(&mut view, Event::Apply(object("a", "2"))));
        assert!(take(&mut view, Event::Apply(object("a", "nothing"))));
        assert!(take(&mut view, Event::Apply(object("a", "3"))));
        assert!(take(&mut view, Event::Delete(object("a", "3"))));
        assert_eq!(contents(&view), []);
    }
}
