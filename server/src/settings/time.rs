use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::{Span, SpanRelativeTo};

use super::InvalidValue;

/// A span of time from `MIN` to `MAX` seconds, written as `30s`, `5m`, `24h`, `7d` or `1h 30m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time<const MIN: u64, const MAX: u64>(Duration);

impl<const MIN: u64, const MAX: u64> Time<MIN, MAX> {
    /// The time of `seconds`, checked when it is compiled.
    pub const fn new(seconds: u64) -> Self {
        assert!(MIN <= seconds && seconds <= MAX, "out of bounds");
        Self(Duration::from_secs(seconds))
    }

    /// The time.
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl<const MIN: u64, const MAX: u64> FromStr for Time<MIN, MAX> {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        // A day is taken as 24 hours; months and years have no fixed length, and are refused.
        let time =
            text.parse::<Span>().and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()));
        let time =
            time.map_err(|_| InvalidValue::new("write a number with a unit, such as 30s, 5m, 24h or 7d"))?;
        match Duration::try_from(time) {
            Ok(time) if (Duration::from_secs(MIN)..=Duration::from_secs(MAX)).contains(&time) => {
                Ok(Self(time))
            }
            _ => {
                let (min, max) = (shown(Duration::from_secs(MIN)), shown(Duration::from_secs(MAX)));
                Err(InvalidValue::new(format!("write a time from {min} to {max}")))
            }
        }
    }
}

impl<const MIN: u64, const MAX: u64> fmt::Display for Time<MIN, MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(self.0))
    }
}

/// The text of a time, in the largest unit in which it is a whole number.
fn shown(time: Duration) -> String {
    let seconds = time.as_secs();
    match time.subsec_nanos() {
        0 if seconds > 0 && seconds.is_multiple_of(3600) => format!("{}h", seconds / 3600),
        0 if seconds > 0 && seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        0 => format!("{seconds}s"),
        // With a decimal point, which can be read again.
        _ => format!("{time:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Any = Time<0, { 400 * 24 * 3600 }>;

    #[test]
    fn texts_and_back() {
        for (text, milliseconds, shown) in [
            ("30s", 30_000, "30s"),
            ("75s", 75_000, "75s"),
            ("5m", 300_000, "5m"),
            ("1h 30m", 5_400_000, "90m"),
            ("1h30m", 5_400_000, "90m"),
            ("24h", 86_400_000, "24h"),
            ("7d", 604_800_000, "168h"),
            ("1500ms", 1_500, "1.5s"),
            ("0s", 0, "0s"),
        ] {
            let time: Any = text.parse().expect(text);
            assert_eq!(time.get().as_millis(), milliseconds, "{text}");
            assert_eq!(time.to_string(), shown);
            assert_eq!(shown.parse::<Any>().expect(shown), time);
        }
    }

    #[test]
    fn other_texts_and_the_bounds() {
        for text in ["", "30", "soon", "1 year", "1mo", "s", "30 s s"] {
            let error = text.parse::<Any>().expect_err(text);
            assert_eq!(
                error.to_string(),
                "write a number with a unit, such as 30s, 5m, 24h or 7d",
                "{text:?}"
            );
        }
        for text in ["999ms", "61m", "-5s", "5s ago", "999h"] {
            let error = text.parse::<Time<1, 3600>>().expect_err(text);
            assert_eq!(error.to_string(), "write a time from 1s to 1h", "{text:?}");
        }
    }
}
