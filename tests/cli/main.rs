//! Black-box tests of the binary `backy`: wiring, printing and exit codes. What operations do to a
//! store is tested through the library.

mod backup;
mod catalogue;
mod damage;
mod diff;
mod expire;
mod help;
mod init;
mod json;
mod locks_and_signals;
mod nbd;
mod overlay;
mod repair;
mod restore;
mod revisions;
mod scene;
mod scrub;
mod space;
mod system;
mod tags;
mod trust;
mod whisper;
