use serde_json::{Value, json};

/// Why the API says no.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    /// The status code.
    pub code: u16,
    reason: &'static str,
    message: String,
    /// Kind (the plural, as Kubernetes has it there) and name of what it is about.
    about: Option<(String, String)>,
}

impl Failure {
    pub fn new(code: u16, message: impl Into<String>) -> Self {
        let reason = match code {
            400 => "BadRequest",
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "NotFound",
            405 => "MethodNotAllowed",
            409 => "Conflict",
            410 => "Expired",
            415 => "UnsupportedMediaType",
            422 => "Invalid",
            429 => "TooManyRequests",
            503 => "ServiceUnavailable",
            _ => "InternalError",
        };
        Self { code, reason, message: message.into(), about: None }
    }

    /// The same about an object.
    pub fn about(mut self, plural: &str, name: &str) -> Self {
        self.about = Some((plural.into(), name.into()));
        self
    }

    pub fn not_found(plural: &str, name: &str) -> Self {
        Self::new(404, format!("{plural} \"{name}\" not found")).about(plural, name)
    }

    pub fn already_exists(plural: &str, name: &str) -> Self {
        let exists = Self::new(409, format!("{plural} \"{name}\" already exists")).about(plural, name);
        Self { reason: "AlreadyExists", ..exists }
    }

    /// The answer's body.
    pub fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
        });
        if let Some((plural, name)) = &self.about {
            status["details"] = json!({"kind": plural, "name": name});
        }
        status
    }
}
