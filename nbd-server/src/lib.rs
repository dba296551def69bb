//! Serves block devices over the NBD protocol.
