use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{fmt, io, thread};

use hmac::{Hmac, KeyInit as _, Mac as _};
use http::HeaderValue;
use sha2::Sha256;

use super::basic_credentials::BasicCredentials;
use super::verdict_cache::{CredentialsKey, Keep, Lookup, VerdictCache};
use super::verification_pool::VerificationPool;
use super::{
    Authority, Identity, MalformedCredentials, PasswordHash, ReviewError, TokenIssuer, UserName, Users,
};

/// Verdicts that are remembered, pending ones among them: about 100 bytes each.
const VERDICTS_MAX: usize = 1024;
/// Verifications that wait for a thread: with a quarter of a second each and one thread, half a minute of work, which
/// is as long as clients are willing to wait.
const QUEUE_MAX: usize = 128;
/// Threads that verify passwords, on however large a machine: what is left over belongs to the transfers.
const THREADS_MAX: usize = 4;

// There is always a verdict that may be forgotten: fewer are pending than there is room for.
const _: () = assert!(QUEUE_MAX + THREADS_MAX < VERDICTS_MAX);

/// How long a right password is remembered after it was last used. The hashes do not change while the process lives, so
/// such a verdict stays true; it is forgotten to have the room.
const KEEP_RIGHT: Keep = Keep::SinceUse(Duration::from_secs(5 * 60));
/// How long a wrong password is remembered: enough to make a client cheap that tries in a loop.
const KEEP_WRONG: Keep = Keep::For(Duration::from_secs(5));

/// What came of a pair of user name and password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Right,
    Wrong,
}

impl super::verdict_cache::Verdict for Verdict {
    fn is_right(&self) -> bool {
        *self == Self::Right
    }
}

