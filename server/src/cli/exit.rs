use std::process::ExitCode;

use engine::integrity::VerifyError;
use engine::{OpenError, RootError};
use interface::Reason;
use interface::client::CallError;

/// What the end of a command tells whoever started it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    /// It was done.
    Done,
    /// It was not done, or not all of it.
    Failed,
    /// The command line is wrong.
    Usage,
    /// Something else is going on that it cannot go beside.
    Busy,
    /// The registry does not answer.
    Unreachable,
    /// The caller may not do that.
    Denied,
    /// It was done, and has found something wrong with what is stored.
    Found,
}

/// The help of each command ends with this. Errors of the command line end with 2.
pub(super) const HELP: &str = "\
Ends with 0 when it was done, 1 when it failed, 2 when the command line is wrong, 3 when something else is going on that it \
cannot go beside (try again later), 4 when the registry does not answer, 5 when the caller may not do that, and 6 when it was \
done and has found something wrong with what is stored.";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Busy => 3,
            Exit::Unreachable => 4,
            Exit::Denied => 5,
            Exit::Found => 6,
        })
    }
}

/// Why a command was not done.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(super) struct CommandError {
    exit: Exit,
    message: String,
}

impl CommandError {
    pub(super) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }

    pub(super) fn failed(message: impl std::fmt::Display) -> Self {
        Self::new(Exit::Failed, message.to_string())
    }

    pub(super) fn exit(&self) -> Exit {
        self.exit
    }
}

impl From<CallError> for CommandError {
    fn from(error: CallError) -> Self {
        let exit = match &error {
            CallError::Unreachable(_) => Exit::Unreachable,
            CallError::Token(_) => Exit::Denied,
            CallError::Failed(failure) => match failure.reason {
                Reason::Invalid => Exit::Usage,
                Reason::Denied => Exit::Denied,
                Reason::Conflict | Reason::ReadOnly => Exit::Busy,
                Reason::Unavailable => Exit::Unreachable,
                _ => Exit::Failed,
            },
        };
        Self::new(exit, error.to_string())
    }
}

impl From<RootError> for CommandError {
    fn from(error: RootError) -> Self {
        let exit = if matches!(error, RootError::Locked(_)) { Exit::Busy } else { Exit::Failed };
        Self::new(exit, error.to_string())
    }
}

impl From<VerifyError> for CommandError {
    fn from(error: VerifyError) -> Self {
        match error {
            VerifyError::Root(error) => error.into(),
            error @ VerifyError::Damaged { .. } => Self::new(Exit::Found, error.to_string()),
        }
    }
}

impl From<OpenError> for CommandError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Root(error) => error.into(),
            error => Self::failed(error),
        }
    }
}
