use std::time::Duration;

use engine::{Core, HOLD_MS_MAX, HeldByOther};
use interface::{ClearReadOnly, Hold, ReadOnlyState, Reason, SetReadOnly};

use super::dispatch::Context;
use super::window::OWNER;
use crate::private::Refusal;
use crate::timestamp::rfc3339;

/// Characters of an owner's name, and of a reason.
const TEXT_LEN_MAX: usize = 200;

pub(super) async fn set(context: &Context<'_>, call: SetReadOnly) -> Result<ReadOnlyState, Refusal> {
    let SetReadOnly { owner, reason, lasting_seconds, drain_seconds } = call;
    for (text, what) in [(&owner, "owner"), (&reason, "reason")] {
        let is_good =
            !text.is_empty() && text.chars().count() <= TEXT_LEN_MAX && !text.chars().any(char::is_control);
        if !is_good {
            let message = format!("the {what} is a line of 1 to {TEXT_LEN_MAX} characters");
            return Err(Refusal::invalid(message));
        }
    }
    if owner == OWNER {
        return Err(Refusal::invalid(format!(
            "{OWNER} is the name of the collection of garbage; take another one"
        )));
    }
    let most = HOLD_MS_MAX / 1000;
    if lasting_seconds == 0 || lasting_seconds > most || drain_seconds > lasting_seconds {
        let message = format!("read-only mode lasts from 1 to {most} seconds, the draining counted in");
        return Err(Refusal::invalid(message));
    }
    let (lasting, drain) = (Duration::from_secs(lasting_seconds), Duration::from_secs(drain_seconds));
    context.core.hold_writes(owner.clone(), reason.clone(), lasting, drain).await?.map_err(refusal)?;
    context.audit("make read-only", &format!("{reason} ({owner})"));
    Ok(get(context.core))
}

pub(super) async fn clear(context: &Context<'_>, call: ClearReadOnly) -> Result<ReadOnlyState, Refusal> {
    let ended = context.core.release_writes(call.owner).await?.map_err(refusal)?;
    if let Some(hold) = ended {
        context.audit("end read-only", &format!("{} ({})", hold.reason, hold.owner));
    }
    Ok(get(context.core))
}

/// Whether the registry is read-only.
pub(super) fn get(core: &Core) -> ReadOnlyState {
    let hold = core.hold().map(|hold| Hold {
        owner: hold.owner.clone(),
        reason: hold.reason.clone(),
        since: rfc3339(hold.since),
        until: rfc3339(hold.until),
    });
    ReadOnlyState { hold, running_writes: core.running_writes() as u64 }
}

fn refusal(other: HeldByOther) -> Refusal {
    let until = rfc3339(other.0.until);
    Refusal::new(Reason::Conflict, format!("{other} (until {until} at the latest)"))
}
