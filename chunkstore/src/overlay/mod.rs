//! An image that can be written, over a revision that never changes.
//!
//! Format: `docs/format.md`, section "Overlay file". Order of what becomes durable: `docs/durability.md`, section "An overlay".
//!
//! Invariants: what was flushed is there after a loss of power; a block that was written since reads as it was or as it became, in each of
//! its sectors. What was written is never taken for the revision again: where the map cannot be read, there is an error. After a failed
//! sync nothing is written any more.

mod directory;
mod extents;
mod file;
mod flush;
mod geometry;
mod map;
mod source;
mod write;

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use self::directory::Directory;
pub use self::extents::{ChangedExtent, OverlayExtent, OverlayExtentKind};
use self::file::{Access, Backing};
use self::flush::FlushState;
use self::geometry::{PAGE_IMAGE_LEN, indexes, memory_len, page_of, pieces};
use self::map::Map;
use crate::environment::Environment;
use crate::error::{Error, ObjectName, Result, unsupported_or_damaged};
use crate::format::{BlockState, FormatError, OverlayHeader};
use crate::id::{OverlayId, RevisionId};
use crate::image_reader::{ChunkCache, ImageReader};
use crate::revision::Revision;
use crate::store::Store;
use crate::vfs::{LockMode, VfsFile, parent_of};

/// Locks for neighbourhoods of the image: as many writes of parts of blocks go on at once.
const STRIPE_COUNT: usize = 64;

/// A writable image over a revision: one file, with what differs.
///
/// All calls may come from several threads. The revision is pinned while the overlay is open, and not longer: when it was
/// forgotten meanwhile and a purge has run, the overlay cannot be opened any more.
///
/// # Examples
///
/// ```
/// # let directory = tempfile::tempdir().unwrap();
/// # std::fs::write(directory.path().join("disk.img"), b"hello, disk").unwrap();
/// use std::sync::Arc;
///
/// use chunkstore::ops::{self, BackupOptions};
/// use chunkstore::progress::NoProgress;
/// use chunkstore::source::FileSource;
/// use chunkstore::{ImageReader, Overlay, Store, StoreOptions};
///
/// let store = Store::create(directory.path().join("store"), &StoreOptions::default())?;
/// let source = FileSource::open(&directory.path().join("disk.img"))?;
/// let stats = ops::backup(&store, &source, &BackupOptions::new("disk".parse()?), &NoProgress)?;
///
/// let revision = Arc::new(ImageReader::open(&store, &stats.id)?);
/// let path = directory.path().join("disk.overlay");
/// let overlay = Overlay::create(&path, revision)?;
/// overlay.write(0, b"HELLO")?;
/// overlay.close()?;
/// drop(overlay);
///
/// let overlay = Overlay::open(&path, &store)?;
/// let mut bytes = [0; 11];
/// overlay.read(0, &mut bytes)?;
/// assert_eq!(&bytes, b"HELLO, disk");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Overlay {
    name: String,
    file: Backing,
    base: Arc<ImageReader>,
    map: Map,
    /// Held while blocks of a neighbourhood change.
    stripes: Vec<Mutex<()>>,
    flushing: Mutex<FlushState>,
    /// Data was written since the last sync.
    is_unsynced: AtomicBool,
}

impl Overlay {
    /// Creates an overlay over the revision of `base`. Its file and its name are durable when the call returns.
    ///
    /// # Errors
    ///
    /// - [`Error::Storage`], with [`io::ErrorKind::AlreadyExists`] if the name is taken.
    pub fn create(path: &Path, base: Arc<ImageReader>) -> Result<Self> {
        let environment = base.store().environment().clone();
        let vfs = environment.vfs.as_ref();
        let file = vfs.create_private(path).map_err(Error::storage("create", path))?;
        let make = || {
            let overlay = Self::begin(&environment, path, file, base, Access::Durable)?;
            let directory = parent_of(path);
            vfs.sync_dir(&directory).map_err(Error::storage("sync", directory))?;
            Ok(overlay)
        };
        make().inspect_err(|_| {
            let _stays_without_header = vfs.remove_file(path);
        })
    }

    /// Creates an overlay without a name in `directory`. What is written to it is gone when it is dropped, or with the process;
    /// nothing of it is made durable.
    ///
    /// # Errors
    ///
    /// - [`Error::Storage`].
    pub fn throwaway(directory: &Path, base: Arc<ImageReader>) -> Result<Self> {
        let environment = base.store().environment().clone();
        let vfs = environment.vfs.as_ref();
        let path = directory.join(format!(".overlay-{}", random_id(&environment)));
        let file = vfs.create_private(&path).map_err(Error::storage("create", &path))?;
        vfs.remove_file(&path).map_err(Error::storage("remove", &path))?;
        Self::begin(&environment, &path, file, base, Access::Throwaway)
    }

