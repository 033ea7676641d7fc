use std::fmt;
use std::str::FromStr;

use super::InvalidValue;

/// How the content of blobs gets to the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WriteMode {
    /// Around the page cache where the file system can do it, through it elsewhere.
    #[default]
    Auto,
    /// Around the page cache; the start fails where the file system cannot do it.
    Direct,
    /// Through the page cache.
    Buffered,
}

impl WriteMode {
    /// Every value.
    pub const ALL: [Self; 3] = [Self::Auto, Self::Direct, Self::Buffered];

    /// The word by which settings name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Direct => "direct",
            Self::Buffered => "buffered",
        }
    }
}

impl FromStr for WriteMode {
    type Err = InvalidValue;

    fn from_str(word: &str) -> Result<Self, InvalidValue> {
        let found = Self::ALL.into_iter().find(|mode| mode.name() == word);
        found.ok_or_else(|| InvalidValue::new("write auto, direct or buffered"))
    }
}

impl fmt::Display for WriteMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
