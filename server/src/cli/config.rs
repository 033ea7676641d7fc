use std::io::{self, BufRead, Write};

use crate::access::{InvalidPassword, PasswordHash};
use crate::settings::{Loaded, SETTINGS};

/// Prints each setting with its value and where that came from, and each user with the grants; no secrets.
pub fn print_settings(loaded: &Loaded, output: &mut impl Write) -> io::Result<()> {
    let rows: Vec<_> = SETTINGS
        .iter()
        .map(|setting| {
            let value = match setting.key {
                // What the absence of the setting means is of more use than that it is absent.
                "anonymous" => loaded.settings.anonymous_access().to_string(),
                _ => setting.shown(&loaded.settings),
            };
            (format!("{}: {value}", setting.key), loaded.origin(setting.key))
        })
        .collect();
    let width = rows.iter().map(|(text, _)| text.chars().count()).max().unwrap_or(0);
    for (text, origin) in rows {
        writeln!(output, "{text:width$}  # {origin}")?;
    }
    for (name, user) in loaded.settings.users.iter() {
        let password =
            if user.password_hash.is_some() { "has a password" } else { "no password, cannot log in" };
        write!(output, "users.{name}: {password}")?;
        for grant in &user.projects {
            write!(output, "; {grant}")?;
        }
        writeln!(output)?;
    }
    Ok(())
}

/// Why no hash was printed.
#[derive(Debug, thiserror::Error)]
pub enum HashPasswordError {
    /// Standard input cannot be read, or standard output cannot be written.
    #[error("cannot read the password or write its hash: {0}")]
    Io(#[from] io::Error),
    /// No hash can be made of what was read.
    #[error("{0}")]
    Password(#[from] InvalidPassword),
}

/// Reads a password, up to the end of the line, from `input` and writes its bcrypt hash to `output`.
pub fn hash_password(
    input: impl BufRead,
    output: &mut impl Write,
    cost: u32,
) -> Result<(), HashPasswordError> {
    // More than bcrypt takes is an error; so is the rest of an input without an end.
    const INPUT_LEN_MAX: u64 = 4096;
    let mut line = String::new();
    input.take(INPUT_LEN_MAX).read_line(&mut line)?;
    let password = line.strip_suffix('\n').unwrap_or(&line);
    let password = password.strip_suffix('\r').unwrap_or(password);
    let hash = PasswordHash::of(password, cost)?;
    writeln!(output, "{}", hash.reveal())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{self, Count, Flags};

    #[test]
    fn printed_settings_have_origins_and_no_secrets() {
        let hash = PasswordHash::of("secret", 4).expect("valid");
        let users = format!(
            r#"{{jane: {{passwordHash: "{}", projects: [{{name: a, subPath: b/*, access: FULL}}]}}, ghost: {{}}}}"#,
            hash.reveal()
        );
        let environment = [("PAYLOAD_REGISTRY_USERS".into(), users.into())];
        let flags = Flags { threads: Some(Count::new(2)), ..Flags::default() };
        let loaded = settings::load(&flags, environment).expect("valid");
        let mut output = Vec::new();
        print_settings(&loaded, &mut output).expect("memory");
        let output = String::from_utf8(output).expect("text");
        let line = |start: &str| {
            let line = output.lines().find(|line| line.starts_with(start)).unwrap_or_default();
            line.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(line("listen:"), "listen: 127.0.0.1:5000 # default");
        assert_eq!(line("threads:"), "threads: 2 # --threads");
        assert_eq!(line("anonymous:"), "anonymous: none # default");
        assert_eq!(line("users:"), "users: 2 users # PAYLOAD_REGISTRY_USERS");
        assert_eq!(line("users.jane:"), "users.jane: has a password; FULL in a/b/*");
        assert_eq!(line("users.ghost:"), "users.ghost: no password, cannot log in");
        assert!(!output.contains(&hash.reveal()[7..]));
        assert!(SETTINGS.iter().all(|setting| !line(&format!("{}:", setting.key)).is_empty()));
    }

    #[test]
    fn a_hash_is_of_the_first_line() {
        for input in ["pass word", "pass word\n", "pass word\r\n", "pass word\nmore\n"] {
            let mut output = Vec::new();
            hash_password(input.as_bytes(), &mut output, 4).expect("valid");
            let text = String::from_utf8(output).expect("text");
            let hash: PasswordHash = text.trim_end().parse().expect("own hash");
            assert!(hash.verify(b"pass word") && text.ends_with('\n'), "{input:?}");
        }
        for input in ["", "\n", "a\tb\n", &"a".repeat(72)] {
            let mut output = Vec::new();
            assert!(hash_password(input.as_bytes(), &mut output, 4).is_err(), "{input:?}");
            assert!(output.is_empty());
        }
    }
}