/// Why a caller is nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthenticationError {
    /// The header was not understood: 401.
    #[error("{0}")]
    Malformed(#[from] MalformedCredentials),
    /// No such user, or another password; which of both is not told: 401.
    #[error("the user name or the password is wrong")]
    Wrong,
    /// A token that is not one of ours, or has expired: 401.
    #[error("the token is not ours, or has expired; get a new one")]
    Token,
    /// A token of the cluster's that is not good, 401, or cannot be reviewed, 503.
    #[error("{0}")]
    Review(#[from] ReviewError),
    /// Too many logins wait to be verified: 503, and not a word on whether the credentials are good.
    #[error("too many logins at once; try again in a few seconds")]
    Overloaded,
}

impl AuthenticationError {
    /// Whether the registry is at fault, and the credentials may be good: 503.
    pub fn is_failure(self) -> bool {
        matches!(self, Self::Overloaded | Self::Review(ReviewError::Unavailable))
    }
}

/// Finds out who sent a request, by its `Authorization` header.
///
/// | header | with |
/// | --- | --- |
/// | Basic | the name and the password of a static user |
/// | Basic | the name `token`, and a token of the cluster's as the password |
/// | Bearer | a token that this registry has issued (its `iss` says so) |
/// | Bearer | a token of the cluster's |
///
/// A password costs up to a second of CPU to verify. That happens on threads of the authenticator's own, and its
/// future only waits for them. What was verified is remembered under a keyed hash of user name and password. A token of
/// the cluster's is reviewed by the [`Authority`], one of the registry's own costs a hash.
pub struct Authenticator {
    users: Arc<Users>,
    authority: Arc<Authority>,
    tokens: TokenIssuer,
    /// Random, as long as a block of the hash.
    key: [u8; 64],
    verdicts: Arc<VerdictCache<Verdict>>,
    /// `None` where there are no users.
    pool: Option<VerificationPool>,
    /// The highest cost of a user's hash: what every failure takes.
    cost: u32,
    verifications: Arc<AtomicU64>,
}

impl Authenticator {
    /// An authenticator for `users`, and for those whom `authority` knows. Fails where the system gives no random bytes or
    /// no threads.
    pub fn new(users: Arc<Users>, authority: Arc<Authority>) -> io::Result<Self> {
        let mut key = [0; 64];
        getrandom::fill(&mut key).map_err(io::Error::other)?;
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        let pool = match users.is_empty() {
            true => None,
            false => Some(VerificationPool::start((cpus / 4).clamp(1, THREADS_MAX), QUEUE_MAX)?),
        };
        let costs = users.iter().filter_map(|(_, user)| user.password_hash.as_ref()).map(PasswordHash::cost);
        let cost = costs.max().unwrap_or(PasswordHash::COST_DEFAULT);
        let (tokens, verdicts) = (TokenIssuer::new()?, VerdictCache::new(VERDICTS_MAX));
        Ok(Self { users, authority, tokens, key, verdicts, pool, cost, verifications: Arc::default() })
    }

    /// Who sent a request with this `Authorization` header.
    ///
    /// Where nobody can log in, everybody is anonymous, whatever the header says, because a client that still has
    /// credentials from before should be served like all the others.
    pub async fn authenticate(&self, header: Option<&HeaderValue>) -> Result<Identity, AuthenticationError> {
        let Some(header) = header.filter(|_| self.has_logins()) else { return Ok(Identity::Anonymous) };
        match bearer_token(header) {
            Some(token) if TokenIssuer::claims_to_be_ours(token) || !self.authority.is_enabled() => {
                self.tokens.check(token).ok_or(AuthenticationError::Token)
            }
            Some(token) => Ok(Identity::ClusterUser(self.authority.review(token).await?)),
            None => self.log_in(BasicCredentials::parse(header)?).await,
        }
    }

    /// Who logs in with this `Authorization` header to get a token, and by which user name. The registry's own tokens are
    /// no login: nobody may go on for ever with one.
    pub async fn authenticate_for_token(&self, header: &HeaderValue) -> Result<Login, AuthenticationError> {
        if let Some(token) = bearer_token(header) {
            if TokenIssuer::claims_to_be_ours(token) || !self.authority.is_enabled() {
                return Err(AuthenticationError::Token);
            }
            let identity = Identity::ClusterUser(self.authority.review(token).await?);
            return Ok(Login { identity, user: UserName::TOKEN.to_owned() });
        }
        let credentials = BasicCredentials::parse(header)?;
        let user = credentials.user.clone();
        Ok(Login { identity: self.log_in(credentials).await?, user })
    }

    async fn log_in(&self, credentials: BasicCredentials) -> Result<Identity, AuthenticationError> {
        if credentials.user == UserName::TOKEN && self.authority.is_enabled() {
            return Ok(Identity::ClusterUser(self.authority.review(&credentials.password).await?));
        }
        let Some(pool) = &self.pool else { return Err(AuthenticationError::Wrong) };
        let user = credentials.user.clone();
        let verdict = match self.verdicts.look_up(self.credentials_key(&credentials), Instant::now()) {
            Lookup::Known(verdict) => verdict,
            Lookup::Wait(receiver) => receiver.await.map_err(|_| AuthenticationError::Overloaded)?,
            Lookup::Verify(flight, receiver) => {
                let (users, cost, verifications) =
                    (self.users.clone(), self.cost, self.verifications.clone());
                // On failure the job is dropped, and the flight in it: the receiver says so.
                let _ = pool.submit(move || {
                    verifications.fetch_add(1, Ordering::Relaxed);
                    let verdict = verify(&users, &credentials, cost);
                    let keep = if verdict == Verdict::Right { KEEP_RIGHT } else { KEEP_WRONG };
                    flight.land(verdict, keep, Instant::now());
                });
                receiver.await.map_err(|_| AuthenticationError::Overloaded)?
            }
        };
        match (verdict, self.users.get(&user)) {
            (Verdict::Right, Some((name, _))) => Ok(Identity::StaticUser(name.clone())),
            _ => Err(AuthenticationError::Wrong),
        }
    }

    /// Whether anybody can log in at all, so that it makes sense to ask for credentials.
    pub fn has_logins(&self) -> bool {
        self.pool.is_some() || self.authority.is_enabled()
    }

    /// Issues the registry's own tokens.
    pub fn tokens(&self) -> &TokenIssuer {
        &self.tokens
    }

    /// How many passwords were verified since the start; all other logins were answered from memory.
    pub fn verifications(&self) -> u64 {
        self.verifications.load(Ordering::Relaxed)
    }

    fn credentials_key(&self, credentials: &BasicCredentials) -> CredentialsKey {
        let mut mac = Hmac::<Sha256>::new(&self.key.into());
        // The colon ends the user name, which has none, so no other pair gives the same bytes.
        mac.update(credentials.user.as_bytes());
        mac.update(b":");
        mac.update(credentials.password.as_bytes());
        mac.finalize().into_bytes().into()
    }
}

/// Who logged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// The caller.
    pub identity: Identity,
    /// The user name that was typed, which for a token of the cluster's is not the caller's.
    pub user: String,
}

