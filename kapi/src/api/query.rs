//! The parameters of lists and watches.

use std::time::Duration;

use interface::Tag;

use super::selectors::{FieldSelector, LabelSelector};
use super::status::{FieldError, Refusal};
use super::table::IncludeObject;

/// What a `GET` of objects asks for beside the path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListQuery {
    /// Which objects, by their labels.
    pub labels: LabelSelector,
    /// Which objects, by name and namespace.
    pub fields: FieldSelector,
    /// How many objects at most.
    pub limit: Option<u32>,
    /// The token of the page before, as it was sent.
    pub continue_token: Option<String>,
    /// How old the answer may be.
    pub version: Version,
    /// What table rows carry.
    pub include: IncludeObject,
    /// Whether it is a watch, and how.
    pub watch: Option<WatchQuery>,
}

/// What `resourceVersion`, with `resourceVersionMatch`, asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// The latest state; what a watch begins with is the state of then.
    Latest,
    /// Any state there is.
    Any,
    /// Not older than that.
    NotOlderThan(u64),
    /// That and no other.
    Exactly(u64),
}

impl Version {
    /// The lowest version that will do.
    pub fn least(self) -> u64 {
        match self {
            Self::Latest | Self::Any => 0,
            Self::NotOlderThan(version) | Self::Exactly(version) => version,
        }
    }

    /// Checks that a state is not older than asked for.
    pub fn check(self, current: u64) -> Result<(), Refusal> {
        if self.least() > current {
            return Err(Refusal::version_too_large(self.least(), current));
        }
        Ok(())
    }
}

/// What a watch asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchQuery {
    /// Whether bookmarks are wanted.
    pub allow_bookmarks: bool,
    /// Whether the state is sent first, with a bookmark at its end; `None`: as `resourceVersion` says, without one.
    pub send_initial_events: Option<bool>,
    /// When it ends.
    pub timeout: Option<Duration>,
}

/// The parameters of a request: the first value of each name counts.
#[derive(Clone, Debug, Default)]
pub struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Reads a query. There is no text that is none.
    pub fn parse(query: &str) -> Self {
        Self(form_urlencoded::parse(query.as_bytes()).into_owned().collect())
    }

    /// The first value of a name.
    pub fn first(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// All values of a name.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// As Kubernetes reads them: whatever is neither `0` nor `false` is a yes.
    pub fn flag(&self, name: &str) -> Option<bool> {
        self.first(name).map(|value| value != "0" && !value.eq_ignore_ascii_case("false"))
    }

    /// How old the answer may be.
    pub fn version(&self) -> Result<Version, Refusal> {
        let text = |name: &str| self.first(name).unwrap_or_default();
        match (text("resourceVersion"), text(MATCH)) {
            ("", _) => Ok(Version::Latest),
            ("0", _) => Ok(Version::Any),
            (version, EXACT) => number(version).map(Version::Exactly),
            (version, _) => number(version).map(Version::NotOlderThan),
        }
    }

    /// What table rows carry.
    pub fn include_object(&self) -> Result<IncludeObject, Refusal> {
        IncludeObject::parse(self.first("includeObject").unwrap_or_default())
    }

    /// An integer.
    pub fn integer(&self, name: &str) -> Result<Option<i64>, Refusal> {
        match self.first(name) {
            None | Some("") => Ok(None),
            Some(text) => match text.parse() {
                Ok(number) => Ok(Some(number)),
                Err(_) => Err(Refusal::bad_request(format!("{name}: {text:?} is no integer"))),
            },
        }
    }
}

impl ListQuery {
    /// Reads the parameters of a list, or, where they say so, of a watch. Combinations that mean nothing are 422, what
    /// cannot be read is 400; parameters of other names are ignored.
    pub fn parse(parameters: &Parameters) -> Result<Self, Refusal> {
        let text = |name: &str| parameters.first(name).unwrap_or_default();
        let is_watch = parameters.flag("watch").unwrap_or(false);
        let send_initial_events = parameters.flag("sendInitialEvents");
        let errors = if is_watch {
            contradictions_of_a_watch(parameters, send_initial_events)
        } else {
            contradictions_of_a_list(parameters, send_initial_events)
        };
        if !errors.is_empty() {
            return Err(Refusal::invalid("ListOptions", errors));
        }
        let watch = WatchQuery {
            allow_bookmarks: parameters.flag("allowWatchBookmarks").unwrap_or(false),
            send_initial_events,
            timeout: timeout(parameters)?,
        };
        let continue_token = text("continue");
        if !is_watch && !continue_token.is_empty() && !matches!(text("resourceVersion"), "" | "0") {
            let message = "specifying resource version is not allowed when using continue";
            return Err(Refusal::bad_request(message));
        }
        let limit = parameters.integer("limit")?.filter(|&limit| limit > 0);
        Ok(Self {
            labels: LabelSelector::parse(text("labelSelector"))?,
            fields: FieldSelector::parse(text("fieldSelector"))?,
            limit: limit.map(|limit| u32::try_from(limit).unwrap_or(u32::MAX)),
            continue_token: Some(continue_token.to_owned()).filter(|token| !token.is_empty()),
            version: parameters.version()?,
            include: parameters.include_object()?,
            watch: is_watch.then_some(watch),
        })
    }