    /// Opens an overlay and the revision below it. One process at a time can have it open.
    ///
    /// # Errors
    ///
    /// - [`Error::Locked`] if somebody has it open.
    /// - [`Error::OtherStore`] if its revision is in another store.
    /// - [`Error::NoSuchBase`] if its revision was forgotten.
    /// - [`Error::Damaged`], naming the overlay, if its header or the directory of its map is damaged, or if it is no overlay. Damage
    ///   elsewhere is an error of whoever reads there.
    /// - [`Error::UnsupportedFormat`] if a newer program wrote it.
    /// - [`Error::Storage`].
    pub fn open(path: &Path, store: &Store) -> Result<Self> {
        let open = |id: &RevisionId| ImageReader::open(store, id);
        Self::open_as(path, store, Access::Durable, open)
    }

    /// As [`Self::open`], with a cache for the revision that other readers share.
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub fn open_with_cache(path: &Path, store: &Store, cache: Arc<ChunkCache>) -> Result<Self> {
        let open = |id: &RevisionId| ImageReader::open_with_cache(store, id, cache);
        Self::open_as(path, store, Access::Durable, open)
    }

    /// Opens an overlay for reading only; its file is not changed. Others cannot open it meanwhile.
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub fn open_for_reading(path: &Path, store: &Store) -> Result<Self> {
        let open = |id: &RevisionId| ImageReader::open(store, id);
        Self::open_as(path, store, Access::ReadOnly, open)
    }

    fn open_as(
        path: &Path,
        store: &Store,
        access: Access,
        open_base: impl FnOnce(&RevisionId) -> Result<ImageReader>,
    ) -> Result<Self> {
        let vfs = store.environment().vfs.as_ref();
        let file =
            vfs.open(path, access != Access::ReadOnly).map_err(Error::storage("open", path))?;
        lock(path, file.as_ref())?;
        let header = read_header(path, file.as_ref())?;
        if header.store_id != store.id() {
            let (found, expected) = (header.store_id, store.id());
            return Err(Error::OtherStore { path: path.to_path_buf(), found, expected });
        }
        let base = match open_base(&header.revision) {
            Err(Error::NoSuchRevision { id }) => {
                let (path, source_name) = (path.to_path_buf(), header.source);
                return Err(Error::NoSuchBase { path, source_name, id });
            }
            base => Arc::new(base?),
        };
        let file = Backing::new(path.to_path_buf(), file, header.id, header.image_len, access);
        if base.len() != header.image_len {
            let what = "its revision is of another size";
            return Err(file.damaged(Some(FormatError::Inconsistent { what })));
        }
        let directory = Directory::open(&file)?;
        Self::assemble(file, base, directory)
    }

    /// Writes what an overlay begins with. The header comes last: an overlay that has one is complete.
    fn begin(
        environment: &Environment,
        path: &Path,
        file: Box<dyn VfsFile>,
        base: Arc<ImageReader>,
        access: Access,
    ) -> Result<Self> {
        lock(path, file.as_ref())?;
        let record = &base.revision().record;
        let header = OverlayHeader {
            id: random_id(environment),
            store_id: base.store().id(),
            revision: record.id,
            source: record.source.clone(),
            image_len: base.len(),
        };
        let file = Backing::new(path.to_path_buf(), file, header.id, header.image_len, access);
        file.reserve(0, file.geometry.map_start)?;
        let directory = Directory::create(&file)?;
        file.sync()?;
        file.write(&header.encode(), 0)?;
        file.sync()?;
        Self::assemble(file, base, directory)
    }

    fn assemble(file: Backing, base: Arc<ImageReader>, directory: Directory) -> Result<Self> {
        let flushing = Mutex::new(FlushState { is_closed: directory.is_closed() });
        let map = Map::new(&file, directory)?;
        Ok(Self {
            name: file.path.display().to_string(),
            file,
            base,
            map,
            stripes: (0..STRIPE_COUNT).map(|_| Mutex::new(())).collect(),
            flushing,
            is_unsynced: AtomicBool::new(false),
        })
    }

