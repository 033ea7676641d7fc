//! Page-aligned buffers that a thread fills from sockets and hands to the disk as they are.
//!
//! A buffer is received into, hashed, and written without ever being copied, so its address and its size fit direct
//! I/O. Every thread has a pool of its own; nothing is shared and nothing is locked.

use std::cell::RefCell;
use std::ops::Deref;
use std::ptr::NonNull;
use std::rc::{Rc, Weak};

use monoio::buf::{IoBuf, IoBufMut};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// Alignment of address and size: a page, which no block device asks more than.
pub const ALIGNMENT: usize = 4096;

/// Sizes of buffers in bytes. Large ones save window updates and system calls on fast connections, small ones
/// save memory on slow ones.
pub const SIZES: [usize; 4] = [16 << 10, 64 << 10, 256 << 10, 1 << 20];

/// The largest size of a buffer.
pub const SIZE_MAX: usize = SIZES[SIZES.len() - 1];

/// The buffers of a thread.
///
/// The more of its budget is used, the smaller are the buffers that the pool hands out: transfers get slower, and none
/// is refused or waits.
#[derive(Clone, Debug)]
pub struct BufferPool(Rc<RefCell<Pool>>);

#[derive(Debug)]
struct Pool {
    free: [Vec<Memory>; SIZES.len()],
    /// Bytes in buffers that are in use, but for those of the smallest size: every connection may have one.
    used: usize,
    /// Bytes that may be in use before only the smallest size is given; half of it before the largest is not.
    budget: usize,
}

impl Pool {
    /// Bytes that may be in use with the next buffer, for it to be of the size numbered `class`.
    fn limit(&self, class: usize) -> usize {
        match SIZES.len() - 1 - class {
            0 => self.budget / 2,
            1 => self.budget / 4 * 3,
            _ => self.budget,
        }
    }
}

impl BufferPool {
    /// A pool that keeps to a budget of `budget` bytes, but for buffers of the smallest size.
    pub fn new(budget: usize) -> Self {
        Self(Rc::new(RefCell::new(Pool { free: Default::default(), used: 0, budget })))
    }

    /// A buffer for `wanted` bytes: of the smallest size that holds them, or the largest there is; smaller when the
    /// budget is used up.
    pub fn take(&self, wanted: usize) -> Buffer {
        let mut pool = self.0.borrow_mut();
        let fitting = SIZES.iter().position(|size| *size >= wanted).unwrap_or(SIZES.len() - 1);
        let class =
            (1..=fitting).rev().find(|class| pool.used + SIZES[*class] <= pool.limit(*class)).unwrap_or(0);
        self.buffer(&mut pool, class)
    }

    /// A buffer for at least `needed` bytes, whatever the budget; `None` where that is more than the largest size.
    pub fn take_whole(&self, needed: usize) -> Option<Buffer> {
        let class = SIZES.iter().position(|size| *size >= needed)?;
        Some(self.buffer(&mut self.0.borrow_mut(), class))
    }

    fn buffer(&self, pool: &mut Pool, class: usize) -> Buffer {
        pool.used += counted(SIZES[class]);
        let memory = pool.free[class].pop().unwrap_or_else(|| Memory::map(SIZES[class]));
        Buffer { memory: Some(memory), len: 0, pool: Rc::downgrade(&self.0) }
    }

    /// Gives memory that nobody uses back to the system.
    pub fn trim(&self) {
        for free in &mut self.0.borrow_mut().free {
            free.clear();
            free.shrink_to_fit();
        }
    }

    /// Bytes in buffers that are in use, but for those of the smallest size.
    pub fn used(&self) -> usize {
        self.0.borrow().used
    }
}

/// What a buffer of this size takes of the budget.
fn counted(size: usize) -> usize {
    if size > SIZES[0] { size } else { 0 }
}

/// Anonymous memory of its own mapping, so that giving it back really shrinks the process.
#[derive(Debug)]
struct Memory {
    address: NonNull<u8>,
    size: usize,
}

impl Memory {
    fn map(size: usize) -> Self {
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches no existing memory.
        let address = unsafe {
            mmap_anonymous(std::ptr::null_mut(), size, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)
        };
        match address.ok().and_then(|address| NonNull::new(address.cast())) {
            Some(address) => Self { address, size },
            // What the allocator of the standard library does when there is no memory left.
            None => std::alloc::handle_alloc_error(
                std::alloc::Layout::from_size_align(size, ALIGNMENT).expect("sizes are multiples of pages"),
            ),
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `map` with this size, and nothing points into it any more: buffers own
        // their memory, and operations in flight own their buffers.
        let unmapped = unsafe { munmap(self.address.as_ptr().cast(), self.size) };
        debug_assert!(unmapped.is_ok(), "the mapping was ours: {unmapped:?}");
    }
}

/// A page-aligned buffer; dereferences to the bytes that are filled. Goes back to its pool when dropped.
#[derive(Debug)]
pub struct Buffer {
    /// `None` only while it is dropped.
    memory: Option<Memory>,
    len: usize,
    pool: Weak<RefCell<Pool>>,
}

impl Buffer {
    fn memory(&self) -> &Memory {
        self.memory.as_ref().expect("taken only by drop")
    }

    /// Bytes that fit.
    pub fn capacity(&self) -> usize {
        self.memory().size
    }

    /// Bytes that still fit.
    pub fn free(&self) -> usize {
        self.capacity() - self.len
    }

