//! The server on real sockets: what it shall do, and what nobody shall make it do.

mod clients;
mod cves;
mod hostile;
mod limits;
mod memory;
mod own_process;
mod protocol;
mod scene;
mod stress;
mod tls;
mod wire;
