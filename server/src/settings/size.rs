use std::fmt;
use std::str::FromStr;

use bytesize::ByteSize;

use super::InvalidValue;

/// A number of bytes from `MIN` to `MAX`, written as `4MiB`, `100MB` or a plain number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size<const MIN: u64, const MAX: u64>(u64);

impl<const MIN: u64, const MAX: u64> Size<MIN, MAX> {
    /// The size of `bytes`, checked when it is compiled.
    pub const fn new(bytes: u64) -> Self {
        assert!(MIN <= bytes && bytes <= MAX, "out of bounds");
        Self(bytes)
    }

    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl<const MIN: u64, const MAX: u64> FromStr for Size<MIN, MAX> {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let size: ByteSize = text
            .parse()
            .map_err(|_| InvalidValue::new("write a number of bytes with a unit, such as 32KiB or 4MiB"))?;
        if !(MIN..=MAX).contains(&size.0) {
            let (min, max) = (Size::<0, { u64::MAX }>(MIN), Size::<0, { u64::MAX }>(MAX));
            return Err(InvalidValue::new(format!("write a size from {min} to {max}")));
        }
        Ok(Self(size.0))
    }
}

/// The exact number, in the largest binary unit in which it is a whole one.
impl<const MIN: u64, const MAX: u64> fmt::Display for Size<MIN, MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units =
            [("TiB", bytesize::TIB), ("GiB", bytesize::GIB), ("MiB", bytesize::MIB), ("KiB", bytesize::KIB)];
        let unit = units.into_iter().find(|(_, factor)| self.0 > 0 && self.0.is_multiple_of(*factor));
        match unit {
            Some((unit, factor)) => write!(f, "{}{unit}", self.0 / factor),
            None => write!(f, "{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Any = Size<0, { u64::MAX }>;

    #[test]
    fn texts_and_back() {
        for (text, bytes, shown) in [
            ("4MiB", 4 << 20, "4MiB"),
            ("4 MiB", 4 << 20, "4MiB"),
            ("4194304", 4 << 20, "4MiB"),
            ("4194305", (4 << 20) + 1, "4194305"),
            ("1.5GiB", 3 << 29, "1536MiB"),
            ("4MB", 4_000_000, "4000000"),
            ("0", 0, "0"),
            ("2TiB", 2 << 40, "2TiB"),
        ] {
            let size: Any = text.parse().expect(text);
            assert_eq!((size.bytes(), size.to_string().as_str()), (bytes, shown));
            assert_eq!(shown.parse::<Any>().expect(shown), size);
        }
    }

    #[test]
    fn other_texts_and_the_bounds() {
        for text in ["", "much", "-1", "4 lightyears", "MiB"] {
            assert!(text.parse::<Any>().is_err(), "{text:?}");
        }
        type Bounded = Size<1024, { 2 << 20 }>;
        for text in ["1023", "2097153", "99999EiB"] {
            let error = text.parse::<Bounded>().expect_err(text);
            assert_eq!(error.to_string(), "write a size from 1KiB to 2MiB");
        }
        assert!("1KiB".parse::<Bounded>().is_ok() && "2MiB".parse::<Bounded>().is_ok());
    }
}
