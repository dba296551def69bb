//! Random calls against a vector of bytes.

use proptest::prelude::*;

use chunkstore::Overlay;
use chunkstore::overlay::OverlayExtentKind;

use super::{BLOCK_LEN, Scene, read_all};
use support::images;

/// One call. Places and lengths are taken modulo what there is room for.
#[derive(Clone, Debug)]
enum Step {
    Write { place: usize, len: usize, byte: u8 },
    Zero { place: usize, len: usize, may_make_hole: bool },
    Trim { place: usize, len: usize },
    Read { place: usize, len: usize },
    Extents { place: usize, len: usize, count_max: usize },
    Flush,
    Reopen,
}

fn range() -> impl Strategy<Value = (usize, usize)> {
    let place = prop_oneof![any::<usize>(), (0_usize..64).prop_map(|block| block * BLOCK_LEN)];
    let len = prop_oneof![
        1_usize..20_000,
        (1_usize..6).prop_map(|count| count * BLOCK_LEN),
        1_usize..600
    ];
    (place, len)
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (range(), 1_u8..255).prop_map(|((place, len), byte)| Step::Write { place, len, byte }),
        2 => (range(), any::<bool>())
            .prop_map(|((place, len), may_make_hole)| Step::Zero { place, len, may_make_hole }),
        2 => range().prop_map(|(place, len)| Step::Trim { place, len }),
        1 => range().prop_map(|(place, len)| Step::Read { place, len }),
        1 => (range(), 1_usize..9)
            .prop_map(|((place, len), count_max)| Step::Extents { place, len, count_max }),
        2 => Just(Step::Flush),
        1 => Just(Step::Reopen),
    ]
}

/// Makes whole blocks zero, as a trim does.
pub(super) fn trim(bytes: &mut [u8], start: usize, end: usize) {
    let image_end = bytes.len();
    let first = start.next_multiple_of(BLOCK_LEN);
    let last = if end == image_end { end } else { end - end % BLOCK_LEN };
    if first < last {
        bytes[first..last].fill(0);
    }
}

/// Checks that extents lie side by side, and that what they call zero is.
fn check_extents(overlay: &Overlay, model: &[u8], start: usize, end: usize, count_max: usize) {
    let (offset, len) = (start as u64, (end - start) as u64);
    let extents = overlay.extents(offset, len, count_max).unwrap();
    assert!(extents.len() <= count_max);
    let mut place = start;
    for pair in extents.windows(2) {
        assert_ne!(pair[0].kind, pair[1].kind);
    }
    for extent in &extents {
        assert_eq!(extent.range.start, place as u64);
        let next = usize::try_from(extent.range.end).unwrap();
        assert!(place < next);
        if extent.kind != OverlayExtentKind::Data {
            assert!(model[place..next].iter().all(|byte| *byte == 0), "{extent:?}");
        }
        place = next;
    }
    assert!(place == end || extents.len() == count_max, "{extents:?} ends before {end}");
}

fn run(image: &[u8], steps: &[Step]) {
    let scene = Scene::new(image);
    let mut model = image.to_vec();
    let mut overlay = scene.create();
    let bounds = |place: usize, len: usize| {
        let start = place % (image.len() + 1);
        (start, start + len.min(image.len() - start))
    };
    for step in steps {
        match *step {
            Step::Write { place, len, byte } => {
                let (start, end) = bounds(place, len);
                model[start..end].fill(byte);
                overlay.write(start as u64, &model[start..end]).unwrap();
            }
            Step::Zero { place, len, may_make_hole } => {
                let (start, end) = bounds(place, len);
                model[start..end].fill(0);
                overlay.write_zeroes(start as u64, (end - start) as u64, may_make_hole).unwrap();
            }
            Step::Trim { place, len } => {
                let (start, end) = bounds(place, len);
                trim(&mut model, start, end);
                overlay.trim(start as u64, (end - start) as u64).unwrap();
            }
            Step::Read { place, len } => {
                let (start, end) = bounds(place, len);
                let mut bytes = vec![0xee; end - start];
                overlay.read(start as u64, &mut bytes).unwrap();
                assert!(bytes == model[start..end], "{start}..{end}");
                if overlay.is_base(start as u64, (end - start) as u64) {
                    assert!(bytes == image[start..end], "{start}..{end}");
                }
            }
            Step::Extents { place, len, count_max } => {
                let (start, end) = bounds(place, len);
                check_extents(&overlay, &model, start, end, count_max);
            }
            Step::Flush => overlay.flush().unwrap(),
            Step::Reopen => {
                drop(overlay);
                overlay = scene.open().unwrap();
            }
        }
    }
    assert!(read_all(&overlay) == model);
    for extent in overlay.changed_extents(0, overlay.len(), usize::MAX).unwrap() {
        let range = usize::try_from(extent.range.start).unwrap()
            ..usize::try_from(extent.range.end).unwrap();
        assert!(extent.is_changed || model[range.clone()] == image[range]);
    }
    drop(overlay);
    assert!(read_all(&scene.open().unwrap()) == model);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn overlay_is_a_vector_of_bytes(
        seed in 0_u64..20,
        len in prop_oneof![Just(0_usize), Just(4096), 1_usize..9000, 100_000_usize..200_000],
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let mut image = images::image(seed, 240 << 10);
        image.truncate(len);
        run(&image, &steps);
    }
}

#[test]
fn pages_of_the_map_meet_without_a_gap() {
    const PAGE: usize = 32 << 20;
    let image = vec![0; 2 * PAGE + 100];
    let write = |place, len| Step::Write { place, len, byte: 9 };
    let steps = [
        write(PAGE - 5000, 10_000),
        Step::Flush,
        Step::Zero { place: PAGE - 100, len: 9000, may_make_hole: true },
        write(2 * PAGE - 1, 101),
        Step::Reopen,
        Step::Extents { place: PAGE - 9000, len: 40_000, count_max: 9 },
        Step::Trim { place: 0, len: 2 * PAGE },
        write(0, 1),
        Step::Flush,
    ];
    run(&image, &steps);
}
