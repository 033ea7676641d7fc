//! The settings of the program: what there is, and how the values are found.
//!
//! A setting comes from the command line, or else from the environment, or else from the configuration file, or else
//! from its default. Each value is parsed where it comes in, by one parser whatever the source, into a type that
//! cannot hold a value out of bounds; so an error names the flag, the variable, or the line of the file.
//!
//! [`SETTINGS`] is the one list of all settings, out of which the environment's names, `--help`, the printed settings
//! and the documentation's table are made.

mod count;
mod environment;
mod error;
mod file;
mod gc_mode;
mod load;
mod log;
mod model;
mod origin;
mod private_listen;
mod quotas;
mod retention;
mod size;
mod table;
mod time;
mod value;
mod write_mode;

pub use count::Count;
pub use environment::{COMMAND_VARIABLES, PREFIX, variable_name};
pub use error::SettingsError;
pub use gc_mode::GcMode;
pub use load::{Flags, Loaded, load};
pub use log::{LogFilter, LogFormat};
pub use model::{
    DeleteSettings, GcSettings, HttpSettings, KubernetesSettings, LimitSettings, LogSettings,
    NamespaceSettings, PrivateSettings, PrivateTlsSettings, QuotaSettings, ScrubSettings, Settings,
    ShutdownSettings, StorageSettings, UploadSettings,
};
pub use origin::Origin;
pub use private_listen::PrivateListen;
pub use quotas::{NamespaceQuotas, Quota};
pub use retention::Retention;
pub use size::Size;
pub use table::{SETTINGS, Setting};
pub use time::Time;
pub use value::InvalidValue;
pub(crate) use value::Value;
pub use write_mode::WriteMode;
