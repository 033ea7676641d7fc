use std::time::Duration;

use engine::runtime;
use interface::{AnswerReview, NextReviews, PendingWork, SetNamespaces, SetRules, WAIT_SECONDS_MAX};

use super::refusal::Refusal;
use super::service::Context;
use crate::access::Reviewer;
use crate::http::Body;

/// Sets the rules, on a thread that may be busy with it for a while. Calls have their turn as they come, so that rules never
/// take the place of later ones.
pub(super) async fn set_rules(context: &Context, call: SetRules) -> Result<(), Refusal> {
    let turn = context.setting_rules.clone().lock_owned().await;
    let shared = context.shared.clone();
    let set = move || {
        shared.authority.set_rules(call.rules);
        // Also where the caller has gone meanwhile.
        drop(turn);
    };
    Ok(runtime::blocking(set).await?)
}

pub(super) fn set_namespaces(context: &Context, call: SetNamespaces) {
    context.shared.authority.set_namespaces(call.namespaces);
}

/// Waits for something to do for the registry. `peer` is who asks, and what it takes is `reviewer`'s.
pub(super) async fn next_reviews(
    context: &Context,
    reviewer: &Reviewer,
    peer: &mut dyn Body,
    call: NextReviews,
) -> PendingWork {
    let authority = &context.shared.authority;
    let wait = Duration::from_secs(call.wait_seconds.min(WAIT_SECONDS_MAX));
    let reviews = runtime::select! {
        reviews = reviewer.next(wait) => reviews,
        () = context.called_off(peer) => Vec::new(),
    };
    PendingWork {
        needs_rules: authority.needs_rules(),
        needs_namespaces: authority.needs_namespaces(),
        reviews,
    }
}

pub(super) fn answer_review(context: &Context, call: AnswerReview) {
    context.shared.authority.answer_review(call.id, call.verdict);
}
