use std::fmt;
use std::str::FromStr;

use super::InvalidValue;

/// A number from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Count<const MIN: u32, const MAX: u32>(u32);

impl<const MIN: u32, const MAX: u32> Count<MIN, MAX> {
    /// The number `count`, checked when it is compiled.
    pub const fn new(count: u32) -> Self {
        assert!(MIN <= count && count <= MAX, "out of bounds");
        Self(count)
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl<const MIN: u32, const MAX: u32> FromStr for Count<MIN, MAX> {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        match text.parse() {
            Ok(count) if (MIN..=MAX).contains(&count) => Ok(Self(count)),
            _ => Err(InvalidValue::new(format!("write a number from {MIN} to {MAX}"))),
        }
    }
}

impl<const MIN: u32, const MAX: u32> fmt::Display for Count<MIN, MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bounds_hold() {
        for text in ["1", "50", "100"] {
            assert_eq!(text.parse::<Count<1, 100>>().expect(text).to_string(), text);
        }
        for text in ["", "0", "101", "-1", "1.5", "many", "99999999999999999999"] {
            let error = text.parse::<Count<1, 100>>().expect_err(text);
            assert_eq!(error.to_string(), "write a number from 1 to 100");
        }
    }
}
