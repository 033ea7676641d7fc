use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{fmt, io};

use engine::runtime;
use hmac::{Hmac, KeyInit as _, Mac as _};
use interface::PendingReview;
use sha2::Sha256;
use tokio::sync::Notify;

use super::ClusterUser;
use super::verdict_cache::{CredentialsKey, Flight, Keep, Lookup, Verdict, VerdictCache};

/// Bytes of a token that is reviewed: far more than any issuer makes.
const TOKEN_BYTES_MAX: usize = 16 << 10;
/// Verdicts that are remembered, pending ones among them: some hundred bytes each, more for users in many groups.
const VERDICTS_MAX: usize = 4096;
/// Reviews that wait, for somebody to take them or for their answer.
const PENDING_MAX: usize = 512;
/// Reviews that one call takes away.
const BATCH_MAX: usize = 64;
/// How long a review may take.
const REVIEW_TIME: Duration = Duration::from_secs(10);
/// When a review that was taken and not answered is given to somebody else, too: the one who took it may be gone without
/// a word. Less than half of [`REVIEW_TIME`], so that there is time for the other one.
const RETAKE_TIME: Duration = Duration::from_secs(4);
/// For how long after a call that waited for reviews another one is expected.
const ATTENDANCE_TIME: Duration = Duration::from_secs(5);
/// How long a good token is taken for good without asking again: what a revocation may take until it is noticed here.
const KEEP_USER: Duration = Duration::from_secs(60);
/// How long a token that is not good is refused without asking again.
const KEEP_REFUSED: Duration = Duration::from_secs(5);
/// How long is not asked again when nobody could say: so that clients that try in a loop do not add to the trouble.
const KEEP_UNAVAILABLE: Duration = Duration::from_secs(1);

// There is always a verdict that may be forgotten: fewer are pending than there is room for.
const _: () = assert!(PENDING_MAX < VERDICTS_MAX);

/// Why a token tells nothing of its bearer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReviewError {
    /// It is not good, or not for this registry: 401.
    #[error("the token is not good for this registry, or has expired; get a new one")]
    Refused,
    /// Nobody could say: 503, and not a word on whether the token is good.
    #[error("the cluster cannot be asked now whose token this is; try again in a few seconds")]
    Unavailable,
}

/// Reviews of tokens: somebody outside takes them (long poll) and answers them. What was answered is remembered for a
/// while under a keyed hash of the token, and of requests with the same token at the same time, one is reviewed and the
/// others wait for it.
pub(super) struct Reviews {
    /// Random, as long as a block of the hash.
    key: [u8; 64],
    verdicts: Arc<VerdictCache<Outcome>>,
    desk: Mutex<Desk>,
    /// Wakes those who wait for reviews.
    work: Notify,
    counts: Counts,
}

/// What came of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    User(Arc<ClusterUser>),
    Refused,
    Unavailable,
}

/// Names somebody who takes reviews.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReviewerId(u64);

/// The reviews that wait, and who takes care of them.
struct Desk {
    /// Names the next review. Begins at random, so that an answer that was meant for a process before this one is no
    /// answer to a review of this one.
    next_id: u64,
    next_reviewer: u64,
    /// Those without an answer, in their order.
    pending: BTreeMap<u64, Pending>,
    /// Calls that wait for reviews.
    calls: usize,
    /// When the last of them ended.
    last_call: Option<Instant>,
    /// Whether somebody was told already that something else than reviews is missing.
    has_told_needs: bool,
}

/// A review without an answer. Dropped, it lets those fail who wait.
struct Pending {
    token: Box<str>,
    flight: Flight<Outcome>,
    give_up_at: Instant,
    /// Who took it last, and when; `None`: nobody, or somebody who has left.
    taken: Option<(ReviewerId, Instant)>,
}

#[derive(Default)]
struct Counts {
    users: AtomicU64,
    refused: AtomicU64,
    unavailable: AtomicU64,
    unanswered: AtomicU64,
    remembered: AtomicU64,
}

/// What became of tokens since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReviewCounts {
    /// Reviews that found a token good.
    pub users: u64,
    /// Reviews that found a token not good.
    pub refused: u64,
    /// Reviews that ended without a verdict.
    pub unavailable: u64,
    /// Reviews that nobody took or answered in time, or that there were too many for.
    pub unanswered: u64,
    /// Tokens whose verdict was remembered.
    pub remembered: u64,
}

