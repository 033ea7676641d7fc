//! The command line: what can be asked of the program. `serve` is the registry; the commands of a settings' kind need
//! nothing but these; the others administer a registry, over its interface while it runs, or on its root while it does not.

mod answer;
mod check;
mod collection;
mod config;
mod exit;
mod export;
mod follow;
mod progress;
mod read_only;
mod rebuild;
mod root;
mod scrub;
mod server;
mod text;
mod uploads;
mod usage;
mod why;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::access::PasswordHash;
use crate::settings::{Count, Flags, SETTINGS, Setting, Value as _};
pub use config::{HashPasswordError, hash_password, print_settings};

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
    /// Administer a registry.
    Administer(Administer),
}

/// What an administrator asks for.
#[derive(Subcommand, Clone, Debug, PartialEq, Eq)]
pub enum Administer {
    /// Collect garbage: remove what no tag leads to, what nothing needs, and what nothing names.
    ///
    /// The registry does it; this command begins it, shows how far it is, and prints what was done. When the command is
    /// ended before, the collection goes on.
    #[command(after_help = exit::HELP)]
    Gc(collection::Gc),
    /// Keep the registry from taking writes, for a time; or let it take them again.
    #[command(after_help = exit::HELP)]
    ReadOnly {
        /// What is to be done.
        #[command(subcommand)]
        command: read_only::ReadOnly,
    },
    /// Read all content again, to see whether it is still what it was. What is damaged is taken out of use.
    #[command(after_help = exit::HELP)]
    Scrub(scrub::Scrub),
    /// Say what keeps some content: repositories, manifests, tags.
    #[command(after_help = exit::HELP)]
    Why(why::AskWhy),
    /// Say who has how much.
    #[command(after_help = exit::HELP)]
    Du(usage::Du),
    /// Compare what the metadata says with itself and with the files.
    #[command(after_help = exit::HELP)]
    Fsck(check::Fsck),
    /// List the upload sessions, or end one.
    #[command(after_help = exit::HELP)]
    Uploads(uploads::Uploads),
    /// Write the metadata to the file metadata.export in the root, out of which `rebuild` makes it anew.
    #[command(after_help = exit::HELP)]
    Export(export::Export),
    /// Make the metadata of a stopped registry anew, from metadata.export and the files of the blobs.
    #[command(after_help = exit::HELP)]
    Rebuild(rebuild::Rebuild),
}

impl Administer {
    /// Does it, and says on standard error what went wrong.
    pub fn run(self) -> ExitCode {
        let result = match self {
            Self::Gc(command) => command.run(),
            Self::ReadOnly { command } => command.run(),
            Self::Scrub(command) => command.run(),
            Self::Why(command) => command.run(),
            Self::Du(command) => command.run(),
            Self::Fsck(command) => command.run(),
            Self::Uploads(command) => command.run(),
            Self::Export(command) => command.run(),
            Self::Rebuild(command) => command.run(),
        };
        match result {
            Ok(exit) => exit.into(),
            Err(error) => {
                eprintln!("payload-registry: {error}");
                error.exit().into()
            }
        }
    }
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
        Some(Commands::Administer(command)) => Command::Administer(command),
    })
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
    #[command(flatten)]
    Administer(Administer),
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
}
