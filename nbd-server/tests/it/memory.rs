//! Exports in memory for tests, with lies and faults on order. Also part of the crate's unit tests and of the fuzz target.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nbd_server::{
    BlockSizes, ErrorCode, Export, ExportError, ExportWriter, Exports, Extent, ListedExport,
    MetaContext, NamedExport, OpenError, StatusExtent, ZeroOptions,
};

/// Blocks whose content decides whether an extent is zero.
const BLOCK_LEN: usize = 4096;

/// Things that are taken down in one list.
const NOTED_COUNT_MAX: usize = 20_000;

/// What was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Read,
    Extents,
    Cache,
    Write,
    WriteZeroes(ZeroOptions),
    Trim,
    Flush,
}

type Hook = dyn Fn(Call, u64, u64) -> Result<(), ExportError> + Send + Sync;

/// Takes something down, as long as the list is not too long.
pub(crate) fn note<T>(list: &Mutex<Vec<T>>, what: T) {
    let mut list = list.lock().unwrap_or_else(PoisonError::into_inner);
    if list.len() < NOTED_COUNT_MAX {
        list.push(what);
    }
}

/// An image in memory.
pub(crate) struct Memory {
    pub(crate) bytes: Mutex<Vec<u8>>,
    /// Size to claim, if it is not that of the bytes.
    pub(crate) claimed_size: Option<u64>,
    pub(crate) is_writable: bool,
    pub(crate) can_cache: bool,
    /// Whether reads are answered at once.
    pub(crate) is_at_hand: bool,
    pub(crate) block_sizes: BlockSizes,
    /// What to say instead of the truth.
    pub(crate) extents: Option<Vec<Extent>>,
    /// Metadata contexts: name, whether it is listed, and what it says.
    pub(crate) contexts: Vec<(String, bool, Vec<StatusExtent>)>,
    /// Called before everything: fails, panics, waits.
    pub(crate) before: Box<Hook>,
    /// Everything that was called.
    pub(crate) calls: Mutex<Vec<(Call, u64, u64)>>,
}

impl fmt::Debug for Memory {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Memory").field("is_writable", &self.is_writable).finish()
    }
}

impl Memory {
    /// Makes an image of these bytes that is read-only and tells the truth.
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self {
            bytes: Mutex::new(bytes),
            claimed_size: None,
            is_writable: false,
            can_cache: false,
            is_at_hand: false,
            block_sizes: BlockSizes::default(),
            extents: None,
            contexts: Vec::new(),
            before: Box::new(|_, _, _| Ok(())),
            calls: Mutex::default(),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn call(&self, call: Call, offset: u64, len: u64) -> Result<(), ExportError> {
        note(&self.calls, (call, offset, len));
        (self.before)(call, offset, len)
    }

    fn fill(&self, offset: u64, len: u64) {
        let start = usize::try_from(offset).expect("small");
        let len = usize::try_from(len).expect("small");
        self.lock()[start..start + len].fill(0);
    }
}

impl Export for Memory {
    fn size(&self) -> u64 {
        self.claimed_size.unwrap_or_else(|| u64::try_from(self.lock().len()).expect("small"))
    }

    fn block_sizes(&self) -> BlockSizes {
        self.block_sizes
    }

    fn description(&self) -> Option<String> {
        Some("an image in memory".to_owned())
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), ExportError> {
        self.call(Call::Read, offset, u64::try_from(buffer.len()).expect("small"))?;
        let start = usize::try_from(offset).expect("small");
        buffer.copy_from_slice(&self.lock()[start..start + buffer.len()]);
        Ok(())
    }

    fn read_immediately(&self, offset: u64, buffer: &mut [u8]) -> bool {
        self.is_at_hand && self.read(offset, buffer).is_ok()
    }

    fn extents(&self, offset: u64, len: u64, count_max: usize) -> Result<Vec<Extent>, ExportError> {
        self.call(Call::Extents, offset, len)?;
        if let Some(extents) = &self.extents {
            return Ok(extents.clone());
        }
        let bytes = self.lock();
        let end = usize::try_from(offset + len).expect("small").min(bytes.len());
        let mut start = usize::try_from(offset).expect("small");
        let mut extents = Vec::new();
        while start < end && extents.len() < count_max {
            let next = (start / BLOCK_LEN + 1) * BLOCK_LEN;
            let next = next.min(end);
            let is_zero = bytes[start..next].iter().all(|byte| *byte == 0);
            let len = u64::try_from(next - start).expect("small");
            extents.push(Extent { len, is_hole: is_zero, is_zero });
            start = next;
        }
        Ok(extents)
    }

