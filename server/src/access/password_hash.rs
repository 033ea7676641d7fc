use std::fmt;
use std::str::FromStr;

/// A bcrypt hash of a password: `$2b$12$…`, also in the versions `$2a$` and `$2y$`.
///
/// Whoever holds the hash can try passwords on it at home, so it is never shown, neither by `Debug` nor in an error.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash {
    text: Box<str>,
    cost: u32,
}

/// Why a text is no [`PasswordHash`]. Holds nothing of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPasswordHash {
    /// Not a bcrypt hash at all.
    #[error(
        "it is no bcrypt hash, which has 60 characters and begins with $2a$, $2b$ or $2y$; `payload-registry config hash-password` makes one"
    )]
    Format,
    /// A bcrypt hash that takes too long to check.
    #[error(
        "its bcrypt cost is {0}, which would take seconds of CPU for each login; the most is {max}",
        max = PasswordHash::COST_MAX
    )]
    Cost(u32),
    /// A bcrypt hash that is quickly guessed, or none at all.
    #[error("its bcrypt cost is {0}; bcrypt begins with {min}", min = PasswordHash::COST_MIN)]
    Cheap(u32),
}

/// Why no hash can be made of a password.
#[derive(Debug, thiserror::Error)]
pub enum InvalidPassword {
    /// Nothing at all.
    #[error("the password is empty")]
    Empty,
    /// More than bcrypt looks at.
    #[error("the password has {0} bytes; bcrypt looks at no more than {max}", max = PasswordHash::PASSWORD_LEN_MAX)]
    Long(usize),
    /// A character that Basic authentication cannot carry.
    #[error("the password holds a control character, such as a tab, which a login cannot carry")]
    Control,
    /// A cost outside of what is accepted of a hash.
    #[error("the cost is {0}; it is {min} to {max}", min = PasswordHash::COST_MIN, max = PasswordHash::COST_MAX)]
    Cost(u32),
    /// The system gave no random bytes for the salt.
    #[error("cannot get random bytes from the system: {0}")]
    Random(getrandom::Error),
}

impl PasswordHash {
    /// Least cost there is in bcrypt: 2⁴ rounds.
    pub const COST_MIN: u32 = 4;
    /// Highest cost accepted of a hash: 2¹⁵ rounds, about two seconds of CPU for a login.
    pub const COST_MAX: u32 = 15;
    /// Cost of a new hash, where none is asked for: a quarter of a second of CPU at most.
    pub const COST_DEFAULT: u32 = 12;
    /// Longest password in bytes of which a new hash is made: bcrypt ignores what comes behind 72 bytes, of which
    /// one is the zero at the end.
    pub const PASSWORD_LEN_MAX: usize = 71;

    /// Makes a hash of `password` with 2^`cost` rounds and a new salt.
    pub fn of(password: &str, cost: u32) -> Result<Self, InvalidPassword> {
        if password.is_empty() {
            return Err(InvalidPassword::Empty);
        }
        if password.len() > Self::PASSWORD_LEN_MAX {
            return Err(InvalidPassword::Long(password.len()));
        }
        if password.chars().any(char::is_control) {
            return Err(InvalidPassword::Control);
        }
        if !(Self::COST_MIN..=Self::COST_MAX).contains(&cost) {
            return Err(InvalidPassword::Cost(cost));
        }
        let mut salt = [0; 16];
        getrandom::fill(&mut salt).map_err(InvalidPassword::Random)?;
        let hash = bcrypt::hash_with_salt(password, cost, salt).map_err(|_| InvalidPassword::Cost(cost))?;
        Ok(Self { text: hash.to_string().into(), cost })
    }

    /// Whether `password` is the one that was hashed. Takes 2^cost rounds of CPU, and does not tell by its time
    /// where the difference is.
    pub fn verify(&self, password: &[u8]) -> bool {
        bcrypt::verify(password, &self.text).unwrap_or(false)
    }

    /// The binary logarithm of the number of rounds.
    pub fn cost(&self) -> u32 {
        self.cost
    }

