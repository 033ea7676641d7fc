use super::SETTINGS;

/// What the names of the registry's variables begin with.
pub const PREFIX: &str = "PAYLOAD_REGISTRY_";

/// The variable that names the configuration file. It is no setting: a file cannot name itself.
pub(super) const CONFIG: &str = "PAYLOAD_REGISTRY_CONFIG";

/// Variables of the commands that talk to a running registry: where it is, and how to be let in. They are no settings, and
/// the registry itself has nothing to do with them.
pub const COMMAND_VARIABLES: [&str; 3] =
    ["PAYLOAD_REGISTRY_SERVER", "PAYLOAD_REGISTRY_TOKEN_FILE", "PAYLOAD_REGISTRY_CA_FILE"];

/// The variable of the setting `key`: `PAYLOAD_REGISTRY_HTTP_HEAD_TIMEOUT` for `http.headTimeout`.
pub fn variable_name(key: &str) -> String {
    let mut name = PREFIX.to_owned();
    for c in key.chars() {
        if c == '.' || c.is_ascii_uppercase() {
            name.push('_');
        }
        if c != '.' {
            name.push(c.to_ascii_uppercase());
        }
    }
    name
}

/// The registry's variable that is most like `name`.
pub(super) fn nearest_variable(name: &str) -> Option<String> {
    let names: Vec<String> =
        SETTINGS.iter().map(|setting| setting.variable()).chain([CONFIG.to_owned()]).collect();
    let unprefixed = |name: &str| name.strip_prefix(PREFIX).unwrap_or(name).replace("__", "_");
    let bare: Vec<String> = names.iter().map(|name| unprefixed(name)).collect();
    let nearest = nearest(&unprefixed(name), bare.iter().map(String::as_str))?;
    Some(format!("{PREFIX}{nearest}"))
}

/// Of `names`, the one that is most like `name`, if it is likely to be what was meant.
pub(super) fn nearest<'n>(name: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    const LIKELY: f64 = 0.8;
    let name = name.to_ascii_lowercase();
    names
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&name, &candidate.to_ascii_lowercase()), candidate))
        .filter(|(likeness, _)| *likeness >= LIKELY)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

/// Whether Kubernetes puts a variable of this name into each container because of a Service that is called
/// `payload-registry`, or begins with it: `…_SERVICE_HOST`, `…_SERVICE_PORT`, `…_SERVICE_PORT_<name>`, `…_PORT`,
/// `…_PORT_<number>_<protocol>` and that with `_PROTO`, `_PORT` or `_ADDR` behind it.
pub(super) fn is_of_a_service(name: &str) -> bool {
    let Some(rest) = name.strip_prefix(PREFIX) else { return false };
    let segments: Vec<&str> = rest.split('_').collect();
    (0..segments.len()).any(|start| match &segments[start..] {
        ["SERVICE", "HOST"] | ["SERVICE", "PORT", ..] | ["PORT"] => true,
        ["PORT", number, "TCP" | "UDP" | "SCTP", rest @ ..] => {
            number.parse::<u16>().is_ok() && matches!(rest, [] | ["PROTO" | "PORT" | "ADDR"])
        }
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(variable_name("listen"), "PAYLOAD_REGISTRY_LISTEN");
        assert_eq!(variable_name("http.headTimeout"), "PAYLOAD_REGISTRY_HTTP_HEAD_TIMEOUT");
        assert_eq!(variable_name("allowOpen"), "PAYLOAD_REGISTRY_ALLOW_OPEN");
    }

    #[test]
    fn variables_of_services() {
        for name in [
            "PAYLOAD_REGISTRY_SERVICE_HOST",
            "PAYLOAD_REGISTRY_SERVICE_PORT",
            "PAYLOAD_REGISTRY_SERVICE_PORT_HTTP",
            "PAYLOAD_REGISTRY_SERVICE_PORT_HTTP_METRICS",
            "PAYLOAD_REGISTRY_PORT",
            "PAYLOAD_REGISTRY_PORT_5000_TCP",
            "PAYLOAD_REGISTRY_PORT_5000_TCP_PROTO",
            "PAYLOAD_REGISTRY_PORT_5000_TCP_PORT",
            "PAYLOAD_REGISTRY_PORT_5000_TCP_ADDR",
            "PAYLOAD_REGISTRY_PORT_53_UDP",
            "PAYLOAD_REGISTRY_API_SERVICE_HOST",
            "PAYLOAD_REGISTRY_API_V2_SERVICE_PORT_HTTPS",
            "PAYLOAD_REGISTRY_API_PORT",
            "PAYLOAD_REGISTRY_API_PORT_443_TCP_ADDR",
        ] {
            assert!(is_of_a_service(name), "{name}");
        }
        for name in [
            "PAYLOAD_REGISTRY_",
            "PAYLOAD_REGISTRY_LISTEN",
            "PAYLOAD_REGISTRY_PORTS",
            "PAYLOAD_REGISTRY_PORT_X_TCP",
            "PAYLOAD_REGISTRY_PORT_5000_TCP_HOST",
            "PAYLOAD_REGISTRY_PORT_5000",
            "PAYLOAD_REGISTRY_SERVICE",
            "OTHER_SERVICE_HOST",
        ] {
            assert!(!is_of_a_service(name), "{name}");
        }
    }

    #[test]
    fn no_setting_looks_like_the_variable_of_a_service() {
        for setting in SETTINGS {
            assert!(!is_of_a_service(&setting.variable()), "{}", setting.key);
        }
        assert!(!is_of_a_service(CONFIG));
    }

    #[test]
    fn likely_names() {
        let variable = |name| nearest_variable(name).unwrap_or_default();
        assert_eq!(variable("PAYLOAD_REGISTRY_LISTN"), "PAYLOAD_REGISTRY_LISTEN");
        assert_eq!(variable("PAYLOAD_REGISTRY_HTTP__HEAD_TIMEOUT"), "PAYLOAD_REGISTRY_HTTP_HEAD_TIMEOUT");
        assert_eq!(variable("PAYLOAD_REGISTRY_CONFIG_FILE"), "PAYLOAD_REGISTRY_CONFIG");
        assert_eq!(nearest_variable("PAYLOAD_REGISTRY_XYZZY"), None);
    }
}
