//! Serves block devices over the NBD protocol.
//!
//! Implement [`Export`] for what is to be served and [`Exports`] for the names that it is found by; [`Server`] does the rest.
//! `docs/nbd.md` lists what of the protocol is supported, and the limits that protect a server from its clients.
//!
//! The protocol itself does no I/O: [`handshake::Handshake`] and [`transmission::Transmission`] take bytes and say what to do, so
//! they can be driven by anything else than sockets and threads as well.
//!
//! ```
//! use std::sync::Arc;
//! use nbd_server::{Export, ExportError, Exports, Listener, ListedExport, NamedExport, OpenError};
//!
//! #[derive(Debug)]
//! struct Memory(Vec<u8>);
//!
//! impl Export for Memory {
//!     fn size(&self) -> u64 {
//!         self.0.len() as u64
//!     }
//!     fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), ExportError> {
//!         let start = offset as usize;
//!         buffer.copy_from_slice(&self.0[start..start + buffer.len()]);
//!         Ok(())
//!     }
//! }
//!
//! #[derive(Debug)]
//! struct OneDisk(Arc<Memory>);
//!
//! impl Exports for OneDisk {
//!     fn list(&self) -> Result<Vec<ListedExport>, OpenError> {
//!         Ok(vec![ListedExport { name: "disk".to_owned(), description: String::new() }])
//!     }
//!     fn open(&self, name: &str) -> Result<NamedExport, OpenError> {
//!         match name {
//!             "" | "disk" => Ok(NamedExport { name: "disk".to_owned(), export: self.0.clone() }),
//!             _ => Err(OpenError::Unknown),
//!         }
//!     }
//! }
//!
//! let listener = Listener::tcp("127.0.0.1:0".parse()?)?;
//! let exports = Arc::new(OneDisk(Arc::new(Memory(vec![7; 1 << 20]))));
//! let server = nbd_server::Server::start(vec![listener], exports, Default::default())?;
//! server.stop_handle().stop(); // from a signal, say
//! server.wait();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod execute;
pub mod export;
pub mod handshake;
pub mod limits;
mod option;
pub mod proto;
pub mod reply;
mod server;
pub mod session;
pub mod transmission;

// Unit tests use the same exports in memory as the integration tests, which see this crate from outside.
#[cfg(test)]
extern crate self as nbd_server;
#[cfg(test)]
#[path = "../tests/it/memory.rs"]
mod memory;

pub use self::export::{
    BlockSizes, Export, ExportError, ExportWriter, Exports, Extent, ListedExport, MetaContext,
    NamedExport, OpenError, StatusExtent, ZeroOptions,
};
pub use self::limits::Limits;
pub use self::proto::ErrorCode;
pub use self::server::{
    Event, Listener, Monitor, Options, Peer, Server, StopHandle, Tls, TlsError,
};
