//! The command line: what can be asked of the program, and the commands that need nothing but the settings.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{self, BufRead, Write};
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::access::{InvalidPassword, PasswordHash};
use crate::settings::{Count, Flags, Loaded, SETTINGS, Setting, Value as _};

/// What the program is asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Serve the registry, until a signal ends it.
    Serve(Flags),
    /// Load the settings and print them ([`print_settings`]).
    ConfigCheck(Flags),
    /// Make a hash of a password ([`hash_password`]).
    HashPassword {
        /// The binary logarithm of the number of rounds.
        cost: u32,
    },
}

/// Reads the command line; the first argument is the program's name.
///
/// Also `--help` and `--version` are errors here: [`clap::Error::exit`] prints each of them where it belongs and ends
/// the process with the right code.
pub fn parse<A>(arguments: impl IntoIterator<Item = A>) -> Result<Command, clap::Error>
where
    A: Into<OsString> + Clone,
{
    let mut command = CommandLine::command();
    let matches = command.try_get_matches_from_mut(arguments)?;
    let line = CommandLine::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
    Ok(match line.command {
        None => Command::Serve(line.flags.into()),
        Some(Commands::Serve { flags }) => Command::Serve(flags.into()),
        Some(Commands::Config { command: ConfigCommands::Check { flags } }) => {
            Command::ConfigCheck(flags.into())
        }
        Some(Commands::Config { command: ConfigCommands::HashPassword { cost } }) => {
            Command::HashPassword { cost }
        }
    })
}

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

/// A container registry: OCI distribution specification 1.1, with its content on a local disk.
///
/// Started without anything, it listens on 127.0.0.1:5000 and keeps its content in ./data; everybody on this machine
/// may push and pull.
#[derive(Debug, Parser)]
#[command(
    name = "payload-registry",
    version,
    args_conflicts_with_subcommands = true,
    max_term_width = 110,
    after_help = "Without a command, it serves. `--help` shows all settings.",
    after_long_help = settings_help()
)]
struct CommandLine {
    #[command(subcommand)]
    command: Option<Commands>,
    #[command(flatten)]
    flags: SettingFlags,
}

#[derive(Debug, Subcommand)]
enum Commands {
    /// Serve the registry; this is also what happens without a command.
    #[command(after_help = "`payload-registry --help` shows all settings.")]
    Serve {
        #[command(flatten)]
        flags: SettingFlags,
    },
    /// Look at the settings.
    Config {
        #[command(subcommand)]
        command: ConfigCommands,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigCommands {
    /// Load all settings as `serve` does, and print them with where each came from, without secrets.
    ///
    /// Ends with 0 where `serve` would start with these settings, and otherwise with a sentence on what is wrong.
    Check {
        #[command(flatten)]
        flags: SettingFlags,
    },
    /// Read a password from standard input and print its bcrypt hash, for `users.<name>.passwordHash`.
    ///
    /// The password is what stands before the end of the first line, at most 71 bytes. What is typed is seen on the
    /// terminal; to avoid that, pipe it in from a file or a password manager.
    HashPassword {
        /// Binary logarithm of the number of rounds, 4 to 15: one more takes twice the time.
        #[arg(long, value_name = "NUMBER", default_value_t = PasswordHash::COST_DEFAULT,
            value_parser = clap::value_parser!(u32).range(
                i64::from(PasswordHash::COST_MIN)..=i64::from(PasswordHash::COST_MAX)))]
        cost: u32,
    },
}

#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Settings")]
struct SettingFlags {
    /// Configuration file, in YAML. [env: PAYLOAD_REGISTRY_CONFIG] [default: none]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[arg(long, value_name = "ADDRESS", help = flag_help("--listen"), value_parser = SocketAddr::parse)]
    listen: Option<SocketAddr>,
    #[arg(long, value_name = "DIRECTORY", help = flag_help("--root"))]
    root: Option<PathBuf>,
    #[arg(long, value_name = "NUMBER", help = flag_help("--threads"))]
    threads: Option<Count<0, 1024>>,
    #[arg(long, help = flag_help("--allow-open"))]
    allow_open: bool,
}

impl From<SettingFlags> for Flags {
    fn from(flags: SettingFlags) -> Self {
        let SettingFlags { config, listen, root, threads, allow_open } = flags;
        Self { config, listen, root, threads, allow_open }
    }
}

fn flag_help(flag: &str) -> String {
    let setting = SETTINGS.iter().find(|setting| setting.flag == Some(flag));
    setting.map_or_else(String::new, |setting| format!("{} {}", setting.meaning, names_of(setting)))
}

