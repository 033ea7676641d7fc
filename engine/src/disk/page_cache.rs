//! What of a file the page cache holds.

use std::io::IoSliceMut;
use std::num::NonZeroU64;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::Advice;
use rustix::io::ReadWriteFlags;

/// `struct cachestat_range` of the kernel.
#[repr(C)]
struct Range {
    offset: u64,
    len: u64,
}

/// `struct cachestat` of the kernel: pages of the range by what they are.
#[repr(C)]
#[derive(Default)]
struct Pages {
    cached: u64,
    dirty: u64,
    in_writeback: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// `cachestat(2)` has this number on every architecture.
const CACHESTAT: libc::c_long = 451;

/// Set when the kernel (before 6.5) or a seccomp filter has refused `cachestat(2)`.
static IS_REFUSED: AtomicBool = AtomicBool::new(false);

/// Whether all of the range is in memory. Costs a microsecond or two for 2 MiB.
pub(super) fn holds(file: BorrowedFd<'_>, offset: u64, len: u64) -> bool {
    if len == 0 {
        return true;
    }
    let Some(cached) = cached_pages(file, offset, len) else {
        return has_byte(file, offset) && has_byte(file, offset + len - 1);
    };
    let page = rustix::param::page_size() as u64;
    // Pages that are still being read ahead count as cached; the last one, which comes last, tells.
    cached >= (offset + len).div_ceil(page) - offset / page && has_byte(file, offset + len - 1)
}

/// Whether nothing of the range is in memory.
pub(super) fn holds_none(file: BorrowedFd<'_>, offset: u64, len: u64) -> bool {
    if len == 0 {
        return true;
    }
    match cached_pages(file, offset, len) {
        Some(cached) => cached == 0,
        None => !has_byte(file, offset) && !has_byte(file, offset + len - 1),
    }
}

/// Says that the range is not needed in memory. Advice only.
pub(super) fn forget(file: BorrowedFd<'_>, offset: u64, len: u64) {
    let _ = rustix::fs::fadvise(file, offset, NonZeroU64::new(len), Advice::DontNeed);
}

/// How many pages of the range are in memory; `None` where the system does not tell.
fn cached_pages(file: BorrowedFd<'_>, offset: u64, len: u64) -> Option<u64> {
    if IS_REFUSED.load(Ordering::Relaxed) {
        return None;
    }
    let range = Range { offset, len };
    let mut pages = Pages::default();
    // SAFETY: both structures are laid out as the kernel has them and outlive the call.
    let refused =
        unsafe { libc::syscall(CACHESTAT, file.as_raw_fd(), &raw const range, &raw mut pages, 0) } != 0;
    if refused {
        IS_REFUSED.store(true, Ordering::Relaxed);
        return None;
    }
    Some(pages.cached)
}

/// Whether one byte can be read without waiting.
fn has_byte(file: BorrowedFd<'_>, offset: u64) -> bool {
    let mut byte = [0];
    let mut buffers = [IoSliceMut::new(&mut byte)];
    rustix::io::preadv2(file, &mut buffers, offset, ReadWriteFlags::NOWAIT).is_ok()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn what_was_just_written_is_cached_and_what_is_not_there_is_not() {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(&[1; 10_000]).expect("written");
        for refused in [false, true] {
            IS_REFUSED.store(refused, Ordering::Relaxed);
            assert!(holds(file.as_fd(), 0, 10_000));
            assert!(holds(file.as_fd(), 4095, 2));
        }
        IS_REFUSED.store(false, Ordering::Relaxed);
        assert!(!holds(file.as_fd(), 0, 1 << 20));
        assert!(!holds_none(file.as_fd(), 4096, 1 << 20));
        assert!(holds_none(file.as_fd(), 1 << 20, 1 << 20));
    }
}
