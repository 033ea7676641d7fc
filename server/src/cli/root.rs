use std::path::PathBuf;

use clap::Args;
use engine::{Engine, EngineOptions, Environment};

use super::exit::{CommandError, Exit};
use crate::logging;
use crate::serve::engine_options;
use crate::settings::{self, Flags, Settings};

/// Whose settings count.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
#[command(next_help_heading = "The registry")]
pub(super) struct Root {
    /// Configuration file of the registry. [env: PAYLOAD_REGISTRY_CONFIG] [default: none]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory that holds everything the registry stores. [env: PAYLOAD_REGISTRY_ROOT] [default: as `serve`]
    #[arg(long, value_name = "DIRECTORY")]
    root: Option<PathBuf>,
}

/// Whether there is no running registry.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
#[command(next_help_heading = "The registry")]
pub(super) struct Offline {
    /// Work on the root of a registry that is stopped.
    #[arg(long, conflicts_with_all = ["server", "token_file", "ca_file"])]
    pub(super) offline: bool,
}

impl Root {
    /// The settings, as `serve` finds them.
    pub(super) fn settings(&self) -> Result<Settings, CommandError> {
        let flags = Flags { config: self.config.clone(), root: self.root.clone(), ..Flags::default() };
        let loaded = settings::load(&flags, std::env::vars_os()).map_err(CommandError::failed)?;
        Ok(loaded.settings)
    }

    /// Opens the store of a stopped registry. Nobody pushes to it, so what clients were told does not count.
    pub(super) fn open(&self) -> Result<(Engine, Settings), CommandError> {
        let settings = self.existing()?;
        Ok((open(engine_options(&settings, 1))?, settings))
    }

    /// The settings, with a root that is there: none is made by mistake.
    pub(super) fn existing(&self) -> Result<Settings, CommandError> {
        let settings = self.settings()?;
        if !settings.root.is_dir() {
            let message = format!(
                "there is no directory {}; say by --root where the registry's is",
                settings.root.display()
            );
            return Err(CommandError::new(Exit::Failed, message));
        }
        logging::start(&settings.log);
        Ok(settings)
    }
}

/// Opens the store of a stopped registry, as [`Root::open`] does.
pub(super) fn open(options: EngineOptions) -> Result<Engine, CommandError> {
    let engine = Engine::open_existing(options, Environment::system())?;
    engine.set_lease(std::time::Duration::ZERO);
    Ok(engine)
}
