use std::sync::{Mutex, PoisonError};

/// What goes wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It is answered with that status.
    Status(u16),
    /// It is never answered.
    Hang,
    /// The connection ends without an answer.
    Reset,
}

/// What goes wrong, with which requests: `*`, `<resource>` or `<verb> <resource>`.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    active: Mutex<Vec<(String, Trouble)>>,
}

impl Troubles {
    pub fn set(&self, requests: &str, trouble: Option<Trouble>) {
        let mut active = self.active.lock().unwrap_or_else(PoisonError::into_inner);
        active.retain(|(name, _)| name != requests);
        active.extend(trouble.map(|trouble| (requests.to_owned(), trouble)));
    }

    pub fn of(&self, verb: &str, resource: &str) -> Option<Trouble> {
        let active = self.active.lock().unwrap_or_else(PoisonError::into_inner);
        let meets = |requests: &str| {
            requests == "*" || requests == resource || requests.split_once(' ') == Some((verb, resource))
        };
        active.iter().find(|(requests, _)| meets(requests)).map(|(_, trouble)| *trouble)
    }
}
