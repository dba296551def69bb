//! Serves block devices over the NBD protocol: reserved, and still empty.
//!
//! There is no server yet. The crate is here so that its place in the workspace is fixed: it will
//! know the NBD protocol and a small `Export` trait, and nothing of the store. Until then a revision is read with
//! `backy restore`, or in a program with `chunkstore::ImageReader`.