/// The token of a header of the scheme Bearer (RFC 6750).
fn bearer_token(header: &HeaderValue) -> Option<&str> {
    let (scheme, token) = header.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticator").field("users", &self.users.len()).finish_non_exhaustive()
    }
}

/// Verifies a password. Every failure takes 2^`cost` rounds, whether the user exists, has a hash or a cheaper one, so
/// that its time does not tell which users there are.
fn verify(users: &Users, credentials: &BasicCredentials, cost: u32) -> Verdict {
    let hash = users.get(&credentials.user).and_then(|(_, user)| user.password_hash.as_ref());
    if hash.is_some_and(|hash| hash.verify(credentials.password.as_bytes())) {
        return Verdict::Right;
    }
    work_left(hash.map(PasswordHash::cost), cost).for_each(work);
    Verdict::Wrong
}

/// The costs of what is still to be worked where a hash of the cost `verified`, or none, has been looked at, until 2^`cost`
/// rounds are done: 2^c + 2^c + 2^(c+1) + … + 2^(cost-1) = 2^cost.
fn work_left(verified: Option<u32>, cost: u32) -> Range<u32> {
    match verified {
        Some(verified) => verified..cost,
        None => cost..cost + 1,
    }
}

/// Takes as long as the verification of a hash of this cost.
fn work(cost: u32) {
    std::hint::black_box(bcrypt::bcrypt(cost, [0; 16], b"nobody's password\0"));
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Wake, Waker};
    use std::thread::Thread;

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::super::{User, UserName};
    use super::*;

    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    /// The least there is of a runtime, to show that no other is needed.
    fn block_on<F: Future>(future: F) -> F::Output {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut future = pin!(future);
        loop {
            match future.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(output) => return output,
                Poll::Pending => thread::park(),
            }
        }
    }

    fn user(password: Option<&str>, cost: u32) -> User {
        let password_hash = password.map(|password| PasswordHash::of(password, cost).expect("valid"));
        User { password_hash, projects: Vec::new() }
    }

    fn authenticator(cost: u32) -> Authenticator {
        let name = |text: &str| text.parse::<UserName>().expect("valid");
        let users = [
            (name("jane"), user(Some("pass:wörd"), cost)),
            (name("quick"), user(Some("quick"), 4)),
            (name("ghost"), user(None, cost)),
        ];
        let authority = Arc::new(Authority::new(false).expect("random bytes"));
        Authenticator::new(Arc::new(users.into_iter().collect()), authority).expect("authenticator")
    }

    fn login(
        authenticator: &Authenticator,
        user: &str,
        password: &str,
    ) -> Result<String, AuthenticationError> {
        let header = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
        let header = HeaderValue::from_str(&header).expect("a header");
        block_on(authenticator.authenticate(Some(&header))).map(|identity| identity.name().to_owned())
    }

    #[test]
    fn logins() {
        let authenticator = authenticator(4);
        assert_eq!(block_on(authenticator.authenticate(None)), Ok(Identity::Anonymous));
        assert_eq!(login(&authenticator, "jane", "pass:wörd"), Ok("jane".to_owned()));
        for (user, password) in
            [("jane", "pass"), ("jane", ""), ("Jane", "pass:wörd"), ("", ""), ("john", "pass:wörd")]
        {
            assert_eq!(login(&authenticator, user, password), Err(AuthenticationError::Wrong), "{user}");
        }
        let answer = |header| block_on(authenticator.authenticate(Some(&HeaderValue::from_static(header))));
        let unknown = Err(AuthenticationError::Malformed(MalformedCredentials::Scheme));
        assert_eq!(answer("Digest abc"), unknown);
        assert_eq!(answer("Bearer abc"), Err(AuthenticationError::Token));
        // Nobody reviews tokens here.
        assert_eq!(login(&authenticator, "token", "abc"), Err(AuthenticationError::Wrong));
    }

    #[test]
    fn a_token_is_taken_for_requests_and_not_for_another_token() {
        let authenticator = authenticator(4);
        let identity = Identity::StaticUser("jane".parse().expect("valid"));
        let issued = authenticator.tokens().issue(&identity, Vec::new()).expect("a token");
        let header = HeaderValue::from_str(&format!("bearer {}", issued.token)).expect("a header");
        assert_eq!(block_on(authenticator.authenticate(Some(&header))), Ok(identity));
        let refused = block_on(authenticator.authenticate_for_token(&header));
        assert_eq!(refused, Err(AuthenticationError::Token));
    }

    #[test]
    fn a_user_without_a_hash_never_logs_in() {
        let authenticator = authenticator(4);
        for password in ["", "ghost", "null", "None", "$2b$04$", "*", "!"] {
            assert_eq!(
                login(&authenticator, "ghost", password),
                Err(AuthenticationError::Wrong),
                "{password:?}"
            );
        }
    }

    #[test]
    fn without_users_everybody_is_anonymous() {
        let authority = Arc::new(Authority::new(false).expect("random bytes"));
        let authenticator = Authenticator::new(Arc::default(), authority).expect("authenticator");
        assert_eq!(login(&authenticator, "jane", "any"), Ok("anonymous".to_owned()));
        assert!(!authenticator.has_logins());
        // Where the cluster's users log in, who is nobody is told so.
        let authority = Arc::new(Authority::new(true).expect("random bytes"));
        let authenticator = Authenticator::new(Arc::default(), authority).expect("authenticator");
        assert_eq!(login(&authenticator, "jane", "any"), Err(AuthenticationError::Wrong));
        let nobody_reviews = Err(AuthenticationError::Review(ReviewError::Unavailable));
        assert_eq!(login(&authenticator, "token", "any"), nobody_reviews);
    }

    #[test]
    fn a_verdict_is_remembered_for_these_very_credentials() {
        let authenticator = authenticator(4);
        for _ in 0..10 {
            assert!(login(&authenticator, "jane", "pass:wörd").is_ok());
            assert!(login(&authenticator, "jane", "wrong").is_err());
            assert!(login(&authenticator, "quick", "pass:wörd").is_err());
        }
        assert_eq!(authenticator.verifications(), 3);
    }

    #[test]
    fn the_same_credentials_are_verified_once_at_a_time() {
        let authenticator = authenticator(8);
        thread::scope(|scope| {
            for _ in 0..32 {
                scope.spawn(|| assert_eq!(login(&authenticator, "jane", "pass:wörd"), Ok("jane".to_owned())));
            }
        });
        assert_eq!(authenticator.verifications(), 1);
    }

    #[test]
    fn more_logins_than_the_queue_holds_are_turned_away() {
        let authenticator = authenticator(6);
        let results: Vec<_> = thread::scope(|scope| {
            let authenticator = &authenticator;
            let threads: Vec<_> = (0..QUEUE_MAX + 4 * THREADS_MAX + 32)
                .map(|n| scope.spawn(move || login(authenticator, "nobody", &n.to_string())))
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        });
        assert!(
            results
                .iter()
                .all(|r| matches!(r, Err(AuthenticationError::Wrong | AuthenticationError::Overloaded)))
        );
        // Those who were turned away can try again.
        assert_eq!(login(&authenticator, "jane", "pass:wörd"), Ok("jane".to_owned()));
    }

    #[test]
    fn a_full_queue_is_overload_and_not_a_wrong_password() {
        let mut authenticator = authenticator(4);
        // No thread takes anything out, and there is room for one.
        authenticator.pool = Some(VerificationPool::start(0, 0).expect("no threads"));
        assert_eq!(login(&authenticator, "jane", "pass:wörd"), Err(AuthenticationError::Overloaded));
        authenticator.pool = Some(VerificationPool::start(1, 1).expect("a thread"));
        assert_eq!(login(&authenticator, "jane", "pass:wörd"), Ok("jane".to_owned()));
    }

    #[test]
    fn failures_take_the_same_work() {
        let authenticator = authenticator(9);
        // A wrong password, one with a hash of another cost, a user without a hash, and no such user.
        for user in ["jane", "quick", "ghost", "nobody"] {
            let credentials = BasicCredentials { user: user.to_owned(), password: "wrong".to_owned() };
            assert_eq!(verify(&authenticator.users, &credentials, authenticator.cost), Verdict::Wrong);
        }
        for verified in [None, Some(4), Some(8), Some(9)] {
            let left: u32 = work_left(verified, 9).map(|cost| 1 << cost).sum();
            assert_eq!(verified.map_or(0, |cost| 1 << cost) + left, 1 << 9, "{verified:?}");
        }
    }

    #[test]
    fn debug_shows_no_key() {
        let text = format!("{:?}", authenticator(4));
        assert_eq!(text, "Authenticator { users: 3, .. }");
    }
}
