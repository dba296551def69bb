//! The server on real sockets: what it shall do, and what nobody shall make it do.

#![expect(
    clippy::unwrap_used,
    clippy::panic_in_result_fn,
    clippy::print_stdout,
    reason = "tests fail by panicking, and say on standard output what they leave out"
)]

mod clients;
mod cves;
mod hostile;
mod limits;
mod listeners;
mod memory;
mod own_process;
mod protocol;
mod scene;
mod stress;
mod tls;
mod wire;
