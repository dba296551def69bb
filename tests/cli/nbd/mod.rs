//! `nbd-server` with real clients: those of libnbd, of qemu, fio.

mod clients;
mod listening;
mod names;
mod server;
mod writes;