fn names_of(setting: &Setting) -> String {
    format!("[env: {}] [default: {}]", setting.variable(), setting.default())
}

fn settings_help() -> String {
    let mut help = "\
All settings, with their key in the configuration file:
"
    .to_owned();
    for setting in SETTINGS {
        let flag = setting.flag.map_or_else(String::new, |flag| format!(" ({flag})"));
        let _ = write!(
            help,
            "\n  {}{flag}\n      {}\n      {}\n",
            setting.key,
            setting.meaning,
            names_of(setting)
        );
    }
    help.push_str(
        "
A flag goes before the environment, the environment before the configuration file, and that before the default.

Times are written as 30s, 5m, 24h; sizes as 32KiB, 4MiB. A dot in a key is a level of the YAML:

  listen: 0.0.0.0:5000
  http:
    headTimeout: 10s
  users:
    jane:
      passwordHash: $2b$12$…       # payload-registry config hash-password
      projects:
        - name: team-a             # the first segment of a repository's name
          access: READ             # pull
        - name: team-a
          subPath: frontend/*      # all below team-a/frontend, at any depth
          access: FULL             # pull, push and delete

`payload-registry config check` says which settings are in force, and what is wrong with them.",
    );
    help
}

#[cfg(test)]
mod tests {
    use clap::error::ErrorKind;

    use super::*;
    use crate::settings;

    fn parsed(line: &str) -> Result<Command, clap::Error> {
        parse(std::iter::once("payload-registry").chain(line.split_whitespace()))
    }

    #[test]
    fn the_declaration_is_sound() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn serve_is_what_happens_without_a_command() {
        let flags = Flags {
            config: Some("/etc/registry.yaml".into()),
            listen: Some(([0, 0, 0, 0], 80).into()),
            root: Some("/data".into()),
            threads: Some(Count::new(4)),
            allow_open: true,
        };
        let text = "--config /etc/registry.yaml --listen 0.0.0.0:80 --root /data --threads 4 --allow-open";
        for (line, command) in [
            (String::new(), Command::Serve(Flags::default())),
            ("serve".to_owned(), Command::Serve(Flags::default())),
            (text.to_owned(), Command::Serve(flags.clone())),
            (format!("serve {text}"), Command::Serve(flags.clone())),
            (format!("config check {text}"), Command::ConfigCheck(flags)),
            ("config hash-password".to_owned(), Command::HashPassword { cost: 12 }),
            ("config hash-password --cost 10".to_owned(), Command::HashPassword { cost: 10 }),
        ] {
            assert_eq!(parsed(&line).expect(&line), command, "{line}");
        }
    }

    #[test]
    fn errors_name_the_flag_and_what_to_do() {
        for (line, expected) in [
            ("--listen localhost", "'--listen <ADDRESS>': write an IP address and a port"),
            ("--threads many", "'--threads <NUMBER>': write a number from 0 to 1024"),
            ("--threads 1025", "'--threads <NUMBER>': write a number from 0 to 1024"),
            ("--lisen 127.0.0.1:1", "a similar argument exists: '--listen'"),
            ("sevre", "a similar subcommand exists: 'serve'"),
            ("config hash-password --cost 16", "4..=15"),
        ] {
            let error = parsed(line).expect_err(line).to_string();
            assert!(error.contains(expected), "{error}");
        }
        assert!(parsed("--listen 127.0.0.1:1 serve").is_err());
    }

    #[test]
    fn help_names_every_setting_with_variable_and_default() {
        let error = parsed("--help").expect_err("help");
        assert_eq!(error.kind(), ErrorKind::DisplayHelp);
        let help = error.to_string();
        for setting in SETTINGS {
            let default = format!("[default: {}]", setting.default());
            assert!(
                [setting.key, &setting.variable(), &default].iter().all(|text| help.contains(text)),
                "{}",
                setting.key
            );
        }
        for (line, flags) in [("-h", 4), ("serve --help", 4), ("config check --help", 4)] {
            let help = parsed(line).expect_err("help").to_string();
            let shown = SETTINGS.iter().filter_map(|setting| setting.flag).filter(|flag| help.contains(flag));
            assert_eq!(shown.count(), flags, "{help}");
            assert!(help.contains("--config"));
        }
        assert_eq!(parsed("--version").expect_err("version").kind(), ErrorKind::DisplayVersion);
    }

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
