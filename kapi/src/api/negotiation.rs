//! In which form a client wants its answer.

use http::HeaderMap;
use http::header::ACCEPT;

use super::status::Refusal;

/// The form of an answer that is objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The objects.
    Full,
    /// Their metadata: `PartialObjectMetadata`, or a list of them.
    Metadata(MetaVersion),
    /// Columns and rows.
    Table(MetaVersion),
}

/// Versions of `meta.k8s.io`; what is of that group has the same shape in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetaVersion {
    /// `v1`.
    V1,
    /// `v1beta1`.
    V1beta1,
}

impl MetaVersion {
    /// As `apiVersion` has it.
    pub const fn api_version(self) -> &'static str {
        match self {
            Self::V1 => "meta.k8s.io/v1",
            Self::V1beta1 => "meta.k8s.io/v1beta1",
        }
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One object, or a watch's events of one object each.
    Object,
    /// A list.
    List,
}

/// The version of the group `apidiscovery.k8s.io` that a client understands best.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiscoveryForm {
    /// The lists that there have always been.
    Legacy,
    /// `v2` of the aggregated form.
    V2,
    /// `v2beta1` of it.
    V2beta1,
}

/// Chooses the form of objects: the acceptable clause that the client likes best. Forms other than JSON are skipped, and
/// where nothing is left the answer is 406.
pub fn form(headers: &HeaderMap, shape: Shape) -> Result<Form, Refusal> {
    choose(headers, |clause| match clause.kind {
        None if clause.has_no_group() => Some(Form::Full),
        Some("Table") => clause.meta_version().map(Form::Table),
        Some("PartialObjectMetadata") if shape == Shape::Object => clause.meta_version().map(Form::Metadata),
        Some("PartialObjectMetadataList") if shape == Shape::List => {
            clause.meta_version().map(Form::Metadata)
        }
        _ => None,
    })
    .ok_or_else(Refusal::not_acceptable)
}

/// Chooses the form of the list of groups.
pub fn discovery(headers: &HeaderMap) -> Result<DiscoveryForm, Refusal> {
    choose(headers, |clause| match (clause.kind, clause.group, clause.version) {
        (None, None, None) => Some(DiscoveryForm::Legacy),
        (Some("APIGroupDiscoveryList"), Some("apidiscovery.k8s.io"), Some("v2")) => Some(DiscoveryForm::V2),
        (Some("APIGroupDiscoveryList"), Some("apidiscovery.k8s.io"), Some("v2beta1")) => {
            Some(DiscoveryForm::V2beta1)
        }
        _ => None,
    })
    .ok_or_else(Refusal::not_acceptable)
}

/// Checks that plain JSON is acceptable.
pub fn json(headers: &HeaderMap) -> Result<(), Refusal> {
    choose(headers, |clause| clause.kind.is_none().then_some(())).ok_or_else(Refusal::not_acceptable)
}

/// One of the alternatives in an `Accept` header.
#[derive(Debug, Default)]
struct Clause<'a> {
    media_type: &'a str,
    kind: Option<&'a str>,
    group: Option<&'a str>,
    version: Option<&'a str>,
    /// Thousandths.
    quality: u16,
}

impl<'a> Clause<'a> {
    fn parse(text: &'a str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let mut clause =
            Self { media_type: parts.next().unwrap_or_default(), quality: 1000, ..Self::default() };
        for parameter in parts {
            let Some((name, value)) = parameter.split_once('=') else { continue };
            let value = value.trim().trim_matches('"');
            match name.trim() {
                "as" => clause.kind = Some(value),
                "g" => clause.group = Some(value),
                "v" => clause.version = Some(value),
                "q" => clause.quality = quality(value),
                _ => {}
            }
        }
        clause
    }

    fn is_json(&self) -> bool {
        ["application/json", "application/*", "*/*"]
            .iter()
            .any(|known| self.media_type.eq_ignore_ascii_case(known))
    }

    /// `g` and `v` mean something beside `as` only.
    fn has_no_group(&self) -> bool {
        self.group.is_none() && self.version.is_none()
    }

    fn meta_version(&self) -> Option<MetaVersion> {
        match (self.group, self.version) {
            (Some("meta.k8s.io"), Some("v1")) => Some(MetaVersion::V1),
            (Some("meta.k8s.io"), Some("v1beta1")) => Some(MetaVersion::V1beta1),
            _ => None,
        }
    }
}

