//! The NBD client of the Linux kernel, in a virtual machine: devices, partitions, file systems, and what becomes of
//! them when a server or a machine ends. `tests/guest/prepare` makes what is booted.

mod disks;
mod ends;
mod machine;
mod reads;
mod server;
mod volumes;
mod writes;