impl Reviews {
    /// Fails where the system gives no random bytes.
    pub(super) fn new() -> io::Result<Self> {
        let (mut key, mut first_id) = ([0; 64], [0; 8]);
        getrandom::fill(&mut key).map_err(io::Error::other)?;
        getrandom::fill(&mut first_id).map_err(io::Error::other)?;
        let desk = Desk {
            next_id: u64::from_le_bytes(first_id),
            next_reviewer: 0,
            pending: BTreeMap::new(),
            calls: 0,
            last_call: None,
            has_told_needs: false,
        };
        Ok(Self {
            key,
            verdicts: VerdictCache::new(VERDICTS_MAX),
            desk: Mutex::new(desk),
            work: Notify::new(),
            counts: Counts::default(),
        })
    }

    /// Whose token this is. Waits for the review, [`REVIEW_TIME`] at most.
    pub(super) async fn review(&self, token: &str) -> Result<Arc<ClusterUser>, ReviewError> {
        // RFC 6750 tokens have nothing else; what cannot be one is not worth anybody's time.
        if token.is_empty() || token.len() > TOKEN_BYTES_MAX || !token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(ReviewError::Refused);
        }
        let receiver = match self.verdicts.look_up(self.token_key(token), Instant::now()) {
            Lookup::Known(outcome) => {
                self.counts.remembered.fetch_add(1, Ordering::Relaxed);
                return outcome.into_result(unix_now());
            }
            Lookup::Wait(receiver) => receiver,
            Lookup::Verify(flight, receiver) => {
                if !self.submit(token, flight, Instant::now()) {
                    self.counts.unanswered.fetch_add(1, Ordering::Relaxed);
                    return Err(ReviewError::Unavailable);
                }
                receiver
            }
        };
        match runtime::timeout(REVIEW_TIME, receiver).await {
            Ok(Ok(outcome)) => outcome.into_result(unix_now()),
            // Somebody else gave it up.
            Ok(Err(_)) => Err(ReviewError::Unavailable),
            Err(_) => {
                self.give_up(Instant::now());
                Err(ReviewError::Unavailable)
            }
        }
    }

    /// Names somebody who is going to take reviews, until [`Reviews::leave`].
    pub(super) fn enter(&self) -> ReviewerId {
        let mut desk = self.desk();
        desk.next_reviewer += 1;
        ReviewerId(desk.next_reviewer)
    }

    /// Gives the reviews to others that this one has taken and not answered.
    pub(super) fn leave(&self, reviewer: ReviewerId) {
        let mut is_any_free = false;
        for pending in self.desk().pending.values_mut() {
            if pending.taken.take_if(|(by, _)| *by == reviewer).is_some() {
                is_any_free = true;
            }
        }
        if is_any_free {
            self.work.notify_one();
        }
    }

    /// Waits for reviews, `wait` at most. Where `has_needs` says that something else is missing, the first call returns at
    /// once. Dropped before that, it has taken nothing.
    pub(super) async fn next(
        &self,
        reviewer: ReviewerId,
        wait: Duration,
        has_needs: impl Fn() -> bool,
    ) -> Vec<PendingReview> {
        let _attending = Attending::new(self);
        let until = Instant::now() + wait;
        loop {
            let mut notified = pin!(self.work.notified());
            notified.as_mut().enable();
            let now = Instant::now();
            self.give_up(now);
            let reviews = self.take(reviewer, now);
            let tells = !std::mem::replace(&mut self.desk().has_told_needs, true) && has_needs();
            if tells || !reviews.is_empty() {
                return reviews;
            }
            if now >= until {
                return reviews;
            }
            // Whether it was woken makes no difference: it looks again.
            let _ = runtime::timeout(RETAKE_TIME.min(until - now), notified).await;
        }
    }

    /// Answers a review. One that is not pending (any more) is not looked at.
    pub(super) fn answer(&self, id: u64, verdict: interface::Verdict) {
        let Some(pending) = self.desk().pending.remove(&id) else {
            tracing::debug!(id, "the answer to a review that nobody waits for");
            return;
        };
        let (outcome, count) = match verdict {
            interface::Verdict::User { name, uid, groups, expires_at } => {
                let user = ClusterUser::new(&name, uid.as_deref(), groups, expires_at);
                (Outcome::User(Arc::new(user)), &self.counts.users)
            }
            interface::Verdict::Refused => (Outcome::Refused, &self.counts.refused),
            interface::Verdict::Unavailable { message } => {
                tracing::warn!(message, "a token could not be reviewed");
                (Outcome::Unavailable, &self.counts.unavailable)
            }
        };
        count.fetch_add(1, Ordering::Relaxed);
        let keep = outcome.keep(unix_now());
        pending.flight.land(outcome, keep, Instant::now());
    }

    pub(super) fn counts(&self) -> ReviewCounts {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        ReviewCounts {
            users: read(&self.counts.users),
            refused: read(&self.counts.refused),
            unavailable: read(&self.counts.unavailable),
            unanswered: read(&self.counts.unanswered),
            remembered: read(&self.counts.remembered),
        }
    }

    /// Puts a token on the desk; false where nobody looks after it, or it is full.
    fn submit(&self, token: &str, flight: Flight<Outcome>, now: Instant) -> bool {
        let mut desk = self.desk();
        if !desk.is_attended(now) || desk.pending.len() >= PENDING_MAX {
            return false;
        }
        let id = desk.next_id;
        desk.next_id = id.wrapping_add(1);
        let give_up_at = now + REVIEW_TIME;
        desk.pending.insert(id, Pending { token: token.into(), flight, give_up_at, taken: None });
        drop(desk);
        self.work.notify_one();
        true
    }

    /// Takes reviews that nobody has taken, or not answered; they stay pending.
    fn take(&self, reviewer: ReviewerId, now: Instant) -> Vec<PendingReview> {
        let mut desk = self.desk();
        let mut free = desk.pending.iter_mut().filter(|(_, pending)| pending.is_free(now));
        let take = |(id, pending): (&u64, &mut Pending)| {
            pending.taken = Some((reviewer, now));
            PendingReview { id: *id, token: pending.token.clone().into() }
        };
        let reviews = free.by_ref().take(BATCH_MAX).map(take).collect();
        if free.next().is_some() {
            self.work.notify_one();
        }
        reviews
    }

    /// Gives up the reviews that took too long.
    fn give_up(&self, now: Instant) {
        let overdue: Vec<Pending> = self
            .desk()
            .pending
            .extract_if(.., |_, pending| pending.give_up_at <= now)
            .map(|(_, one)| one)
            .collect();
        if !overdue.is_empty() {
            self.counts.unanswered.fetch_add(overdue.len() as u64, Ordering::Relaxed);
            tracing::warn!(reviews = overdue.len(), "reviews of tokens were not answered in time");
        }
    }

    fn token_key(&self, token: &str) -> CredentialsKey {
        let mut mac = Hmac::<Sha256>::new(&self.key.into());
        mac.update(token.as_bytes());
        mac.finalize().into_bytes().into()
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        // Nothing in here can panic half-way through a change, so a poisoned desk is a whole one.
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Desk {
    /// Whether somebody takes reviews, or did a moment ago.
    fn is_attended(&self, now: Instant) -> bool {
        self.calls > 0 || self.last_call.is_some_and(|at| now < at + ATTENDANCE_TIME)
    }
}

impl Pending {
    /// Whether nobody is at work on it, as far as that can be told.
    fn is_free(&self, now: Instant) -> bool {
        self.taken.is_none_or(|(_, at)| at + RETAKE_TIME <= now)
    }
}

/// A call that waits for reviews, for as long as it lives.
struct Attending<'a>(&'a Reviews);

