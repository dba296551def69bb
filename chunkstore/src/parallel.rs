//! Runs the same work on several threads, for the length of one operation.
//!
//! Each operation has a pool of its own: the library has no global state, and an embedding program's pool is not used up
//! by threads that wait for a disk.

use std::num::NonZero;
use std::thread;

use rayon::ThreadPoolBuilder;

/// Runs `work` on as many threads as are wanted, or as there are processors, but on no more than there are `items` for.
/// Returns the result of each; the calls share out the items among themselves. A panic in one of them is passed on when
/// all have ended.
pub(crate) fn on_threads<R: Send>(
    wanted: Option<NonZero<usize>>,
    items: usize,
    work: impl Fn() -> R + Sync,
) -> Vec<R> {
    let wanted = wanted.or_else(|| thread::available_parallelism().ok());
    let count = wanted.map_or(1, NonZero::get).min(items);
    if count <= 1 {
        return vec![work()];
    }
    match ThreadPoolBuilder::new().num_threads(count).build() {
        Ok(pool) => pool.broadcast(|_| work()),
        // The system gives no more threads: the one that is here does all.
        Err(_no_threads) => vec![work()],
    }
}
