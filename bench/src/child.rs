//! A program that runs to its end, and what it has cost.

use std::io;
use std::process::Command;
use std::time::Instant;

/// What a program has cost.
#[derive(Clone, Copy, Debug)]
pub struct Spent {
    /// How long it ran, in seconds.
    pub seconds: f64,
    /// CPU seconds, user and system.
    pub cpu_seconds: f64,
    /// The most memory that it had resident, in MiB.
    pub peak_mib: f64,
}

/// Runs it; an error where it does not start, or ends otherwise than with 0.
pub fn run(command: &mut Command) -> io::Result<Spent> {
    let began = Instant::now();
    let child = command.spawn().map_err(|error| {
        io::Error::new(error.kind(), format!("{:?} does not start: {error}", command.get_program()))
    })?;
    let pid = libc::pid_t::try_from(child.id()).map_err(io::Error::other)?;
    let mut status = 0;
    // SAFETY: all of a `rusage` is numbers, which may be zero.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the call writes to the two places that the pointers point to, which are of its types. The child is waited for
    // nowhere else, so the number is its own.
    while unsafe { libc::wait4(pid, &mut status, 0, &mut usage) } < 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    if status != 0 {
        return Err(io::Error::other(format!("{:?} ended with status {status}", command.get_program())));
    }
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 * 1e-6;
    Ok(Spent {
        seconds: began.elapsed().as_secs_f64(),
        cpu_seconds: seconds(usage.ru_utime) + seconds(usage.ru_stime),
        peak_mib: usage.ru_maxrss as f64 / 1024.0,
    })
}
