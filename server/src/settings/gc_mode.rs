use std::fmt;
use std::str::FromStr;

use engine::collection::Mode;

use super::InvalidValue;

/// Whether writing is paused while a collection marks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GcMode {
    /// It is, for as long as the marking takes.
    #[default]
    ReadOnly,
    /// It is not.
    Online,
}

impl GcMode {
    /// Every value.
    pub const ALL: [Self; 2] = [Self::ReadOnly, Self::Online];

    /// The word by which settings name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ReadOnly => "read-only",
            Self::Online => "online",
        }
    }
}

impl From<GcMode> for Mode {
    fn from(mode: GcMode) -> Self {
        match mode {
            GcMode::ReadOnly => Self::ReadOnly,
            GcMode::Online => Self::Online,
        }
    }
}

impl FromStr for GcMode {
    type Err = InvalidValue;

    fn from_str(word: &str) -> Result<Self, InvalidValue> {
        let found = Self::ALL.into_iter().find(|mode| mode.name() == word);
        found.ok_or_else(|| InvalidValue::new("write read-only or online"))
    }
}

impl fmt::Display for GcMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