    /// Whether it narrows what is listed.
    pub fn has_selectors(&self) -> bool {
        !self.labels.matches_no_labels() || !self.fields.is_everything()
    }

    /// Whether it selects a tag.
    pub fn selects(&self, tag: &Tag) -> bool {
        // Names are made for those who ask for them.
        let is_of_fields =
            || self.fields.is_everything() || self.fields.matches(&tag.namespace, tag.object_name().as_str());
        self.labels.matches_no_labels() && is_of_fields()
    }
}

fn timeout(parameters: &Parameters) -> Result<Option<Duration>, Refusal> {
    let seconds = parameters.integer("timeoutSeconds")?;
    Ok(seconds
        .and_then(|seconds| u64::try_from(seconds).ok())
        .filter(|&seconds| seconds > 0)
        .map(Duration::from_secs))
}

const MATCH: &str = "resourceVersionMatch";
const NOT_OLDER_THAN: &str = "NotOlderThan";
const EXACT: &str = "Exact";

fn contradictions_of_a_list(parameters: &Parameters, send_initial_events: Option<bool>) -> Vec<FieldError> {
    let text = |name: &str| parameters.first(name).unwrap_or_default();
    let (version, version_match) = (text("resourceVersion"), text(MATCH));
    let mut errors = Vec::new();
    if !version_match.is_empty() {
        if version.is_empty() {
            let detail = "resourceVersionMatch is forbidden unless resourceVersion is provided";
            errors.push(FieldError::forbidden(MATCH, detail));
        }
        if !text("continue").is_empty() {
            let detail = "resourceVersionMatch is forbidden when continue is provided";
            errors.push(FieldError::forbidden(MATCH, detail));
        }
        if ![EXACT, NOT_OLDER_THAN].contains(&version_match) {
            errors.push(FieldError::not_supported(MATCH, version_match, &[EXACT, NOT_OLDER_THAN, ""]));
        }
        if version_match == EXACT && version == "0" {
            let detail = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
            errors.push(FieldError::forbidden(MATCH, detail));
        }
    }
    if send_initial_events.is_some() {
        errors.push(FieldError::forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"));
    }
    errors
}

fn contradictions_of_a_watch(parameters: &Parameters, send_initial_events: Option<bool>) -> Vec<FieldError> {
    let text = |name: &str| parameters.first(name).unwrap_or_default();
    let version_match = text(MATCH);
    let mut errors = Vec::new();
    if send_initial_events.is_some() && version_match != NOT_OLDER_THAN {
        let detail = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        errors.push(FieldError::forbidden(MATCH, detail));
    }
    if !version_match.is_empty() {
        if send_initial_events.is_none() {
            let detail = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
            errors.push(FieldError::forbidden(MATCH, detail));
        }
        if version_match != NOT_OLDER_THAN {
            errors.push(FieldError::not_supported(MATCH, version_match, &[NOT_OLDER_THAN]));
        }
        if !text("continue").is_empty() {
            let detail = "resourceVersionMatch is forbidden when continue is provided";
            errors.push(FieldError::forbidden(MATCH, detail));
        }
    }
    errors
}

/// Reads a resourceVersion that is neither absent nor `0`.
fn number(text: &str) -> Result<u64, Refusal> {
    let is_decimal = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty();
    text.parse().ok().filter(|_| is_decimal).ok_or_else(|| {
        Refusal::bad_request(format!(
            "invalid resource version: Invalid value: {text:?}: it is no decimal number"
        ))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(query: &str) -> Result<ListQuery, Refusal> {
        ListQuery::parse(&Parameters::parse(query))
    }

    #[test]
    fn what_real_clients_send() {
        let query = parse("limit=500").expect("a query");
        assert_eq!((query.limit, query.version, query.watch), (Some(500), Version::Latest, None));
        let query = parse("fieldSelector=metadata.name%3Dx&resourceVersion=0&watch=true").expect("a query");
        assert!(query.fields.matches("any", "x") && !query.fields.matches("any", "y"));
        assert_eq!(query.version, Version::Any);
        let query = parse(
            "allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan&sendInitialEvents=true&timeout=7m&timeoutSeconds=420&watch=true",
        )
        .expect("a query");
        assert_eq!(
            query.watch,
            Some(WatchQuery {
                allow_bookmarks: true,
                send_initial_events: Some(true),
                timeout: Some(Duration::from_secs(420)),
            })
        );
        let query =
            parse("labelSelector=app%21%3Dx&includeObject=Object&pretty=true&limit=0").expect("a query");
        assert!(query.labels.matches_no_labels() && query.limit.is_none());
        assert_eq!(query.include, IncludeObject::Object);
    }

    #[test]
    fn watch_is_what_is_not_denied() {
        for (query, is_watch) in [
            ("watch=true", true),
            ("watch=1", true),
            ("watch", true),
            ("watch=yes", true),
            ("watch=false", false),
            ("watch=False", false),
            ("watch=0", false),
            ("", false),
        ] {
            assert_eq!(parse(query).expect("a query").watch.is_some(), is_watch, "{query}");
        }
    }

    #[test]
    fn versions() {
        for (query, version) in [
            ("", Version::Latest),
            ("resourceVersion=", Version::Latest),
            ("resourceVersion=0", Version::Any),
            ("resourceVersion=0&resourceVersionMatch=NotOlderThan", Version::Any),
            ("resourceVersion=7", Version::NotOlderThan(7)),
            ("resourceVersion=7&resourceVersionMatch=NotOlderThan", Version::NotOlderThan(7)),
            ("resourceVersion=7&resourceVersionMatch=Exact", Version::Exactly(7)),
        ] {
            assert_eq!(parse(query).expect("a query").version, version, "{query}");
        }
    }

    #[test]
    fn what_is_refused() {
        for (query, code, message) in [
            ("resourceVersionMatch=Exact", 422, "forbidden unless resourceVersion is provided"),
            ("resourceVersion=1&resourceVersionMatch=Newest", 422, "Unsupported value: \"Newest\""),
            ("resourceVersion=0&resourceVersionMatch=Exact", 422, "forbidden for resourceVersion \"0\""),
            ("resourceVersion=1&resourceVersionMatch=Exact&continue=x", 422, "when continue is provided"),
            ("sendInitialEvents=true", 422, "sendInitialEvents is forbidden for list"),
            ("sendInitialEvents=false", 422, "sendInitialEvents is forbidden for list"),
            ("watch=1&sendInitialEvents=true", 422, "requires setting resourceVersionMatch to NotOlderThan"),
            (
                "watch=1&sendInitialEvents=true&resourceVersion=1&resourceVersionMatch=Exact",
                422,
                "Unsupported value",
            ),
            (
                "watch=1&resourceVersionMatch=NotOlderThan&resourceVersion=1",
                422,
                "unless sendInitialEvents is provided",
            ),
            (
                "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&continue=x",
                422,
                "when continue is provided",
            ),
            ("continue=x&resourceVersion=7", 400, "not allowed when using continue"),
            ("resourceVersion=abc", 400, "invalid resource version"),
            ("resourceVersion=%2B7", 400, "invalid resource version"),
            ("resourceVersion=99999999999999999999", 400, "invalid resource version"),
            ("limit=many", 400, "limit"),
            ("watch=1&timeoutSeconds=soon", 400, "timeoutSeconds"),
            ("labelSelector=a%20b", 400, "unable to parse requirement"),
            ("fieldSelector=spec.tag%3Dx", 400, "field label not supported: spec.tag"),
            ("includeObject=Everything", 400, "includeObject"),
        ] {
            let refusal = parse(query).expect_err(query);
            assert_eq!(refusal.code().as_u16(), code, "{query}");
            let text = refusal.status().message.clone().unwrap_or_default();
            assert!(text.contains(message), "{query}: {text}");
        }
    }

    proptest! {
        #[test]
        fn no_query_panics(query in "[ -~]{0,120}") {
            let _ = parse(&query);
        }

        #[test]
        fn no_values_of_known_parameters_panic(
            values in proptest::collection::vec("[ -~]{0,12}", 9),
        ) {
            let names = [
                "watch", "resourceVersion", "resourceVersionMatch", "sendInitialEvents", "limit", "continue",
                "labelSelector", "fieldSelector", "timeoutSeconds",
            ];
            let query: String = form_urlencoded::Serializer::new(String::new())
                .extend_pairs(names.iter().zip(&values))
                .finish();
            let _ = parse(&query);
        }
    }
}