/// In thousandths; what is no number is 1, as for a clause that says nothing.
fn quality(text: &str) -> u16 {
    match text.parse::<f32>() {
        // The range makes the conversion exact enough.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        Ok(number) if (0.0..=1.0).contains(&number) => (number * 1000.0).round() as u16,
        _ => 1000,
    }
}

/// The first of the acceptable clauses with the highest quality. No header at all accepts everything.
fn choose<T>(headers: &HeaderMap, accept: impl Fn(&Clause<'_>) -> Option<T>) -> Option<T> {
    let values: Vec<_> = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let text = values.join(",");
    if text.trim().is_empty() {
        return accept(&Clause { media_type: "*/*", quality: 1000, ..Clause::default() });
    }
    let mut best: Option<(u16, T)> = None;
    for clause in text.split(',').map(|text| Clause::parse(text.trim())) {
        let is_better = best.as_ref().is_none_or(|(quality, _)| clause.quality > *quality);
        if clause.quality > 0
            && clause.is_json()
            && is_better
            && let Some(choice) = accept(&clause)
        {
            best = Some((clause.quality, choice));
        }
    }
    best.map(|(_, choice)| choice)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn accept(text: &str) -> HeaderMap {
        HeaderMap::from_iter([(ACCEPT, HeaderValue::from_str(text).expect("a header"))])
    }

    #[test]
    fn what_real_clients_send() {
        let table = Form::Table(MetaVersion::V1);
        let metadata = Form::Metadata(MetaVersion::V1);
        for (text, object, list) in [
            ("", Some(Form::Full), Some(Form::Full)),
            ("*/*", Some(Form::Full), Some(Form::Full)),
            ("application/json, */*", Some(Form::Full), Some(Form::Full)),
            ("application/*", Some(Form::Full), Some(Form::Full)),
            // kubectl get
            (
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
                Some(table),
                Some(table),
            ),
            (
                "application/json;as=Table;g=meta.k8s.io;v=v1beta1",
                Some(Form::Table(MetaVersion::V1beta1)),
                Some(Form::Table(MetaVersion::V1beta1)),
            ),
            // The metadata client, and kube-rs, which has no fallback.
            (
                "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json",
                Some(Form::Full),
                Some(metadata),
            ),
            ("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1", Some(metadata), None),
            ("application/vnd.kubernetes.protobuf,application/json", Some(Form::Full), Some(Form::Full)),
            ("application/vnd.kubernetes.protobuf", None, None),
            ("application/cbor, text/html", None, None),
            ("application/json;as=Cake;g=meta.k8s.io;v=v1", None, None),
            ("application/json;as=Table;g=example.com;v=v1", None, None),
            ("application/json;q=0", None, None),
            (
                "application/json;q=0.5,application/json;as=Table;v=v1;g=meta.k8s.io;q=0.7",
                Some(table),
                Some(table),
            ),
        ] {
            assert_eq!(form(&accept(text), Shape::Object).ok(), object, "{text}");
            assert_eq!(form(&accept(text), Shape::List).ok(), list, "{text}");
        }
        assert_eq!(form(&HeaderMap::new(), Shape::List), Ok(Form::Full));
    }

    #[test]
    fn forms_of_discovery() {
        let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
            application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";
        assert_eq!(discovery(&accept(aggregated)), Ok(DiscoveryForm::V2));
        let older =
            "application/json;as=APIGroupDiscoveryList;v=v2beta1;g=apidiscovery.k8s.io,application/json";
        assert_eq!(discovery(&accept(older)), Ok(DiscoveryForm::V2beta1));
        assert_eq!(discovery(&accept("application/json")), Ok(DiscoveryForm::Legacy));
        assert_eq!(discovery(&HeaderMap::new()), Ok(DiscoveryForm::Legacy));
        assert!(discovery(&accept("application/vnd.kubernetes.protobuf")).is_err());
    }

    proptest! {
        #[test]
        fn nothing_that_is_sent_panics(text in "[ -~]{0,200}") {
            let _ = (form(&accept(&text), Shape::List), discovery(&accept(&text)), json(&accept(&text)));
        }

        #[test]
        fn plain_json_anywhere_is_a_way_out(before in "[a-z;=/,. ]{0,60}") {
            let text = format!("{before},application/json");
            prop_assert!(form(&accept(&text), Shape::List).is_ok());
        }
    }
}
