//! Deduplicating, verified store of disk images.
//!
//! An image is cut into chunks where its content says so; each chunk is stored once, under its digest, compressed, in
//! packs of many chunks. A revision is the state of a source at one time: a list of chunks. Every read is
//! checked against the digest, and a revision is there completely or not at all.
//!
//! ```
//! # let directory = tempfile::tempdir().unwrap();
//! # std::fs::write(directory.path().join("disk.img"), b"hello, disk").unwrap();
//! use chunkstore::ops::{self, BackupOptions};
//! use chunkstore::progress::NoProgress;
//! use chunkstore::source::FileSource;
//! use chunkstore::{ImageReader, Store, StoreOptions};
//!
//! let store = Store::create(directory.path().join("store"), &StoreOptions::default())?;
//! let source = FileSource::open(&directory.path().join("disk.img"))?;
//! let stats = ops::backup(&store, &source, &BackupOptions::new("disk".parse()?), &NoProgress)?;
//!
//! let image = ImageReader::open(&store, &stats.id)?;
//! let mut bytes = vec![0; 5];
//! image.read_exact_at(&mut bytes, 0)?;
//! assert_eq!(bytes, b"hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The modules, in reading order: values ([`id`], [`units`], [`time`], [`limits`], [`progress`]), pure bytes
//! ([`chunking`], [`compression`], [`mod@format`], [`whisper`]), files ([`vfs`], [`storage`], [`source`], [`target`]), the whole
//! ([`store`], [`image_reader`]) and the verbs ([`ops`]). A module uses its own layer and those before it.

pub mod id;
pub mod limits;
#[doc(hidden)]
pub mod planted;
pub mod progress;
pub mod time;
pub mod tree_reader;
pub mod units;

pub mod chunking;
pub mod compression;
pub mod format;
pub mod whisper;

pub mod environment;
pub mod layout;
pub mod source;
pub mod storage;
pub mod target;
pub mod vfs;

mod budget;
mod cache;
pub mod error;
mod index;
pub mod lock;
mod pack;
pub mod retention;
pub mod revision;
pub mod revision_spec;
mod session;

mod ballast;
mod chunk_list;
mod chunk_reader;
mod damage;
mod given_up;
pub mod image_reader;
mod ledger;
mod mark;
pub mod overlay;
mod parallel;
mod pinned;
mod quarantine;
pub mod store;
pub mod versions;

pub mod ops;

pub use crate::error::{Error, Result};
pub use crate::image_reader::{Allocation, ChunkCache, Extent, ImageReader, Run};
pub use crate::overlay::Overlay;
pub use crate::revision::{History, Revision};
pub use crate::store::{FORMAT_VERSION, Store, StoreOptions};
pub use crate::tree_reader::TreeReader;
pub use crate::versions::Versions;

/// Compiles the example in `README.md`.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;