    /// Returns the file. That of a throwaway overlay has no such name any more.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// Returns the revision below.
    #[must_use]
    pub fn revision(&self) -> &Revision {
        self.base.revision()
    }

    /// Returns the reader of the revision below.
    #[must_use]
    pub fn base(&self) -> &Arc<ImageReader> {
        &self.base
    }

    /// Returns the size of the image in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.file.geometry.image_len
    }

    /// Returns whether the image has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `buffer` with the bytes of the image at `offset`.
    ///
    /// # Errors
    ///
    /// - [`Error::InvalidOption`] if the range does not lie in the image.
    /// - [`Error::Damaged`] if the page of the map for this range is, or as [`ImageReader::read_exact_at`].
    /// - [`Error::Storage`].
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let range = self.check_range(offset, buffer.len() as u64)?;
        let mut rest = buffer;
        self.for_each_run(range, |run, state| {
            let len = memory_len(&run);
            let (part, behind) = std::mem::take(&mut rest).split_at_mut(len);
            rest = behind;
            match state {
                BlockState::Base => self.base.read_exact_at(part, run.start)?,
                BlockState::Data => self.file.read_data(part, run.start)?,
                BlockState::Zero => part.fill(0),
            }
            Ok(true)
        })
    }

    /// Returns whether all of a range is known to be as in the revision, without any I/O: then [`Self::base`] can be read instead. `false`
    /// if it is not, or if the file would have to be asked.
    #[must_use]
    pub fn is_base(&self, offset: u64, len: u64) -> bool {
        let Ok(range) = self.check_range(offset, len) else { return false };
        pieces(range, PAGE_IMAGE_LEN).all(|piece| match self.map.in_memory(page_of(piece.start)) {
            None => false,
            Some(None) => true,
            Some(Some(page)) => {
                let blocks = indexes(&piece);
                let (state, end) = page.lock().states.run(blocks.start, blocks.end);
                state == BlockState::Base && end == blocks.end
            }
        })
    }

    /// Calls `visit` for the runs of blocks of one state in a range, in order, until it returns `false`. Neighbouring runs may have
    /// the same state.
    fn for_each_run(
        &self,
        range: Range<u64>,
        mut visit: impl FnMut(Range<u64>, BlockState) -> Result<bool>,
    ) -> Result<()> {
        for piece in pieces(range, PAGE_IMAGE_LEN) {
            let number = page_of(piece.start);
            let Some(page) = self.map.for_reading(&self.file, number)? else {
                if !visit(piece, BlockState::Base)? {
                    return Ok(());
                }
                continue;
            };
            let mut start = piece.start;
            while start < piece.end {
                let blocks = indexes(&(start..piece.end));
                let (state, end) = page.lock().states.run(blocks.start, blocks.end);
                let end = number * PAGE_IMAGE_LEN + end as u64 * geometry::BLOCK_LEN;
                let run = start..end.min(piece.end);
                start = run.end;
                if !visit(run, state)? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn check_range(&self, offset: u64, len: u64) -> Result<Range<u64>> {
        match offset.checked_add(len) {
            Some(end) if end <= self.len() => Ok(offset..end),
            _ => Err(Error::InvalidOption {
                what: format!("{len} bytes at byte {offset} of an image of {} bytes", self.len()),
            }),
        }
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        if self.file.access == Access::Durable {
            let _what_was_flushed_is_there = self.close();
        }
    }
}

fn random_id(environment: &Environment) -> OverlayId {
    let mut random = [0; OverlayId::LEN];
    environment.entropy.fill(&mut random);
    OverlayId::from_bytes(random)
}

/// Locks an overlay until its file is closed.
fn lock(path: &Path, file: &dyn VfsFile) -> Result<()> {
    if file.try_lock(LockMode::Exclusive).map_err(Error::storage("lock", path))? {
        return Ok(());
    }
    let what = format!("overlay {}", path.display());
    Err(Error::Locked { what, holder: "another process that has it open".to_owned() })
}

fn read_header(path: &Path, file: &dyn VfsFile) -> Result<OverlayHeader> {
    let object = || ObjectName::Overlay { path: path.to_path_buf() };
    let mut bytes = [0; OverlayHeader::LEN];
    match file.read_exact_at(&mut bytes, 0) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            let source = FormatError::Truncated { field: "overlay header" };
            Err(Error::Damaged { object: object(), source })
        }
        other => {
            other.map_err(Error::storage("read", path))?;
            OverlayHeader::decode(&bytes).map_err(|reason| unsupported_or_damaged(object(), reason))
        }
    }
}
