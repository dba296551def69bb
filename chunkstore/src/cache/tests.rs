use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicUsize;
use std::sync::{Barrier, mpsc};
use std::thread;

use super::*;
use crate::error::{Error, ObjectName};

fn id(number: u64) -> ChunkId {
    ChunkId::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

/// Puts a value of so many bytes under each number, and returns how many of them were not there.
fn load(cache: &Cache<u64>, numbers: impl Iterator<Item = u64>, len: usize) -> usize {
    let mut count = 0;
    for number in numbers {
        let entry = cache.get_or_load(&id(number), || {
            count += 1;
            Ok((number, len))
        });
        assert_eq!(entry.unwrap().value, number);
    }
    count
}

fn kept(cache: &Cache<u64>, numbers: impl Iterator<Item = u64>) -> usize {
    numbers.filter(|number| cache.get(&id(*number)).is_some()).count()
}

fn missing(number: u64) -> Error {
    Error::Missing { object: ObjectName::Chunk { id: id(number), pack: None } }
}

const LEN: usize = 10_000;
const OVERHEAD: usize = Entry::<u64>::OVERHEAD;

#[test]
fn cache_holds_what_fits_and_never_more() {
    let cache = Cache::new(10 * (LEN + OVERHEAD));
    assert_eq!(load(&cache, 0..10, LEN), 10);
    assert_eq!(load(&cache, 0..10, LEN), 0);
    assert_eq!(cache.byte_len(), cache.byte_len_max());
    for number in 10..500 {
        load(&cache, std::iter::once(number), usize::try_from(number * 37 % 30_000).unwrap());
        assert!(cache.byte_len() <= cache.byte_len_max());
        assert!(cache.get(&id(number)).is_some(), "the newest is kept");
    }
    let in_table = cache.shards.iter().map(|shard| shard.lock().unwrap().len()).sum::<usize>();
    assert_eq!(in_table, kept(&cache, 0..500), "nothing else is in the table");
}

#[test]
fn value_that_is_longer_than_the_bound_is_given_but_not_kept() {
    let cache = Cache::new(LEN + OVERHEAD);
    assert_eq!(load(&cache, [1].into_iter(), LEN), 1);
    assert_eq!(load(&cache, [2, 2].into_iter(), LEN + 1), 2);
    assert_eq!((kept(&cache, 1..3), cache.byte_len()), (1, LEN + OVERHEAD));
    let none = Cache::new(0);
    assert_eq!(load(&none, [1, 1].into_iter(), 0), 2);
    assert_eq!(none.byte_len(), 0);
}

#[test]
fn short_values_count_with_their_entries() {
    let cache = Cache::new(100 * OVERHEAD);
    load(&cache, 0..1000, 0);
    assert_eq!(kept(&cache, 0..1000), 100);
}

#[test]
fn scan_does_not_drive_out_what_is_used_again_and_again() {
    let cache = Cache::new(100 * (LEN + OVERHEAD));
    // Values in use leave the queue of the new ones, come back, and are then known.
    load(&cache, 0..60, LEN);
    load(&cache, 1000..1100, LEN);
    assert_eq!(load(&cache, 0..60, LEN), 60);
    assert_eq!(load(&cache, 0..60, LEN), 0);
    // Small reads use each value of the scan many times.
    load(&cache, (2000..12_000).flat_map(|number| [number; 16]), LEN);
    assert_eq!(kept(&cache, 0..60), 60);
    // Without another use they make room for what is used instead.
    for _ in 0..8 {
        load(&cache, 20_000..20_090, LEN);
    }
    assert!(kept(&cache, 0..60) < 30);
}

#[test]
fn value_that_many_threads_need_is_loaded_once() {
    let cache = Cache::new(1 << 20);
    for number in 0..50 {
        let (loads, start) = (AtomicUsize::new(0), Barrier::new(8));
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    start.wait();
                    let entry = cache.get_or_load(&id(number), || {
                        loads.fetch_add(1, Ordering::Relaxed);
                        thread::yield_now();
                        Ok((number, LEN))
                    });
                    assert_eq!(entry.unwrap().value, number);
                });
            }
        });
        assert_eq!(loads.into_inner(), 1);
    }
}

