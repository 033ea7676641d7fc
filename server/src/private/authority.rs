use std::time::Duration;

use engine::runtime;
use interface::{AnswerReview, NextReviews, PendingWork, SetNamespaces, SetRules, WAIT_SECONDS_MAX};

use super::service::Context;
use crate::access::Reviewer;
use crate::http::Body;

pub(super) fn set_rules(context: &Context, call: SetRules) {
    context.shared.authority.set_rules(call.rules);
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
