use std::time::Duration;

/// How long a token in a pull secret is good for.
///
/// The API server may shorten it (`--service-account-max-token-expiration`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenLifetime(u32);

/// A duration that no token can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a token's lifetime is at least 10 minutes and at most 2^32 - 1 seconds; {0:?} is not")]
pub struct InvalidTokenLifetime(Duration);

impl TokenLifetime {
    /// The shortest that the API server issues tokens for.
    pub const MIN: Self = Self(10 * 60);

    pub(super) fn seconds(self) -> i64 {
        self.0.into()
    }
}

impl Default for TokenLifetime {
    /// A day: it is renewed after some 14 hours, so that this program can be away for 9 before a pull fails.
    fn default() -> Self {
        Self(24 * 60 * 60)
    }
}

impl TryFrom<Duration> for TokenLifetime {
    type Error = InvalidTokenLifetime;

    fn try_from(duration: Duration) -> Result<Self, InvalidTokenLifetime> {
        match u32::try_from(duration.as_secs()) {
            Ok(seconds) if seconds >= Self::MIN.0 => Ok(Self(seconds)),
            _ => Err(InvalidTokenLifetime(duration)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_lifetimes_there_are() {
        for (seconds, expected) in [
            (0, None),
            (599, None),
            (600, Some(600)),
            (86400, Some(86400)),
            (u64::from(u32::MAX), Some(i64::from(u32::MAX))),
            (u64::from(u32::MAX) + 1, None),
        ] {
            let lifetime = TokenLifetime::try_from(Duration::from_secs(seconds)).ok();
            assert_eq!(lifetime.map(TokenLifetime::seconds), expected, "{seconds}");
        }
    }
}
