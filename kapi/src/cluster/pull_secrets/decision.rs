use sha2::{Digest as _, Sha256};

use super::pull_secret::{Filled, PullSecret};

/// The life that is assumed of a token that does not say when it was issued: the shortest that the API server gives, in
/// seconds.
const LIFE_MIN: u64 = 600;

/// What to do with a pull secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// It is as it should be, until then: seconds since the Unix epoch.
    Keep { until: u64 },
    /// A token is to be filled in.
    Fill,
    /// It holds what was filled in for a service account that is not there any more.
    Withdraw,
    /// The service account does not exist yet.
    Wait,
}

/// Decides. `account_uid` is that of the service account, `None` where it does not exist; `uid` is the Secret's own.
pub(super) fn decide(
    secret: &PullSecret,
    namespace: &str,
    uid: &str,
    account_uid: Option<&str>,
    now: u64,
) -> Decision {
    let subject = format!("system:serviceaccount:{namespace}:{}", secret.account);
    let of_account = secret.filled.as_ref().filter(|filled| filled.subject == subject);
    match (of_account, account_uid) {
        // Only what we filled in, for this very account, is taken away with it. Whoever names an account that is yet to
        // come, or writes an entry of their own, loses nothing.
        (Some(_), None) => Decision::Withdraw,
        (None, None) => Decision::Wait,
        (Some(filled), Some(account_uid)) if filled.account_uid == account_uid => {
            let until = renewal(filled, uid);
            if now < until { Decision::Keep { until } } else { Decision::Fill }
        }
        (_, Some(_)) => Decision::Fill,
    }
}

/// When a token is to be replaced: when between 40 and 45 % of its life are left. Where in between is a matter of the
/// Secret, so that those that were made together are not renewed together.
fn renewal(filled: &Filled, uid: &str) -> u64 {
    let life =
        filled.issued_at.and_then(|issued_at| filled.expires_at.checked_sub(issued_at)).unwrap_or(LIFE_MIN);
    let share = u64::from(Sha256::digest(uid)[0]);
    filled.expires_at.saturating_sub(life * 40 / 100).saturating_sub(life * 5 / 100 * share / 256)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::docker_config::DockerConfig;
    use super::*;

    fn filled() -> Filled {
        Filled {
            subject: "system:serviceaccount:team:bot".to_owned(),
            account_uid: "4f2c".to_owned(),
            issued_at: Some(1000),
            expires_at: 11000,
        }
    }

    fn secret(account: &str, filled: Option<Filled>) -> PullSecret {
        let config =
            DockerConfig::parse(json!({"auths": {}}).to_string().as_bytes()).expect("a docker config");
        PullSecret { account: account.to_owned(), filled, noted_hash: None, config }
    }

    fn of(secret: &PullSecret, account_uid: Option<&str>, now: u64) -> Decision {
        decide(secret, "team", "uid", account_uid, now)
    }

    #[test]
    fn what_is_done_when() {
        let good = secret("bot", Some(filled()));
        let Decision::Keep { until } = of(&good, Some("4f2c"), 1000) else { panic!("it is good") };
        assert!((6500..=7000).contains(&until), "{until}");
        assert_eq!(of(&good, Some("4f2c"), until - 1), Decision::Keep { until });
        assert_eq!(of(&good, Some("4f2c"), until), Decision::Fill, "it is time to renew");
        assert_eq!(of(&good, Some("4f2c"), 20000), Decision::Fill, "it has expired");
        assert_eq!(of(&good, Some("5a3d"), 1000), Decision::Fill, "the account was deleted and made again");
        assert_eq!(of(&good, None, 1000), Decision::Withdraw);
        assert_eq!(of(&good, None, 20000), Decision::Withdraw);

        let empty = secret("bot", None);
        assert_eq!(of(&empty, Some("4f2c"), 1000), Decision::Fill);
        assert_eq!(of(&empty, None, 1000), Decision::Wait);

        let renamed = secret("robot", Some(filled()));
        assert_eq!(of(&renamed, Some("77aa"), 1000), Decision::Fill);
        assert_eq!(of(&renamed, Some("4f2c"), 1000), Decision::Fill);
        assert_eq!(of(&renamed, None, 1000), Decision::Wait, "the account that it names now never existed");
        assert_eq!(decide(&good, "other", "uid", None, 1000), Decision::Wait, "a copy in another namespace");
    }

    #[test]
    fn a_token_that_says_little_is_renewed_late_but_before_it_ends() {
        for issued_at in [None, Some(12000)] {
            let secret = secret("bot", Some(Filled { issued_at, ..filled() }));
            let Decision::Keep { until } = of(&secret, Some("4f2c"), 1000) else { panic!("it is good") };
            assert!((10730..=10760).contains(&until), "{until}");
        }
    }

    proptest! {
        #[test]
        fn renewal_is_at_40_to_45_percent(issued_at in 0..u32::MAX, life in 600..10_000_000_u64, uid in "[0-9a-f-]{36}") {
            let expires_at = u64::from(issued_at) + life;
            let until = renewal(&Filled { issued_at: Some(issued_at.into()), expires_at, ..filled() }, &uid);
            let left = expires_at - until;
            prop_assert!(left * 100 + 100 >= life * 40 && left * 100 <= life * 45, "{left} of {life}");
        }
    }
}
