use std::fmt::Write as _;
use std::time::Duration;

use clap::{Args, Subcommand};
use interface::{ClearReadOnly, GetReadOnly, ReadOnlyState, SetReadOnly};

use super::answer::Answer;
use super::exit::{CommandError, Exit};
use super::root::Root;
use super::server::Server;
use crate::settings::Time;

/// Who makes the registry read-only where nothing else is said, so that any administrator can end what another one began.
const OWNER: &str = "administrator";

/// Time that running writes get to end where nothing else is said.
const DRAIN: Duration = Duration::from_secs(30);

/// A week, in seconds.
const LASTING_MAX: u64 = 7 * 24 * 3600;

/// How long a call may take beside the draining.
const CALL_TIME: Duration = Duration::from_secs(30);

/// `read-only`.
#[derive(Subcommand, Clone, Debug, PartialEq, Eq)]
pub enum ReadOnly {
    /// Let it take no writes from now on. Returns when those that were running have ended, or had their time to do so.
    ///
    /// It ends by itself after some time; the same owner can extend it.
    On(On),
    /// Let it take writes again.
    Off(Off),
    /// Say whether it takes writes, and who keeps it from that until when.
    Status(Status),
}

/// `read-only on`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct On {
    /// Why, for those who are turned away.
    #[arg(long)]
    reason: String,
    /// Who: a name that tells holders apart; only the same one can extend it, or end it without --force.
    #[arg(long, value_name = "NAME", default_value = OWNER)]
    owner: String,
    /// How long at most; up to 7d.
    #[arg(long = "for", value_name = "TIME", default_value = "1h")]
    lasting: Time<1, LASTING_MAX>,
    /// Time that running writes get to end. [default: 30s, or all of it where that is less]
    #[arg(long, value_name = "TIME")]
    drain: Option<Time<0, LASTING_MAX>>,
    #[command(flatten)]
    common: Common,
}

/// `read-only off`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Off {
    /// Who asks: the name that it was begun with.
    #[arg(long, value_name = "NAME", default_value = OWNER)]
    owner: String,
    /// End it whoever has begun it.
    #[arg(long, conflicts_with = "owner")]
    force: bool,
    #[command(flatten)]
    common: Common,
}

/// `read-only status`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Status {
    #[command(flatten)]
    common: Common,
}

#[derive(Args, Clone, Debug, PartialEq, Eq)]
struct Common {
    #[command(flatten)]
    answer: Answer,
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    root: Root,
}

impl ReadOnly {
    pub(super) fn run(self) -> Result<Exit, CommandError> {
        let (state, answer) = match self {
            Self::On(On { reason, owner, lasting, drain, common }) => {
                let drain = drain.map_or(DRAIN.min(lasting.get()), Time::get);
                let (lasting_seconds, drain_seconds) = (lasting.get().as_secs(), drain.as_secs());
                let call = SetReadOnly { owner, reason, lasting_seconds, drain_seconds };
                let limit = drain + CALL_TIME;
                let set = async |registry: interface::client::Registry| {
                    Ok(registry.call_within(&call, limit).await?)
                };
                (common.server.with(&common.root, set)?, common.answer)
            }
            Self::Off(Off { owner, force, common }) => {
                let call = ClearReadOnly { owner: (!force).then_some(owner) };
                let clear = async |registry: interface::client::Registry| Ok(registry.call(&call).await?);
                (common.server.with(&common.root, clear)?, common.answer)
            }
            Self::Status(Status { common }) => {
                let get =
                    async |registry: interface::client::Registry| Ok(registry.call(&GetReadOnly {}).await?);
                (common.server.with(&common.root, get)?, common.answer)
            }
        };
        answer.print(&state, text)?;
        Ok(Exit::Done)
    }
}

fn text(state: &ReadOnlyState) -> String {
    let mut text = match &state.hold {
        None => "The registry takes writes.\n".to_owned(),
        Some(hold) => format!(
            "The registry is read-only: {} (by {}, since {}, until {} at the latest).\n",
            hold.reason, hold.owner, hold.since, hold.until
        ),
    };
    if state.running_writes > 0 {
        let _ = writeln!(text, "Writes that are running: {}.", state.running_writes);
    }
    text
}
