//! Compares what was written into a target in place with the ids that belong there.
//!
//! In the order of the image, neighbours at once: changes of a day are scattered, and a disk reads a few long ranges
//! sooner than many short ones.

use std::sync::{Mutex, PoisonError};

use super::plan::{Placement, Plan};
use super::target_check::TargetCheck;
use super::{RestoreResult, Run};
use crate::chunk_reader::to_usize;
use crate::format::{ObjectKind, PageEntry};
use crate::progress::Phase;

/// Bytes that are read at once, unless one chunk is longer. Below what a thread that writes has for its buffers.
const RUN_LEN: u64 = 2 << 20;

/// Compares what a plan has led to. What stayed as it was had been compared before.
pub(super) fn read_back(run: &Run<'_>, plan: Plan) -> RestoreResult<()> {
    run.progress.begin(Phase::ReadBack, Some(plan.len_in_image()));
    let lost = run.findings().clone();
    let (placements, zeros) = plan.into_order_of_image();
    let data = Runs { rest: Mutex::new(&placements) };
    let zeros = Mutex::new(zeros.iter());
    run.on_threads(run.threads.write, placements.len() + zeros_left(&zeros), || {
        let mut buffer = Vec::new();
        while run.goes_on()?
            && let Some(places) = data.next()
        {
            let offset = places.first().map_or(0, |first| first.offset);
            let len = places.iter().map(|place| to_usize(place.len)).sum();
            buffer.resize(len, 0);
            run.target.read_exact_at(&mut buffer, offset)?;
            let mut rest = buffer.as_slice();
            for place in places {
                let (bytes, behind) = rest.split_at(to_usize(place.len));
                rest = behind;
                if ObjectKind::Data.chunk_id(bytes) != place.id && !lost.contains(&place.id) {
                    return Err(run.differs_at(place.offset));
                }
            }
            run.progress.advance(len as u64);
        }
        let mut check = TargetCheck::new(run.target);
        while run.goes_on()?
            && let Some((offset, len)) = next_zeros(&zeros)
        {
            if !check.reads_back(&PageEntry::Zero { len }, offset)? {
                return Err(run.differs_at(offset));
            }
            run.progress.advance(len);
        }
        Ok(())
    })?;
    run.progress.end();
    Ok(())
}

type Zeros<'a> = Mutex<std::slice::Iter<'a, (u64, u64)>>;

fn zeros_left(zeros: &Zeros<'_>) -> usize {
    zeros.lock().unwrap_or_else(PoisonError::into_inner).len()
}

fn next_zeros(zeros: &Zeros<'_>) -> Option<(u64, u64)> {
    zeros.lock().unwrap_or_else(PoisonError::into_inner).next().copied()
}

/// Shares out placements that are in the order of the image.
struct Runs<'a> {
    rest: Mutex<&'a [Placement]>,
}

impl<'a> Runs<'a> {
    /// Returns the next ones that are neighbours.
    fn next(&self) -> Option<&'a [Placement]> {
        let mut rest = self.rest.lock().unwrap_or_else(PoisonError::into_inner);
        let first = rest.first()?;
        let mut end = first.offset + u64::from(first.len);
        let mut count = 1;
        while let Some(next) = rest.get(count)
            && next.offset == end
            && end + u64::from(next.len) - first.offset <= RUN_LEN
        {
            end += u64::from(next.len);
            count += 1;
        }
        let (places, behind) = rest.split_at(count);
        *rest = behind;
        Some(places)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ChunkId;

    #[test]
    fn neighbours_are_read_at_once_up_to_a_length() {
        let mut plan = Plan::default();
        let third = 900 << 10;
        for (place, offset) in [0_u32, third, 2 * third, 3 * third + 1].into_iter().enumerate() {
            let id = ChunkId::from_bytes([u8::try_from(place).unwrap(); ChunkId::LEN]);
            plan.add(id, third, None, u64::from(offset));
        }
        let (placements, _) = plan.into_order_of_image();
        let runs = Runs { rest: Mutex::new(&placements) };
        let counts: Vec<usize> =
            std::iter::from_fn(|| runs.next()).map(<[Placement]>::len).collect();
        assert_eq!(counts, [2, 1, 1], "the third is too much, before the fourth there is a gap");
    }
}