    /// Appends as much of `bytes` as fits, and says how much that was.
    pub fn append(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.free());
        // SAFETY: `len + count` is within the mapping, which this buffer owns alone.
        unsafe {
            let end = self.memory().address.as_ptr().add(self.len);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), end, count);
        }
        self.len += count;
        count
    }

    /// Forgets what is behind `len`.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Fills up to a multiple of `alignment` with zeros; `alignment` divides the capacity.
    pub fn pad(&mut self, alignment: usize) {
        const ZEROS: [u8; ALIGNMENT] = [0; ALIGNMENT];
        let missing = self.len.next_multiple_of(alignment) - self.len;
        let appended = self.append(&ZEROS[..missing]);
        debug_assert_eq!(appended, missing, "the alignment divides the capacity");
    }

    /// The filled bytes, to be changed in place.
    pub fn filled_mut(&mut self) -> &mut [u8] {
        // SAFETY: the first `len` bytes are within the mapping and initialised (mappings start as zeros).
        unsafe { std::slice::from_raw_parts_mut(self.memory().address.as_ptr(), self.len) }
    }

    /// The part that is still free, at most `limit` bytes of it, as an operation fills it.
    pub fn tail(self, limit: usize) -> Tail {
        let end = self.capacity().min(self.len.saturating_add(limit));
        Tail { buffer: self, end }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: as in `filled_mut`; `&self` keeps writers away.
        unsafe { std::slice::from_raw_parts(self.memory().address.as_ptr(), self.len) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let Some(memory) = self.memory.take() else { return };
        if let Some(pool) = self.pool.upgrade() {
            let mut pool = pool.borrow_mut();
            pool.used -= counted(memory.size);
            if let Some(class) = SIZES.iter().position(|size| *size == memory.size) {
                pool.free[class].push(memory);
            }
        }
    }
}

// SAFETY: the address stays the same while the buffer moves (it points to a mapping of its own), and `len` bytes
// from it on are initialised.
unsafe impl IoBuf for Buffer {
    fn read_ptr(&self) -> *const u8 {
        self.memory().address.as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.len
    }
}

/// The free part of a [`Buffer`], lent to an operation that fills it.
#[derive(Debug)]
pub struct Tail {
    buffer: Buffer,
    end: usize,
}

impl Tail {
    /// The buffer, with what the operation added.
    pub fn into_buffer(self) -> Buffer {
        self.buffer
    }
}

// SAFETY: the pointer stays the same while the value moves; the bytes from it to `end` belong to the buffer's
// mapping; `set_init` is told by the operation how many of them it filled.
unsafe impl IoBufMut for Tail {
    fn write_ptr(&mut self) -> *mut u8 {
        // SAFETY: `len` is at most the mapping's size.
        unsafe { self.buffer.memory().address.as_ptr().add(self.buffer.len) }
    }

    fn bytes_total(&mut self) -> usize {
        self.end - self.buffer.len
    }

    unsafe fn set_init(&mut self, added: usize) {
        debug_assert!(added <= self.end - self.buffer.len, "an operation fills no more than it was given");
        self.buffer.len += added;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_fit_what_is_wanted_and_the_budget() {
        let pool = BufferPool::new(2 * SIZE_MAX);
        assert_eq!(pool.take(1).capacity(), SIZES[0]);
        assert_eq!(pool.take(SIZES[1]).capacity(), SIZES[1]);
        let mut taken = Vec::new();
        for capacity in [SIZE_MAX, SIZES[2], SIZES[2], SIZES[1], SIZES[1]] {
            taken.push(pool.take(usize::MAX));
            assert_eq!(taken.last().map(Buffer::capacity), Some(capacity));
        }
        while pool.used() + SIZES[1] <= 2 * SIZE_MAX {
            taken.push(pool.take(usize::MAX));
        }
        assert_eq!(pool.take(SIZE_MAX).capacity(), SIZES[0], "the budget is used up");
        assert_eq!(pool.take_whole(SIZES[1]).map(|buffer| buffer.capacity()), Some(SIZES[1]));
        assert!(pool.take_whole(SIZE_MAX + 1).is_none());
        drop(taken);
        assert_eq!(pool.used(), 0);
        assert_eq!(pool.take(SIZE_MAX).capacity(), SIZE_MAX);
        pool.trim();
    }

    #[test]
    fn bytes_are_appended_cut_and_padded() {
        let mut buffer = BufferPool::new(2 * SIZE_MAX).take(10);
        assert_eq!(buffer.append(b"adefgh"), 6);
        buffer.truncate(4);
        buffer.filled_mut()[3] = b'e';
        buffer.pad(512);
        assert_eq!((buffer.len(), &buffer[..5]), (512, &b"adee\0"[..]));
        buffer.truncate(2);
        assert_eq!(&*buffer, b"ad");
        let capacity = buffer.capacity();
        assert_eq!(buffer.append(&vec![1; capacity]), capacity - 2);
        assert_eq!(buffer.free(), 0);
        assert_eq!(buffer.as_ptr() as usize % ALIGNMENT, 0);
    }

    #[test]
    fn a_tail_fills_behind_what_is_there() {
        let mut buffer = BufferPool::new(2 * SIZE_MAX).take(10);
        buffer.append(b"abc");
        let mut tail = buffer.tail(2);
        assert_eq!(tail.bytes_total(), 2);
        // SAFETY: the two bytes are the tail's, and are written before they are declared initialised.
        unsafe {
            std::ptr::copy_nonoverlapping(b"de".as_ptr(), tail.write_ptr(), 2);
            tail.set_init(2);
        }
        assert_eq!(&*tail.into_buffer(), b"abcde");
    }
}