    fn contexts(&self) -> Vec<String> {
        let listed = self.contexts.iter().filter(|(_, is_listed, _)| *is_listed);
        listed.map(|(name, ..)| name.clone()).collect()
    }

    fn open_context(&self, name: &str) -> Result<Arc<dyn MetaContext>, OpenError> {
        if name == "x-test:failed" {
            return Err(OpenError::Failed("not now".to_owned()));
        }
        let found = self.contexts.iter().find(|(of, ..)| of == name).ok_or(OpenError::Unknown)?;
        Ok(Arc::new(Status(found.2.clone())))
    }

    fn can_cache(&self) -> bool {
        self.can_cache
    }

    fn cache(&self, offset: u64, len: u64) -> Result<(), ExportError> {
        self.call(Call::Cache, offset, len)
    }

    fn writer(&self) -> Option<&dyn ExportWriter> {
        if self.is_writable { Some(self) } else { None }
    }
}

impl ExportWriter for Memory {
    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), ExportError> {
        self.call(Call::Write, offset, u64::try_from(bytes.len()).expect("small"))?;
        let start = usize::try_from(offset).expect("small");
        self.lock()[start..start + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn write_zeroes(&self, offset: u64, len: u64, options: ZeroOptions) -> Result<(), ExportError> {
        self.call(Call::WriteZeroes(options), offset, len)?;
        self.fill(offset, len);
        Ok(())
    }

    fn trim(&self, offset: u64, len: u64) -> Result<(), ExportError> {
        self.call(Call::Trim, offset, len)?;
        self.fill(offset, len);
        Ok(())
    }

    fn flush(&self) -> Result<(), ExportError> {
        self.call(Call::Flush, 0, 0)
    }
}

#[derive(Debug)]
struct Status(Vec<StatusExtent>);

impl MetaContext for Status {
    fn extents(&self, _: u64, _: u64, _: usize) -> Result<Vec<StatusExtent>, ExportError> {
        if self.0.iter().any(|one| one.flags == u32::MAX) {
            return Err(ExportError::new(ErrorCode::Io, "the context is damaged"));
        }
        Ok(self.0.clone())
    }
}

/// A bug, for tests of what one costs.
fn fault() -> ! {
    panic!("wanted by the test")
}

/// Exports by name; the empty name is the first one. `refused`, `failed` and `panics` do what they say.
#[derive(Debug)]
pub(crate) struct Disks {
    pub(crate) disks: Vec<(String, Arc<Memory>)>,
    /// Names that are listed beside those.
    pub(crate) listed: Vec<String>,
    pub(crate) list_error: Option<OpenError>,
    /// Names that were asked for.
    pub(crate) opened: Mutex<Vec<String>>,
}

impl Disks {
    pub(crate) fn new(disks: Vec<(&str, Memory)>) -> Self {
        let own = |(name, disk): (&str, Memory)| (name.to_owned(), Arc::new(disk));
        Self {
            disks: disks.into_iter().map(own).collect(),
            listed: Vec::new(),
            list_error: None,
            opened: Mutex::default(),
        }
    }
}

impl Exports for Disks {
    fn list(&self) -> Result<Vec<ListedExport>, OpenError> {
        if let Some(error) = &self.list_error {
            return Err(error.clone());
        }
        let names = self.disks.iter().map(|(name, _)| name).chain(&self.listed);
        let listed =
            |name: &String| ListedExport { name: name.clone(), description: "disk".into() };
        Ok(names.map(listed).collect())
    }

    fn open(&self, name: &str) -> Result<NamedExport, OpenError> {
        note(&self.opened, name.to_owned());
        match name {
            "refused" => return Err(OpenError::Refused("not for you".to_owned())),
            "failed" => return Err(OpenError::Failed(format!("not now: {name}"))),
            "panics" => fault(),
            _ => {}
        }
        let is_it = |disk: &&(String, Arc<Memory>)| name.is_empty() || disk.0 == name;
        let (name, disk) = self.disks.iter().find(is_it).ok_or(OpenError::Unknown)?;
        Ok(NamedExport { name: name.clone(), export: Arc::<Memory>::clone(disk) })
    }
}
