//! Bounds what a target allocates: an allocation beyond the limit fails, which ends the process with its length.
//!
//! A decoder that takes memory because a length field asks for it is caught by the first input that has a large number
//! there, whatever the machine could give. Counted is what the thread of the target allocates, without what it frees.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The longest single allocation of any thread.
const ALLOCATION_LEN_MAX: usize = 1 << 30;

/// How much memory a target may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Bytes for any input.
    pub base: usize,
    /// Bytes for each byte of the input.
    pub factor: usize,
    /// Bytes that no input may take more of, however long.
    pub most: usize,
}

/// Limit of those that decode bytes.
pub const DECODER: Limit = Limit { base: 256 << 10, factor: 64, most: usize::MAX };

thread_local! {
    /// Bytes that this thread has allocated and not freed.
    static USED: Cell<isize> = const { Cell::new(0) };
    static USED_MAX: Cell<isize> = const { Cell::new(isize::MAX) };
}

/// Runs `work`, which may take as much memory as the limit says for an input of this length.
pub fn bounded<R>(limit: Limit, input_len: usize, work: impl FnOnce() -> R) -> R {
    /// Lifts the limit, also when `work` panics.
    struct Bound;
    impl Drop for Bound {
        fn drop(&mut self) {
            USED_MAX.set(isize::MAX);
        }
    }
    let room = limit.base.saturating_add(limit.factor.saturating_mul(input_len)).min(limit.most);
    let room = isize::try_from(room).unwrap_or(isize::MAX);
    let _bound = Bound;
    USED_MAX.set(USED.get().saturating_add(room));
    work()
}

/// The allocator of all programs with this library.
#[derive(Debug)]
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Counts `len` bytes, unless that is too much.
fn take(len: usize) -> bool {
    let Ok(signed) = isize::try_from(len) else { return false };
    let used = USED.get().saturating_add(signed);
    // A panic may take what it needs to say where it was.
    if (ALLOCATION_LEN_MAX < len || USED_MAX.get() < used) && !std::thread::panicking() {
        return false;
    }
    USED.set(used);
    true
}

fn give_back(len: usize) {
    // What one thread allocates another one may free: the sum of one thread can be below 0.
    USED.set(USED.get().saturating_sub(isize::try_from(len).unwrap_or(isize::MAX)));
}

// SAFETY: every call goes to the allocator of the system with the same arguments, or returns null, which callers must
// expect. The counters need no allocation: they are initialised by constants and have no destructor.
#[expect(unsafe_code, reason = "only an allocator sees how much is asked for")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !take(layout.size()) {
            return std::ptr::null_mut();
        }
        // SAFETY: as of this function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if !take(layout.size()) {
            return std::ptr::null_mut();
        }
        // SAFETY: as of this function.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        give_back(layout.size());
        // SAFETY: as of this function.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, new_len: usize) -> *mut u8 {
        if !take(new_len) {
            return std::ptr::null_mut();
        }
        give_back(layout.size());
        // SAFETY: as of this function.
        unsafe { System.realloc(place, layout, new_len) }
    }
}
