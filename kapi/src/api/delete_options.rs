//! What a deletion is asked to heed.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};
use interface::Preconditions;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;

use super::query::Parameters;
use super::status::{FieldError, Refusal};

/// The part of `DeleteOptions` that means something here: a tag has no dependents and goes at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deletion {
    /// Whether to check everything and delete nothing.
    pub dry_run: bool,
    /// What must hold.
    pub preconditions: Preconditions,
}

impl Deletion {
    /// Reads the options: from the body, which is JSON, or, where it is empty, from the parameters. A dry run or a uid among
    /// the parameters counts beside a body, too: what asks for less is never overlooked.
    pub fn read(headers: &HeaderMap, body: &[u8], parameters: &Parameters) -> Result<Self, Refusal> {
        let asked = from_parameters(parameters)?;
        if body.is_empty() {
            return Self::of(asked);
        }
        if !headers.get(CONTENT_TYPE).is_none_or(is_json) {
            return Err(Refusal::unsupported_media_type());
        }
        let mut options: DeleteOptions = serde_json::from_slice(body)
            .map_err(|error| Refusal::bad_request(format!("the body is no DeleteOptions: {error}")))?;
        if let Some(kind) = options.kind.as_deref().filter(|kind| !["", "DeleteOptions"].contains(kind)) {
            return Err(Refusal::bad_request(format!("the body is a {kind:?}, and no DeleteOptions")));
        }
        options.dry_run.get_or_insert_default().extend(asked.dry_run.unwrap_or_default());
        if let Some(uid) = asked.preconditions.and_then(|it| it.uid) {
            options.preconditions.get_or_insert_default().uid.get_or_insert(uid);
        }
        Self::of(options)
    }

    fn of(options: DeleteOptions) -> Result<Self, Refusal> {
        let dry_run = options.dry_run.unwrap_or_default();
        let mut errors = Vec::new();
        if let Some(policy) = options.propagation_policy.as_deref() {
            if options.orphan_dependents.is_some() {
                let detail = "orphanDependents and deletionPropagation cannot be both set";
                errors.push(FieldError::invalid("propagationPolicy", policy, detail));
            }
            const POLICIES: [&str; 3] = ["Foreground", "Background", "Orphan"];
            if !POLICIES.contains(&policy) {
                errors.push(FieldError::not_supported("propagationPolicy", policy, &POLICIES));
            }
        }
        if let Some(other) = dry_run.iter().find(|value| *value != "All") {
            errors.push(FieldError::not_supported("dryRun", other, &["All"]));
        }
        if !errors.is_empty() {
            return Err(Refusal::invalid("DeleteOptions", errors));
        }
        let preconditions = options.preconditions.unwrap_or_default();
        Ok(Self {
            dry_run: !dry_run.is_empty(),
            preconditions: Preconditions {
                uid: preconditions.uid,
                sequence: preconditions.resource_version.as_deref().map(sequence),
            },
        })
    }
}

fn from_parameters(parameters: &Parameters) -> Result<DeleteOptions, Refusal> {
    let mut options = DeleteOptions {
        dry_run: Some(parameters.all("dryRun").map(str::to_owned).collect()),
        grace_period_seconds: parameters.integer("gracePeriodSeconds")?,
        orphan_dependents: parameters.flag("orphanDependents"),
        propagation_policy: parameters.first("propagationPolicy").map(str::to_owned),
        ..DeleteOptions::default()
    };
    if let Some(uid) = parameters.first("uid").filter(|uid| !uid.is_empty()) {
        options.preconditions.get_or_insert_default().uid = Some(uid.to_owned());
    }
    Ok(options)
}

/// The number that a resourceVersion stands for. The kube-apiserver compares texts, so that one that is no number, or is
/// written in another way, is that of no object; and so is 0.
fn sequence(resource_version: &str) -> u64 {
    let number = resource_version.parse::<u64>().ok();
    number.filter(|number| number.to_string() == resource_version).unwrap_or(0)
}

