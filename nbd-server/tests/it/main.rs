//! The server on real sockets: what it shall do, and what nobody shall make it do.

mod cves;
mod limits;
mod memory;
mod protocol;
mod scene;
mod tls;
mod wire;