impl<'a> Attending<'a> {
    fn new(reviews: &'a Reviews) -> Self {
        reviews.desk().calls += 1;
        Self(reviews)
    }
}

impl Drop for Attending<'_> {
    fn drop(&mut self) {
        let mut desk = self.0.desk();
        desk.calls -= 1;
        desk.last_call = Some(Instant::now());
    }
}

impl Verdict for Outcome {
    fn is_right(&self) -> bool {
        matches!(self, Self::User(_))
    }
}

impl Outcome {
    /// How long it is remembered: never past the end of the token.
    fn keep(&self, unix_now: u64) -> Keep {
        Keep::For(match self {
            Self::User(user) => user.time_left(unix_now).map_or(KEEP_USER, |left| left.min(KEEP_USER)),
            Self::Refused => KEEP_REFUSED,
            Self::Unavailable => KEEP_UNAVAILABLE,
        })
    }

    fn into_result(self, unix_now: u64) -> Result<Arc<ClusterUser>, ReviewError> {
        match self {
            Self::User(user) if user.time_left(unix_now) != Some(Duration::ZERO) => Ok(user),
            Self::User(_) | Self::Refused => Err(ReviewError::Refused),
            Self::Unavailable => Err(ReviewError::Unavailable),
        }
    }
}

impl fmt::Debug for Reviews {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reviews").field("pending", &self.desk().pending.len()).finish_non_exhaustive()
    }
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reviews() -> Reviews {
        Reviews::new().expect("random bytes")
    }

    fn verdict(name: &str, expires_at: Option<u64>) -> interface::Verdict {
        interface::Verdict::User { name: name.to_owned(), uid: None, groups: Vec::new(), expires_at }
    }

    /// Runs both on one thread until the first has ended.
    fn while_running<T>(first: impl Future<Output = T>, second: impl Future<Output = ()>) -> T {
        runtime::run(async {
            let mut first = pin!(first);
            let mut second = pin!(second);
            runtime::select! {
                output = &mut first => output,
                () = &mut second => first.await,
            }
        })
        .expect("a runtime")
    }

    /// Answers everything as `answer` says.
    async fn attend(reviews: &Reviews, answer: impl Fn(&str) -> interface::Verdict) {
        let reviewer = reviews.enter();
        loop {
            for review in reviews.next(reviewer, Duration::from_secs(30), || false).await {
                let verdict = answer(&review.token);
                reviews.answer(review.id, verdict);
            }
        }
    }

    #[test]
    fn a_token_is_reviewed_and_remembered() {
        let reviews = reviews();
        let named = |token: &str| match token {
            "bad" => interface::Verdict::Refused,
            "odd" => interface::Verdict::Unavailable { message: "no answer".to_owned() },
            "old" => verdict("old", Some(1)),
            token => verdict(token, None),
        };
        let asking = async {
            // The desk has to be attended before it takes anything.
            runtime::sleep(Duration::from_millis(1)).await;
            for _ in 0..3 {
                assert_eq!(&*reviews.review("jane").await.expect("good").name, "jane");
                assert_eq!(reviews.review("bad").await, Err(ReviewError::Refused));
                assert_eq!(reviews.review("odd").await, Err(ReviewError::Unavailable));
                // One that has ended is none, whatever is said of it.
                assert_eq!(reviews.review("old").await, Err(ReviewError::Refused));
            }
        };
        while_running(asking, attend(&reviews, named));
        let counts = reviews.counts();
        assert_eq!((counts.refused, counts.unavailable, counts.unanswered), (1, 1, 0));
        // The one that has ended is not remembered.
        assert_eq!((counts.users, counts.remembered), (4, 6));
    }

    #[test]
    fn what_cannot_be_a_token_is_refused_without_a_review() {
        let reviews = reviews();
        for token in ["", "a b", "a\n", "tökén", &"x".repeat(TOKEN_BYTES_MAX + 1)] {
            let answer = runtime::run(reviews.review(token)).expect("a runtime");
            assert_eq!(answer, Err(ReviewError::Refused), "{token:?}");
        }
    }

    #[test]
    fn nobody_attends() {
        let reviews = reviews();
        let review = || runtime::run(reviews.review("jane")).expect("a runtime");
        assert_eq!(review(), Err(ReviewError::Unavailable));
        assert_eq!(reviews.counts().unanswered, 1);
        let mut desk = reviews.desk();
        let now = Instant::now();
        assert!(!desk.is_attended(now));
        desk.last_call = Some(now);
        assert!(desk.is_attended(now) && desk.is_attended(now + ATTENDANCE_TIME / 2));
        assert!(!desk.is_attended(now + ATTENDANCE_TIME));
        desk.calls = 1;
        assert!(desk.is_attended(now + 10 * ATTENDANCE_TIME));
    }

    /// Puts a token on the desk, as somebody who is no longer there.
    fn submit(reviews: &Reviews, token: &str, now: Instant) -> bool {
        reviews.desk().last_call = Some(now);
        let Lookup::Verify(flight, _) = reviews.verdicts.look_up(reviews.token_key(token), now) else {
            panic!("known already")
        };
        reviews.submit(token, flight, now)
    }

    #[test]
    fn a_review_that_takes_too_long_is_given_up() {
        let reviews = reviews();
        let (reviewer, now) = (reviews.enter(), Instant::now());
        assert!(submit(&reviews, "jane", now));
        let taken = reviews.take(reviewer, now);
        assert_eq!((taken.len(), reviews.take(reviewer, now).len()), (1, 0));
        // Who took it may be gone.
        assert_eq!(reviews.take(reviewer, now + RETAKE_TIME), taken);
        assert!(reviews.take(reviewer, now + RETAKE_TIME).is_empty());
        reviews.give_up(now + REVIEW_TIME / 2);
        assert_eq!(reviews.desk().pending.len(), 1);
        let Lookup::Wait(mut waiting) = reviews.verdicts.look_up(reviews.token_key("jane"), now) else {
            panic!("not pending")
        };
        reviews.give_up(now + REVIEW_TIME);
        assert!(waiting.try_recv().is_err());
        assert_eq!((reviews.desk().pending.len(), reviews.counts().unanswered), (0, 1));
        // An answer that comes too late is for nobody, and the next one asks anew.
        reviews.answer(taken[0].id, verdict("jane", None));
        assert!(submit(&reviews, "jane", now));
        assert_ne!(reviews.take(reviewer, now)[0].id, taken[0].id);
    }

    #[test]
    fn what_somebody_has_taken_who_leaves_is_for_others() {
        let reviews = reviews();
        let (first, second, now) = (reviews.enter(), reviews.enter(), Instant::now());
        assert!(submit(&reviews, "jane", now) && submit(&reviews, "john", now));
        let taken = reviews.take(first, now);
        assert_eq!(taken.len(), 2);
        reviews.answer(taken[0].id, verdict("jane", None));
        reviews.leave(second);
        assert!(reviews.take(second, now).is_empty(), "the first is at work on it");
        reviews.leave(first);
        assert_eq!(reviews.take(second, now), taken[1..]);
        reviews.leave(first);
        assert!(reviews.take(first, now).is_empty(), "the second is at work on it");
        // Whoever waits is woken.
        let waiting = async {
            assert_eq!(reviews.next(first, Duration::from_secs(3600), || false).await, taken[1..]);
        };
        while_running(waiting, async { reviews.leave(second) });
    }

    #[test]
    fn a_call_that_is_dropped_has_taken_nothing() {
        let reviews = reviews();
        let (gone, other) = (reviews.enter(), reviews.enter());
        let dropped = async {
            let mut call = pin!(reviews.next(gone, Duration::from_secs(3600), || false));
            // It waits, and is woken, and has not looked yet when it goes.
            let waits = std::future::poll_fn(|context| std::task::Poll::Ready(call.as_mut().poll(context)));
            assert!(waits.await.is_pending());
            assert!(submit(&reviews, "jane", Instant::now()));
        };
        runtime::run(dropped).expect("a runtime");
        let next = reviews.next(other, Duration::from_secs(3600), || false);
        assert_eq!(runtime::run(next).expect("a runtime").len(), 1);
        assert_eq!(reviews.desk().calls, 0);
    }

    #[test]
    fn the_desk_is_bounded_and_reviews_are_taken_in_batches() {
        let reviews = reviews();
        let (reviewer, now) = (reviews.enter(), Instant::now());
        for n in 0..PENDING_MAX {
            assert!(submit(&reviews, &n.to_string(), now));
        }
        assert!(!submit(&reviews, "one more", now));
        let tokens: Vec<String> = std::iter::repeat_with(|| reviews.take(reviewer, now))
            .take_while(|batch| !batch.is_empty())
            .inspect(|batch| assert!(batch.len() <= BATCH_MAX))
            .flatten()
            .map(|review| review.token)
            .collect();
        assert_eq!(tokens, (0..PENDING_MAX).map(|n| n.to_string()).collect::<Vec<_>>());
    }

    #[test]
    fn needs_are_told_once() {
        let reviews = reviews();
        let reviewer = reviews.enter();
        let next = |wait| runtime::run(reviews.next(reviewer, wait, || true)).expect("a runtime").len();
        assert_eq!(next(Duration::from_secs(3600)), 0);
        assert_eq!(next(Duration::from_millis(1)), 0);
    }

    #[test]
    fn a_verdict_is_kept_no_longer_than_the_token() {
        let outcome =
            |expires_at| Outcome::User(Arc::new(ClusterUser::new("jane", None, Vec::new(), expires_at)));
        for (expires_at, now, seconds) in [
            (None, 1000, 60),
            (Some(5000), 1000, 60),
            (Some(1060), 1000, 60),
            (Some(1059), 1000, 59),
            (Some(1001), 1000, 1),
            (Some(1000), 1000, 0),
            (Some(0), 1000, 0),
        ] {
            let kept = outcome(expires_at).keep(now);
            assert_eq!(kept, Keep::For(Duration::from_secs(seconds)), "{expires_at:?}");
            assert_eq!(outcome(expires_at).into_result(now).is_ok(), seconds > 0, "{expires_at:?}");
        }
        assert!(outcome(Some(1001)).into_result(1001).is_err());
        assert_eq!(Outcome::Refused.keep(0), Keep::For(KEEP_REFUSED));
        assert_eq!(Outcome::Unavailable.keep(0), Keep::For(KEEP_UNAVAILABLE));
    }

    #[test]
    fn debug_shows_no_key_and_no_token() {
        let reviews = reviews();
        assert!(submit(&reviews, "secret", Instant::now()));
        assert_eq!(format!("{reviews:?}"), "Reviews { pending: 1, .. }");
    }
}