fn is_json(value: &HeaderValue) -> bool {
    let Ok(text) = value.to_str() else { return false };
    let media_type = text.split(';').next().unwrap_or_default().trim();
    media_type.is_empty() || media_type.eq_ignore_ascii_case("application/json")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(content_type: Option<&'static str>, body: &str, query: &str) -> Result<Deletion, Refusal> {
        let mut headers = HeaderMap::new();
        if let Some(content_type) = content_type {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        Deletion::read(&headers, body.as_bytes(), &Parameters::parse(query))
    }

    fn body(body: &serde_json::Value, query: &str) -> Result<Deletion, Refusal> {
        read(Some("application/json"), &body.to_string(), query)
    }

    #[test]
    fn what_real_clients_send() {
        let plain = Deletion::default();
        let dry_run = Deletion { dry_run: true, ..Deletion::default() };
        // kubectl; with --dry-run=server; the namespace controller; kube-rs.
        assert_eq!(body(&json!({"propagationPolicy": "Background"}), ""), Ok(plain.clone()));
        assert_eq!(
            body(&json!({"propagationPolicy": "Background", "dryRun": ["All"]}), ""),
            Ok(dry_run.clone())
        );
        let sent = json!({"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1", "gracePeriodSeconds": 1});
        assert_eq!(body(&sent, ""), Ok(plain.clone()));
        assert_eq!(read(None, "", ""), Ok(plain));
        assert_eq!(read(None, "", "dryRun=All&propagationPolicy=Foreground"), Ok(dry_run.clone()));
        // An empty body has no type.
        assert!(read(Some("application/vnd.kubernetes.protobuf"), "", "").is_ok());
        assert_eq!(body(&json!({}), "dryRun=All"), Ok(dry_run));
    }

    #[test]
    fn preconditions() {
        let with = |uid: Option<&str>, sequence| Deletion {
            dry_run: false,
            preconditions: Preconditions { uid: uid.map(str::to_owned), sequence },
        };
        let sent = json!({"preconditions": {"uid": "a", "resourceVersion": "7"}});
        assert_eq!(body(&sent, ""), Ok(with(Some("a"), Some(7))));
        assert_eq!(body(&sent, "uid=b"), Ok(with(Some("a"), Some(7))));
        assert_eq!(body(&json!({}), "uid=b"), Ok(with(Some("b"), None)));
        assert_eq!(read(None, "", "uid=b"), Ok(with(Some("b"), None)));
        // No object has these.
        for version in ["", "0", "x", "007", "+7", "99999999999999999999"] {
            let sent = json!({"preconditions": {"resourceVersion": version}});
            assert_eq!(body(&sent, ""), Ok(with(None, Some(0))), "{version}");
        }
    }

    #[test]
    fn what_is_refused() {
        for (sent, code, message) in [
            (
                json!({"dryRun": ["None"]}),
                422,
                "dryRun: Unsupported value: \"None\": supported values: \"All\"",
            ),
            (json!({"dryRun": ["All", ""]}), 422, "dryRun: Unsupported value: \"\""),
            (json!({"propagationPolicy": "Away"}), 422, "propagationPolicy: Unsupported value: \"Away\""),
            (json!({"propagationPolicy": "Orphan", "orphanDependents": true}), 422, "cannot be both set"),
            (json!({"dryRun": "All"}), 400, "no DeleteOptions"),
            (json!({"kind": "Pod"}), 400, "no DeleteOptions"),
            (json!([]), 400, "no DeleteOptions"),
        ] {
            let refusal = body(&sent, "").expect_err(message);
            assert_eq!(refusal.code().as_u16(), code, "{sent}");
            let text = refusal.status().message.clone().unwrap_or_default();
            assert!(text.contains(message), "{sent}: {text}");
        }
        let refusal = read(Some("application/vnd.kubernetes.protobuf"), "k8s", "").expect_err("415");
        assert_eq!(refusal.code().as_u16(), 415);
        assert_eq!(read(None, "", "dryRun=Some").expect_err("422").code().as_u16(), 422);
    }

    proptest! {
        #[test]
        fn no_body_panics(text in "[ -~]{0,120}", query in "[ -~]{0,60}") {
            let _ = read(None, &text, &query);
        }

        #[test]
        fn a_dry_run_is_never_overlooked(options in "\\{(\"gracePeriodSeconds\": ?[1-9][0-9]{0,2})?\\}", in_query: bool) {
            let query = if in_query { "dryRun=All" } else { "" };
            prop_assert_eq!(read(None, &options, query).expect("options").dry_run, in_query);
        }
    }
}