    /// The hash itself, to be shown to the one who made it.
    pub fn reveal(&self) -> &str {
        &self.text
    }
}

impl FromStr for PasswordHash {
    type Err = InvalidPasswordHash;

    fn from_str(text: &str) -> Result<Self, InvalidPasswordHash> {
        // $2x$ marks hashes of a faulty implementation, which differ for passwords outside of ASCII.
        if !["$2a$", "$2b$", "$2y$"].iter().any(|version| text.starts_with(version)) {
            return Err(InvalidPasswordHash::Format);
        }
        let parts: bcrypt::HashParts = text.parse().map_err(|_| InvalidPasswordHash::Format)?;
        match parts.get_cost() {
            cost if cost < Self::COST_MIN => Err(InvalidPasswordHash::Cheap(cost)),
            cost if cost > Self::COST_MAX => Err(InvalidPasswordHash::Cost(cost)),
            cost => Ok(Self { text: text.into(), cost }),
        }
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_of_each_version_verify() {
        let hash = PasswordHash::of("päss:wörd", 4).expect("valid");
        for version in ["$2a$", "$2b$", "$2y$"] {
            let text = hash.reveal().replacen("$2b$", version, 1);
            let hash: PasswordHash = text.parse().expect("valid");
            assert!(hash.verify("päss:wörd".as_bytes()));
            assert!(!hash.verify(b"other"));
            assert!(!hash.verify(b""));
            assert_eq!(hash.cost(), 4);
        }
    }

    #[test]
    fn a_hash_of_another_implementation_verifies() {
        // The first vector of jBCrypt's tests that has a password, and the crypt_blowfish one with $2a$.
        for (hash, password) in [
            ("$2a$06$If6bvum7DFjUnE9p2uDeDu0YHzrHM6tf.iqN8.yx.jNN1ILEf7h0i", "abc"),
            ("$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "U*U"),
        ] {
            assert!(hash.parse::<PasswordHash>().expect("valid").verify(password.as_bytes()), "{password}");
        }
    }

    #[test]
    fn other_texts_are_refused_and_not_repeated() {
        let good = PasswordHash::of("secret", 4).expect("valid").reveal().to_owned();
        for bad in [
            "",
            "secret",
            "$2b$",
            &good[..59],
            &format!("{good}x"),
            &good.replacen("$2b$", "$2x$", 1),
            &good.replacen("$2b$", "$1$$", 1),
            &format!("{}é", &good[..58]),
            &good.replacen("$04$", "$ab$", 1),
        ] {
            let error = bad.parse::<PasswordHash>().expect_err(bad);
            assert_eq!(error, InvalidPasswordHash::Format, "{bad}");
            assert!(!error.to_string().contains("secret"));
        }
        assert_eq!(
            good.replacen("$04$", "$16$", 1).parse::<PasswordHash>(),
            Err(InvalidPasswordHash::Cost(16))
        );
        assert_eq!(
            good.replacen("$04$", "$03$", 1).parse::<PasswordHash>(),
            Err(InvalidPasswordHash::Cheap(3))
        );
        assert!(good.replacen("$04$", "$15$", 1).parse::<PasswordHash>().is_ok());
    }

    #[test]
    fn debug_shows_nothing() {
        let hash = PasswordHash::of("secret", 4).expect("valid");
        assert_eq!(format!("{hash:?}"), "PasswordHash(…)");
    }

    #[test]
    fn passwords_that_no_login_could_carry_are_refused() {
        assert!(matches!(PasswordHash::of("", 4), Err(InvalidPassword::Empty)));
        assert!(matches!(PasswordHash::of("a\tb", 4), Err(InvalidPassword::Control)));
        assert!(matches!(PasswordHash::of(&"a".repeat(72), 4), Err(InvalidPassword::Long(72))));
        assert!(matches!(PasswordHash::of("a", 16), Err(InvalidPassword::Cost(16))));
        assert!(matches!(PasswordHash::of("a", 3), Err(InvalidPassword::Cost(3))));
        let longest = "a".repeat(71);
        assert!(PasswordHash::of(&longest, 4).expect("valid").verify(longest.as_bytes()));
    }
}
