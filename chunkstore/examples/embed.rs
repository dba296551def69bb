//! Embeds the library: keeps revisions of one file in a store, and gets bytes back.
//!
//! ```sh
//! cargo run --example embed -- STORE FILE RESTORED
//! ```
//!
//! creates `STORE` if there is none, adds a revision of `FILE`, says what was new, shows how the image begins,
//! and writes the revision to `RESTORED`.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::path::Path;

use chunkstore::image_reader::ImageReader;
use chunkstore::ops::{self, BackupOptions, RestoreOptions};
use chunkstore::progress::NoProgress;
use chunkstore::source::FileSource;
use chunkstore::store::{Store, StoreOptions};
use chunkstore::target::{FileTarget, FileTargetOptions};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [store, file, restored] = arguments.as_slice() else {
        return Err("usage: embed STORE FILE RESTORED".into());
    };
    run(store.as_ref(), file.as_ref(), restored.as_ref())
}

/// Backs `file` up to `store` and restores the new revision to `restored`.
pub(crate) fn run(store: &Path, file: &Path, restored: &Path) -> Result<(), Box<dyn Error>> {
    let store = if store.join("store.json").exists() {
        Store::open(store)?
    } else {
        Store::create(store, &StoreOptions::default())?
    };

    // The name groups revisions: the next backup under this name builds on this one.
    let options = BackupOptions::new("embedded".parse()?);
    let stats = ops::backup(&store, &FileSource::open(file)?, &options, &NoProgress)?;
    println!("revision {}: {} new bytes", stats.id, stats.statistics.new_bytes);

    // Any range can be read without restoring the rest. The reader keeps purge away from it.
    let image = ImageReader::open(&store, &stats.id)?;
    let mut start = vec![0; usize::try_from(image.len().min(16))?];
    image.read_exact_at(&mut start, 0)?;
    println!("begins with {start:02x?}");

    let target = FileTarget::open(restored, &FileTargetOptions::default())?;
    ops::restore(&store, &stats.id, &target, &RestoreOptions::default(), &NoProgress)?;
    Ok(())
}
