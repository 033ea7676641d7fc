use std::sync::Arc;
use std::time::Duration;

/// Somebody whom the cluster knows, and whose token it has found good.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClusterUser {
    /// The user's name there: `system:serviceaccount:team-a:ci`, or what the cluster calls people.
    pub name: Arc<str>,
    /// The user's uid, where there is one.
    pub uid: Option<Arc<str>>,
    /// The groups that the user is in: those that fit into [`ClusterUser::GROUP_BYTES_MAX`].
    pub groups: Arc<[String]>,
    /// When the token ends, in seconds since the Unix epoch, where that is known.
    pub expires_at: Option<u64>,
}

impl ClusterUser {
    /// Bytes of all groups' names together. They travel in the registry's own tokens, and a request's head has room for
    /// 32 KiB. Groups beyond that are left out, which can only take rights away.
    pub const GROUP_BYTES_MAX: usize = 12 << 10;
    /// The group whose members may do everything.
    pub const MASTERS: &str = "system:masters";

    /// A user. Groups that do not fit are left out, with a line in the log.
    pub fn new(name: &str, uid: Option<&str>, groups: Vec<String>, expires_at: Option<u64>) -> Self {
        let all = groups.len();
        let mut left = Self::GROUP_BYTES_MAX;
        let fitting = groups.into_iter().map_while(|group| {
            left = left.checked_sub(group.len() + 3)?;
            Some(group)
        });
        let groups: Arc<[String]> = fitting.collect();
        if groups.len() < all {
            tracing::warn!(
                user = name,
                groups = all,
                kept = groups.len(),
                "the user is in more groups than a token can carry; rules for the others do not apply"
            );
        }
        Self { name: name.into(), uid: uid.map(Into::into), groups, expires_at }
    }

    /// How long the token is still good, at a time in seconds since the Unix epoch; `None` where that is not known.
    pub fn time_left(&self, unix_now: u64) -> Option<Duration> {
        self.expires_at.map(|end| Duration::from_secs(end.saturating_sub(unix_now)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_that_a_token_cannot_carry_are_left_out() {
        let groups: Vec<String> = (0..1000).map(|n| format!("{n:040}")).collect();
        let user = ClusterUser::new("jane", None, groups.clone(), None);
        assert_eq!(*user.groups, groups[..ClusterUser::GROUP_BYTES_MAX / 43]);
        assert_eq!(*ClusterUser::new("jane", None, groups[..200].to_vec(), None).groups, groups[..200]);
    }
}
