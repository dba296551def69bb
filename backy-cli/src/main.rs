//! The binary `backy`.

fn main() {}