/// Runs `lead` as the one that loads value 1 while `follow` is waiting for it, as far as a test can know that it does.
fn with_follower<R: Send>(
    cache: &Cache<u64>,
    lead: impl FnOnce() -> Result<(u64, usize)> + Send,
    follow: impl FnOnce() -> R + Send,
) -> R {
    let (started, is_started) = mpsc::channel();
    thread::scope(|scope| {
        let flight = || match cache.shard(&id(1)).get(&id(1)) {
            Some(Slot::Loading(flight)) => Arc::strong_count(flight),
            Some(Slot::Kept(_)) | None => 0,
        };
        let leader = scope.spawn(move || {
            catch_unwind(AssertUnwindSafe(|| {
                cache.get_or_load(&id(1), || {
                    started.send(()).unwrap();
                    // The table, the leader, and the one that waits.
                    while flight() < 3 {
                        thread::yield_now();
                    }
                    lead()
                })
            }))
        });
        is_started.recv().unwrap();
        let follower = scope.spawn(follow);
        let _ended_by_panic = leader.join().unwrap();
        follower.join().unwrap()
    })
}

#[test]
fn error_reaches_all_who_wait_and_is_not_kept() {
    let cache = Cache::new(1 << 20);
    let followed =
        with_follower(&cache, || Err(missing(1)), || cache.get_or_load(&id(1), || Ok((7, LEN))));
    assert!(matches!(followed, Err(Error::Missing { .. })), "{followed:?}");
    assert_eq!(cache.byte_len(), 0);
    assert_eq!(cache.get_or_load(&id(1), || Ok((8, LEN))).unwrap().value, 8);
}

#[test]
fn who_waits_for_one_that_panics_loads_itself() {
    let cache = Cache::new(1 << 20);
    let followed = with_follower(
        &cache,
        || panic!("the one that loads"),
        || cache.get_or_load(&id(1), || Ok((7, LEN))),
    );
    assert_eq!(followed.unwrap().value, 7);
    assert_eq!(cache.get(&id(1)).unwrap().value, 7);
}

#[test]
fn what_is_being_loaded_is_not_at_hand_and_is_claimed_once() {
    let cache: Cache<u64> = Cache::new(1 << 20);
    let duty = cache.claim_absent(&id(1)).unwrap();
    assert!(cache.get(&id(1)).is_none());
    assert!(cache.claim_absent(&id(1)).is_none());
    drop(duty);
    let duty = cache.claim_absent(&id(1)).expect("who drops the duty leaves it to others");
    assert!(duty.fulfil(Err(missing(1))).is_err());
    let duty = cache.claim_absent(&id(1)).expect("an error is not kept");
    duty.fulfil(Ok((5, LEN))).unwrap();
    assert_eq!(cache.get(&id(1)).unwrap().value, 5);
    assert!(cache.claim_absent(&id(1)).is_none());
}

#[test]
fn threads_that_bring_and_use_values_keep_the_bound_and_get_what_they_ask_for() {
    let cache = Cache::new(40 * (LEN + OVERHEAD));
    thread::scope(|scope| {
        for seed in 0..6_u64 {
            let cache = &cache;
            scope.spawn(move || {
                let mut number = seed;
                for _ in 0..20_000 {
                    number = number.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(seed | 1);
                    let wanted = (number >> 40) % 120;
                    if let Some(entry) = cache.get(&id(wanted)) {
                        assert_eq!(entry.value, wanted);
                    } else {
                        load(cache, std::iter::once(wanted), LEN);
                    }
                    assert!(cache.byte_len() <= cache.byte_len_max());
                }
            });
        }
    });
    let in_table = cache.shards.iter().map(|shard| shard.lock().unwrap().len()).sum::<usize>();
    assert_eq!(in_table, kept(&cache, 0..120));
    assert_eq!(cache.byte_len(), in_table * (LEN + OVERHEAD), "the table has what is counted");
}
