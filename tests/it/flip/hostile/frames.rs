//! Zstandard frames by hand (RFC 8878), of runs of one byte.

/// Magic of a frame.
const MAGIC: [u8; 4] = 0xfd2f_b528_u32.to_le_bytes();

/// Magic of a frame that decoders skip.
const SKIPPABLE: [u8; 4] = 0x184d_2a50_u32.to_le_bytes();

/// Longest block of a frame.
const BLOCK_LEN: u32 = 128 << 10;

/// Window of 1 MiB: exponent 10 above the least, 1 KiB.
const WINDOW: u8 = 10 << 3;

/// Window of 2 GiB.
const WINDOW_HUGE: u8 = 21 << 3;

/// Flags in the descriptor of a frame.
const SIZE_OF_4_BYTES: u8 = 2 << 6;
const DICTIONARY_OF_1_BYTE: u8 = 1;

/// Returns blocks that expand to `len` times `x`: four bytes for each 128 KiB.
fn blocks(len: u64) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = len;
    while 0 < rest {
        let block = u32::try_from(rest.min(BLOCK_LEN.into())).unwrap();
        rest -= u64::from(block);
        let (last, run_of_one_byte) = (u32::from(rest == 0), 1 << 1);
        let header = (last | run_of_one_byte | (block << 3)).to_le_bytes();
        out.extend_from_slice(&header[..3]);
        out.push(b'x');
    }
    out
}

fn frame(descriptor: u8, header: &[u8], blocks: &[u8]) -> Vec<u8> {
    [&MAGIC[..], &[descriptor], header, blocks].concat()
}

/// Returns a frame of `len` times `x`, with or without its size in the header.
pub(super) fn run(len: u32, has_size: bool) -> Vec<u8> {
    sized(len, len.into(), has_size)
}

/// A frame that says one length and has another.
fn sized(said: u32, len: u64, has_size: bool) -> Vec<u8> {
    let size = said.to_le_bytes();
    if has_size {
        frame(SIZE_OF_4_BYTES, &[&[WINDOW], &size[..]].concat(), &blocks(len))
    } else {
        frame(0, &[WINDOW], &blocks(len))
    }
}

/// Returns frames with their names, and whether they may be taken for `len` times `x`.
pub(super) fn all(len: u32) -> Vec<(&'static str, Vec<u8>, bool)> {
    let sound = run(len, true);
    let size = len.to_le_bytes();
    let bomb = 4_u64 << 30;
    let skipped = [&SKIPPABLE[..], &4_u32.to_le_bytes(), b"junk"].concat();
    let huge_skip = [&SKIPPABLE[..], &u32::MAX.to_le_bytes(), b"junk"].concat();
    let cut = sound[..sound.len() - 2].to_vec();
    vec![
        ("frame that expands to 4 GiB and says 1 MiB", sized(len, bomb, true), false),
        ("frame that expands to 4 GiB and says nothing", sized(len, bomb, false), false),
        ("frame that expands to 4 GiB and says so", sized(u32::MAX, bomb - 1, true), false),
        ("frame that expands to a byte more", sized(len, u64::from(len) + 1, false), false),
        ("frame that expands to a byte less", sized(len, u64::from(len) - 1, false), false),
        ("frame without a size", run(len, false), true),
        (
            "frame with a window of 2 GiB",
            frame(SIZE_OF_4_BYTES, &[&[WINDOW_HUGE], &size[..]].concat(), &blocks(len.into())),
            true,
        ),
        (
            "frame with a window of 2 GiB and no size",
            frame(0, &[WINDOW_HUGE], &blocks(len.into())),
            true,
        ),
        (
            "frame with a dictionary",
            frame(
                SIZE_OF_4_BYTES | DICTIONARY_OF_1_BYTE,
                &[&[WINDOW, 7], &size[..]].concat(),
                &blocks(len.into()),
            ),
            false,
        ),
        ("frame that is cut", cut, false),
        ("frame with something behind it", [&sound[..], b"junk"].concat(), false),
        ("frame with an empty frame behind it", [&sound[..], &run(0, true)].concat(), false),
        ("frame with a skipped one before it", [&skipped[..], &sound].concat(), false),
        ("frame with a skipped one behind it", [&sound[..], &skipped].concat(), false),
        ("skipped frame of 4 GiB", huge_skip, false),
        ("two halves", [run(len / 2, true), run(len / 2, true)].concat(), false),
        ("no frame", b"x".to_vec(), false),
    ]
}
